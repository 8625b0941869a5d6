"""The objects that lie in shared memory on a raylet's node, or were spilled from there.

Owns how long an object stays, who views it, and what leaves for the disk and comes back. It must
never touch memory or files: its shell maps and closes segments, writes and reads spilled objects.

An object stays while the cluster holds it (until FREE) or a process views it: the buffer that a
process exported from it counts, not the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from heapq import nlargest
from itertools import islice

from zray import limits
from zray.core.arena import Region
from zray.core.raylet.segment_table import SegmentTable
from zray.core.raylet.store_effects import DeleteFile, Effect, Place, SpillObject
from zray.errors import ProtocolError
from zray.protocol.messages import StoredHere


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


class ObjectStore:
    """``effect`` takes what the shell is to do. A process's id names one incarnation of it."""

    def __init__(self, segments: SegmentTable, effect: Callable[[Effect], None]) -> None:
        self._segments = segments
        self._effect = effect
        self.spilled_bytes = 0  # of all files
        self.spill_trouble = ""  # why the last one could not be written
        self._unsealed: dict[bytes, dict[bytes, StoredObject]] = {}  # by who writes them
        self._objects: dict[bytes, StoredObject] = {}
        self._viewed_by: dict[bytes, dict[bytes, None]] = {}
        # Objects that could leave memory, least recently used first: those to be written to disk
        # first, and those that are there already.
        self._idle: dict[bytes, None] = {}
        self._idle_on_disk: dict[bytes, None] = {}
        self._leaving_bytes = 0  # of what is being spilled
        self._incoming_bytes = 0  # of what is being read back
        self._spill_again = 0.0  # when

    def get(self, object_id: bytes) -> StoredObject | None:
        """The sealed object; None if it is not here."""
        return self._objects.get(object_id)

    def count(self) -> int:
        """How many objects can be read here."""
        return len(self._objects)

    def listed(self, most: int) -> list[StoredHere]:
        """The largest of these, and who has them mapped."""
        largest = nlargest(most, self._objects.values(), key=lambda one: one.size)
        return [
            StoredHere(
                *(one.object_id, one.size, one.place is None),
                [*islice(one.views, limits.HELD_VIEWERS_MAX)],
            )
            for one in largest
        ]

    def sealed(self) -> list[StoredObject]:
        """All objects that can be read here, spilled ones included."""
        return [*self._objects.values()]

    def unsealed(self) -> Iterator[tuple[bytes, StoredObject]]:
        """All objects that are being written, and by whom."""
        for owner, writing in self._unsealed.items():
            for made in writing.values():
                yield owner, made

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
        made = StoredObject(object_id, place, kind, contained)
        self._unsealed.setdefault(owner, {})[object_id] = made

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
        for writing in self._unsealed.values():
            made = writing.get(object_id)
            if made is not None:
                made.held = False
        found = self._objects.get(object_id)
        if found is not None:
            found.held = False
            self._settle(found)

    def _take_unsealed(self, object_id: bytes, owner: bytes) -> StoredObject:
        writing = self._unsealed.get(owner, {})
        made = writing.pop(object_id, None)
        if made is None:
            raise ProtocolError(f"process {owner.hex()} is not writing object {object_id.hex()}")
        if not writing:
            del self._unsealed[owner]
        return made

    def _occupy(self, owner: bytes, region: Region, object_id: bytes) -> Place:
        if object_id in self._unsealed.get(owner, ()):
            raise ProtocolError(f"process {owner.hex()} writes object {object_id.hex()} already")
        return self._segments.occupy(owner, region)

    def _vacate(self, found: StoredObject) -> None:
        """The object leaves its region."""
        place, found.place = found.place, None
        if place is not None:
            self._segments.vacate(place)

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
            self._effect(DeleteFile(found.path))

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
        self._segments.process_died(process)  # first: it is not told of its own regions
        for object_id in self._viewed_by.pop(process, ()):
            self._end_views(self._objects[object_id], process)
        for made in self._unsealed.pop(process, {}).values():
            self._vacate(made)

    def viewed_bytes(self, processes: Collection[bytes]) -> int:
        """Of what is viewed by none but these processes."""
        viewed: dict[bytes, None] = {}
        for process in processes:
            viewed.update(self._viewed_by.get(process, {}))
        found = [self._objects[oid] for oid in viewed]
        return sum(one.size for one in found if all(p in processes for p in one.views))

    # ---- disk ------------------------------------------------------------------------------

    def passing_bytes(self, now: float) -> int:
        """Of what is in use for a moment only: it is being spilled, or can be soon."""
        if not self.may_spill(now):
            return self._leaving_bytes
        writing = sum(made.size for _, made in self.unsealed())
        return self._leaving_bytes + writing + self._incoming_bytes

    def may_spill(self, now: float) -> bool:
        """Whether files can be written, for all that is known."""
        return now >= self._spill_again

    def spill(self, wanted: int, now: float) -> None:
        """Free ``wanted`` bytes: first what is on disk already, then what has to be written."""
        target = self._segments.used_bytes - wanted
        while self._segments.used_bytes - self._leaving_bytes > target and self._idle_on_disk:
            object_id = next(iter(self._idle_on_disk))
            del self._idle_on_disk[object_id]
            self._vacate(self._objects[object_id])
        if not self.may_spill(now):
            return
        while self._segments.used_bytes - self._leaving_bytes > target and self._idle:
            found = self._objects[next(iter(self._idle))]
            assert found.place is not None
            found.spilling = True
            self._leaving_bytes += found.size
            self._effect(SpillObject(found.object_id, found.place))
            self._settle(found)

    def spilled(self, object_id: bytes, path: str) -> None:
        """A SpillObject is done: the object is also in the file."""
        found = self._end_spill(object_id)
        self.spill_trouble = ""
        found.path = path
        self.spilled_bytes += found.size
        self._settle(found)
        if object_id in self._idle_on_disk:
            del self._idle_on_disk[object_id]
            self._vacate(found)

    def spill_failed(self, object_id: bytes, reason: str, now: float) -> None:
        """A SpillObject could not be done; no other is tried for SPILL_RETRY_S."""
        found = self._end_spill(object_id)
        self.spill_trouble = reason
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
