"""``timeline``: what it has of workers that end, of asynchronous actors, and where it is asked."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

import pytest

import zray
from tests.api.conftest import eventually

pytestmark = pytest.mark.usefixtures("cluster")


@zray.remote
def nap(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def names() -> list[str]:
    events = zray.timeline()
    assert events is not None
    return [event["cat"].removeprefix("task::") for event in events]


def test_calls_of_asynchronous_and_threaded_actors() -> None:
    @zray.remote
    class Async:
        async def wait(self) -> None:
            await asyncio.sleep(0.05)

    @zray.remote(max_concurrency=3)
    class Threaded:
        def wait(self) -> None:
            time.sleep(0.05)

    actors = [Async.remote(), Threaded.remote()]
    zray.get([actor.wait.remote() for actor in actors for _ in range(3)])
    found = names()
    assert found.count("Async.wait") == found.count("Threaded.wait") == 3


def test_what_a_worker_ran_that_has_ended_in_peace_is_kept() -> None:
    @zray.remote(max_calls=1)
    def once() -> int:
        return os.getpid()

    pid = zray.get(once.remote())
    eventually(lambda: not _lives(pid))
    assert "once" in names()

    @zray.remote
    class Short:
        def call(self) -> None: ...

    actor = Short.remote()
    zray.get(actor.call.remote())
    del actor
    eventually(lambda: "Short.call" in names())


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_that_is_stopped_is_left_out() -> None:
    @zray.remote
    class Stopped:
        def pid(self) -> int:
            return os.getpid()

    actor = Stopped.remote()
    pid = zray.get(actor.pid.remote())
    zray.get(nap.remote(0))
    os.kill(pid, signal.SIGSTOP)
    try:
        start = time.monotonic()
        found = names()
        assert "nap" in found and "Stopped.pid" not in found
        assert time.monotonic() - start < 2.0
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "Stopped.pid" in names()


def test_a_task_may_ask() -> None:
    @zray.remote
    def asks() -> Any:
        return names()

    zray.get(nap.remote(0))
    assert "nap" in zray.get(asks.remote())


def test_a_worker_remembers_its_last() -> None:
    @zray.remote
    class Counter:
        def add(self) -> None: ...

    counter = Counter.remote()
    zray.get([counter.add.remote() for _ in range(1500)])
    assert names().count("Counter.add") == 1000
