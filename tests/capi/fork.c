/* A forked child that uses what it has inherited, and what it may do instead. */
#include "test.h"

#include <sys/wait.h>
#include <unistd.h>

static immuta_writer *writer;
static immuta_reader *reader;
static immuta_tailer *tailer;
static immuta_stopper *stopper;

static void use_the_parents(void) {
    immuta_stat stat = {.size = sizeof stat};
    immuta_tailer *new_tailer = NULL;
    immuta_stopper *new_stopper = NULL;
    immuta_record record;
    immuta_bytes bytes;
    immuta_writer_state state;
    uint64_t number;

    GIVES(IMMUTA_FORKED, immuta_writer_append(writer, "by the child", 12, NULL));
    last_error_is(IMMUTA_FORKED, "this writer belongs to the parent process");
    GIVES(IMMUTA_FORKED, immuta_batch_begin(writer));
    GIVES(IMMUTA_FORKED, immuta_batch_append(writer, "by the child", 12, NULL));
    GIVES(IMMUTA_FORKED, immuta_batch_commit(writer, NULL, NULL));
    GIVES(IMMUTA_FORKED, immuta_batch_abandon(writer));
    GIVES(IMMUTA_FORKED, immuta_writer_sync(writer));
    GIVES(IMMUTA_FORKED, immuta_writer_durable(writer, &number));
    GIVES(IMMUTA_FORKED, immuta_writer_stat(writer, &stat));
    CHECK(strcmp(immuta_writer_notices(writer), "") == 0);

    GIVES(IMMUTA_FORKED, immuta_reader_tail(reader, IMMUTA_START_BEGINNING, 0, &new_tailer));
    last_error_is(IMMUTA_FORKED, "this reader belongs to the parent process");
    GIVES(IMMUTA_FORKED, immuta_reader_get(reader, 0, &bytes));
    GIVES(IMMUTA_FORKED, immuta_reader_stat(reader, &stat));

    GIVES(IMMUTA_FORKED, immuta_tailer_next(tailer, 0, &record));
    last_error_is(IMMUTA_FORKED, "this tailer belongs to the parent process");
    GIVES(IMMUTA_FORKED, immuta_tailer_next(tailer, IMMUTA_FOREVER, &record));
    GIVES(IMMUTA_FORKED, immuta_tailer_sequence(tailer, &number));
    GIVES(IMMUTA_FORKED, immuta_tailer_position(tailer, &number));
    GIVES(IMMUTA_FORKED, immuta_tailer_writer(tailer, &state));
    GIVES(IMMUTA_FORKED, immuta_tailer_stopper(tailer, &new_stopper));
    GIVES(IMMUTA_FORKED, immuta_stop(stopper));
    CHECK(new_tailer == NULL && new_stopper == NULL);
}

static void close_the_parents(void) {
    GIVES(IMMUTA_FORKED, immuta_writer_close(writer));
    last_error_is(IMMUTA_FORKED, "this writer belongs to the parent process");
    GIVES(IMMUTA_FORKED, immuta_reader_close(reader));
    GIVES(IMMUTA_FORKED, immuta_tailer_close(tailer));
    OK(immuta_stopper_free(stopper));
}

/* The child does `work`, and must not fail. It ends as another program: what it has of its parent's is no leak of its own. */
static void in_a_child(void (*work)(void)) {
    int status;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        /* An alarm is not inherited, and a child that hangs must not outlive its test. */
        alarm(100);
        work();
        execlp("true", "true", (char *)NULL);
        _exit(1);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void in_a_grandchild(void) {
    in_a_child(use_the_parents);
}

/* The child's own are as good as anybody's, and not its child's. */
static void use_its_own(void) {
    close_the_parents();
    /* Found by the test: messages name this one. */
    strcpy(log_path, beside("own.log"));
    writer = open_writer();
    append(writer, "by the child");
    reader = open_reader();
    tailer = tail(reader, IMMUTA_START_BEGINNING, 0);
    OK(immuta_tailer_stopper(tailer, &stopper));
    in_a_child(use_the_parents);
    next_is(tailer, 0, "by the child");
    append(writer, "and again");
    next_is(tailer, 1, "and again");
    OK(immuta_stopper_free(stopper));
    OK(immuta_tailer_close(tailer));
    OK(immuta_reader_close(reader));
    OK(immuta_writer_close(writer));
    CHECK(size_of_file(log_path) == 8 + 2 * 8 + 12 + 9);
}

void test_fork(void) {
    writer = open_writer();
    append(writer, "by the parent");
    reader = open_reader();
    tailer = tail(reader, IMMUTA_START_BEGINNING, 0);
    OK(immuta_tailer_stopper(tailer, &stopper));
    long long size = size_of_file(log_path);

    in_a_child(use_the_parents);
    in_a_child(in_a_grandchild);
    in_a_child(close_the_parents);
    in_a_child(use_its_own);

    /* A batch of the parent's that a child inherits: */
    OK(immuta_batch_begin(writer));
    OK(immuta_batch_append(writer, "in a batch", 10, NULL));
    in_a_child(use_the_parents);
    in_a_child(close_the_parents);
    OK(immuta_batch_commit(writer, NULL, NULL));

    /* The parent goes on, with all that it had: nobody has cut its log. */
    CHECK(size_of_file(log_path) >= size);
    append(writer, "again");
    next_is(tailer, 0, "by the parent");
    next_is(tailer, 1, "in a batch");
    next_is(tailer, 2, "again");
    immuta_stat stat = {.size = sizeof stat};
    OK(immuta_reader_stat(reader, &stat));
    CHECK(stat.records == 3 && stat.writer == IMMUTA_WRITER_ALIVE);
    OK(immuta_stop(stopper));
    OK(immuta_stopper_free(stopper));
    OK(immuta_tailer_close(tailer));
    OK(immuta_reader_close(reader));
    OK(immuta_writer_close(writer));
}
