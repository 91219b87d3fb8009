#define _GNU_SOURCE
#include "support.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 * MILLI + t.tv_nsec;
}

void pause_ns(int64_t ns)
{
    struct timespec t = { ns / (1000 * MILLI), ns % (1000 * MILLI) };
    nanosleep(&t, NULL);
}

bool eventually(bool (*is_so)(void *), void *arg)
{
    for (int64_t until = now_ns() + 20000 * MILLI; now_ns() < until; pause_ns(MILLI / 4))
        if (is_so(arg))
            return true;
    return false;
}

void log_create(struct log *log)
{
    struct stat st;
    struct statx stx;
    if (log->fd >= 0)
        close(log->fd);
    unlink(log->path);
    CHECK((log->fd = open(log->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644)) >= 0);
    CHECK(fstat(log->fd, &st) == 0 && statx(log->fd, "", AT_EMPTY_PATH, STATX_BTIME, &stx) == 0);
    log->device = st.st_dev;
    log->inode = st.st_ino;
    log->birth_ns = stx.stx_mask & STATX_BTIME ? (uint64_t)stx.stx_btime.tv_sec * 1000000000u + stx.stx_btime.tv_nsec : 0;
    log->count = 0;
    log->end = 8;
    log_store(log);
}

void log_begin(struct log *log)
{
    memset(log, 0, sizeof *log);
    log->fd = log->index = -1;
    strcpy(log->dir, "/tmp/immuta-reader-c-XXXXXX");
    CHECK(mkdtemp(log->dir));
    snprintf(log->path, sizeof log->path, "%s/test.log", log->dir);
    CHECK(setenv("IMMUTA_CONTROL_DIR", log->dir, 1) == 0);
    log_create(log);
}

void log_end(struct log *log)
{
    page_forget(log);
    close(log->fd);
    if (log->index >= 0)
        close(log->index);
    DIR *dir = opendir(log->dir);
    CHECK(dir);
    for (struct dirent *e; (e = readdir(dir));)
        if (e->d_name[0] != '.')
            CHECK(unlinkat(dirfd(dir), e->d_name, 0) == 0);
    closedir(dir);
    CHECK(rmdir(log->dir) == 0);
}

static unsigned char byte_of(uint64_t sequence, uint64_t i)
{
    return (unsigned char)((sequence + 1) * 131 + i * 7 + (i >> 8) + (i >> 16));
}

void payload_check(const struct immuta_c_record *record, uint64_t sequence, uint64_t size)
{
    const unsigned char *payload = record->payload;
    CHECK(record->sequence == sequence);
    CHECK(record->size == size);
    for (uint64_t i = 0; i < size; i++)
        if (payload[i] != byte_of(sequence, i))
            CHECK(!"the payload is another");
}

void log_raw(struct log *log, uint64_t position, uint64_t number)
{
    CHECK(pwrite(log->fd, &number, 8, (off_t)position) == 8);
}

void log_size(struct log *log, uint64_t size)
{
    log_raw(log, log->end, size);
    log->end += 8;
    log->count++;
}

void log_put(struct log *log, uint64_t size)
{
    unsigned char *record = malloc(8 + size);
    CHECK(record);
    memcpy(record, &size, 8);
    for (uint64_t i = 0; i < size; i++)
        record[8 + i] = byte_of(log->count, i);
    CHECK(pwrite(log->fd, record, 8 + size, (off_t)log->end) == (ssize_t)(8 + size));
    free(record);
    log->end += 8 + size;
    log->count++;
}

void log_store(struct log *log)
{
    log_raw(log, 0, log->count);
}

void log_add(struct log *log, uint64_t size)
{
    log_put(log, size);
    log_store(log);
    if (log->page)
        page_publish(log);
}

void log_lock(struct log *log)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = INT64_MAX - 1, .l_len = 1 };
    CHECK(flock(log->fd, LOCK_EX | LOCK_NB) == 0);
    CHECK(fcntl(log->fd, F_OFD_SETLK, &lock) == 0);
}

void log_unlock(struct log *log)
{
    close(log->fd);
    CHECK((log->fd = open(log->path, O_RDWR | O_CLOEXEC)) >= 0);
}

/* ---- the control page ---- */

void page_name(const struct log *log, const char *suffix, char name[256])
{
    snprintf(name, 256, "%s/immuta-%ju-%ju%s", log->dir, (uintmax_t)log->device, (uintmax_t)log->inode, suffix);
}

static void store(unsigned char *at, uint64_t value)
{
    atomic_store((_Atomic uint64_t *)(void *)at, value);
}

uint64_t page_get(const unsigned char *at)
{
    return atomic_load((const _Atomic uint64_t *)(const void *)at);
}

void page_set(struct log *log, unsigned offset, uint64_t value)
{
    store(log->page + offset, value);
}

static unsigned char *control_file(const struct log *log, const char *suffix)
{
    char name[256];
    page_name(log, suffix, name);
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    CHECK(fd >= 0 && ftruncate(fd, 4096) == 0);
    unsigned char *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(map != MAP_FAILED);
    close(fd);
    return map;
}

void page_begin(struct log *log, uint64_t epoch)
{
    char from[256], to[256], text[64] = "", digits[40] = "";
    page_forget(log);
    log->page = control_file(log, ".new");
    log->bell = control_file(log, ".bell.new");
    store(log->bell + 8, 1);
    store(log->bell + 16, epoch);
    memcpy(log->bell, "immutaDB", 8);
    FILE *boot = fopen("/proc/sys/kernel/random/boot_id", "r");
    CHECK(boot && fgets(text, sizeof text, boot));
    fclose(boot);
    for (char *c = text, *d = digits; *c && *c != '\n'; c++)
        if (*c != '-')
            *d++ = *c;
    uint64_t fields[] = { 1, 4096, log->device, log->inode, log->birth_ns, 0, strtoull(digits + 16, NULL, 16) };
    digits[16] = 0;
    fields[5] = strtoull(digits, NULL, 16);
    memcpy(log->page + 8, fields, sizeof fields);
    page_set(log, 80, epoch);
    page_set(log, STATE, 1);
    page_set(log, HEARTBEAT, (uint64_t)now_ns());
    page_set(log, END, log->end);
    page_set(log, SLOTS + 8, log->count);
    page_set(log, SLOTS + 16, log->end);
    memcpy(log->page, "immutaCP", 8);
    page_name(log, ".bell.new", from);
    page_name(log, ".bell", to);
    CHECK(rename(from, to) == 0);
    page_name(log, ".new", from);
    page_name(log, "", to);
    CHECK(rename(from, to) == 0);
}

void page_forget(struct log *log)
{
    if (log->page) {
        munmap(log->page, 4096);
        munmap(log->bell, 4096);
    }
    log->page = log->bell = NULL;
}

void page_remove(struct log *log)
{
    char name[256];
    page_name(log, "", name);
    unlink(name);
    page_name(log, ".bell", name);
    unlink(name);
    page_forget(log);
}

int page_wake(struct log *log)
{
    atomic_thread_fence(memory_order_seq_cst);
    uint64_t commit = page_get(log->page + COMMIT), announced = page_get(log->bell + ANNOUNCED);
    if (announced == 0 || announced > commit + 1)
        return -1;
    return (int)syscall(SYS_futex, log->page + COMMIT, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

int page_publish(struct log *log)
{
    uint64_t commit = page_get(log->page + COMMIT) + 1;
    unsigned slot = SLOTS + 32 * (unsigned)(commit % 32);
    page_set(log, slot + 8, log->count);
    page_set(log, slot + 16, log->end);
    page_set(log, HEARTBEAT, (uint64_t)now_ns());
    page_set(log, END, log->end);
    page_set(log, COMMIT, commit);
    return page_wake(log);
}

/* ---- the index ---- */

uint32_t crc32c(const void *data, size_t bytes)
{
    uint32_t crc = UINT32_MAX;
    for (const unsigned char *at = data; bytes--; at++) {
        crc ^= *at;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ UINT32_C(0x82F63B78) : crc >> 1;
    }
    return ~crc;
}

static void index_piece(struct log *log, const uint64_t numbers[7], uint32_t last)
{
    unsigned char piece[64];
    memcpy(piece, numbers, 56);
    memcpy(piece + 56, &last, 4);
    uint32_t crc = crc32c(piece, 60);
    memcpy(piece + 60, &crc, 4);
    CHECK(write(log->index, piece, 64) == 64);
}

void index_begin(struct log *log, uint64_t inode)
{
    char name[128];
    snprintf(name, sizeof name, "%s.idx", log->path);
    if (log->index >= 0)
        close(log->index);
    CHECK((log->index = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) >= 0);
    uint64_t numbers[7] = { 0, 1, 11, 22, inode, log->birth_ns, 33 };
    memcpy(numbers, "immutaIX", 8);
    index_piece(log, numbers, 0);
    log->indexed = 0;
    log->indexed_end = 8;
}

void index_entry(struct log *log, uint64_t sequence, uint64_t position, uint64_t length, uint64_t records, uint32_t kind, uint32_t crc)
{
    index_piece(log, (uint64_t[7]){ sequence, position, length, records, 44, kind | (uint64_t)crc << 32, 0 }, 0);
}

void index_block(struct log *log)
{
    uint64_t length = log->end - log->indexed_end;
    unsigned char *bytes = malloc(length);
    CHECK(bytes && pread(log->fd, bytes, length, (off_t)log->indexed_end) == (ssize_t)length);
    index_entry(log, log->indexed, log->indexed_end, length, log->count - log->indexed, 1, crc32c(bytes, length));
    free(bytes);
    log->indexed = log->count;
    log->indexed_end = log->end;
}
