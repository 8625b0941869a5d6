"""Tasks on their way to workers, without the raylet."""

from __future__ import annotations

from typing import Any

from tests.core.benches import FUNCTION, UNIT, identity, reports, spec, template
from zray.core.machine import Outbox
from zray.core.raylet.behind import Behind
from zray.core.raylet.dispatch import Dispatch
from zray.core.raylet.local_records import LocalTask, LocalTemplate, PoolKey
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.core.raylet.objects import LocalObjects
from zray.core.raylet.worker_requests import WorkerRequests
from zray.core.raylet.workers import Workers
from zray.ids import IdSource
from zray.protocol import messages as m

JOB = identity("job")
WORK = template()


class Bench:
    def __init__(self, cpus: int = 1) -> None:
        self.outbox: Outbox[bytes] = Outbox()
        self.to_head: list[m.Message] = []
        self.effects: list[Any] = []
        self.failures: list[tuple[bytes, str]] = []
        self.scheduler = LocalScheduler({"CPU": cpus * UNIT}, 0)
        tell_head = self.to_head.append
        self.requests = WorkerRequests(self.outbox, LocalObjects(tell_head), tell_head, iter(()))
        self.workers = Workers(
            node="n1",
            ids=IdSource(b"raylet00"),
            outbox=self.outbox,
            scheduler=self.scheduler,
            worker_requests=self.requests,
            effect=self.effects.append,
            setup=self._setup,
            tell_head=tell_head,
            reports=reports(),
        )
        self.behind = Behind(self.scheduler, self.outbox, lambda worker_id: [])
        self.dispatch = Dispatch(
            *(self.outbox, self.scheduler, self.behind, self.workers, self.requests),
            lambda worker_id, what, error, now: self.failures.append((worker_id, str(error))),
        )
        self.work = LocalTemplate(WORK)
        self.work.function = m.Export(0, FUNCTION, "work", b"code")

    @staticmethod
    def _setup(key: PoolKey) -> m.Setup:
        job = m.JobInfo("program", "/", [], "machine", "host", 1)
        return m.Setup(0, key[0], job, bytes(16), "n1", True, "machine", [], "")

    def push(self, name: str, actor: bool = False) -> LocalTask:
        info = m.ActorInfo("Actor", FUNCTION, []) if actor else None
        task = LocalTask(m.Assignment(1, JOB, spec(name, WORK), actor=info), self.work)
        self.scheduler.push(task, front=actor)
        return task

    def end(self, task: LocalTask) -> None:
        assert task.worker is not None
        self.scheduler.ended(task.worker, task.task_id, 0.0)

    def told(self) -> dict[bytes, list[type[m.Message]]]:
        taken = self.outbox.take()
        return {peer: [type(message) for message in messages] for peer, messages in taken.items()}


def test_a_worker_gets_functions_and_templates_once_before_their_first_task() -> None:
    bench = Bench()
    first = bench.push("a")
    bench.push("b")
    bench.dispatch.start(0.0)
    (worker,) = bench.scheduler.workers
    assert bench.told() == {worker: [m.Setup, m.Export, m.Template, m.Tasks]}
    assert [who for who, _ in bench.behind.packets] == [worker], "what it runs next is there"
    bench.end(first)
    bench.dispatch.start(0.0)
    assert bench.told() == {} and len(bench.effects) == 1


def test_a_worker_that_others_depend_on_does_not_become_an_actor() -> None:
    bench = Bench()
    task = bench.push("a")
    bench.dispatch.start(0.0)
    (worker,) = bench.scheduler.workers
    bench.requests.borrowed(worker, [bytes(20)])
    bench.end(task)
    creation = bench.push("actor", actor=True)
    bench.dispatch.start(0.0)
    assert creation.worker is not None and creation.worker.worker_id != worker
    assert creation.worker.class_name == "Actor"


def test_an_actor_that_takes_a_worker_leaves_another_one_ready() -> None:
    bench = Bench()
    creation = bench.push("actor", actor=True)
    bench.dispatch.start(0.0)
    spare = [slot for slot in bench.scheduler.workers.values() if slot is not creation.worker]
    assert len(spare) == 1 and not spare[0].busy


def test_a_worker_that_cannot_be_told_fails_and_the_others_get_their_tasks() -> None:
    bench = Bench(cpus=2)
    broken = bench.push("a")
    broken.template = LocalTemplate(WORK)  # a function that never came
    whole = bench.push("b")
    bench.dispatch.start(0.0)
    assert broken.worker is not None and whole.worker is not None
    assert [worker for worker, _ in bench.failures] == [broken.worker.worker_id]
    assert m.Tasks in bench.told()[whole.worker.worker_id]


def test_nothing_is_forked_while_workers_cannot_start() -> None:
    bench = Bench()
    bench.push("a")
    bench.dispatch.start(0.0)
    (slot,) = bench.scheduler.workers.values()
    (task,) = bench.scheduler.remove_worker(slot)
    bench.workers.exited(slot, 0, "exit code 1", 0.0)
    bench.scheduler.push(task)
    bench.effects.clear()
    bench.dispatch.start(0.0)
    assert not bench.effects
    bench.dispatch.start(bench.workers.deadline())
    assert len(bench.effects) == 1
