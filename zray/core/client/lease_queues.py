"""Which leased worker gets which of the waiting tasks, and what is taken back from it.

A queue is between this process and a worker; both can take from it, so that what the worker has not
begun can go elsewhere though it is stopped, or busy in C.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from zray import limits
from zray.core.client.definitions import ClientDefinitions
from zray.core.client.far_leases import FarLeases
from zray.core.client.lease import Lease, PendingTask
from zray.core.client.lease_class import LeaseClass
from zray.core.client.references import ClientReferences
from zray.core.identity import Identity
from zray.core.machine import Outbox
from zray.protocol import messages as m


class LeaseQueues:
    """``outcomes``: those known here.

    ``far``: for those workers that are on other machines.
    """

    def __init__(
        self,
        me: Identity,
        outcomes: dict[bytes, m.Outcome],
        references: ClientReferences,
        definitions: ClientDefinitions,
        far: FarLeases,
    ) -> None:
        self._me = me
        self._outcomes = outcomes
        self._references = references
        self._definitions = definitions
        self._far = far
        # Effects for the shell:
        self.direct: Outbox[bytes] = Outbox()  # by lease, over its socket
        self.packets: list[tuple[bytes, m.Tasks]] = []  # by lease, for its queue
        self.take_back: Callable[[bytes], list[m.Tasks]] = lambda lease_id: []

    def unsent(self) -> bool:
        """Whether ``forget`` has something to do."""
        return bool(self._definitions.let_go)

    def surplus(self, group: LeaseClass) -> list[PendingTask]:
        """What others have not begun, if there is a worker that has nothing to do."""
        if len(group.leases) < 2:
            return []
        idle, fullest, most = False, None, 1
        for lease in group.leases.values():
            count = len(lease.inflight)
            if count > most:
                fullest, most = lease, count
            elif not count:
                idle = idle or lease.may_begin()
        return self.taken_back(fullest) if idle and fullest is not None else []

    def feed(self, group: LeaseClass) -> None:
        """Give what waits to workers that have room for it, those first that have the least."""
        leases = sorted(group.leases.values(), key=Lease.load)
        share = -(-len(group.waiting) // len(leases))
        gave = True
        while gave:
            gave = False
            for lease in leases:
                if not group.waiting:
                    return
                room = lease.room(group.waiting[0].template)
                if room > 0:
                    self._give(lease, group.waiting, min(room, share))
                    gave = True

    def _give(self, lease: Lease, waiting: deque[PendingTask], most: int) -> None:
        """One packet: one task, or several short ones of the same function."""
        template = waiting[0].template
        seconds = template.seconds
        if seconds is None or seconds >= limits.LEASE_SHORT_S:
            most = 1
        else:
            most = min(most, max(1, int(limits.LEASE_PACKET_S / max(seconds, 1e-6))))
        tasks: list[PendingTask] = []
        assignments: list[m.Assignment] = []
        values: dict[bytes, m.Outcome] = {}
        size = 0
        while waiting and len(tasks) < most and size < limits.LEASE_TASK_BYTES_MAX:
            task = waiting[0]
            if task.template is not template:
                break
            waiting.popleft()
            task.queued = False
            spec = task.spec
            size += len(spec.arguments)
            for oid in spec.dependencies:
                values[oid] = self._outcomes[oid]
                size += values[oid].size
            if spec.nested:
                self._references.publish(spec.nested)
            tasks.append(task)
            assignments.append(m.Assignment(task.attempt, self._me.job_id, spec, task.failures))
        for definition in lease.definitions(template.message, self._definitions):
            self.say(lease, definition)
        lease.take(tasks)
        packet = m.Tasks(0, assignments, list(values.values()))
        if lease.far is None:
            self.packets.append((lease.lease_id, packet))
        else:
            self._far.give(lease.lease_id, packet)

    def say(self, lease: Lease, message: m.Message) -> None:
        """Something beside tasks."""
        if lease.far is None:
            self.direct.send(lease.lease_id, message)
        else:
            self._far.say(lease.lease_id, message)

    def forget(self, leases: Iterable[Lease]) -> None:
        """Workers need not keep functions of which nothing is made any more."""
        while self._definitions.let_go:
            function_id, templates = self._definitions.let_go.pop()
            for lease in leases:
                if lease.forgets(function_id, templates):
                    self.say(lease, m.Forget(0, function_id))

    def taken_back(self, lease: Lease) -> list[PendingTask]:
        """What the worker has not taken out of its queue, in order.

        Nothing, if it is on another machine: what its node takes out comes later.
        """
        if lease.far is not None:
            self._far.recall(lease)
            return []
        messages = self.take_back(lease.lease_id)
        if self.packets:
            messages += [msg for lease_id, msg in self.packets if lease_id == lease.lease_id]
            self.packets = [pair for pair in self.packets if pair[0] != lease.lease_id]
        found = [lease.ends(one.spec.task_id) for message in messages for one in message.tasks]
        return [task for task in found if task is not None]
