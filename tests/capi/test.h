/* What the tests of the C interface share. Each test has a directory of its own and ends the program at the first thing that is wrong. */
#ifndef TEST_H
#define TEST_H

#include <errno.h>
#include <immuta.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* It must hold. */
#define CHECK(condition)                                                                                                                   \
    do {                                                                                                                                   \
        if (!(condition)) fail(__FILE__, __LINE__, #condition);                                                                            \
    } while (0)

/* The call must return this code. */
#define GIVES(expected, call)                                                                                                              \
    do {                                                                                                                                   \
        immuta_code got = (call);                                                                                                          \
        if (got != (expected)) fail_code(__FILE__, __LINE__, #call, #expected, got);                                                       \
    } while (0)

#define OK(call) GIVES(IMMUTA_OK, call)

_Noreturn void fail(const char *file, int line, const char *what);
_Noreturn void fail_code(const char *file, int line, const char *call, const char *expected, immuta_code got);

/* Rounds of what is repeated: fewer under valgrind. */
extern unsigned rounds;
/* The directory of the test that runs, and the log in it, which is not there yet. */
extern char directory[4096];
extern char log_path[4200];

/* The last error of this thread must be of this code, about the log, and its message must have this in it. */
void last_error_is(immuta_code code, const char *part);

immuta_writer *open_writer(void);
immuta_reader *open_reader(void);
immuta_tailer *tail(immuta_reader *reader, immuta_start start, uint64_t n);
/* A tailer of a reader that is closed at once. */
immuta_tailer *tail_log(void);
void append(immuta_writer *writer, const char *text);
/* The next record must come, have this sequence, and be this text. */
void next_is(immuta_tailer *tailer, uint64_t sequence, const char *text);
/* Another name in the directory of the test; valid until it is called for the fourth time after. */
const char *beside(const char *name);
void write_file(const char *path, const void *bytes, size_t size);
/* The size of a file in bytes, or -1 where there is none. */
long long size_of_file(const char *path);
/* Milliseconds since some time. */
long long now_ms(void);

/* The flushes of this process, which a test makes fail: see flushes.c. */
extern atomic_bool flushes_fail;

void test_writing(void);
void test_batches(void);
void test_writer_options(void);
void test_sizes(void);
void test_reading(void);
void test_starts(void);
void test_reader_options(void);
void test_errors_of_reading(void);
void test_errors_of_writing(void);
void test_failed_flush(void);
void test_last_error(void);
void test_null_arguments(void);
void test_sizes_of_structs(void);
void test_threads(void);
void test_shared_reader(void);
void test_stop(void);
void test_stop_by_signal(void);
void test_fork(void);
void test_killed_writer(void);

#endif
