"""Admission control of a node's object store: who may write how much more, and who has to wait.

Owns the mark that objects in memory may reach, and room promised to processes for what they are
about to write. What goes past the mark is spilled: how, is the ObjectStore's business.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from zray.core.raylet.object_store import ObjectStore, StoredObject
from zray.core.raylet.segment_table import SegmentTable
from zray.errors import ObjectStoreFullError


class AdmissionControl:
    """``mark_bytes``: objects may take this much of the memory.

    ``name_process`` words a process for a user. The ``sender`` views only what it sends to other
    nodes.
    """

    def __init__(
        self,
        mark_bytes: int,
        segments: SegmentTable,
        objects: ObjectStore,
        name_process: Callable[[bytes], str] = lambda p: p.hex()[:8],
        sender: bytes = b"",
    ) -> None:
        self.mark_bytes = mark_bytes
        self._segments = segments
        self._objects = objects
        self._name_process = name_process
        self._sender = sender
        self._promised: dict[bytes, list[int]] = {}  # sizes that processes are about to write
        self.promised_bytes = 0  # of all of them

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
        if self._segments.touched_bytes + size > self.mark_bytes:
            self._segments.trim(asking)
        if size <= self.mark_bytes:
            self._objects.spill(self._excess_bytes(size), now)
            excess = self._excess_bytes(size)  # some may have left at once
            if excess <= 0:
                return True
            passing = self._passing_bytes(now)
            if excess <= passing:
                return False
            viewed = self._objects.viewed_bytes({self._sender, *unanswered})
            if viewed and excess <= passing + viewed:
                return False
        raise ObjectStoreFullError(self.full(size))

    def _excess_bytes(self, size: int) -> int:
        """How far past the mark so much more would go."""
        return self._segments.used_bytes + self.promised_bytes + size - self.mark_bytes

    def _passing_bytes(self, now: float) -> int:
        """What is in use for a moment only, and can be spilled then, if not used at once."""
        passing = self._objects.passing_bytes(now)
        return passing + (self.promised_bytes if self._objects.may_spill(now) else 0)

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

    def process_died(self, process: bytes) -> None:
        """What was promised to it nobody will write."""
        self.promised_bytes -= sum(self._promised.pop(process, ()))

    def relieve(self, now: float) -> None:
        """Begin to spill what is past the mark, as far as possible."""
        self._objects.spill(self._segments.used_bytes - self.mark_bytes, now)

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
        reason = self._objects.spill_trouble
        trouble = f"; spilling to disk failed ({reason})" if reason else ""
        return (
            f"an object of {_megabytes(size)} was not stored, because {has}, and "
            f"{_megabytes(self._segments.used_bytes + self.promised_bytes)} of it are in use: "
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
        for owner, found in self._objects.unsealed():
            count(f"being written by {self._name_process(owner)}", found)
        for found in self._objects.sealed():
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
