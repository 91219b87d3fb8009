/* What several threads may do at the same time, and how a wait is ended from elsewhere. */
#include "test.h"

#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { THREADS = 4 };

static pthread_t start(void *(*work)(void *), void *argument) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, work, argument) == 0);
    return thread;
}

static void *ended(pthread_t thread) {
    void *result;
    CHECK(pthread_join(thread, &result) == 0);
    return result;
}

/* A tailer in a thread of its own. */
typedef struct {
    immuta_tailer *tailer;
    /* How long each call waits. */
    uint64_t timeout_ms;
    atomic_int task;
    immuta_code code;
    uint64_t records;
} follower;

/* Reads until that fails. Record n is n, as many times as n goes into 100. */
static void *follow(void *argument) {
    follower *self = argument;
    atomic_store(&self->task, (int)syscall(SYS_gettid));
    immuta_record record;
    while ((self->code = immuta_tailer_next(self->tailer, self->timeout_ms, &record)) == IMMUTA_OK) {
        CHECK(record.sequence == self->records && record.size == record.sequence % 100 * sizeof(uint64_t));
        for (size_t i = 0; i < record.size; i += sizeof(uint64_t)) {
            uint64_t word;
            memcpy(&word, (const char *)record.payload + i, sizeof word);
            CHECK(word == record.sequence);
        }
        self->records++;
    }
    CHECK(immuta_last_error()->code == self->code);
    return NULL;
}

/* Returns once the thread sleeps. */
static void until_asleep(follower *one) {
    char path[64], state = 0;
    while (atomic_load(&one->task) == 0) usleep(100);
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", atomic_load(&one->task));
    while (state != 'S') {
        FILE *file = fopen(path, "r");
        CHECK(file != NULL && fscanf(file, "%*d (%*[^)]) %c", &state) == 1);
        fclose(file);
    }
}

static void append_number(immuta_writer *writer, uint64_t n) {
    uint64_t words[100];
    for (int i = 0; i < 100; i++) words[i] = n;
    OK(immuta_writer_append(writer, words, n % 100 * sizeof *words, NULL));
}

static void *append_numbers(void *argument) {
    for (uint64_t n = 0; n < rounds / 2; n++) append_number(argument, n);
    return NULL;
}

static void *stop(void *argument) {
    OK(immuta_stop(argument));
    return NULL;
}

/* One thread tails, one appends, and hands the writer over to another, a third one stops. */
void test_threads(void) {
    immuta_writer *writer = open_writer();
    follower one = {.tailer = tail_log(), .timeout_ms = IMMUTA_FOREVER};
    immuta_stopper *stopper;
    OK(immuta_tailer_stopper(one.tailer, &stopper));
    pthread_t follows = start(follow, &one);
    ended(start(append_numbers, writer));
    for (uint64_t n = rounds / 2; n < rounds; n++) append_number(writer, n);

    immuta_tailer *other = tail_log();
    immuta_record record;
    for (uint64_t n = 0; n < rounds; n++) {
        OK(immuta_tailer_next(other, 60000, &record));
        CHECK(record.sequence == n);
    }
    until_asleep(&one);
    ended(start(stop, stopper));
    ended(follows);
    CHECK(one.code == IMMUTA_STOPPED && one.records <= rounds);
    OK(immuta_stopper_free(stopper));
    OK(immuta_tailer_close(one.tailer));
    OK(immuta_tailer_close(other));
    OK(immuta_writer_close(writer));
}

/* Each of several threads takes records and tailers from the same reader. */
static void *use(void *reader) {
    for (uint64_t n = 0; n < 100 && n < rounds / 100; n++) {
        immuta_bytes bytes;
        immuta_stat stat = {.size = sizeof stat};
        OK(immuta_reader_get(reader, n, &bytes));
        CHECK(bytes.size == n * sizeof(uint64_t));
        OK(immuta_bytes_free(&bytes));
        GIVES(IMMUTA_NO_RECORD, immuta_reader_get(reader, 100 + n, &bytes));
        OK(immuta_reader_stat(reader, &stat));
        CHECK(stat.records == 100);
        immuta_tailer *tailer = tail(reader, IMMUTA_START_SEQUENCE, n);
        immuta_record record;
        OK(immuta_tailer_next(tailer, 60000, &record));
        CHECK(record.sequence == n && immuta_last_error()->code == IMMUTA_NO_RECORD);
        OK(immuta_tailer_close(tailer));
    }
    return NULL;
}

void test_shared_reader(void) {
    immuta_writer *writer = open_writer();
    for (uint64_t n = 0; n < 100; n++) append_number(writer, n);
    immuta_reader *reader = open_reader();
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) threads[i] = start(use, reader);
    for (int i = 0; i < THREADS; i++) ended(threads[i]);
    OK(immuta_reader_close(reader));
    OK(immuta_writer_close(writer));
}

void test_stop(void) {
    immuta_writer *writer = open_writer();
    append_number(writer, 0);
    /* Before it waits, for good, whatever is there and however it waits; the other tailers are not stopped. */
    static const uint64_t timeouts[] = {0, 50, 60000, IMMUTA_FOREVER};
    immuta_tailer *other = tail_log(), *tailer = tail_log();
    immuta_stopper *stopper, *second;
    immuta_record record;
    OK(immuta_tailer_stopper(tailer, &stopper));
    OK(immuta_tailer_stopper(tailer, &second));
    OK(immuta_stopper_free(second));
    OK(immuta_stop(stopper));
    OK(immuta_stop(stopper));
    for (size_t i = 0; i < sizeof timeouts / sizeof *timeouts; i++) {
        GIVES(IMMUTA_STOPPED, immuta_tailer_next(tailer, timeouts[i], &record));
    }
    next_is(other, 0, "");
    /* It may outlive its tailer. */
    OK(immuta_tailer_close(tailer));
    OK(immuta_stop(stopper));
    OK(immuta_stopper_free(stopper));

    /* While it waits with a limit, and while it spins. */
    for (uint32_t strategy = IMMUTA_WAIT_SPIN_THEN_PARK; strategy <= IMMUTA_WAIT_PARK; strategy++) {
        immuta_reader_options options = {.size = sizeof options, .wait_strategy = strategy};
        immuta_reader *reader;
        OK(immuta_reader_open(log_path, &options, &reader));
        follower one = {.tailer = tail(reader, IMMUTA_START_BEGINNING, 0), .timeout_ms = 100000};
        OK(immuta_tailer_stopper(one.tailer, &stopper));
        pthread_t follows = start(follow, &one);
        if (strategy != IMMUTA_WAIT_SPIN) until_asleep(&one);
        OK(immuta_stop(stopper));
        ended(follows);
        CHECK(one.code == IMMUTA_STOPPED);
        OK(immuta_stopper_free(stopper));
        OK(immuta_tailer_close(one.tailer));
        OK(immuta_reader_close(reader));
    }
    OK(immuta_tailer_close(other));
    OK(immuta_writer_close(writer));
}

static immuta_stopper *stopper_of_handler;
static atomic_int handled;

static void on_signal(int number) {
    (void)number;
    atomic_store(&handled, (int)immuta_stop(stopper_of_handler) + 1);
}

/* The handler runs in the thread that waits, in the midst of its wait; and in another one. */
void test_stop_by_signal(void) {
    struct sigaction action = {.sa_handler = on_signal};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    immuta_writer *writer = open_writer();
    for (int elsewhere = 0; elsewhere < 2; elsewhere++) {
        follower one = {.tailer = tail_log(), .timeout_ms = IMMUTA_FOREVER};
        OK(immuta_tailer_stopper(one.tailer, &stopper_of_handler));
        atomic_store(&handled, 0);
        pthread_t follows = start(follow, &one);
        until_asleep(&one);
        CHECK(pthread_kill(elsewhere ? pthread_self() : follows, SIGUSR1) == 0);
        ended(follows);
        CHECK(one.code == IMMUTA_STOPPED && atomic_load(&handled) == IMMUTA_OK + 1);
        OK(immuta_stopper_free(stopper_of_handler));
        OK(immuta_tailer_close(one.tailer));
    }
    CHECK(signal(SIGUSR1, SIG_DFL) != SIG_ERR);
    OK(immuta_writer_close(writer));
}
