/*
 * The reader of immuta_reader.h, written from FORMAT.md, which says what all offsets here mean.
 *
 * The log is read with pread(2) in steps of up to 256 KiB, not mapped: in steps that stay in the second-level cache this is as
 * fast as a mapping, which faults for each page, and a log that another program truncates is an error then, not a SIGBUS.
 */
#define _GNU_SOURCE
#include "immuta_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#if !defined(__linux__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__ || UINTPTR_MAX != UINT64_MAX
#error "immuta needs 64-bit little-endian Linux"
#endif

#define NS INT64_C(1000000000)
#define MS INT64_C(1000000)

enum {
    CHUNK = 256 << 10,     /* the largest step of reading */
    FIRST_STEP = 16 << 10, /* steps double from here, so that little is read for a record or two */
    KEEP = 8 << 20,        /* a buffer for a large payload is kept for the next one up to this size */
    PAGE = 4096,           /* of a control page, a doorbell, and of what is read of an index at once */
    PIECE = 64,            /* of an index */
    BUDGET = 4096,         /* pieces of an index that may be useless before it is given up */
    PAIR_TRIES = 1000,     /* the writer may lap a look at its events now and then, not always */
    COUNT_TRIES = 64,      /* pairs of reads of a count that never holds still, before its page is mapped */
    GONE_LOOKS = 3,        /* a writer that begins and ends within one look must not pass for a dead one */
    NEAR = 64,             /* records from where a cursor is that are walked rather than asked of the index */
};

enum { CP_STATE = 128, CP_HEARTBEAT = 256, CP_END = 384, CP_COMMIT = 392, CP_SLOTS = 512 }; /* of the control page */
enum { OPEN = 1, CLOSED = 2, FAILED = 3, SUPERSEDED = 4 };                                  /* its state */
enum { DB_ANNOUNCED = 128 };                                                                /* of the doorbell */

static const int64_t SLICE = 25 * MS;      /* the longest sleep: immuta_c_tailer_stop() only sets a flag */
static const int64_t UPKEEP = 100 * MS;    /* how often names, locks and heartbeats are looked at */
static const int64_t DEAD = 2 * NS;        /* a heartbeat that is older is none */
static const int64_t POLL = 10 * MS;       /* the longest interval of looking where nobody wakes us */
static const int64_t POLL_PAGE = MS / 5;   /* the first one, of a load from memory */
static const int64_t POLL_COUNT = MS;      /* the first one, of system calls */
static const uint64_t LIVE = INT64_MAX - 1; /* the byte that a writer locks */

struct immuta_c_tailer {
    char *path, *control_dir;
    int fd;
    dev_t device;
    ino_t inode;
    uid_t owner;
    uint64_t birth_ns, boot[2]; /* boot: 0 where the kernel does not say */
    uint64_t max_record;
    atomic_bool stopped;

    const unsigned char *page; /* the believed control page that had the name at the last look, or NULL */
    unsigned char *bell;       /* its doorbell, or NULL */
    bool sleepless;            /* the system refuses the futex: no doorbell is any use */
    dev_t page_device;
    ino_t page_inode;
    uint64_t heartbeat, page_end; /* as of the last look */
    int64_t moved_at;             /* when one of them was last found another */
    bool moved, follows;          /* moved since it was first seen or given up; the page says how far the log goes */
    bool given_up;                /* its writer had ended, or was another: a young heartbeat proves nothing any more */
    bool replaced;
    int64_t upkeep_at;

    uint64_t sequence, position; /* of the next record */
    uint64_t skip_to;            /* records below are passed over */
    uint64_t count, end;         /* a record is there if its sequence is below count and its position below end */
    bool on_page;                /* count and end are of the page: count is UINT64_MAX. Else of the log: end is its size */
    unsigned char *chunk, *big;
    uint64_t big_bytes;
    const unsigned char *at; /* the next record in the chunk */
    uint64_t left;           /* bytes from there */
    uint64_t step;
};

struct immuta_c_reader {
    struct immuta_c_tailer walk; /* finds what is asked for, and remembers where it was */
};

/* ---- errors ---- */

static _Thread_local struct immuta_c_error last;

const struct immuta_c_error *immuta_c_last_error(void)
{
    return &last;
}

__attribute__((format(printf, 6, 7))) static int
fail(enum immuta_c_status status, int system_error, const char *path, uint64_t position, uint64_t sequence, const char *what, ...)
{
    last.status = status;
    last.system_error = system_error;
    last.position = position;
    last.sequence = sequence;
    int n = snprintf(last.message, sizeof last.message, "%.4096s: ", path);
    if (status == IMMUTA_C_DAMAGED)
        n += snprintf(last.message + n, sizeof last.message - (size_t)n, "damaged at position %" PRIu64 ", record %" PRIu64 ": ", position, sequence);
    va_list args;
    va_start(args, what);
    vsnprintf(last.message + n, sizeof last.message - (size_t)n, what, args);
    va_end(args);
    return (int)status;
}

static int refused(const char *path, const char *what, int system_error)
{
    return fail(IMMUTA_C_SYSTEM, system_error, path, 0, 0, "%s: %s", what, strerror(system_error));
}

#define damaged(t, ...) fail(IMMUTA_C_DAMAGED, 0, (t)->path, (t)->position, (t)->sequence, __VA_ARGS__)

/* ---- bytes, numbers, time ---- */

static uint64_t number(const unsigned char *at)
{
    uint64_t n;
    memcpy(&n, at, sizeof n);
    return n;
}

static uint32_t number32(const unsigned char *at)
{
    uint32_t n;
    memcpy(&n, at, sizeof n);
    return n;
}

/* A number in a mapping that another process stores into. The acquire is what FORMAT.md's acquire fence after the load gives:
 * nothing that comes later, a pread(2) neither, is done before it. */
static uint64_t acquire(const unsigned char *at)
{
    return atomic_load_explicit((const _Atomic uint64_t *)(const void *)at, memory_order_acquire);
}

static int64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * NS + now.tv_nsec;
}

static struct timespec interval_of(int64_t ns)
{
    return (struct timespec){ .tv_sec = ns / NS, .tv_nsec = ns % NS };
}

/* All of the bytes, unless the file ends before; -1 with errno. */
static ssize_t read_at(int fd, void *buffer, size_t bytes, uint64_t position)
{
    size_t done = 0;
    while (done < bytes && position <= INT64_MAX - bytes) {
        ssize_t n = pread(fd, (char *)buffer + done, bytes - done, (off_t)(position + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

/* ---- the count in the log ---- */

enum { TRUE_COUNT, UNTRUE_COUNT, NO_COUNT };

/* The count, and then the file's size. UNTRUE_COUNT where so many records have no room; NO_COUNT with errno. */
static int read_count(const struct immuta_c_tailer *t, uint64_t *count, uint64_t *size)
{
    uint64_t once = 0, again = 0;
    ssize_t n = read_at(t->fd, &once, sizeof once, 0);
    for (int tries = 0; n == sizeof once; tries++) {
        n = read_at(t->fd, &again, sizeof again, 0);
        if (once == again)
            break;
        once = again;
        if (tries < COUNT_TRIES)
            continue;
        /* It grows faster than it can be read twice. The file has these 8 bytes: it was read a moment ago. */
        const unsigned char *page = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, t->fd, 0);
        if (page == MAP_FAILED)
            return NO_COUNT;
        once = acquire(page);
        munmap((void *)page, PAGE);
        break;
    }
    struct stat st;
    if (n < 0 || fstat(t->fd, &st) != 0)
        return NO_COUNT;
    atomic_thread_fence(memory_order_acquire); /* bytes that the count covers are read after it */
    *count = n == 0 ? 0 : once;
    *size = (uint64_t)st.st_size;
    if (n == 0)
        return TRUE_COUNT;
    return n == sizeof once && *size >= 8 && *count <= (*size - 8) / 8 ? TRUE_COUNT : UNTRUE_COUNT;
}

static int log_count(const struct immuta_c_tailer *t, uint64_t *count, uint64_t *size)
{
    switch (read_count(t, count, size)) {
    case TRUE_COUNT:
        return IMMUTA_C_OK;
    case NO_COUNT:
        return refused(t->path, "reading the count", errno);
    default:
        if (*size < 8)
            return fail(IMMUTA_C_DAMAGED, 0, t->path, 0, 0, "a file of %" PRIu64 " bytes has no count", *size);
        return fail(IMMUTA_C_DAMAGED, 0, t->path, 0, 0, "a file of %" PRIu64 " bytes cannot hold %" PRIu64 " records", *size, *count);
    }
}

static int fell(const struct immuta_c_tailer *t, uint64_t count)
{
    return fail(IMMUTA_C_DAMAGED, 0, t->path, 0, 0, "it has %" PRIu64 " records now, and %" PRIu64 " were there before", count, t->sequence);
}

static int writer_locks(const struct immuta_c_tailer *t, bool *held)
{
    struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = (off_t)LIVE, .l_len = 1 };
    if (fcntl(t->fd, F_OFD_GETLK, &lock) != 0)
        return refused(t->path, "asking for the writer's lock", errno);
    *held = lock.l_type != F_UNLCK;
    return IMMUTA_C_OK;
}

/* ---- the control page ---- */

static void page_drop(struct immuta_c_tailer *t)
{
    if (t->page)
        munmap((void *)t->page, PAGE);
    if (t->bell)
        munmap(t->bell, PAGE);
    t->page = t->bell = NULL;
    t->follows = false;
}

/* Maps an ordinary file of the log's owner, or of root; NULL where it is not that. */
static unsigned char *map_control(const struct immuta_c_tailer *t, const char *suffix, bool write, struct stat *st)
{
    char name[PATH_MAX];
    int n = snprintf(name, sizeof name, "%s/immuta-%ju-%ju%s", t->control_dir, (uintmax_t)t->device, (uintmax_t)t->inode, suffix);
    if (n < 0 || (size_t)n >= sizeof name)
        return NULL;
    if (!write && t->page && lstat(name, st) == 0 && st->st_dev == t->page_device && st->st_ino == t->page_inode)
        return (unsigned char *)t->page; /* it is the one that we have */
    int fd = open(name, (write ? O_RDWR : O_RDONLY) | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    void *map = MAP_FAILED;
    if (fstat(fd, st) == 0 && S_ISREG(st->st_mode) && st->st_size >= PAGE && (st->st_uid == t->owner || st->st_uid == 0))
        map = mmap(NULL, PAGE, write ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    return map == MAP_FAILED ? NULL : map;
}

/* Count and end of one event; false where the writer was faster, again and again. */
static bool page_pair(const struct immuta_c_tailer *t, uint64_t *count, uint64_t *end)
{
    for (int i = 0; i < PAIR_TRIES; i++) {
        uint64_t commit = acquire(t->page + CP_COMMIT);
        const unsigned char *slot = t->page + CP_SLOTS + 32 * (commit % 32);
        *count = acquire(slot + 8);
        *end = acquire(slot + 16);
        if (acquire(t->page + CP_COMMIT) - commit < 31)
            return true;
    }
    return false;
}

/* Whether the page does not claim more than the log has. */
static bool page_fits(const struct immuta_c_tailer *t)
{
    uint64_t count, end, log_records, log_bytes;
    return page_pair(t, &count, &end) && end >= 8 && acquire(t->page + CP_END) >= 8 && /* first the page: the log is ahead of it */
           read_count(t, &log_records, &log_bytes) == TRUE_COUNT && count <= log_records && end <= (log_bytes ? log_bytes : 8);
}

/* From here on it is to move anew. */
static void page_seen(struct immuta_c_tailer *t)
{
    t->heartbeat = acquire(t->page + CP_HEARTBEAT);
    t->page_end = acquire(t->page + CP_END);
    t->moved = false;
}

static void page_give_up(struct immuta_c_tailer *t)
{
    page_seen(t);
    t->given_up = true;
    t->follows = false;
}

/* The page that has the name now: t->page, or NULL where there is none that may be believed. */
static void page_find(struct immuta_c_tailer *t)
{
    struct stat st;
    unsigned char *page = map_control(t, "", false, &st);
    if (page && page == t->page)
        return;
    page_drop(t);
    if (!page)
        return;
    bool ours = acquire(page) == number((const unsigned char *)"immutaCP") && acquire(page + 8) == 1 && acquire(page + 16) == PAGE &&
                acquire(page + 24) == t->device && acquire(page + 32) == t->inode && (acquire(page + 40) == t->birth_ns || acquire(page + 40) == 0) &&
                acquire(page + 48) == t->boot[0] && acquire(page + 56) == t->boot[1] && (t->boot[0] | t->boot[1]);
    t->page = page;
    if (!ours || !page_fits(t)) {
        page_drop(t);
        return;
    }
    t->page_device = st.st_dev;
    t->page_inode = st.st_ino;
    page_seen(t);
    t->given_up = false;
    t->moved_at = clock_ns();
}

static void bell_find(struct immuta_c_tailer *t)
{
    struct stat st;
    unsigned char *bell = t->bell || t->sleepless ? NULL : map_control(t, ".bell", true, &st);
    if (!bell)
        return;
    if (acquire(bell) == number((const unsigned char *)"immutaDB") && acquire(bell + 8) == 1 && acquire(bell + 16) == acquire(t->page + 80))
        t->bell = bell;
    else
        munmap(bell, PAGE); /* another run's */
}

/* Whether a page's heart beats: it is young, or has moved before our eyes (clocks differ between time namespaces). */
static bool page_beats(struct immuta_c_tailer *t, int64_t now)
{
    uint64_t heartbeat = acquire(t->page + CP_HEARTBEAT), end = acquire(t->page + CP_END);
    if (heartbeat != t->heartbeat || end != t->page_end) {
        t->heartbeat = heartbeat;
        t->page_end = end;
        t->moved = true;
        t->moved_at = now;
    }
    return (t->moved && now - t->moved_at < DEAD) || (!t->given_up && (uint64_t)now - heartbeat < (uint64_t)DEAD); /* one of the future wraps around */
}

/* Looks the page's name up, and decides whether it, or the count in the log, says how far the log goes. */
static void look(struct immuta_c_tailer *t, int64_t now)
{
    bool held = false;
    page_find(t);
    if (!t->page)
        return;
    bool beats = page_beats(t, now);
    if (writer_locks(t, &held) != IMMUTA_C_OK || !held) {
        page_give_up(t);
    } else if (!t->follows) {
        uint64_t state = acquire(t->page + CP_STATE);
        t->follows = beats && (state == OPEN || state == FAILED) && page_fits(t);
    } else if (now - t->moved_at >= DEAD) {
        uint64_t count, end, log_records, log_bytes;
        if (!page_pair(t, &count, &end) || read_count(t, &log_records, &log_bytes) != TRUE_COUNT || log_records > count)
            page_give_up(t); /* a writer without a page of its own is at work behind a dead one's */
    }
    if (t->follows)
        bell_find(t);
}

/* What the page does not say: that another has its name, that its writer died, that the log is gone. */
static int upkeep(struct immuta_c_tailer *t, int64_t now)
{
    t->upkeep_at = now;
    look(t, now);
    struct stat st;
    if (stat(t->path, &st) != 0) {
        t->replaced = errno == ENOENT || errno == ENOTDIR;
    } else {
        t->replaced = st.st_dev != t->device || st.st_ino != t->inode;
    }
    if (t->replaced) {
        page_drop(t);
        return IMMUTA_C_OK;
    }
    uint64_t count, size; /* a page tells nothing of a file that was cut, or written over, under a living writer */
    int status = log_count(t, &count, &size);
    if (status != IMMUTA_C_OK)
        return status;
    if (count < t->sequence)
        return fell(t, count);
    if (t->position > 8 && size < t->position)
        return fail(IMMUTA_C_DAMAGED, 0, t->path, 0, 0, "the file was cut to %" PRIu64 " bytes, and %" PRIu64 " were there before", size, t->position);
    return IMMUTA_C_OK;
}

/* ---- from record to record ---- */

/* Learns how far the log has come. */
static int refresh(struct immuta_c_tailer *t)
{
    uint64_t count, size;
    if (t->follows) {
        if (!t->on_page)
            t->left = 0;
        t->on_page = true;
        t->count = UINT64_MAX;
        t->end = acquire(t->page + CP_END);
        return IMMUTA_C_OK;
    }
    int status = log_count(t, &count, &size);
    if (status != IMMUTA_C_OK)
        return status;
    if (count < t->sequence)
        return fell(t, count);
    t->on_page = false;
    if (count != t->count) {
        t->left = 0; /* bytes that were read before the count that covers them may have been others */
        t->step = FIRST_STEP;
    }
    t->count = count;
    t->end = size;
    return IMMUTA_C_OK;
}

static bool is_there(const struct immuta_c_tailer *t)
{
    return t->sequence < t->count && (!t->on_page || t->position < t->end);
}

static int fill(struct immuta_c_tailer *t, size_t bytes)
{
    if (t->big_bytes > KEEP) {
        free(t->big);
        t->big = NULL;
        t->big_bytes = 0;
    }
    t->left = 0;
    if (!t->chunk && !(t->chunk = malloc(CHUNK)))
        return refused(t->path, "a buffer", ENOMEM);
    ssize_t n = read_at(t->fd, t->chunk, bytes, t->position);
    if (n < 0)
        return refused(t->path, "reading", errno);
    t->at = t->chunk;
    t->left = (size_t)n;
    return n < 8 ? damaged(t, "the file ends before its size field does") : IMMUTA_C_OK;
}

static void give(struct immuta_c_tailer *t, struct immuta_c_record *record, const void *payload, uint64_t size)
{
    *record = (struct immuta_c_record){ .sequence = t->sequence, .position = t->position, .payload = payload, .size = size };
}

/* Takes the next record, which is there; passes over it where record is NULL, without reading what does not lie in the chunk. */
static int take(struct immuta_c_tailer *t, struct immuta_c_record *record)
{
    int status;
    uint64_t size = 0, room = t->end > t->position ? t->end - t->position : 0;
    if (room < 8)
        return damaged(t, "its size field reaches beyond the end, which is at %" PRIu64, t->end);
    if (t->left < 8 || number(t->at) > t->left - 8) {
        if ((status = fill(t, room < t->step ? room : t->step)) != IMMUTA_C_OK)
            return status;
        t->step = t->step * 2 < CHUNK ? t->step * 2 : CHUNK;
    }
    size = number(t->at);
    if (size > room - 8)
        return damaged(t, "its size of %" PRIu64 " bytes reaches beyond the end, which is at %" PRIu64, size, t->end);
    bool whole = size <= t->left - 8;
    if (!whole) { /* the end may be a page's, which the file must bear out before memory is taken for it */
        struct stat st;
        if (fstat(t->fd, &st) != 0)
            return refused(t->path, "asking for the size", errno);
        if ((uint64_t)st.st_size < t->position + 8 || size > (uint64_t)st.st_size - t->position - 8)
            return damaged(t, "its size of %" PRIu64 " bytes reaches beyond the file's end at %ju", size, (uintmax_t)st.st_size);
    }
    if (record && size > t->max_record)
        return fail(IMMUTA_C_TOO_LARGE, 0, t->path, t->position, t->sequence, "record %" PRIu64 " at position %" PRIu64 " has %" PRIu64 " bytes, and no more than %" PRIu64 " are taken",
                    t->sequence, t->position, size, t->max_record);
    if (record && !whole && size <= CHUNK - 8) {
        if ((status = fill(t, size + 8)) != IMMUTA_C_OK)
            return status;
        if (t->left < size + 8)
            return damaged(t, "the file ends within its %" PRIu64 " bytes", size);
        whole = true;
    }
    if (record && !whole) {
        if (t->big_bytes < size) {
            free(t->big);
            t->big_bytes = 0;
            if (!(t->big = malloc(size)))
                return refused(t->path, "a buffer for a record", ENOMEM);
            t->big_bytes = size;
        }
        ssize_t n = read_at(t->fd, t->big, size, t->position + 8);
        if (n < 0)
            return refused(t->path, "reading", errno);
        if ((uint64_t)n < size)
            return damaged(t, "the file ends within its %" PRIu64 " bytes", size);
    }
    if (record)
        give(t, record, whole ? t->at + 8 : t->big, size);
    t->at = whole ? t->at + 8 + size : t->at;
    t->left = whole ? t->left - 8 - size : 0;
    t->position += 8 + size;
    t->sequence++;
    return IMMUTA_C_OK;
}

/* The same where all of it lies in the chunk: nearly always. */
static inline bool quick(struct immuta_c_tailer *t, struct immuta_c_record *record)
{
    if (t->left < 8 || t->sequence >= t->count || t->sequence < t->skip_to)
        return false;
    uint64_t size = number(t->at);
    if (size > t->left - 8 || size > t->max_record)
        return false;
    give(t, record, t->at + 8, size);
    t->at += 8 + size;
    t->left -= 8 + size;
    t->position += 8 + size;
    t->sequence++;
    return true;
}

/* ---- finding a record ---- */

struct crc {
    uint32_t table[8][256];
};

/* CRC32C, eight bytes at a time. The tables are made where they are used, in a few microseconds: so they need no lock. */
static void crc_begin(struct crc *crc)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++)
            c = c & 1 ? c >> 1 ^ UINT32_C(0x82F63B78) : c >> 1;
        crc->table[0][i] = c;
    }
    for (int k = 1; k < 8; k++)
        for (int i = 0; i < 256; i++)
            crc->table[k][i] = crc->table[k - 1][i] >> 8 ^ crc->table[0][crc->table[k - 1][i] & 255];
}

/* crc: 0, or what the bytes before gave. */
static uint32_t crc_of(const struct crc *tables, uint32_t crc, const unsigned char *at, size_t bytes)
{
    const uint32_t(*t)[256] = tables->table;
    crc = ~crc;
    for (; bytes >= 8; at += 8, bytes -= 8) {
        uint64_t v = number(at) ^ crc;
        crc = t[7][v & 255] ^ t[6][v >> 8 & 255] ^ t[5][v >> 16 & 255] ^ t[4][v >> 24 & 255] ^ t[3][v >> 32 & 255] ^ t[2][v >> 40 & 255] ^
              t[1][v >> 48 & 255] ^ t[0][v >> 56];
    }
    for (; bytes; bytes--)
        crc = crc >> 8 ^ t[0][(crc ^ *at++) & 255];
    return ~crc;
}

struct index {
    int fd;
    unsigned budget;
    uint64_t pieces, first, cached; /* of the file; the ones in the cache */
    struct crc crc;
    unsigned char cache[PAGE];
};

/* A piece of the index; NULL where it is none. */
static const unsigned char *piece(struct index *x, uint64_t i)
{
    if (i < x->first || i - x->first >= x->cached) {
        x->first = i - i % (PAGE / PIECE);
        ssize_t n = read_at(x->fd, x->cache, PAGE, x->first * PIECE);
        x->cached = n < 0 ? 0 : (uint64_t)n / PIECE;
        if (i - x->first >= x->cached)
            return NULL;
    }
    const unsigned char *p = x->cache + (i - x->first) * PIECE;
    return crc_of(&x->crc, 0, p, PIECE - 4) == number32(p + PIECE - 4) ? p : NULL;
}

static bool index_open(const struct immuta_c_tailer *t, struct index *x)
{
    char real[PATH_MAX + 4];
    if (!realpath(t->path, real))
        return false;
    strcat(real, ".idx");
    x->fd = open(real, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (x->fd < 0)
        return false;
    struct stat st;
    if (fstat(x->fd, &st) != 0 || !S_ISREG(st.st_mode))
        return false;
    x->pieces = (uint64_t)st.st_size / PIECE;
    x->cached = x->first = 0;
    x->budget = BUDGET;
    crc_begin(&x->crc);
    const unsigned char *head = x->pieces ? piece(x, 0) : NULL;
    return head && number(head) == number((const unsigned char *)"immutaIX") && number(head + 8) == 1 && number(head + 32) == t->inode &&
           number(head + 40) == t->birth_ns;
}

/* The last entry whose sequence is not greater than target; 0 where there is none. Damaged pieces are stepped over, within reason. */
static uint64_t index_search(struct index *x, uint64_t target)
{
    uint64_t low = 1, high = x->pieces, best = 0;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2, i = middle;
        const unsigned char *p;
        while (!(p = piece(x, i)) && i > low && x->budget) {
            i--;
            x->budget--;
        }
        if (!p && !x->budget)
            return 0;
        if (!p || number(p) <= target) {
            best = p ? i : best;
            low = middle + 1;
        } else {
            high = i;
        }
    }
    return best;
}

/* Whether the bytes of a block are those that its checksum is of, so that records begin where it says. */
static bool block_true(struct immuta_c_tailer *t, struct index *x, uint64_t position, uint64_t length, uint64_t records, uint32_t checksum)
{
    unsigned char size[8];
    if (records == 1)
        return read_at(t->fd, size, sizeof size, position) == sizeof size && number(size) == length - 8;
    uint32_t crc = 0;
    t->left = 0;
    if (!t->chunk && !(t->chunk = malloc(CHUNK)))
        return false;
    while (length > 0) {
        size_t bytes = length < CHUNK ? length : CHUNK;
        if (read_at(t->fd, t->chunk, bytes, position) != (ssize_t)bytes)
            return false;
        crc = crc_of(&x->crc, crc, t->chunk, bytes);
        position += bytes;
        length -= bytes;
    }
    return crc == checksum;
}

/* A place at or before record target, by the index; false where it has none that is true. Count and end: what may be read. */
static bool index_find(struct immuta_c_tailer *t, uint64_t target, uint64_t count, uint64_t end, uint64_t *sequence, uint64_t *position)
{
    struct index x;
    bool found = false;
    x.fd = -1;
    if (index_open(t, &x)) {
        for (uint64_t i = index_search(&x, target); i > 0 && x.budget; i--, x.budget--) {
            const unsigned char *p = piece(&x, i);
            if (!p || p[40] != 1) /* a writer's beginning is no place to rely on: nothing bears it out */
                continue;
            uint64_t first = number(p), at = number(p + 8), length = number(p + 16), records = number(p + 24);
            if (first > target || first > count || records > count - first || at < 8 || at > end || length > end - at || length < 8 || records == 0 || records > length / 8)
                continue; /* not in order, covers nothing, or what may not be read yet */
            uint32_t checksum = number32(p + 44);
            if ((found = block_true(t, &x, at, length, records, checksum))) {
                bool beyond = target - first >= records;
                *sequence = beyond ? first + records : first;
                *position = beyond ? at + length : at;
            }
            break;
        }
    }
    if (x.fd >= 0)
        close(x.fd);
    return found;
}

/* Goes to record target, which is not greater than count. */
static int seek(struct immuta_c_tailer *t, uint64_t target, uint64_t count)
{
    uint64_t sequence, position;
    bool ahead = t->sequence <= target;
    if (!ahead || t->sequence == 0 || target - t->sequence > NEAR) {
        bool found = index_find(t, target, count, t->end, &sequence, &position);
        if (!found && !ahead) {
            found = true;
            sequence = 0;
            position = 8;
        }
        if (found && (!ahead || sequence > t->sequence)) {
            t->sequence = sequence;
            t->position = position;
            t->left = 0;
            t->step = FIRST_STEP;
        }
    }
    while (t->sequence < target) {
        int status = take(t, NULL);
        if (status != IMMUTA_C_OK)
            return status;
    }
    return IMMUTA_C_OK;
}

/* How many records may be read now; where the page tells also their end, else *end is 0. Records below may be taken then. */
static int extent(struct immuta_c_tailer *t, uint64_t *count, uint64_t *end)
{
    int64_t now = clock_ns();
    *end = 0;
    if (now - t->upkeep_at >= UPKEEP || (t->follows && acquire(t->page + CP_STATE) != OPEN)) {
        t->upkeep_at = now;
        look(t, now);
    }
    if (t->follows && !page_pair(t, count, end))
        t->follows = false;
    int status = refresh(t);
    if (status == IMMUTA_C_OK && !t->on_page)
        *count = t->count;
    return status;
}

/* ---- who is writing ---- */

/* Whether the file ends exactly behind its last record. */
static int ends_exactly(struct immuta_c_tailer *walk, bool *exactly)
{
    uint64_t count, size;
    walk->follows = false; /* there is no page */
    int status = refresh(walk);
    count = walk->count;
    size = walk->end;
    if (status == IMMUTA_C_OK)
        status = seek(walk, count, count);
    *exactly = status == IMMUTA_C_OK && (size == walk->position || size == 0);
    return status;
}

static struct immuta_c_tailer *clone(const struct immuta_c_tailer *t);

static int writer_state(struct immuta_c_tailer *t, struct immuta_c_tailer *walk, enum immuta_c_writer *state)
{
    for (int looks = 1;; looks++) {
        bool held, exactly = false;
        int status = writer_locks(t, &held);
        if (status != IMMUTA_C_OK)
            return status;
        page_find(t);
        uint64_t page_state = t->page ? acquire(t->page + CP_STATE) : 0;
        if (held) {
            *state = page_state == FAILED && page_beats(t, clock_ns()) ? IMMUTA_C_WRITER_FAILED : IMMUTA_C_WRITER_ALIVE;
            return IMMUTA_C_OK;
        }
        if (page_state == FAILED || page_state == CLOSED) {
            *state = page_state == FAILED ? IMMUTA_C_WRITER_FAILED : IMMUTA_C_WRITER_CLOSED;
            return IMMUTA_C_OK;
        }
        if (!t->page && (status = ends_exactly(walk, &exactly)) != IMMUTA_C_OK)
            return status;
        if (exactly || looks == GONE_LOOKS) {
            *state = exactly ? IMMUTA_C_WRITER_CLOSED : IMMUTA_C_WRITER_GONE;
            return IMMUTA_C_OK;
        }
    }
}

/* ---- waiting ---- */

/* The next record, if it is there. */
static int advance(struct immuta_c_tailer *t, struct immuta_c_record *record)
{
    for (bool looked = false;; looked = true) {
        while (is_there(t)) {
            bool wanted = t->sequence >= t->skip_to;
            int status = take(t, wanted ? record : NULL);
            if (wanted || status != IMMUTA_C_OK)
                return status;
        }
        if (looked && t->replaced)
            return fail(IMMUTA_C_REPLACED, 0, t->path, t->position, t->sequence, "the log was removed, or another file has its name, after record %" PRIu64, t->sequence);
        if (looked)
            return IMMUTA_C_NONE;
        int64_t now = clock_ns();
        uint64_t state = t->follows ? acquire(t->page + CP_STATE) : OPEN;
        int status = IMMUTA_C_OK;
        if (!t->replaced && (now - t->upkeep_at >= UPKEEP || state == CLOSED || state == SUPERSEDED))
            status = upkeep(t, now);
        if (status != IMMUTA_C_OK)
            t->upkeep_at = INT64_MIN / 2; /* the next call finds it again */
        else
            status = refresh(t);
        if (status != IMMUTA_C_OK)
            return status;
    }
}

/* Sleeps until there may be news, at most for limit and SLICE. */
static void doze(struct immuta_c_tailer *t, int64_t limit, int64_t *interval)
{
    if (!t->follows || !t->bell) {
        int64_t first = t->follows ? POLL_PAGE : POLL_COUNT;
        *interval = *interval == 0 ? first : *interval * 2 < POLL ? *interval * 2 : POLL;
        struct timespec time = interval_of(limit < *interval ? limit : *interval);
        nanosleep(&time, NULL);
        return;
    }
    uint64_t commit = acquire(t->page + CP_COMMIT);
    if (acquire(t->page + CP_END) > t->position)
        return;
    _Atomic uint64_t *announced = (_Atomic uint64_t *)(void *)(t->bell + DB_ANNOUNCED);
    uint64_t seen = atomic_load_explicit(announced, memory_order_relaxed);
    while (seen < commit + 1 && !atomic_compare_exchange_weak(announced, &seen, commit + 1))
        ;
    /* Against the writer's fence between its store of commit and its load of announced: one of the two sees the other's store. */
    atomic_thread_fence(memory_order_seq_cst);
    if (acquire(t->page + CP_COMMIT) != commit)
        return;
    struct timespec time = interval_of(limit < SLICE ? limit : SLICE);
    if (syscall(SYS_futex, t->page + CP_COMMIT, FUTEX_WAIT, (uint32_t)commit, &time, NULL, 0) != 0 && errno != EAGAIN && errno != EINTR && errno != ETIMEDOUT) {
        munmap(t->bell, PAGE); /* a sandbox, most likely; without a sleep this would be a busy loop */
        t->bell = NULL;
        t->sleepless = true;
    }
}

static int wait_next(struct immuta_c_tailer *t, int64_t limit, struct immuta_c_record *record)
{
    int64_t interval = 0, deadline = 0;
    for (;;) {
        if (atomic_load_explicit(&t->stopped, memory_order_relaxed))
            return fail(IMMUTA_C_STOPPED, 0, t->path, t->position, t->sequence, "stopped");
        int status = advance(t, record);
        if (status != IMMUTA_C_NONE)
            return status;
        int64_t now = clock_ns();
        if (deadline == 0)
            deadline = limit < 0 || limit > INT64_MAX - now ? INT64_MAX : now + limit;
        if (now >= deadline)
            return fail(IMMUTA_C_TIMED_OUT, 0, t->path, t->position, t->sequence, "no record within %.3f s", (double)limit / (double)NS);
        doze(t, deadline - now, &interval);
    }
}

int immuta_c_tailer_next_timeout(immuta_c_tailer *t, int64_t limit, struct immuta_c_record *record)
{
    if (!atomic_load_explicit(&t->stopped, memory_order_relaxed) && quick(t, record))
        return IMMUTA_C_OK;
    return wait_next(t, limit < 0 ? 0 : limit, record);
}

int immuta_c_tailer_next(immuta_c_tailer *t, struct immuta_c_record *record)
{
    if (!atomic_load_explicit(&t->stopped, memory_order_relaxed) && quick(t, record))
        return IMMUTA_C_OK;
    return wait_next(t, -1, record);
}

int immuta_c_tailer_try_next(immuta_c_tailer *t, struct immuta_c_record *record)
{
    return quick(t, record) ? IMMUTA_C_OK : advance(t, record);
}

int immuta_c_tailer_next_batch(immuta_c_tailer *t, int64_t limit, struct immuta_c_record *records, size_t capacity, size_t *count)
{
    *count = 0;
    if (capacity == 0)
        return IMMUTA_C_OK;
    int status = limit < 0 ? immuta_c_tailer_next(t, records) : immuta_c_tailer_next_timeout(t, limit, records);
    if (status != IMMUTA_C_OK)
        return status;
    size_t n = 1;
    while (n < capacity && quick(t, records + n))
        n++;
    *count = n;
    return IMMUTA_C_OK;
}

void immuta_c_tailer_stop(immuta_c_tailer *t)
{
    atomic_store_explicit(&t->stopped, true, memory_order_relaxed);
}

uint64_t immuta_c_tailer_sequence(const immuta_c_tailer *t)
{
    return t->sequence;
}

uint64_t immuta_c_tailer_position(const immuta_c_tailer *t)
{
    return t->position;
}

/* ---- opening and closing ---- */

static void finish(struct immuta_c_tailer *t)
{
    page_drop(t);
    if (t->fd >= 0)
        close(t->fd);
    free(t->path);
    free(t->control_dir);
    free(t->chunk);
    free(t->big);
}

void immuta_c_tailer_close(immuta_c_tailer *t)
{
    if (t)
        finish(t);
    free(t);
}

void immuta_c_reader_close(immuta_c_reader *reader)
{
    if (reader)
        finish(&reader->walk);
    free(reader);
}

/* Another cursor over the same log, at its beginning. */
static struct immuta_c_tailer *clone(const struct immuta_c_tailer *from)
{
    struct immuta_c_tailer *t = calloc(1, sizeof *t);
    if (!t)
        return refused(from->path, "a tailer", ENOMEM), NULL;
    t->device = from->device;
    t->inode = from->inode;
    t->owner = from->owner;
    t->birth_ns = from->birth_ns;
    memcpy(t->boot, from->boot, sizeof t->boot);
    t->max_record = from->max_record;
    t->position = 8;
    t->step = FIRST_STEP;
    t->upkeep_at = INT64_MIN / 2;
    t->path = strdup(from->path);
    t->control_dir = strdup(from->control_dir);
    t->fd = fcntl(from->fd, F_DUPFD_CLOEXEC, 0);
    if (t->fd < 0 || !t->path || !t->control_dir) {
        refused(from->path, "a tailer", t->fd < 0 ? errno : ENOMEM);
        immuta_c_tailer_close(t);
        return NULL;
    }
    return t;
}

static void read_boot_id(uint64_t boot[2])
{
    char text[64] = "", digits[33];
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC), n = 0;
    if (fd >= 0 && read_at(fd, text, sizeof text - 1, 0) > 0)
        for (const char *c = text; *c && n < 32; c++)
            if (*c != '-')
                digits[n++] = *c;
    if (fd >= 0)
        close(fd);
    digits[n] = 0;
    if (n == 32) {
        boot[1] = strtoull(digits + 16, NULL, 16);
        digits[16] = 0;
        boot[0] = strtoull(digits, NULL, 16);
    }
}

static int identify(struct immuta_c_tailer *t)
{
    struct stat st;
    struct statx stx;
    if (fstat(t->fd, &st) != 0)
        return refused(t->path, "opening", errno);
    if (!S_ISREG(st.st_mode))
        return fail(IMMUTA_C_NOT_A_LOG, 0, t->path, 0, 0, "not an ordinary file, so not a log");
    t->device = st.st_dev;
    t->inode = st.st_ino;
    t->owner = st.st_uid;
    if (statx(t->fd, "", AT_EMPTY_PATH, STATX_BTIME, &stx) == 0 && stx.stx_mask & STATX_BTIME)
        t->birth_ns = (uint64_t)stx.stx_btime.tv_sec * (uint64_t)NS + stx.stx_btime.tv_nsec;
    read_boot_id(t->boot);
    uint64_t count, size;
    return log_count(t, &count, &size);
}

int immuta_c_reader_open(const char *path, const struct immuta_c_options *options, immuta_c_reader **reader)
{
    static const struct immuta_c_options defaults;
    const struct immuta_c_options *o = options ? options : &defaults;
    const char *named = getenv("IMMUTA_CONTROL_DIR");
    const char *dir = o->control_dir ? o->control_dir : named && *named ? named : "/dev/shm";
    int64_t begun = clock_ns();
    *reader = NULL;
    struct immuta_c_reader *r = calloc(1, sizeof *r);
    if (!r)
        return refused(path, "opening", ENOMEM);
    struct immuta_c_tailer *t = &r->walk;
    t->fd = -1;
    t->position = 8;
    t->step = FIRST_STEP;
    t->upkeep_at = INT64_MIN / 2;
    t->max_record = o->max_record ? o->max_record : UINT64_C(1) << 30;
    t->path = strdup(path);
    t->control_dir = strdup(dir);
    int status = t->path && t->control_dir ? IMMUTA_C_OK : refused(path, "opening", ENOMEM);
    while (status == IMMUTA_C_OK) {
        struct stat st; /* asked first: to open a device may do something */
        if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
            status = fail(IMMUTA_C_NOT_A_LOG, 0, path, 0, 0, "not an ordinary file, so not a log");
        } else if ((t->fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)) >= 0) {
            if ((status = identify(t)) == IMMUTA_C_OK) {
                *reader = r;
                return IMMUTA_C_OK;
            }
        } else if (errno != ENOENT) {
            status = refused(path, "opening", errno);
        } else if (o->wait_for_log >= 0 && clock_ns() - begun >= o->wait_for_log) {
            status = fail(IMMUTA_C_NOT_FOUND, ENOENT, path, 0, 0, "there is no such log");
        } else {
            struct timespec time = interval_of(POLL);
            nanosleep(&time, NULL);
        }
    }
    immuta_c_reader_close(r);
    return status;
}

int immuta_c_reader_count(immuta_c_reader *reader, uint64_t *count)
{
    uint64_t end;
    return extent(&reader->walk, count, &end);
}

int immuta_c_reader_get(immuta_c_reader *reader, uint64_t sequence, struct immuta_c_record *record)
{
    struct immuta_c_tailer *t = &reader->walk;
    uint64_t count, end;
    int status = extent(t, &count, &end);
    if (status != IMMUTA_C_OK)
        return status;
    if (sequence >= count)
        return IMMUTA_C_NONE;
    status = seek(t, sequence, count);
    return status == IMMUTA_C_OK ? take(t, record) : status;
}

int immuta_c_reader_writer(immuta_c_reader *reader, enum immuta_c_writer *writer)
{
    return writer_state(&reader->walk, &reader->walk, writer);
}

int immuta_c_tailer_writer(immuta_c_tailer *t, enum immuta_c_writer *writer)
{
    struct immuta_c_tailer *walk = clone(t); /* a walk to the end must not move the tailer, nor what it has borrowed out */
    if (!walk)
        return (int)last.status;
    walk->sequence = t->sequence;
    walk->position = t->position;
    int status = writer_state(t, walk, writer);
    immuta_c_tailer_close(walk);
    return status;
}

int immuta_c_reader_tail(immuta_c_reader *reader, enum immuta_c_start start, uint64_t n, immuta_c_tailer **tailer)
{
    *tailer = NULL;
    struct immuta_c_tailer *t = clone(&reader->walk);
    if (!t)
        return (int)last.status;
    uint64_t count = 0, end = 0, target = 0;
    int status = extent(t, &count, &end);
    if (status == IMMUTA_C_OK) {
        switch (start) {
        case IMMUTA_C_BEGINNING:
            break;
        case IMMUTA_C_END:
            target = count;
            break;
        case IMMUTA_C_SEQUENCE:
            target = n < count ? n : count;
            t->skip_to = n;
            break;
        case IMMUTA_C_LAST:
            target = n < count ? count - n : 0;
            break;
        }
        if (target == count && end != 0) { /* the page has told where that is */
            t->sequence = count;
            t->position = end;
        } else {
            status = seek(t, target, count);
        }
    }
    if (status != IMMUTA_C_OK) {
        immuta_c_tailer_close(t);
        return status;
    }
    *tailer = t;
    return IMMUTA_C_OK;
}
