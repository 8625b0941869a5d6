"""The tasks that a node holds and what the head hears of them, without the raylet."""

from __future__ import annotations

from itertools import count
from typing import Any

from tests.core.benches import FUNCTION, UNIT, identity, object_of, spec, template, value
from zray import limits
from zray.core import failures
from zray.core.incidents import Incidents
from zray.core.machine import Outbox
from zray.core.raylet.actors import HostedActors
from zray.core.raylet.completions import Completions
from zray.core.raylet.credit import Credit
from zray.core.raylet.head_session import HEAD, HeadSession
from zray.core.raylet.lending import Lending
from zray.core.raylet.local_records import WorkerSlot
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.core.raylet.objects import LocalObjects
from zray.core.raylet.tasks import LocalTasks
from zray.core.raylet.worker_requests import WorkerRequests
from zray.errors import ObjectLostError, TaskCancelledError
from zray.protocol import messages as m
from zray.protocol.codec import Payload

JOB = identity("job")
WORK = template()
OID = object_of(identity("argument"))


class Bench:
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
        self.tasks = LocalTasks(
            node="n1",
            outbox=self.outbox,
            incidents=incidents,
            objects=self.objects,
            scheduler=self.scheduler,
            completions=self.completions,
            lending=self.lending,
            worker_requests=WorkerRequests(self.outbox, self.objects, tell_head, count(1)),
            actors=HostedActors(
                *(self.outbox, self.scheduler, self.completions, tell_head, self._kill)
            ),
            tell_head=tell_head,
            kill=self._kill,
            let_go=lambda slot: None,
        )
        self.credit = Credit(self.session, self.scheduler, self.tasks, self.lending)
        self.tasks.on_template(WORK)
        self.tasks.on_export(m.Export(0, FUNCTION, "work", b"code"))
        self.slot = WorkerSlot(identity("w"), (JOB, (), 1))
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


def errors(end: m.TaskDone) -> str:
    (outcome,) = end.results
    assert outcome.kind & m.ERROR
    record = failures.read(outcome.value)
    return f"{record.code} {record.message}"


def test_an_argument_that_is_an_error_is_the_task_s_own_and_nothing_runs() -> None:
    bench = Bench()
    text = failures.encode(TaskCancelledError, "it was cancelled")
    bench.objects.put(m.Outcome(OID, m.ERROR, len(text), text))
    bench.give("t", dependencies=[OID])
    (end,) = bench.ends()
    assert (end.status, end.results[0].value) == (m.FINISHED, text)
    assert not bench.tasks.held and not bench.scheduler.queued


def test_a_task_that_waits_for_an_argument_lends_and_fails_if_there_is_none() -> None:
    bench = Bench()
    bench.give("t", dependencies=[OID])
    (pull,) = bench.told(m.Pull)
    bench.lending.step(limits.LEND_AFTER_S)
    assert bench.lending.lent == {"CPU": UNIT}
    bench.objects.on_failed(m.PullFailed(0, pull.transfer, ObjectLostError.code, "gone with n2"))
    (end,) = bench.ends()
    assert errors(end) == f"{ObjectLostError.code} gone with n2"
    assert not any(bench.lending.lent.values())


def test_what_a_withdrawn_task_returns_is_told_to_nobody() -> None:
    bench = Bench()
    bench.give("t")
    bench.start()
    bench.tasks.on_discard(m.Discard(0, [m.HeldTask(identity("t"), 1, JOB, WORK.template_id)]))
    assert bench.killed == ["a task of it was withdrawn"]
    late = m.TaskDone(identity("t"), 1, m.FINISHED, [value(identity("t"))])
    bench.tasks.on_worker_done(bench.slot, m.Done(0, [late]), 1.0)
    assert bench.ends() == [] and not bench.objects.stored


def test_a_cancel_ends_what_has_not_started_at_once_and_asks_what_has() -> None:
    bench = Bench()
    bench.give("running", "queued")
    bench.start()
    for name in ("running", "queued"):
        bench.tasks.on_cancel(m.CancelTask(0, identity(name), 1, False), 5.0)
    messages = bench.outbox.take()
    assert [type(message) for message in messages[identity("w")]] == [m.CancelTask]
    (end,) = bench.ends()
    assert (end.task_id, end.status) == (identity("queued"), m.CANCELLED)
    assert bench.slot.kill_at() == 5.0 + limits.CANCEL_GRACE_S and not bench.killed


def test_of_a_dead_worker_s_tasks_those_not_begun_start_elsewhere_in_their_order() -> None:
    bench = Bench()
    bench.tasks.templates[WORK.template_id].measured(0.00001)
    bench.give("a", "b", "c")
    bench.start()
    left = bench.scheduler.remove_worker(bench.slot)
    bench.tasks.worker_died(bench.slot, left, 1, "signal 9")
    (end,) = bench.ends()
    assert (end.task_id, end.status) == (identity("a"), m.CRASHED)
    assert "signal 9" in errors(end)
    needs = left[0].template.needs
    order = [task.task_id for task in reversed(bench.scheduler.reclaim(needs, 9))]
    assert order == [identity("b"), identity("c")]


def test_an_end_that_is_too_large_to_be_told_is_an_error_here_too() -> None:
    bench = Bench()
    bench.give("t")
    bench.start()
    large = m.TaskDone(identity("t"), 1, m.FINISHED, [value(identity("t"), b"x" * 1000)])
    bench.tasks.on_worker_done(bench.slot, m.Done(0, [large]), 1.0)
    bench.completions.flush()
    bench.outbox.take()
    bench.tasks.end_too_large(large, "1000 bytes are too many")
    (end,) = bench.ends()
    assert "1000 bytes are too many" in errors(end)
    assert bench.objects.stored[object_of(identity("t"))] == end.results[0]


# ---- credit --------------------------------------------------------------------------------


def test_credit_is_told_in_a_session_and_when_it_has_moved_enough() -> None:
    bench = Bench()
    for _ in range(2):
        bench.credit.report()
    assert [credit.granted for credit in bench.told(m.Credit)] == [limits.RAYLET_UNSTARTED_TASKS]
    bench.give("a", "b")
    bench.credit.report()
    assert bench.told(m.Credit) == [], "what was received and what waits cancel out"
    bench.scheduler.released = {"CPU": UNIT}
    bench.credit.report()
    assert [credit.released for credit in bench.told(m.Credit)] == [[("CPU", UNIT)]]
    bench.session.disconnected()
    bench.credit.new_session()
    bench.credit.report()
    assert not bench.outbox


def test_what_cannot_start_past_the_bound_is_given_back() -> None:
    bench = Bench(max_workers=1)
    bench.give("waits", depth=1)
    bench.start()
    bench.scheduler.block(bench.slot)
    bench.give("beside", depth=1)
    bench.give("below", depth=2)
    bench.credit.report()
    messages = bench.outbox.take()[HEAD]
    assert [(c.floor, c.free_floor) for c in messages if isinstance(c, m.Credit)] == [(1, 1)]
    returned = [message.task_ids for message in messages if isinstance(message, m.Returned)]
    assert returned == [identity("beside")]
    assert identity("below") in bench.tasks.held and identity("beside") not in bench.tasks.held
