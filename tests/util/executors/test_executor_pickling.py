"""Arguments, functions and results that fail or kill while they are pickled or unpickled.

No call may be left without an end, and where no process died the executor goes on.
"""

from __future__ import annotations

import concurrent.futures
import os

import pytest

from tests.util.executors.functions import square
from zray import Executor

pytestmark = pytest.mark.usefixtures("cluster")
HOW = pytest.mark.parametrize("through", ["submit", "map", "process"])


class Bad:
    """Raises, or ends the process, when it is pickled or unpickled: in the worker alone."""

    def __init__(self, when: str, what: str) -> None:
        self.when, self.what, self.pid = when, what, os.getpid()

    def act(self) -> None:
        if self.what == "dies":
            if os.getpid() != self.pid:
                os._exit(1)
        else:
            raise ValueError(f"while it is {self.when}")

    def __reduce__(self):
        if self.when == "pickled":
            self.act()
        return _made, (self.when, self.what, self.pid)


def _made(when, what, pid):
    bad = Bad(when, what)
    bad.pid = pid
    if when == "unpickled":
        bad.act()
    return bad


def take(bad):
    return "taken"


def give(arguments):
    when, what, pid = arguments
    bad = Bad(when, what)
    bad.pid = pid
    return bad


def first(executor: Executor, through: str, function, argument):
    """The one result."""
    if through == "map":
        return next(executor.map(function, [argument]))
    return executor.submit(function, argument).result(timeout=30)


def made(through: str) -> Executor:
    return Executor(2, max_tasks_per_child=100) if through == "process" else Executor(2)


@HOW
@pytest.mark.parametrize("when", ["pickled", "unpickled"])
def test_arguments_that_raise(through, when) -> None:
    with made(through) as executor:
        with pytest.raises((ValueError, TypeError), match=f"while it is {when}"):
            first(executor, through, take, Bad(when, "raises"))
        assert first(executor, through, square, 3) == 9


@HOW
@pytest.mark.parametrize("when", ["pickled", "unpickled"])
def test_results_that_raise(through, when) -> None:
    with made(through) as executor:
        with pytest.raises((ValueError, TypeError), match=f"while it is {when}"):
            first(executor, through, give, (when, "raises", 0))
        assert first(executor, through, square, 3) == 9


@HOW
def test_arguments_that_end_the_worker(through) -> None:
    executor = made(through)
    with pytest.raises(concurrent.futures.BrokenExecutor):
        first(executor, through, take, Bad("unpickled", "dies"))
    with pytest.raises(concurrent.futures.BrokenExecutor):
        executor.submit(square, 3)
    executor.shutdown()


@HOW
def test_results_that_end_the_worker(through) -> None:
    executor = made(through)
    with pytest.raises(concurrent.futures.BrokenExecutor):
        first(executor, through, give, ("pickled", "dies", os.getpid()))
    executor.shutdown()


def test_exceptions_that_raise_when_they_are_pickled() -> None:
    class Odd(Exception):
        def __reduce__(self):
            raise ValueError("while it is pickled")

    def odd(x):
        raise Odd("its own text")

    with Executor() as executor:
        for through in ("submit", "map"):
            with pytest.raises(Exception, match="its own text"):
                first(executor, through, odd, 1)
        assert executor.submit(square, 3).result() == 9


def test_workers_can_be_terminated() -> None:
    executor = Executor(2)
    futures = [executor.submit(_sleep) for _ in range(5)]
    executor.terminate_workers()
    for future in futures:
        with pytest.raises(concurrent.futures.BrokenExecutor, match="terminated"):
            future.result(timeout=30)
    with pytest.raises(RuntimeError):
        executor.submit(square, 3)
    executor.shutdown()
    Executor().kill_workers()


def _sleep():
    import time

    time.sleep(60)
