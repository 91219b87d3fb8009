/* capi DIRECTORY ROUNDS: runs every test in a directory of its own below DIRECTORY. Prints "ok" at the end, and only then exits with 0. */
#include "test.h"

#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

unsigned rounds;
char directory[4096];
char log_path[4200];

static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {
    {"writing", test_writing},
    {"batches", test_batches},
    {"writer_options", test_writer_options},
    {"sizes", test_sizes},
    {"reading", test_reading},
    {"starts", test_starts},
    {"reader_options", test_reader_options},
    {"errors_of_reading", test_errors_of_reading},
    {"errors_of_writing", test_errors_of_writing},
    {"failed_flush", test_failed_flush},
    {"last_error", test_last_error},
    {"null_arguments", test_null_arguments},
    {"sizes_of_structs", test_sizes_of_structs},
    {"threads", test_threads},
    {"shared_reader", test_shared_reader},
    {"stop", test_stop},
    {"stop_by_signal", test_stop_by_signal},
    {"fork", test_fork},
    {"killed_writer", test_killed_writer},
};

static const char *running = "main";

void fail(const char *file, int line, const char *what) {
    const immuta_error *error = immuta_last_error();
    fprintf(stderr, "%s:%d: %s: not so: %s\n    the last error: %d %s\n", file, line, running, what, error->code, error->message);
    _exit(1);
}

void fail_code(const char *file, int line, const char *call, const char *expected, immuta_code got) {
    fprintf(stderr, "%s:%d: %s: %s gives %d, not %s\n    the last error: %s\n", file, line, running, call, got, expected,
            immuta_last_error()->message);
    _exit(1);
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    rounds = (unsigned)atoi(argv[2]);
    CHECK(rounds > 0);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        running = tests[i].name;
        CHECK(snprintf(directory, sizeof directory, "%s/%s", argv[1], running) < (int)sizeof directory);
        CHECK(mkdir(directory, 0777) == 0);
        snprintf(log_path, sizeof log_path, "%s/events.log", directory);
        /* Bounds a hang; the whole program has a bound of its own. */
        alarm(120);
        tests[i].run();
    }
    puts("ok");
    return 0;
}

void last_error_is(immuta_code code, const char *part) {
    const immuta_error *error = immuta_last_error();
    CHECK(error->code == code);
    CHECK(strcmp(error->path, log_path) == 0);
    CHECK(strstr(error->message, log_path) == error->message);
    CHECK(strstr(error->message, part) != NULL);
}

/* A small part of the address space: valgrind looks at all of it when a forked child ends. */
enum { WINDOW_BYTES = 8 << 20 };

immuta_writer *open_writer(void) {
    immuta_writer_options options = {.size = sizeof options, .window_bytes = WINDOW_BYTES};
    immuta_writer *writer = NULL;
    OK(immuta_writer_open(log_path, &options, &writer));
    CHECK(writer != NULL);
    return writer;
}

immuta_reader *open_reader(void) {
    immuta_reader_options options = {.size = sizeof options, .window_bytes = WINDOW_BYTES};
    immuta_reader *reader = NULL;
    OK(immuta_reader_open(log_path, &options, &reader));
    CHECK(reader != NULL);
    return reader;
}

immuta_tailer *tail(immuta_reader *reader, immuta_start start, uint64_t n) {
    immuta_tailer *tailer = NULL;
    OK(immuta_reader_tail(reader, start, n, &tailer));
    CHECK(tailer != NULL);
    return tailer;
}

immuta_tailer *tail_log(void) {
    immuta_reader *reader = open_reader();
    immuta_tailer *tailer = tail(reader, IMMUTA_START_BEGINNING, 0);
    OK(immuta_reader_close(reader));
    return tailer;
}

void append(immuta_writer *writer, const char *text) {
    OK(immuta_writer_append(writer, text, strlen(text), NULL));
}

void next_is(immuta_tailer *tailer, uint64_t sequence, const char *text) {
    immuta_record record;
    OK(immuta_tailer_next(tailer, 60000, &record));
    CHECK(record.sequence == sequence);
    CHECK(record.size == strlen(text) && memcmp(record.payload, text, record.size) == 0);
}

const char *beside(const char *name) {
    static char paths[4][4400];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

void write_file(const char *path, const void *bytes, size_t size) {
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL);
    CHECK(fwrite(bytes, 1, size, file) == size);
    CHECK(fclose(file) == 0);
}

long long size_of_file(const char *path) {
    struct stat stat_of_it;
    return stat(path, &stat_of_it) == 0 ? (long long)stat_of_it.st_size : -1;
}

long long now_ms(void) {
    struct timespec now;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}
