"""What the head knows of why anything is as it is: tasks, objects, actors, nodes, jobs, workers.

One look at the tables for each cause, whatever there is in them; never at all tasks.
"""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from zray import limits
from zray.core import causes, resources
from zray.core.bundles import STRATEGIES
from zray.core.causes import READY, UNKNOWN, Link, cause
from zray.core.head.actor_directory import ActorDirectory
from zray.core.head.actor_records import ActorRecord
from zray.core.head.holders import Holders
from zray.core.head.member_causes import AWAY, DEAD, MemberCauses
from zray.core.head.object_table import PENDING, ObjectRecord
from zray.core.head.placement_groups import PlacementGroups
from zray.core.head.scheduling_class import SchedulingClass
from zray.core.head.shortages import Shortages
from zray.core.head.tables import Tables
from zray.core.head.task_causes import TaskCauses
from zray.core.head.task_table import TaskTable
from zray.ids import OBJECT_BYTES, TASK_BYTES, object_id, origin_of, task_of
from zray.protocol import messages as m

PREFIX_MIN = 4  # hex digits that are enough for an id


class Subject(NamedTuple):
    """What somebody asks about: ``cause`` of it, then that of ``id``; either may be missing.

    ``digits``: of an id that nothing here has; ``cause`` says so, unless something is over that
    had it.
    """

    id: bytes = b""
    cause: m.Cause | None = None
    digits: str = ""


class HeadCauses:
    """``of_tasks``: those of tasks alone."""

    def __init__(
        self,
        tables: Tables,
        tasks: TaskTable,
        directory: ActorDirectory,
        holders: Holders,
        placement_groups: PlacementGroups,
    ) -> None:
        self._placement_groups = placement_groups
        self._placement = tables.placement
        self._members = members = tables.members
        self._processes = tables.processes
        self._tasks = tasks
        self._objects = tables.objects
        self._actors = tables.actor_table
        self._directory = directory
        self._holders = holders
        self._leases = leases = tables.lease_table
        self._near_tasks = tables.near_tasks
        self._submitted = tables.job_table
        self._events = tables.events
        shortages = Shortages(members, leases)
        self.of_tasks = TaskCauses(
            epoch=tables.epoch,
            store=tables.store,
            members=members,
            tasks=tasks,
            objects=tables.objects,
            scheduler=tables.scheduler,
            recovery=tables.recovery,
            shortages=shortages,
        )
        self._of_members = MemberCauses(
            members=members,
            processes=tables.processes,
            tasks=tasks,
            leases=leases,
            scheduler=tables.scheduler,
            shortages=shortages,
        )

    # ---- which thing -------------------------------------------------------------------------

    def find(self, subject: str) -> Subject:
        """Which thing that is; or why that cannot be told."""
        text = subject.strip()
        try:
            whole = bytes.fromhex(text) if len(text) in (2 * TASK_BYTES, 2 * OBJECT_BYTES) else b""
        except ValueError:
            whole = b""
        if whole:
            return Subject(whole)
        found = self._named(text) or self._beginning(text.lower())
        if len(found) == 1:
            return Subject(next(iter(found)))
        submitted = self._submitted.get(text)
        if not found and submitted is not None and submitted.told is not None:
            return self._of_submitted(submitted.told)
        if not found:
            what = f"nothing here has the id or name {subject!r}"
            advice = "zray status shows ids and names; ref.hex() is an object's"
        else:
            what = f"{len(found)} things have a name or an id like {subject!r}"
            advice = f"give the whole id: {', '.join(one.hex() for one in islice(found, 4))}"
        unknown = cause("thing", b"", subject, UNKNOWN, what, advice=advice)
        digits = text.lower() if not found and _begins_an_id(text.lower()) else ""
        return Subject(b"", unknown, digits)

    def _of_submitted(self, job: m.SubmittedJob) -> Subject:
        """A job by its submission id; of one that has not ended, what it does or waits for."""
        name = job.submission_id
        details = [("command", job.entrypoint)]
        if job.exit_code != m.NO_EXIT_CODE:
            details.append(("exit code", str(job.exit_code)))
        if job.error:
            details.append(("error", job.error))
        ended = job.status in m.JOB_ENDS
        when = job.ended_ms if ended else job.started_ms
        since_s = max(0.0, self._events.now_s() - when / 1000) if when else -1.0
        text = f"job {name} is {job.status}: {job.message}" if job.message else f"job {name}"
        failed = job.status == m.JOB_FAILED
        told = cause(
            *("job", job.actor_id, name, job.status, text),
            since_s=since_s,
            details=details,
            advice="zray job logs shows what it has printed" if failed else "",
        )
        runs = job.driver_id if job.driver_id in self._members.jobs else job.actor_id
        return Subject(b"" if ended else runs, told)

    def _named(self, name: str) -> dict[bytes, None]:
        """Nodes, actors and placement groups of this name, living ones first."""
        nodes = self._members.nodes.values()
        found = {node.process_id: None for node in nodes if node.info.name == name}
        for space in self._directory.names.values():
            if name in space:
                found[space[name]] = None
        found |= dict.fromkeys(self._placement.called(name))
        if not found:
            former = self._directory.last_named.get(name)
            if former is not None:
                return {former: None}
            rows = self._members.node_rows.items()
            found = {node_id: None for node_id, row in rows if row.name == name}
        return found

    def _beginning(self, digits: str) -> dict[bytes, None]:
        """Nodes and jobs whose ids begin so; else actors, of the first that there are."""
        if not _begins_an_id(digits):
            return {}
        members = (*self._members.nodes, *self._members.jobs)
        found = {one: None for one in members if one.hex().startswith(digits)}
        if found:
            return found
        some = islice(self._actors, limits.WHY_SCAN_MAX)
        return {one: None for one in some if one.hex().startswith(digits)}

    def child(self, task_id: bytes) -> bytes:
        """A task that this one has submitted and that has no outcome; empty: none is known here."""
        return self._tasks.child(task_id)

    def place_of_lease(self, lease_id: bytes) -> bytes:
        """The node whose worker serves it; empty: it has ended."""
        lease = self._leases.leases.get(lease_id)
        return lease.node.node_id if lease is not None else b""

    # ---- why ---------------------------------------------------------------------------------

    def of(self, thing_id: bytes, now: float) -> Link:
        """Why the thing with this id is as it is, and on what that depends."""
        if len(thing_id) == OBJECT_BYTES:
            actor = self._actors.get(task_of(thing_id))
            if actor is not None:
                return self._actor(actor, now)
            if task_of(thing_id) in self._directory.dead:
                return self._dead_actor(task_of(thing_id))
            return self._object(thing_id, now)
        actor = self._actors.get(thing_id)
        if actor is not None:
            return self._actor(actor, now)
        task = self._tasks.get(thing_id)
        if task is not None:
            return self.of_tasks.of(thing_id, task, now)
        if thing_id in self._directory.dead:
            return self._dead_actor(thing_id)
        group = self._placement_groups.told(thing_id)
        if group is not None:
            return self._group(group)
        member = self._of_members.of(thing_id, now)
        if member is not None:
            return member
        return self._object(object_id(thing_id), now, is_task=True)

    def _group(self, group: m.GroupStatus) -> Link:
        """Of a placement group, what it waits for."""
        state, strategy = m.GROUP_STATES[group.state], STRATEGIES[group.strategy]
        where = [self._members.nodes.get(node) for node in group.nodes[: limits.WHY_DETAILS_MAX]]
        names = [one.info.name if one is not None else "no node" for one in where]
        details = [(f"bundle {index}", f"on {name}") for index, name in enumerate(names)]
        text = group.reason or f"a placement group with a place for all of its bundles ({strategy})"
        if group.state == m.GROUP_REMOVED:
            text, details = "the placement group was removed", []
        more = len(group.nodes) - len(names)
        found = cause(
            *("placement group", group.group_id, group.name, state, text),
            details=details,
            more=more,
        )
        return Link(found)

    def of_demand(self, submitter: bytes, amounts: m.Amounts, now: float) -> list[m.Cause]:
        """What is missing for tasks that wait at their submitter, if it has told of such."""
        wanted = resources.needs(amounts)
        demands = self._leases.of_submitter(submitter)
        if not any(demand.needs == wanted for demand in demands):
            return []
        return [self.of_tasks.of_class(SchedulingClass(wanted), submitter, now)]

    def why(self, oid: bytes, now: float) -> str:
        """What an object's value waits for, or the actor of a handle, in one line.

        Empty: it waits for nothing.
        """
        actor = self._actors.get(task_of(oid))
        if actor is not None:
            return self._line(self._actor(actor, now))
        record = self._objects.get(oid)
        if record is not None and record.kind != PENDING:
            return ""
        task = self._tasks.get(task_of(oid))
        return self._line(
            self.of_tasks.of(task_of(oid), task, now) if task is not None else self._unheard(oid)
        )

    @staticmethod
    def _line(link: Link) -> str:
        found = link.cause
        if found.code == "ALIVE":
            return ""
        text = f"{found.code}: {found.text}"
        return f"{text}; {found.advice}" if found.advice else text

    # ---- objects -----------------------------------------------------------------------------

    def _object(self, oid: bytes, now: float, *, is_task: bool = False) -> Link:
        task = self._tasks.get(origin_of(oid))
        record = self._objects.get(oid)
        if record is not None and record.kind != PENDING:
            return self._settled(oid, record, then=origin_of(oid) if task is not None else b"")
        if task is not None:
            return self.of_tasks.of(origin_of(oid), task, now)
        link = self._unheard(oid, is_task=is_task)
        return link._replace(asks=self._who_knows(oid))

    def _settled(self, oid: bytes, record: ObjectRecord, then: bytes) -> Link:
        if self._objects.is_lost(oid, record):
            text = f"all copies of object {oid.hex()} were lost"
            advice = "its task runs again for it" if then else "it is made again when it is needed"
            return Link(cause("object", oid, "", "LOST", text, advice=advice), then)
        if record.kind & m.ERROR:
            value = self._objects.value(oid)
            if value is None:
                text = "it failed; the error is with " + self._places(record)
                return Link(cause("object", oid, "", causes.FAILED, text))
            return Link(causes.failed("object", oid, "", value))
        text = f"its value ({record.size:,} bytes) is there, and waits for nothing"
        details = [("where", self._places(record))]
        return Link(cause("object", oid, "", READY, text, details=details))

    def _places(self, record: ObjectRecord) -> str:
        names = []
        for place in islice(record.locations, 4):
            node = self._members.nodes.get(place)
            names.append(f"node {node.info.name}" if node is not None else "its driver")
        more = len(record.locations) - len(names)
        names += [f"{more} other places"] if more > 0 else []
        return ", ".join(names) or "the head"

    @staticmethod
    def _unheard(oid: bytes, *, is_task: bool = False) -> Link:
        if is_task:
            text = f"the head has not been told of {task_of(oid).hex()}, or it ended and was freed"
            return Link(cause("task", task_of(oid), "", UNKNOWN, text))
        text = f"the head has not been told of object {oid.hex()}, or it was freed"
        return Link(cause("object", oid, "", UNKNOWN, text))

    def _who_knows(self, oid: bytes) -> tuple[bytes, ...]:
        """Processes that may know what the head does not: of whom it is, or where it may be near.

        All ids that a process makes begin alike, its own too.
        """
        promiser = self._holders.promiser(oid)
        if promiser in self._members.jobs:
            return (promiser,)
        drivers = (one for one in self._members.jobs if one[:8] == oid[:8])
        driver = next(drivers, b"")
        if driver:
            return (driver,)
        place = self._processes.workers.get(promiser, b"")
        nodes = [place] if place else []
        nodes += self._near_tasks.places()
        return tuple(dict.fromkeys(nodes))[: limits.WHY_ASKED_MAX]

    # ---- actors ------------------------------------------------------------------------------

    def _actor(self, record: ActorRecord, now: float) -> Link:
        info, name = record.info, record.info.class_name
        state = m.ACTOR_STATES.get(record.state, UNKNOWN)
        details = [("name", info.name)] if info.name else []
        if record.restarts:
            allowed = "any number" if info.max_restarts < 0 else f"{info.max_restarts}"
            details.append(("restarts", f"{record.restarts} of {allowed}"))
        since_s = max(0.0, now - record.since) if record.since >= 0 else -1.0
        task = self._tasks.get(record.actor_id)
        if task is not None:
            if state != "PENDING" and record.text:
                details.append((state, record.text))
            link = self.of_tasks.of(record.actor_id, task, now)
            told = [(one.name, one.text) for one in link.cause.details]
            of_creation = cause(
                *("actor", record.actor_id, name, link.cause.code, link.cause.text),
                since_s=link.cause.since_s,
                details=[*details, *told],
                more=link.cause.more,
                advice=link.cause.advice,
            )
            return link._replace(cause=of_creation)
        code, text, then, asks = self._state_of(record, state, now)
        found = cause(
            *("actor", record.actor_id, name, code, text), since_s=since_s, details=details
        )
        return Link(found, then, asks)

    def _state_of(
        self, record: ActorRecord, state: str, now: float
    ) -> tuple[str, str, bytes, tuple[bytes, ...]]:
        """Code and text of one whose constructor does not run; how the chain goes on, who knows."""
        if record.state != m.ACTOR_ALIVE or record.unconfirmed:
            code, text = _coded(record.reason(now), state)
            return code, text or f"{record.named()} is about to be made", b"", ()
        node = self._members.nodes.get(record.node_id)
        where = node.info.name if node is not None else "that is gone"
        text = f"{record.named()} lives on node {where}"
        away = self._members.why_away(record.node_id)
        if away:
            text = f"{text}, and cannot be called from elsewhere: {away}"
            return AWAY, text, record.node_id, ()
        return state, text, b"", (record.node_id,)

    def _dead_actor(self, actor_id: bytes) -> Link:
        state = self._directory.dead[actor_id]
        found = cause("actor", actor_id, "", DEAD, state.text)
        if not state.error:
            return Link(found)
        raised = causes.failed("actor", actor_id, "", state.error)
        details = [("error", raised.text), *((one.name, one.text) for one in raised.details)]
        return Link(cause("actor", actor_id, "", DEAD, state.text, details=details))


def _begins_an_id(digits: str) -> bool:
    return PREFIX_MIN <= len(digits) <= 2 * TASK_BYTES and set(digits) <= set("0123456789abcdef")


def _coded(reason: str, otherwise: str) -> tuple[str, str]:
    """A reason that begins with its code, apart."""
    code, colon, text = reason.partition(": ")
    if colon and code.replace("_", "").isupper() and " " not in code:
        return code, text
    return otherwise, reason
