/* A writer for tests, made from FORMAT.md, that can be told to do each thing wrong; and what checks say. */
#ifndef SUPPORT_H
#define SUPPORT_H

#include "../immuta_reader.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>

#define CHECK(x)                                                                                                            \
    do {                                                                                                                    \
        if (!(x)) {                                                                                                         \
            fprintf(stderr, "%s:%d: not so: %s (last error: %s)\n", __FILE__, __LINE__, #x, immuta_c_last_error()->message); \
            exit(1);                                                                                                        \
        }                                                                                                                   \
    } while (0)

#define MILLI INT64_C(1000000)

enum { STATE = 128, HEARTBEAT = 256, END = 384, COMMIT = 392, SLOTS = 512, ANNOUNCED = 128 };

struct log {
    char dir[64], path[96];
    int fd;
    uint64_t device, inode, birth_ns, count, end;
    unsigned char *page, *bell;
    int index;
    uint64_t indexed, indexed_end; /* sequence and position behind the last block */
};

int64_t now_ns(void);
void pause_ns(int64_t ns);

/* A log without records in a new directory, which is its control directory too and IMMUTA_CONTROL_DIR. Removed by log_end(). */
void log_begin(struct log *log);
void log_end(struct log *log);
void log_create(struct log *log); /* anew under the same name, as another file */

/* Writes a record behind the last one; log_store() makes it count. Its payload is a function of sequence and size. */
void log_put(struct log *log, uint64_t size);
void log_size(struct log *log, uint64_t size); /* only a size field */
void log_store(struct log *log);
void log_add(struct log *log, uint64_t size); /* both, and in the control page where there is one */
void log_raw(struct log *log, uint64_t position, uint64_t number);
void log_lock(struct log *log);
void log_unlock(struct log *log); /* closes the descriptor, as death does, and opens another */

void page_begin(struct log *log, uint64_t epoch); /* page and doorbell under their names, as of event 0 */
void page_forget(struct log *log);                /* no longer ours; stays under its name */
void page_remove(struct log *log);
void page_name(const struct log *log, const char *suffix, char name[256]);
void page_set(struct log *log, unsigned offset, uint64_t value);
uint64_t page_get(const unsigned char *at);
int page_publish(struct log *log); /* an event; how many it woke, or -1 where nobody had announced a sleep */
int page_wake(struct log *log);

void index_begin(struct log *log, uint64_t inode);
void index_entry(struct log *log, uint64_t sequence, uint64_t position, uint64_t length, uint64_t records, uint32_t kind, uint32_t crc);
void index_block(struct log *log); /* covers all that was put since the last one */
uint32_t crc32c(const void *data, size_t bytes);

void payload_check(const struct immuta_c_record *record, uint64_t sequence, uint64_t size);
bool eventually(bool (*is_so)(void *), void *arg); /* within 20 s */

void page_tests(void (*run)(const char *name, void (*test)(void)));
void index_tests(void (*run)(const char *name, void (*test)(void)));
void follow_tests(void (*run)(const char *name, void (*test)(void)));

#endif
