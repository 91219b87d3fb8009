/* The control page, the doorbell, who is writing, and the index. */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define OK(call) CHECK((call) == IMMUTA_C_OK)

static immuta_c_reader *reader;
static immuta_c_tailer *tailer;
static struct immuta_c_record record;

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

/* Whether the reader follows the page: a record that only the log counts is not there for it then. */
static bool follows_page(struct log *log)
{
    log_put(log, 1);
    log_store(log);
    open_and_tail(log, IMMUTA_C_SEQUENCE, log->count - 1);
    int status = immuta_c_tailer_try_next(tailer, &record);
    CHECK(status == IMMUTA_C_OK || status == IMMUTA_C_NONE);
    close_both();
    return status == IMMUTA_C_NONE;
}

static void believes_only_its_page(void)
{
    static const struct {
        unsigned offset;
        uint64_t value;
    } wrong[] = { { 0, 1 }, { 8, 2 }, { 16, 8192 }, { 24, 1 }, { 32, 1 }, { 40, 1 }, { 48, 1 }, { 56, 1 }, { SLOTS + 8, 1000 }, { SLOTS + 16, 100000 } };
    struct log log;
    char name[256], other[300];
    log_begin(&log);
    log_lock(&log);
    page_begin(&log, 7);
    CHECK(follows_page(&log));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        uint64_t right = page_get(log.page + wrong[i].offset);
        page_set(&log, wrong[i].offset, wrong[i].value);
        CHECK(!follows_page(&log));
        page_set(&log, wrong[i].offset, right);
        CHECK(follows_page(&log));
    }
    page_set(&log, 40, 0); /* it does not know when the log was created */
    CHECK(follows_page(&log));
    page_set(&log, STATE, 3);
    CHECK(follows_page(&log));
    page_set(&log, STATE, 2);
    CHECK(!follows_page(&log));
    page_set(&log, STATE, 4);
    CHECK(!follows_page(&log));
    page_set(&log, STATE, 1);
    page_name(&log, "", name);
    snprintf(other, sizeof other, "%s.other", name);
    CHECK(rename(name, other) == 0 && symlink(other, name) == 0);
    CHECK(!follows_page(&log)); /* a link */
    CHECK(rename(other, name) == 0 && follows_page(&log));
    CHECK(truncate(name, 4095) == 0 && !follows_page(&log)); /* too short */
    CHECK(unlink(name) == 0 && mkdir(name, 0700) == 0 && !follows_page(&log));
    CHECK(rmdir(name) == 0 && !follows_page(&log));
    page_remove(&log);
    if (geteuid() == 0) {
        page_begin(&log, 8);
        CHECK(chown(name, 12345, -1) == 0 && !follows_page(&log)); /* a stranger's */
        CHECK(fchown(log.fd, 12345, -1) == 0 && follows_page(&log));
        CHECK(chown(name, 0, -1) == 0 && follows_page(&log)); /* root's */
    } else {
        printf("SKIPPED: a control page of another owner: this needs root\n");
    }
    log_end(&log);
}

static void follows_only_the_living(void)
{
    struct log log;
    log_begin(&log);
    page_begin(&log, 7);
    CHECK(!follows_page(&log)); /* nobody has the lock */
    log_lock(&log);
    CHECK(follows_page(&log));
    page_set(&log, HEARTBEAT, (uint64_t)(now_ns() - 2100 * MILLI));
    CHECK(!follows_page(&log));
    page_set(&log, HEARTBEAT, (uint64_t)(now_ns() + 3600000 * MILLI)); /* another clock's, which may be a dead one's */
    CHECK(!follows_page(&log));

    open_and_tail(&log, IMMUTA_C_END, 0);
    CHECK(immuta_c_tailer_try_next(tailer, &record) == IMMUTA_C_NONE);
    page_set(&log, HEARTBEAT, page_get(log.page + HEARTBEAT) + 1); /* but it moves */
    CHECK(immuta_c_tailer_next_timeout(tailer, 250 * MILLI, &record) == IMMUTA_C_TIMED_OUT);
    log_put(&log, 1);
    log_store(&log);
    CHECK(immuta_c_tailer_try_next(tailer, &record) == IMMUTA_C_NONE);
    /* It does not move any more, and the count is ahead: another writer is at work. */
    int64_t begun = now_ns();
    OK(immuta_c_tailer_next_timeout(tailer, 20000 * MILLI, &record));
    CHECK(now_ns() - begun > 1000 * MILLI);
    close_both();
    log_end(&log);
}

static void believes_the_page_of_an_empty_log(void)
{
    struct log log;
    log_begin(&log);
    CHECK(ftruncate(log.fd, 0) == 0);
    log_lock(&log);
    page_begin(&log, 7);
    open_and_tail(&log, IMMUTA_C_BEGINNING, 0);
    log_put(&log, 1);
    log_store(&log);
    CHECK(immuta_c_tailer_try_next(tailer, &record) == IMMUTA_C_NONE); /* the page says nothing of it yet */
    page_publish(&log);
    OK(immuta_c_tailer_try_next(tailer, &record));
    close_both();
    log_end(&log);
}

/* A writer dies, and one without a page begins while the dead one's heartbeat is young. */
static void does_not_go_back_to_a_dead_page(void)
{
    struct log log;
    log_begin(&log);
    log_lock(&log);
    page_begin(&log, 7);
    log_add(&log, 1);
    open_and_tail(&log, IMMUTA_C_END, 0);
    log_unlock(&log);
    CHECK(immuta_c_tailer_next_timeout(tailer, 150 * MILLI, &record) == IMMUTA_C_TIMED_OUT); /* it sees that */
    log_lock(&log);
    CHECK(immuta_c_tailer_next_timeout(tailer, 150 * MILLI, &record) == IMMUTA_C_TIMED_OUT);
    log_put(&log, 2);
    log_store(&log);
    OK(immuta_c_tailer_try_next(tailer, &record)); /* it follows the count */
    payload_check(&record, 1, 2);
    page_set(&log, HEARTBEAT, page_get(log.page + HEARTBEAT) + 1); /* not dead after all */
    CHECK(immuta_c_tailer_next_timeout(tailer, 150 * MILLI, &record) == IMMUTA_C_TIMED_OUT);
    log_put(&log, 3);
    log_store(&log);
    CHECK(immuta_c_tailer_try_next(tailer, &record) == IMMUTA_C_NONE);
    close_both();
    log_end(&log);
}

static void *next_record(void *arg)
{
    *(int *)arg = immuta_c_tailer_next(tailer, &record);
    return NULL;
}

static bool somebody_announced(void *arg)
{
    struct log *log = arg;
    return page_get(log->bell + ANNOUNCED) == page_get(log->page + COMMIT) + 1;
}

/* Goes to sleep on the futex, and is woken by it: FUTEX_WAKE finds a sleeper. */
static void sleeps_and_is_woken(void)
{
    struct log log;
    pthread_t thread;
    int status = -1, woken = 0;
    log_begin(&log);
    log_lock(&log);
    page_begin(&log, 7);
    log_add(&log, 3);
    open_and_tail(&log, IMMUTA_C_END, 0);
    for (uint64_t i = 1; i <= 20; i++) {
        CHECK(pthread_create(&thread, NULL, next_record, &status) == 0);
        CHECK(eventually(somebody_announced, &log));
        pause_ns(2 * MILLI); /* between announcing and sleeping; a few of the 20 may miss it */
        log_put(&log, i);
        log_store(&log);
        int n = page_publish(&log);
        CHECK(n >= 0);
        woken += n;
        pthread_join(thread, NULL);
        CHECK(status == IMMUTA_C_OK);
        payload_check(&record, i, i);
    }
    CHECK(woken >= 5);
    /* Nobody lowers what is announced. */
    uint64_t high = page_get(log.bell + ANNOUNCED) + 1000;
    atomic_store((_Atomic uint64_t *)(void *)(log.bell + ANNOUNCED), high);
    CHECK(immuta_c_tailer_next_timeout(tailer, 30 * MILLI, &record) == IMMUTA_C_TIMED_OUT);
    CHECK(page_get(log.bell + ANNOUNCED) == high);
    /* Nothing else of the two files was written. */
    for (unsigned at = 0; at < 4096; at += 8)
        CHECK(at == ANNOUNCED || at < 24 || page_get(log.bell + at) == 0);
    close_both();
    log_end(&log);
}

/* A doorbell of another run is left alone, and the page is looked at from time to time. */
static void does_without_a_doorbell(void)
{
    struct log log;
    pthread_t thread;
    int status = -1;
    log_begin(&log);
    log_lock(&log);
    page_begin(&log, 7);
    atomic_store((_Atomic uint64_t *)(void *)(log.bell + 16), 8);
    open_and_tail(&log, IMMUTA_C_END, 0);
    for (uint64_t i = 0; i < 5; i++) {
        CHECK(pthread_create(&thread, NULL, next_record, &status) == 0);
        pause_ns(5 * MILLI);
        log_put(&log, i);
        log_store(&log);
        CHECK(page_publish(&log) == -1);
        pthread_join(thread, NULL);
        CHECK(status == IMMUTA_C_OK);
        payload_check(&record, i, i);
    }
    CHECK(page_get(log.bell + ANNOUNCED) == 0);
    close_both();
    log_end(&log);
}

/* Where the system refuses the futex, as a sandbox may, it looks from time to time, and announces no sleep any more.
 * Each test is a process of its own, so that the refusal ends with it. */
static void does_without_the_futex(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_futex, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, FUTEX_WAIT, 0, 1), /* not the private one, which libc and valgrind need */
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
    struct log log;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0) {
        printf("SKIPPED: a system without the futex: there is no seccomp\n");
        return;
    }
    uint32_t word = 0;
    CHECK(syscall(SYS_futex, &word, FUTEX_WAIT, 1, NULL, NULL, 0) == -1 && errno == EPERM);
    log_begin(&log);
    log_lock(&log);
    page_begin(&log, 7);
    open_and_tail(&log, IMMUTA_C_END, 0);
    CHECK(immuta_c_tailer_next_timeout(tailer, 150 * MILLI, &record) == IMMUTA_C_TIMED_OUT);
    atomic_store((_Atomic uint64_t *)(void *)(log.bell + ANNOUNCED), 0);
    CHECK(immuta_c_tailer_next_timeout(tailer, 250 * MILLI, &record) == IMMUTA_C_TIMED_OUT);
    CHECK(page_get(log.bell + ANNOUNCED) == 0);
    log_add(&log, 5);
    OK(immuta_c_tailer_next_timeout(tailer, 20000 * MILLI, &record));
    payload_check(&record, 0, 5);
    close_both();
    log_end(&log);
}

/* The tailer goes on over a writer's close and kill, and over the next one's page, without being opened again. */
static void survives_restarts(void)
{
    struct log log;
    log_begin(&log);
    open_and_tail(&log, IMMUTA_C_BEGINNING, 0);
    uint64_t n = 0;
    for (uint64_t life = 1; life <= 6; life++) {
        log_lock(&log);
        if (life != 3)
            page_begin(&log, life); /* the third writer has none; the fourth finds a dead one's */
        for (int i = 0; i < 5; i++, n++) {
            log_add(&log, n);
            OK(immuta_c_tailer_next_timeout(tailer, 20000 * MILLI, &record));
            payload_check(&record, n, n);
        }
        CHECK(immuta_c_tailer_next_timeout(tailer, 150 * MILLI, &record) == IMMUTA_C_TIMED_OUT); /* time to find the page, and to sleep on it */
        if (life != 3)
            CHECK(somebody_announced(&log));
        if (life % 2 && log.page) { /* closes; otherwise is killed */
            page_set(&log, STATE, 2);
            page_publish(&log);
            page_remove(&log);
        } else if (life == 4) {
            log_put(&log, n); /* killed between its stores of the count and of the page */
            log_store(&log);
            log_unlock(&log);
            OK(immuta_c_tailer_next_timeout(tailer, 20000 * MILLI, &record));
            payload_check(&record, n, n);
            n++;
        }
        page_forget(&log);
        log_unlock(&log);
    }
    close_both();
    log_end(&log);
}

static void is_superseded(void)
{
    struct log log;
    log_begin(&log);
    log_lock(&log);
    page_begin(&log, 1);
    log_add(&log, 1);
    open_and_tail(&log, IMMUTA_C_END, 0);
    struct log old = log;
    log.page = log.bell = NULL;
    page_begin(&log, 2); /* under the same name */
    page_set(&old, STATE, 4);
    page_wake(&old);
    log_add(&log, 2);
    OK(immuta_c_tailer_try_next(tailer, &record)); /* at once, not when it is next due */
    payload_check(&record, 1, 2);
    CHECK(immuta_c_tailer_next_timeout(tailer, 50 * MILLI, &record) == IMMUTA_C_TIMED_OUT && somebody_announced(&log));
    page_forget(&old);
    close_both();
    log_end(&log);
}

/* ---- who is writing ---- */

static enum immuta_c_writer state_of(const struct log *log)
{
    enum immuta_c_writer by_reader, by_tailer;
    open_and_tail(log, IMMUTA_C_BEGINNING, 0);
    OK(immuta_c_reader_writer(reader, &by_reader));
    OK(immuta_c_tailer_writer(tailer, &by_tailer));
    CHECK(by_reader == by_tailer);
    close_both();
    return by_reader;
}

static void tells_who_is_writing(void)
{
    struct log log;
    log_begin(&log);
    log_add(&log, 5);
    CHECK(state_of(&log) == IMMUTA_C_WRITER_CLOSED); /* no page, and the file ends exactly */
    CHECK(ftruncate(log.fd, 4096) == 0);
    CHECK(state_of(&log) == IMMUTA_C_WRITER_GONE);
    log_lock(&log);
    CHECK(state_of(&log) == IMMUTA_C_WRITER_ALIVE);
    page_begin(&log, 4);
    CHECK(state_of(&log) == IMMUTA_C_WRITER_ALIVE);
    page_set(&log, STATE, 3);
    CHECK(state_of(&log) == IMMUTA_C_WRITER_FAILED);
    page_set(&log, HEARTBEAT, 1); /* an earlier writer's page */
    CHECK(state_of(&log) == IMMUTA_C_WRITER_ALIVE);
    log_unlock(&log);
    CHECK(state_of(&log) == IMMUTA_C_WRITER_FAILED);
    page_set(&log, STATE, 2);
    CHECK(state_of(&log) == IMMUTA_C_WRITER_CLOSED);
    page_set(&log, STATE, 1);
    CHECK(ftruncate(log.fd, (off_t)log.end) == 0);
    CHECK(state_of(&log) == IMMUTA_C_WRITER_GONE); /* the page says so, though the file ends exactly */
    page_remove(&log);
    CHECK(state_of(&log) == IMMUTA_C_WRITER_CLOSED);
    CHECK(ftruncate(log.fd, 0) == 0);
    CHECK(state_of(&log) == IMMUTA_C_WRITER_CLOSED); /* a log without records */
    log_end(&log);
}

/* A writer in another process that is killed, with followers asleep. */
static void sees_a_writer_die(void)
{
    struct log log;
    int ready[2];
    char byte;
    enum immuta_c_writer writer;
    log_begin(&log);
    CHECK(pipe(ready) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        log_unlock(&log); /* a descriptor of its own: locks go with the one that was opened */
        log_lock(&log);
        page_begin(&log, 1);
        log_add(&log, 10);
        CHECK(ftruncate(log.fd, 1 << 16) == 0);
        CHECK(write(ready[1], "x", 1) == 1);
        for (;;)
            pause();
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    open_and_tail(&log, IMMUTA_C_BEGINNING, 0);
    OK(immuta_c_tailer_next(tailer, &record));
    payload_check(&record, 0, 10);
    OK(immuta_c_tailer_writer(tailer, &writer));
    CHECK(writer == IMMUTA_C_WRITER_ALIVE);
    CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
    OK(immuta_c_tailer_writer(tailer, &writer));
    CHECK(writer == IMMUTA_C_WRITER_GONE);
    CHECK(immuta_c_tailer_next_timeout(tailer, 50 * MILLI, &record) == IMMUTA_C_TIMED_OUT);
    close_both();
    log_end(&log);
}

/* ---- a live writer at full speed ---- */

enum { MANY = 60000 };

static void *write_many(void *arg)
{
    struct log *log = arg;
    unsigned seed = 1;
    for (int i = 0; i < MANY; i++) {
        uint64_t size = (seed = seed * 1103515245 + 12345) >> 16 & 127;
        if (i % 10 == 0)
            log_put(log, size); /* a batch of two */
        else
            log_add(log, size);
        if (i % 2000 == 0)
            pause_ns(MILLI); /* so that the follower sleeps at times */
    }
    log_add(log, 0);
    return NULL;
}

static void follows_a_live_writer(void)
{
    for (int paged = 0; paged < 2; paged++) {
        struct log log;
        pthread_t thread;
        struct immuta_c_record batch[64];
        log_begin(&log);
        log_lock(&log);
        if (paged)
            page_begin(&log, 1);
        open_and_tail(&log, IMMUTA_C_BEGINNING, 0);
        CHECK(pthread_create(&thread, NULL, write_many, &log) == 0);
        unsigned seed = 1;
        size_t n = 1;
        for (uint64_t i = 0; i < MANY;) {
            OK(immuta_c_tailer_next_batch(tailer, 20000 * MILLI, batch, 64, &n));
            for (size_t k = 0; k < n; k++, i++)
                payload_check(batch + k, i, i == MANY ? 0 : (seed = seed * 1103515245 + 12345) >> 16 & 127);
        }
        pthread_join(thread, NULL);
        close_both();
        log_end(&log);
    }
}

void page_tests(void (*run)(const char *name, void (*test)(void)))
{
    run("page: believes only its own", believes_only_its_page);
    run("page: is of an empty log", believes_the_page_of_an_empty_log);
    run("page: follows only the living", follows_only_the_living);
    run("page: does not go back to a dead one's", does_not_go_back_to_a_dead_page);
    run("page: sleeps and is woken", sleeps_and_is_woken);
    run("page: does without a doorbell", does_without_a_doorbell);
    run("page: does without the futex", does_without_the_futex);
    run("page: survives restarts", survives_restarts);
    run("page: is superseded", is_superseded);
    run("page: tells who is writing", tells_who_is_writing);
    run("page: sees a writer die", sees_a_writer_die);
    run("page: follows a live writer", follows_a_live_writer);
}
