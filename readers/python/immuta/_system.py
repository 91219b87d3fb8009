"""What the standard library does not offer, by ctypes: atomic operations on shared memory, futex, statx, mappings."""

import ctypes
import errno
import fcntl
import mmap
import os
import struct
import sys
from typing import Optional

_libc = ctypes.CDLL(None, use_errno=True)
_SIXTY_FOUR = sys.maxsize > 2**32 and sys.byteorder == "little"
_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "loongarch64": 98}.get(os.uname().machine) if _SIXTY_FOUR else None
_FUTEX_WAIT, _FUTEX_WAKE = 0, 1  # Never with FUTEX_PRIVATE_FLAG: the word is shared between processes.
_ACQUIRE, _SEQ_CST = 2, 5

_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

PAGE = 4096
WRITER_BYTE = 2**63 - 2
_FLOCK = struct.Struct("hhqqi")  # struct flock: type, whence, start, len, pid; native alignment.


class _TimeSpec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


try:
    # PyDLL keeps the GIL: these calls are shorter than giving it away.
    _library = ctypes.PyDLL("libatomic.so.1")
    _load = _library.__getattr__("__atomic_load_8")
    _load.restype = ctypes.c_uint64
    _load.argtypes = [ctypes.c_void_p, ctypes.c_int]
    _exchange = _library.__getattr__("__atomic_compare_exchange_8")
    _exchange.restype = ctypes.c_bool
    _exchange.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int, ctypes.c_int]
    _fence = _library.atomic_thread_fence
    _fence.restype = None
    _fence.argtypes = [ctypes.c_int]
    _atomic = True
except (OSError, AttributeError):
    _atomic = False

# Without libatomic, x86-64 still gives acquire: its processors do not move loads before a load, ctypes loads eight aligned bytes
# at once, and the interpreter between two calls is opaque to the compiler. Elsewhere shared memory is left alone.
CAN_LOAD = _SIXTY_FOUR and (_atomic or os.uname().machine == "x86_64")
CAN_SLEEP = _atomic and _FUTEX is not None


class Mapping:
    """The first 4096 bytes of a file, which has that many, as shared memory.

    It is unmapped with its last reference, not before: a thread that waits in it holds one.
    """

    def __init__(self, fd: int, writable: bool = False) -> None:
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        address = _libc.mmap(None, PAGE, protection, mmap.MAP_SHARED, fd, 0)
        if address == ctypes.c_void_p(-1).value:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self.address: int = address
        self._unmap = _libc.munmap  # Module globals may be gone when the interpreter ends.

    def __del__(self) -> None:
        if hasattr(self, "address"):
            self._unmap(self.address, PAGE)

    def load(self, offset: int) -> int:
        """One number, by one load with acquire: what was stored before it is seen by all that is read after it."""
        if _atomic:
            return _load(self.address + offset, _ACQUIRE)  # type: ignore[no-any-return]
        return ctypes.c_uint64.from_address(self.address + offset).value

    def raise_to(self, offset: int, value: int) -> None:
        """max() by one atomic operation, and a full fence. Only where CAN_SLEEP."""
        address = self.address + offset
        seen = ctypes.c_uint64(_load(address, _ACQUIRE))
        while seen.value < value:
            # Where it fails, it puts the number that it found into `seen`.
            if _exchange(address, ctypes.byref(seen), value, _SEQ_CST, _SEQ_CST):
                break
        _fence(_SEQ_CST)

    def futex_wait(self, offset: int, expected: int, seconds: float) -> bool:
        """Sleeps, without the GIL, while the low half of a number is as expected; also ends on a signal.

        False where this system has no such sleep.
        """
        whole = int(seconds)
        limit = _TimeSpec(whole, int((seconds - whole) * 1e9))
        word = ctypes.c_void_p(self.address + offset)
        low = ctypes.c_uint32(expected & 0xFFFFFFFF)
        done = _libc.syscall(ctypes.c_long(_FUTEX or 0), word, ctypes.c_int(_FUTEX_WAIT), low, ctypes.byref(limit), None, ctypes.c_int(0))
        return done == 0 or ctypes.get_errno() in (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT)

    def futex_wake(self, offset: int) -> None:
        """Wakes all who sleep on a number: for writers, as in the tests."""
        word = ctypes.c_void_p(self.address + offset)
        _libc.syscall(ctypes.c_long(_FUTEX or 0), word, ctypes.c_int(_FUTEX_WAKE), ctypes.c_int(2**31 - 1), None, None, ctypes.c_int(0))


def birth_ns(fd: int) -> Optional[int]:
    """When a file was created, in nanoseconds since 1970; 0 where the file system does not say, None where the C library cannot ask."""
    if not hasattr(_libc, "statx"):
        return None
    answer = ctypes.create_string_buffer(256)
    empty_path, want_birth = ctypes.c_int(0x1000), ctypes.c_uint(0x800)
    if _libc.statx(ctypes.c_int(fd), b"", empty_path, want_birth, answer) != 0:
        return None
    if not struct.unpack_from("I", answer, 0)[0] & 0x800:
        return 0
    seconds, nanoseconds = struct.unpack_from("qI", answer, 80)
    return int(seconds * 10**9 + nanoseconds)


def writer_lock_is_held(fd: int) -> bool:
    """Asks for the writer's lock, without taking it."""
    question = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, WRITER_BYTE, 1, 0)
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, question)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def boot_id() -> Optional[tuple[int, int]]:
    """This machine's boot id, as the two numbers of the control page."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            digits = file.read().strip().replace("-", "")
        return int(digits[:16], 16), int(digits[16:32], 16)
    except (OSError, ValueError):
        return None
