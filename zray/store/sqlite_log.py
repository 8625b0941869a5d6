"""Damage in ``gcs.sqlite-wal``, which SQLite takes for the log's end. Reads, never writes.

SQLite stops reading its log at the first frame whose checksum is wrong, since a crash leaves a
torn tail. But it syncs each commit before the next begins, so of commits behind the torn frame
there can be one (the torn one itself); two are proof that acknowledged rows would be dropped.
Damage in the last commit alone looks like a torn tail and cannot be told from it.
Formats: https://www.sqlite.org/walformat.html
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, Final

_MAGIC: Final = 0x377F0682  # the lowest bit set: checksums of big-endian words
_INDEX_VERSION: Final = 3007000
_HEADER: Final = struct.Struct(">8I")  # magic, version, page size, checkpoint, salts, checksums
_FRAME: Final = struct.Struct(">4I")  # page, pages of the file if a commit, salts
_FRAME_HEADER_BYTES: Final = 24
_INDEX: Final = struct.Struct("=2I8xI")  # version, unused, ..., valid frames


def log_damage(path: Path) -> str | None:
    """What is wrong with the log of the database ``path``, which a connection must have read."""
    try:
        log = Path(f"{path}-wal").open("rb")  # noqa: SIM115
        index = Path(f"{path}-shm").read_bytes()[: _INDEX.size + 4]
    except FileNotFoundError:
        return None
    with log:
        header = log.read(_HEADER.size)
        if len(header) < _HEADER.size or not log.peek(1):
            return None
        magic, _, page_bytes, _, salt_1, salt_2, *checksum = _HEADER.unpack(header)
        if magic & ~1 != _MAGIC or tuple(checksum) != _checksum(header[:24], bool(magic & 1)):
            return "the header of its log (-wal) does not match its checksum"
        version, _, valid_frames = _INDEX.unpack_from(index)
        if version != _INDEX_VERSION:
            return None
        start = _HEADER.size + valid_frames * (_FRAME_HEADER_BYTES + page_bytes)
        if _commits(log, start, page_bytes, (salt_1, salt_2)) > 1:
            return f"its log (-wal) is damaged at byte {start} or soon after, in front of commits"
    return None


def _commits(log: BinaryIO, offset: int, page_bytes: int, salts: tuple[int, int]) -> int:
    count = 0
    while True:
        log.seek(offset)
        frame = log.read(_FRAME.size)
        if len(frame) < _FRAME.size:
            return count
        _, file_pages, *found = _FRAME.unpack(frame)
        count += bool(file_pages) and tuple(found) == salts
        offset += _FRAME_HEADER_BYTES + page_bytes


def _checksum(content: bytes, big_endian: bool) -> tuple[int, int]:
    first = second = 0
    for left, right in struct.iter_unpack(">2I" if big_endian else "<2I", content):
        first = (first + left + second) & 0xFFFFFFFF
        second = (second + right + first) & 0xFFFFFFFF
    return first, second
