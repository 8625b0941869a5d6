"""Who takes part in the cluster: nodes and jobs, their liveness, and recovery after a restart.

Decides who is alive, suspect or dead; what that means for tasks and objects is the GCS's.
A node is known by (node_id, incarnation); a dead incarnation never returns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec

from zray import limits
from zray.core import bundles, resources
from zray.core.head.task_records import NodeView
from zray.core.incidents import FreshStart
from zray.core.resources import Needs, Vector
from zray.protocol.messages import BUNDLES, Amounts, Hello, JobInfo, NodeInfo

ALIVE = "ALIVE"
SUSPECT = "SUSPECT"
JOINING = "JOINING"
DRAINING = "DRAINING"


class Member:
    """A process that has, or may have again, a session with the head."""

    def __init__(self, process_id: bytes, incarnation: int, now: float) -> None:
        self.process_id = process_id
        self.incarnation = incarnation
        self.joined = now
        self.connected = False
        self.ended = False  # declared dead: nothing that it says counts any more
        self.heard = now  # when the last message came
        self.lost = now  # when the link was last seen cut
        self.known: set[bytes] = set()  # functions, templates and jobs sent in this session
        self.result_seq = 0
        self.sessions = 0
        self.lost_by = ""  # why its last session ended; empty: there was none
        self.session_seq = 0  # what result_seq was when this session began
        self.resynced = False  # it has told everything it had before this session
        self.trouble = ""  # what goes wrong there, as it says
        self.zray = ""  # its version, as its last HELLO had it
        self.fresh_start = FreshStart()

    def in_words(self) -> str:
        """Who it is, for people."""
        return f"process {self.process_id.hex()}"

    def begin_session(self, now: float) -> None:
        """It has said HELLO on a new connection."""
        self.connected = True
        self.sessions += 1
        self.heard = now
        self.known.clear()
        self.session_seq = self.result_seq


def _of_node(needs: Needs) -> Needs:
    """What a node has to have for it, whatever was reserved there."""
    return resources.countable(bundles.plain(needs))


class Suspect(Protocol):
    """Somebody whose own port is worth a look."""

    process_id: bytes
    liveness: str  # host:port
    refused_since: float | None


class AbsentNode:
    """A node of before the head's restart that is not back yet."""

    def __init__(self, process_id: bytes, liveness: str) -> None:
        self.process_id = process_id
        self.liveness = liveness
        self.refused_since: float | None = None


class NodeMember(Member):
    """A node, from its HELLO until it is dead."""

    def __init__(self, hello: Hello, info: NodeInfo, now: float) -> None:
        super().__init__(hello.process_id, hello.incarnation, now)
        self.info = info
        self.liveness = info.liveness
        # Whether its own port answers from here while it lives. Only then does a refusal prove
        # anything: behind a tunnel or a translated address, somebody else refuses.
        self.reachable: bool | None = None
        self.refused_since: float | None = None
        self.remark = ""  # why it is to leave, and what it waits for
        self.away = False  # out of reach: what lives there cannot be called from elsewhere
        self.workers: dict[bytes, None] = {}
        self.actors: dict[bytes, None] = {}  # those that live there
        self.ends_heard = 0  # the last end that it told
        self.ends_durable = True  # what it has told since the last end with a number
        self.ends_unstored: dict[int, None] = {}  # those whose consequences are not durable
        total = {**dict(info.resources), **resources.offering(info.offers)}
        self.view = NodeView(hello.process_id, hello.incarnation, total, info.labels)
        self.view.reserves = BUNDLES in hello.features

    def in_words(self) -> str:
        """What it is, for people."""
        return f"node {self.info.name}"

    def own_resources(self, amounts: Vector) -> Vector:
        """Of these, what the node was started with, and not what bundles have of that."""
        known = dict(self.info.resources)
        return {name: amount for name, amount in amounts.items() if name in known}

    def is_of_head(self) -> bool:
        """Whether it is the head's own node, on its machine."""
        return resources.HEAD_NODE in self.view.total

    def begin_session(self, now: float) -> None:
        """As ``Member``; it gets no work before it has announced all."""
        super().begin_session(now)
        self.resynced = False
        self.ends_durable = True
        self.refused_since = None
        self.view.live = False

    @property
    def announced(self) -> bool:
        """Whether it has told its full state in this session."""
        return self.resynced

    def state(self) -> str:
        """JOINING, ALIVE, SUSPECT or DRAINING."""
        if not self.announced:
            return JOINING
        if not self.view.live:
            return SUSPECT
        return DRAINING if self.view.draining else ALIVE


class JobMember(Member):
    """A driver, or a detached actor (``driverless``), whose job ends with the actor.

    ``resumed``: it was there before the head restarted.
    """

    def __init__(
        self,
        process_id: bytes,
        info: JobInfo,
        now: float,
        *,
        resumed: bool = False,
        driverless: bool = False,
    ) -> None:
        super().__init__(process_id, 0, now)
        self.info = info
        self.resumed = resumed
        self.driverless = driverless
        self.resynced = not resumed  # once for all: another session has nothing to add
        self.unfinished = 0
        self.leased = 0  # the same, of those that pass the head by, as the driver has said last
        self.finished = 0

    def in_words(self) -> str:
        """What it is, for people."""
        return f"driver pid {self.info.pid} on {self.info.host}"


class NodeRow(msgspec.Struct, array_like=True, frozen=True):
    """What the store keeps of a node. ``liveness``: its own port, if that answers from here.

    ``draining``: it is to leave, for that reason and, if that is not 0, within ``drain_s``.
    """

    incarnation: int
    alive: bool
    name: str
    resources: Amounts = []
    liveness: str = ""
    draining: bool = False
    drain_reason: str = ""
    drain_s: float = 0.0

    def dead(self, incarnation: int) -> NodeRow:
        """As it is once that incarnation is dead; that the node is drained holds for the next."""
        drain = (self.draining, self.drain_reason, self.drain_s)
        return NodeRow(incarnation, False, self.name, [], "", *drain)


class Members:
    """Who takes part: nodes and jobs, and nodes of before the head's restart."""

    def __init__(self, rows: dict[str, dict[bytes, bytes]], now: float) -> None:
        self.driver_lost_s = limits.DRIVER_LOST_S
        self.nodes: dict[bytes, NodeMember] = {}
        self._machines: dict[str, dict[bytes, NodeMember]] = {}  # their nodes
        self.jobs: dict[bytes, JobMember] = {}
        self.node_rows: dict[bytes, NodeRow] = {}
        self.awaited: dict[bytes, AbsentNode] = {}
        self.newcomers: list[NodeMember] = []  # since this was looked at last
        self.proven: list[NodeMember] = []  # turned out to be reachable, which is to be stored
        self.lost: list[Vector] = []  # of these, what those had that did not return
        self.lost_jobs: dict[bytes, str] = {}  # what was ended with their drivers
        self.buried: dict[bytes, tuple[str, float]] = {}  # dead nodes: why, and since when
        self.started = self._checked = self._attentive = now
        self._absent: set[bytes] = set()  # of the awaited, those that are out of reach
        self.away_changed: list[bytes] = []  # nodes out of reach by now, or reached again
        for node_id, value in sorted(rows.get("nodes", {}).items()):
            row = msgspec.msgpack.decode(value, type=NodeRow)
            self.node_rows[node_id] = row
            if row.alive:
                self.awaited[node_id] = AbsentNode(node_id, row.liveness)
        for job_id, value in sorted(rows.get("jobs", {}).items()):
            info = msgspec.msgpack.decode(value, type=JobInfo)
            self.jobs[job_id] = JobMember(job_id, info, now, resumed=True)

    def member(self, process_id: bytes) -> Member | None:
        """The node or driver with that process id."""
        return self.nodes.get(process_id) or self.jobs.get(process_id)

    def add(self, node: NodeMember) -> None:
        """A node has joined."""
        former = self.nodes.get(node.process_id)
        if former is not None:
            self.remove(former)
        self.nodes[node.process_id] = node
        self.newcomers.append(node)
        self._machines.setdefault(node.info.machine, {})[node.process_id] = node

    def remove(self, node: NodeMember) -> None:
        """A node is no more, or another incarnation of it has joined."""
        if self.nodes.get(node.process_id) is node:
            del self.nodes[node.process_id]
            there = self._machines[node.info.machine]
            del there[node.process_id]
            if not there:
                del self._machines[node.info.machine]

    def at(self, machine: str) -> Iterable[NodeMember]:
        """The nodes of a machine."""
        return self._machines.get(machine, {}).values()

    def all(self) -> Iterator[Member]:
        """All nodes, then all drivers."""
        yield from self.nodes.values()
        yield from self.jobs.values()

    def unfinished(self, job: JobMember) -> int:
        """How many tasks of a job have no outcome, those that only its driver or nodes know too."""
        told = [node.view.near.get(job.process_id) for node in self.nodes.values()]
        near = sum(one.unfinished for one in told if one is not None)
        return job.unfinished + job.leased + near

    def away(self) -> list[JobMember]:
        """The drivers that are not connected, where their machine is known."""
        return [
            job
            for job in self.jobs.values()
            if not (job.connected or job.driverless) and job.info.machine
        ]

    def job_lost(self, job_id: bytes, what: str) -> None:
        """A driver is given up that may come back, and then is told ``what`` it has lost."""
        self.lost_jobs[job_id] = what
        if len(self.lost_jobs) > limits.LOST_JOBS_MAX:
            del self.lost_jobs[next(iter(self.lost_jobs))]

    def bury(self, node_id: bytes, why: str, now: float) -> None:
        """A node is dead, durably; why is remembered of the last ones."""
        self.buried.pop(node_id, None)
        self.buried[node_id] = why, now
        if len(self.buried) > limits.NODES_DEAD_KEPT_MAX:
            del self.buried[next(iter(self.buried))]

    def fenced(self, node_id: bytes, incarnation: int) -> bool:
        """Whether that incarnation was declared dead."""
        row = self.node_rows.get(node_id)
        if row is None or incarnation > row.incarnation:
            return False
        return incarnation < row.incarnation or not row.alive

    def row(self, node_id: bytes, row: NodeRow) -> tuple[str, bytes, bytes]:
        """The row to be stored for a node; what is kept here is changed at once."""
        self.node_rows[node_id] = row
        return ("nodes", node_id, msgspec.msgpack.encode(row))

    def gone(self, node_id: bytes, row: NodeRow) -> bool:
        """A node of before the restart is dead; whether it was still awaited."""
        if self.awaited.pop(node_id, None) is None:
            return False
        self.lost.append(dict(row.resources))
        return True

    def may_have_run(self, needs: Needs) -> bool:
        """Whether a task of before the restart may have been with a node that did not return.

        What nodes offer is not stored: one that had the resources may have offered the name.
        """
        wanted = _of_node(needs)
        return any(resources.fits(total, wanted) for total in self.lost)

    def may_be_held(self, needs: Needs) -> bool:
        """Whether a task of before the restart may be with a node that is not back yet.

        Of a row without resources it is not known what that node has.
        """
        wanted = _of_node(needs)
        rows = [self.node_rows[node_id].resources for node_id in self.awaited]
        return any(not row or resources.fits(dict(row), wanted) for row in rows)

    def recovering(self) -> bool:
        """Whether tasks of before the restart may still be held by nodes not yet back."""
        return bool(self.awaited)

    def resynced(self) -> bool:
        """Whether everybody of before the restart has told what it holds, or is dead."""
        return not self.awaited and all(job.resynced for job in self.jobs.values())

    # ---- time ------------------------------------------------------------------------------

    def check(self, now: float) -> list[tuple[Member | bytes, str]]:
        """Update suspicion; returns who is dead now, with the reason.

        A dead node that never came back after a restart is given by its id alone.
        """
        stalled = now - self._checked - limits.SUSPECT_S
        if now - self._checked >= limits.PING_S:
            self._attentive = now
        self._checked = now
        if stalled > 0:  # this head itself was stopped: silence then proves nothing
            for member in self.all():
                member.heard = min(now, member.heard + stalled)
                member.lost = min(now, member.lost + stalled)
            self.started = min(now, self.started + stalled)
        dead: list[tuple[Member | bytes, str]] = []
        for node in self.nodes.values():
            if node.ended:
                continue
            silent = now - node.heard
            if silent >= limits.DEAD_S:
                dead.append((node, f"not heard of for {silent:.0f} s"))
            elif self._refuses(node, now):
                dead.append((node, "its own port refuses connections: the process has ended"))
            elif node.announced:
                node.view.live = node.connected and silent < limits.SUSPECT_S
                node.view.changed()
        for job in self.jobs.values():
            lost_after_s = job.info.lost_after_s or self.driver_lost_s
            if not (job.connected or job.driverless) and now - job.lost >= lost_after_s:
                dead.append((job, f"the driver was disconnected for {lost_after_s:.0f} s"))
        for node_id, absent in self.awaited.items():
            if not self.node_rows[node_id].alive or node_id in self.nodes:
                continue  # once it has said HELLO its own silence counts
            if now - self.started >= limits.DEAD_S:
                dead.append((node_id, "did not return after the head's restart"))
            elif self._refuses(absent, now):
                dead.append((node_id, "its own port refuses connections: the process has ended"))
        self._look_who_is_away(now)
        return dead

    def may_say_more(self, now: float) -> bool:
        """Whether somebody is silent who may have said what has not come yet."""
        return any(
            limits.SILENT_S <= now - member.heard < limits.DEAD_S
            for member in self.all()
            if not (isinstance(member, JobMember) and member.driverless)
        )

    def _look_who_is_away(self, now: float) -> None:
        """Whether a node is dead can wait until a head that was held up has read what came
        meanwhile. Here a wrong guess fails calls, so what was not heard then does not count."""
        attentive_s = now - self._attentive
        for node in self.nodes.values():
            if node.ended:
                continue  # which its watchers are about to hear
            silent = now - node.heard >= limits.AWAY_S
            if silent and not node.away and attentive_s >= limits.AWAY_S:
                node.away = True
                self.away_changed.append(node.process_id)
            elif node.away and not silent and node.announced and node.connected:
                node.away = False
                self.away_changed.append(node.process_id)
        if self.awaited and attentive_s >= limits.AWAY_S:
            for node_id in self.awaited:
                if node_id not in self._absent and node_id not in self.nodes:
                    self._absent.add(node_id)
                    self.away_changed.append(node_id)

    def why_away(self, node_id: bytes) -> str:
        """Why what lives on that node cannot be called from elsewhere; empty: it can."""
        node = self.nodes.get(node_id)
        if node is not None:
            if not node.away:
                return ""
            return f"node {node.info.name} ({node.info.host}) is not heard of any more"
        if node_id in self._absent and node_id in self.awaited:
            return f"node {self.node_rows[node_id].name} is not back since the head's restart"
        return ""

    @staticmethod
    def _refuses(suspect: Suspect, now: float) -> bool:
        since = suspect.refused_since
        return since is not None and now - since >= limits.REFUSED_S

    def suspects(self) -> list[Suspect]:
        """Whose own port is worth a look: of the lost, whether they live; of others, once."""
        found: list[Suspect] = [
            node
            for node in self.nodes.values()
            if node.liveness
            and not node.ended
            and (node.reachable is None if node.connected else node.reachable)
        ]
        return found + [absent for absent in self.awaited.values() if absent.liveness]

    def probed(self, node_id: bytes, refused: bool | None, now: float) -> None:
        """What knocking at a suspect's port said; None: nothing came back."""
        node = self.nodes.get(node_id)
        suspect: Suspect | None = node or self.awaited.get(node_id)
        if node is not None and node.connected:
            if node.reachable is None:
                node.reachable = refused is False
                if node.reachable:
                    self.proven.append(node)
        elif suspect is not None:
            if not refused:
                suspect.refused_since = None
            elif suspect.refused_since is None:
                suspect.refused_since = now
