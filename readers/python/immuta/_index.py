"""LOG.idx: where records lie. Nothing depends on it; whatever is not right about it, records are found by walking."""

import os
import stat
from functools import cache
from struct import unpack_from
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from ._log import Log

PIECE = 64
_BLOCK = 1
_LONGEST = 16 << 20  # Bytes of a block of many records that are read for its checksum; blocks have 64 KiB or so.
_STEPS = 1024  # Pieces that are looked through for a block: those between blocks tell of flushes and of writers that began.


@cache
def _tables() -> tuple[list[int], list[int]]:
    """CRC32C of one byte and of two."""
    one = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        one.append(value)
    two = []
    for value in range(65536):
        value = (value >> 8) ^ one[value & 255]
        two.append((value >> 8) ^ one[value & 255])
    return one, two


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli). Two bytes at a time: 64 KiB take about 2 ms."""
    one, two = _tables()
    crc = 0xFFFFFFFF
    even = len(data) & ~1
    for pair in memoryview(data)[:even].cast("H"):
        crc = (crc >> 16) ^ two[(crc ^ pair) & 0xFFFF]
    for byte in data[even:]:
        crc = (crc >> 8) ^ one[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


class _Pieces:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.count = os.fstat(fd).st_size // PIECE  # What is behind the last whole one is nothing.

    def piece(self, number: int) -> Optional[bytes]:
        """Piece `number`, if its checksum is right."""
        data = os.pread(self._fd, PIECE, number * PIECE)
        if len(data) < PIECE or crc32c(data[:60]) != unpack_from("<I", data, 60)[0]:
            return None
        return data

    def before(self, number: int, lowest: int) -> tuple[int, Optional[bytes]]:
        """The last true piece from `number` down to `lowest`."""
        for at in range(number, max(lowest, number - _STEPS) - 1, -1):
            data = self.piece(at)
            if data is not None:
                return at, data
        return lowest, None


def find(log: "Log", sequence: int, count: int, limit: int) -> Optional[tuple[int, int]]:
    """A record at or before `sequence`, and its position, that the index knows and the log's bytes bear out.

    `count` records may be read, below `limit`.
    """
    if log.birth_ns is None:
        return None
    try:
        fd = os.open(os.path.realpath(log.absolute) + ".idx", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        pieces = _Pieces(fd)
        header = pieces.piece(0)
        if header is None or header[:8] != b"immutaIX" or unpack_from("<Q", header, 8)[0] != 1:
            return None
        if unpack_from("<QQ", header, 32) != (log.inode, log.birth_ns):
            return None  # Another file's.
        return _find(log, pieces, sequence, count, limit)
    except OSError:
        return None
    finally:
        os.close(fd)


def _find(log: "Log", pieces: _Pieces, sequence: int, count: int, limit: int) -> Optional[tuple[int, int]]:
    low, high = 1, pieces.count  # The entry looked for is before `high`.
    while low < high:
        middle = (low + high) // 2
        at, data = pieces.before(middle, low)
        if data is not None and unpack_from("<Q", data, 0)[0] > sequence:
            high = at
        else:
            low = middle + 1  # Pieces that say nothing are in nobody's way.
    for at in range(high - 1, max(0, high - 1 - _STEPS), -1):
        data = pieces.piece(at)
        if data is not None and data[40] == _BLOCK and unpack_from("<Q", data, 24)[0]:
            return _borne_out(log, data, sequence, count, limit)
    return None


def _borne_out(log: "Log", data: bytes, sequence: int, count: int, limit: int) -> Optional[tuple[int, int]]:
    first, position, length, records = unpack_from("<QQQQ", data, 0)
    (crc,) = unpack_from("<I", data, 44)
    end = position + length
    if first > sequence or position < 8 or end > limit or first + records > count or records > length // 8:
        return None
    if records == 1:
        size = log.read(position, 8)  # It may be large; its size field says enough.
        if int.from_bytes(size, "little") != length - 8:
            return None
    elif length > _LONGEST or crc32c(log.read(position, length)) != crc:
        return None
    return (first, position) if sequence < first + records else (first + records, end)
