"""What a submitter knows of a worker that is leased to it, and of the tasks that it gave it.

In the order in which they were given: the worker begins them in it.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from zray import limits
from zray.core.client.definitions import ClientDefinitions
from zray.core.machine import NEVER
from zray.protocol import messages as m

ClassKey = tuple[tuple[str, int], ...]  # amounts by resource, as templates have them


class LeasedTemplate:
    """A template whose tasks may go by lease, and how long its function has been taking."""

    __slots__ = ("key", "message", "seconds", "stays")

    def __init__(self, message: m.Template, key: ClassKey) -> None:
        self.message = message
        self.key = key
        self.seconds: float | None = None
        self.stays = False  # its results are large: where they are made is the head's business

    def measured(self, seconds: float) -> None:
        """Its function ran for so many seconds."""
        old = self.seconds
        self.seconds = seconds if old is None else old + (seconds - old) * 0.2


class PendingTask(Struct, eq=False, gc=False):
    """A task without an outcome that has not gone by way of the head.

    ``waiting``: results of other such tasks among its arguments that are not there yet.
    ``seconds``: that it was expected to take when it was given. ``made``: the head was told how its
    large items are made.
    """

    # The garbage collector does not look at it: a lease lets go of its tasks when it ends.

    spec: m.TaskSpec
    template: LeasedTemplate
    attempt: int = 1
    failures: int = 0
    waiting: int = 0
    cancelled: m.CancelLeased | None = None
    lease: Lease | None = None
    queued: bool = False
    seconds: float = 0.0
    made: bool = False

    def may_retry(self) -> bool:
        """Whether another attempt is allowed, after one more failure than are counted."""
        most = self.template.message.max_retries
        return most < 0 or self.failures < most


class FarNode:
    """A node on another machine, which this process speaks to at the node's own port.

    ``opened``: a connection is there or being made; ``linked``: it works. ``reached``: the head
    knows that. ``by_head``: what is said goes by way of the head. ``path``: number of the
    connection that was tried last; ``way``: of the way in use. ``rtt_s``: there and back.
    ``asked_at``: when PING was sent that has no answer yet.
    """

    __slots__ = (
        *(
            "address",
            "asked_at",
            "by_head",
            "linked",
            "lost_at",
            "node_id",
            "opened",
            "opened_at",
            "path",
        ),
        *("ping_at", "reached", "retry_at", "rtt_s", "wait_s", "way"),
    )

    def __init__(self, node_id: bytes) -> None:
        self.node_id = node_id
        self.address = ""
        self.path = self.way = 0
        self.opened = self.linked = self.reached = self.by_head = False
        self.opened_at = self.retry_at = self.ping_at = self.rtt_s = 0.0
        self.asked_at: float | None = None
        self.lost_at: float | None = None
        self.wait_s = limits.RECONNECT_FIRST_S


class Lease:
    """One worker that serves this process. ``far``: its node, if that is on another machine."""

    __slots__ = (
        *("asked", "blocked", "cancels", "connected", "ended", "far", "finished", "full"),
        *("inflight", "key", "known", "lease_id"),
        *("lost", "node", "seconds", "worker_id", "machine", "seen", "seen_at"),
    )

    def __init__(self, message: m.Leased, key: ClassKey) -> None:
        self.lease_id = message.lease.lease_id
        self.worker_id = message.lease.worker_id
        self.machine = message.machine
        self.node = message.node
        self.key = key
        self.far: FarNode | None = None
        self.asked = False  # what is in its queue was asked back
        self.cancels: list[PendingTask] = []  # to be stopped, if they are not in what comes back
        self.connected = False
        self.blocked = False  # its task waits, and says so, or takes too long
        self.full = False  # its queue was, when something was given to it last
        self.lost = False  # the socket has ended: the head will say why
        self.ended: m.LeaseEnded | None = None  # to be applied once the socket is read to its end
        self.inflight: dict[bytes, PendingTask] = {}
        self.finished = 0  # of its tasks
        self.seen = -1  # of these, when it was looked at; -1: never
        self.seen_at = 0.0  # when it had not ended more than that
        self.seconds = 0.0  # that those in flight are expected to take
        self.known: dict[bytes, None] = {}  # functions and templates

    def may_begin(self) -> bool:
        """Whether it takes tasks."""
        far = self.far
        if far is not None and (self.asked or not far.linked):
            return False
        return self.connected and not (self.blocked or self.full or self.lost or self.ended)

    def is_late(self, now: float) -> bool:
        """Whether its task has kept those behind it waiting for too long; to be asked often."""
        if self.finished != self.seen or len(self.inflight) < 2 or self.blocked:
            self.seen, self.seen_at = self.finished, now
            return False
        first = next(iter(self.inflight.values()))
        ahead = self.far.rtt_s if self.far is not None else 0.0
        return now - self.seen_at > limits.LEASE_LATE_S + 2 * first.seconds + ahead

    def patience(self) -> float:
        """For how many seconds none of its tasks is late, from when one of them has ended."""
        if len(self.inflight) < 2 or self.blocked:
            return NEVER
        return limits.LEASE_LATE_S + next(iter(self.inflight.values())).seconds

    def load(self) -> tuple[bool, float, int, bool]:
        """To be given tasks in this order: first whoever has none, however short the others are."""
        return bool(self.inflight), self.seconds, len(self.inflight), self.far is not None

    def room(self, template: LeasedTemplate) -> int:
        """How many tasks of this template it may be given now."""
        if not self.may_begin():
            return 0
        count, seconds = len(self.inflight), template.seconds
        if seconds is None or seconds >= limits.LEASE_BEHIND_S:
            return 0 if count else 1
        if self.far is not None:
            batch, behind = limits.LEASE_BATCH_S, 2 * seconds
            ahead = self.far.rtt_s  # the next ones are under way
        else:
            deep = min(limits.LEASE_DEEP_S, limits.LEASE_DEEP_TASKS * seconds)
            batch, behind, ahead = max(limits.LEASE_BATCH_S, deep), max(deep, 2 * seconds), 0.0
        if seconds >= limits.LEASE_SHORT_S:
            return max(0, round(behind / seconds) + int(ahead / seconds) - count)
        more = round((batch + ahead - self.seconds) / max(seconds, 1e-6))
        return min(more if count else max(1, more), limits.WORKER_BATCH_TASKS_MAX)

    def take(self, tasks: list[PendingTask]) -> None:
        """These are given to it."""
        inflight = self.inflight
        for task in tasks:
            task.lease = self
            task.seconds = seconds = task.template.seconds or 0.0
            self.seconds += seconds
            inflight[task.spec.task_id] = task

    def ends(self, task_id: bytes) -> PendingTask | None:
        """The task is not there any more; None: it was not."""
        task = self.inflight.pop(task_id, None)
        if task is not None:
            task.lease = None
            self.seconds = self.seconds - task.seconds if self.inflight else 0.0
        return task

    def forgets(self, function_id: bytes, templates: list[bytes]) -> bool:
        """Whether the worker knew the function, which is sent again if need be."""
        for template_id in templates:
            self.known.pop(template_id, None)
        return self.known.pop(function_id, self) is None

    def definitions(
        self, template: m.Template, definitions: ClientDefinitions
    ) -> Iterator[m.Message]:
        """What the worker has to know of the function before its first task."""
        if template.template_id not in self.known:
            self.known[template.template_id] = None
            if template.function_id not in self.known:
                self.known[template.function_id] = None
                yield definitions.near[template.function_id]
            yield template
