"""The part of the Client that has leases: workers that run this process's tasks of one class.

The head grants them, as it is told how many would be of use. Owns which there are and what becomes
of each; their tasks are `leased_tasks`, and who gets which is `lease_queues`.
"""

from __future__ import annotations

from collections.abc import Callable

from zray.core.client.lease import ClassKey, Lease, PendingTask
from zray.core.client.lease_class import LeaseClass, LeaseClasses
from zray.core.client.lease_queues import LeaseQueues
from zray.core.client.leased_tasks import LeasedTasks
from zray.core.client.references import ClientReferences
from zray.core.client.requests import Requests
from zray.core.client.waiters import Waiter
from zray.ids import split_tasks
from zray.protocol import messages as m


class ClientLeases:
    """``job_id``: of the process, as it is by then."""

    def __init__(
        self,
        *,
        process_id: bytes,
        job_id: Callable[[], bytes],
        outbox: list[m.Message],
        classes: LeaseClasses,
        tasks: LeasedTasks,
        queues: LeaseQueues,
        references: ClientReferences,
        requests: Requests,
    ) -> None:
        self._process_id = process_id
        self._job_id = job_id
        self._outbox = outbox
        self._classes = classes
        self.tasks = tasks
        self.queues = queues
        self._references = references
        self._requests = requests
        self._leases: dict[bytes, Lease] = {}
        # By lease, how many ends its worker keeps until this process holds what is in them.
        self._unsettled: dict[bytes, int] = {}
        # Effects for the shell, besides those of the queues:
        self.connects: list[Lease] = []  # try to reach these workers; tell ``connected``
        self.drains: list[Lease] = []  # read their sockets to the end; tell ``drained``
        self.closes: list[bytes] = []  # leases whose sockets are of no use any more

    def unsent(self) -> bool:
        """Whether ``flush`` may have something to do."""
        return bool(self._classes.dirty) or self.queues.unsent()

    def flush(self) -> None:
        """Give waiting tasks to workers that have room, and tell the head what is wanted."""
        classes, queues = self._classes, self.queues
        self.tasks.fresh = 0
        queues.forget(self._leases.values())
        later: dict[ClassKey, None] = {}
        while classes.dirty:
            key, _ = classes.dirty.popitem()
            group = classes[key]
            if not group.open and group.waiting:
                self.tasks.hand_over_some(group)
                later[key] = None
                continue
            if not group.waiting and (back := queues.surplus(group)):
                self.tasks.again(back)
            if group.waiting and group.leases:
                queues.feed(group)
            if group.has_news():
                self._demand(group)
        classes.dirty = later

    def crowded(self) -> bool:
        """Whether tasks wait behind others, and ``look`` has to look."""
        return any(len(lease.inflight) > 1 for lease in self._leases.values())

    def look(self, now: float) -> None:
        """Now and then: what waits behind a task that takes too long goes elsewhere."""
        for lease in [*self._leases.values()]:
            if lease.is_late(now) and (back := self.queues.taken_back(lease)):
                lease.blocked = bool(lease.inflight)  # until it ends that
                self.tasks.again(back)

    def refused(self, lease_id: bytes, message: m.Tasks) -> None:
        """The queue to the worker has no room for the packet."""
        lease = self._leases.get(lease_id)
        if lease is not None:
            found = [lease.ends(assignment.spec.task_id) for assignment in message.tasks]
            back = [task for task in found if task is not None]
            lease.full = bool(lease.inflight)
            if lease.full:
                self.tasks.again(back)
            else:  # it never will have
                self.tasks.hand_over(back)

    def _demand(self, group: LeaseClass) -> None:
        count = group.told = group.wanted()
        group.counted = (group.finished, group.retried)
        group.expected = False
        ids = b"".join(lease.lease_id for lease in group.leases.values())
        served = [lease.finished for lease in group.leases.values()]
        who = (0, self._process_id, self._job_id(), list(group.key))
        told = m.Demand(*who, count, group.finished, ids, served, group.retried)
        self._outbox.append(told)

    def account(self) -> None:
        """Tell now and then how much has ended."""
        for group in self._classes.values():
            if group.counted != (group.finished, group.retried):
                self._demand(group)

    # ---- leases ----------------------------------------------------------------------------

    def on_leased(self, message: m.Leased) -> None:
        """A worker waits for this process."""
        held = message.lease
        group = self._classes.get(tuple((name, amount) for name, amount in held.resources))
        if held.lease_id in self._leases:
            return
        if group is None:
            self._outbox.append(m.Revoke(0, held.lease_id))
            return
        group.told = max(0, group.told - 1)
        lease = Lease(message, group.key)
        self._leases[lease.lease_id] = group.leases[lease.lease_id] = lease
        self.connects.append(lease)

    def connected(self, lease: Lease, ok: bool) -> None:
        """Whether there is a socket to the worker by now."""
        if self._leases.get(lease.lease_id) is not lease:
            return
        group = self._classes[lease.key]
        if ok:
            lease.connected = True
            self._classes.dirty[group.key] = None
            return
        self._outbox.append(m.Revoke(0, lease.lease_id))
        self._forget(lease)
        self._close(group)

    def on_leasing(self, message: m.Leasing) -> None:
        """Whether tasks may wait here for leases; if others wait, they do not."""
        group = self._classes.get(tuple((name, amount) for name, amount in message.resources))
        if group is None:
            return
        if message.open:
            group.open = True
        else:
            self._close(group)

    def _close(self, group: LeaseClass) -> None:
        group.open = False
        self._classes.dirty[group.key] = None
        self._demand(group)  # nothing, whatever else was on its way when the head decided so

    def link_message(self, lease_id: bytes, message: m.Message) -> None:
        """What a leased worker says over its socket."""
        lease = self._leases.get(lease_id)
        if lease is None:
            return
        if isinstance(message, m.Done):
            self._on_done(lease, message)
        elif isinstance(message, m.Returned):
            lease.blocked = True
            ids = split_tasks(message.task_ids)
            back = [task for task_id in ids if (task := lease.ends(task_id)) is not None]
            self.tasks.again([*back, *self.queues.taken_back(lease)])
        elif isinstance(message, m.LeaseEnded) and message.lease_id == lease.lease_id:
            self._over(lease, message)

    def on_lease_ended(self, message: m.LeaseEnded) -> None:
        """The head says that a lease is over."""
        lease = self._leases.get(message.lease_id)
        if lease is None:
            return
        if lease.connected and not lease.lost:
            lease.ended = message
            self.drains.append(lease)  # what the worker has answered counts
        else:
            self._over(lease, message)

    def drained(self, lease: Lease) -> None:
        """All that the worker has said is read."""
        if lease.ended is not None and self._leases.get(lease.lease_id) is lease:
            self._over(lease, lease.ended)

    def link_lost(self, lease_id: bytes) -> None:
        """The worker has closed its socket, or died: the head will say which."""
        lease = self._leases.get(lease_id)
        if lease is not None:
            lease.lost = True

    def _forget(self, lease: Lease) -> None:
        group = self._classes[lease.key]
        del self._leases[lease.lease_id], group.leases[lease.lease_id]
        self._classes.dirty[group.key] = None
        if not self._unsettled.get(lease.lease_id):
            self.closes.append(lease.lease_id)

    def _over(self, lease: Lease, message: m.LeaseEnded) -> None:
        """The lease has ended; what was not begun under it has not failed."""
        back = self.queues.taken_back(lease)
        self._forget(lease)
        begun = message.begun - lease.finished if message.text else 0
        failed: list[PendingTask] = []
        free: list[PendingTask] = []
        for place, task in enumerate([*lease.inflight.values()]):
            lease.ends(task.spec.task_id)
            (failed if place < begun else free).append(task)
        self.tasks.again([*free, *back])
        for task in reversed(failed):
            self.tasks.crashed(task, message.text)

    def _on_done(self, lease: Lease, message: m.Done) -> None:
        for done in message.tasks:
            task = lease.ends(done.task_id)
            if task is not None:
                lease.finished += 1
                if done.printed:
                    self._after_prints(task, done)
                else:
                    self.tasks.ended(task, done)
        lease.blocked = lease.full = False
        self._classes.dirty[lease.key] = None
        if message.seq:
            self._settle(lease, message.seq)

    def _after_prints(self, task: PendingTask, done: m.TaskDone) -> None:
        """What the task has printed is on its way from the head: the answer comes behind it."""

        def printed() -> None:
            if task.spec.task_id in self.tasks:  # it may have been cancelled meanwhile
                self.tasks.ended(task, done)

        self._requests.ask(lambda number: m.Sync(number), Waiter(printed))

    def _settle(self, lease: Lease, seq: int) -> None:
        """The worker holds what its end refers to until this process's own holds are known."""
        lease_id = lease.lease_id
        self._unsettled[lease_id] = self._unsettled.get(lease_id, 0) + 1

        def settled() -> None:
            left = self._unsettled.pop(lease_id) - 1
            self.queues.direct.send(lease_id, m.Ack(0, seq))
            if left:
                self._unsettled[lease_id] = left
            elif lease_id not in self._leases:
                self.closes.append(lease_id)

        self._references.flush_holds()
        self._requests.ask(lambda number: m.Sync(number), Waiter(settled))

    def resume(self) -> None:
        """A new session: the head must know what is wanted, and hears of what goes on."""
        for group in self._classes.values():
            group.open = True
            if group.leases or group.waiting or group.told:
                self._demand(group)
        self.tasks.cancel_again()
