/* bench LOG: how fast LOG is read from the page cache: one line of JSON for each way, the best of three runs. */
#define _GNU_SOURCE
#include "immuta_reader.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RUNS = 3, BATCH = 256, READ = 1 << 20 };

struct pass {
    uint64_t records, bytes;
};

static volatile uint64_t sink; /* keeps the payloads from being optimised away */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static _Noreturn void give_up(void)
{
    fprintf(stderr, "bench: %s\n", immuta_c_last_error()->message);
    exit(1);
}

static immuta_c_tailer *tail(immuta_c_reader **reader, const char *path)
{
    immuta_c_tailer *tailer;
    if (immuta_c_reader_open(path, NULL, reader) || immuta_c_reader_tail(*reader, IMMUTA_C_BEGINNING, 0, &tailer))
        give_up();
    return tailer;
}

static struct pass by_next(const char *path)
{
    immuta_c_reader *reader;
    immuta_c_tailer *tailer = tail(&reader, path);
    struct immuta_c_record record;
    struct pass pass = { 0, 0 };
    uintptr_t sum = 0;
    int status;
    while ((status = immuta_c_tailer_try_next(tailer, &record)) == IMMUTA_C_OK) {
        pass.records++;
        pass.bytes += record.size;
        sum += (uintptr_t)record.payload;
    }
    if (status != IMMUTA_C_NONE)
        give_up();
    sink = sum;
    immuta_c_tailer_close(tailer);
    immuta_c_reader_close(reader);
    return pass;
}

static struct pass by_batch(const char *path)
{
    immuta_c_reader *reader;
    immuta_c_tailer *tailer = tail(&reader, path);
    struct immuta_c_record records[BATCH];
    struct pass pass = { 0, 0 };
    uintptr_t sum = 0;
    size_t n;
    int status;
    while ((status = immuta_c_tailer_next_batch(tailer, 0, records, BATCH, &n)) == IMMUTA_C_OK) {
        pass.records += n;
        for (size_t i = 0; i < n; i++) {
            pass.bytes += records[i].size;
            sum += (uintptr_t)records[i].payload;
        }
    }
    if (status != IMMUTA_C_TIMED_OUT)
        give_up();
    sink = sum;
    immuta_c_tailer_close(tailer);
    immuta_c_reader_close(reader);
    return pass;
}

static struct pass by_read(const char *path)
{
    struct pass pass = { 0, 0 };
    char *buffer = malloc(READ);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = -1;
    while (buffer && fd >= 0 && (n = read(fd, buffer, READ)) > 0) {
        pass.bytes += (uint64_t)n;
        sink = (uint64_t)buffer[n - 1];
    }
    if (n != 0) {
        perror(path);
        exit(1);
    }
    close(fd);
    free(buffer);
    return pass;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        struct pass (*run)(const char *);
    } ways[] = { { "next", by_next }, { "next_batch", by_batch }, { "read", by_read } };
    if (argc != 2) {
        fprintf(stderr, "usage: bench LOG\n");
        return 2;
    }
    for (size_t way = 0; way < sizeof ways / sizeof *ways; way++) {
        double best = 1e300;
        struct pass pass = { 0, 0 };
        for (int run = 0; run < RUNS; run++) {
            double begun = now();
            pass = ways[way].run(argv[1]);
            double took = now() - begun;
            best = took < best ? took : best;
        }
        printf("{\"language\":\"c\",\"way\":\"%s\",\"records\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"seconds\":%.6f}\n", ways[way].name, pass.records, pass.bytes, best);
        fflush(stdout);
    }
    return 0;
}
