"""The tasks of one scheduling class that may go straight to workers, and the workers for them."""

from __future__ import annotations

from collections import deque

from zray import limits
from zray.core.client.lease import ClassKey, Lease, PendingTask

EXACT = 64  # up to so many tasks the head is told of each that is more


class LeaseClass:
    """``told``: what the head reckons that is wanted beyond what it has granted."""

    __slots__ = (
        "counted",
        "expected",
        "finished",
        "key",
        "leases",
        "open",
        "retried",
        "told",
        "waiting",
    )

    def __init__(self, key: ClassKey) -> None:
        self.key = key
        self.open = True
        self.waiting: deque[PendingTask] = deque()
        self.leases: dict[bytes, Lease] = {}  # by id
        self.told = 0
        self.expected = False  # a task of it goes by way of the head: others may follow
        self.finished = 0
        self.retried = 0
        self.counted = (0, 0)  # finished and retried, as the head was told last

    def wanted(self) -> int:
        """How many leases more would be of use."""
        count = len(self.waiting)
        if not self.open:
            return 0
        if count:
            seconds = self.waiting[0].template.seconds
            if seconds is not None and seconds < limits.LEASE_SHORT_S:
                return int(count * seconds / limits.LEASE_PACKET_S) + 1
        if count < EXACT:
            for lease in self.leases.values():
                if len(lease.inflight) > 1 and lease.seconds >= limits.LEASE_SHORT_S:
                    count += len(lease.inflight) - 1
        return count or int(self.expected)

    def has_news(self) -> bool:
        """Whether the head should hear how many would be."""
        count, told = self.wanted(), self.told
        if count > told:
            return told < EXACT or count >= 2 * told
        return told > 4 * count


class LeaseClasses(dict[ClassKey, LeaseClass]):
    """Of one process. ``dirty``: those in which something has changed."""

    def __init__(self) -> None:
        super().__init__()
        self.dirty: dict[ClassKey, None] = {}

    def of(self, key: ClassKey) -> LeaseClass:
        """The class; made if there is none."""
        group = self.get(key)
        if group is None:
            group = self[key] = LeaseClass(key)
        return group
