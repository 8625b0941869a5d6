"""The segments of shared memory on a raylet's node: whose they are, and which regions are in use.

Owns when a region may be used again, and when a segment is of no use any more. What lies in a
region is the ObjectStore's business. The processes that write are the owners of segments; each
has its own allocator (``zray.core.arena``) and is told when a region is free.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from zray.core.arena import Region
from zray.core.raylet.store_effects import DropSegment, Effect, FreeRegion, Place, TrimArena
from zray.errors import ProtocolError


class _Segment:
    """A segment; ``touched``: the bytes from its start that were ever written, so take memory."""

    __slots__ = ("asked", "number", "offsets", "readers", "regions", "size", "touched")

    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self.size = size
        self.touched = 0
        self.regions: dict[int, int] = {}  # offset -> size
        self.offsets: list[int] = []  # the same, sorted
        self.readers: dict[bytes, None] = {}
        self.asked = False  # its owner was asked to release it

    def insert(self, region: Region) -> None:
        """Raises ProtocolError where the region is not wholly free space of the segment."""
        _, start, size = region
        index = bisect_left(self.offsets, start)
        clear = start >= 0 and 0 < size <= self.size - start
        if clear and index:
            before = self.offsets[index - 1]
            clear = before + self.regions[before] <= start
        if clear and index < len(self.offsets):
            clear = start + size <= self.offsets[index]
        if not clear:
            raise ProtocolError(f"{region} is outside of its segment or overlaps another object")
        self.offsets.insert(index, start)
        self.regions[start] = size
        self.asked = False

    def remove(self, offset: int) -> None:
        del self.regions[offset]
        del self.offsets[bisect_left(self.offsets, offset)]


class _Owner:
    __slots__ = ("alive", "segments")

    def __init__(self) -> None:
        self.alive = True
        self.segments: dict[int, _Segment] = {}


class SegmentTable:
    """``effect`` takes what the shell is to do. A process's id names one incarnation of it.

    Attributes:
        used_bytes: of all regions in use.
        touched_bytes: memory that the segments take: regions in use, and space kept for reuse.
    """

    def __init__(self, effect: Callable[[Effect], None]) -> None:
        self._effect = effect
        self.used_bytes = 0
        self.touched_bytes = 0
        self._owners: dict[bytes, _Owner] = {}

    # ---- segments --------------------------------------------------------------------------

    def add(self, owner: bytes, number: int, size: int) -> None:
        """A process made a segment, and its descriptor is here.

        Raises:
            ProtocolError: the number is in use, or the process is dead.
        """
        entry = self._owners.setdefault(owner, _Owner())
        if number in entry.segments or not entry.alive:
            raise ProtocolError(f"segment {number} of process {owner.hex()} cannot be added")
        entry.segments[number] = _Segment(number, size)

    def release(self, owner: bytes, number: int) -> None:
        """Its owner does not use an empty segment any more.

        Raises:
            ProtocolError: there is no such segment, or it has objects.
        """
        segment = self._segment(owner, number)
        if segment.regions:
            raise ProtocolError(
                f"segment {number} of process {owner.hex()} was released with "
                f"{len(segment.regions)} objects in it"
            )
        self._drop(owner, segment)

    def grant(self, process: bytes, owner: bytes, number: int) -> bool:
        """Note that a process can map a segment; False if it was given the descriptor before.

        Raises:
            ProtocolError: there is no such segment.
        """
        readers = self._segment(owner, number).readers
        if process == owner or process in readers:
            return False
        readers[process] = None
        return True

    def revoke(self, process: bytes, owner: bytes, number: int) -> None:
        """The descriptor could not be given: the process cannot map the segment."""
        self._segment(owner, number).readers.pop(process, None)

    def trim(self, asking: bytes) -> None:
        """Have all but the process that asks release the empty segments that they keep."""
        for owner, entry in self._owners.items():
            empty = [s for s in entry.segments.values() if not s.regions and not s.asked]
            if empty and owner != asking:
                for segment in empty:
                    segment.asked = True
                self._effect(TrimArena(owner))

    def process_died(self, process: bytes) -> None:
        """It maps nothing any more; its segments go as soon as nothing is in them."""
        for entry in self._owners.values():
            for segment in entry.segments.values():
                segment.readers.pop(process, None)
        found = self._owners.get(process)
        if found is None:
            return
        found.alive = False
        for segment in [*found.segments.values()]:
            if not segment.regions:
                self._drop(process, segment)
        if not found.segments:
            self._owners.pop(process, None)

    def _segment(self, owner: bytes, number: int) -> _Segment:
        entry = self._owners.get(owner)
        segment = entry.segments.get(number) if entry is not None else None
        if segment is None:
            raise ProtocolError(f"process {owner.hex()} has no segment {number}")
        return segment

    def _drop(self, owner: bytes, segment: _Segment) -> None:
        entry = self._owners[owner]
        del entry.segments[segment.number]
        self.touched_bytes -= segment.touched
        self._effect(DropSegment(owner, segment.number, tuple(segment.readers)))
        if not entry.alive and not entry.segments:
            del self._owners[owner]

    # ---- regions ---------------------------------------------------------------------------

    def occupy(self, owner: bytes, region: Region) -> Place:
        """An object is about to lie in the region.

        Raises:
            ProtocolError: the region is not free space of a segment of that living process.
        """
        segment = self._segment(owner, region.segment)
        if not self._owners[owner].alive:
            raise ProtocolError(f"process {owner.hex()} is dead, so it writes nothing")
        segment.insert(region)
        grown = max(segment.touched, region.offset + region.size) - segment.touched
        segment.touched += grown
        self.touched_bytes += grown
        self.used_bytes += region.size
        return Place(owner, *region)

    def vacate(self, place: Place) -> None:
        """The region is free."""
        entry = self._owners[place.owner]
        segment = entry.segments[place.segment]
        segment.remove(place.offset)
        self.used_bytes -= place.size
        if entry.alive:
            self._effect(FreeRegion(place.owner, place.region))
        elif not segment.regions:
            self._drop(place.owner, segment)
