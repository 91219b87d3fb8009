"""A writer of logs, control pages, doorbells and indexes, written from FORMAT.md, and what the tests share."""

import fcntl
import mmap
import os
import queue
import shutil
import struct
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Sequence
from typing import Any, Callable, Optional

from immuta import _system

LIMIT = 20.0  # Seconds after which anything that a test waits for is a failure.
WRITER_BYTE = 2**63 - 2


def log_bytes(payloads: Sequence[bytes], count: Optional[int] = None, tail: bytes = b"") -> bytes:
    records = b"".join(struct.pack("<Q", len(p)) + p for p in payloads)
    return struct.pack("<Q", len(payloads) if count is None else count) + records + tail


def crc32c(data: bytes) -> int:
    """Bit by bit: another way than the reader's."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def piece(data: bytes) -> bytes:
    data = data.ljust(60, b"\0")
    return data + struct.pack("<I", crc32c(data))


def header(path: str, inode: Optional[int] = None) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        birth = _system.birth_ns(fd)
        return piece(b"immutaIX" + struct.pack("<7Q", 1, 1, 2, os.fstat(fd).st_ino if inode is None else inode, birth, 0, 0)[:52])
    finally:
        os.close(fd)


def block(log: bytes, sequence: int, position: int, end: int, records: int, time_ns: int = 0) -> bytes:
    crc = crc32c(log[position:end])
    return piece(struct.pack("<5QII", sequence, position, end - position, records, time_ns, 1, crc))


class Shared:
    """4096 bytes that are renamed into place; numbers are stored by one store of 8 bytes each."""

    def __init__(self, path: str, magic: bytes, fields: "dict[int, int]") -> None:
        self.path = path
        with open(path + ".new", "w+b") as file:
            file.truncate(4096)
            self.map = mmap.mmap(file.fileno(), 4096)
        self.numbers = memoryview(self.map).cast("Q")
        for offset, value in fields.items():
            self[offset] = value
        self[0] = int.from_bytes(magic, "little")
        os.rename(path + ".new", path)

    def __getitem__(self, offset: int) -> int:
        return self.numbers[offset // 8]

    def __setitem__(self, offset: int, value: int) -> None:
        self.numbers[offset // 8] = value


class Writer:
    """Appends to a log with pwrite, and keeps a page and a doorbell where it is given a directory for them."""

    def __init__(self, path: str, control: Optional[str] = None, *, wakes: bool = True, bell: bool = True, beats: bool = True) -> None:
        self.path, self.wakes = path, wakes
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.fcntl(self.fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, 0, WRITER_BYTE, 1, 0))
        data = os.pread(self.fd, 1 << 30, 0)
        self.count, self.end = (struct.unpack_from("<Q", data)[0] if data else 0), 8
        for _ in range(self.count):
            self.end += 8 + struct.unpack_from("<Q", data, self.end)[0]
        os.ftruncate(self.fd, self.end)
        os.pwrite(self.fd, struct.pack("<Q", self.count), 0)
        self.page: Optional[Shared] = None
        self.bell: Optional[Shared] = None
        self.ended = threading.Event()
        self.beating: Optional[threading.Thread] = None
        if control is not None:
            self._control(control, bell)
            if beats:
                self.beating = threading.Thread(target=self._beat, daemon=True)
                self.beating.start()

    def _control(self, control: str, bell: bool) -> None:
        status = os.fstat(self.fd)
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip().replace("-", "")
        epoch = int.from_bytes(os.urandom(8), "little")
        name = os.path.join(control, f"immuta-{status.st_dev}-{status.st_ino}")
        birth = _system.birth_ns(self.fd)
        assert birth is not None
        if bell:
            self.bell = Shared(name + ".bell", b"immutaDB", {8: 1, 16: epoch})
        fields = {8: 1, 16: 4096, 24: status.st_dev, 32: status.st_ino, 40: birth, 48: int(boot[:16], 16), 56: int(boot[16:], 16)}
        fields.update({80: epoch, 88: os.getpid(), 128: 1, 256: time.monotonic_ns(), 384: self.end, 520: self.count, 528: self.end})
        self.page = Shared(name, b"immutaCP", fields)

    def _beat(self) -> None:
        while not self.ended.wait(0.3):
            self.page[256] = time.monotonic_ns()

    def append(self, *payloads: bytes, tail: bytes = b"") -> None:
        """One batch."""
        data = log_bytes(payloads)[8:]
        os.pwrite(self.fd, data + tail, self.end)
        self.count += len(payloads)
        self.end += len(data)
        os.pwrite(self.fd, struct.pack("<Q", self.count), 0)
        self.publish()

    def publish(self, state: Optional[int] = None) -> None:
        page = self.page
        if page is None:
            return
        commit = page[392] + 1
        if state is not None:
            page[128] = state
        slot = 512 + commit % 32 * 32
        page[slot + 8], page[slot + 16] = self.count, self.end
        page[384] = self.end
        page[392] = commit
        _system._fence(5)
        if self.wakes and self.bell is not None and 0 < self.bell[128] <= commit + 1:
            self.wake()

    def wake(self) -> None:
        fd = os.open(self.page.path, os.O_RDONLY)
        _system.Mapping(fd).futex_wake(392)
        os.close(fd)

    def close(self) -> None:
        """A clean end."""
        os.ftruncate(self.fd, self.end)
        self.publish(2)
        for file in (self.page, self.bell):
            if file is not None:
                os.unlink(file.path)
        self.die()

    def die(self) -> None:
        """What is left of a writer that is killed: the locks are free, all else is as it was."""
        self.ended.set()
        if self.beating is not None:
            self.beating.join(LIMIT)
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Waiting:
    """Something that runs in a thread."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._answer: queue.Queue[Any] = queue.Queue()
        threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            self._answer.put((work(), None))
        except BaseException as error:
            self._answer.put((None, error))

    def is_over(self) -> bool:
        return not self._answer.empty()

    def get(self) -> Any:
        value, error = self._answer.get(timeout=LIMIT)
        if error is not None:
            raise error
        return value


def until(true: Callable[[], bool], what: str) -> None:
    """Looks until something holds."""
    deadline = time.monotonic() + LIMIT
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {LIMIT} s: {what}")
        time.sleep(0.001)


class Case(unittest.TestCase):
    """A directory for each test, which is also the one of its control pages, and writers that end with it."""

    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="immuta-python-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = os.path.join(self.directory, "a.log")
        self.control = os.path.join(self.directory, "control")
        os.mkdir(self.control)
        self.environment = {**os.environ, "IMMUTA_CONTROL_DIR": self.control}

    def write(self, data: bytes, path: Optional[str] = None) -> None:
        with open(path or self.path, "wb") as file:
            file.write(data)

    def writer(self, control: bool = True, **options: Any) -> Writer:
        writer = Writer(self.path, self.control if control else None, **options)
        self.addCleanup(writer.die)
        return writer

    def asleep(self, writer: Writer) -> None:
        """Waits until someone has announced a sleep on the writer's last event."""
        until(lambda: writer.bell[128] == writer.page[392] + 1, "a follower that sleeps")


def child() -> None:
    """LOG CONTROL: appends each line that it reads and says so; to be killed, or ended by the end of its input."""
    writer = Writer(sys.argv[1], sys.argv[2])
    print("ready", flush=True)
    for line in sys.stdin.buffer:
        writer.append(line.rstrip(b"\n"))
        print(writer.count, flush=True)
    writer.close()


if __name__ == "__main__":
    child()
