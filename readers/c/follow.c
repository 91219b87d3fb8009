/* follow LOG: prints sequence, size and checksum of each record; see USAGE. */
#define _GNU_SOURCE
#include "immuta_reader.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char USAGE[] = "usage: follow LOG [--skip N] [--count N] [--timeout SECONDS]\n"
                            "Prints `sequence size crc32` for each record of LOG, and waits for more.\n"
                            "  --skip N           begin with record N\n"
                            "  --count N          end after N records\n"
                            "  --timeout SECONDS  end when no record came for so long; wait so long for LOG to appear\n"
                            "exit status: 0 after N records or once nobody reads the output, 2 wrong arguments, 3 no log, 5 damage, 6 timeout, 1 anything else\n";

enum { BATCH = 256, LINE = 64, FLUSH = 64 << 10, TURN = 200000000 /* ns */ };

static struct immuta_c_record records[BATCH];
static char out[FLUSH + LINE];
static size_t filled;
static uint32_t table[8][256];

/* CRC-32/ISO-HDLC, eight bytes at a time. */
static void crc_begin(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++)
            c = c & 1 ? c >> 1 ^ UINT32_C(0xEDB88320) : c >> 1;
        table[0][i] = c;
    }
    for (int k = 1; k < 8; k++)
        for (int i = 0; i < 256; i++)
            table[k][i] = table[k - 1][i] >> 8 ^ table[0][table[k - 1][i] & 255];
}

static uint32_t crc_of(const unsigned char *at, uint64_t bytes)
{
    uint32_t crc = UINT32_MAX;
    for (; bytes >= 8; at += 8, bytes -= 8) {
        uint64_t v;
        memcpy(&v, at, sizeof v);
        v ^= crc;
        crc = table[7][v & 255] ^ table[6][v >> 8 & 255] ^ table[5][v >> 16 & 255] ^ table[4][v >> 24 & 255] ^ table[3][v >> 32 & 255] ^
              table[2][v >> 40 & 255] ^ table[1][v >> 48 & 255] ^ table[0][v >> 56];
    }
    for (; bytes; bytes--)
        crc = crc >> 8 ^ table[0][(crc ^ *at++) & 255];
    return ~crc;
}

static immuta_c_tailer *volatile stoppable;
static volatile sig_atomic_t stopped_by;

static void on_signal(int signal)
{
    stopped_by = signal;
    if (!stoppable)
        _exit(128 + signal); /* nothing is printed yet */
    immuta_c_tailer_stop(stoppable);
}

static void flush(void)
{
    for (size_t done = 0; done < filled;) {
        ssize_t n = write(STDOUT_FILENO, out + done, filled - done);
        if (n < 0 && errno == EINTR && stopped_by)
            _exit(128 + stopped_by); /* nobody takes it */
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EPIPE)
            _exit(0); /* nobody reads it any more */
        if (n < 0) {
            fprintf(stderr, "follow: writing: %s\n", strerror(errno));
            exit(1);
        }
        done += (size_t)n;
    }
    filled = 0;
}

/* Waits for records. In turns, between which it is seen that nobody reads our output any more, as that ends us, too. */
static int wait_batch(immuta_c_tailer *tailer, int64_t limit, size_t most, size_t *n)
{
    for (;;) {
        int64_t turn = limit >= 0 && limit < TURN ? limit : TURN;
        int status = immuta_c_tailer_next_batch(tailer, turn, records, most, n);
        if (status != IMMUTA_C_TIMED_OUT || turn == limit)
            return status;
        limit -= limit < 0 ? 0 : turn;
        struct pollfd output = { .fd = STDOUT_FILENO };
        if (poll(&output, 1, 0) == 1 && output.revents & POLLERR)
            _exit(0);
    }
}

static char *decimal(char *to, uint64_t n)
{
    char digits[20];
    int i = 0;
    do
        digits[i++] = (char)('0' + n % 10);
    while (n /= 10);
    while (i)
        *to++ = digits[--i];
    return to;
}

static void print(const struct immuta_c_record *record)
{
    char *to = decimal(out + filled, record->sequence);
    uint32_t crc = crc_of(record->payload, record->size);
    *to++ = ' ';
    to = decimal(to, record->size);
    *to++ = ' ';
    for (int shift = 28; shift >= 0; shift -= 4)
        *to++ = "0123456789abcdef"[crc >> shift & 15];
    *to++ = '\n';
    filled = (size_t)(to - out);
    if (filled >= FLUSH)
        flush();
}

static _Noreturn void usage(const char *wrong, const char *argument)
{
    fprintf(stderr, "follow: %s%s\n%s", wrong, argument, USAGE);
    exit(2);
}

static uint64_t whole_number(const char *option, const char *text)
{
    errno = 0;
    char *end;
    uint64_t n = text && *text >= '0' && *text <= '9' ? strtoull(text, &end, 10) : (errno = EINVAL, 0);
    if (errno || *end)
        usage(option, " wants a number");
    return n;
}

static int64_t seconds(const char *option, const char *text)
{
    char *end;
    double s = text && strspn(text, "0123456789.") == strlen(text) && *text ? strtod(text, &end) : -1;
    if (!(s >= 0) || *end)
        usage(option, " wants seconds, as 0.5 or 20");
    return s < 9e9 ? (int64_t)(s * 1e9) : INT64_MAX;
}

static int ended(const char *path, int64_t timeout)
{
    const struct immuta_c_error *error = immuta_c_last_error();
    flush();
    if (error->status == IMMUTA_C_STOPPED)
        return 128 + stopped_by;
    if (error->status == IMMUTA_C_TIMED_OUT) { /* the message would be of a turn */
        fprintf(stderr, "follow: %s: no record within %g s\n", path, (double)timeout / 1e9);
        return 6;
    }
    fprintf(stderr, "follow: %s\n", error->message);
    switch (error->status) {
    case IMMUTA_C_NOT_FOUND:
    case IMMUTA_C_REPLACED:
        return 3;
    case IMMUTA_C_DAMAGED:
        return 5;
    default:
        return 1;
    }
}

int main(int argc, char **argv)
{
    const char *path = NULL;
    uint64_t skip = 0, left = UINT64_MAX;
    int64_t timeout = -1;
    bool counted = false;
    for (int i = 1; i < argc; i++) {
        const char *option = argv[i];
        if (!strcmp(option, "--skip"))
            skip = whole_number(option, argv[++i]);
        else if (!strcmp(option, "--count"))
            left = whole_number(option, argv[++i]), counted = true;
        else if (!strcmp(option, "--timeout"))
            timeout = seconds(option, argv[++i]);
        else if (option[0] == '-' && option[1])
            usage("no such option: ", option);
        else if (path)
            usage("one log, not also ", option);
        else
            path = option;
    }
    if (!path)
        usage("which log?", "");
    if (counted && left == 0)
        return 0;
    crc_begin();
    struct sigaction action = { .sa_handler = on_signal };
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* a reader of our output that leaves ends us quietly, and without an error: it has what it wanted */

    immuta_c_reader *reader;
    immuta_c_tailer *tailer;
    struct immuta_c_options options = { .wait_for_log = timeout > 0 ? timeout : 0 };
    if (immuta_c_reader_open(path, &options, &reader) || immuta_c_reader_tail(reader, IMMUTA_C_SEQUENCE, skip, &tailer))
        return ended(path, timeout);
    stoppable = tailer;
    int status;
    do {
        size_t n = 0, most = left < BATCH ? left : BATCH;
        status = immuta_c_tailer_next_batch(tailer, 0, records, most, &n);
        if (status == IMMUTA_C_TIMED_OUT && timeout != 0) {
            flush();
            status = wait_batch(tailer, timeout, most, &n);
        }
        for (size_t i = 0; i < n; i++)
            print(records + i);
        left -= counted ? n : 0;
    } while (status == IMMUTA_C_OK && left > 0);
    int code = status == IMMUTA_C_OK ? 0 : ended(path, timeout);
    flush();
    stoppable = NULL;
    immuta_c_tailer_close(tailer);
    immuta_c_reader_close(reader);
    return code;
}
