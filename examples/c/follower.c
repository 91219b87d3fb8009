/* Prints each record as a line, also across restarts of its writer, until SIGINT or SIGTERM: follower LOG */
#define _POSIX_C_SOURCE 200809L
#include <immuta.h>
#include <signal.h>
#include <stdio.h>

static immuta_stopper *stopper;

static void on_signal(int number) {
    (void)number;
    immuta_stop(stopper);
}

int main(int argc, char **argv) {
    /* The producer may come later. */
    immuta_reader_options options = {.size = sizeof options, .wait_for_log_ms = 60000};
    immuta_reader *reader = NULL;
    immuta_tailer *tailer = NULL;
    immuta_record record;
    immuta_code code;

    if (argc != 2) {
        fputs("usage: follower LOG\n", stderr);
        return 2;
    }
    if ((code = immuta_reader_open(argv[1], &options, &reader)) == IMMUTA_OK &&
        (code = immuta_reader_tail(reader, IMMUTA_START_BEGINNING, 0, &tailer)) == IMMUTA_OK &&
        (code = immuta_tailer_stopper(tailer, &stopper)) == IMMUTA_OK) {
        sigaction(SIGINT, &(struct sigaction){.sa_handler = on_signal}, NULL);
        sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_signal}, NULL);
        while ((code = immuta_tailer_next(tailer, IMMUTA_FOREVER, &record)) == IMMUTA_OK) {
            printf("%llu %.*s\n", (unsigned long long)record.sequence, (int)record.size, (const char *)record.payload);
            fflush(stdout);
        }
    }
    if (code != IMMUTA_STOPPED) fprintf(stderr, "follower: %s\n", immuta_last_error()->message);
    /* The stopper stays: a signal may come until the end. */
    if (tailer) immuta_tailer_close(tailer);
    if (reader) immuta_reader_close(reader);
    return code == IMMUTA_STOPPED ? 0 : 1;
}
