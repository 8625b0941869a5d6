"""The machine that has a node's tasks, with those that it uses, without the raylet."""

from __future__ import annotations

from itertools import count
from typing import Any

from tests.core.benches import FUNCTION, UNIT, identity, object_of, reports, spec, template
from zray.core.incidents import Incidents
from zray.core.machine import Outbox
from zray.core.raylet.actors import HostedActors
from zray.core.raylet.behind import Behind
from zray.core.raylet.completions import Completions
from zray.core.raylet.credit import Credit
from zray.core.raylet.environments import Environments
from zray.core.raylet.head_session import HEAD, HeadSession
from zray.core.raylet.lending import Lending
from zray.core.raylet.local_records import LocalTask, WorkerSlot
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.core.raylet.near_tasks import NearTasks
from zray.core.raylet.objects import LocalObjects
from zray.core.raylet.tasks import LocalTasks
from zray.core.raylet.worker_requests import WorkerRequests
from zray.protocol import messages as m
from zray.protocol.codec import Payload

JOB = identity("job")
NODE = identity("node")
WORK = template()
OID = object_of(identity("argument"))


class TaskBench:
    """With a session, and one worker that gets whatever can start."""

    def __init__(self, max_workers: int | None = None) -> None:
        self.outbox: Outbox[bytes] = Outbox()
        self.killed: list[str] = []
        incidents = Incidents()
        self.session = HeadSession(self.outbox, incidents, lambda: None, lambda: None)
        self.session.receive(Payload(1, [m.Welcome(0, 1, bytes(16), 1, 2.0)], []), 0.0)
        tell_head = self.session.tell
        self.objects = LocalObjects(tell_head)
        self.scheduler = LocalScheduler({"CPU": UNIT}, 0, max_workers)
        self.completions = Completions(tell_head, count(1))
        self.lending = Lending()
        self.effects: list[Any] = []
        self.environments = Environments(
            *("n1", self.objects, self.scheduler, self.lending, self.effects.append, tell_head)
        )
        behind = Behind(self.scheduler, self.outbox, lambda worker_id: [])
        self.crashed: list[tuple[LocalTask, int, bytes]] = []
        self.requests = WorkerRequests(self.outbox, self.objects, tell_head, count(1))
        self.tasks = LocalTasks(
            node="n1",
            outbox=self.outbox,
            incidents=incidents,
            objects=self.objects,
            scheduler=self.scheduler,
            behind=behind,
            completions=self.completions,
            lending=self.lending,
            environments=self.environments,
            worker_requests=self.requests,
            actors=HostedActors(
                *(self.outbox, self.scheduler, self.completions, tell_head, self._kill)
            ),
            tell_head=tell_head,
            kill=self._kill,
            let_go=lambda slot: None,
            near_ended=lambda task, done, maker: self.near.ended(task, done, maker),
            near_returned=lambda tasks: self.near.hand_up(tasks),
            near_withdrawn=lambda task: self.near.withdrawn(task),
            crashed=lambda task, pid, error: self.crashed.append((task, pid, error)),
        )
        self.leased_to: list[bytes] = []  # jobs
        self.near = NearTasks(
            *(self.outbox, self.objects, self.scheduler, self.tasks, self.requests, NODE),
            *(tell_head, lambda job_id: any(one != job_id for one in self.leased_to), reports()),
            self.environments.is_ready,
        )
        self.credit = Credit(
            self.session, self.scheduler, behind, self.tasks, self.lending, self.near
        )
        self.tasks.on_template(WORK)
        self.tasks.on_export(m.Export(0, FUNCTION, "work", b"code"))
        self.slot = WorkerSlot(identity("w"), (JOB, (), 1, ""))
        self.scheduler.add_worker(self.slot)
        self.scheduler.rest(self.slot, 0.0)

    def _kill(self, slot: WorkerSlot, why: str) -> None:
        self.killed.append(why)

    def give(self, *names: str, depth: int = 0, **fields: Any) -> None:
        made = [m.Assignment(1, JOB, spec(name, WORK, **fields), depth=depth) for name in names]
        self.tasks.on_tasks(m.Tasks(0, made), 0.0)

    def start(self) -> None:
        for _, slot, tasks in self.scheduler.place(0.0, may_fork=False):
            assert slot is not None
            self.scheduler.give(slot, tasks, 0.0)

    def told(self, kind: type[m.Message]) -> list[Any]:
        self.completions.flush()
        messages = self.outbox.take().get(HEAD, [])
        return [message for message in messages if isinstance(message, kind)]

    def ends(self) -> list[m.TaskDone]:
        return [end for message in self.told(m.Done) for end in message.tasks]
