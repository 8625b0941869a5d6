"""The part of the Client that has leases: workers that run this process's tasks of one class.

The head grants them, as it is told how many would be of use. Owns which there are and what becomes
of each; their tasks are `leased_tasks`, and who gets which is `lease_queues`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from zray import limits
from zray.core.client.far_leases import FarLeases
from zray.core.client.lease import ClassKey, Lease, PendingTask
from zray.core.client.lease_class import LeaseClass, LeaseClasses
from zray.core.client.lease_queues import LeaseQueues
from zray.core.client.leased_tasks import LeasedTasks
from zray.core.client.references import ClientReferences
from zray.core.client.requests import Requests
from zray.core.client.waiters import Waiter
from zray.core.identity import Identity
from zray.core.machine import NEVER
from zray.ids import split_tasks
from zray.protocol import messages as m


class ClientLeases:
    """``far``: for workers on other machines.
    ``items``: takes what their tasks yield."""

    def __init__(
        self,
        *,
        me: Identity,
        outbox: list[m.Message],
        classes: LeaseClasses,
        tasks: LeasedTasks,
        queues: LeaseQueues,
        far: FarLeases,
        references: ClientReferences,
        requests: Requests,
        items: Callable[[m.Items], None],
    ) -> None:
        self._me = me
        self._outbox = outbox
        self._items = items
        self._classes = classes
        self.tasks = tasks
        self.queues = queues
        self.far = far
        self._references = references
        self._requests = requests
        self._leases: dict[bytes, Lease] = {}
        self._told_unfinished = 0  # how many tasks have not ended, as the head was told last
        # By lease, how many ends its worker keeps until this process holds what is in them.
        self._unsettled: dict[bytes, int] = {}
        # Effects for the shell, besides those of the queues:
        self.connects: list[Lease] = []  # try to reach these workers; tell ``connected``
        self.drains: list[Lease] = []  # read their sockets to the end; tell ``drained``
        self.closes: list[bytes] = []  # leases whose sockets are of no use any more
        self.handlers: dict[type[m.Message], Callable[[Any], None]] = {
            m.Leased: self.on_leased,
            m.LeaseEnded: self.on_lease_ended,
            m.Leasing: self.on_leasing,
        }

    def unsent(self) -> bool:
        """Whether ``flush`` may have something to do."""
        return bool(self._classes.dirty) or self.queues.unsent() or self.far.unsent()

    def flush(self) -> None:
        """Give waiting tasks to workers that have room, and tell the head what is wanted."""
        classes, queues = self._classes, self.queues
        if queues.unsent():
            queues.forget(self._leases.values())
        later: dict[ClassKey, None] = {}
        while classes.dirty:
            key, _ = classes.dirty.popitem()
            group = classes[key]
            if not group.open and group.waiting:
                self.tasks.hand_over_some(group)
                if group.waiting:
                    (classes.held if group.window else later)[key] = None
                continue
            if not group.waiting and (back := queues.surplus(group)):
                self.tasks.again(back)
            if group.waiting and group.leases:
                queues.feed(group)
            if group.has_news():
                self._demand(group)
        classes.dirty = later
        if self.far.unsent():
            self.far.flush()

    def held(self) -> bool:
        """Whether there are leases."""
        return bool(self._leases)

    def heard_of_head(self) -> None:
        """Tasks may have ended by way of the head: others may follow them."""
        if self._classes.held:
            self._classes.dirty.update(self._classes.held)
            self._classes.held.clear()

    def look_in(self) -> float:
        """In how many seconds ``look`` may find something, should nothing come until then."""
        return min([lease.patience() for lease in self._leases.values()], default=NEVER)

    def nap_s(self, wanted: int) -> float:
        """For how many seconds nobody needs to hear of ends, should ``wanted`` be waited for.

        That is more than leased workers have, and all of them have enough to do: their ends can
        come together.
        """
        seconds, tasks = NEVER, limits.LEASE_NAP_TASKS
        for lease in self._leases.values():
            count = len(lease.inflight)
            wanted -= count
            seconds, tasks = min(seconds, lease.seconds), min(tasks, count)
            if lease.far is not None or not lease.may_begin():
                return 0.0
        if wanted <= 0 or not self._leases:
            return 0.0
        brief = min(seconds / 2, limits.LEASE_BRIEF_NAP_S)
        if tasks < limits.LEASE_NAP_TASKS or self.tasks.dependents():
            return brief  # one that ends sooner than expected makes all the difference
        return max(brief, min(seconds / 2, limits.LEASE_NAP_S))

    def look(self, now: float) -> None:
        """Now and then: what waits behind a task that takes too long goes elsewhere."""
        for lease in [*self._leases.values()]:
            if lease.is_late(now) and ((back := self.queues.taken_back(lease)) or lease.asked):
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
        expected = group.told_expected = group.expected and not group.waiting
        group.expected = False
        ids = b"".join(lease.lease_id for lease in group.leases.values())
        served = [lease.finished for lease in group.leases.values()]
        who = (0, self._me.process_id, self._me.job_id, list(group.key))
        self._told_unfinished = len(self.tasks)
        ended = (group.finished, ids, served, group.retried)
        self._outbox.append(m.Demand(*who, count, *ended, expected, self._told_unfinished))

    def account(self) -> None:
        """Tell now and then how much has ended, and how much has not."""
        for group in self._classes.values():
            ended = group.counted != (group.finished, group.retried)
            if ended or self._told_unfinished != len(self.tasks):
                self._demand(group)
        self.far.account()

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
        node = self.far.nodes.get(message.node_id)
        if node is not None:
            self.far.begin(lease, node)
            self.connected(lease, True)
        else:
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
        if group.ranked:
            return
        group.window = message.window
        self._classes.dirty[group.key] = None
        if message.open:
            group.open = True
        elif group.open:
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
        elif isinstance(message, m.Items):
            self._items(message)
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
        if lease.far is not None:
            if lease.ended is None or message.told < lease.ended.told:
                lease.ended = message  # a head that has restarted may know of none
            self.caught_up(lease.lease_id)
        elif lease.connected and not lease.lost:
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

    def returned(self, lease_id: bytes, task_ids: list[bytes], no_room: bool) -> None:
        """What a worker on another machine has not taken, or had no room for."""
        lease = self._leases.get(lease_id)
        if lease is None:
            return
        found = [task for task_id in task_ids if (task := lease.ends(task_id)) is not None]
        lease.full = lease.full or (no_room and bool(lease.inflight))
        if no_room and not lease.full:  # it never will have
            self.tasks.hand_over(found)
            return
        self.tasks.again(found)
        if not no_room:
            lease.asked = False
            cancels, lease.cancels = lease.cancels, []
            self._outbox += [
                task.cancelled for task in cancels if task.cancelled and task.lease is lease
            ]
        self._classes.dirty[lease.key] = None

    def link_ended(self, lease_id: bytes, reached: bool) -> None:
        """A worker on another machine has closed its stream, or cannot be reached by its node."""
        self.link_lost(lease_id)
        if not reached and lease_id in self._leases:
            self._outbox.append(m.Revoke(0, lease_id))

    def caught_up(self, lease_id: bytes) -> None:
        """All that the node had told when a lease ended may be here by now."""
        lease = self._leases.get(lease_id)
        if lease is None or lease.ended is None:
            return
        if self.far.heard(lease_id) >= lease.ended.told:
            self._over(lease, lease.ended)
        elif lease_id not in self.far:  # what its worker has answered went with its node
            text = lease.ended.text or f"(node {lease.node})\nthe node is lost"
            self._over(lease, replace(lease.ended, text=text))
        elif lease.lost:  # its last word is here, whatever number that has
            self._over(lease, lease.ended)

    def _forget(self, lease: Lease) -> None:
        group = self._classes[lease.key]
        del self._leases[lease.lease_id], group.leases[lease.lease_id]
        self._classes.dirty[group.key] = None
        if not self._unsettled.get(lease.lease_id):
            self._close_link(lease)

    def _close_link(self, lease: Lease) -> None:
        if lease.far is None:
            self.closes.append(lease.lease_id)
        else:
            self.far.close(lease.lease_id)

    def _over(self, lease: Lease, message: m.LeaseEnded) -> None:
        """The lease has ended; what was not begun under it has not failed."""
        back = self.queues.taken_back(lease) if lease.far is None else []
        self._forget(lease)
        begun = message.begun - lease.finished if message.text else 0
        failed: list[PendingTask] = []
        free: list[PendingTask] = []
        for place, task in enumerate([*lease.inflight.values()]):
            lease.ends(task.spec.task_id)
            (failed if place < begun else free).append(task)
        self.tasks.again([*free, *back])
        if lease.far is not None and not (lease.finished or message.text):
            # The worker had ended it by the time this process came: it would do so again.
            self.tasks.hand_over_some(self._classes[lease.key])
        if failed and message.status != m.CRASHED:
            self.tasks.timed_out(failed.pop(), message)
        for task in reversed(failed):
            self.tasks.crashed(task, message.text)

    def _on_done(self, lease: Lease, message: m.Done) -> None:
        late: list[tuple[PendingTask, m.TaskDone]] = []
        for done in message.tasks:
            task = lease.ends(done.task_id)
            if task is not None:
                lease.finished += 1
                if done.printed:
                    late.append((task, done))
                else:
                    self.tasks.ended(task, done)
        lease.blocked = lease.full = False
        group = self._classes[lease.key]
        if group.waiting or group.told or lease.inflight or len(group.leases) > 1:
            self._classes.dirty[lease.key] = None
        if message.seq:
            self._unsettled[lease.lease_id] = self._unsettled.get(lease.lease_id, 0) + 1
        if late:
            self._after_prints(lease, late, message.seq)
        elif message.seq:
            self._settle(lease, message.seq)

    def _after_prints(
        self, lease: Lease, late: list[tuple[PendingTask, m.TaskDone]], seq: int
    ) -> None:
        """What tasks have printed is on its way from the head: their ends come behind it."""

        def printed() -> None:
            for task, done in late:
                if task.spec.task_id in self.tasks:  # it may have been cancelled meanwhile
                    self.tasks.ended(task, done)
            if seq:  # what they refer to is held from here on
                self._settle(lease, seq)

        self._requests.ask(lambda number: m.Sync(number), Waiter(printed))

    def _settle(self, lease: Lease, seq: int) -> None:
        """The worker holds what its end refers to until this process's own holds are known."""
        lease_id = lease.lease_id

        def settled() -> None:
            left = self._unsettled.pop(lease_id) - 1
            self.queues.say(lease, m.Ack(0, seq))
            if left:
                self._unsettled[lease_id] = left
            elif lease_id not in self._leases:
                self._close_link(lease)

        self._references.flush_holds()
        self._requests.ask(lambda number: m.Sync(number), Waiter(settled))

    def stop(self) -> None:
        """Nothing comes any more: no ring of leases and tasks is left for the collector."""
        for lease in self._leases.values():
            for task in lease.inflight.values():
                task.lease = None

    def resume(self) -> None:
        """A new session: the head must know what is wanted, and hears of what goes on."""
        self.far.resume()
        for group in self._classes.values():
            group.open = not group.ranked
            group.window = 0
            if group.leases or group.waiting or group.told:
                self._demand(group)
        self.tasks.resume()
