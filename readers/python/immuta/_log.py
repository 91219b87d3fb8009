"""The file: its count, its bytes, and where its records lie. All by pread(2) in bulk.

Not by a mapping: a log that another program truncates would end the process, and slices of a mapping are copied in any case.
"""

import os
import stat
from struct import Struct
from struct import error as StructError
from typing import Optional

from . import _system
from ._index import find
from .errors import Damaged, NotALog, NotFound

size_at = Struct("<Q").unpack_from
FIRST = 8  # The position of the first record.
CHUNK = 256 * 1024  # Bytes that are read at once: they stay in a processor's cache until they are parsed.
SMALL = 4096
_READS_OF_COUNT = 100


class Log:
    """An open log, shared by a reader and its tailers. Its descriptor is closed with the last reference."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.absolute = os.path.abspath(path)  # The process may change its directory.
        try:
            # Looked at before it is opened: to open a device or a FIFO does something.
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise NotALog(path, "not an ordinary file")
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except FileNotFoundError:
            raise NotFound(path) from None
        self._close = os.close
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            raise NotALog(path, "not an ordinary file")
        self.device, self.inode, self.owner = status.st_dev, status.st_ino, status.st_uid
        self.birth_ns = _system.birth_ns(self._fd)
        self.hint = (0, FIRST)  # A record, or the end, whose position is known. One tuple: threads may share it.
        self._most(self.count())

    def __del__(self) -> None:
        if hasattr(self, "_close"):
            self._close(self._fd)

    def count(self) -> int:
        """The number of records that the file says."""
        before = self._count_bytes()
        for _ in range(_READS_OF_COUNT):
            after = self._count_bytes()
            if before == after:
                return int.from_bytes(after, "little")
            before = after
        # Beside a writer that never pauses two reads may differ for long. The file is longer than 8 bytes: it has a count.
        if _system.CAN_LOAD:
            return _system.Mapping(self._fd).load(0)
        return int.from_bytes(before, "little")

    def _count_bytes(self) -> bytes:
        data = os.pread(self._fd, 8, 0)
        if 0 < len(data) < 8:
            raise self.damaged(0, None, f"the file has {len(data)} bytes, fewer than the 8 of the number of records")
        return data

    def _most(self, count: int) -> None:
        size = self.size()  # After the count: a log only grows.
        if count > max(size - 8, 0) // 8:
            raise self.damaged(0, None, f"{count} records cannot be in a file of {size} bytes")

    def size(self) -> int:
        """Bytes of the file."""
        return os.fstat(self._fd).st_size

    def read(self, position: int, size: int) -> bytes:
        """Up to `size` bytes; fewer only at the end of the file."""
        data = os.pread(self._fd, size, position)
        if len(data) == size or not data:
            return data
        whole = bytearray(data)  # One call gives 2 GiB at most.
        while len(whole) < size:
            more = os.pread(self._fd, size - len(whole), position + len(whole))
            if not more:
                break
            whole += more
        return bytes(whole)

    def writer_lock_is_held(self) -> bool:
        return _system.writer_lock_is_held(self._fd)

    def has_its_name(self) -> bool:
        """Whether the path still leads to this file. Where that cannot be told, it does."""
        try:
            status = os.stat(self.absolute)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return (status.st_dev, status.st_ino) == (self.device, self.inode)

    def damaged(self, position: int, sequence: Optional[int], what: str) -> Damaged:
        return Damaged(self.path, what, position, sequence)

    def size_field_beyond(self, position: int, sequence: int, limit: int) -> Damaged:
        return self.damaged(position, sequence, f"its size field lies beyond the end at {limit}")

    def payload_beyond(self, position: int, sequence: int, size: int, limit: int) -> Damaged:
        return self.damaged(position, sequence, f"{size} bytes do not fit before the end at {limit}")

    def walk(self, sequence: int, position: int, target: int, limit: int) -> tuple[int, int]:
        """From a record to record `target`, or to where `limit` is met exactly; (sequence, position)."""
        window = SMALL
        while sequence < target and position < limit:
            chunk = self.read(position, min(window, limit - position))
            at, before = 0, sequence
            try:
                while sequence < target:
                    (size,) = size_at(chunk, at)
                    if size > limit - position - at - 8:
                        raise self.payload_beyond(position + at, sequence, size, limit)
                    at += 8 + size
                    sequence += 1
            except StructError:
                pass  # The next size field is not in this chunk.
            if sequence == before:
                raise self.size_field_beyond(position, sequence, limit)
            position += at
            # Between records that are large there is no sense in reading what is skipped.
            window = CHUNK if sequence - before >= 16 else SMALL
        return sequence, position

    def locate(self, sequence: int, count: int, end: Optional[int] = None) -> int:
        """The position of record `sequence`, or of the end, where `count` records end before `end`, or the file does."""
        limit = self.size() if end is None else end
        start = self.hint if self.hint[0] <= sequence else (0, FIRST)
        if sequence - start[0] > 256:
            found = find(self, sequence, count, limit)
            if found is not None and found[0] > start[0]:
                start = found
        reached, position = self.walk(start[0], start[1], sequence, limit)
        if reached < sequence:
            raise self.size_field_beyond(position, reached, limit)
        self.hint = (sequence, position)
        return position

    def ends_exactly(self) -> bool:
        """Whether the file ends right behind its last record, as a clean close leaves it."""
        try:
            count = self.count()
            return (self.locate(count, count) if count else FIRST) == max(self.size(), FIRST)
        except Damaged:
            return False
