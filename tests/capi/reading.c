/* Reading: starts, records, the options of a reader. */
#include "test.h"

#include <time.h>
#include <unistd.h>

void test_reading(void) {
    immuta_writer *writer = open_writer();
    immuta_reader *reader = NULL;
    OK(immuta_reader_open(log_path, NULL, &reader));
    immuta_tailer *tailer = tail(reader, IMMUTA_START_BEGINNING, 0);
    immuta_record record = {7, 7, NULL, 7};
    immuta_writer_state state;
    uint64_t sequence, position;

    GIVES(IMMUTA_TIMED_OUT, immuta_tailer_next(tailer, 0, &record));
    long long begin = now_ms();
    GIVES(IMMUTA_TIMED_OUT, immuta_tailer_next(tailer, 30, &record));
    CHECK(now_ms() - begin >= 30);
    last_error_is(IMMUTA_TIMED_OUT, "nothing came within 30ms");
    CHECK(record.sequence == 7 && record.position == 7 && record.payload == NULL && record.size == 7);

    append(writer, "first");
    append(writer, "");
    OK(immuta_tailer_next(tailer, IMMUTA_FOREVER, &record));
    CHECK(record.sequence == 0 && record.position == 8 && record.size == 5 && memcmp(record.payload, "first", 5) == 0);
    OK(immuta_tailer_sequence(tailer, &sequence));
    OK(immuta_tailer_position(tailer, &position));
    CHECK(sequence == 1 && position == 21);
    OK(immuta_tailer_next(tailer, 0, &record));
    CHECK(record.sequence == 1 && record.size == 0 && record.payload != NULL);

    immuta_bytes bytes;
    OK(immuta_reader_get(reader, 0, &bytes));
    CHECK(bytes.size == 5 && memcmp(bytes.data, "first", 5) == 0);
    OK(immuta_bytes_free(&bytes));
    CHECK(bytes.size == 0);
    OK(immuta_bytes_free(&bytes));
    OK(immuta_reader_get(reader, 1, &bytes));
    CHECK(bytes.size == 0 && bytes.data != NULL);
    OK(immuta_bytes_free(&bytes));
    GIVES(IMMUTA_NO_RECORD, immuta_reader_get(reader, 2, &bytes));
    GIVES(IMMUTA_NO_RECORD, immuta_reader_get(reader, UINT64_MAX, &bytes));

    immuta_stat stat = {.size = sizeof stat};
    OK(immuta_reader_stat(reader, &stat));
    CHECK(stat.records == 2 && stat.end == 29 && stat.writer == IMMUTA_WRITER_ALIVE);
    /* The system need not tell. */
    CHECK(stat.pid == (uint32_t)getpid() || stat.pid == 0);
    OK(immuta_tailer_writer(tailer, &state));
    CHECK(state == IMMUTA_WRITER_ALIVE);
    OK(immuta_writer_close(writer));
    OK(immuta_tailer_writer(tailer, &state));
    CHECK(state == IMMUTA_WRITER_CLOSED);
    OK(immuta_reader_stat(reader, &stat));
    CHECK(stat.writer == IMMUTA_WRITER_CLOSED && stat.pid == 0 && stat.file_bytes == 29 && stat.durable_records == 2);

    /* The tailer outlives the reader, and both live on across a restart of the writer. */
    OK(immuta_reader_close(reader));
    writer = open_writer();
    append(writer, "of the next writer");
    next_is(tailer, 2, "of the next writer");
    OK(immuta_writer_close(writer));
    OK(immuta_tailer_close(tailer));
}

static void begins_at(immuta_reader *reader, immuta_start start, uint64_t n, uint64_t first) {
    immuta_tailer *tailer = tail(reader, start, n);
    immuta_record record;
    uint64_t sequence;
    OK(immuta_tailer_sequence(tailer, &sequence));
    CHECK(sequence == first);
    if (first < 10) {
        OK(immuta_tailer_next(tailer, 0, &record));
        CHECK(record.sequence == first && record.size == 1 && *(const char *)record.payload == (char)('0' + first));
    } else {
        GIVES(IMMUTA_TIMED_OUT, immuta_tailer_next(tailer, 0, &record));
    }
    OK(immuta_tailer_close(tailer));
}

void test_starts(void) {
    immuta_writer *writer = open_writer();
    for (int i = 0; i < 10; i++) {
        char digit = (char)('0' + i);
        OK(immuta_writer_append(writer, &digit, 1, NULL));
    }
    /* From then on the index knows them. */
    OK(immuta_writer_sync(writer));
    immuta_reader *reader = open_reader();
    begins_at(reader, IMMUTA_START_BEGINNING, 5, 0);
    begins_at(reader, IMMUTA_START_END, 5, 10);
    begins_at(reader, IMMUTA_START_SEQUENCE, 4, 4);
    begins_at(reader, IMMUTA_START_SEQUENCE, 12, 12);
    begins_at(reader, IMMUTA_START_SKIP_AT_MOST, 4, 4);
    begins_at(reader, IMMUTA_START_LAST, 3, 7);
    begins_at(reader, IMMUTA_START_LAST, UINT64_MAX, 0);
    begins_at(reader, IMMUTA_START_TIME_NS, 0, 0);
    begins_at(reader, IMMUTA_START_TIME_NS, UINT64_MAX, 10);
    immuta_tailer *tailer = tail(reader, IMMUTA_START_SKIP_AT_MOST, 12);
    append(writer, "the eleventh");
    next_is(tailer, 10, "the eleventh");
    OK(immuta_tailer_close(tailer));

    tailer = NULL;
    GIVES(IMMUTA_INVALID, immuta_reader_tail(reader, 6, 0, &tailer));
    GIVES(IMMUTA_INVALID, immuta_reader_tail(reader, UINT32_MAX, 0, &tailer));
    CHECK(tailer == NULL && strstr(immuta_last_error()->message, "4294967295 is no immuta_start") != NULL);
    OK(immuta_reader_close(reader));
    OK(immuta_writer_close(writer));
}

static immuta_reader *open_as(immuta_reader_options options) {
    immuta_reader *reader = NULL;
    options.size = sizeof options;
    OK(immuta_reader_open(log_path, &options, &reader));
    return reader;
}

void test_reader_options(void) {
    immuta_reader_options options = {.size = sizeof options, .wait_for_log_ms = 40};
    immuta_reader *reader = NULL;
    long long begin = now_ms();
    GIVES(IMMUTA_NOT_FOUND, immuta_reader_open(log_path, &options, &reader));
    CHECK(now_ms() - begin >= 40 && reader == NULL);

    immuta_writer *writer = open_writer();
    append(writer, "small");
    append(writer, "a larger one");
    reader = open_as((immuta_reader_options){.wait_for_log_ms = IMMUTA_FOREVER, .max_record_bytes = 8, .descriptors = 1});
    immuta_tailer *tailer = tail(reader, IMMUTA_START_BEGINNING, 0);
    next_is(tailer, 0, "small");
    immuta_record record;
    GIVES(IMMUTA_TOO_LARGE, immuta_tailer_next(tailer, 0, &record));
    CHECK(immuta_last_error()->position == 21 && immuta_last_error()->sequence == 1);
    last_error_is(IMMUTA_TOO_LARGE, "has 12 bytes, more than the 8");
    immuta_bytes bytes;
    GIVES(IMMUTA_TOO_LARGE, immuta_reader_get(reader, 1, &bytes));
    OK(immuta_tailer_close(tailer));
    OK(immuta_reader_close(reader));

    for (uint32_t mode = IMMUTA_READ_AUTO; mode <= IMMUTA_READ_PREAD; mode++) {
        for (uint32_t strategy = IMMUTA_WAIT_SPIN_THEN_PARK; strategy <= IMMUTA_WAIT_PARK; strategy++) {
            reader = open_as((immuta_reader_options){.read_mode = mode, .wait_strategy = strategy, .window_bytes = 4 << 20});
            tailer = tail(reader, IMMUTA_START_LAST, 1);
            next_is(tailer, 1, "a larger one");
            GIVES(IMMUTA_TIMED_OUT, immuta_tailer_next(tailer, 2, &record));
            OK(immuta_tailer_close(tailer));
            OK(immuta_reader_close(reader));
        }
    }

    /* Followed at another place, there is no control page, which alone tells what is durable. */
    reader = open_as((immuta_reader_options){.control_dir = beside("not there"), .flags = IMMUTA_ONLY_DURABLE});
    tailer = NULL;
    GIVES(IMMUTA_DURABLE_UNKNOWN, immuta_reader_tail(reader, IMMUTA_START_BEGINNING, 0, &tailer));
    last_error_is(IMMUTA_DURABLE_UNKNOWN, "durable");
    OK(immuta_reader_close(reader));
    OK(immuta_writer_sync(writer));
    reader = open_as((immuta_reader_options){.flags = IMMUTA_ONLY_DURABLE});
    tailer = tail(reader, IMMUTA_START_BEGINNING, 0);
    next_is(tailer, 0, "small");
    OK(immuta_tailer_close(tailer));
    OK(immuta_reader_close(reader));

    static const immuta_reader_options wrong[] = {{.read_mode = 3}, {.wait_strategy = 3}, {.flags = 2}, {.flags = UINT32_MAX}};
    static const char *const names[] = {"immuta_read_mode", "immuta_wait_strategy", "immuta_reader_flag", "immuta_reader_flag"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        options = wrong[i];
        options.size = sizeof options;
        reader = NULL;
        GIVES(IMMUTA_INVALID, immuta_reader_open(log_path, &options, &reader));
        CHECK(reader == NULL && strstr(immuta_last_error()->message, names[i]) != NULL);
    }
    OK(immuta_writer_close(writer));
}
