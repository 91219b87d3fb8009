/* Follows a live log, from its last ten records on, until Ctrl-C: make example && build/tail events.log */
#include "immuta_reader.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

static immuta_c_tailer *tailer;

static void on_signal(int signal)
{
    (void)signal;
    immuta_c_tailer_stop(tailer);
}

int main(int argc, char **argv)
{
    struct immuta_c_options options = { .wait_for_log = -1 };
    struct immuta_c_record record;
    enum immuta_c_writer writer;
    immuta_c_reader *reader;
    int status;
    if (argc != 2) {
        fprintf(stderr, "usage: tail LOG\n");
        return 2;
    }
    if (immuta_c_reader_open(argv[1], &options, &reader) || immuta_c_reader_tail(reader, IMMUTA_C_LAST, 10, &tailer)) {
        fprintf(stderr, "tail: %s\n", immuta_c_last_error()->message);
        return 1;
    }
    signal(SIGINT, on_signal);
    for (;;) {
        status = immuta_c_tailer_next_timeout(tailer, INT64_C(5000000000), &record);
        if (status == IMMUTA_C_OK) {
            printf("%" PRIu64 ": %.*s\n", record.sequence, (int)(record.size < 200 ? record.size : 200), (const char *)record.payload);
            fflush(stdout);
        } else if (status == IMMUTA_C_TIMED_OUT && immuta_c_tailer_writer(tailer, &writer) == IMMUTA_C_OK) {
            static const char *const names[] = { "alive", "closed", "gone", "failed" };
            fprintf(stderr, "(nothing for 5 s; the writer is %s)\n", names[writer]);
        } else {
            break;
        }
    }
    if (status != IMMUTA_C_STOPPED)
        fprintf(stderr, "tail: %s\n", immuta_c_last_error()->message);
    immuta_c_tailer_close(tailer);
    immuta_c_reader_close(reader);
    return status == IMMUTA_C_STOPPED ? 0 : 1;
}
