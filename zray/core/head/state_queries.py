"""Answers about the cluster's state: what is there, and what waits for what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zray import limits
from zray.core import resources
from zray.core.head.actor_records import ActorRecord
from zray.core.head.actor_table import ActorTable
from zray.core.head.control_store import ControlStore
from zray.core.head.events import Events
from zray.core.head.identity import HeadIdentity
from zray.core.head.lease_table import LeaseTable
from zray.core.head.members import Member, Members, NodeMember
from zray.core.head.notices import Notices
from zray.core.head.object_table import ObjectTable
from zray.core.head.placement_table import PlacementTable
from zray.core.head.recovery import Recovery
from zray.core.head.scheduling_class import SchedulingClass
from zray.core.head.succession import Succession
from zray.core.head.task_records import READY
from zray.core.head.task_scheduler import TaskScheduler
from zray.core.head.transfers import Transfers
from zray.core.head.wait_reasons import WAIT_RESOURCES
from zray.core.incidents import Incidents
from zray.core.machine import Outbox
from zray.protocol.messages import (
    ACTOR_ALIVE,
    STATUS,
    ActorStatus,
    ClassStatus,
    JobStatus,
    Message,
    NodeStatus,
    Ping,
    Pong,
    Query,
    Reasons,
    Status,
    Sync,
    Synced,
)

ACTORS_TOLD_MAX = 1000  # in one status
REASONS_TOLD_MAX = 100  # in one answer


class StateQueries:
    """Reads the tables; ``why``: an object has no value yet, or an actor is not alive."""

    def __init__(
        self,
        identity: HeadIdentity,
        store: ControlStore,
        notices: Notices,
        incidents: Incidents,
        counters: dict[str, int],
        outbox: Outbox[bytes],
        members: Members,
        objects: ObjectTable,
        actors: ActorTable,
        leases: LeaseTable,
        scheduler: TaskScheduler,
        recovery: Recovery,
        transfers: Transfers,
        events: Events,
        succession: Succession,
        placement: PlacementTable,
        why: Callable[[bytes, float], str],
    ) -> None:
        self._identity = identity
        self._store = store
        self._notices = notices
        self._incidents = incidents
        self._counters = counters
        self._outbox = outbox
        self._members = members
        self._objects = objects
        self._actors = actors
        self._leases = leases
        self._scheduler = scheduler
        self._recovery = recovery
        self._transfers = transfers
        self._events = events
        self._succession = succession
        self._placement = placement
        self._why = why
        self.handlers: dict[type[Message], Callable[[Any, Any, float], None]] = {
            Ping: self.on_ping,
            Query: self.on_query,
            Sync: self.on_sync,
        }
        self._troubled: dict[bytes, Member] = {}  # who has said that something goes wrong there

    # ---- questions -------------------------------------------------------------------------

    def on_ping(self, member: Member, message: Ping, now: float) -> None:
        """A peer lives, says what troubles it, and hears how the cluster is."""
        if message.trouble:
            member.trouble = message.trouble
            self._troubled[member.process_id] = member
        elif member.trouble:
            member.trouble = ""
            self._troubled.pop(member.process_id, None)
        pong = Pong(0, message.sent_s, self.health(now)[: limits.NAME_MAX])
        self._outbox.send(member.process_id, pong)

    def on_sync(self, member: Member, message: Sync, now: float) -> None:
        """All that the peer said before has been handled."""
        self._outbox.send(member.process_id, Synced(0, message.seq))

    def on_query(self, member: Member, message: Query, now: float) -> None:
        """Somebody looks at the cluster, or asks why objects have no value yet."""
        answer: Message
        if message.what == STATUS:
            answer = self.status(message.seq, now)
        else:
            asked = message.object_ids[:REASONS_TOLD_MAX]
            reasons = [self._why(oid, now)[: limits.TEXT_MAX] for oid in asked]
            answer = Reasons(0, message.seq, reasons)
        self._outbox.send(member.process_id, answer)

    # ---- health ----------------------------------------------------------------------------

    def health(self, now: float) -> str:
        """One line: OK, or what the head waits for, or what goes wrong in it and its nodes."""
        if self._recovery.active:
            return self._recovery.in_words(self._identity.epoch)
        troubles = [("the control store", self._store.trouble)]
        if self._store.later_epoch:
            troubles.append(("the control store", self._store.outdated()))
        troubles.append(("the head", self._incidents.trouble(now)))
        for process_id, member in [*self._troubled.items()]:
            if self._members.member(process_id) is not member:
                del self._troubled[process_id]
            elif isinstance(member, NodeMember):
                troubles.append((member.in_words(), member.trouble))
        told = "; ".join(f"{who}: {what}" for who, what in troubles if what)
        return f"DEGRADED: {told}"[: limits.HEALTH_TEXT_MAX] if told else "OK"

    def status(self, about: int, now: float) -> Status:
        """The answer to a STATUS query."""
        return Status(
            0,
            about,
            self._identity.cluster_id,
            self._identity.started_s,
            self.health(now),
            [self._node(node, now) for node in self._members.nodes.values()],
            [
                JobStatus(
                    *(job.process_id, job.info),
                    *(self._members.unfinished(job), job.finished),
                    *(job.connected, job.driverless),
                    job.zray,
                )
                for job in self._members.jobs.values()
            ],
            self.classes(),
            len(self._objects.records),
            self._notices.latest(),
            self._counted(),
            [self._actor(record, now) for record in [*self._actors.values()][:ACTORS_TOLD_MAX]],
            heads=self._succession.heads,
            zray=self._identity.versions.zray,
            groups=len(self._placement),
            groups_waiting=len(self._placement.unplaced),
        )

    def _counted(self) -> list[tuple[str, int]]:
        found = dict(self._counters)
        found["relayed_bytes"] = self._transfers.relayed_bytes
        found["failed"] = self._events.tasks.failures()
        found["events"] = self._events.number
        return sorted(found.items())

    def _actor(self, record: ActorRecord, now: float) -> ActorStatus:
        node = self._members.nodes.get(record.node_id)
        alive = record.state == ACTOR_ALIVE and not record.unconfirmed
        return ActorStatus(
            *(record.actor_id, record.job_id, record.info, record.state),
            node.info.name if node is not None and alive else "",
            record.restarts,
            "" if alive else self._why(record.handle, now),
        )

    def _node(self, node: NodeMember, now: float) -> NodeStatus:
        view = node.view
        ahead = sum(view.ahead.values())
        near, near_waiting = view.near_counts()
        held = len(view.assigned) + self._leases.count_at(node.process_id)
        own = node.own_resources(view.free)
        free = sorted((name, max(amount, 0)) for name, amount in own.items())
        return NodeStatus(
            node.process_id,
            node.incarnation,
            node.state(),
            node.info,
            list(resources.countable(free)),
            held - ahead + max(0, near - near_waiting),
            ahead + near_waiting,
            view.finished,
            max(0.0, now - node.heard),
            node.remark,
            node.zray,
        )

    def classes(self) -> list[ClassStatus]:
        """What waits, by what it needs and for whom, and why."""
        found = []
        for group in self._scheduler.all_groups():
            reason = self._scheduler.reason(group)
            for job_id, queue in group.queues.items():
                waiting = len(queue)
                if group.left:
                    waiting = sum(1 for record in queue if record.state == READY)
                template = queue.first().template if queue else None
                name = template.message.name if template is not None else ""
                wanted = list(resources.countable(group.needs))
                found.append(ClassStatus(wanted, job_id, waiting, reason, name))
        for node in self._members.nodes.values():
            for told in node.view.near_waiting.values():
                wants = resources.in_words(told.resources)
                reason = (
                    f"WAIT_RESOURCES: needs {wants}; all of it is in use on node {node.info.name}, "
                    "where the tasks run that have submitted them"
                )
                which = (told.resources, told.job_id, told.waiting)
                found.append(ClassStatus(*which, reason, told.name))
        for demand in self._leases.active.values():
            if demand.count:
                reason = self._scheduler.reason(SchedulingClass(demand.needs))
                if reason.startswith(WAIT_RESOURCES):
                    wants = resources.in_words(demand.needs)
                    reason = (
                        f"WAIT_LEASES: needs {wants}; all of it is in use where the tasks wait, "
                        "which is with the program that has submitted them"
                    )
                count, job_id = demand.count, demand.job_id
                found.append(ClassStatus(demand.amounts, job_id, count, reason, ""))
        return found
