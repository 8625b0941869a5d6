"""The tasks of one scheduling class that may go straight to workers, and the workers for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Container

from zray import limits
from zray.core.client.lease import ClassKey, Lease, PendingTask

EXACT = 64  # up to so many tasks the head is told of each that is more


class LeaseClass:
    """``told``: what the head reckons that is wanted beyond what it has granted.

    ``window``: while it is not ``open``, so many of its tasks are at the head at a time (0: all).
    ``ranked``: some of its tasks have priorities; so all go by way of the head, for good.
    """

    __slots__ = (
        "at_head",
        "counted",
        "expected",
        "finished",
        "key",
        "leases",
        "open",
        "ranked",
        "retried",
        "told",
        "told_expected",
        "waiting",
        "window",
    )

    def __init__(self, key: ClassKey) -> None:
        self.key = key
        self.open = True
        self.ranked = False
        self.window = 0
        self.at_head: dict[bytes, None] = {}  # tasks that count in the window, or did
        self.waiting: deque[PendingTask] = deque()
        self.leases: dict[bytes, Lease] = {}  # by id
        self.told = 0
        self.told_expected = False  # it was told that nothing waits yet
        self.expected = False  # a task of it goes by way of the head: others may follow
        self.finished = 0
        self.retried = 0
        self.counted = (0, 0)  # finished and retried, as the head was told last

    def room(self, unresolved: Container[bytes]) -> int:
        """How many more tasks may go by way of the head; ``unresolved``: those that are there."""
        if not self.window:
            return len(self.waiting)
        self.at_head = {task_id: None for task_id in self.at_head if task_id in unresolved}
        return max(0, self.window - len(self.at_head))

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
        if count > told or (self.told_expected and self.waiting):
            return told < EXACT or count >= 2 * told
        return told > 4 * count


class LeaseClasses(dict[ClassKey, LeaseClass]):
    """Of one process. ``dirty``: those in which something has changed. ``held``: those of which
    tasks wait here for others to come back from the head."""

    def __init__(self) -> None:
        super().__init__()
        self.dirty: dict[ClassKey, None] = {}
        self.held: dict[ClassKey, None] = {}

    def of(self, key: ClassKey) -> LeaseClass:
        """The class; made if there is none."""
        group = self.get(key)
        if group is None:
            group = self[key] = LeaseClass(key)
        return group
