"""Reads and follows the logs of immuta, a local message bus that is a file."""

from ._control import WriterState
from .errors import Damaged, Error, NotALog, NotFound, Replaced, Stopped, TimedOut, TooLarge
from .reader import Reader, Start
from .tailer import Batch, Record, Tailer

__version__ = "0.1.0"
__all__ = [
    "Batch",
    "Damaged",
    "Error",
    "NotALog",
    "NotFound",
    "Reader",
    "Record",
    "Replaced",
    "Start",
    "Stopped",
    "Tailer",
    "TimedOut",
    "TooLarge",
    "WriterState",
]
