"""``timeout=``: tasks end in time, on each way that they can go, or with their worker."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

import zray
from tests.api.conftest import eventually
from zray.errors import TaskTimeoutError

pytestmark = pytest.mark.usefixtures("cluster")


@zray.remote
def sleep(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@zray.remote
def stubborn(began: Path) -> None:
    began.write_text(str(os.getpid()))
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            pass


def timed_out(ref: Any, within_s: float = 3.0) -> str:
    """What the task's error says, which comes in time."""
    start = time.monotonic()
    with pytest.raises(TaskTimeoutError) as caught:
        zray.get(ref, timeout=20)
    assert time.monotonic() - start < within_s
    return str(caught.value)


def lease(function: Any = sleep) -> None:
    """Until tasks of the function go to leased workers."""
    for _ in range(5):
        zray.get(function.remote(0))


@pytest.mark.parametrize("way", ["leased", "by the head", "nested"])
def test_a_task_that_runs_too_long_is_interrupted(way: str) -> None:
    needs = {"resources": {"node:__internal_head__": 0.001}} if way == "by the head" else {}
    limited = sleep.options(timeout=0.3, **needs)

    @zray.remote
    def nests() -> str:
        return timed_out(limited.remote(60))

    lease(limited)
    pid = zray.get(limited.remote(0))
    if way == "nested":
        said = zray.get(nests.remote(), timeout=20)
    else:
        said = timed_out(limited.remote(60))
    assert "ZR-3009 sleep ran longer than its timeout of 0.3 s, and was interrupted in line" in said
    assert Path(__file__).name in said and "timeout=" in said
    os.kill(pid, 0)  # the worker lives on
    assert zray.get(limited.remote(0)) > 0


def test_time_counts_from_the_start_of_a_task_not_from_when_it_was_submitted() -> None:
    refs = [sleep.options(timeout=0.6).remote(0.3) for _ in range(8)]
    assert len(zray.get(refs, timeout=20)) == 8


def test_each_of_many_short_tasks_has_its_own_time() -> None:
    limited = sleep.options(timeout=0.5)
    start = time.monotonic()
    while time.monotonic() - start < 1.2:
        zray.get([limited.remote(0.001) for _ in range(20)])
    timed_out(limited.remote(60))


def test_what_ended_in_time_harms_nothing_that_comes_after_it() -> None:
    """A task without a limit runs on, in the same worker, when the time of the last one is over."""
    limited = sleep.options(timeout=0.3)
    zray.get([limited.remote(0) for _ in range(4)])
    zray.get([sleep.remote(0.6) for _ in range(2)], timeout=20)


def test_a_task_that_does_not_stop_is_killed_with_its_worker(tmp_path: Path) -> None:
    needs = {"node:__internal_head__": 0.001}
    refs = [
        stubborn.options(timeout=0.3).remote(tmp_path / "leased"),
        stubborn.options(timeout=0.3, resources=needs).remote(tmp_path / "head"),
    ]
    for ref, name in zip(refs, ("leased", "head"), strict=True):
        said = timed_out(ref, 12)
        pid = int((tmp_path / name).read_text())
        assert f"did not stop: its worker (pid {pid}, node" in said and "was killed" in said
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_timeout_is_no_failure_that_is_retried_but_where_retry_exceptions_covers_it(
    tmp_path: Path,
) -> None:
    def long(log: Path) -> str:
        with log.open("a") as file:
            file.write(".")
        if log.stat().st_size < 3:
            time.sleep(60)
        return "at last"

    limited = zray.remote(timeout=0.2, max_retries=5)(long)
    timed_out(limited.remote(tmp_path / "once"))
    assert (tmp_path / "once").stat().st_size == 1
    for covers in (True, [TaskTimeoutError], [TimeoutError]):
        name = f"{covers}"
        again = limited.options(retry_exceptions=covers)
        assert zray.get(again.remote(tmp_path / name), timeout=20) == "at last"
    timed_out(limited.options(retry_exceptions=True, max_retries=1).remote(tmp_path / "twice"))
    assert (tmp_path / "twice").stat().st_size == 2


def test_a_task_may_tidy_up_and_what_it_returns_counts() -> None:
    @zray.remote(timeout=0.2)
    def partial() -> int:
        done = 0
        try:
            while True:
                time.sleep(0.01)
                done += 1
        except KeyboardInterrupt:
            return done

    assert zray.get(partial.remote(), timeout=20) > 0


def test_a_task_that_waits_for_others_is_interrupted() -> None:
    @zray.remote(timeout=0.3)
    def waits() -> int:
        return int(zray.get(sleep.remote(1.5)))

    timed_out(waits.remote())


def test_a_generator_ends_with_the_error_behind_what_it_has_yielded() -> None:
    @zray.remote(timeout=0.5)
    def counts() -> Any:
        yield 1
        yield 2
        time.sleep(60)

    items = iter(counts.remote())
    assert [zray.get(next(items)), zray.get(next(items))] == [1, 2]
    with pytest.raises(TaskTimeoutError):
        zray.get(next(items), timeout=20)


def test_several_returns_are_all_the_error() -> None:
    for ref in sleep.options(timeout=0.2, num_returns=2).remote(60):
        timed_out(ref)


def test_the_program_s_own_interrupt_is_not_taken_for_it(tmp_path: Path) -> None:
    @zray.remote(timeout=30)
    def raises() -> None:
        raise KeyboardInterrupt

    with pytest.raises(zray.errors.TaskError):
        zray.get(raises.remote(), timeout=20)


def test_a_cancel_of_a_task_with_a_timeout_is_a_cancel(tmp_path: Path) -> None:
    limited = stubborn.options(timeout=30)
    ref = limited.remote(tmp_path / "began")
    eventually((tmp_path / "began").exists)
    zray.cancel(ref, force=True)
    with pytest.raises(zray.errors.TaskCancelledError):
        zray.get(ref, timeout=20)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_timeout_is_a_time(value: float) -> None:
    with pytest.raises(ValueError, match="timeout must be more than 0 seconds"):
        sleep.options(timeout=value)


def test_actors_have_none() -> None:
    class Counter:
        @zray.method(num_returns=1)
        def add(self) -> None: ...

    with pytest.raises(ValueError, match="'timeout' is an option of tasks, not of actors"):
        zray.remote(timeout=3)(Counter)
    counter = zray.remote(Counter).remote()
    with pytest.raises(ValueError, match="'timeout' is an option of tasks, not of actors"):
        counter.add.options(timeout=3)
    with pytest.raises(TypeError, match="timeout must be a number of seconds, got 'x'"):
        sleep.options(timeout="x")
