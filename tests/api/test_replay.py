"""``replay``: what failed in a worker fails the same here, and what cannot be replayed says why."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
import time
import traceback
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

import zray
from tests.api.conftest import eventually
from zray import limits
from zray.api import failed_attempts
from zray.api.replay import prepare
from zray.errors import ReplayError, RunNotKeptError, TaskError, TaskTimeoutError
from zray.protocol import messages as m
from zray.runtime import session

pytestmark = pytest.mark.usefixtures("cluster")


def failed(ref: Any) -> BaseException:
    with pytest.raises(Exception) as caught:
        zray.get(ref, timeout=20)
    return caught.value


def again(what: Any, **options: Any) -> BaseException:
    with pytest.raises(Exception) as caught:
        zray.replay(what, **options)
    return caught.value


def not_kept(what: Any) -> str:
    error = again(what)
    assert isinstance(error, RunNotKeptError), error
    return str(error)


def test_a_task_raises_the_same_here_with_its_arguments_environment_and_context() -> None:
    @zray.remote(
        max_retries=2, retry_exceptions=True, runtime_env={"env_vars": {"REPLAY_MODE": "strict"}}
    )
    def work(number: int, *, text: str) -> None:
        context = zray.get_runtime_context()
        where = (context.get_task_id(), context.get_task_name(), context.get_attempt())
        assigned = context.get_assigned_resources()
        raise ValueError(number, len(text), os.environ["REPLAY_MODE"], *where, assigned)

    ref = work.remote(7, text="x" * 100_000)
    then = failed(ref)
    assert then.args[:3] == (7, 100_000, "strict") and then.args[5] == 3

    now = again(ref)
    assert type(now) is ValueError and now.args == then.args
    assert again(ref.hex()).args == then.args
    assert zray.get_runtime_context().get_task_id() is None  # it was only pretended
    assert "REPLAY_MODE" not in os.environ


def test_a_task_cannot_replay_others() -> None:
    @zray.remote
    def replays() -> str:
        with pytest.raises(ReplayError) as caught:
            zray.replay("ab" * 16)
        return str(caught.value)

    assert "a task cannot replay others" in zray.get(replays.remote())


def test_every_way_of_a_task_is_kept() -> None:
    """Leased, by way of the head, submitted by a task, and with a timeout."""

    @zray.remote(max_retries=0)
    def broken(number: int) -> None:
        raise KeyError(number)

    @zray.remote
    def submits() -> str:
        ref = broken.remote(3)
        with pytest.raises(KeyError):
            zray.get(ref)
        return ref.hex()

    @zray.remote(max_retries=0, timeout=0.2)
    def slow() -> None:
        time.sleep(60)

    refs = [broken.remote(1), broken.options(num_cpus=0).remote(2)]
    for ref in refs:
        failed(ref)
    found = [again(ref).args for ref in (*refs, zray.get(submits.remote()))]
    assert found == [(1,), (2,), (3,)]
    ref = slow.remote()
    failed(ref)
    assert zray.replay(ref, function=lambda: "in time") == "in time"


@pytest.mark.parametrize("cpus", [0, 1])
def test_a_task_whose_worker_died_is_kept(cpus: int) -> None:
    @zray.remote(max_retries=0, num_cpus=cpus)
    def dies(number: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return number

    refs = [dies.remote(number) for number in (4, 5)]
    for ref in refs:
        failed(ref)

    def replayed() -> bool:  # what a driver knows goes by way of the head
        try:
            return [zray.replay(ref, function=lambda n: -n) for ref in refs] == [-4, -5]
        except RunNotKeptError:
            return False

    eventually(replayed)


def test_large_arguments_are_kept_up_to_a_bound_and_beyond_as_references() -> None:
    @zray.remote(max_retries=0)
    def work(array: Any, other: Any) -> None:
        raise ValueError(float(array.sum()), len(other))

    small = np.ones(200_000)
    ref = work.remote(zray.put(small), "text")
    failed(ref)
    assert again(ref).args == (200_000.0, 4)

    held = zray.put(np.ones(limits.REPLAY_RUN_BYTES_MAX // 8 + 1000))
    ref = work.remote(held, "text")
    then = failed(ref)
    assert again(ref).args == then.args  # it exists still
    oid = held.hex()
    del held, then

    def is_gone() -> bool:
        error = again(ref)
        return isinstance(error, ReplayError) and f"object {oid}" in str(error)

    eventually(is_gone)
    assert re.search(r"ZR-5120 .* too large to be kept, and gone", str(again(ref)))


def test_a_call_of_an_actor_runs_after_its_constructor() -> None:
    @zray.remote
    class Counter:
        def __init__(self, start: int) -> None:
            self.value = start

        def add(self, more: int) -> int:
            self.value += more
            if self.value > 10:
                raise OverflowError(self.value, zray.get_runtime_context().get_task_name())
            return self.value

    counter = Counter.remote(zray.put(5))
    assert zray.get([counter.add.remote(3), counter.add.remote(1)]) == [8, 9]
    ref = counter.add.remote(2)
    assert failed(ref).args == (11, "Counter.add")
    assert zray.replay(ref) == 7  # what calls before have changed is not there

    ref = counter.add.remote(20)
    failed(ref)
    assert again(ref).args == (25, "Counter.add")


def test_asynchronous_calls_constructors_and_generators() -> None:
    @zray.remote
    class Async:
        async def work(self, number: int) -> None:
            await asyncio.sleep(0)
            raise OSError(number)

    @zray.remote
    class Unmade:
        def __init__(self, number: int) -> None:
            raise LookupError(number)

    @zray.remote(max_retries=0, num_returns="streaming")
    def items(count: int) -> Any:
        yield from range(count)
        raise IndexError(count)

    ref = Async.remote().work.remote(6)
    failed(ref)
    assert type(again(ref)) is OSError and again(ref).args == (6,)

    failed(Unmade.remote(8).__ray_ready__.remote())
    kept = [run for node in failed_attempts.listed() for run in node.runs]
    (made,) = [run for run in kept if run.name == "Unmade.__init__"]
    assert again(made.task_id.hex()).args == (8,)

    stream = items.remote(2)
    with pytest.raises(IndexError):
        for one in stream:
            zray.get(one)
    assert again(stream.completed().hex()).args == (2,)


def test_what_fails_in_a_task_of_a_task_fails_in_both() -> None:
    @zray.remote(max_retries=0)
    def inner(number: int) -> None:
        raise ArithmeticError(number)

    @zray.remote(max_retries=0)
    def outer(number: int) -> None:
        zray.get(inner.remote(number))

    ref = outer.remote(9)
    failed(ref)
    now = again(ref)
    assert isinstance(now, TaskError) and isinstance(now, ArithmeticError) and now.args == (9,)
    names = [run.name for node in failed_attempts.listed() for run in node.runs]
    assert names.count("inner") == 2  # that of then, and that of now


def test_what_did_not_run_or_did_not_fail_is_not_kept_which_is_said() -> None:
    @zray.remote(max_retries=0)
    def fine(value: Any) -> Any:
        return value

    @zray.remote(max_retries=0)
    def broken() -> None:
        raise ValueError

    good, stopped = fine.remote(1), fine.remote(broken.remote())
    zray.get(good)
    failed(stopped)
    for ref in (good, stopped):
        assert f"no node keeps a failed attempt of task {ref.hex()[:32]}" in not_kept(ref)
    assert "does not know the task" in not_kept("ab" * 16)
    with pytest.raises(ValueError, match="is no task's id"):
        zray.replay("evil\x1b[2J")
    with pytest.raises(TypeError, match="takes a reference or a task's id"):
        zray.replay(3)  # type: ignore[arg-type]


def test_ten_thousand_failures_stay_within_the_bound_and_the_last_can_be_replayed() -> None:
    @zray.remote(max_retries=0)
    def broken(number: int, padding: bytes) -> None:
        raise ValueError(number)

    refs = [broken.remote(number, bytes(3000)) for number in range(10_000)]
    zray.wait(refs, num_returns=len(refs), timeout=60, fetch_local=False)
    (node,) = failed_attempts.listed()
    assert node.bytes <= limits.REPLAY_NODE_BYTES
    assert 500 < node.kept <= 10_000 + 100
    assert again(node.runs[0].task_id.hex()).args


def test_another_python_is_refused_and_so_is_nonsense(tmp_path: Any) -> None:
    connected = session.current()
    run = m.KeptRun(b"n" * 16, 1, "nonsense", b"", 0.0, "")
    with connected._lock:
        connected.client.outbox.append(m.KeepRun(0, run, bytes(16), b"code", b"\xff nonsense"))
        connected._flush()
    eventually(lambda: isinstance(again((b"n" * 16).hex()), ReplayError))
    assert "cannot be read" in str(again((b"n" * 16).hex()))

    @zray.remote(max_retries=0)
    def broken() -> None:
        raise ValueError

    ref = broken.remote()
    failed(ref)
    attempt = failed_attempts.fetch(failed_attempts.task_id(ref.hex()))
    other = replace(attempt.run, versions=m.Versions("2.7", "0", ""))
    with pytest.raises(ReplayError, match=r"under Python 2\.7"):
        prepare(attempt._replace(run=other))
    path = tmp_path / "run"
    failed_attempts.dump(attempt, path)
    assert path.stat().st_mode & 0o077 == 0
    assert failed_attempts.load(path) == attempt
    for contents in (b"", b"x" * 1000, path.read_bytes()[:-1]):
        path.write_bytes(contents)
        with pytest.raises(ReplayError, match="not written by zray replay"):
            failed_attempts.load(path)


def test_a_task_that_ran_too_long_does_so_here_and_says_where() -> None:
    @zray.task(timeout=0.5)
    def hangs(number: int) -> int:
        while number:
            time.sleep(0.05)
        return number

    ref = hangs.remote(1)
    assert isinstance(failed(ref), TaskTimeoutError)
    before = signal.getsignal(signal.SIGALRM)
    began = time.monotonic()
    now = again(ref)
    assert isinstance(now, TaskTimeoutError) and 0.4 < time.monotonic() - began < 10
    assert "hangs ran longer than its timeout of 0.5 s, and was interrupted" in str(now)
    assert "hangs" in {frame.name for frame in traceback.extract_tb(now.__traceback__)}
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert zray.replay(ref, function=lambda number: number + 1) == 2


def test_what_cannot_be_returned_cannot_be_returned_here() -> None:
    @zray.remote
    def lock() -> Any:
        return {"lock": threading.Lock()}

    @zray.remote(num_returns=2)
    def three() -> Any:
        return 1, 2, 3

    @zray.remote(num_returns=3)
    def good(fails: bool) -> Any:
        if fails:
            raise ValueError
        return 1, 2, 3

    @zray.remote
    class Holder:
        def lock(self) -> Any:
            return threading.Lock()

    ref = lock.remote()
    then = failed(ref)
    now = again(ref)
    assert "the result of " in str(now) and "_thread.lock" in str(now)
    assert str(now) in str(then)
    (first, _) = three.remote()
    failed(first)
    now = again(first)
    assert isinstance(now, ValueError) and "num_returns=2 but returned 3 values" in str(now)
    holder = Holder.remote()
    call = holder.lock.remote()
    failed(call)
    assert "Holder.lock" in str(again(call)) and "_thread.lock" in str(again(call))
    refs = good.remote(True)
    failed(refs[0])
    assert zray.replay(refs[0], function=lambda fails: (1, 2, 3)) == (1, 2, 3)
