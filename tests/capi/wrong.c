/* Arguments that cannot be right give an error, whatever else is right. */
#include "test.h"

/* The call must be refused, saying so. */
#define REFUSED(part, call)                                                                                                                \
    do {                                                                                                                                   \
        GIVES(IMMUTA_INVALID, call);                                                                                                       \
        CHECK(immuta_last_error()->code == IMMUTA_INVALID && strstr(immuta_last_error()->message, part) != NULL);                          \
    } while (0)

void test_null_arguments(void) {
    immuta_writer *writer = open_writer(), *no_writer = NULL;
    append(writer, "a record");
    immuta_reader *reader = open_reader(), *no_reader = NULL;
    immuta_tailer *tailer = tail(reader, IMMUTA_START_BEGINNING, 0), *no_tailer = NULL;
    immuta_stopper *stopper = NULL;
    immuta_stat stat = {.size = sizeof stat};
    immuta_record record;
    immuta_bytes bytes;
    immuta_writer_state state;
    uint64_t number;

    REFUSED("the path is NULL", immuta_writer_open(NULL, NULL, &no_writer));
    REFUSED("the place for the writer is NULL", immuta_writer_open(log_path, NULL, NULL));
    REFUSED("the writer is NULL", immuta_writer_append(NULL, "x", 1, NULL));
    REFUSED("the payload is NULL", immuta_writer_append(writer, NULL, 1, NULL));
    REFUSED("the writer is NULL", immuta_batch_begin(NULL));
    REFUSED("the writer is NULL", immuta_batch_append(NULL, "x", 1, NULL));
    REFUSED("the writer is NULL", immuta_batch_commit(NULL, NULL, NULL));
    REFUSED("the writer is NULL", immuta_batch_abandon(NULL));
    REFUSED("the writer is NULL", immuta_writer_sync(NULL));
    REFUSED("the writer is NULL", immuta_writer_durable(NULL, &number));
    REFUSED("the place for the records is NULL", immuta_writer_durable(writer, NULL));
    REFUSED("the writer is NULL", immuta_writer_stat(NULL, &stat));
    REFUSED("the immuta_stat is NULL", immuta_writer_stat(writer, NULL));
    REFUSED("the writer is NULL", immuta_writer_close(NULL));
    CHECK(strcmp(immuta_writer_notices(NULL), "") == 0);

    REFUSED("the path is NULL", immuta_reader_open(NULL, NULL, &no_reader));
    REFUSED("the place for the reader is NULL", immuta_reader_open(log_path, NULL, NULL));
    REFUSED("the reader is NULL", immuta_reader_tail(NULL, IMMUTA_START_END, 0, &no_tailer));
    REFUSED("the place for the tailer is NULL", immuta_reader_tail(reader, IMMUTA_START_END, 0, NULL));
    REFUSED("the reader is NULL", immuta_reader_get(NULL, 0, &bytes));
    REFUSED("the place for the payload is NULL", immuta_reader_get(reader, 0, NULL));
    REFUSED("the payload is NULL", immuta_bytes_free(NULL));
    REFUSED("the reader is NULL", immuta_reader_stat(NULL, &stat));
    REFUSED("the immuta_stat is NULL", immuta_reader_stat(reader, NULL));
    REFUSED("the reader is NULL", immuta_reader_close(NULL));

    REFUSED("the tailer is NULL", immuta_tailer_next(NULL, 0, &record));
    REFUSED("the place for the record is NULL", immuta_tailer_next(tailer, IMMUTA_FOREVER, NULL));
    REFUSED("the tailer is NULL", immuta_tailer_sequence(NULL, &number));
    REFUSED("the place for the sequence is NULL", immuta_tailer_sequence(tailer, NULL));
    REFUSED("the tailer is NULL", immuta_tailer_position(NULL, &number));
    REFUSED("the place for the position is NULL", immuta_tailer_position(tailer, NULL));
    REFUSED("the tailer is NULL", immuta_tailer_writer(NULL, &state));
    REFUSED("the place for the state is NULL", immuta_tailer_writer(tailer, NULL));
    REFUSED("the tailer is NULL", immuta_tailer_stopper(NULL, &stopper));
    REFUSED("the place for the stopper is NULL", immuta_tailer_stopper(tailer, NULL));
    REFUSED("the tailer is NULL", immuta_tailer_close(NULL));
    REFUSED("the stopper is NULL", immuta_stopper_free(NULL));
    CHECK(no_writer == NULL && no_reader == NULL && no_tailer == NULL && stopper == NULL);

    /* This one may be called where an error cannot be remembered. */
    GIVES(IMMUTA_NO_RECORD, immuta_reader_get(reader, 5, &bytes));
    GIVES(IMMUTA_INVALID, immuta_stop(NULL));
    CHECK(immuta_last_error()->code == IMMUTA_NO_RECORD);

    /* A record that had no place to go is not lost. */
    next_is(tailer, 0, "a record");
    OK(immuta_tailer_close(tailer));
    OK(immuta_reader_close(reader));
    OK(immuta_writer_close(writer));
}

void test_sizes_of_structs(void) {
    immuta_writer *writer = NULL;
    immuta_reader *reader = NULL;
    immuta_writer_options writing = {.size = 0};
    immuta_reader_options reading = {.size = 0};
    immuta_stat stat = {.size = 0};
    static const size_t wrong[] = {0, 1, sizeof writing - 1, 4097, SIZE_MAX};

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        writing.size = wrong[i];
        REFUSED("set it to sizeof(immuta_writer_options)", immuta_writer_open(log_path, &writing, &writer));
    }
    writer = open_writer();
    append(writer, "a record");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        reading.size = wrong[i];
        REFUSED("set it to sizeof(immuta_reader_options)", immuta_reader_open(log_path, &reading, &reader));
    }
    reader = open_reader();
    stat.size = sizeof stat - 1;
    REFUSED("set it to sizeof(immuta_stat)", immuta_reader_stat(reader, &stat));
    stat.size = SIZE_MAX;
    REFUSED("set it to sizeof(immuta_stat)", immuta_writer_stat(writer, &stat));
    OK(immuta_reader_close(reader));

    /* A program of a later time: what it does not want is 0, what it wants this library does not know. */
    struct {
        immuta_reader_options known;
        uint64_t unknown[2];
    } later = {.known = {.size = sizeof later, .descriptors = 2}};
    OK(immuta_reader_open(log_path, &later.known, &reader));
    struct {
        immuta_stat known;
        uint64_t unknown;
    } later_stat = {.known = {.size = sizeof later_stat}, .unknown = 7};
    OK(immuta_reader_stat(reader, &later_stat.known));
    CHECK(later_stat.known.size == sizeof later_stat && later_stat.known.records == 1 && later_stat.unknown == 0);
    OK(immuta_reader_close(reader));
    later.unknown[1] = 1;
    reader = NULL;
    REFUSED("does not know", immuta_reader_open(log_path, &later.known, &reader));
    CHECK(reader == NULL);
    OK(immuta_writer_close(writer));
}
