"""What is still there at the end of a simulation, although nobody needs anything any more."""

from __future__ import annotations

from collections.abc import Sized

from zray import limits
from zray.core import resources
from zray.core.head.gcs import Gcs
from zray.core.head.leases import Leases
from zray.core.head.object_table import PENDING
from zray.testing.judgement.ledger import Ledger
from zray.testing.processes.head import SimHead
from zray.testing.processes.population import Population
from zray.testing.world.world import World


class Leftovers:
    """Looks for them in the tables of every machine."""

    def __init__(self, world: World, population: Population, ledger: Ledger) -> None:
        self._world = world
        self._population = population
        self._ledger = ledger

    def found(self) -> list[str]:
        """What is still there although nobody needs anything any more; empty: nothing."""
        population = self._population
        if population.head is None:
            return ["no head"]
        gcs = population.head.gcs
        found = ["the head still recovers"] if gcs.recovery.active else []
        name = self._world.name
        for task_id, task in gcs.tasks.items():
            found.append(f"task {self._ledger.word(task_id)} in state {task.state}")
        for oid, record in gcs.objects.records.items():
            kind = "pending " if record.kind == PENDING else ""
            held = record.holders
            holders = [held] if isinstance(held, bytes) else [*(held or ())]
            words = [name(holder) for holder in holders]
            word = self._ledger.word(oid[:16])
            found.append(f"{kind}object {word}[{oid[-1]}] of {words}")
        tables: dict[str, Sized] = {
            "held_by": {k: v for k, v in gcs.objects.held_by.items() if v},
            "unknown": gcs.holders.unknown,
            "promised objects": gcs.holders._promised,
            "promises": [oid for ids in gcs.holders._promises.values() for oid in ids],
            "actors": gcs.actor_table,
            "names": gcs.actor_directory.names,
            "launches": gcs.incarnations._launches,
            "actors not made": gcs.actor_directory.unmade,
            "watches": [a for ids in gcs.actor_directory.watching.values() for a in ids],
            "actors at nodes": [a for node in gcs.members.nodes.values() for a in node.actors],
            "unacknowledged results": gcs.results.unacked,
            "relays": gcs.transfers._relays,
            "tasks to be run again": gcs.lineage.origins,
            "tasks that those need": gcs.lineage._dependents,
            "items": gcs.objects.items,
            "cached values": gcs.objects.cache,
            "own values": gcs.objects.own,
            "journal": [1] * bool(gcs.journal),
            "functions that nobody needs": [
                function
                for function in gcs.definitions._functions.values()
                if not any(map(gcs.processes.lives, function.holders))
            ],
            "rows of jobs that ended": population.head.durable().get("jobs", {}).keys()
            - gcs.members.jobs.keys(),
            "rows of actors": population.head.durable().get("actors", {}),
            "tasks by parent": gcs.tasks._children,
            "tasks by job": [
                g for groups in gcs.tasks._by_job.values() for g in groups.values() if g
            ],
            "actors by owner": gcs.actor_table._of_owners,
            **self._of_groups(gcs, population.head),
            **self._of_leases(gcs.leases),
        }
        found += [f"{len(table)} {word}" for word, table in tables.items() if table]
        if gcs.objects.cache_bytes:
            found.append(f"{gcs.objects.cache_bytes} bytes counted in the cache")
        for view in gcs.scheduler.nodes.values():
            if free := _in_use(view.free, view.total):
                found.append(f"the head thinks {name(view.node_id)} has only {free} free")
        found += self._left_at_raylets() + self._left_at_drivers()
        return found

    @staticmethod
    def _of_groups(gcs: Gcs, head: SimHead) -> dict[str, Sized]:
        return {
            "placement groups": [*gcs.placement.values()],
            "rows of placement groups": head.durable().get("placement_groups", {}),
            "bundles at nodes": [b for view in gcs.scheduler.nodes.values() for b in view.bundles],
            "classes in groups": gcs.scheduler.in_groups._classes,
            "homes of groups": gcs.scheduler.in_groups.homes,
            "groups that wait": gcs.placement_groups.queue._shape_of,
        }

    @staticmethod
    def _of_leases(leases: Leases) -> dict[str, Sized]:
        table = leases._table
        return {
            "leases": table.leases,
            "leases at nodes": table._by_node,
            "demands that wait": [one for one in table.active.values() if one.count],
            "leases without an end": leases._silent,
        }

    def _left_at_raylets(self) -> list[str]:
        found = []
        for raylet in self._population.raylets:
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
                "bundles": machine.bundles.announced(),
                "promises of workers": [oid for p in principals for oid in p.promised],
                "actors of workers": [a for p in principals for a in (*p.owned, *p.actors)],
                "leases": machine.leases._slots,
                "relayed leases": machine.lease_relays._relays,
                "sockets to leased workers": raylet.relays.wires,
                "near tasks": machine.near_tasks.tasks,
                "near tasks by parent": machine.near_tasks._children,
                "near tasks by argument": machine.near_tasks._dependents,
                "near results": machine.near_tasks.results._results,
                "pins": machine.near_tasks.results.pins,
                "leased workers": [w for w in machine.scheduler.workers.values() if w.lease],
            }
            found += [
                f"{raylet.name} has {len(table)} {word}" for word, table in tables.items() if table
            ]
            if _in_use(machine.scheduler.free, machine.scheduler.total):
                found.append(f"{raylet.name} has only {machine.scheduler.free} free")
            if any(amount != limits.RESOURCE_UNIT for amount in machine.scheduler.gpus.free):
                found.append(f"{raylet.name} has GPUs in use: {machine.scheduler.gpus.free}")
        return found

    def _left_at_drivers(self) -> list[str]:
        found = []
        for driver in self._population.drivers:
            if not driver.alive or driver.client.stopped:
                continue
            client = driver.client
            tables: dict[str, Sized] = {
                "held objects": client.references.held,
                "outcomes": client.outcomes,
                "references": client.references.counts,
                "outgoing transfers": client.values.server.sending,
                "unresolved tasks": client.unresolved,
                "backlog": client.tasks.backlog,
                "actors": client.calls.actors,
                "calls": client.calls._by_task,
                "results without an answer": client.call_results.awaited,
                "promises": client.call_results.promised,
                "passed references": client.unasked.passed,
                "actors to be made": client.creations.waiting,
                "generators": client.streams,
                "direct sockets": driver.wires,
                "leased tasks": client.leased_tasks._by_task,
                "tasks that wait for results": client.leased_tasks._dependents,
                "tasks that wait for leases": [
                    task
                    for group in client.leased_tasks._classes.values()
                    for task in group.waiting
                ],
                "leases": client.leases._leases,
                "leases on other machines": client.far_leases._leases,
                "ends that workers keep": client.leases._unsettled,
                "sockets of leases": driver.leased.wires,
            }
            found += [f"{driver.name} has {len(t)} {word}" for word, t in tables.items() if t]
            if client.tasks.in_flight or client.tasks._in_flight_bytes:
                found.append(f"{driver.name} counts {client.tasks.in_flight} tasks in flight")
        return found


def _in_use(free: resources.Vector, total: resources.Vector) -> resources.Vector:
    """What is free of resources of which not all is; of those that are counted."""
    counted = resources.countable(free.items())
    return {name: amount for name, amount in counted if total.get(name, 0) != amount}
