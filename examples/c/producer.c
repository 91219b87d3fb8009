/* Appends each line of its input as a record: producer LOG */
#define _GNU_SOURCE
#include <immuta.h>
#include <stdio.h>
#include <stdlib.h>

static int failed(void) {
    fprintf(stderr, "producer: %s\n", immuta_last_error()->message);
    return 1;
}

int main(int argc, char **argv) {
    immuta_writer *writer;
    char *line = NULL;
    size_t room = 0;
    ssize_t size;

    if (argc != 2) {
        fputs("usage: producer LOG\n", stderr);
        return 2;
    }
    if (immuta_writer_open(argv[1], NULL, &writer) != IMMUTA_OK) return failed();
    fputs(immuta_writer_notices(writer), stderr);
    while ((size = getline(&line, &room, stdin)) >= 0) {
        if (line[size - 1] == '\n') size--;
        if (immuta_writer_append(writer, line, (size_t)size, NULL) != IMMUTA_OK) {
            failed();
            immuta_writer_close(writer);
            return 1;
        }
    }
    free(line);
    /* Makes all of it durable, and tells the followers. */
    return immuta_writer_close(writer) == IMMUTA_OK ? 0 : failed();
}
