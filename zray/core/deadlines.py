"""Keys that are due at some time: looking for the due ones costs nothing for all the others."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from zray.core.machine import NEVER


class Deadlines(dict[bytes, float]):
    """key -> when it is due, in seconds as ``now`` is.

    Changed by ``put``, ``drop``, ``due`` and ``postpone`` alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self._heap: list[tuple[float, bytes]] = []  # also of keys that are not there any more

    def put(self, key: bytes, when: float) -> None:
        """The key is due then, whatever was said before."""
        self[key] = when
        heappush(self._heap, (when, key))
        if len(self._heap) > 2 * len(self) + 64:
            self._tidy()

    def drop(self, key: bytes) -> None:
        """The key is not due any more."""
        self.pop(key, None)

    def postpone(self, when: float) -> None:
        """All are due then."""
        for key in self:
            self[key] = when
        self._tidy()

    def soonest(self) -> float:
        """When the first one is due; ``NEVER`` where there is none."""
        heap = self._heap
        while heap and self.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else NEVER

    def due(self, now: float) -> list[bytes]:
        """Take out what is due by now."""
        found: list[bytes] = []
        if not self._heap:
            return found
        while self.soonest() <= now:
            _, key = heappop(self._heap)
            del self[key]
            found.append(key)
        return found

    def _tidy(self) -> None:
        self._heap = [(when, key) for key, when in self.items()]
        heapify(self._heap)
