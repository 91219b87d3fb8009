"""What can be wrong with a log, or with waiting for it. The system's own errors are OSError, as everywhere."""

import errno
import os
from typing import Optional


class Error(Exception):
    """The base of all errors of this package.

    `path` is the log; `position` and `sequence` are those of the record in question, where there is one.
    """

    path: str
    position: Optional[int]
    sequence: Optional[int]

    def __init__(self, path: str, what: str, position: Optional[int] = None, sequence: Optional[int] = None) -> None:
        Exception.__init__(self, path, what, position, sequence)
        self.path = path
        self.what = what
        self.position = position
        self.sequence = sequence

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


class NotFound(Error, FileNotFoundError):
    """There is no log of that name, or there was none within `wait_for_log`."""

    def __init__(self, path: str) -> None:
        FileNotFoundError.__init__(self, errno.ENOENT, os.strerror(errno.ENOENT), path)
        Error.__init__(self, path, "no such log")


class NotALog(Error):
    """The name leads to something that is not an ordinary file."""


class Damaged(Error):
    """The log cannot be what it says; `position` is that of a size field, or 0 for the number of records."""

    def __str__(self) -> str:
        record = "" if self.sequence is None else f", record {self.sequence}"
        return f"{self.path}: damaged at position {self.position}{record}: {self.what}"


class TooLarge(Error):
    """A record is larger than `max_record`; the tailer stays before it."""


def too_large(path: str, position: int, sequence: int, size: int, most: int) -> TooLarge:
    """TooLarge, in words."""
    return TooLarge(path, f"record {sequence} at position {position} has {size} bytes, more than max_record {most}", position, sequence)


class Replaced(Error):
    """The log was removed, or another file took its name, and all that was readable was delivered."""


class TimedOut(Error, TimeoutError):
    """No record came within the limit."""


class Stopped(Error):
    """`stop()` was called. Iterators end instead."""
