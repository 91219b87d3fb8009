/* Appending, batches, the options of a writer, sizes. */
#include "test.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

void test_writing(void) {
    immuta_writer *writer = NULL;
    immuta_appended appended;
    OK(immuta_writer_open(log_path, NULL, &writer));
    OK(immuta_writer_append(writer, "hello world", 11, &appended));
    CHECK(appended.sequence == 0 && appended.position == 8 && appended.size == 11);
    OK(immuta_writer_append(writer, NULL, 0, &appended));
    CHECK(appended.sequence == 1 && appended.position == 27 && appended.size == 0);
    OK(immuta_writer_append(writer, "\0zero", 5, NULL));

    immuta_stat stat = {.size = sizeof stat};
    OK(immuta_writer_stat(writer, &stat));
    CHECK(stat.size == sizeof stat && stat.records == 3 && stat.end == 48 && stat.file_bytes > stat.end);
    CHECK(stat.writer == IMMUTA_WRITER_ALIVE && stat.pid == (uint32_t)getpid() && stat.durable_records <= 3);

    uint64_t durable = 77;
    OK(immuta_writer_sync(writer));
    OK(immuta_writer_durable(writer, &durable));
    CHECK(durable == 3);
    CHECK(strcmp(immuta_writer_notices(writer), "") == 0);
    OK(immuta_writer_close(writer));

    /* Byte for byte what FORMAT.md says. */
    static const char expected[] = "\3\0\0\0\0\0\0\0\13\0\0\0\0\0\0\0hello world\0\0\0\0\0\0\0\0\5\0\0\0\0\0\0\0\0zero";
    char bytes[100];
    FILE *file = fopen(log_path, "rb");
    CHECK(file != NULL);
    CHECK(fread(bytes, 1, sizeof bytes, file) == 48 && memcmp(bytes, expected, 48) == 0);
    fclose(file);

    /* It goes on where it ended. */
    writer = open_writer();
    OK(immuta_writer_append(writer, "again", 5, &appended));
    CHECK(appended.sequence == 3 && appended.position == 48);
    OK(immuta_writer_close(writer));
}

static uint64_t count_of(immuta_reader *reader) {
    immuta_stat stat = {.size = sizeof stat};
    OK(immuta_reader_stat(reader, &stat));
    return stat.records;
}

void test_batches(void) {
    immuta_writer *writer = open_writer();
    immuta_reader *reader = open_reader();
    immuta_tailer *tailer = tail(reader, IMMUTA_START_BEGINNING, 0);
    immuta_record record;
    immuta_appended appended;
    immuta_stat stat = {.size = sizeof stat};
    uint64_t first = 77, count = 77;

    GIVES(IMMUTA_BATCH, immuta_batch_append(writer, "x", 1, NULL));
    GIVES(IMMUTA_BATCH, immuta_batch_commit(writer, &first, &count));
    GIVES(IMMUTA_BATCH, immuta_batch_abandon(writer));
    CHECK(first == 77 && count == 77);
    CHECK(strstr(immuta_last_error()->message, "there is no batch") != NULL);

    append(writer, "single");
    OK(immuta_batch_begin(writer));
    OK(immuta_batch_append(writer, "one", 3, &appended));
    CHECK(appended.sequence == 1 && appended.position == 22 && appended.size == 3);
    OK(immuta_batch_append(writer, NULL, 0, &appended));
    OK(immuta_batch_append(writer, "three", 5, NULL));
    next_is(tailer, 0, "single");
    GIVES(IMMUTA_TIMED_OUT, immuta_tailer_next(tailer, 0, &record));
    CHECK(count_of(reader) == 1);

    /* The writer is the batch's until that ends. */
    GIVES(IMMUTA_BATCH, immuta_writer_append(writer, "x", 1, NULL));
    GIVES(IMMUTA_BATCH, immuta_batch_begin(writer));
    GIVES(IMMUTA_BATCH, immuta_writer_sync(writer));
    GIVES(IMMUTA_BATCH, immuta_writer_stat(writer, &stat));
    GIVES(IMMUTA_BATCH, immuta_writer_durable(writer, &count));
    CHECK(strstr(immuta_last_error()->message, "there is a batch") != NULL);
    CHECK(count_of(reader) == 1);
    GIVES(IMMUTA_INVALID, immuta_batch_append(writer, NULL, 1, NULL));
    GIVES(IMMUTA_INVALID, immuta_batch_append(writer, "x", SIZE_MAX, NULL));

    OK(immuta_batch_commit(writer, &first, &count));
    CHECK(first == 1 && count == 3 && count_of(reader) == 4);
    next_is(tailer, 1, "one");
    next_is(tailer, 2, "");
    next_is(tailer, 3, "three");

    OK(immuta_batch_begin(writer));
    OK(immuta_batch_append(writer, "abandoned", 9, NULL));
    OK(immuta_batch_abandon(writer));
    OK(immuta_batch_begin(writer));
    OK(immuta_batch_commit(writer, &first, &count));
    CHECK(first == 4 && count == 0);
    OK(immuta_batch_begin(writer));
    OK(immuta_batch_commit(writer, NULL, NULL));
    append(writer, "last");
    next_is(tailer, 4, "last");

    OK(immuta_batch_begin(writer));
    OK(immuta_batch_append(writer, "closed over", 11, NULL));
    OK(immuta_writer_close(writer));
    CHECK(count_of(reader) == 5 && size_of_file(log_path) == 8 + 5 * 8 + 6 + 3 + 5 + 4);
    OK(immuta_tailer_close(tailer));
    OK(immuta_reader_close(reader));
}

static immuta_writer *open_as(immuta_writer_options options) {
    immuta_writer *writer = NULL;
    options.size = sizeof options;
    OK(immuta_writer_open(log_path, &options, &writer));
    return writer;
}

static uint64_t durable_of(immuta_writer *writer) {
    uint64_t durable;
    OK(immuta_writer_durable(writer, &durable));
    return durable;
}

static unsigned mode_of(const char *path) {
    struct stat stat_of_it;
    CHECK(stat(path, &stat_of_it) == 0);
    return stat_of_it.st_mode & 07777;
}

void test_writer_options(void) {
    CHECK(mkdir(beside("control"), 0777) == 0);
    immuta_writer *writer = open_as((immuta_writer_options){
        .control_dir = beside("control"), .durability = IMMUTA_BUFFERED, .mode = 0640, .doorbell_mode = 0620, .reserve_bytes = 5 << 20});
    struct stat log;
    CHECK(stat(log_path, &log) == 0 && (log.st_mode & 07777) == 0640 && log.st_size > 5 << 20);
    char page[100];
    snprintf(page, sizeof page, "control/immuta-%llu-%llu.bell", (unsigned long long)log.st_dev, (unsigned long long)log.st_ino);
    CHECK(mode_of(beside(page)) == 0620);
    CHECK(strcmp(immuta_writer_notices(writer), "") == 0);
    append(writer, "buffered");
    CHECK(durable_of(writer) == 0);
    OK(immuta_writer_sync(writer));
    CHECK(durable_of(writer) == 1);
    OK(immuta_writer_close(writer));
    CHECK(size_of_file(beside(page)) == -1);
    CHECK(size_of_file(beside("events.log.idx")) > 0);

    writer = open_as((immuta_writer_options){.durability = IMMUTA_SYNC, .window_bytes = 4 << 20});
    append(writer, "in order");
    CHECK(durable_of(writer) == 2);
    OK(immuta_writer_close(writer));

    /* Flushes by itself. */
    writer = open_as((immuta_writer_options){.durability = IMMUTA_INTERVAL, .interval_ms = 10});
    append(writer, "soon");
    while (durable_of(writer) < 3) usleep(1000);
    OK(immuta_writer_close(writer));

    writer = open_as((immuta_writer_options){.flags = IMMUTA_WITHOUT_INDEX | IMMUTA_WITHOUT_MAPPING});
    CHECK(size_of_file(beside("events.log.idx")) == -1);
    append(writer, "plain");
    /* Nothing is reserved where there is no mapping. */
    CHECK(size_of_file(log_path) == 8 + 4 * 8 + 8 + 8 + 4 + 5);
    OK(immuta_writer_close(writer));

    writer = open_as((immuta_writer_options){.control_dir = beside("not there")});
    CHECK(strstr(immuta_writer_notices(writer), "no control page") == immuta_writer_notices(writer));
    CHECK(strchr(immuta_writer_notices(writer), '\n')[1] == 0);
    append(writer, "alone");
    OK(immuta_writer_close(writer));

    static const immuta_writer_options wrong[] = {
        {.durability = 3}, {.durability = UINT32_MAX}, {.flags = 4}, {.flags = UINT32_MAX}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        immuta_writer_options options = wrong[i];
        options.size = sizeof options;
        writer = NULL;
        GIVES(IMMUTA_INVALID, immuta_writer_open(log_path, &options, &writer));
        CHECK(writer == NULL && strstr(immuta_last_error()->message, i < 2 ? "immuta_durability" : "immuta_writer_flag") != NULL);
    }
}

void test_sizes(void) {
    /* Larger than the window, the steps in which a file grows, and the reader's buffer; the second needs more than the helper thread reserves. */
    enum { LARGE = 9 << 20, LARGER = 41 << 20 };
    unsigned char *large = malloc(LARGE);
    CHECK(large != NULL);
    for (size_t i = 0; i < LARGE; i++) large[i] = (unsigned char)(i * 2654435761u >> 24);
    immuta_writer *writer = open_writer();
    immuta_appended appended;
    immuta_record record;

    OK(immuta_writer_append(writer, large, LARGE, &appended));
    CHECK(appended.size == LARGE);
    immuta_reader *reader = open_reader();
    immuta_tailer *tailer = tail(reader, IMMUTA_START_BEGINNING, 0);
    OK(immuta_tailer_next(tailer, 60000, &record));
    CHECK(record.size == LARGE && memcmp(record.payload, large, LARGE) == 0);
    immuta_bytes bytes;
    OK(immuta_reader_get(reader, 0, &bytes));
    CHECK(bytes.size == LARGE && memcmp(bytes.data, large, LARGE) == 0);
    OK(immuta_bytes_free(&bytes));
    free(large);

    /* No object has such a size, so none of it is looked at. */
    GIVES(IMMUTA_INVALID, immuta_writer_append(writer, "x", SIZE_MAX, &appended));
    GIVES(IMMUTA_INVALID, immuta_writer_append(writer, "x", (size_t)1 << 63, &appended));
    CHECK(strstr(immuta_last_error()->message, "9223372036854775808 is not the size of a payload") != NULL);

    /* The system grants no more: what was published stays, and appending goes on once there is room. */
    struct rlimit limit, least;
    CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    signal(SIGXFSZ, SIG_IGN);
    least = limit;
    least.rlim_cur = LARGE + 16;
    CHECK(setrlimit(RLIMIT_FSIZE, &least) == 0);
    char *piece = calloc(1, LARGER);
    CHECK(piece != NULL);
    GIVES(IMMUTA_IO, immuta_writer_append(writer, piece, LARGER, &appended));
    CHECK(immuta_last_error()->system_error == EFBIG);
    last_error_is(IMMUTA_IO, "ulimit -f");
    GIVES(IMMUTA_TIMED_OUT, immuta_tailer_next(tailer, 0, &record));
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    OK(immuta_writer_append(writer, piece, LARGER, &appended));
    CHECK(appended.sequence == 1);
    free(piece);
    OK(immuta_tailer_next(tailer, 60000, &record));
    CHECK(record.sequence == 1 && record.size == LARGER);

    OK(immuta_tailer_close(tailer));
    OK(immuta_reader_close(reader));
    OK(immuta_writer_close(writer));
}
