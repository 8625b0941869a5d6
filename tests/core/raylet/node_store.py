"""A node's object store, of the machines that it is made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from zray.core.arena import Region
from zray.core.raylet.admission_control import AdmissionControl
from zray.core.raylet.object_store import ObjectStore
from zray.core.raylet.segment_table import SegmentTable
from zray.core.raylet.store_effects import Effect, Place

A, B, C = b"process-a", b"process-b", b"process-c"
MB = 1_000_000


class NodeStore:
    """Each of the ``owners`` has a large segment 1."""

    def __init__(
        self, mark: int = 100 * MB, owners: Iterable[bytes] = (A,), sender: bytes = b""
    ) -> None:
        self._effects: list[Effect] = []
        self.segments = SegmentTable(self._effects.append)
        self.objects = ObjectStore(self.segments, self._effects.append)
        self.admission = AdmissionControl(
            mark, self.segments, self.objects, lambda process: process.decode(), sender
        )
        for owner in owners:
            self.segments.add(owner, 1, 1000 * MB)

    def take_effects(self) -> list[Effect]:
        """Since the last call."""
        effects = [*self._effects]
        self._effects.clear()
        return effects

    def effects_of(self, kind: type) -> list[Any]:
        """The same, of that kind; the others are forgotten."""
        return [effect for effect in self.take_effects() if isinstance(effect, kind)]

    def put(self, name: bytes, offset: int, size: int = MB, owner: bytes = A) -> Place:
        """A process writes an object into its segment 1."""
        self.objects.create(name, owner, Region(1, offset, size), 1, [])
        assert self.objects.seal(name, owner)
        return Place(owner, 1, offset, size)

    def fill(self, count: int = 10, size: int = 10 * MB) -> None:
        """A writes so many objects, x0 first."""
        for number in range(count):
            self.put(b"x%d" % number, number * size, size)

    def process_died(self, process: bytes) -> None:
        """As its shell tells it."""
        self.admission.process_died(process)
        self.objects.process_died(process)
