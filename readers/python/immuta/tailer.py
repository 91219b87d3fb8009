"""Following a log, record by record or many at a time."""

import time
from collections.abc import Iterator
from itertools import repeat
from struct import error as StructError
from types import TracebackType
from typing import NamedTuple, Optional

from ._control import Progress, WriterState
from ._log import CHUNK, FIRST, SMALL, Log, size_at
from .errors import Replaced, Stopped, TimedOut, too_large

_NO_END = 1 << 64
_new = tuple.__new__


class Record(NamedTuple):
    """A record. `position` is that of its size field in the file, in bytes."""

    sequence: int
    position: int
    payload: bytes


class Batch:
    """Records that follow each other: their payloads, and where the first one is.

    The payloads are memoryviews of memory that nobody writes and that lives as long as one of them.
    """

    __slots__ = ("sequence", "position", "payloads")

    def __init__(self, sequence: int, position: int, payloads: list[memoryview]) -> None:
        self.sequence = sequence
        self.position = position
        self.payloads = payloads

    def __len__(self) -> int:
        return len(self.payloads)

    def __iter__(self) -> Iterator[memoryview]:
        return iter(self.payloads)


class Tailer:
    """Goes through the records of a log, and waits for more, also across a writer's end and restart.

    Made by `Reader.tail`. It is an iterator of `Record`, which ends once stopped, and a context manager. One thread at a time may
    use it; only `stop` may be called from any other, and from a signal handler. After an error it is where it was: before the
    record that cannot be read.
    """

    def __init__(self, log: Log, control_dir: Optional[str], max_record: int) -> None:
        self._progress: Optional[Progress] = Progress(log, control_dir)
        self._max_record = max_record
        # The place of the next record; one behind `_last`, if there is that: then it was not worked out yet.
        self._sequence, self._position = 0, FIRST
        self._last: Optional[Record] = None
        self._target = 0  # Records before this one are passed over.
        self._ready: Iterator[Record] = iter(())
        self._chunk, self._base, self._until = b"", 0, 0  # Bytes, their position, the first record they may not tell of.
        self._stopped = False

    def _begin(self, sequence: int, position: int, target: int) -> None:
        """Goes to a record, or the end, whose place is known, and from there to record `target`."""
        self._sequence, self._position, self._target = sequence, position, target

    @property
    def sequence(self) -> int:
        """The sequence of the next record."""
        self._settle()
        return max(self._sequence, self._target)

    @property
    def position(self) -> int:
        """The position of the next record, in bytes; of an earlier one while it waits for a record beyond the end."""
        self._settle()
        return self._position

    def next(self) -> Record:
        """The next record; waits for it without limit.

        Raises Damaged, TooLarge, Replaced, Stopped, OSError.
        """
        for record in self._ready:
            self._last = record
            return record
        return self._wait_for_record(None)

    def next_timeout(self, limit: float) -> Record:
        """The next record; waits for at most `limit` seconds. Raises TimedOut, and what `next` raises."""
        for record in self._ready:
            self._last = record
            return record
        return self._wait_for_record(limit)

    def try_next(self) -> Optional[Record]:
        """The next record if there is one now. Raises what `next` raises."""
        for record in self._ready:
            self._last = record
            return record
        if not self._look():
            return None
        return self._take()

    def next_batch(self, limit: int = 256, timeout: Optional[float] = None) -> Batch:
        """Up to `limit` records that are there already; waits for the first one like `next` and `next_timeout`.

        The default keeps the number of live objects below what sets off Python's garbage collector. Raises what those raise.
        """
        if limit < 1:
            raise ValueError("limit must be 1 or more")
        self._wait(timeout)
        self._ready = iter(())
        payloads: list[memoryview] = []
        chunk, append, read = self._chunk, payloads.append, size_at
        view, length = memoryview(chunk), len(chunk)
        end = self._position - self._base
        try:
            for _ in repeat(None, min(limit, self._until - self._sequence)):
                start = end + 8
                stop = start + read(chunk, end)[0]
                if stop > length:
                    break
                append(view[start:stop])
                end = stop
        except StructError:
            pass  # The next size field is not in this chunk.
        batch = Batch(self._sequence, self._position, payloads)
        self._sequence += len(payloads)
        self._position = self._base + end
        return batch

    def stop(self) -> None:
        """Ends the waits, within 50 ms, and the iteration of this tailer, for good. From any thread, or a signal handler."""
        self._stopped = True

    def writer(self) -> WriterState:
        """Who is writing. Where only the file can tell, without an index, this walks what was not walked yet."""
        progress = self._open()
        self._settle()
        if self._sequence > progress.log.hint[0]:
            progress.log.hint = (self._sequence, self._position)
        return progress.writer()

    def close(self) -> None:
        """Gives the file back. Payloads that were handed out stay."""
        self._progress = None
        self._ready = iter(())
        self._chunk = b""

    def __iter__(self) -> "Tailer":
        return self

    def __next__(self) -> Record:
        for record in self._ready:
            self._last = record
            return record
        try:
            return self._wait_for_record(None)
        except Stopped:
            raise StopIteration from None

    def __enter__(self) -> "Tailer":
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()

    def _open(self) -> Progress:
        if self._progress is None:
            raise ValueError("the tailer is closed")
        return self._progress

    def _settle(self) -> None:
        last = self._last
        if last is not None:
            self._sequence, self._position = last.sequence + 1, last.position + 8 + len(last.payload)
            self._last = None

    def _wait_for_record(self, limit: Optional[float]) -> Record:
        self._wait(limit)
        return self._take()

    def _take(self) -> Record:
        self._ready = self._records()
        self._last = record = next(self._ready)
        return record

    def _records(self) -> Iterator[Record]:
        """The records in the chunk. All that is done for each record is here and in the caller's first three lines."""
        chunk, base, read, new = self._chunk, self._base, size_at, _new
        length, end = len(chunk), self._position - base
        try:
            for sequence in range(self._sequence, self._until):
                start = end
                payload = start + 8
                end = payload + read(chunk, start)[0]
                if end > length:
                    return
                yield new(Record, (sequence, base + start, chunk[payload:end]))
        except StructError:
            pass  # The next size field is not in this chunk.

    def _wait(self, limit: Optional[float]) -> None:
        """Returns once there is a record in the chunk."""
        deadline = None if limit is None else time.monotonic() + limit
        while True:
            progress = self._open()
            if self._stopped:
                raise Stopped(progress.log.path, "stopped")
            if self._look():
                return
            left = 1.0 if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimedOut(progress.log.path, f"nothing came within {limit} s")
            progress.wait(self._position, left)

    def _look(self) -> bool:
        """Whether there is a record, now; where there is none, whether there will be one."""
        progress = self._open()
        if self._fill():
            return True
        if not progress.look_up():
            return False
        if self._fill():
            return True
        log = progress.log
        if progress.replaced:
            raise Replaced(log.path, "it was removed, or another file has its name; all of it was read")
        if progress.count < self._sequence:
            count = log.count()  # It may be that more came since.
            if count < self._sequence:
                raise log.damaged(0, None, f"{self._sequence} records were there, now {count} are")
        return False

    def _fill(self) -> bool:
        """Has a published record, whole, in the chunk; False where there is none."""
        self._settle()
        progress, sequence, position = self._open(), self._sequence, self._position
        log = progress.log
        at = position - self._base
        if sequence < self._until and 0 <= at <= len(self._chunk) - 8 and size_at(self._chunk, at)[0] <= len(self._chunk) - at - 8:
            return True
        count, end = progress.published()
        if (count <= sequence) if end is None else (end <= position):
            return False
        until = count if end is None else _NO_END
        limit = log.size() if end is None else end  # After the count: it covers what the count covers.
        if sequence < self._target:
            sequence, position = log.walk(sequence, position, min(self._target, until), limit)
            self._sequence, self._position = sequence, position
            if (sequence >= count) if end is None else (position >= limit):
                return False
        # By the count one cannot tell how far to read: a live writer keeps zeros behind the last record.
        window = CHUNK if end is not None or count - sequence > 64 else SMALL
        # A record that is whole in so few bytes is not larger than max_record.
        window = max(min(window, limit - position, 8 + self._max_record), 0)  # A truncated file ends before the place.
        self._chunk = b""  # If reading fails, what was read before the new count must not be taken for covered by it.
        self._chunk, self._base, self._until = log.read(position, window), position, until
        if len(self._chunk) < 8:
            raise self._drop(log.size_field_beyond(position, sequence, limit))
        (size,) = size_at(self._chunk, 0)
        if size > limit - position - 8:
            raise self._drop(log.payload_beyond(position, sequence, size, limit))
        if size > self._max_record:
            raise self._drop(too_large(log.path, position, sequence, size, self._max_record))
        if size > len(self._chunk) - 8:
            # A page may say anything: memory is taken for what is in the file.
            limit = log.size()
            if size > limit - position - 8:
                raise self._drop(log.payload_beyond(position, sequence, size, limit))
            self._chunk = log.read(position, 8 + size)
            if size > len(self._chunk) - 8:
                raise self._drop(log.payload_beyond(position, sequence, size, position + len(self._chunk)))
        progress.news()
        return True

    def _drop(self, error: Exception) -> Exception:
        self._chunk = b""
        return error
