"""Attempts of tasks, without the worker: how they end, and which cancel is for them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.core.benches import FUNCTION, identity, object_of, somebody, template
from zray.core import failures
from zray.core.client.client import Client
from zray.core.worker.reports import Reports
from zray.core.worker.task_inbox import Delivered, TaskInbox
from zray.errors import TaskCancelledError
from zray.nodes.worker.attempts import Attempts
from zray.nodes.worker.streams import StreamServer
from zray.nodes.worker.user_code import UserCode
from zray.protocol import messages as m
from zray.runtime import serialization
from zray.runtime.buffers import Parts
from zray.runtime.quiet_lock import QuietLock

WORK = template()
ME = identity("w1")


class Host:
    """What user code needs of a worker that has no store."""

    def __init__(self) -> None:
        self.lock = QuietLock()
        self.teller = self
        self.me = somebody(ME, identity("job"), pid=4711)
        self.client = Client(self.me, remote=False)

    def keeps(self) -> bool:
        return False

    def kept(self, parts: Parts, oid: bytes) -> m.Outcome:
        return m.Outcome(oid, m.VALUE, parts.size, parts.to_bytes(), parts.contained)

    def unkeep(self, outcomes: list[m.Outcome]) -> None:
        assert not outcomes


class Bench:
    def __init__(self) -> None:
        self.host = Host()
        inbox = TaskInbox(self.host.me)
        streams = StreamServer(self.host, lambda: None)  # type: ignore[arg-type]
        code = UserCode(self.host, inbox, streams)  # type: ignore[arg-type]
        self.actors: list[Any] = []
        self.reports = Reports(self.host.me)
        self.attempts = Attempts(
            *(code, self.host.client.references, lambda made, *_: self.actors.append(made)),
            self.reports,
        )
        self._inbox = inbox

    def run(
        self, function: Callable[..., Any], *args: Any, retry: Any = False, **fields: Any
    ) -> tuple[int, m.Outcome]:
        """Run it as task ``t0``: the status, and what became of its only return."""
        blob = serialization.dumps_function(function, retry).blob
        self._inbox.on_export(m.Export(0, FUNCTION, "work", blob))
        self._inbox.on_forget(m.Forget(0, FUNCTION))  # the one before it
        self._inbox.on_export(m.Export(0, FUNCTION, "work", blob))
        data = serialization.dumps_arguments(args, {}, Host).data
        task = m.TaskSpec(identity("t0"), WORK.template_id, data)
        self.attempts.expect()
        delivered = Delivered(m.Assignment(1, identity("job"), task, **fields), [])
        status, (outcome,), seconds = self.attempts.run(delivered, WORK)
        assert outcome.object_id == object_of(identity("t0")) and seconds >= 0
        return status, outcome


@pytest.fixture
def bench() -> Iterator[Bench]:
    before = signal.getsignal(signal.SIGINT)
    made = Bench()
    made.attempts.handle_signals()
    yield made
    signal.signal(signal.SIGINT, before)


cancels: list[Callable[[], None]] = []


def cancelled_within() -> None:
    """User code that something happens to."""
    cancels.pop()()


def fail() -> None:
    raise ValueError("no")


def test_what_the_function_returns_is_the_outcome(bench: Bench) -> None:
    status, outcome = bench.run(divmod, 7, 2)
    assert status == m.FINISHED and serialization.loads(outcome.value) == (3, 1)


@pytest.mark.parametrize(
    ("retry", "status"),
    [(False, m.FINISHED), (True, m.FAILED), ([ValueError], m.FAILED), ([KeyError], m.FINISHED)],
)
def test_an_error_is_final_unless_the_task_s_retries_cover_it(
    bench: Bench, retry: Any, status: int
) -> None:
    found, outcome = bench.run(fail, retry=retry)
    assert found == status and outcome.kind == m.ERROR
    assert "no" in failures.read(outcome.value).message


def test_a_cancel_interrupts_the_task_that_it_is_for(bench: Bench) -> None:
    cancels.append(lambda: bench.attempts.cancel(identity("t0")))
    status, outcome = bench.run(cancelled_within)
    assert status == m.CANCELLED
    assert failures.read(outcome.value).code == TaskCancelledError.code
    assert bench.run(divmod, 7, 2)[0] == m.FINISHED  # the next one is not the one that was meant


def test_a_cancel_of_another_task_and_an_interrupt_of_nobody_s_do_nothing(bench: Bench) -> None:
    for strike in (
        lambda: bench.attempts.cancel(identity("t9")),
        lambda: signal.raise_signal(signal.SIGINT),
    ):
        cancels.append(strike)
        assert bench.run(cancelled_within)[0] == m.FINISHED


def test_an_actor_s_constructor_makes_this_process_the_actor(bench: Bench) -> None:
    info = m.ActorInfo("Counter", FUNCTION, [])
    status, outcome = bench.run(dict, actor=info)
    assert (status, bench.actors) == (m.FINISHED, [{}])
    assert not outcome.value
    assert bench.host.client.references.own_handle == outcome.object_id
