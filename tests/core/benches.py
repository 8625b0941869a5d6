"""Machines on a bench: one message in, the messages out. No clock, no socket, no process."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from zray.core.head.gcs import Gcs
from zray.core.head.identity import HeadIdentity
from zray.core.identity import Identity
from zray.core.incidents import Incidents
from zray.core.raylet.head_session import HEAD
from zray.core.raylet.raylet import Raylet
from zray.core.raylet.task_reports import TaskReports
from zray.ids import IdSource
from zray.protocol import messages as m
from zray.protocol.codec import Payload

UNIT = 10_000
VERSIONS = m.Versions("3.11", "0", "3")
CLUSTER = b"c" * 16
FUNCTION = b"f" * 16
EVERY = 1 << 40
FEATURES = ["tasks", m.BUNDLES]  # of nodes


def identity(text: str) -> bytes:
    """16 bytes that begin with a text."""
    return text.encode().ljust(16, b"\0")


def somebody(process_id: bytes, job_id: bytes = b"", pid: int = 0) -> Identity:
    """A process; without another job, a driver."""
    made = Identity(process_id, job_id or process_id, IdSource(b"somebody"))
    made.pid = pid
    return made


def object_of(task_id: bytes, index: int = 0) -> bytes:
    return task_id + index.to_bytes(4, "big")


def template(
    name: str = "work",
    *,
    returns: int = 1,
    retries: int = 3,
    resources: Sequence[tuple[str, float]] = (("CPU", 1),),
) -> m.Template:
    text = f"{name}{returns}{retries}{list(resources)}"
    amounts = [(key, round(amount * UNIT)) for key, amount in resources]
    template_id = hashlib.sha256(text.encode()).digest()[:16]
    return m.Template(0, template_id, FUNCTION, name, amounts, returns, retries)


def spec(name: str, made_of: m.Template, **fields: Any) -> m.TaskSpec:
    return m.TaskSpec(identity(name), made_of.template_id, b"arguments", **fields)


def value(task_id: bytes, data: bytes = b"value", index: int = 0, **fields: Any) -> m.Outcome:
    return m.Outcome(object_of(task_id, index), m.VALUE, len(data), data, **fields)


def done(task_id: bytes, attempt: int = 1, status: int = m.FINISHED, **fields: Any) -> m.TaskDone:
    results = fields.pop("results", [value(task_id)])
    return m.TaskDone(task_id, attempt, status, results, **fields)


class Fatal(Incidents):
    """What a real daemon survives fails a test."""

    def record(self, what: str, whom: str, error: BaseException, now: float) -> str:
        raise error


class HeadBench:
    """A head, its store that commits when told to (or at once), and peers by name."""

    def __init__(
        self,
        rows: Any = None,
        epoch: int = 1,
        *,
        durable: bool = True,
        incidents: Incidents | None = None,
        head_id: bytes = b"",
    ) -> None:
        self.now = 100.0
        self.durable = durable
        self.rows: list[tuple[int, Any]] = []
        head = HeadIdentity(CLUSTER, epoch, VERSIONS, 0.0, head_id)
        self.gcs = Gcs(head, rows or {}, self.now, incidents or Fatal())
        self.sessions = self.gcs.sessions
        self.sent: dict[str, list[m.Message]] = {}

    def turn(self) -> None:
        self.rows += self.gcs.journal.take()
        if self.durable:
            self.commit()
        self.gcs.turn.settle(self.now)
        if self.gcs.journal:
            self.turn()
        for route, messages in self.gcs.routed.take().items():
            self.sent.setdefault(route.decode(), []).extend(messages)

    def commit(self) -> None:
        rows, self.rows = self.rows, []
        for token, _ in rows:
            self.gcs.turn.committed(token, self.now)

    def say(self, route: str, *messages: m.Message, epoch: int = -1, user: str = "user") -> None:
        """A peer sends messages; the head has a turn."""
        self.hear(route, *messages, epoch=epoch, user=user)
        self.turn()

    def hear(self, route: str, *messages: m.Message, epoch: int = -1, user: str = "user") -> None:
        if epoch < 0:  # a new process has heard of no head yet
            epoch = 0 if isinstance(messages[0], m.Hello) else self.gcs.epoch
        payload = Payload(epoch, list(messages), [])
        self.gcs.controller.receive(route.encode(), user, payload, self.now)

    def taken(self, route: str, kind: type[m.Message] | None = None) -> list[Any]:
        """What was sent on a route since the last call, of a kind."""
        messages = self.sent.pop(route, [])
        return [msg for msg in messages if kind is None or isinstance(msg, kind)]

    def after(self, seconds: float) -> None:
        """Time passes in steps of a second; who is connected is heard of."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + 1.0, end)
            for session in self.sessions.by_route.values():
                session.member.heard = self.now
            self.turn()

    # ---- peers -----------------------------------------------------------------------------

    def hello_node(self, name: str, incarnation: int = 1, cpus: float = 1, **more: Any) -> m.Hello:
        """``offers``: names; ``machine``: its id; what else is given are resources."""
        offers, machine = more.pop("offers", []), more.pop("machine", "machine")
        amounts = [("CPU", int(cpus * UNIT))] if cpus else []
        amounts += [(key, int(amount * UNIT)) for key, amount in more.items()]
        info = m.NodeInfo(name, "host", 1, amounts, [], machine, "host:1", offers)
        return m.Hello(
            *(0, 1, m.ROLE_NODE, identity(name), incarnation, b"", VERSIONS, FEATURES, info)
        )

    def hello_driver(self, name: str) -> m.Hello:
        job = m.JobInfo("program", "/", [], "machine", "host", 1)
        return m.Hello(
            *(0, 1, m.ROLE_DRIVER, identity(name), 0, b"", VERSIONS, ["tasks"], None, job)
        )

    def node(self, name: str, cpus: float = 1, credit: int = EVERY, **more: Any) -> Any:
        """A raylet joins with nothing on it, under the route of its name."""
        self.say(name, self.hello_node(name, 1, cpus, **more))
        self.say(name, m.Announce(0, [], [], []), m.Credit(0, credit))
        assert isinstance(self.sent[name].pop(0), m.Welcome)
        return self.gcs.members.nodes[identity(name)]

    def driver(self, name: str, *made_of: m.Template) -> bytes:
        """A driver joins under the route of its name; its functions are stored."""
        self.say(name, self.hello_driver(name))
        self.say(name, m.Hold(0, identity(name), b"", True))
        self.say(name, m.Export(0, FUNCTION, "work", b"code"), *made_of)
        self.taken(name)
        return identity(name)

    def submit(self, name: str, *tasks: m.TaskSpec) -> None:
        self.say(name, m.Submit(0, identity(name), identity(name), list(tasks)))

    def assigned(self, name: str) -> list[str]:
        """Names of the tasks that were sent to a node since the last look."""
        return [
            assignment.spec.task_id.rstrip(b"\0").decode()
            for message in self.taken(name, m.Tasks)
            for assignment in message.tasks
        ]


def reports() -> TaskReports:
    """Of a node without a session."""
    info = m.NodeInfo("n1", "host", 1, [], [], "machine")
    return TaskReports(identity("n1"), info, lambda: False, lambda message: None)


class RayletBench:
    """A raylet with a session, and workers that are asked for by name."""

    def __init__(
        self,
        cpus: float = 1,
        max_workers: int | None = None,
        incidents: Incidents | None = None,
        **more: float,
    ) -> None:
        self.now = 100.0
        amounts = [("CPU", int(cpus * UNIT))]
        amounts += [(name, round(amount * UNIT)) for name, amount in more.items()]
        gpus = int(more.get("GPU", 0))
        info = m.NodeInfo("n1", "host", 1, amounts, [], "machine")
        ids = IdSource(b"rayletid")
        self.raylet = Raylet(
            *(identity("n1"), info, VERSIONS, ids, gpus),
            max_workers=max_workers,
            incidents=incidents or Fatal(),
        )
        self.to_head: list[m.Message] = []
        self.to_workers: dict[bytes, list[m.Message]] = {}
        self.queues: dict[bytes, list[m.Tasks]] = {}  # of tasks that workers have not taken
        self.raylet.take_back = lambda worker_id: self.queues.pop(worker_id, [])
        self.effects: list[Any] = []
        self.welcome()
        job = m.JobInfo("program", "/", [], "machine", "host", 1)
        self.head(m.Job(0, identity("job"), job), m.Export(0, FUNCTION, "work", b"code"))
        self.to_head.clear()

    def welcome(self, epoch: int = 1) -> None:
        self.head(m.Welcome(0, 1, CLUSTER, 1 << 20, 2.0), epoch=epoch)

    def head(self, *messages: m.Message, epoch: int = 1) -> None:
        """The head sends messages; the raylet has a turn."""
        self.raylet.session.receive(Payload(epoch, list(messages), []), self.now)
        self.turn()

    def turn(self) -> None:
        self.raylet.settle(self.now)
        self.effects += self.raylet.effects
        self.raylet.effects = []
        for peer, messages in self.raylet.outbox.take().items():
            if peer == HEAD:
                self.to_head += messages
            else:
                self.to_workers.setdefault(peer, []).extend(messages)
        packets, self.raylet.behind.packets = self.raylet.behind.packets, []
        for worker_id, tasks in packets:
            self.queues.setdefault(worker_id, []).append(tasks)

    def take(self, worker_id: bytes) -> list[str]:
        """A worker takes a packet out of its queue: the names of its tasks."""
        packet = self.queues[worker_id].pop(0)
        return [task.spec.task_id.rstrip(b"\0").decode() for task in packet.tasks]

    def waiting(self) -> dict[bytes, list[str]]:
        """Names of the tasks that each worker could take."""
        return {
            worker_id: [
                task.spec.task_id.rstrip(b"\0").decode() for one in packets for task in one.tasks
            ]
            for worker_id, packets in self.queues.items()
            if packets
        }

    def give(
        self,
        *tasks: m.TaskSpec,
        values: Sequence[m.Outcome] = (),
        attempt: int = 1,
        actor: m.ActorInfo | None = None,
        depth: int = 0,
    ) -> None:
        job = identity("job")
        assignments = [m.Assignment(attempt, job, task, actor=actor, depth=depth) for task in tasks]
        self.head(m.Tasks(0, assignments, list(values)))

    def workers(self) -> list[bytes]:
        return list(self.raylet.scheduler.workers)

    def worker(self, worker_id: bytes, *messages: m.Message) -> None:
        """A worker sends messages, and takes what it runs next; the raylet has a turn."""
        for message in messages:
            self.raylet.worker_message(worker_id, message, self.now)
            if self.queues.get(worker_id) and not self.running().get(worker_id):
                self.take(worker_id)
        self.turn()

    def running(self) -> dict[bytes, list[str]]:
        """Names of the tasks that each worker has got and has not ended."""
        waiting = self.waiting()
        found: dict[bytes, list[str]] = {}
        for slot in self.raylet.scheduler.workers.values():
            names = [task.rstrip(b"\0").decode() for task in slot.inflight]
            got = [name for name in names if name not in waiting.get(slot.worker_id, ())]
            if got:
                found[slot.worker_id] = got
        return found

    def told(self, kind: type[m.Message]) -> list[Any]:
        """What was sent to the head since the last call, of a kind."""
        messages, self.to_head = self.to_head, []
        return [message for message in messages if isinstance(message, kind)]
