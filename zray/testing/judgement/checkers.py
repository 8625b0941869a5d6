"""The invariants of the design, looked at in the machines' own state as a simulation runs.

Each checker names the invariant it guards. They read, and never change, what they look at.
"""

from __future__ import annotations

import msgspec

from zray import limits
from zray.core import bundles, resources
from zray.core.causes import line
from zray.core.head.actor_records import ActorRow
from zray.core.head.members import NodeRow
from zray.core.head.object_table import PENDING
from zray.core.head.task_records import ASSIGNED, READY
from zray.ids import object_id
from zray.protocol import messages as m
from zray.protocol.messages import ACTOR_ALIVE, ACTOR_DEAD
from zray.testing.judgement.ledger import Ledger
from zray.testing.processes.caller import Caller
from zray.testing.processes.head import SimHead
from zray.testing.processes.population import Population
from zray.testing.processes.process import SimProcess
from zray.testing.processes.worker import SimWorker
from zray.testing.world.errors import Violation
from zray.testing.world.world import World

SMALL = 80  # tasks and objects at the head up to which everything is looked at in each step


class Checkers:
    """Runs all checkers after each turn while the state is small, else one in turn.

    ``small``: tasks and objects at the head, up to which it is.
    """

    def __init__(self, world: World, population: Population, ledger: Ledger) -> None:
        self._world = world
        self._population = population
        self._ledger = ledger
        self.small = SMALL
        self._turn = 0
        self._settled: set[bytes] = set()  # objects that the head had after its last turn
        self._item_holders: dict[bytes, set[bytes]] = {}  # the same, of what tasks have yielded
        self._epoch = 0
        self._followed: dict[str, int] = {}  # peer -> the latest epoch that it knew
        self._alone: dict[bytes, list[bytes]] = {}  # worker -> its tasks that it alone wants
        self._checks = [
            self.one_holder,
            self.counts,
            self.openings,
            self.incarnations,
            self.epochs,
            self.reasons,
            self.bounds,
            self.holders,
            self.durable,
            self.durable_actors,
            self.actors,
            self.resources,
            self.groups,
            self.near_tasks,
        ]

    def step(self, process: SimProcess) -> None:
        """A process had a turn."""
        head = self._population.head
        if head is None:
            return
        if process is head:
            self.orphans(head)
            self.frees(head)
        self._turn += 1
        if len(head.gcs.tasks) + len(head.gcs.objects.records) <= self.small:
            for check in self._checks:
                check(head)
        else:
            self._checks[self._turn % len(self._checks)](head)

    def one_holder(self, head: SimHead) -> None:
        """Invariant 2: no two raylets that count hold one task; the head's records agree."""
        gcs = head.gcs
        for task_id, record in gcs.tasks.items():
            held = record.node is not None and record.node.assigned.get(task_id) is record
            if held != (record.state == ASSIGNED):
                word = self._ledger.word(task_id)
                raise Violation(f"invariant 2: {word} in state {record.state}, held: {held}")
            if record.cancelled and not held:
                raise Violation(f"{self._ledger.word(task_id)} is cancelled, and waits to run")

    def counts(self, head: SimHead) -> None:
        """The scheduler's counters are what they count."""
        scheduler = head.gcs.scheduler
        for needs, group in scheduler.classes.items():
            ready = sum(
                1 for queue in group.queues.values() for record in queue if record.state == READY
            )
            there = {node: node.ahead.get(needs, 0) for node in scheduler.nodes.values()}
            ahead = sum(there.values())
            if group.ahead_at.keys() != {node for node, count in there.items() if count}:
                raise Violation(f"class {needs}: not those nodes are noted that have tasks ahead")
            if ready != group.ready or ahead != group.ahead:
                raise Violation(
                    f"class {needs}: {group.ready} ready and {group.ahead} ahead are counted, "
                    f"{ready} and {ahead} there"
                )
        for node in scheduler.nodes.values():
            if any(record.node is not node for record in node.assigned.values()):
                raise Violation(f"invariant 2: node {node.node_id.hex()} lists a foreign task")

    def openings(self, head: SimHead) -> None:
        """No node with room is taken for full."""
        scheduler = head.gcs.scheduler
        nodes = scheduler.nodes.values()
        for needs, group in scheduler.classes.items():
            later = scheduler.changes.since(group.openings.heard)
            known = {*group.openings.start, *(nodes if later is None else later)}
            for node in nodes:
                room = node.usable and node.credit() > 0 and resources.fits(node.free, needs)
                if room and node not in known:
                    raise Violation(f"class {needs}: node {node.node_id.hex()} is taken for full")

    def incarnations(self, head: SimHead) -> None:
        """Invariant 5: what was declared dead has no session and no task."""
        members = head.gcs.members
        for node_id, node in members.nodes.items():
            if node.announced and not node.ended and members.fenced(node_id, node.incarnation):
                raise Violation(f"invariant 5: node {node.info.name} is fenced and takes part")

    def epochs(self, head: SimHead) -> None:
        """Invariant 6: nobody follows a head of the past."""
        epoch = head.gcs.epoch
        for raylet in self._population.raylets:
            if raylet.alive and raylet.raylet.session.epoch > epoch:
                raise Violation(
                    f"invariant 6: {raylet.name} follows epoch {raylet.raylet.session.epoch}"
                )
        followed = {raylet.name: raylet.raylet.session.epoch for raylet in self._population.raylets}
        followed |= {driver.name: driver.client.epoch for driver in self._population.drivers}
        for name, known in followed.items():
            if known < self._followed.get(name, 0):
                raise Violation(f"invariant 6: {name} follows epoch {known} once more")
        self._followed = followed

    def reasons(self, head: SimHead) -> None:
        """Invariant 7: whatever waits has a reason."""
        for task_id, record in [*head.gcs.tasks.items()][:20]:
            cause = head.gcs.causes.of_tasks.of(task_id, record, head.gcs.turn.now).cause
            reason = line(cause)
            if not reason or reason.startswith("UNKNOWN"):
                raise Violation(f"invariant 7: {self._ledger.word(task_id)} waits: {reason!r}")

    def bounds(self, head: SimHead) -> None:
        """Invariant 8: windows, credit and the cache keep their bounds."""
        for driver in self._population.drivers:
            in_flight = driver.client.tasks.in_flight
            if in_flight > limits.CLIENT_WINDOW_TASKS + 10_000:
                raise Violation(f"invariant 8: {driver.name} has {in_flight} out")
            if in_flight < 0:
                raise Violation(f"invariant 8: {driver.name} counts {in_flight}")
        for raylet in self._population.raylets:
            # Beside its credit, what its workers had in their inboxes and gave back.
            scheduler = raylet.raylet.scheduler
            inboxes = limits.WORKER_BATCH_TASKS_MAX * (1 + len(scheduler.workers))
            if raylet.alive and scheduler.queued > limits.RAYLET_UNSTARTED_TASKS + inboxes:
                raise Violation(f"invariant 8: {raylet.name} has {scheduler.queued} in its queue")
        for node in head.gcs.scheduler.nodes.values():
            # What workers give back makes a raylet grant less than it did before.
            if node.credit() < -2 * limits.RAYLET_UNSTARTED_TASKS:
                raise Violation(f"invariant 8: credit {node.credit()}")
        if head.gcs.objects.cache_bytes > limits.HEAD_CACHE_BYTES:
            raise Violation("invariant 8: the head's cache is too large")

    def holders(self, head: SimHead) -> None:
        """Invariant 11: whatever a process, a task or an object refers to is still there.

        Looked at from the side of those who refer: programs' live references, arguments of
        unfinished tasks, contents of settled objects.
        """
        gcs = head.gcs
        if gcs.recovery.active:
            return
        records = gcs.objects.records
        for oid, record in records.items():
            for inner in record.contained:
                if inner not in records:
                    raise Violation(f"invariant 11: {inner.hex()} in {oid.hex()} is gone")
        for task_id, task in gcs.tasks.items():
            if task.spec is None:
                continue
            for oid in (*task.spec.dependencies, *task.spec.nested):
                if oid not in records:
                    word = self._ledger.word(task_id)
                    raise Violation(f"invariant 11: an argument of {word} is gone")

    def orphans(self, head: SimHead) -> None:
        """Tasks of a worker that is gone end, unless somebody else has their references."""
        gcs = head.gcs
        for submitter, task_ids in self._alone.items() if gcs.epoch == self._epoch else ():
            if gcs.processes.lives(submitter):
                continue
            for task_id in task_ids:
                record = gcs.tasks.get(task_id)
                if record is not None and not record.cancelled and not self._holders(head, task_id):
                    word = self._ledger.word(task_id)
                    raise Violation(f"{word} goes on, and whoever submitted it is gone")
        self._alone = {}
        if len(gcs.tasks) <= SMALL:
            for submitter in gcs.processes.workers:
                tasks = [task_id for task_id, _ in gcs.tasks.of_submitter(submitter)]
                alone = [
                    task_id for task_id in tasks if self._holders(head, task_id) <= {submitter}
                ]
                if alone:
                    self._alone[submitter] = alone

    def _holders(self, head: SimHead, task_id: bytes) -> set[bytes]:
        """Who holds any of a task's returns."""
        template = head.gcs.tasks[task_id].template
        found: set[bytes] = set()
        for index in range(template.message.num_returns if template is not None else 1):
            found |= self._holders_of(head, object_id(task_id, index))
        return found

    @staticmethod
    def _holders_of(head: SimHead, oid: bytes) -> set[bytes]:
        record = head.gcs.objects.get(oid)
        held = record.holders if record is not None else None
        return {held} if isinstance(held, bytes) else {*(held or ())}

    def frees(self, head: SimHead) -> None:
        """Invariant 11, from the side of those who refer: what they refer to is not freed."""
        gcs = head.gcs
        records = gcs.objects.records
        if gcs.epoch == self._epoch:
            gone = [oid for oid in self._settled if oid not in records]
            for oid in sorted(gone):
                self._nobody_refers(head, oid)
        self._epoch = gcs.epoch
        self._settled = {oid for oid, record in records.items() if record.kind != PENDING}
        yielded = [oid for items in gcs.objects.items.values() for oid in items]
        self._item_holders = {oid: self._holders_of(head, oid) for oid in yielded}

    def _nobody_refers(self, head: SimHead, oid: bytes) -> None:
        gcs = head.gcs
        if oid in self._ledger.calls.orphans:
            return
        word = f"{self._ledger.word(oid[:16])}[{oid[-1]}]"
        for driver in self._population.drivers:
            known = driver.alive and driver.process_id in gcs.members.jobs
            if known and self._refers(driver, oid):
                raise Violation(f"invariant 11: {word} is freed, and {driver.name} refers to it")
        for worker in self._population.workers.values():
            known = worker.worker_id in gcs.processes.workers and worker.key[0] in gcs.members.jobs
            if known and self._refers(worker, oid) and not self._is_news(worker, oid):
                raise Violation(f"invariant 11: {word} is freed, and {worker.name} refers to it")

    def _is_news(self, worker: SimWorker, oid: bytes) -> bool:
        """Whether it yields an item again that its consumer took from an attempt of before and has
        let go of: what was freed is that one, and the PUT of this one is on its way."""
        return worker.streams.yields(oid) and worker.worker_id not in self._item_holders[oid]

    @staticmethod
    def _refers(process: Caller, oid: bytes) -> bool:
        """Whether it needs the cluster's: of a call that was given up it has an error of its own,
        whatever comes of the call later."""
        references = process.client.references
        return oid in references.counts and oid not in references.own

    def durable(self, head: SimHead) -> None:
        """Invariant 12: nobody takes part, and no function runs, before its row is durable."""
        rows = head.durable()
        nodes, jobs, functions = (rows.get(name, {}) for name in ("nodes", "jobs", "functions"))
        gcs = head.gcs
        for session in gcs.sessions.by_route.values():
            process_id = session.member.process_id
            if process_id in gcs.members.nodes and session.member is gcs.members.nodes[process_id]:
                row = nodes.get(process_id)
                if row is None or msgspec.msgpack.decode(row, type=NodeRow).incarnation < (
                    session.member.incarnation
                ):
                    raise Violation(f"invariant 12: node {process_id.hex()} is not durable")
            elif process_id in gcs.members.jobs and process_id not in jobs:
                raise Violation(f"invariant 12: job {process_id.hex()} is not durable")
        if not functions.keys() >= gcs.catalog.functions.keys():
            raise Violation("invariant 12: a function is used that is not durable")

    def durable_actors(self, head: SimHead) -> None:
        """Invariant 12: nobody calls an incarnation before its row is durable."""
        rows = head.durable().get("actors", {})
        known: list[Caller] = [driver for driver in self._population.drivers if driver.alive]
        for caller in (*known, *self._population.workers.values()):
            for actor_id, actor in caller.client.calls.actors.items():
                if actor.state != ACTOR_ALIVE or actor_id not in rows:
                    continue
                row = msgspec.msgpack.decode(rows[actor_id], type=ActorRow)
                if row.incarnation < actor.incarnation:
                    raise Violation(
                        f"invariant 12: {caller.name} knows incarnation {actor.incarnation} of "
                        f"{self._ledger.word(actor_id)}, {row.incarnation} is durable"
                    )

    def actors(self, head: SimHead) -> None:
        """The head's table of actors agrees with itself; who is not alive is on its way."""
        gcs = head.gcs
        records = gcs.actor_table
        for node in gcs.members.nodes.values():
            for actor_id in node.actors:
                record = records.get(actor_id)
                if record is None or record.node_id != node.process_id:
                    word = self._ledger.word(actor_id)
                    raise Violation(f"{node.info.name} lists {word}, which is not there")
        for actor_id, record in records.items():
            word = self._ledger.word(actor_id)
            if record.lives(record.incarnation):
                place = gcs.members.nodes.get(record.node_id)
                if place is None or actor_id not in place.actors:
                    raise Violation(f"{word} lives at a node that does not list it")
                if actor_id in gcs.tasks:
                    raise Violation(f"{word} lives and is made again")
            elif record.unconfirmed or record.state == ACTOR_DEAD:
                continue
            elif actor_id not in gcs.tasks and actor_id not in gcs.incarnations._launches:
                if not gcs.journal.waits():
                    raise Violation(f"invariant 7: {word} is neither alive nor on its way")
            elif actor_id not in gcs.tasks and not record.reason(self._world.clock.now):
                raise Violation(f"invariant 7: {word} waits without a reason")
        spaces = gcs.actor_directory.names
        names = {(space, name): spaces[space][name] for space in spaces for name in spaces[space]}
        for key, actor_id in names.items():
            named = records.get(actor_id)
            if named is None or (named.info.namespace, named.info.name) != key:
                raise Violation(f"the name {key} stands for no actor")

    def near_tasks(self, head: SimHead) -> None:
        """Tasks that only their node knows are nowhere else, and belong to a worker of it."""
        for raylet in self._population.raylets:
            if not raylet.alive:
                continue
            machine = raylet.raylet
            counted = (machine.scheduler.queued_near, sum(machine.scheduler.queued_jobs.values()))
            queued = [task for queue in machine.scheduler.queues.values() for task in queue]
            if counted != (sum(task.near is not None for task in queued), len(queued)):
                raise Violation(f"{raylet.name} counts {counted} of {len(queued)} queued tasks")
            principals = machine.worker_requests.principals
            for task_id, task in machine.near_tasks.tasks.items():
                word = self._ledger.word(task_id)
                if task.near is None or machine.tasks.held.get(task_id) is not task:
                    raise Violation(f"{word} is near {raylet.name} and not held there")
                if task_id in head.gcs.tasks:
                    raise Violation(f"{word} is near {raylet.name}, and the head's")
                if task.near.submitter not in principals and not task.cancelled:
                    raise Violation(f"{word} goes on, and whoever submitted it is gone")

    def groups(self, head: SimHead) -> None:
        """Bundles are reserved once, on all nodes or on none, and never more than a node has."""
        gcs = head.gcs
        there: dict[tuple[bytes, int], str] = {}
        for raylet in self._population.raylets:
            machine = raylet.raylet
            member = gcs.members.nodes.get(machine.node_id)
            if not raylet.alive or member is None or member.incarnation != machine.incarnation:
                continue
            reserved: dict[str, int] = {}
            for held in machine.bundles.announced():
                for name, amount in held.resources:
                    reserved[name] = reserved.get(name, 0) + amount
                if held.committed:
                    key = (held.group_id, held.index)
                    if key in there:
                        raise Violation(f"{key} is on {there[key]} and on {raylet.name}")
                    there[key] = raylet.name
            for name, amount in reserved.items():
                if amount > dict(machine.info.resources).get(name, 0):
                    raise Violation(f"{raylet.name} has reserved {amount} of {name}")
        rows = head.durable().get("placement_groups", {})
        for record in gcs.placement.values():
            word = f"group {record.group_id.hex()[:8]}"
            where = [there.get((record.group_id, i)) for i in range(len(record.places))]
            if any(where) and record.group_id not in rows:
                raise Violation(f"invariant 12: {word} has bundles, and is not durable")
            if record.state == m.GROUP_CREATED and not record.is_whole() and not record.expected:
                raise Violation(f"{word} is there, but for {record.unplaced()}")
            if record.state == m.GROUP_PENDING and any(where) and not record.placed:
                raise Violation(f"{word} has bundles that can be used, and others have no place")
            strategy, places = record.request.strategy, [p for p in record.places if p]
            if strategy == bundles.STRICT_PACK and len({*places}) > 1:
                raise Violation(f"{word} is to be on one node")
            if strategy == bundles.STRICT_SPREAD and len({*places}) < len(places):
                raise Violation(f"{word} is to be on different nodes")

    def resources(self, _: SimHead) -> None:
        """A raylet's free resources are its total minus what busy workers have."""
        for raylet in self._population.raylets:
            if not raylet.alive:
                continue
            scheduler = raylet.raylet.scheduler
            used = dict.fromkeys(scheduler.total, 0)
            for slot in scheduler.workers.values():
                if slot.busy:
                    for name, amount in slot.needs:
                        if not (slot.blocked and bundles.is_cpu(name)):
                            used[name] = used.get(name, 0) + amount
            for held in raylet.raylet.bundles.announced():
                for name, amount in held.resources:
                    used[name] = used.get(name, 0) + amount
            for name, total in scheduler.total.items():
                if scheduler.free.get(name, 0) + used[name] != total:
                    raise Violation(
                        f"{raylet.name}: {name} free {scheduler.free.get(name, 0)}, used "
                        f"{used[name]}, total {total}"
                    )
            busy = [s for s in scheduler.workers.values() if s.busy and not s.makes_actor()]
            if {slot.worker_id for slot in busy} != scheduler.active.keys():
                raise Violation(f"{raylet.name}: {len(scheduler.active)} counted as busy")
            waiting = {slot.worker_id for slot in scheduler.workers.values() if slot.blocked}
            if waiting != scheduler.blocked.keys():
                raise Violation(f"{raylet.name}: {len(scheduler.blocked)} counted as blocked")
