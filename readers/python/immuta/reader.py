"""Opening a log, and looking into it without following it."""

import os
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Optional, Union

from ._control import Progress, WriterState
from ._log import FIRST, Log, size_at
from .errors import NotFound, too_large
from .tailer import Tailer

GIB = 1 << 30


@dataclass(frozen=True)
class Start:
    """Where a tailer begins: `Start.beginning()`, `Start.end()`, `Start.sequence(n)` or `Start.last(n)`."""

    kind: str
    number: int = 0

    @classmethod
    def beginning(cls) -> "Start":
        """With record 0."""
        return cls("sequence", 0)

    @classmethod
    def end(cls) -> "Start":
        """With what is new."""
        return cls("last", 0)

    @classmethod
    def sequence(cls, n: int) -> "Start":
        """With record n, also where that is yet to come."""
        return cls("sequence", _natural(n))

    @classmethod
    def last(cls, n: int) -> "Start":
        """With the last n records, or as many as there are."""
        return cls("last", _natural(n))


def _natural(n: int) -> int:
    if n < 0:
        raise ValueError("a number of records is 0 or more")
    return n


class Reader:
    """A log that is open for reading. Any thread may use it. It takes no lock, and the writer does not notice it.

    Also a context manager. Tailers stay open when their reader is closed.
    """

    def __init__(self, log: Log, max_record: int, control_dir: Optional[str]) -> None:
        self._max_record = max_record
        self._control_dir = control_dir
        self._progress: Optional[Progress] = Progress(log, control_dir)
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        path: Union[str, "os.PathLike[str]"],
        *,
        wait_for_log: float = 0.0,
        max_record: int = GIB,
        control_dir: Union[str, "os.PathLike[str]", None] = None,
    ) -> "Reader":
        """Opens a log.

        `wait_for_log`: seconds for which a log that is not there may appear. `max_record`: the largest payload that is taken, in
        bytes. `control_dir`: where control pages are; the default is what the environment variable IMMUTA_CONTROL_DIR names,
        else /dev/shm. Raises NotFound, NotALog, Damaged, OSError.
        """
        if max_record < 0:
            raise ValueError("max_record must be 0 or more")
        name = os.fspath(path)
        directory = None if control_dir is None else os.fspath(control_dir)
        deadline, delay = time.monotonic() + wait_for_log, 0.001
        while True:
            try:
                return cls(Log(name), max_record, directory)
            except NotFound:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
            time.sleep(min(delay, left))
            delay = min(delay * 2, 0.02)

    @property
    def path(self) -> str:
        """The log's path, as it was given."""
        return self._open().log.path

    def count(self) -> int:
        """The number of records that are published now."""
        progress = self._open()
        return self._event(progress)[0]

    def _event(self, progress: Progress) -> tuple[int, Optional[int]]:
        with self._lock:
            return progress.event()

    def get(self, sequence: int) -> Optional[bytes]:
        """The payload of a record, or None where there is none yet. Finds it by the index, or by walking the log.

        Raises Damaged, TooLarge, OSError.
        """
        progress = self._open()
        log = progress.log
        if sequence < 0:
            raise ValueError("a sequence is 0 or more")
        count, end = self._event(progress)
        if sequence >= count:
            return None
        position, limit = log.locate(sequence, count, end), log.size()
        field = log.read(position, 8)
        if len(field) < 8:
            raise log.size_field_beyond(position, sequence, limit)
        (size,) = size_at(field)
        if size > limit - position - 8:
            raise log.payload_beyond(position, sequence, size, limit)
        if size > self._max_record:
            raise too_large(log.path, position, sequence, size, self._max_record)
        payload = log.read(position + 8, size)
        if len(payload) < size:
            raise log.payload_beyond(position, sequence, size, position + 8 + len(payload))
        return payload

    def writer(self) -> WriterState:
        """Who is writing. Where only the file can tell, without an index, this walks the log."""
        progress = self._open()
        with self._lock:
            return progress.writer()

    def tail(self, start: Optional[Start] = None) -> Tailer:
        """A tailer that begins at `start`, by default at the beginning. What is before it is not looked at if an index helps.

        Raises Damaged where the way there cannot be walked, OSError.
        """
        log = self._open().log
        if start is None:
            start = Start.beginning()
        tailer = Tailer(log, self._control_dir, self._max_record)
        count, end = tailer._open().event()
        if start == Start.beginning():
            return tailer
        target = start.number if start.kind == "sequence" else max(0, count - start.number)
        if target < count or end is None:
            reached = min(target, count)
            position = log.locate(reached, count, end) if reached else FIRST
        else:
            reached, position = count, end
        tailer._begin(reached, position, target)
        return tailer

    def close(self) -> None:
        """Gives the file back; its tailers keep theirs."""
        self._progress = None

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()

    def _open(self) -> Progress:
        if self._progress is None:
            raise ValueError("the reader is closed")
        return self._progress
