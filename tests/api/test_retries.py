"""Tasks that fail or crash: retries, and what a crash says."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import pytest

import zray
from tests.api.conftest import eventually
from zray.api import cluster
from zray.errors import TaskError, WorkerCrashedError

pytestmark = pytest.mark.usefixtures("cluster")


@zray.remote
def flaky(path: str, failures: int, how: Any) -> int:
    fd = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(fd, b".")
    os.close(fd)
    attempt = os.path.getsize(path)
    if attempt <= failures:
        if isinstance(how, type):
            raise how(f"attempt {attempt}")
        if isinstance(how, signal.Signals):
            os.kill(os.getpid(), how)
            time.sleep(10)
        os._exit(how)
    return attempt


@pytest.fixture
def path(tmp_path: Any) -> str:
    return str(tmp_path / "attempts")


def attempts(path: str) -> int:
    return os.path.getsize(path)


# ---- exceptions ----------------------------------------------------------------------------


def test_exceptions_are_not_retried_unless_asked(path: str) -> None:
    with pytest.raises(ValueError, match="attempt 1"):
        zray.get(flaky.remote(path, 1, ValueError))
    assert attempts(path) == 1


@pytest.mark.parametrize("which", [True, [ValueError], [KeyError, ValueError], (Exception,)])
def test_retry_exceptions(path: str, which: Any) -> None:
    ref = flaky.options(retry_exceptions=which).remote(path, 2, ValueError)
    assert zray.get(ref) == 3


def test_retry_exceptions_of_another_type(path: str) -> None:
    with pytest.raises(ValueError, match="attempt 1"):
        zray.get(flaky.options(retry_exceptions=[KeyError]).remote(path, 1, ValueError))
    assert attempts(path) == 1


def test_retries_of_exceptions_are_counted(path: str) -> None:
    with pytest.raises(ValueError, match="attempt 3"):
        zray.get(flaky.options(retry_exceptions=True, max_retries=2).remote(path, 9, ValueError))
    assert attempts(path) == 3


def test_retry_exceptions_of_the_script_itself(path: str) -> None:
    class OwnError(Exception):
        pass

    ref = flaky.options(retry_exceptions=[OwnError]).remote(path, 1, OwnError)
    assert zray.get(ref) == 2


# ---- crashes -------------------------------------------------------------------------------


def test_crashes_are_retried_three_times(path: str) -> None:
    assert zray.get(flaky.remote(path, 3, 1)) == 4


@pytest.mark.parametrize("limit", [0, 2])
def test_crashes_beyond_the_retries(path: str, limit: int) -> None:
    with pytest.raises(WorkerCrashedError, match="exit code 7") as caught:
        zray.get(flaky.options(max_retries=limit).remote(path, 99, 7))
    assert attempts(path) == limit + 1
    assert "flaky" in str(caught.value) and "node head" in str(caught.value)
    assert not isinstance(caught.value, TaskError)


def test_endless_retries(path: str) -> None:
    assert zray.get(flaky.options(max_retries=-1).remote(path, 6, 1)) == 7


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT])
def test_signals_are_named(path: str, number: signal.Signals) -> None:
    with pytest.raises(WorkerCrashedError, match=number.name):
        zray.get(flaky.options(max_retries=0).remote(path, 1, number))


def test_the_last_words_of_a_crash() -> None:
    @zray.remote(max_retries=0)
    def crash() -> None:
        for i in range(50):
            print("line", i, file=sys.stderr)
        print("and no newline at the end", end="", file=sys.stderr, flush=True)
        os._exit(5)

    with pytest.raises(WorkerCrashedError) as caught:
        zray.get(crash.remote())
    text = str(caught.value)
    assert "line 49" in text and "and no newline at the end" in text and "line 3\n" not in text


def test_a_segmentation_fault_shows_its_stack() -> None:
    @zray.remote(max_retries=0)
    def crash() -> None:
        import ctypes

        ctypes.string_at(0)

    with pytest.raises(WorkerCrashedError, match="SIGSEGV") as caught:
        zray.get(crash.remote())
    assert "in crash" in str(caught.value)


def test_a_task_that_closes_its_sockets_is_a_crash() -> None:
    @zray.remote(max_retries=0)
    def close() -> None:
        os.closerange(3, 100)

    with pytest.raises(WorkerCrashedError):
        zray.get(close.remote())


def test_a_crash_hits_one_task_only(path: str) -> None:
    @zray.remote
    def quick(i: int) -> int:
        return i

    for _ in range(3):
        zray.get([quick.remote(i) for i in range(50)])  # now it is known to be short
    crash = flaky.options(max_retries=0).remote(path, 1, 1)
    assert zray.get([quick.remote(i) for i in range(500)]) == list(range(500))
    with pytest.raises(WorkerCrashedError):
        zray.get(crash)


def test_a_crash_takes_its_children_along(path: str) -> None:
    """Tasks of a submitter that died have nobody to give their results to."""

    @zray.remote
    def child() -> None:
        with open(path, "a") as file:
            file.write(".")
        time.sleep(0.3)

    @zray.remote(max_retries=0)
    def parent() -> None:
        for _ in range(40):
            child.remote()
        while not os.path.exists(path):
            time.sleep(0.01)
        os._exit(1)

    with pytest.raises(WorkerCrashedError):
        zray.get(parent.remote())
    eventually(lambda: cluster._status().jobs[0].unfinished == 0, 3)
    assert attempts(path) < 10


def test_values_of_a_crashed_worker_stay() -> None:
    @zray.remote
    def make() -> Any:
        return os.getpid(), bytes(500_000)

    @zray.remote
    def put() -> Any:
        return os.getpid(), zray.put(bytes(500_000))

    for function in (make, put):
        pid, value = zray.get(function.remote())
        ref = function.remote()
        zray.wait([ref], fetch_local=False)
        os.kill(pid, signal.SIGKILL)
        pid, value = zray.get(ref)
        assert len(zray.get(value) if isinstance(value, zray.ObjectRef) else value) == 500_000
