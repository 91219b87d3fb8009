/* The C interface of immuta, a local message bus that is a file: one process appends records to a log, any number of processes follow it.
 *
 * This file is made of the library's source by cbindgen; changes are made there.
 *
 * Results. A function returns IMMUTA_OK, which is 0, or an immuta_code that says what went wrong; immuta_last_error() then has the rest,
 * for the thread that called: a message for people, the path, the position. Where a function fails, its results are not touched.
 *
 * Arguments. A pointer that may be NULL is said to be so at the function; any other that is NULL gives IMMUTA_INVALID. Strings end with a
 * zero byte; a path is bytes, as the system takes them. Times are in milliseconds where a name ends in _ms.
 *
 * Handles. immuta_writer, immuta_reader, immuta_tailer and immuta_stopper are made by a function that puts a pointer to one, and taken back
 * by its _close or _free, after which the pointer must not be used. They may be taken back in any order.
 *
 * Threads. Handles may go from thread to thread.
 *
 *     immuta_reader                   any number of calls at the same time, from any threads
 *     immuta_stopper                  the same, and immuta_stop() from signal handlers, too
 *     immuta_writer, immuta_tailer    one call at a time: hand it over, or hold a lock around each call
 *     functions without a handle      any thread, at any time
 *
 * _close and _free come last: no other call on the handle may be going on, or come later. A tailer may outlive its reader, a stopper its
 * tailer. No function but immuta_stop() may be called in a signal handler.
 *
 * Forks. A handle belongs to the process that made it. In a forked child every call on it gives IMMUTA_FORKED and does nothing; _close and
 * _free give the memory back there, and do nothing to the log. The child may open logs of its own. A child that was made otherwise
 * than by fork(3), as by vfork(2) or clone(2), calls nothing of this.
 *
 * Versions. A program works with the library that it was compiled for and with later ones, as long as the first number of the version that
 * is not 0 stays. It gets codes and states then that it does not know.
 *
 * Unloading. A library that has opened a writer has a thread: it must not be unloaded by dlclose(3).
 *
 * Linking. cc program.c -limmuta, or with the static library: cc program.c libimmuta.a -lpthread -ldl -lm
 */


#ifndef IMMUTA_H
#define IMMUTA_H

#include <stddef.h>
#include <stdint.h>

/**
 * What a number is where it is not known, or where there is none.
 */
#define IMMUTA_UNKNOWN 18446744073709551615ull

/**
 * As a time to wait: without limit.
 */
#define IMMUTA_FOREVER 18446744073709551615ull

/**
 * What a function returns. Later versions may add codes.
 */
typedef enum immuta_code {
  /**
   * It went well.
   */
  IMMUTA_OK = 0,
  /**
   * A system call failed; system_error of immuta_last_error() is its errno.
   */
  IMMUTA_IO = 1,
  /**
   * There is no file under this name.
   */
  IMMUTA_NOT_FOUND = 2,
  /**
   * There is something under this name that cannot be a log, such as a directory.
   */
  IMMUTA_NOT_A_LOG = 3,
  /**
   * Another writer has the log open.
   */
  IMMUTA_LOCKED = 4,
  /**
   * The bytes of the file are not a log, or no longer one; position says where.
   */
  IMMUTA_DAMAGED = 5,
  /**
   * A record is larger than max_record_bytes of the reader's options.
   */
  IMMUTA_TOO_LARGE = 6,
  /**
   * The log was removed, or another file has its name; all that was readable has been delivered.
   */
  IMMUTA_REPLACED = 7,
  /**
   * Nothing came in the time that was given.
   */
  IMMUTA_TIMED_OUT = 8,
  /**
   * The tailer was stopped.
   */
  IMMUTA_STOPPED = 9,
  /**
   * A flush failed earlier: this writer publishes nothing more. Close it, and open the log anew.
   */
  IMMUTA_FAILED = 10,
  /**
   * Only what is durable is wanted, and nothing tells what that is.
   */
  IMMUTA_DURABLE_UNKNOWN = 11,
  /**
   * A place in time is wanted, and the log has no index that tells when its records came.
   */
  IMMUTA_NO_TIMES = 12,
  /**
   * The handle belongs to the parent process; a forked child opens its own.
   */
  IMMUTA_FORKED = 13,
  /**
   * An argument is NULL that may not be, or has a value that has no meaning. Nothing was done.
   */
  IMMUTA_INVALID = 14,
  /**
   * The call does not fit: there is a batch and it is none of the batch's, or it is and there is none. Nothing was done.
   */
  IMMUTA_BATCH = 15,
  /**
   * There is no record of this sequence yet.
   */
  IMMUTA_NO_RECORD = 16,
  /**
   * A fault of the library itself, which has said more on stderr. The handle gives this from now on; close it.
   */
  IMMUTA_PANIC = 17,
} immuta_code;

/**
 * Who is writing to a log. Later versions may add states.
 */
typedef enum immuta_writer_state {
  /**
   * A writer has the log open.
   */
  IMMUTA_WRITER_ALIVE = 1,
  /**
   * The last writer closed the log.
   */
  IMMUTA_WRITER_CLOSED = 2,
  /**
   * The last writer died without closing.
   */
  IMMUTA_WRITER_GONE = 3,
  /**
   * The writer could not flush the log to the disk, and has ended itself.
   */
  IMMUTA_WRITER_FAILED = 4,
} immuta_writer_state;

/**
 * When what is appended is made durable, so that a power cut does not take it.
 */
typedef enum immuta_durability {
  /**
   * By a helper thread, within interval_ms and the time that a flush takes.
   */
  IMMUTA_INTERVAL = 0,
  /**
   * By immuta_writer_sync() and at close alone.
   */
  IMMUTA_BUFFERED = 1,
  /**
   * Before it is published: an append or a commit returns, and a follower sees it, once it is durable.
   */
  IMMUTA_SYNC = 2,
} immuta_durability;

/**
 * Flags of immuta_writer_options, to be added up.
 */
typedef enum immuta_writer_flag {
  /**
   * Keeps no index beside the log, and removes one that is there: then records are found by a walk, and have no checksums.
   */
  IMMUTA_WITHOUT_INDEX = 1,
  /**
   * Appends by system calls and not through a mapping, as is done of itself where reserved space does not hold.
   */
  IMMUTA_WITHOUT_MAPPING = 2,
} immuta_writer_flag;

/**
 * How a reader takes bytes from the file.
 */
typedef enum immuta_read_mode {
  /**
   * Through a mapping while there is a control page, and what is much in steps that fail where the file has been cut or cannot be read;
   * by reads otherwise. What was just written, and large records, are touched at once.
   */
  IMMUTA_READ_AUTO = 0,
  /**
   * The same, but all of it is touched at once: somebody's truncation of the file ends the process with SIGBUS.
   */
  IMMUTA_READ_MAPPED = 1,
  /**
   * By reads alone: for a log that is not trusted.
   */
  IMMUTA_READ_PREAD = 2,
} immuta_read_mode;

/**
 * What a tailer does while there is nothing to read.
 */
typedef enum immuta_wait_strategy {
  /**
   * Spins for some microseconds, then sleeps.
   */
  IMMUTA_WAIT_SPIN_THEN_PARK = 0,
  /**
   * Never sleeps: lowest latency, a core for itself.
   */
  IMMUTA_WAIT_SPIN = 1,
  /**
   * Sleeps at once.
   */
  IMMUTA_WAIT_PARK = 2,
} immuta_wait_strategy;

/**
 * Flags of immuta_reader_options, to be added up.
 */
typedef enum immuta_reader_flag {
  /**
   * Takes a record only once it is durable. The control page alone tells that, so immuta_reader_tail() fails where no writer has one.
   */
  IMMUTA_ONLY_DURABLE = 1,
} immuta_reader_flag;

/**
 * Where a tailer begins. In immuta_reader_tail() some take a number.
 */
typedef enum immuta_start {
  /**
   * With the first record.
   */
  IMMUTA_START_BEGINNING = 0,
  /**
   * With the first record that is published after the tailer was made.
   */
  IMMUTA_START_END = 1,
  /**
   * With the record of sequence n, so behind the first n records; waits for it where it is not there yet.
   */
  IMMUTA_START_SEQUENCE = 2,
  /**
   * Behind the first n records, or behind as many as there are.
   */
  IMMUTA_START_SKIP_AT_MOST = 3,
  /**
   * With the last n records, or with all where there are fewer.
   */
  IMMUTA_START_LAST = 4,
  /**
   * With the first record that was published n nanoseconds after 1970-01-01 00:00 UTC or later, as the index tells: with a record
   * that came up to two seconds earlier, but never a later one.
   */
  IMMUTA_START_TIME_NS = 5,
} immuta_start;

/**
 * An opened log. Any number of threads may use it at the same time; only immuta_reader_close() must be the last call on it.
 */
typedef struct immuta_reader immuta_reader;

/**
 * Ends the waits of the tailer that it was taken from, and may outlive it. Any number of threads and signal handlers may use it at
 * the same time; only immuta_stopper_free() must be the last call on it.
 */
typedef struct immuta_stopper immuta_stopper;

/**
 * Follows a log from one record to the next. It may go from thread to thread, but one at a time: no two calls on a tailer may
 * overlap. What ends its waits from elsewhere is an immuta_stopper.
 */
typedef struct immuta_tailer immuta_tailer;

/**
 * The one that appends to a log. It may go from thread to thread, but one at a time: no two calls on a writer may overlap.
 */
typedef struct immuta_writer immuta_writer;

/**
 * The last error of a thread. Later versions may have more fields behind these.
 */
typedef struct immuta_error {
  /**
   * What the function returned; IMMUTA_OK before the first error.
   */
  enum immuta_code code;
  /**
   * The errno of the system call that failed, or 0.
   */
  int system_error;
  /**
   * The offset in the file that it is about, or IMMUTA_UNKNOWN.
   */
  uint64_t position;
  /**
   * The record that it is about, or IMMUTA_UNKNOWN.
   */
  uint64_t sequence;
  /**
   * The file that it is about, or "".
   */
  const char *path;
  /**
   * All of it for people: what happened, to which file, at which position, what to do.
   */
  const char *message;
} immuta_error;

/**
 * How to open a log for reading. A field that is 0 or NULL stands for the default; size is sizeof(immuta_reader_options):
 * `immuta_reader_options options = {sizeof options};`
 */
typedef struct immuta_reader_options {
  /**
   * The size of this struct in bytes, by which a later library knows an older program.
   */
  size_t size;
  /**
   * The directory of the control page and the doorbell; the default is the environment's IMMUTA_CONTROL_DIR, else /dev/shm.
   */
  const char *control_dir;
  /**
   * How many milliseconds to wait for the log to appear; the default is not to wait. IMMUTA_FOREVER: without limit.
   */
  uint64_t wait_for_log_ms;
  /**
   * The largest payload that is taken, in bytes; the default is 1 GiB where it is copied as a whole, and no limit otherwise.
   */
  uint64_t max_record_bytes;
  /**
   * Address space for the mapping, in bytes; the default is 64 GiB. A log may outgrow it.
   */
  uint64_t window_bytes;
  /**
   * The most descriptors that the reader holds; the default is 10. Its tailers share them.
   */
  uint32_t descriptors;
  /**
   * An immuta_read_mode.
   */
  uint32_t read_mode;
  /**
   * An immuta_wait_strategy.
   */
  uint32_t wait_strategy;
  /**
   * The sum of some immuta_reader_flag.
   */
  uint32_t flags;
} immuta_reader_options;

/**
 * Bytes that the library has allocated for the program, which gives them back with immuta_bytes_free().
 */
typedef struct immuta_bytes {
  /**
   * The first of them; not NULL, also where there are none.
   */
  const void *data;
  /**
   * How many there are.
   */
  size_t size;
} immuta_bytes;

/**
 * A log at one instant. size is sizeof(immuta_stat), set by the program: `immuta_stat stat = {sizeof stat};`
 */
typedef struct immuta_stat {
  /**
   * The size of this struct in bytes, by which a later library knows an older program.
   */
  size_t size;
  /**
   * Records that are published.
   */
  uint64_t records;
  /**
   * The position behind the last of them, in bytes.
   */
  uint64_t end;
  /**
   * The size of the file in bytes: end, and what a writer has reserved beyond it.
   */
  uint64_t file_bytes;
  /**
   * Records that are known to survive a power cut, or IMMUTA_UNKNOWN.
   */
  uint64_t durable_records;
  /**
   * An immuta_writer_state.
   */
  uint32_t writer;
  /**
   * The writer's process while it is alive and the system tells, or 0. For messages only.
   */
  uint32_t pid;
} immuta_stat;

/**
 * A record of a log.
 */
typedef struct immuta_record {
  /**
   * How many records come before it.
   */
  uint64_t sequence;
  /**
   * The offset of its size field in the log, in bytes.
   */
  uint64_t position;
  /**
   * What was appended, valid until the next call on the tailer; not NULL, also where it is empty.
   */
  const void *payload;
  /**
   * The payload's size, in bytes.
   */
  size_t size;
} immuta_record;

/**
 * How to open a log for appending. A field that is 0 or NULL stands for the default; size is sizeof(immuta_writer_options):
 * `immuta_writer_options options = {sizeof options};`
 */
typedef struct immuta_writer_options {
  /**
   * The size of this struct in bytes, by which a later library knows an older program.
   */
  size_t size;
  /**
   * The directory of the control page and the doorbell; the default is the environment's IMMUTA_CONTROL_DIR, else /dev/shm.
   */
  const char *control_dir;
  /**
   * With IMMUTA_INTERVAL: the most milliseconds before a flush begins, at least 10; the default is 1000.
   */
  uint64_t interval_ms;
  /**
   * Address space for the mapping, in bytes; the default is 64 GiB. A log may outgrow it.
   */
  uint64_t window_bytes;
  /**
   * Zeroed space made ready when the log is opened, in bytes; the default is what a helper thread does ahead.
   */
  uint64_t reserve_bytes;
  /**
   * An immuta_durability.
   */
  uint32_t durability;
  /**
   * The rights of a log that is created; the default is 0666 without the umask's bits.
   */
  uint32_t mode;
  /**
   * The rights of the doorbell; the default is 0600. Who may write it can end the writer: open it to a group at most.
   */
  uint32_t doorbell_mode;
  /**
   * The sum of some immuta_writer_flag.
   */
  uint32_t flags;
} immuta_writer_options;

/**
 * Where a record went.
 */
typedef struct immuta_appended {
  /**
   * How many records come before it.
   */
  uint64_t sequence;
  /**
   * The offset of its size field in the log, in bytes.
   */
  uint64_t position;
  /**
   * The payload's size, in bytes.
   */
  uint64_t size;
} immuta_appended;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * What went wrong last in a function that this thread has called; one that went well leaves it as it is. Never NULL. It is valid
 * until another call of this thread fails, or the thread ends.
 *
 * Any thread, at any time, but not a signal handler.
 */
const struct immuta_error *immuta_last_error(void);

/**
 * The version of the library, as "0.1.0". Any thread, at any time.
 */
const char *immuta_version(void);

/**
 * Opens the log at path for reading; options may be NULL. Waits as wait_for_log_ms says. On success *reader must be closed with
 * immuta_reader_close().
 *
 * IMMUTA_NOT_FOUND, IMMUTA_NOT_A_LOG, IMMUTA_DAMAGED where its count cannot be true, IMMUTA_IO. Any thread.
 */
enum immuta_code immuta_reader_open(const char *path,
                                    const struct immuta_reader_options *options,
                                    struct immuta_reader **reader);

/**
 * A tailer that begins at start, an immuta_start, with its number n, which the others ignore. Where that is, is fixed now. On success
 * *tailer must be closed with immuta_tailer_close(); it may outlive the reader.
 *
 * IMMUTA_DAMAGED, IMMUTA_NO_TIMES, IMMUTA_DURABLE_UNKNOWN, IMMUTA_IO. Any thread, any number at the same time.
 */
enum immuta_code immuta_reader_tail(const struct immuta_reader *reader,
                                    uint32_t start,
                                    uint64_t n,
                                    struct immuta_tailer **tailer);

/**
 * A copy of the payload of one record. On success *payload must be given to immuta_bytes_free().
 *
 * IMMUTA_NO_RECORD where there is none of this sequence yet, IMMUTA_TOO_LARGE, IMMUTA_DAMAGED, IMMUTA_IO. Any thread, any number at
 * the same time.
 */
enum immuta_code immuta_reader_get(const struct immuta_reader *reader,
                                   uint64_t sequence,
                                   struct immuta_bytes *payload);

/**
 * Gives the memory of a payload back, and makes it one of no bytes, so that to do it twice is no harm. Any thread.
 */
enum immuta_code immuta_bytes_free(struct immuta_bytes *payload);

/**
 * The log as it is now, and who is writing. Set stat->size to sizeof(immuta_stat) before. Any thread, any number at the same time.
 */
enum immuta_code immuta_reader_stat(const struct immuta_reader *reader,
                                    struct immuta_stat *stat);

/**
 * Closes the reader, which is gone then whatever it returns; its tailers live on. One thread, as the last call on this reader.
 */
enum immuta_code immuta_reader_close(struct immuta_reader *reader);

/**
 * The next record. Waits for it for at most timeout_ms milliseconds, also across a writer's close and restart; with 0 not at all, with
 * IMMUTA_FOREVER without limit.
 *
 * IMMUTA_TIMED_OUT where nothing came, IMMUTA_STOPPED once stopped, IMMUTA_REPLACED where the log is gone, IMMUTA_DAMAGED,
 * IMMUTA_TOO_LARGE, IMMUTA_IO; then *record stays as it was. One thread at a time.
 */
enum immuta_code immuta_tailer_next(struct immuta_tailer *tailer,
                                    uint64_t timeout_ms,
                                    struct immuta_record *record);

/**
 * The sequence of the next record. One thread at a time.
 */
enum immuta_code immuta_tailer_sequence(struct immuta_tailer *tailer,
                                        uint64_t *sequence);

/**
 * The position of the next record, in bytes; of an earlier one while the tailer waits for a record beyond the end. One thread at a time.
 */
enum immuta_code immuta_tailer_position(struct immuta_tailer *tailer,
                                        uint64_t *position);

/**
 * Who is writing to the log. IMMUTA_IO, IMMUTA_DAMAGED where only the file can tell and it is damaged. One thread at a time.
 */
enum immuta_code immuta_tailer_writer(struct immuta_tailer *tailer,
                                      enum immuta_writer_state *state);

/**
 * What ends this tailer's waits; there may be any number. On success *stopper must be given to immuta_stopper_free(). One thread at
 * a time, so take it before the tailer waits.
 */
enum immuta_code immuta_tailer_stopper(struct immuta_tailer *tailer,
                                       struct immuta_stopper **stopper);

/**
 * Closes the tailer, which is gone then whatever it returns, and the last record's payload with it. One thread, as the last call on
 * this tailer.
 */
enum immuta_code immuta_tailer_close(struct immuta_tailer *tailer);

/**
 * Stops the tailer that this was taken from, for good: its wait, and every later one, gives IMMUTA_STOPPED. One atomic store and one
 * wake-up; does nothing once the tailer is closed. IMMUTA_INVALID for NULL and IMMUTA_FORKED in a forked child are not remembered as the
 * last error, which a signal handler may not touch.
 *
 * Any thread and any signal handler, any number at the same time.
 */
enum immuta_code immuta_stop(const struct immuta_stopper *stopper);

/**
 * Gives the memory of a stopper back; stops nothing. One thread, as the last call on this stopper.
 */
enum immuta_code immuta_stopper_free(struct immuta_stopper *stopper);

/**
 * Opens the log at path for appending, and creates it where there is none. options may be NULL. What a writer that died has left is
 * recovered. Starts a helper thread, one in the process for all logs. On success *writer must be closed with immuta_writer_close().
 *
 * IMMUTA_LOCKED while another writer has the log, IMMUTA_NOT_A_LOG, IMMUTA_DAMAGED, IMMUTA_IO. Any thread.
 */
enum immuta_code immuta_writer_open(const char *path,
                                    const struct immuta_writer_options *options,
                                    struct immuta_writer **writer);

/**
 * Appends a record and publishes it. payload may be NULL where size is 0; appended may be NULL. Does not wait but for space, and with
 * IMMUTA_SYNC for two flushes.
 *
 * IMMUTA_IO where there is no space (what was published stays, and appending goes on once there is room), IMMUTA_FAILED,
 * IMMUTA_BATCH. One thread at a time.
 */
enum immuta_code immuta_writer_append(struct immuta_writer *writer,
                                      const void *payload,
                                      size_t size,
                                      struct immuta_appended *appended);

/**
 * Begins a batch: records that become visible together, when it is committed. Until then the writer takes no calls but the batch's
 * and immuta_writer_close(), which abandons it.
 *
 * IMMUTA_BATCH where one has begun. One thread at a time.
 */
enum immuta_code immuta_batch_begin(struct immuta_writer *writer);

/**
 * Adds a record to the batch. payload may be NULL where size is 0; appended, which may be NULL, says where the record will be.
 *
 * As for immuta_writer_append(); the batch stays as it was, and may be committed or added to. IMMUTA_BATCH where none has begun.
 * One thread at a time.
 */
enum immuta_code immuta_batch_append(struct immuta_writer *writer,
                                     const void *payload,
                                     size_t size,
                                     struct immuta_appended *appended);

/**
 * Publishes all records of the batch at once, and ends it, also where that fails. first and count, which may be NULL, are of its records.
 *
 * As for immuta_writer_append(); then nothing of the batch is published. IMMUTA_BATCH where none has begun. One thread at a time.
 */
enum immuta_code immuta_batch_commit(struct immuta_writer *writer,
                                     uint64_t *first,
                                     uint64_t *count);

/**
 * Ends the batch; nothing of it is published. IMMUTA_BATCH where none has begun. One thread at a time.
 */
enum immuta_code immuta_batch_abandon(struct immuta_writer *writer);

/**
 * Returns when all that was published is durable: waits for a flush.
 *
 * IMMUTA_IO where the flush fails: the writer has failed for good then, followers are told, and every later call gives IMMUTA_FAILED.
 * One thread at a time.
 */
enum immuta_code immuta_writer_sync(struct immuta_writer *writer);

/**
 * How many records are known to survive a power cut: all of a lower sequence than *records. Does not wait. One thread at a time.
 */
enum immuta_code immuta_writer_durable(struct immuta_writer *writer,
                                       uint64_t *records);

/**
 * The log as it is now. Set stat->size to sizeof(immuta_stat) before. One thread at a time.
 */
enum immuta_code immuta_writer_stat(struct immuta_writer *writer,
                                    struct immuta_stat *stat);

/**
 * What this writer does without, such as the control page, and why: a line each, to be shown to people once; usually "". Never NULL:
 * also of a writer that is NULL or belongs to the parent process it is "". Valid until the writer is closed. One thread at a time.
 */
const char *immuta_writer_notices(const struct immuta_writer *writer);

/**
 * Closes the log: cuts the file to its exact end, makes all of it durable, tells the followers. Whatever it returns, the writer is
 * gone then, and a batch that has begun is abandoned. In a forked child it gives the memory back and does nothing to the log.
 *
 * IMMUTA_IO where the file cannot be cut or flushed; what was published is in it. IMMUTA_FAILED, IMMUTA_FORKED. One thread, as the
 * last call on this writer.
 */
enum immuta_code immuta_writer_close(struct immuta_writer *writer);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* IMMUTA_H */


