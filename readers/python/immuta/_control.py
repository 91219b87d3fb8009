"""How far a log may be read, who writes it, and how to wait: by the control page where it may be followed, else by the log."""

import enum
import os
import stat
import time
from typing import Optional

from . import _system
from ._log import Log

_HEARTBEAT, _END, _COMMIT, _SLOTS, _STATE = 256, 384, 392, 512, 128
_ANNOUNCED = 128
_FAILED, _CLOSED, _SUPERSEDED = 3, 2, 4
_YOUNG = 2.0  # Seconds for which a heartbeat, or an end that does not move, is believed.
_LOOK_UP = 0.2  # Seconds between two looks at the page's name, the log's name and the writer's lock.
# Seconds of one sleep. A futex wait cannot be ended by stop(), nor by a signal that comes just before it, without waking all
# other followers: so it is short. 25 looks a second are not felt (README).
_SLICE = 0.04
_SHORTEST, _LONGEST = 0.0002, 0.02  # Seconds between two looks, where there is no futex to sleep on.


class WriterState(enum.Enum):
    """Who is writing."""

    ALIVE = "alive"
    """A writer holds its lock."""
    CLOSED = "closed"
    """The last writer ended in order."""
    GONE = "gone"
    """The last writer died."""
    FAILED = "failed"
    """A flush to the disk failed; that writer publishes nothing more."""


class _Page:
    """A control page that may be believed, mapped read-only."""

    def __init__(self, mapping: _system.Mapping, identity: tuple[int, int], bell_path: str) -> None:
        self.map = mapping
        self.identity = identity  # Inode and epoch.
        self.bell_path = bell_path
        self.first_seen = self.motion()
        self.given_up = False
        self.bell: Optional[_system.Mapping] = None

    def motion(self) -> tuple[int, int]:
        return self.map.load(_HEARTBEAT), self.map.load(_END)

    def is_live(self) -> bool:
        """Whether its heartbeat is young, or has moved since it was first seen: clocks differ between time namespaces.

        One that was given up has to move: a writer may have been killed a moment ago, and its heartbeat still be young.
        """
        motion = self.motion()
        if motion != self.first_seen:
            return True
        return not self.given_up and 0 <= time.monotonic_ns() - motion[0] < _YOUNG * 1e9

    def is_over(self) -> bool:
        return self.map.load(_STATE) in (_CLOSED, _SUPERSEDED)

    def event(self) -> Optional[tuple[int, int]]:
        """Count and end of one event. The acquire loads stand for the fences behind them."""
        for _ in range(100):
            commit = self.map.load(_COMMIT)
            slot = _SLOTS + commit % 32 * 32
            count, end = self.map.load(slot + 8), self.map.load(slot + 16)
            if self.map.load(_COMMIT) - commit < 31:
                return count, end
        return None

    def open_bell(self, owner: int) -> None:
        """The doorbell, if it is this page's and may be written; without it one looks from time to time."""
        if not _system.CAN_SLEEP:
            return
        try:
            fd = os.open(self.bell_path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return
        try:
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode) and status.st_size >= _system.PAGE and status.st_uid in (owner, 0):
                bell = _system.Mapping(fd, writable=True)
                if bell.load(0) == _number(b"immutaDB") and bell.load(8) == 1 and bell.load(16) == self.identity[1]:
                    self.bell = bell
        except OSError:
            pass
        finally:
            os.close(fd)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


class Progress:
    """What one reader or tailer knows of its log's growth. Used by one thread at a time."""

    def __init__(self, log: Log, control_dir: Optional[str]) -> None:
        directory = control_dir or os.environ.get("IMMUTA_CONTROL_DIR") or "/dev/shm"
        self.log = log
        self._path = os.path.join(os.path.abspath(directory), f"immuta-{log.device}-{log.inode}")
        self._page: Optional[_Page] = None  # The one that is followed.
        self._known: Optional[_Page] = None  # The one that had the name when it was last looked up.
        self._next_look = 0.0
        self._moved = (0, 0)
        self._moved_at = 0.0
        self._delay = _SHORTEST
        self.count = 0  # In the log, when it was last looked up.
        self.replaced = False

    def published(self) -> tuple[int, Optional[int]]:
        """(any number, end) by the page, or (count, None) by the log. What is read after this call is whole below it."""
        page = self._page
        if page is not None:
            return 0, page.map.load(_END)
        return self.log.count(), None

    def event(self) -> tuple[int, Optional[int]]:
        """Count, and end where the page tells it."""
        self.look_up()
        event = self._page.event() if self._page is not None else None
        return event if event is not None else (self.log.count(), None)

    def news(self) -> None:
        """Something came: begin again with short waits."""
        self._delay = _SHORTEST

    def wait(self, position: int, limit: float) -> None:
        """Sleeps for `limit` seconds at most, and less than 50 ms, or until there may be news behind `position`."""
        page = self._page
        if page is not None and page.bell is not None and not page.is_over():
            commit = page.map.load(_COMMIT)
            if page.map.load(_END) > position:
                return
            page.bell.raise_to(_ANNOUNCED, commit + 1)
            if page.map.load(_COMMIT) != commit:
                return
            if not page.map.futex_wait(_COMMIT, commit, min(limit, _SLICE)):
                page.bell = None
            return
        time.sleep(min(limit, self._delay))
        self._delay = min(self._delay * 2, _LONGEST)

    def look_up(self) -> bool:
        """Once in 200 ms, or when the page says that its time is over, looks at names and lock. True where it looked."""
        now = time.monotonic()
        page = self._page
        if now < self._next_look:
            over = page is not None and page.is_over()
            # A page that is over may still have its name for a while: then not at each look.
            if not over or now < self._next_look - _LOOK_UP + _LONGEST:
                return False
        self._next_look = now + _LOOK_UP
        held = self.log.writer_lock_is_held()
        named = self._named()
        self.count = self.log.count()
        if named is not None and named is not page and held and not named.is_over() and named.is_live():
            named.open_bell(self.log.owner)
            self._page, self._moved, self._moved_at = named, named.motion(), now
        elif page is not None:
            motion = page.motion()
            if motion != self._moved:
                self._moved, self._moved_at = motion, now
            if not held or (now - self._moved_at >= _YOUNG and self._is_behind(page)):
                page.first_seen, page.given_up = motion, True
                self._page = None
        self.replaced = not self.log.has_its_name()
        if self.replaced:
            self._page = None  # The count knows of all that there is.
        return True

    def _is_behind(self, page: _Page) -> bool:
        event = page.event()
        return event is None or event[0] < self.count

    def writer(self) -> WriterState:
        """Who is writing. Gone is what is found three times: a writer may begin and end between two looks."""
        for _ in range(3):
            held = self.log.writer_lock_is_held()
            page = self._named()
            state = page.map.load(_STATE) if page is not None else 0
            if held:
                return WriterState.FAILED if page is not None and state == _FAILED and page.is_live() else WriterState.ALIVE
            if state == _FAILED:
                return WriterState.FAILED
            if state == _CLOSED or (page is None and self.log.ends_exactly()):
                return WriterState.CLOSED
        return WriterState.GONE

    def _named(self) -> Optional[_Page]:
        """The page that has the name, if it may be believed."""
        if not _system.CAN_LOAD:
            return None
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            self._known = None
            return None
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size < _system.PAGE or status.st_uid not in (self.log.owner, 0):
                self._known = None
                return None
            # An inode number is used again, an epoch is not.
            identity = (status.st_ino, _number(os.pread(fd, 8, 80)))
            for page in (self._known, self._page):
                if page is not None and page.identity == identity:
                    self._known = page
                    return page
            mapping = _system.Mapping(fd)
            self._known = _Page(mapping, identity, self._path + ".bell") if self._is_believed(mapping) else None
            return self._known
        except OSError:
            self._known = None
            return None
        finally:
            os.close(fd)

    def _is_believed(self, mapping: _system.Mapping) -> bool:
        if mapping.load(0) != _number(b"immutaCP"):
            return False
        log, boot = self.log, _system.boot_id()
        *fields, birth, high, low = (mapping.load(offset) for offset in range(8, 64, 8))
        if fields != [1, _system.PAGE, log.device, log.inode] or (high, low) != boot:
            return False
        if birth not in (0, log.birth_ns):  # The writer may not have learnt it.
            return False
        event = _Page(mapping, (0, 0), "").event()
        if event is None:
            return False
        # The page is stored after the log, so that it was not ahead when it was loaded, before the log.
        end = mapping.load(_END)
        return event[0] <= log.count() and max(event[1], end) <= max(log.size(), 8)
