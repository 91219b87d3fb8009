/*
 * Reads and follows an immuta log: a file to which one process appends records. Linux, 64 bit, little-endian; C11 and C++.
 *
 * Every function returns one of enum immuta_c_status; IMMUTA_C_OK is 0. Of what went wrong otherwise, on the
 * calling thread, immuta_c_last_error() tells more. Times are nanoseconds.
 *
 * Threads: a reader, and each tailer, is for one thread at a time; tailers of one reader may be on different threads and
 * outlive it. Only immuta_c_tailer_stop() may be called from any thread, and from a signal handler, while another waits.
 *
 * No call takes a lock, holds a writer up or writes anything but the doorbell's announcement that somebody sleeps.
 * All names begin with immuta_c_, so that a program may have the crate's C interface, immuta.h, beside this one.
 * A relative path is looked up again while a log is followed, so a program that uses one must not change its directory.
 */
#ifndef IMMUTA_C_READER_H
#define IMMUTA_C_READER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum immuta_c_status {
    IMMUTA_C_OK = 0,
    IMMUTA_C_NONE,      /* get, try_next: there is no such record (yet) */
    IMMUTA_C_STOPPED,   /* immuta_c_tailer_stop() was called */
    IMMUTA_C_TIMED_OUT, /* nothing came within the limit */
    IMMUTA_C_NOT_FOUND, /* there is no file of this name */
    IMMUTA_C_NOT_A_LOG, /* a directory, a socket ... */
    IMMUTA_C_DAMAGED,   /* the log cannot be what it says; position and sequence tell where */
    IMMUTA_C_TOO_LARGE, /* a payload beyond max_record; position and sequence tell which */
    IMMUTA_C_REPLACED,  /* the log was removed, or another file took its name; all that was readable was delivered */
    IMMUTA_C_SYSTEM     /* the system refused something: system_error is its errno */
};

struct immuta_c_error {
    enum immuta_c_status status;
    int system_error;   /* errno of IMMUTA_C_SYSTEM and IMMUTA_C_NOT_FOUND, else 0 */
    uint64_t position;  /* of the size field concerned, in bytes; 0 where the count at the log's beginning is wrong, or fell, or the file was cut */
    uint64_t sequence;  /* of that record */
    char message[5120]; /* for people: path, position and what is wrong */
};

/* The last error of this thread; valid until this thread's next call that fails. Never NULL. */
const struct immuta_c_error *immuta_c_last_error(void);

typedef struct immuta_c_reader immuta_c_reader; /* an opened log */
typedef struct immuta_c_tailer immuta_c_tailer; /* goes through a log from record to record, and waits for new ones */

/* A zeroed one has the defaults. */
struct immuta_c_options {
    int64_t wait_for_log;    /* how long to wait for the log to appear, in nanoseconds; 0: not at all, below 0: for ever */
    uint64_t max_record;     /* the largest payload that is taken, in bytes; 0: 1 GiB */
    const char *control_dir; /* where control pages are; NULL: the environment's IMMUTA_CONTROL_DIR, else /dev/shm */
};

struct immuta_c_record {
    uint64_t sequence;   /* how many records come before it */
    uint64_t position;   /* of its size field in the log, in bytes */
    const void *payload; /* size bytes, not aligned; borrowed, see the function that filled it in */
    uint64_t size;
};

enum immuta_c_writer {
    IMMUTA_C_WRITER_ALIVE,  /* a process holds the log for writing */
    IMMUTA_C_WRITER_CLOSED, /* nobody does; the last one closed it */
    IMMUTA_C_WRITER_GONE,   /* nobody does; the last one was killed */
    IMMUTA_C_WRITER_FAILED  /* a flush failed: that writer publishes nothing more */
};

enum immuta_c_start {
    IMMUTA_C_BEGINNING, /* with the first record */
    IMMUTA_C_END,       /* with the first that comes after now */
    IMMUTA_C_SEQUENCE,  /* with record n; waits for it where there are fewer */
    IMMUTA_C_LAST       /* with the last n records, or with all where there are fewer */
};

/* Opens the log at path; options may be NULL. Waits only for wait_for_log.
 * NOT_FOUND, NOT_A_LOG, DAMAGED where the count cannot be true, SYSTEM. */
int immuta_c_reader_open(const char *path, const struct immuta_c_options *options, immuta_c_reader **reader);
void immuta_c_reader_close(immuta_c_reader *reader); /* NULL is allowed */

/* How many records are published now. DAMAGED, SYSTEM. */
int immuta_c_reader_count(immuta_c_reader *reader, uint64_t *count);

/* The record of this sequence, found by the index where there is one; its payload is valid until the next call with this reader.
 * NONE where there are fewer, DAMAGED, TOO_LARGE, SYSTEM. */
int immuta_c_reader_get(immuta_c_reader *reader, uint64_t sequence, struct immuta_c_record *record);

/* Who is writing. Reads through a log that has no index where only that can tell closed from gone. DAMAGED, SYSTEM. */
int immuta_c_reader_writer(immuta_c_reader *reader, enum immuta_c_writer *writer);

/* A tailer that begins at start, which is fixed now; n is for SEQUENCE and LAST. Without an index it may have to read through
 * the log for that. DAMAGED, SYSTEM. */
int immuta_c_reader_tail(immuta_c_reader *reader, enum immuta_c_start start, uint64_t n, immuta_c_tailer **tailer);

/* The next record. Its payload is valid until the next call with this tailer, but for those that only ask. Waiting, also across a
 * writer's close, kill and restart: next without a limit, next_timeout for at most limit nanoseconds, try_next not at all.
 * NONE (try_next), TIMED_OUT (next_timeout), STOPPED (the two that wait), DAMAGED, TOO_LARGE, REPLACED, SYSTEM. After an error
 * the tailer is where it was. */
int immuta_c_tailer_next(immuta_c_tailer *tailer, struct immuta_c_record *record);
int immuta_c_tailer_next_timeout(immuta_c_tailer *tailer, int64_t limit, struct immuta_c_record *record);
int immuta_c_tailer_try_next(immuta_c_tailer *tailer, struct immuta_c_record *record);

/* Many records in one call: from 1 to capacity that are there already; their number goes to *count. Where there is none it waits
 * for one as next_timeout does; a limit of 0 waits not at all, one below 0 without limit. Payloads are valid as for next. */
int immuta_c_tailer_next_batch(immuta_c_tailer *tailer, int64_t limit, struct immuta_c_record *records, size_t capacity, size_t *count);

/* Ends a wait of this tailer within 50 ms, and every later call that may wait at once; for good. Any thread, any signal handler. */
void immuta_c_tailer_stop(immuta_c_tailer *tailer);

/* Sequence and position of the next record; those of an earlier one while it waits for a record beyond the end. */
uint64_t immuta_c_tailer_sequence(const immuta_c_tailer *tailer);
uint64_t immuta_c_tailer_position(const immuta_c_tailer *tailer);

int immuta_c_tailer_writer(immuta_c_tailer *tailer, enum immuta_c_writer *writer); /* as immuta_c_reader_writer() */
void immuta_c_tailer_close(immuta_c_tailer *tailer);                                    /* NULL is allowed */

#ifdef __cplusplus
}
#endif
#endif
