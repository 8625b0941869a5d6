"""What the machines of a node's object store want done; its shell does it."""

from __future__ import annotations

from typing import NamedTuple

from zray.core.arena import Region


class Place(NamedTuple):
    """Where an object lies: a region of a segment of a process."""

    owner: bytes
    segment: int
    offset: int
    size: int

    @property
    def region(self) -> Region:
        """The place as its owner's arena knows it."""
        return Region(self.segment, self.offset, self.size)


class FreeRegion(NamedTuple):
    """Effect: tell the owner that its region is free."""

    owner: bytes
    region: Region


class DropSegment(NamedTuple):
    """Effect: close a segment here, and tell the readers that were given it to unmap it."""

    owner: bytes
    segment: int
    readers: tuple[bytes, ...]


class TrimArena(NamedTuple):
    """Effect: ask a process to release the empty segments that it keeps for reuse."""

    owner: bytes


class SpillObject(NamedTuple):
    """Effect: write the object to disk, then say ``spilled`` or ``spill_failed``."""

    object_id: bytes
    place: Place


class DeleteFile(NamedTuple):
    """Effect: the spilled object is not needed any more."""

    path: str


Effect = FreeRegion | DropSegment | TrimArena | SpillObject | DeleteFile
