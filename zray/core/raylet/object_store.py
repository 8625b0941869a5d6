"""The raylet's book of the objects that lie in shared memory on its node, or were spilled from it.

Owns who uses which region of which segment, and when a region may be used again. It must never
touch memory or files: its shell maps and closes segments, writes and reads spilled objects.

An object stays while the cluster holds it (until FREE) or a process views it: the buffer that a
process exported from it counts, not the reference. The processes that write are the owners of
segments; each has its own allocator (``zray.core.arena``) and is told when a region is free.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection
from typing import NamedTuple

from zray import limits
from zray.core.arena import Region
from zray.errors import ObjectStoreFullError, ProtocolError


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


class StoredObject:
    """One object. Others read it; only the ObjectStore changes it.

    Attributes:
        place: where it lies in memory; None while it is only on disk.
        path: the file it was spilled to; it stays until the object goes, so spilling again is free.
        held: the cluster has not freed it.
        spilling: its file is being written, which uses the region like a view.
        incoming: where it is being restored to.
        views: how many views of it each process has.
    """

    __slots__ = (
        *("contained", "held", "incoming", "kind", "object_id", "path", "place", "size"),
        *("spilling", "views"),
    )

    def __init__(self, object_id: bytes, place: Place, kind: int, contained: list[bytes]) -> None:
        self.object_id = object_id
        self.size = place.size
        self.kind = kind
        self.contained = contained
        self.place: Place | None = place
        self.path: str | None = None
        self.held = True
        self.spilling = False
        self.incoming: Place | None = None
        self.views: dict[bytes, int] = {}


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
    __slots__ = ("alive", "segments", "unsealed")

    def __init__(self) -> None:
        self.alive = True
        self.segments: dict[int, _Segment] = {}
        self.unsealed: dict[bytes, StoredObject] = {}


class ObjectStore:
    """``mark_bytes``: objects may take this much; what goes past it is spilled.

    A process's id names one incarnation of it. ``name_process`` words it for a user. The ``sender``
    views only what it sends to other nodes.
    """

    def __init__(
        self,
        mark_bytes: int,
        name_process: Callable[[bytes], str] = lambda p: p.hex()[:8],
        sender: bytes = b"",
    ) -> None:
        self.mark_bytes = mark_bytes
        self._sender = sender
        self.used_bytes = 0  # of all objects in memory, unsealed ones included
        self.touched_bytes = 0  # memory that the segments take: objects, and space kept for reuse
        self.spilled_bytes = 0  # of all files
        self._name_process = name_process
        self._owners: dict[bytes, _Owner] = {}
        self._objects: dict[bytes, StoredObject] = {}
        self._viewed_by: dict[bytes, dict[bytes, None]] = {}
        # Objects that could leave memory, least recently used first: those to be written to disk
        # first, and those that are there already.
        self._idle: dict[bytes, None] = {}
        self._idle_on_disk: dict[bytes, None] = {}
        self._leaving_bytes = 0  # of what is being spilled
        self._incoming_bytes = 0  # of what is being read back
        self._promised: dict[bytes, list[int]] = {}  # sizes that processes are about to write
        self.promised_bytes = 0  # of all of them
        self._spill_trouble = ""
        self._spill_again = 0.0  # when
        self._effects: list[Effect] = []

    def take_effects(self) -> list[Effect]:
        """What is to be done, in order, since the last call."""
        effects, self._effects = self._effects, []
        return effects

    def get(self, object_id: bytes) -> StoredObject | None:
        """The sealed object; None if it is not here."""
        return self._objects.get(object_id)

    def sealed(self) -> list[StoredObject]:
        """All objects that can be read here, spilled ones included."""
        return [*self._objects.values()]

    # ---- segments --------------------------------------------------------------------------

    def add_segment(self, owner: bytes, number: int, size: int) -> None:
        """A process made a segment, and its descriptor is here.

        Raises:
            ProtocolError: the number is in use, or the process is dead.
        """
        entry = self._owners.setdefault(owner, _Owner())
        if number in entry.segments or not entry.alive:
            raise ProtocolError(f"segment {number} of process {owner.hex()} cannot be added")
        entry.segments[number] = _Segment(number, size)

    def release_segment(self, owner: bytes, number: int) -> None:
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
        self._drop_segment(owner, segment)

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

    def _segment(self, owner: bytes, number: int) -> _Segment:
        entry = self._owners.get(owner)
        segment = entry.segments.get(number) if entry is not None else None
        if segment is None:
            raise ProtocolError(f"process {owner.hex()} has no segment {number}")
        return segment

    def _drop_segment(self, owner: bytes, segment: _Segment) -> None:
        entry = self._owners[owner]
        del entry.segments[segment.number]
        self.touched_bytes -= segment.touched
        self._effects.append(DropSegment(owner, segment.number, tuple(segment.readers)))
        if not entry.alive and not entry.segments:
            del self._owners[owner]

    # ---- objects ---------------------------------------------------------------------------

    def create(
        self, object_id: bytes, owner: bytes, region: Region, kind: int, contained: list[bytes]
    ) -> None:
        """A process begins to write an object. Nobody else sees it before ``seal``.

        Raises:
            ProtocolError: the region is not free space of a segment of that living process, or it
                is writing this object already.
        """
        place = self._occupy(owner, region, object_id)
        self._owners[owner].unsealed[object_id] = StoredObject(object_id, place, kind, contained)

    def seal(self, object_id: bytes, owner: bytes) -> bool:
        """The object is complete. False if it was here already: the second one's region is free.

        Raises:
            ProtocolError: that process is not writing it.
        """
        made = self._take_unsealed(object_id, owner)
        if object_id in self._objects:
            self._vacate(made)
            return False
        self._objects[object_id] = made
        self._settle(made)
        return True

    def abandon(self, object_id: bytes, owner: bytes) -> None:
        """The process gave up writing the object; its region is free.

        Raises:
            ProtocolError: it is not writing it.
        """
        self._vacate(self._take_unsealed(object_id, owner))

    def free(self, object_id: bytes) -> None:
        """The cluster does not hold the object any more (also one that is still being written)."""
        for owner in self._owners.values():
            made = owner.unsealed.get(object_id)
            if made is not None:
                made.held = False
        found = self._objects.get(object_id)
        if found is not None:
            found.held = False
            self._settle(found)

    def _take_unsealed(self, object_id: bytes, owner: bytes) -> StoredObject:
        entry = self._owners.get(owner)
        made = entry.unsealed.pop(object_id, None) if entry is not None else None
        if made is None:
            raise ProtocolError(f"process {owner.hex()} is not writing object {object_id.hex()}")
        return made

    def _occupy(self, owner: bytes, region: Region, object_id: bytes) -> Place:
        segment = self._segment(owner, region.segment)
        entry = self._owners[owner]
        if not entry.alive or object_id in entry.unsealed:
            raise ProtocolError(f"process {owner.hex()} cannot write object {object_id.hex()} now")
        segment.insert(region)
        grown = max(segment.touched, region.offset + region.size) - segment.touched
        segment.touched += grown
        self.touched_bytes += grown
        self.used_bytes += region.size
        return Place(owner, *region)

    def _vacate(self, found: StoredObject) -> None:
        """The object leaves its region."""
        place = found.place
        if place is None:
            return
        found.place = None
        entry = self._owners[place.owner]
        segment = entry.segments[place.segment]
        segment.remove(place.offset)
        self.used_bytes -= place.size
        if entry.alive:
            self._effects.append(FreeRegion(place.owner, place.region))
        elif not segment.regions:
            self._drop_segment(place.owner, segment)

    def _settle(self, found: StoredObject) -> None:
        """Put the object where it belongs after a change: in use, idle, or gone."""
        object_id = found.object_id
        self._idle.pop(object_id, None)
        self._idle_on_disk.pop(object_id, None)
        if found.views or found.spilling or found.incoming is not None:
            return
        if found.held:
            if found.place is not None:
                idle = self._idle if found.path is None else self._idle_on_disk
                idle[object_id] = None
            return
        del self._objects[object_id]
        self._vacate(found)
        if found.path is not None:
            self.spilled_bytes -= found.size
            self._effects.append(DeleteFile(found.path))

    # ---- views -----------------------------------------------------------------------------

    def view(self, object_id: bytes, process: bytes) -> Place | None:
        """A process will read the object: its region stays until as many ``unview``.

        Returns:
            Where it is; None if it is not in memory here (see ``get`` for a spilled one).
        """
        found = self._objects.get(object_id)
        if found is None or found.place is None:
            return None
        found.views[process] = found.views.get(process, 0) + 1
        self._viewed_by.setdefault(process, {})[object_id] = None
        self._settle(found)
        return found.place

    def unview(self, object_id: bytes, process: bytes, count: int = 1) -> None:
        """``count`` views of a process are gone.

        Raises:
            ProtocolError: it has not so many.
        """
        found = self._objects.get(object_id)
        left = (found.views.get(process, 0) if found is not None else 0) - count
        if found is None or left < 0 or count < 1:
            raise ProtocolError(
                f"process {process.hex()} does not have {count} views of {object_id.hex()}"
            )
        if left:
            found.views[process] = left
            return
        self._end_views(found, process)
        viewed = self._viewed_by[process]
        del viewed[object_id]
        if not viewed:
            del self._viewed_by[process]

    def _end_views(self, found: StoredObject, process: bytes) -> None:
        del found.views[process]
        self._settle(found)

    def process_died(self, process: bytes) -> None:
        """Its views are void, what it had not sealed is gone; what it had sealed stays readable."""
        entry = self._owners.get(process)
        if entry is not None:
            entry.alive = False  # before its own objects become free: it is not told of that
        self.promised_bytes -= sum(self._promised.pop(process, ()))
        for object_id in self._viewed_by.pop(process, ()):
            self._end_views(self._objects[object_id], process)
        for owner in self._owners.values():
            for segment in owner.segments.values():
                segment.readers.pop(process, None)
        if entry is None:
            return
        for object_id in [*entry.unsealed]:
            self._vacate(entry.unsealed.pop(object_id))
        for segment in [*entry.segments.values()]:
            if not segment.regions:
                self._drop_segment(process, segment)
        if not entry.segments:
            self._owners.pop(process, None)

    # ---- memory ----------------------------------------------------------------------------

    def room(
        self, size: int, asking: bytes, now: float, unanswered: Collection[bytes] = ()
    ) -> bool:
        """Whether ``size`` more bytes fit below the mark, for the process that asks.

        Where they do not, idle objects begin to leave for the disk. ``unanswered``: processes that
        were asked to let go of what they do not use.

        Returns:
            True: they fit. False: ask again: what is in the way is being written, spilled, read
            back, sent, or may be let go of.

        Raises:
            ObjectStoreFullError: they do not fit and will not; it says what holds the memory.
        """
        if self.touched_bytes + size > self.mark_bytes:
            self._trim(asking)
        if size <= self.mark_bytes:
            wanted = self.used_bytes + self.promised_bytes + size
            self._spill(wanted - self.mark_bytes, now)
            wanted = self.used_bytes + self.promised_bytes + size  # some may have left at once
            if wanted <= self.mark_bytes:
                return True
            if wanted - self._passing_bytes(now) <= self.mark_bytes:
                return False
            viewed = self._viewed_bytes({self._sender, *unanswered})
            if viewed and wanted - self._passing_bytes(now) - viewed <= self.mark_bytes:
                return False
        raise ObjectStoreFullError(self.full(size))

    def _passing_bytes(self, now: float) -> int:
        """What is in use for a moment only, and can be spilled then, if not used at once."""
        passing = self._leaving_bytes
        if now < self._spill_again:
            return passing
        passing += self.promised_bytes
        for owner in self._owners.values():
            passing += sum(made.size for made in owner.unsealed.values())
        return passing + self._incoming_bytes

    def _viewed_bytes(self, processes: Collection[bytes]) -> int:
        """Of what is viewed by none but these processes."""
        viewed: dict[bytes, None] = {}
        for process in processes:
            viewed.update(self._viewed_by.get(process, {}))
        found = [self._objects[oid] for oid in viewed]
        return sum(one.size for one in found if all(p in processes for p in one.views))

    def promise(self, process: bytes, size: int) -> None:
        """Keep room for an object that a process is about to write, until ``unpromise``."""
        self._promised.setdefault(process, []).append(size)
        self.promised_bytes += size

    def unpromise(self, process: bytes, size: int) -> None:
        """It is written, or will not be. Does nothing where nothing was promised."""
        sizes = self._promised.get(process, [])
        if size in sizes:
            sizes.remove(size)
            self.promised_bytes -= size
            if not sizes:
                del self._promised[process]

    def relieve(self, now: float) -> None:
        """Begin to spill what is past the mark, as far as possible."""
        self._spill(self.used_bytes - self.mark_bytes, now)

    def _trim(self, asking: bytes) -> None:
        for owner, entry in self._owners.items():
            empty = [s for s in entry.segments.values() if not s.regions and not s.asked]
            if empty and owner != asking:
                for segment in empty:
                    segment.asked = True
                self._effects.append(TrimArena(owner))

    def _spill(self, wanted: int, now: float) -> None:
        """Free ``wanted`` bytes: first what is on disk already, then what has to be written."""
        target = self.used_bytes - wanted
        while self.used_bytes - self._leaving_bytes > target and self._idle_on_disk:
            object_id = next(iter(self._idle_on_disk))
            del self._idle_on_disk[object_id]
            self._vacate(self._objects[object_id])
        if now < self._spill_again:
            return
        while self.used_bytes - self._leaving_bytes > target and self._idle:
            found = self._objects[next(iter(self._idle))]
            assert found.place is not None
            found.spilling = True
            self._leaving_bytes += found.size
            self._effects.append(SpillObject(found.object_id, found.place))
            self._settle(found)

    def spilled(self, object_id: bytes, path: str) -> None:
        """A SpillObject is done: the object is also in the file."""
        found = self._end_spill(object_id)
        self._spill_trouble = ""
        found.path = path
        self.spilled_bytes += found.size
        self._settle(found)
        if object_id in self._idle_on_disk:
            del self._idle_on_disk[object_id]
            self._vacate(found)

    def spill_failed(self, object_id: bytes, reason: str, now: float) -> None:
        """A SpillObject could not be done; no other is tried for SPILL_RETRY_S."""
        found = self._end_spill(object_id)
        self._spill_trouble = reason
        self._spill_again = now + limits.SPILL_RETRY_S
        self._settle(found)

    def _end_spill(self, object_id: bytes) -> StoredObject:
        found = self._objects[object_id]
        found.spilling = False
        self._leaving_bytes -= found.size
        return found

    def restore(self, object_id: bytes, owner: bytes, region: Region) -> str:
        """Begin to read a spilled object back, into a region of ``owner`` (the raylet itself).

        Returns:
            The file. Say ``restored`` or ``restore_failed`` when it was read.

        Raises:
            ProtocolError: the region is not free space of a segment of that process.
        """
        found = self._objects[object_id]
        if found.path is None or found.place is not None or found.incoming is not None:
            raise ValueError(f"object {object_id.hex()} is not only on disk")
        found.incoming = self._occupy(owner, region, object_id)
        self._incoming_bytes += found.size
        return found.path

    def _arrive(self, found: StoredObject) -> None:
        found.place, found.incoming = found.incoming, None
        self._incoming_bytes -= found.size

    def restored(self, object_id: bytes) -> None:
        """The object is in memory again."""
        found = self._objects[object_id]
        self._arrive(found)
        self._settle(found)

    def restore_failed(self, object_id: bytes) -> None:
        """Its file cannot be read: the object is lost."""
        found = self._objects[object_id]
        self._arrive(found)
        found.held = False
        self._settle(found)

    # ---- words -----------------------------------------------------------------------------

    def full(self, size: int, unanswered: Collection[bytes] = ()) -> str:
        """Why an object of this size was not stored."""
        has = f"the object store of this node has {_megabytes(self.mark_bytes)}"
        remedy = "or give the node a larger object_store_memory"
        if size > self.mark_bytes:
            return (
                f"an object of {_megabytes(size)} was not stored, because {has}; make it of "
                f"smaller parts, {remedy}"
            )
        trouble = (
            f"; spilling to disk failed ({self._spill_trouble})" if self._spill_trouble else ""
        )
        return (
            f"an object of {_megabytes(size)} was not stored, because {has}, and "
            f"{_megabytes(self.used_bytes + self.promised_bytes)} of it are in use: "
            f"{', '.join(self._holders(unanswered))}"
            f"{trouble}. Drop arrays and references that are not needed, {remedy}"
        )

    def _holders(self, unanswered: Collection[bytes]) -> list[str]:
        """Who holds how much, the most first. An object counts for each process that views it."""
        totals: dict[str, tuple[int, int]] = {}

        def count(what: str, found: StoredObject) -> None:
            size, objects = totals.get(what, (0, 0))
            totals[what] = (size + found.size, objects + 1)

        for owner, sizes in self._promised.items():
            what = f"about to be written by {self._name_process(owner)}"
            totals[what] = (sum(sizes), len(sizes))
        for owner, entry in self._owners.items():
            for found in entry.unsealed.values():
                count(f"being written by {self._name_process(owner)}", found)
        for found in self._objects.values():
            for process in found.views:
                what = f"in arrays that {self._name_process(process)} uses"
                if process == self._sender:
                    what = "being sent to other nodes"
                if process in unanswered:
                    what += ", or does not let go of: it does not answer"
                count(what, found)
            if found.place is not None and not found.views:
                count("waiting to be written to disk", found)
            elif found.incoming is not None:
                count("being read back from disk", found)
        ordered = sorted(totals.items(), key=lambda item: -item[1][0])
        return [
            f"{_megabytes(size)} {what} ({objects} object{'s' if objects > 1 else ''})"
            for what, (size, objects) in ordered
        ]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
