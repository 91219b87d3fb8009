/* Every code that the world can cause, and what the last error says of it. */
#include "test.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void reader_fails(const char *path, immuta_code code, const char *part) {
    immuta_reader *reader = NULL;
    GIVES(code, immuta_reader_open(path, NULL, &reader));
    CHECK(reader == NULL);
    CHECK(immuta_last_error()->code == code && strcmp(immuta_last_error()->path, path) == 0);
    CHECK(strstr(immuta_last_error()->message, part) != NULL);
}

static const unsigned char lying[] = {2, 0, 0, 0, 0, 0, 0, 0, 1,    0,    0,    0,    0,    0,    0,   0,
                                      'a', 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0};

void test_errors_of_reading(void) {
    reader_fails(log_path, IMMUTA_NOT_FOUND, "no such log");
    CHECK(immuta_last_error()->position == IMMUTA_UNKNOWN && immuta_last_error()->sequence == IMMUTA_UNKNOWN);
    reader_fails("", IMMUTA_NOT_FOUND, "no such log");
    reader_fails(directory, IMMUTA_NOT_A_LOG, "is a directory");
    write_file(beside("seven"), "1234567", 7);
    reader_fails(beside("seven"), IMMUTA_DAMAGED, "damaged at position 0");
    CHECK(immuta_last_error()->position == 0 && immuta_last_error()->system_error == 0);

    /* A record of 2^64 - 1 bytes, behind one that is sound. */
    write_file(log_path, lying, sizeof lying);
    immuta_tailer *tailer = tail_log();
    immuta_record record;
    next_is(tailer, 0, "a");
    GIVES(IMMUTA_DAMAGED, immuta_tailer_next(tailer, IMMUTA_FOREVER, &record));
    CHECK(immuta_last_error()->position == 17 && immuta_last_error()->sequence == 1);
    last_error_is(IMMUTA_DAMAGED, "damaged at position 17 (record 1)");
    OK(immuta_tailer_close(tailer));
    immuta_writer *writer = NULL;
    GIVES(IMMUTA_DAMAGED, immuta_writer_open(log_path, NULL, &writer));
    CHECK(writer == NULL && immuta_last_error()->position == 17);
    CHECK(size_of_file(log_path) == (long long)sizeof lying);
    CHECK(unlink(log_path) == 0);

    /* Removed while it is followed, once all was delivered. */
    writer = open_writer();
    append(writer, "last");
    tailer = tail_log();
    CHECK(unlink(log_path) == 0);
    next_is(tailer, 0, "last");
    GIVES(IMMUTA_REPLACED, immuta_tailer_next(tailer, IMMUTA_FOREVER, &record));
    last_error_is(IMMUTA_REPLACED, "removed or replaced");
    OK(immuta_tailer_close(tailer));
    OK(immuta_writer_close(writer));

    /* Without an index nothing tells when a record came. */
    immuta_writer_options options = {.size = sizeof options, .flags = IMMUTA_WITHOUT_INDEX};
    OK(immuta_writer_open(log_path, &options, &writer));
    append(writer, "at some time");
    immuta_reader *reader = open_reader();
    tailer = NULL;
    GIVES(IMMUTA_NO_TIMES, immuta_reader_tail(reader, IMMUTA_START_TIME_NS, 1, &tailer));
    CHECK(tailer == NULL);
    last_error_is(IMMUTA_NO_TIMES, "nothing tells when its records came");
    OK(immuta_reader_close(reader));
    OK(immuta_writer_close(writer));
}

void test_errors_of_writing(void) {
    immuta_writer *writer = open_writer(), *other = NULL;
    GIVES(IMMUTA_LOCKED, immuta_writer_open(log_path, NULL, &other));
    CHECK(other == NULL);
    last_error_is(IMMUTA_LOCKED, "another process holds the writer's lock");
    OK(immuta_writer_close(writer));

    GIVES(IMMUTA_NOT_A_LOG, immuta_writer_open(directory, NULL, &other));
    GIVES(IMMUTA_IO, immuta_writer_open(beside("no/such/directory"), NULL, &other));
    CHECK(other == NULL && immuta_last_error()->system_error == ENOENT);
    CHECK(strcmp(immuta_last_error()->path, beside("no/such/directory")) == 0);

    /* No descriptors are left. */
    struct rlimit limit, least;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    least = limit;
    least.rlim_cur = 0;
    CHECK(setrlimit(RLIMIT_NOFILE, &least) == 0);
    immuta_code code = immuta_writer_open(log_path, NULL, &other);
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    GIVES(IMMUTA_IO, code);
    CHECK(immuta_last_error()->system_error == EMFILE);
    last_error_is(IMMUTA_IO, "ulimit -n");
}

void test_failed_flush(void) {
    immuta_writer_options options = {.size = sizeof options, .durability = IMMUTA_BUFFERED};
    immuta_writer *writer = NULL;
    OK(immuta_writer_open(log_path, &options, &writer));
    immuta_tailer *tailer = tail_log();
    append(writer, "before");
    OK(immuta_writer_sync(writer));
    append(writer, "perhaps");
    atomic_store(&flushes_fail, true);
    GIVES(IMMUTA_IO, immuta_writer_sync(writer));
    atomic_store(&flushes_fail, false);
    CHECK(immuta_last_error()->system_error == EIO);
    last_error_is(IMMUTA_IO, "flush");

    /* For good, also in a batch. */
    GIVES(IMMUTA_FAILED, immuta_writer_append(writer, "after", 5, NULL));
    last_error_is(IMMUTA_FAILED, "a flush to the disk failed earlier");
    GIVES(IMMUTA_FAILED, immuta_writer_sync(writer));
    OK(immuta_batch_begin(writer));
    GIVES(IMMUTA_FAILED, immuta_batch_append(writer, "after", 5, NULL));
    GIVES(IMMUTA_FAILED, immuta_batch_commit(writer, NULL, NULL));
    GIVES(IMMUTA_BATCH, immuta_batch_abandon(writer));
    immuta_stat stat = {.size = sizeof stat};
    OK(immuta_writer_stat(writer, &stat));
    CHECK(stat.writer == IMMUTA_WRITER_FAILED && stat.durable_records == 1);

    /* The followers are told. */
    immuta_writer_state state;
    next_is(tailer, 0, "before");
    next_is(tailer, 1, "perhaps");
    OK(immuta_tailer_writer(tailer, &state));
    CHECK(state == IMMUTA_WRITER_FAILED);
    GIVES(IMMUTA_FAILED, immuta_writer_close(writer));

    /* The next writer takes it up. */
    writer = open_writer();
    append(writer, "anew");
    next_is(tailer, 2, "anew");
    OK(immuta_writer_close(writer));
    OK(immuta_tailer_close(tailer));
}

static void *has_none(void *unused) {
    (void)unused;
    const immuta_error *error = immuta_last_error();
    CHECK(error->code == IMMUTA_OK && error->system_error == 0);
    CHECK(error->position == IMMUTA_UNKNOWN && error->sequence == IMMUTA_UNKNOWN);
    CHECK(strcmp(error->path, "") == 0 && strcmp(error->message, "") == 0);
    reader_fails("of another thread", IMMUTA_NOT_FOUND, "of another thread");
    return NULL;
}

void test_last_error(void) {
    CHECK(strcmp(immuta_version(), IMMUTA_EXPECTED_VERSION) == 0);
    reader_fails(log_path, IMMUTA_NOT_FOUND, "no such log");

    /* Another thread has its own, and so leaves this one alone; what goes well leaves it, too. */
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, has_none, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    immuta_writer *writer = open_writer();
    append(writer, "well");
    last_error_is(IMMUTA_NOT_FOUND, "no such log");

    /* Names are bytes, not text. */
    immuta_reader *reader = NULL;
    GIVES(IMMUTA_NOT_FOUND, immuta_reader_open("\xff\xfe", NULL, &reader));
    CHECK(strcmp(immuta_last_error()->path, "\xff\xfe") == 0);
    GIVES(IMMUTA_INVALID, immuta_writer_sync(NULL));
    CHECK(strcmp(immuta_last_error()->path, "") == 0);
    CHECK(strcmp(immuta_last_error()->message, "the writer is NULL") == 0);
    OK(immuta_writer_close(writer));
}

void test_killed_writer(void) {
    int ready[2];
    CHECK(pipe(ready) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(100);
        append(open_writer(), "by one that is killed");
        CHECK(write(ready[1], "", 1) == 1);
        for (;;) pause();
    }
    close(ready[1]);
    char byte;
    CHECK(read(ready[0], &byte, 1) == 1);
    close(ready[0]);
    immuta_tailer *tailer = tail_log();
    immuta_writer_state state;
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
    OK(immuta_tailer_writer(tailer, &state));
    CHECK(state == IMMUTA_WRITER_GONE);
    immuta_writer *writer = open_writer();
    append(writer, "by the next");
    next_is(tailer, 0, "by one that is killed");
    next_is(tailer, 1, "by the next");
    OK(immuta_writer_close(writer));
    OK(immuta_tailer_close(tailer));
}
