/* The C library's fdatasync and fsync, which the linker prefers here, so that a test can make a flush fail. */
#include "test.h"

#include <sys/syscall.h>
#include <unistd.h>

atomic_bool flushes_fail;

static int flush(long number, int descriptor) {
    if (atomic_load(&flushes_fail)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(number, descriptor);
}

int fdatasync(int descriptor) {
    return flush(SYS_fdatasync, descriptor);
}

int fsync(int descriptor) {
    return flush(SYS_fsync, descriptor);
}
