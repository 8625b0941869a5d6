"""The figures of the head and of the cluster as it sees it, for metrics.

Reads the tables when somebody asks: what it costs grows with nodes, actors, jobs and kinds of
waiting tasks, never with tasks. What each metric means is in `zray.metrics.catalog`.
"""

from __future__ import annotations

from collections.abc import Callable

from zray import limits
from zray.core.head.identity import HeadIdentity
from zray.core.head.members import JobMember, NodeMember
from zray.core.head.standby import in_words
from zray.core.head.tables import Tables
from zray.core.head.task_history import OTHERS
from zray.core.head.task_records import READY
from zray.core.resources import countable
from zray.protocol import messages as m

CONNECTED, AWAY, DETACHED = "CONNECTED", "AWAY", "DETACHED"
PLACE = "node:"  # of resources that stand for a node itself
NODE_STATES = ("ALIVE", "SUSPECT", "JOINING", "DRAINING")


class HeadFigures:
    """``waiting``: what waits and why, as in a status. ``health``: in words.

    ``unfinished``: how many tasks the head knows that have no outcome.
    """

    def __init__(
        self,
        identity: HeadIdentity,
        tables: Tables,
        waiting: Callable[[], list[m.ClassStatus]],
        health: Callable[[float], str],
        unfinished: Callable[[], int],
    ) -> None:
        self._identity = identity
        self._tables = tables
        self._waiting = waiting
        self._health = health
        self._unfinished = unfinished
        self._unsubmitted = 0  # as was told last: it may not fall
        self._ended: dict[tuple[str, str, str], int] = {}  # as was told last: it may not fall

    def all(self, now: float) -> list[m.Figure]:
        """Everything, as it is now."""
        return [
            *self._head(now),
            *self._tasks(now),
            *self._ends(),
            *self._nodes(now),
            *self._resources(),
            *self._actors(),
            *self._others(),
            *self._groups(),
        ]

    def _head(self, now: float) -> list[m.Figure]:
        identity, tables = self._identity, self._tables
        versions = identity.versions
        about = [identity.cluster_id.hex(), versions.zray, versions.python]
        health = self._health(now)
        return [
            m.Figure("zray_cluster_info", 1.0, about),
            m.Figure("zray_head_epoch", identity.epoch),
            m.Figure("zray_head_start_time_seconds", identity.started_s),
            m.Figure("zray_head_healthy", float(health == "OK")),
            m.Figure("zray_head_recovering", float(tables.recovery.active)),
            m.Figure("zray_store_stalled", float(bool(tables.store.trouble))),
            m.Figure("zray_head_superseded", float(bool(tables.store.later_epoch))),
            *self._heads(),
        ]

    def _heads(self) -> list[m.Figure]:
        succession = self._tables.succession
        leads = [
            m.Figure("zray_head_leads", float(head.leads), [in_words(head), head.host])
            for head in succession.heads
        ]
        return [
            m.Figure("zray_heads", max(1, len(leads))),
            *leads,
            m.Figure("zray_head_terms_total", succession.terms),
            m.Figure("zray_head_takeover_seconds", succession.took_s),
        ]

    # ---- tasks -----------------------------------------------------------------------------

    def _tasks(self, now: float) -> list[m.Figure]:
        tables = self._tables
        ready = given = ahead = running = 0
        longest = 0.0
        for group in tables.scheduler.all_groups():
            ready += group.ready
            for queue in group.queues.values() if group.ready else ():
                first = queue.first()
                if first.state == READY and first.since >= 0:
                    longest = max(longest, now - first.since)
        for node in tables.members.nodes.values():
            view = node.view
            sent = sum(view.ahead.values())
            near, near_waits = view.near_counts()
            given += len(view.assigned)
            ahead += sent + near_waits
            held = len(view.assigned) + tables.lease_table.count_at(node.process_id)
            running += held - sent + max(0, near - near_waits)
        wanted = sum(demand.count for demand in tables.lease_table.active.values())
        states = {
            m.PENDING_ARGS_AVAIL: max(0, self._unfinished() - ready - given),
            m.PENDING_NODE_ASSIGNMENT: ready + wanted,
            m.SUBMITTED_TO_WORKER: ahead,
            m.RUNNING: running,
        }
        reasons: dict[str, int] = {}
        for one in self._waiting():
            code = one.reason.partition(":")[0][:64]
            reasons[code] = reasons.get(code, 0) + one.waiting
        return [
            *(m.Figure("zray_tasks", count, [state]) for state, count in states.items()),
            *(m.Figure("zray_tasks_pending", count, [code]) for code, count in reasons.items()),
            m.Figure("zray_tasks_pending_longest_seconds", longest),
            tables.scheduler.waits.figure("zray_task_queue_seconds", []),
        ]

    def _ends(self) -> list[m.Figure]:
        """How attempts have ended, by the first functions that did, and of all others."""
        sums: dict[tuple[str, str, str], int] = {}
        names: dict[str, None] = {}
        for name, kind, finished, failed in self._tables.events.tasks.tallies():
            if name not in names and len(names) >= limits.FUNCTIONS_MEASURED_MAX:
                name = OTHERS
            names[name] = None
            for state, count in ((m.ENDED_WELL, finished), (m.ENDED_BADLY, failed)):
                sums[name, kind, state] = sums.get((name, kind, state), 0) + count
        for key, count in sums.items():
            self._ended[key] = max(count, self._ended.get(key, 0))
        counters = self._tables.counters
        history = self._tables.events.tasks
        self._unsubmitted = max(self._unsubmitted, history.unsubmitted)
        return [
            *(m.Figure("zray_tasks_ended_total", n, [*key]) for key, n in self._ended.items()),
            m.Figure("zray_tasks_submitted_total", counters["submitted"] + self._unsubmitted),
            m.Figure("zray_tasks_untold_total", history.dropped),
            m.Figure("zray_task_retries_total", counters["retried"]),
            m.Figure("zray_stale_results_total", counters["stale"]),
            m.Figure("zray_objects_lost_total", counters["lost"]),
            m.Figure("zray_objects_rebuilt_total", counters["rebuilt"]),
            m.Figure("zray_tasks_reclaimed_total", counters["reclaimed"]),
            m.Figure("zray_tasks_resubmitted_total", counters["resubmitted"]),
        ]

    # ---- nodes and what is on them ---------------------------------------------------------

    def _nodes(self, now: float) -> list[m.Figure]:
        tables = self._tables
        nodes = [*tables.members.nodes.values()]
        states = dict.fromkeys(NODE_STATES, 0)
        for node in nodes:
            states[node.state()] += 1
        deaths = tables.events.node_deaths
        return [
            *(m.Figure("zray_nodes", count, [state]) for state, count in states.items()),
            m.Figure("zray_nodes_awaited", len(tables.members.awaited)),
            *(m.Figure("zray_node_deaths_total", n, [how]) for how, n in deaths.items()),
            *(figure for node in nodes for figure in self._node(node, now)),
        ]

    def _node(self, node: NodeMember, now: float) -> list[m.Figure]:
        name, events = node.info.name, self._tables.events
        return [
            m.Figure("zray_node_up", float(node.view.live), [name]),
            m.Figure("zray_node_silent_seconds", max(0.0, now - node.heard), [name]),
            m.Figure("zray_node_troubled", float(bool(node.trouble)), [name]),
            m.Figure("zray_node_workers", events.workers_at(node.process_id), [name]),
        ]

    def _resources(self) -> list[m.Figure]:
        totals: dict[str, int] = {}
        free: dict[str, int] = {}
        for node in self._tables.members.nodes.values():
            view = node.view
            for name, amount in countable([*view.total.items()]) if node.announced else ():
                if name.startswith(PLACE):
                    continue
                totals[name] = totals.get(name, 0) + amount
                free[name] = free.get(name, 0) + max(0, view.free.get(name, 0))
        unit = limits.RESOURCE_UNIT
        kept = sorted(totals)[: limits.FUNCTIONS_MEASURED_MAX]
        return [
            *(m.Figure("zray_resource_capacity", totals[one] / unit, [one]) for one in kept),
            *(m.Figure("zray_resource_available", free[one] / unit, [one]) for one in kept),
        ]

    # ---- actors, jobs and the rest ---------------------------------------------------------

    def _actors(self) -> list[m.Figure]:
        events = self._tables.events
        states = dict.fromkeys((m.ACTOR_PENDING, m.ACTOR_ALIVE, m.ACTOR_RESTARTING), 0)
        for record in self._tables.actor_table.values():
            states[record.state] = states.get(record.state, 0) + 1
        deaths = events.actor_deaths
        return [
            *(m.Figure("zray_actors", n, [m.ACTOR_STATES[one]]) for one, n in states.items()),
            m.Figure("zray_actor_restarts_total", events.actor_restarts_seen),
            *(m.Figure("zray_actor_deaths_total", n, [how]) for how, n in deaths.items()),
        ]

    def _others(self) -> list[m.Figure]:
        tables = self._tables
        jobs = dict.fromkeys((CONNECTED, AWAY, DETACHED), 0)
        for job in tables.members.jobs.values():
            jobs[_state(job)] += 1
        deaths = tables.events.worker_deaths
        wanted = sum(demand.wanting() for demand in tables.lease_table.active.values())
        return [
            *(m.Figure("zray_jobs", count, [state]) for state, count in jobs.items()),
            *(m.Figure("zray_worker_deaths_total", n, [how]) for how, n in deaths.items()),
            m.Figure("zray_leases", len(tables.lease_table.leases)),
            m.Figure("zray_leases_wanted", max(0, wanted)),
            m.Figure("zray_objects", len(tables.objects.records)),
            m.Figure("zray_functions", len(tables.catalog.functions)),
        ]

    def _groups(self) -> list[m.Figure]:
        placement = self._tables.placement
        waiting = len(placement.unplaced)
        states = {"PENDING": waiting, "CREATED": len(placement) - waiting}
        return [m.Figure("zray_placement_groups", n, [state]) for state, n in states.items()]


def _state(job: JobMember) -> str:
    if job.driverless:
        return DETACHED
    return CONNECTED if job.connected else AWAY
