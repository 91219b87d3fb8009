/* Tests of the reader. Each runs in a process of its own, which an alarm ends. With arguments: only those whose names have one of them. */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LIMIT_S = 120 }; /* of one test, also under valgrind */

#define OK(call) CHECK((call) == IMMUTA_C_OK)
#define FAILS(call, kind) CHECK((call) == IMMUTA_C_##kind && immuta_c_last_error()->status == IMMUTA_C_##kind)

static immuta_c_reader *reader;
static immuta_c_tailer *tailer;
static struct immuta_c_record record;
static uint64_t count;

static void open_and_tail(const struct log *log, enum immuta_c_start start, uint64_t n)
{
    OK(immuta_c_reader_open(log->path, NULL, &reader));
    OK(immuta_c_reader_tail(reader, start, n, &tailer));
}

static void close_both(void)
{
    immuta_c_tailer_close(tailer);
    immuta_c_reader_close(reader);
}

static void damaged_at(uint64_t position, uint64_t sequence, const struct log *log)
{
    const struct immuta_c_error *e = immuta_c_last_error();
    char begins[256];
    CHECK(e->status == IMMUTA_C_DAMAGED && e->position == position && e->sequence == sequence);
    snprintf(begins, sizeof begins, "%s: damaged at position %ju, record %ju: ", log->path, (uintmax_t)position, (uintmax_t)sequence);
    CHECK(!strncmp(e->message, begins, strlen(begins)) && strlen(e->message) > strlen(begins));
}

/* ---- what is there ---- */

static const uint64_t SIZES[] = { 0, 1, 7, 8, 4087, 4088, 4089, 16375, 16376, 16377, 0, 262135, 262136, 262137, 300000, 2097144, 2097152, 5, 0, 9000000, 3 };
enum { NSIZES = sizeof SIZES / sizeof *SIZES };

static void walks(void)
{
    struct log log;
    struct immuta_c_record batch[5];
    size_t n;
    log_begin(&log);
    for (int i = 0; i < NSIZES; i++)
        log_put(&log, SIZES[i]);
    log_store(&log);
    open_and_tail(&log, IMMUTA_C_BEGINNING, 0);
    uint64_t position = 8;
    for (uint64_t i = 0; i < NSIZES; i++) {
        CHECK(immuta_c_tailer_sequence(tailer) == i && immuta_c_tailer_position(tailer) == position);
        OK(i % 2 ? immuta_c_tailer_next(tailer, &record) : immuta_c_tailer_try_next(tailer, &record));
        payload_check(&record, i, SIZES[i]);
        CHECK(record.position == position);
        position += 8 + SIZES[i];
    }
    CHECK(immuta_c_tailer_try_next(tailer, &record) == IMMUTA_C_NONE);
    OK(immuta_c_reader_count(reader, &count));
    CHECK(count == NSIZES);
    for (uint64_t i = NSIZES; i-- > 0;) {
        OK(immuta_c_reader_get(reader, i, &record));
        payload_check(&record, i, SIZES[i]);
    }
    CHECK(immuta_c_reader_get(reader, NSIZES, &record) == IMMUTA_C_NONE);
    immuta_c_tailer_close(tailer);
    OK(immuta_c_reader_tail(reader, IMMUTA_C_BEGINNING, 0, &tailer));
    bool many = false;
    for (uint64_t i = 0; i < NSIZES; many |= n > 1) {
        OK(immuta_c_tailer_next_batch(tailer, -1, batch, 5, &n));
        CHECK(n >= 1 && n <= 5);
        for (size_t k = 0; k < n; k++, i++)
            payload_check(batch + k, i, SIZES[i]);
    }
    CHECK(many);
    FAILS(immuta_c_tailer_next_batch(tailer, 0, batch, 5, &n), TIMED_OUT);
    close_both();
    log_end(&log);
}

static void starts(void)
{
    static const struct {
        enum immuta_c_start start;
        uint64_t n, first;
    } cases[] = { { IMMUTA_C_BEGINNING, 0, 0 }, { IMMUTA_C_END, 0, 10 },      { IMMUTA_C_SEQUENCE, 0, 0 }, { IMMUTA_C_SEQUENCE, 7, 7 },
                  { IMMUTA_C_SEQUENCE, 10, 10 }, { IMMUTA_C_SEQUENCE, 13, 13 }, { IMMUTA_C_LAST, 0, 10 },    { IMMUTA_C_LAST, 3, 7 },
                  { IMMUTA_C_LAST, 10, 0 },      { IMMUTA_C_LAST, UINT64_MAX, 0 } };
    for (int paged = 0; paged < 2; paged++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            struct log log;
            log_begin(&log);
            log_lock(&log);
            if (paged)
                page_begin(&log, 5);
            for (uint64_t k = 0; k < 10; k++)
                log_add(&log, k);
            open_and_tail(&log, cases[i].start, cases[i].n);
            CHECK(immuta_c_tailer_sequence(tailer) == (cases[i].first < 10 ? cases[i].first : 10));
            if (cases[i].first >= 10)
                CHECK(immuta_c_tailer_try_next(tailer, &record) == IMMUTA_C_NONE);
            for (uint64_t k = 10; k < 15; k++)
                log_add(&log, k);
            for (uint64_t k = cases[i].first; k < 15; k++) {
                OK(immuta_c_tailer_next(tailer, &record));
                payload_check(&record, k, k);
            }
            close_both();
            log_end(&log);
        }
}

/* Bytes behind the count are no part of the log, and what was read of them is not kept. */
static void ignores_the_tail(bool paged)
{
    struct log log;
    log_begin(&log);
    for (int i = 0; i < 3; i++)
        log_put(&log, 10);
    log_store(&log);
    struct log torn = log;
    log_put(&torn, 20);                          /* whole, but not published */
    log_size(&torn, UINT64_MAX);                 /* torn */
    CHECK(ftruncate(log.fd, 1 << 20) == 0);      /* zeroed space */
    open_and_tail(&log, IMMUTA_C_BEGINNING, 0);
    for (uint64_t i = 0; i < 3; i++) {
        OK(immuta_c_tailer_next(tailer, &record));
        payload_check(&record, i, 10);
    }
    CHECK(immuta_c_tailer_try_next(tailer, &record) == IMMUTA_C_NONE);
    log_lock(&log);
    if (paged) {
        page_begin(&log, 1);
        FAILS(immuta_c_tailer_next_timeout(tailer, 250 * MILLI, &record), TIMED_OUT); /* time to find the page */
    }
    log_put(&log, 100); /* over what is in the reader's buffer */
    log_add(&log, 5);
    OK(immuta_c_tailer_next(tailer, &record));
    payload_check(&record, 3, 100);
    OK(immuta_c_tailer_next(tailer, &record));
    payload_check(&record, 4, 5);
    close_both();
    log_end(&log);
}

static void ignores_what_is_not_counted(void)
{
    struct log log;
    ignores_the_tail(false);
    ignores_the_tail(true);
    log_begin(&log);

    CHECK(ftruncate(log.fd, 0) == 0); /* a file of 0 bytes is a log without records */
    open_and_tail(&log, IMMUTA_C_BEGINNING, 0);
    CHECK(immuta_c_tailer_try_next(tailer, &record) == IMMUTA_C_NONE);
    OK(immuta_c_reader_count(reader, &count));
    CHECK(count == 0);
    close_both();
    log_end(&log);
}

/* ---- what is wrong ---- */

static void refuses_counts_that_lie(void)
{
    static const uint64_t counts[] = { 2, UINT64_MAX, UINT64_C(1) << 63, UINT64_MAX / 8 + 1 };
    struct log log;
    log_begin(&log);
    log_put(&log, 0);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        log_raw(&log, 0, counts[i]);
        FAILS(immuta_c_reader_open(log.path, NULL, &reader), DAMAGED);
        CHECK(!reader);
        damaged_at(0, 0, &log);
    }
    for (int bytes = 1; bytes < 8; bytes++) {
        CHECK(ftruncate(log.fd, bytes) == 0);
        FAILS(immuta_c_reader_open(log.path, NULL, &reader), DAMAGED);
        damaged_at(0, 0, &log);
    }
    log_end(&log);
}

static void refuses_sizes_that_lie(void)
{
    static const uint64_t sizes[] = { UINT64_MAX, UINT64_MAX - 7, UINT64_C(1) << 63, (UINT64_C(1) << 63) - 1, UINT64_C(1) << 40, 1000001, 1000, 0 };
    for (int paged = 0; paged < 2; paged++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            struct log log;
            if (sizes[i] == 1000 && !paged)
                continue; /* nobody can tell */
            bool last = sizes[i] == 0; /* the count is one too high, and the size field itself is beyond the end */
            log_begin(&log);
            log_lock(&log);
            log_put(&log, 3);
            log_put(&log, 70000);
            uint64_t position = log.end;
            if (last)
                log.count++;
            else
                log_size(&log, sizes[i]);
            CHECK(ftruncate(log.fd, (off_t)log.end + (last ? 7 : 1000000)) == 0);
            log_store(&log);
            if (paged) {
                struct log fair = log;
                fair.end = position;
                fair.count = 2;
                /* Then the page's end lies as well; or it is right, and the size is not, though the file has so many bytes. */
                log.end = last ? position + 7 : sizes[i] == 1000 ? position + 1007 : UINT64_C(1) << 62;
                page_begin(&fair, 9);
                log.page = fair.page;
                log.bell = fair.bell;
            }
            open_and_tail(&log, IMMUTA_C_BEGINNING, 0);
            if (paged)
                page_publish(&log);
            OK(immuta_c_tailer_next(tailer, &record));
            OK(immuta_c_tailer_next(tailer, &record));
            payload_check(&record, 1, 70000);
            for (int again = 0; again < 2; again++) {
                FAILS(immuta_c_tailer_next(tailer, &record), DAMAGED);
                damaged_at(position, 2, &log);
            }
            if (!paged) {
                FAILS(immuta_c_reader_get(reader, 2, &record), DAMAGED);
                damaged_at(position, 2, &log);
                OK(immuta_c_reader_get(reader, 1, &record));
                payload_check(&record, 1, 70000);
            }
            close_both();
            log_end(&log);
        }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    CHECK(usage.ru_maxrss < 512 << 10); /* kilobytes: valgrind and sanitizers take their share */
}

static void limits_payloads(void)
{
    struct log log;
    struct immuta_c_options options = { .max_record = 100 };
    log_begin(&log);
    log_put(&log, 100);
    uint64_t position = log.end;
    log_put(&log, 101);
    log_put(&log, 5);
    log_store(&log);
    OK(immuta_c_reader_open(log.path, &options, &reader));
    OK(immuta_c_reader_tail(reader, IMMUTA_C_BEGINNING, 0, &tailer));
    OK(immuta_c_tailer_next(tailer, &record));
    for (int again = 0; again < 2; again++) {
        FAILS(immuta_c_tailer_next(tailer, &record), TOO_LARGE);
        CHECK(immuta_c_last_error()->position == position && immuta_c_last_error()->sequence == 1);
    }
    FAILS(immuta_c_reader_get(reader, 1, &record), TOO_LARGE);
    OK(immuta_c_reader_get(reader, 2, &record));
    payload_check(&record, 2, 5);
    close_both();

    log.count = 0; /* a file with a hole, which bears the size out */
    log.end = 8;
    log_size(&log, (UINT64_C(1) << 30) + 1);
    log_store(&log);
    CHECK(ftruncate(log.fd, (off_t)1 << 31) == 0);
    open_and_tail(&log, IMMUTA_C_BEGINNING, 0);
    FAILS(immuta_c_tailer_next(tailer, &record), TOO_LARGE);
    close_both();
    log_end(&log);
}

static void tells_what_is_no_log(void)
{
    struct log log;
    char name[128];
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    log_begin(&log);
    FAILS(immuta_c_reader_open(log.dir, NULL, &reader), NOT_A_LOG);
    snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", log.dir);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    FAILS(immuta_c_reader_open(address.sun_path, NULL, &reader), NOT_A_LOG);
    close(fd);
    snprintf(name, sizeof name, "%s/fifo", log.dir);
    CHECK(mkfifo(name, 0600) == 0);
    FAILS(immuta_c_reader_open(name, NULL, &reader), NOT_A_LOG);
    FAILS(immuta_c_reader_open("/dev/null", NULL, &reader), NOT_A_LOG);
    snprintf(name, sizeof name, "%s/none", log.dir);
    FAILS(immuta_c_reader_open(name, NULL, &reader), NOT_FOUND);
    CHECK(!strncmp(immuta_c_last_error()->message, name, strlen(name)));
    snprintf(name, sizeof name, "%s/below", log.path);
    FAILS(immuta_c_reader_open(name, NULL, &reader), SYSTEM);
    CHECK(immuta_c_last_error()->system_error == ENOTDIR);
    log_end(&log);
}

/* The log that is followed is cut, or overwritten with less, by another program. */
static void tells_a_cut_file(void)
{
    for (int way = 0; way < 6; way++) {
        struct log log;
        log_begin(&log);
        log_lock(&log);
        if (way & 1)
            page_begin(&log, 3);
        log_add(&log, 1000);
        open_and_tail(&log, IMMUTA_C_BEGINNING, 0);
        OK(immuta_c_tailer_next(tailer, &record));
        if (way >= 4)
            log_raw(&log, 0, 0); /* the count fell */
        else
            CHECK(ftruncate(log.fd, way & 2 ? 0 : 500) == 0);
        for (int64_t until = now_ns() + 2100 * MILLI; way == 5 && now_ns() < until; pause_ns(MILLI)) {
            page_set(&log, HEARTBEAT, (uint64_t)now_ns()); /* the writer lives, and does not notice */
            if (immuta_c_tailer_try_next(tailer, &record) != IMMUTA_C_NONE)
                break;
        }
        for (int again = 0; again < 2; again++) {
            FAILS(way == 5 ? immuta_c_tailer_try_next(tailer, &record) : immuta_c_tailer_next(tailer, &record), DAMAGED);
            damaged_at(0, 0, &log);
        }
        close_both();
        log_end(&log);
    }
}

static void tells_a_replaced_log(void)
{
    for (int way = 0; way < 4; way++) {
        struct log log;
        char aside[128];
        log_begin(&log);
        log_lock(&log);
        if (way & 1)
            page_begin(&log, 3);
        log_add(&log, 10);
        open_and_tail(&log, IMMUTA_C_BEGINNING, 0);
        OK(immuta_c_tailer_next(tailer, &record));
        log_add(&log, 20);
        if (way & 2) {
            snprintf(aside, sizeof aside, "%s/aside", log.dir);
            int fd = open(aside, O_CREAT | O_RDWR | O_CLOEXEC, 0644);
            CHECK(fd >= 0 && rename(aside, log.path) == 0);
            close(fd);
        } else {
            CHECK(unlink(log.path) == 0);
        }
        OK(immuta_c_tailer_next(tailer, &record)); /* what was readable comes first */
        payload_check(&record, 1, 20);
        for (int again = 0; again < 2; again++)
            FAILS(immuta_c_tailer_next(tailer, &record), REPLACED);
        close_both();
        close(open(log.path, O_CREAT | O_RDWR | O_CLOEXEC, 0644));
        log_end(&log);
    }
}

/* ---- waiting ---- */

static void *create_later(void *arg)
{
    struct log *log = arg;
    pause_ns(20 * MILLI);
    log_create(log);
    log_add(log, 12);
    return NULL;
}

static void waits_for_a_log(void)
{
    struct log log;
    pthread_t thread;
    struct immuta_c_options options = { .wait_for_log = 30 * MILLI };
    log_begin(&log);
    unlink(log.path);
    int64_t begun = now_ns();
    FAILS(immuta_c_reader_open(log.path, &options, &reader), NOT_FOUND);
    CHECK(now_ns() - begun >= 30 * MILLI);
    CHECK(pthread_create(&thread, NULL, create_later, &log) == 0);
    options.wait_for_log = -1;
    OK(immuta_c_reader_open(log.path, &options, &reader));
    OK(immuta_c_reader_tail(reader, IMMUTA_C_BEGINNING, 0, &tailer));
    OK(immuta_c_tailer_next(tailer, &record));
    payload_check(&record, 0, 12);
    pthread_join(thread, NULL);
    close_both();
    log_end(&log);
}

static void times_out(void)
{
    for (int paged = 0; paged < 2; paged++) {
        struct log log;
        log_begin(&log);
        log_lock(&log);
        if (paged)
            page_begin(&log, 3);
        open_and_tail(&log, IMMUTA_C_END, 0);
        int64_t begun = now_ns();
        FAILS(immuta_c_tailer_next_timeout(tailer, 60 * MILLI, &record), TIMED_OUT);
        CHECK(now_ns() - begun >= 60 * MILLI && now_ns() - begun < 2000 * MILLI);
        FAILS(immuta_c_tailer_next_timeout(tailer, 0, &record), TIMED_OUT);
        log_add(&log, 3);
        OK(immuta_c_tailer_next_timeout(tailer, INT64_MAX, &record));
        close_both();
        log_end(&log);
    }
}

static atomic_int_least64_t stopped_at;

static void *stop_later(void *arg)
{
    (void)arg;
    pause_ns(30 * MILLI);
    stopped_at = now_ns();
    immuta_c_tailer_stop(tailer);
    return NULL;
}

static void on_alarm(int signal)
{
    (void)signal;
    stopped_at = now_ns();
    immuta_c_tailer_stop(tailer);
}

static void stops(void)
{
    struct sigaction action = { .sa_handler = on_alarm };
    sigaction(SIGUSR1, &action, NULL);
    for (int way = 0; way < 4; way++) {
        int64_t best = INT64_MAX;
        for (int i = 0; i < 5; i++) { /* the best of some, as the machine may be busy */
            struct log log;
            pthread_t thread;
            pid_t pid = 0;
            log_begin(&log);
            log_lock(&log);
            if (way & 1)
                page_begin(&log, 3);
            log_add(&log, 1);
            open_and_tail(&log, IMMUTA_C_END, 0);
            if (way & 2) {
                CHECK((pid = fork()) >= 0);
                if (pid == 0) {
                    pause_ns(30 * MILLI);
                    kill(getppid(), SIGUSR1);
                    _exit(0);
                }
            } else {
                CHECK(pthread_create(&thread, NULL, stop_later, NULL) == 0);
            }
            FAILS(immuta_c_tailer_next(tailer, &record), STOPPED);
            int64_t late = now_ns() - stopped_at;
            best = late < best ? late : best;
            FAILS(immuta_c_tailer_next(tailer, &record), STOPPED); /* for good */
            if (pid)
                CHECK(waitpid(pid, NULL, 0) == pid);
            else
                pthread_join(thread, NULL);
            close_both();
            log_end(&log);
        }
        CHECK(best < 50 * MILLI);
    }
}

/* A count that never holds still while it is read twice, over records of no bytes. */
static const uint64_t COUNTLESS = UINT64_C(4000000000);
static atomic_bool enough;

static void *count_up(void *arg)
{
    _Atomic uint64_t *at = arg;
    for (uint64_t n = 1; n <= COUNTLESS && !enough; n++)
        atomic_store_explicit(at, n, memory_order_release);
    return NULL;
}

static void reads_a_restless_count(void)
{
    struct log log;
    pthread_t thread;
    log_begin(&log);
    CHECK(ftruncate(log.fd, (off_t)(8 + 8 * COUNTLESS)) == 0); /* a hole */
    void *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, log.fd, 0);
    CHECK(map != MAP_FAILED);
    open_and_tail(&log, IMMUTA_C_BEGINNING, 0);
    CHECK(pthread_create(&thread, NULL, count_up, map) == 0);
    while (atomic_load((_Atomic uint64_t *)map) == 0)
        sched_yield();
    uint64_t before = 0;
    for (int i = 0; i < 5000; i++) {
        OK(immuta_c_reader_count(reader, &count));
        CHECK(count >= before && count <= atomic_load((_Atomic uint64_t *)map));
        before = count;
        for (int k = 0; k < 100; k++) {
            OK(immuta_c_tailer_next(tailer, &record));
            CHECK(record.size == 0);
        }
    }
    enough = true;
    pthread_join(thread, NULL);
    munmap(map, 4096);
    close_both();
    log_end(&log);
}

/* ---- running them ---- */

static char **wanted;
static int failed, ran;

static void run(const char *name, void (*test)(void))
{
    bool is = !*wanted;
    for (char **w = wanted; *w; w++)
        is |= strstr(name, *w) != NULL;
    if (!is)
        return;
    fflush(NULL);
    int64_t begun = now_ns();
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(LIMIT_S);
        test();
        exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    ran++;
    bool ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    failed += !ok;
    printf("%s  %s  %.2f s\n", ok ? "ok    " : WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? "HANGS " : "FAILED", name, (double)(now_ns() - begun) / 1e9);
}

int main(int argc, char **argv)
{
    (void)argc;
    wanted = argv + 1;
    run("walks over records of all sizes", walks);
    run("begins where it is told", starts);
    run("ignores what is not counted", ignores_what_is_not_counted);
    run("refuses counts that lie", refuses_counts_that_lie);
    run("refuses sizes that lie", refuses_sizes_that_lie);
    run("limits payloads", limits_payloads);
    run("tells what is no log", tells_what_is_no_log);
    run("tells a cut file", tells_a_cut_file);
    run("tells a replaced log", tells_a_replaced_log);
    run("waits for a log", waits_for_a_log);
    run("times out", times_out);
    run("stops", stops);
    run("reads a restless count", reads_a_restless_count);
    page_tests(run);
    index_tests(run);
    follow_tests(run);
    printf("%d tests, %d failed\n", ran, failed);
    return failed != 0 || ran == 0;
}
