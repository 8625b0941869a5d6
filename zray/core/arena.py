"""The writer's allocator: where in its own memory segments a process puts its next object.

Owns the free and used space of one process's segments, by number. It must never touch memory: its
shell makes the segment that ``allocate`` asks for and closes those that ``take_released`` names.

Space that was written once is warm: copying into it is several times faster than into pages that
the kernel still has to find and clear. So warm space is used first, and what is cold is taken from
the front, which keeps the warm part of a segment one piece: the bytes below its mark.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import NamedTuple

from zray import limits

ALIGNMENT = 64  # bytes: a cache line, and enough for any vector instruction's operand
_OWN_ROUND_BYTES = 2 << 20  # objects of nearly the same size can reuse each other's segments


class Region(NamedTuple):
    """A piece of a segment; ``size`` is what was asked for, the space behind it is padding."""

    segment: int
    offset: int
    size: int


class NewSegment(NamedTuple):
    """The segment to make before ``allocate`` is asked again; ``add`` tells that it is there."""

    number: int
    size: int


class _Segment:
    """One segment's free ranges. ``mark``: the bytes below it are warm, those above are cold.

    ``starts`` maps the start of each free warm range to its end and to when it became free,
    ``ends`` the end to the start.
    """

    __slots__ = ("ends", "mark", "number", "own", "size", "starts", "used")

    def __init__(self, number: int, size: int, own: bool) -> None:
        self.number = number
        self.size = size
        self.own = own  # for one object at a time, which begins at 0
        self.mark = 0
        self.used = 0
        self.starts: dict[int, tuple[int, int]] = {}
        self.ends: dict[int, int] = {}


class Arena:
    """Not thread-safe: its shell has a lock.

    Args:
        pooled_bytes: size of a segment that many objects share. A larger object gets its own.
        warm_bytes: empty segments are kept for reuse up to this; the rest is released.
    """

    def __init__(
        self,
        pooled_bytes: int = limits.POOLED_SEGMENT_BYTES,
        warm_bytes: int = limits.WARM_BYTES_MAX,
    ) -> None:
        self._pooled_bytes = _rounded(pooled_bytes, ALIGNMENT)
        self._warm_bytes = warm_bytes
        self._segments: dict[int, _Segment] = {}
        self._used: dict[tuple[int, int], int] = {}  # place -> bytes taken
        # Free warm ranges of pooled segments, in the order in which the best fit is searched:
        # (bytes, -when, segment, offset).
        self._warm: list[tuple[int, int, int, int]] = []
        self._empty: dict[int, None] = {}  # segments that hold nothing, longest empty first
        self._released: list[int] = []
        self._numbers = 0
        self._clock = 0  # counts frees

    # ---- what there is ---------------------------------------------------------------------

    @property
    def used_bytes(self) -> int:
        """Bytes of all regions in use, padding included."""
        return sum(segment.used for segment in self._segments.values())

    @property
    def segment_bytes(self) -> int:
        """Bytes of all segments, cold space included."""
        return sum(segment.size for segment in self._segments.values())

    @property
    def warm_free_bytes(self) -> int:
        """Bytes that were written once and hold nothing now."""
        return sum(segment.mark - segment.used for segment in self._segments.values())

    def __contains__(self, region: Region) -> bool:
        """Whether the region is in use."""
        return (region.segment, region.offset) in self._used

    # ---- taking ----------------------------------------------------------------------------

    def allocate(self, size: int) -> Region | NewSegment:
        """A region of ``size`` bytes, at an offset that is a multiple of 64.

        Returns:
            The region; or the segment to make first: then ``add`` it and ask again. Nothing is
            remembered of a segment that could not be made.

        Raises:
            ValueError: ``size`` is negative.
        """
        if size < 0:
            raise ValueError(f"a region cannot have {size} bytes")
        capacity = max(_rounded(size, ALIGNMENT), ALIGNMENT)
        if capacity > self._pooled_bytes:
            segment = self._own_segment(capacity)
            if segment is None:
                return self._wanted(_rounded(capacity, _OWN_ROUND_BYTES))
            offset = 0
            self._forget_free(segment, 0)
        else:
            place = self._warm_place(capacity) or self._cold_place(capacity)
            if place is None:
                return self._wanted(self._pooled_bytes)
            segment, offset = place
        self._take(segment, offset, capacity)
        return Region(segment.number, offset, size)

    def add(self, number: int, size: int) -> None:
        """The segment that ``allocate`` asked for is there, with ``size`` bytes, all cold.

        Raises:
            ValueError: it was not asked for, or is there already.
        """
        if number in self._segments or not 0 < number <= self._numbers:
            raise ValueError(f"segment {number} was not asked for, or is there already")
        self._segments[number] = _Segment(number, size, size > self._pooled_bytes)
        self._empty[number] = None

    def _wanted(self, size: int) -> NewSegment:
        # A number is never used twice, so that word of an old segment cannot hit a new one.
        self._numbers += 1
        return NewSegment(self._numbers, size)

    def _own_segment(self, capacity: int) -> _Segment | None:
        """The smallest empty one that fits and is not too large for it; then the latest freed."""
        best = None
        for number in reversed(self._empty):
            segment = self._segments[number]
            waste = segment.size - capacity
            fits = segment.own and 0 <= waste <= max(capacity // 3, _OWN_ROUND_BYTES)
            if fits and (best is None or segment.size < best.size):
                best = segment
        return best

    def _warm_place(self, capacity: int) -> tuple[_Segment, int] | None:
        """The smallest warm range that fits, of these the latest freed."""
        index = bisect_left(self._warm, (capacity,))
        if index == len(self._warm):
            return None
        _, _, number, offset = self._warm[index]
        segment = self._segments[number]
        end, when = self._forget_free(segment, offset)
        if end > offset + capacity:
            self._remember_free(segment, offset + capacity, end, when)
        return segment, offset

    def _cold_place(self, capacity: int) -> tuple[_Segment, int] | None:
        """The smallest end of a segment that fits: cold space and the warm range before it."""
        best: tuple[int, _Segment, int] | None = None
        for segment in self._segments.values():
            start = segment.ends.get(segment.mark, segment.mark)
            room = segment.size - start
            if not segment.own and room >= capacity and (best is None or room < best[0]):
                best = (room, segment, start)
        if best is None:
            return None
        _, segment, start = best
        if start < segment.mark:
            self._forget_free(segment, start)
        return segment, start

    def _take(self, segment: _Segment, offset: int, capacity: int) -> None:
        segment.mark = max(segment.mark, offset + capacity)
        segment.used += capacity
        self._used[segment.number, offset] = capacity
        self._empty.pop(segment.number, None)

    # ---- giving back -----------------------------------------------------------------------

    def free(self, region: Region) -> None:
        """Nobody uses the region any more.

        Raises:
            ValueError: it is not in use.
        """
        capacity = self._used.pop((region.segment, region.offset), None)
        if capacity is None:
            raise ValueError(f"{region} is not in use")
        self._give_back(region, capacity)

    def trim(self) -> None:
        """Release every empty segment: others need the memory, or there is nothing to do."""
        self._release_down_to(0)

    def take_released(self) -> list[int]:
        """The segments to unmap and close, since the last call."""
        released, self._released = self._released, []
        return released

    def _give_back(self, region: Region, capacity: int) -> None:
        segment = self._segments[region.segment]
        segment.used -= capacity
        start, end = region.offset, region.offset + capacity
        if segment.own:
            end = segment.mark  # of its largest object so far
        before = segment.ends.get(start)
        if before is not None:
            self._forget_free(segment, before)
            start = before
        if end in segment.starts:
            end, _ = self._forget_free(segment, end)
        self._clock += 1
        self._remember_free(segment, start, end, self._clock)
        if not segment.used:
            self._empty[segment.number] = None
            self._release_down_to(self._warm_bytes)

    def _release_down_to(self, kept_bytes: int) -> None:
        """Release empty segments, the longest empty first, until the rest is ``kept_bytes``."""
        surplus = sum(self._segments[number].size for number in self._empty) - kept_bytes
        for number in [*self._empty]:
            if surplus <= 0:
                break
            segment = self._segments.pop(number)
            surplus -= segment.size
            for start in [*segment.starts]:
                self._forget_free(segment, start)
            del self._empty[number]
            self._released.append(number)

    # ---- free ranges -----------------------------------------------------------------------

    def _remember_free(self, segment: _Segment, start: int, end: int, when: int) -> None:
        segment.starts[start] = (end, when)
        segment.ends[end] = start
        if not segment.own:
            insort(self._warm, (end - start, -when, segment.number, start))

    def _forget_free(self, segment: _Segment, start: int) -> tuple[int, int]:
        """Returns the end of the free range, and when it became free."""
        end, when = segment.starts.pop(start, (0, 0))
        if not end:
            return 0, 0  # a segment of its own that was never used
        del segment.ends[end]
        if not segment.own:
            del self._warm[bisect_left(self._warm, (end - start, -when, segment.number, start))]
        return end, when


def _rounded(size: int, unit: int) -> int:
    return (size + unit - 1) // unit * unit
