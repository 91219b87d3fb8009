/* The program follow: what it prints, and how it ends. */
#define _GNU_SOURCE
#include "support.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs a shell command with $F the program and $L the log; what it printed goes to out. */
static int shell(const struct log *log, const char *command, char *out, size_t bytes)
{
    char line[1024];
    setenv("F", "build/follow", 1);
    setenv("L", log->path, 1);
    setenv("D", log->dir, 1);
    snprintf(line, sizeof line, "( %s ) 2>\"$D/stderr\"", command);
    FILE *pipe = popen(line, "r");
    CHECK(pipe);
    size_t n = fread(out, 1, bytes - 1, pipe);
    out[n] = 0;
    int status = pclose(pipe);
    CHECK(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static bool said(const struct log *log, const char *what)
{
    char name[96], text[8192];
    snprintf(name, sizeof name, "%s/stderr", log->dir);
    FILE *file = fopen(name, "r");
    CHECK(file);
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    return strstr(text, what);
}

static void add_text(struct log *log, const char *text)
{
    uint64_t size = strlen(text);
    log_raw(log, log->end, size);
    CHECK(pwrite(log->fd, text, size, (off_t)log->end + 8) == (ssize_t)size);
    log->end += 8 + size;
    log->count++;
    log_store(log);
}

static void prints_and_ends(void)
{
    struct log log;
    char out[4096];
    log_begin(&log);
    add_text(&log, "a");
    add_text(&log, "");
    add_text(&log, "123456789"); /* whose checksum the algorithm is known by */
    CHECK(shell(&log, "$F $L --count 3", out, sizeof out) == 0);
    CHECK(!strcmp(out, "0 1 e8b7be43\n1 0 00000000\n2 9 cbf43926\n"));
    CHECK(shell(&log, "$F --skip 2 $L --timeout 0.25", out, sizeof out) == 6 && !strcmp(out, "2 9 cbf43926\n"));
    CHECK(said(&log, log.path) && said(&log, ": no record within 0.25 s"));
    CHECK(shell(&log, "$F $L --timeout 0", out, sizeof out) == 6 && strlen(out) == 39);
    CHECK(shell(&log, "$F $L --count 0", out, sizeof out) == 0 && !*out);
    CHECK(shell(&log, "$F $L --skip 9 --count 1 --timeout 0.05", out, sizeof out) == 6 && !*out);
    CHECK(shell(&log, "{ $F $L; echo ends with $? >&2; } | head -n 1", out, sizeof out) == 0);
    CHECK(!strcmp(out, "0 1 e8b7be43\n") && !said(&log, "follow") && said(&log, "ends with 0\n"));
    CHECK(shell(&log, "$F $L --count 3 >&-", out, sizeof out) == 1 && said(&log, "follow: writing"));
    log_end(&log);
}

/* A reader that leaves before it has read anything: the program finds it out as it writes. */
static void ends_where_nobody_reads(void)
{
    struct log log;
    int fds[2], status;
    log_begin(&log);
    add_text(&log, "a");
    CHECK(pipe2(fds, O_CLOEXEC) == 0 && close(fds[0]) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        dup2(fds[1], STDOUT_FILENO);
        execl("build/follow", "follow", log.path, (char *)NULL);
        _exit(127);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(fds[1]);
    log_end(&log);
}

static void refuses_arguments(void)
{
    static const char *const wrong[] = { "$F", "$F $L $L", "$F $L --skip", "$F $L --skip x", "$F $L --skip -1", "$F $L --count 1x", "$F $L --timeout", "$F $L --timeout 1s",
                                         "$F $L --timeout -1", "$F $L --timeout .", "$F $L --nothing", "$F $L --count 99999999999999999999" };
    struct log log;
    char out[4096];
    log_begin(&log);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        CHECK(shell(&log, wrong[i], out, sizeof out) == 2);
        CHECK(!*out && said(&log, "usage: follow LOG"));
    }
    log_end(&log);
}

static void tells_errors_apart(void)
{
    struct log log;
    char out[4096];
    log_begin(&log);
    CHECK(shell(&log, "$F $D/none", out, sizeof out) == 3 && said(&log, "/none: "));
    CHECK(shell(&log, "$F $D/none --timeout 0.05", out, sizeof out) == 3);
    CHECK(shell(&log, "$F $D", out, sizeof out) == 1);
    add_text(&log, "a");
    log_size(&log, 1000);
    log_store(&log);
    CHECK(shell(&log, "$F $L", out, sizeof out) == 5);
    CHECK(!strcmp(out, "0 1 e8b7be43\n") && said(&log, log.path) && said(&log, "damaged at position 17, record 1"));
    log_end(&log);
}

/* A program that runs and what it prints. */
static pid_t start(const struct log *log, const char *option, const char *value, int *out)
{
    int fds[2];
    CHECK(pipe2(fds, O_CLOEXEC) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        dup2(fds[1], STDOUT_FILENO);
        execl("build/follow", "follow", log->path, option, value, (char *)NULL);
        _exit(127);
    }
    close(fds[1]);
    *out = fds[0];
    return pid;
}

static void expect_line(int out, const char *line)
{
    char text[256] = "";
    size_t n = 0;
    while (n < strlen(line) && n < sizeof text - 1 && read(out, text + n, 1) == 1) /* the alarm bounds it */
        n++;
    CHECK(!strcmp(text, line));
}

static int end_of(pid_t pid)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void follows_and_is_ended(void)
{
    for (int i = 0; i < 3; i++) {
        struct log log;
        int out;
        log_begin(&log);
        add_text(&log, "a");
        pid_t pid = start(&log, NULL, NULL, &out);
        expect_line(out, "0 1 e8b7be43\n"); /* flushed before it waits */
        add_text(&log, "123456789");
        expect_line(out, "1 9 cbf43926\n");
        if (i == 2)
            unlink(log.path);
        else
            kill(pid, i ? SIGTERM : SIGINT);
        CHECK(end_of(pid) == (i == 2 ? 3 : i ? 143 : 130));
        close(out);
        close(open(log.path, O_CREAT | O_RDWR | O_CLOEXEC, 0644));
        log_end(&log);
    }
}

static void waits_for_the_log(void)
{
    struct log log;
    int out;
    log_begin(&log);
    unlink(log.path);
    pid_t pid = start(&log, "--timeout", "20", &out);
    pause_ns(20 * MILLI); /* so that it mostly finds none at first; right either way */
    log_create(&log);
    add_text(&log, "a");
    expect_line(out, "0 1 e8b7be43\n");
    kill(pid, SIGINT);
    CHECK(end_of(pid) == 130);
    close(out);
    log_end(&log);
}

void follow_tests(void (*run)(const char *name, void (*test)(void)))
{
    run("follow: prints and ends", prints_and_ends);
    run("follow: ends where nobody reads", ends_where_nobody_reads);
    run("follow: refuses arguments", refuses_arguments);
    run("follow: tells errors apart", tells_errors_apart);
    run("follow: follows and is ended", follows_and_is_ended);
    run("follow: waits for the log", waits_for_the_log);
}
