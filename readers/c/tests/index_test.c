/* The index: used where it is true, ignored where it is not. */
#define _GNU_SOURCE
#include "support.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static immuta_c_reader *reader;
static immuta_c_tailer *tailer;
static struct immuta_c_record record;

/* The index of the log below: blocks of 1000 records, behind each of which a writer began; the third is not covered yet. */
static void make_index(struct log *log, uint64_t inode)
{
    static unsigned char bytes[24000];
    index_begin(log, inode);
    for (uint64_t first = 0; first < 2000; first += 1000) {
        CHECK(pread(log->fd, bytes, sizeof bytes, (off_t)(8 + 24 * first)) == sizeof bytes);
        index_entry(log, first, 8 + 24 * first, sizeof bytes, 1000, 1, crc32c(bytes, sizeof bytes));
        index_entry(log, first + 1000, 8 + 24 * first + sizeof bytes, 48, 2, 2, 99);
    }
}

/* 3000 records. Where the first is damaged, whoever finds a record behind the first block had the index. */
static void make(struct log *log, bool damaged)
{
    log_begin(log);
    for (int i = 0; i < 3000; i++)
        log_put(log, 16);
    if (damaged)
        log_raw(log, 8, UINT64_MAX);
    log_store(log);
    make_index(log, log->inode);
}

static int get(const struct log *log, uint64_t sequence)
{
    CHECK(immuta_c_reader_open(log->path, NULL, &reader) == IMMUTA_C_OK);
    int status = immuta_c_reader_get(reader, sequence, &record);
    if (status == IMMUTA_C_OK)
        payload_check(&record, sequence, 16);
    immuta_c_reader_close(reader);
    return status;
}

static void is_used(void)
{
    struct log log;
    make(&log, true);
    static const uint64_t sequences[] = { 1000, 1001, 1999, 2000, 2001, 2999 }; /* the last block is not covered yet */
    for (size_t i = 0; i < sizeof sequences / sizeof *sequences; i++)
        CHECK(get(&log, sequences[i]) == IMMUTA_C_OK);
    CHECK(get(&log, 999) == IMMUTA_C_DAMAGED);
    CHECK(immuta_c_reader_open(log.path, NULL, &reader) == IMMUTA_C_OK);
    static const struct {
        enum immuta_c_start start;
        uint64_t n, first;
    } cases[] = { { IMMUTA_C_SEQUENCE, 1500, 1500 }, { IMMUTA_C_LAST, 1, 2999 }, { IMMUTA_C_LAST, 1500, 1500 }, { IMMUTA_C_END, 0, 3000 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK(immuta_c_reader_tail(reader, cases[i].start, cases[i].n, &tailer) == IMMUTA_C_OK);
        for (uint64_t n = cases[i].first; n < 3000; n++) {
            CHECK(immuta_c_tailer_try_next(tailer, &record) == IMMUTA_C_OK);
            payload_check(&record, n, 16);
        }
        CHECK(immuta_c_tailer_try_next(tailer, &record) == IMMUTA_C_NONE);
        immuta_c_tailer_close(tailer);
    }
    immuta_c_reader_close(reader);

    char name[128], index[128], linked[128]; /* it lies beside what a link leads to */
    snprintf(name, sizeof name, "%s/link", log.dir);
    CHECK(symlink(log.path, name) == 0);
    struct log link = log;
    snprintf(link.path, sizeof link.path, "%s/link", log.dir);
    CHECK(get(&link, 2500) == IMMUTA_C_OK);
    snprintf(index, sizeof index, "%s.idx", log.path);
    snprintf(linked, sizeof linked, "%s.idx", link.path);
    CHECK(rename(index, linked) == 0);
    CHECK(get(&link, 2500) == IMMUTA_C_DAMAGED);
    log_end(&log);
}

/* One large record is a block by itself, borne out by its size. */
static void is_used_for_large_records(void)
{
    struct log log;
    log_begin(&log);
    log_put(&log, 16);
    log_raw(&log, 8, UINT64_MAX);
    index_begin(&log, log.inode);
    index_block(&log);
    log_put(&log, 500000);
    uint64_t position = log.indexed_end;
    index_entry(&log, 1, position, 500008, 1, 1, 12345); /* its checksum is not taken */
    log_put(&log, 16);
    log_store(&log);
    CHECK(get(&log, 2) == IMMUTA_C_OK);
    log_raw(&log, position, 499999);
    CHECK(get(&log, 2) != IMMUTA_C_OK);
    log_end(&log);
}

static void flip(struct log *log, int fd, uint64_t at)
{
    unsigned char byte;
    (void)log;
    CHECK(pread(fd, &byte, 1, (off_t)at) == 1);
    byte ^= 4;
    CHECK(pwrite(fd, &byte, 1, (off_t)at) == 1);
}

/* Not there, foreign, damaged: then the log is walked, which here shows by its damage; and where it can be walked, all is right. */
static void is_ignored(void)
{
    struct log log;
    for (int damaged = 0; damaged < 2; damaged++) {
        int walked = damaged ? IMMUTA_C_DAMAGED : IMMUTA_C_OK;
        char name[128];
        make(&log, damaged);
        CHECK(get(&log, 2500) == IMMUTA_C_OK);
        for (uint64_t at = 0; at < 64; at += 7) { /* its header */
            flip(&log, log.index, at);
            CHECK(get(&log, 2500) == walked);
            flip(&log, log.index, at);
        }
        flip(&log, log.index, 64 * 3 + 30); /* the second block's piece: the first one serves */
        CHECK(get(&log, 2500) == IMMUTA_C_OK && get(&log, 1500) == IMMUTA_C_OK);
        flip(&log, log.index, 64 * 3 + 30);
        flip(&log, log.fd, 8 + 24 * 1500 + 8); /* a byte of the second block: it proves nothing any more */
        if (damaged)
            CHECK(get(&log, 2500) == IMMUTA_C_DAMAGED);
        flip(&log, log.fd, 8 + 24 * 1500 + 8);
        index_entry(&log, 2000, 8 + 24 * 2000, 24 * 1000 + 8, 1000, 1, 0); /* more than is published: the one before serves */
        CHECK(get(&log, 2500) == IMMUTA_C_OK);
        CHECK(ftruncate(log.index, 64 * 4 + 63) == 0 && get(&log, 2500) == IMMUTA_C_OK); /* a torn piece at its end */
        CHECK(ftruncate(log.index, (off_t)1 << 40) == 0 && get(&log, 2500) == walked); /* a hole, too long to search */
        CHECK(ftruncate(log.index, 63) == 0 && get(&log, 2500) == walked);
        CHECK(ftruncate(log.index, 0) == 0 && get(&log, 2500) == walked);

        make_index(&log, log.inode + 1); /* another file's */
        CHECK(get(&log, 2500) == walked);
        log.birth_ns++;
        make_index(&log, log.inode); /* a file's that had the same inode before */
        CHECK(get(&log, 2500) == walked);
        log.birth_ns--;
        make_index(&log, log.inode);
        CHECK(get(&log, 2500) == IMMUTA_C_OK);
        static const uint64_t lies[][4] = { { 1, UINT64_MAX - 10, 100, 2 }, { 1, 32, UINT64_MAX - 31, 2 }, { 1, 32, 240, UINT64_MAX }, { 1, 3, 240, 10 }, { UINT64_MAX, 32, 240, 10 }, { 1, 32, 0, 0 }, { 1, 32, 7, 0 }, { 1, 32, 1, 1 } };
        for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
            index_begin(&log, log.inode);
            index_entry(&log, lies[i][0], lies[i][1], lies[i][2], lies[i][3], 1, 0);
            CHECK(get(&log, 2500) == walked);
        }
        snprintf(name, sizeof name, "%s.idx", log.path);
        CHECK(unlink(name) == 0 && get(&log, 2500) == walked);
        CHECK(mkdir(name, 0700) == 0 && get(&log, 2500) == walked && rmdir(name) == 0);
        log_end(&log);
    }
}

/* A block, and behind it entries that cover nothing and come before it: stepping back from them leads to a block beyond the target. */
static void is_out_of_order(void)
{
    static unsigned char bytes[24 * 50];
    struct log log;
    make(&log, false);
    uint64_t position = 8 + 24 * 1900;
    CHECK(pread(log.fd, bytes, sizeof bytes, (off_t)position) == sizeof bytes);
    index_begin(&log, log.inode);
    index_entry(&log, 1900, position, sizeof bytes, 50, 1, crc32c(bytes, sizeof bytes));
    index_entry(&log, 500, 8 + 24 * 500, 0, 0, 1, 0);
    index_entry(&log, 510, 8 + 24 * 510, 0, 0, 1, 0);
    CHECK(get(&log, 1500) == IMMUTA_C_OK && get(&log, 2500) == IMMUTA_C_OK);
    log_end(&log);
}

void index_tests(void (*run)(const char *name, void (*test)(void)))
{
    run("index: is used", is_used);
    run("index: is used for large records", is_used_for_large_records);
    run("index: is ignored where it is not true", is_ignored);
    run("index: is out of order", is_out_of_order);
}
