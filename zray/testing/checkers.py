"""The invariants of the design, looked at in the machines' own state as a simulation runs.

Each checker names the invariant it guards. They read, and never change, what they look at.
"""

from __future__ import annotations

from collections.abc import Sized
from typing import TYPE_CHECKING

import msgspec

from zray import limits
from zray.core.head import state_queries as overview
from zray.core.head.actor_records import ActorRow
from zray.core.head.members import NodeRow
from zray.core.head.object_table import PENDING
from zray.core.head.task_records import ASSIGNED, READY
from zray.ids import object_id
from zray.protocol.messages import ACTOR_ALIVE, ACTOR_DEAD
from zray.testing.call_ledger import Violation

if TYPE_CHECKING:
    from zray.testing.callers import Caller
    from zray.testing.cluster import SimCluster
    from zray.testing.processes import SimProcess

SMALL = 80  # tasks and objects at the head up to which everything is looked at in each step


class Checkers:
    """Runs all checkers after each turn while the state is small, else one in turn."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._turn = 0
        self._settled: set[bytes] = set()  # objects that the head had after its last turn
        self._epoch = 0
        self._followed: dict[str, int] = {}  # peer -> the latest epoch that it knew
        self._alone: dict[bytes, list[bytes]] = {}  # worker -> its tasks that it alone wants
        self._checks = [
            self.one_holder,
            self.counts,
            self.incarnations,
            self.epochs,
            self.reasons,
            self.bounds,
            self.holders,
            self.durable,
            self.durable_actors,
            self.actors,
            self.resources,
        ]

    def step(self, process: SimProcess) -> None:
        """A process had a turn."""
        head = self._cluster.head
        if head is None:
            return
        if process is head:
            self.orphans()
            self.frees()
        self._turn += 1
        if len(head.gcs.tasks) + len(head.gcs.objects.records) <= SMALL:
            for check in self._checks:
                check()
        else:
            self._checks[self._turn % len(self._checks)]()

    # ---- while it runs ---------------------------------------------------------------------

    def one_holder(self) -> None:
        """Invariant 2: no two raylets that count hold one task; the head's records agree."""
        cluster = self._cluster
        assert cluster.head is not None
        gcs = cluster.head.gcs
        for task_id, record in gcs.tasks.items():
            held = record.node is not None and record.node.assigned.get(task_id) is record
            if held != (record.state == ASSIGNED):
                word = cluster.ledger.word(task_id)
                raise Violation(f"invariant 2: {word} in state {record.state}, held: {held}")
            if record.cancelled and not held:
                raise Violation(f"{cluster.ledger.word(task_id)} is cancelled, and waits to run")

    def counts(self) -> None:
        """The scheduler's counters are what they count."""
        cluster = self._cluster
        assert cluster.head is not None
        scheduler = cluster.head.gcs.scheduler
        for needs, group in scheduler.classes.items():
            ready = sum(
                1 for queue in group.queues.values() for record in queue if record.state == READY
            )
            ahead = sum(node.ahead.get(needs, 0) for node in scheduler.nodes.values())
            if ready != group.ready or ahead != group.ahead:
                raise Violation(
                    f"class {needs}: {group.ready} ready and {group.ahead} ahead are counted, "
                    f"{ready} and {ahead} there"
                )
        for node in scheduler.nodes.values():
            if any(record.node is not node for record in node.assigned.values()):
                raise Violation(f"invariant 2: node {node.node_id.hex()} lists a foreign task")

    def incarnations(self) -> None:
        """Invariant 5: what was declared dead has no session and no task."""
        cluster = self._cluster
        assert cluster.head is not None
        members = cluster.head.gcs.members
        for node_id, node in members.nodes.items():
            if node.announced and not node.ended and members.fenced(node_id, node.incarnation):
                raise Violation(f"invariant 5: node {node.info.name} is fenced and takes part")

    def epochs(self) -> None:
        """Invariant 6: nobody follows a head of the past."""
        cluster = self._cluster
        assert cluster.head is not None
        epoch = cluster.head.gcs.epoch
        for raylet in cluster.raylets:
            if raylet.alive and raylet.raylet.epoch > epoch:
                raise Violation(f"invariant 6: {raylet.name} follows epoch {raylet.raylet.epoch}")
        followed = {raylet.name: raylet.raylet.epoch for raylet in cluster.raylets}
        followed |= {driver.name: driver.client.epoch for driver in cluster.drivers}
        for name, known in followed.items():
            if known < self._followed.get(name, 0):
                raise Violation(f"invariant 6: {name} follows epoch {known} once more")
        self._followed = followed

    def reasons(self) -> None:
        """Invariant 7: whatever waits has a reason."""
        cluster = self._cluster
        assert cluster.head is not None
        for task_id, record in [*cluster.head.gcs.tasks.items()][:20]:
            reason = overview.task_reason(cluster.head.gcs, record)
            if not reason or reason.startswith("UNKNOWN"):
                raise Violation(f"invariant 7: {cluster.ledger.word(task_id)} waits: {reason!r}")

    def bounds(self) -> None:
        """Invariant 8: windows, credit and the cache keep their bounds."""
        cluster = self._cluster
        assert cluster.head is not None
        for driver in cluster.drivers:
            if driver.client.in_flight > limits.CLIENT_WINDOW_TASKS + 10_000:
                raise Violation(f"invariant 8: {driver.name} has {driver.client.in_flight} out")
            if driver.client.in_flight < 0:
                raise Violation(f"invariant 8: {driver.name} counts {driver.client.in_flight}")
        for raylet in cluster.raylets:
            # Beside its credit, what its workers had in their inboxes and gave back.
            scheduler = raylet.raylet.scheduler
            inboxes = limits.WORKER_BATCH_TASKS_MAX * (1 + len(scheduler.workers))
            if raylet.alive and scheduler.queued > limits.RAYLET_UNSTARTED_TASKS + inboxes:
                raise Violation(f"invariant 8: {raylet.name} has {scheduler.queued} in its queue")
        for node in cluster.head.gcs.scheduler.nodes.values():
            # What workers give back makes a raylet grant less than it did before.
            if node.credit() < -2 * limits.RAYLET_UNSTARTED_TASKS:
                raise Violation(f"invariant 8: credit {node.credit()}")
        if cluster.head.gcs.objects.cache_bytes > limits.HEAD_CACHE_BYTES:
            raise Violation("invariant 8: the head's cache is too large")

    def holders(self) -> None:
        """Invariant 11: whatever a process, a task or an object refers to is still there.

        Looked at from the side of those who refer: programs' live references, arguments of
        unfinished tasks, contents of settled objects.
        """
        cluster = self._cluster
        assert cluster.head is not None
        gcs = cluster.head.gcs
        if gcs.recovering():
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
                    word = cluster.ledger.word(task_id)
                    raise Violation(f"invariant 11: an argument of {word} is gone")

    def orphans(self) -> None:
        """Tasks of a worker that is gone end, unless somebody else has their references."""
        cluster = self._cluster
        assert cluster.head is not None
        gcs = cluster.head.gcs
        for submitter, task_ids in self._alone.items() if gcs.epoch == self._epoch else ():
            if gcs.processes.lives(submitter):
                continue
            for task_id in task_ids:
                record = gcs.tasks.get(task_id)
                if record is not None and not record.cancelled and not self._holders(task_id):
                    word = cluster.ledger.word(task_id)
                    raise Violation(f"{word} goes on, and whoever submitted it is gone")
        self._alone = {}
        if len(gcs.tasks) <= SMALL:
            for submitter in gcs.processes.workers:
                tasks = [task_id for task_id, _ in gcs.tasks.of_submitter(submitter)]
                alone = [task_id for task_id in tasks if self._holders(task_id) <= {submitter}]
                if alone:
                    self._alone[submitter] = alone

    def _holders(self, task_id: bytes) -> set[bytes]:
        """Who holds any of a task's returns."""
        cluster = self._cluster
        assert cluster.head is not None
        template = cluster.head.gcs.tasks[task_id].template
        found: set[bytes] = set()
        for index in range(template.message.num_returns if template is not None else 1):
            record = cluster.head.gcs.objects.get(object_id(task_id, index))
            held = record.holders if record is not None else None
            found.update([held] if isinstance(held, bytes) else held or ())
        return found

    def frees(self) -> None:
        """Invariant 11, from the side of those who refer: what they refer to is not freed."""
        cluster = self._cluster
        assert cluster.head is not None
        gcs = cluster.head.gcs
        records = gcs.objects.records
        if gcs.epoch == self._epoch:
            gone = [oid for oid in self._settled if oid not in records]
            for oid in sorted(gone):
                self._nobody_refers(oid)
        self._epoch = gcs.epoch
        self._settled = {oid for oid, record in records.items() if record.kind != PENDING}

    def _nobody_refers(self, oid: bytes) -> None:
        cluster = self._cluster
        assert cluster.head is not None
        gcs = cluster.head.gcs
        if oid in cluster.ledger.calls.orphans:
            return
        word = f"{cluster.ledger.word(oid[:16])}[{oid[-1]}]"
        for driver in cluster.drivers:
            known = driver.alive and driver.process_id in gcs.members.jobs
            if known and oid in driver.client.references.counts:
                raise Violation(f"invariant 11: {word} is freed, and {driver.name} refers to it")
        for worker in cluster.workers.values():
            known = worker.worker_id in gcs.processes.workers and worker.key[0] in gcs.members.jobs
            if known and oid in worker.client.references.counts:
                raise Violation(f"invariant 11: {word} is freed, and {worker.name} refers to it")

    def durable(self) -> None:
        """Invariant 12: nobody takes part, and no function runs, before its row is durable."""
        cluster = self._cluster
        assert cluster.head is not None
        rows = cluster.store._rows
        nodes, jobs, functions = (rows.get(name, {}) for name in ("nodes", "jobs", "functions"))
        gcs = cluster.head.gcs
        for session in cluster.head.controller.sessions.values():
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

    def durable_actors(self) -> None:
        """Invariant 12: nobody calls an incarnation before its row is durable."""
        cluster = self._cluster
        assert cluster.head is not None
        rows = cluster.store._rows.get("actors", {})
        known: list[Caller] = [driver for driver in cluster.drivers if driver.alive]
        for caller in (*known, *cluster.workers.values()):
            for actor_id, actor in caller.client.calls.actors.items():
                if actor.state != ACTOR_ALIVE or actor_id not in rows:
                    continue
                row = msgspec.msgpack.decode(rows[actor_id], type=ActorRow)
                if row.incarnation < actor.incarnation:
                    raise Violation(
                        f"invariant 12: {caller.name} knows incarnation {actor.incarnation} of "
                        f"{cluster.ledger.word(actor_id)}, {row.incarnation} is durable"
                    )

    def actors(self) -> None:
        """The head's table of actors agrees with itself; who is not alive is on its way."""
        cluster = self._cluster
        assert cluster.head is not None
        gcs = cluster.head.gcs
        table = gcs.actors
        for node in gcs.members.nodes.values():
            for actor_id in node.actors:
                record = table.records.get(actor_id)
                if record is None or record.node_id != node.process_id:
                    word = cluster.ledger.word(actor_id)
                    raise Violation(f"{node.info.name} lists {word}, which is not there")
        for actor_id, record in table.records.items():
            word = cluster.ledger.word(actor_id)
            if record.lives(record.incarnation):
                place = gcs.members.nodes.get(record.node_id)
                if place is None or actor_id not in place.actors:
                    raise Violation(f"{word} lives at a node that does not list it")
                if actor_id in gcs.tasks:
                    raise Violation(f"{word} lives and is made again")
            elif record.unconfirmed or record.state == ACTOR_DEAD:
                continue
            elif actor_id not in gcs.tasks and actor_id not in table._launches:
                if not gcs.journal.waits():
                    raise Violation(f"invariant 7: {word} is neither alive nor on its way")
            elif actor_id not in gcs.tasks and not record.reason(cluster.clock.now):
                raise Violation(f"invariant 7: {word} waits without a reason")
        spaces = table.directory.names
        names = {(space, name): spaces[space][name] for space in spaces for name in spaces[space]}
        for key, actor_id in names.items():
            named = table.records.get(actor_id)
            if named is None or (named.info.namespace, named.info.name) != key:
                raise Violation(f"the name {key} stands for no actor")

    def resources(self) -> None:
        """A raylet's free resources are its total minus what busy workers have."""
        for raylet in self._cluster.raylets:
            if not raylet.alive:
                continue
            scheduler = raylet.raylet.scheduler
            used = dict.fromkeys(scheduler.total, 0)
            for slot in scheduler.workers.values():
                if slot.busy:
                    for name, amount in slot.needs:
                        if not (slot.blocked and name == "CPU"):
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

    # ---- at the end ------------------------------------------------------------------------

    def left(self) -> list[str]:
        """What is still there although nobody needs anything any more; empty: nothing."""
        cluster = self._cluster
        if cluster.head is None:
            return ["no head"]
        gcs = cluster.head.gcs
        found = []
        name = cluster.process_name
        if gcs.recovering():
            found.append("the head still recovers")
        for task_id, task in gcs.tasks.items():
            found.append(f"task {cluster.ledger.word(task_id)} in state {task.state}")
        for oid, record in gcs.objects.records.items():
            kind = "pending " if record.kind == PENDING else ""
            held = record.holders
            holders = [held] if isinstance(held, bytes) else [*(held or ())]
            words = [name(holder) for holder in holders]
            word = cluster.ledger.word(oid[:16])
            found.append(f"{kind}object {word}[{oid[-1]}] of {words}")
        tables: dict[str, Sized] = {
            "held_by": {k: v for k, v in gcs.objects.held_by.items() if v},
            "unknown": gcs.holders.unknown,
            "promised objects": gcs.holders._promised,
            "promises": [oid for ids in gcs.holders._promises.values() for oid in ids],
            "actors": gcs.actors.records,
            "names": gcs.actors.directory.names,
            "launches": gcs.actors._launches,
            "actors not made": gcs.actors.directory.unmade,
            "watches": [a for ids in gcs.actors.directory.watching.values() for a in ids],
            "actors at nodes": [a for node in gcs.members.nodes.values() for a in node.actors],
            "unacknowledged results": gcs.results.unacked,
            "relays": gcs.transfers._relays,
            "cached values": gcs.objects.cache,
            "own values": gcs.objects.own,
            "journal": [1] * bool(gcs.journal),
            "functions that nobody needs": [
                function
                for function in gcs.definitions._functions.values()
                if not any(map(gcs.processes.lives, function.holders))
            ],
            "rows of jobs that ended": cluster.store._rows.get("jobs", {}).keys()
            - gcs.members.jobs.keys(),
            "rows of actors": cluster.store._rows.get("actors", {}),
            "tasks by parent": gcs.tasks._children,
            "tasks by job": [
                g for groups in gcs.tasks._by_job.values() for g in groups.values() if g
            ],
            "actors by owner": gcs.actors.records._of_owners,
        }
        found += [f"{len(table)} {word}" for word, table in tables.items() if table]
        if gcs.objects.cache_bytes:
            found.append(f"{gcs.objects.cache_bytes} bytes counted in the cache")
        for view in gcs.scheduler.nodes.values():
            free = {key: n for key, n in view.free.items() if view.total.get(key, 0) != n}
            if free:
                found.append(f"the head thinks {name(view.node_id)} has only {free} free")
        found += self._left_at_raylets() + self._left_at_drivers()
        return found

    def _left_at_raylets(self) -> list[str]:
        found = []
        for raylet in self._cluster.raylets:
            if not raylet.alive:
                continue
            machine = raylet.raylet
            principals = machine.worker_requests.principals.values()
            tables: dict[str, Sized] = {
                "tasks": machine.tasks.held,
                "objects": machine.objects.stored,
                "fetches": machine.objects._fetches,
                "outgoing transfers": machine.objects.server.sending,
                "unacknowledged ends": machine.completions.unacked,
                "queued tasks": range(machine.scheduler.queued),
                "specs in the redo log": [t for p in principals for t in p.unresolved],
                "holds of workers": [oid for p in principals for oid in p.holds],
                "requests": machine.worker_requests._asked,
                "actors": machine.actors._slots,
                "promises of workers": [oid for p in principals for oid in p.promised],
                "actors of workers": [a for p in principals for a in (*p.owned, *p.actors)],
            }
            found += [
                f"{raylet.name} has {len(table)} {word}" for word, table in tables.items() if table
            ]
            if machine.scheduler.free != machine.scheduler.total:
                found.append(f"{raylet.name} has only {machine.scheduler.free} free")
            if any(amount != limits.RESOURCE_UNIT for amount in machine.scheduler.gpu_free):
                found.append(f"{raylet.name} has GPUs in use: {machine.scheduler.gpu_free}")
        return found

    def _left_at_drivers(self) -> list[str]:
        found = []
        for driver in self._cluster.drivers:
            if not driver.alive or driver.client.stopped:
                continue
            client = driver.client
            tables: dict[str, Sized] = {
                "held objects": client.references.held,
                "outcomes": client.outcomes,
                "references": client.references.counts,
                "outgoing transfers": client.values.server.sending,
                "unresolved tasks": client.unresolved,
                "backlog": client.backlog,
                "actors": client.calls.actors,
                "calls": client.calls._by_task,
                "results without an answer": client.call_results.awaited,
                "promises": client.call_results.promised,
                "actors to be made": client.calls._creations,
                "direct sockets": driver.wires,
            }
            found += [f"{driver.name} has {len(t)} {word}" for word, t in tables.items() if t]
            if client.in_flight or client._in_flight_bytes:
                found.append(f"{driver.name} counts {client.in_flight} tasks in flight")
        return found
