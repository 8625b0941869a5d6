"""Actors and callers that compute for long: what was said before that arrives meanwhile."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import psutil
import pytest

import zray

GET_S = 20.0
SIZES = [(5, 2 << 20), (40, 60_000)]  # together more than a socket takes at once


@pytest.mark.parametrize(("count", "size"), SIZES)
@pytest.mark.parametrize("concurrency", [1, 2])
def test_answers_leave_while_the_next_call_runs(
    connected: Any, gate: Any, concurrency: int, count: int, size: int
) -> None:
    wait = gate.wait

    @zray.actor(num_cpus=0, max_concurrency=concurrency)
    class Busy:
        def give(self, number: int) -> bytes:
            return bytes([number]) * size

        def hold(self) -> str:
            wait()
            return "held"

    busy = Busy.remote()
    zray.get(busy.__ray_ready__.remote(), timeout=GET_S)
    refs = [busy.give.remote(number) for number in range(count)]
    if concurrency > 1:
        refs += [busy.hold.remote()]
    refs += [busy.hold.remote()]
    assert zray.get(refs[:count], timeout=GET_S) == [bytes([n]) * size for n in range(count)]
    gate.open()
    assert set(zray.get(refs[count:], timeout=GET_S)) == {"held"}


@pytest.mark.parametrize(("count", "size"), SIZES)
def test_arguments_leave_while_the_caller_computes(
    connected: Any, records: Any, gate: Any, count: int, size: int
) -> None:
    write, wait = records.write, gate.wait

    @zray.actor(num_cpus=0)
    class Sink:
        def take(self, value: bytes) -> int:
            write("took")
            return len(value)

        def call(self, other: Any) -> list[int]:
            refs = [other.take.remote(b"v" * size) for _ in range(count)]
            wait()
            return list(zray.get(refs))

    @zray.task(num_cpus=0)
    def call(sink: Any) -> list[int]:
        refs = [sink.take.remote(b"v" * size) for _ in range(count)]
        wait()
        return list(zray.get(refs))

    sink, other = Sink.remote(), Sink.remote()
    results = [call.remote(sink), other.call.remote(sink)]
    records.until(2 * count)
    gate.open()
    assert zray.get(results, timeout=GET_S) == [[size] * count] * 2


@pytest.mark.parametrize("kind", ["plain", "threaded", "async"])
def test_a_process_that_a_method_forks_does_not_serve_calls(connected: Any, kind: str) -> None:
    class Forks:
        def fork(self) -> int:
            return os.fork()

        def pid(self) -> int:
            return os.getpid()

    class ForksAsync(Forks):
        async def later(self) -> None: ...

    cls = zray.actor(ForksAsync if kind == "async" else Forks)
    forks = cls.options(max_concurrency=3 if kind == "threaded" else None).remote()
    pid = zray.get(forks.pid.remote(), timeout=GET_S)
    child = zray.get(forks.fork.remote(), timeout=GET_S)
    assert child > 0
    found = zray.get([forks.pid.remote() for _ in range(50)], timeout=GET_S)
    assert found == [pid] * 50

    def ended() -> bool:
        return not psutil.pid_exists(child) or (
            psutil.Process(child).status() == psutil.STATUS_ZOMBIE
        )

    connected.until(ended, 5, "the forked process has ended")


def test_references_are_dropped_by_an_actor_that_is_never_idle(connected: Any) -> None:
    @zray.actor(num_cpus=0)
    class Holder:
        def __init__(self) -> None:
            self.kept: list[Any] = []

        def keep(self, box: list[Any]) -> None:
            self.kept += box

        def forget(self) -> None:
            self.kept = []

        def nothing(self) -> None: ...

    holder = Holder.remote()
    zray.get([holder.keep.remote([zray.put(b"x" * 100_000)]) for _ in range(10)], timeout=GET_S)
    assert connected.status().objects >= 10
    zray.get(holder.forget.remote(), timeout=GET_S)
    deadline = time.monotonic() + 10
    flying = [holder.nothing.remote() for _ in range(200)]
    while connected.status().objects > 1:
        assert time.monotonic() < deadline
        flying += [holder.nothing.remote() for _ in range(200)]
        zray.get(flying[:200], timeout=GET_S)
        del flying[:200]


@pytest.mark.parametrize("kind", ["plain", "threaded", "async"])
def test_what_an_actor_keeps_for_a_caller_goes_when_that_has_ended(
    connected: Any, records: Any, kind: str
) -> None:
    """A killed caller acknowledges nothing; its last answer refers to an object of the actor."""
    write = records.write

    class Gives:
        def __init__(self) -> None:
            import zray.limits

            zray.limits.ACTOR_CALLERS_CHECK_S = 0.5  # in this process; else the test takes long

        def give(self) -> list[Any]:
            return [zray.put(b"x" * 200_000)]

    class GivesAsync(Gives):
        async def later(self) -> None: ...

    @zray.task(num_cpus=0, max_retries=0)
    def call(gives: Any) -> None:
        kept = zray.get(gives.give.remote())
        write(os.getpid())
        time.sleep(1000)
        del kept

    cls = zray.actor(GivesAsync if kind == "async" else Gives)
    gives = cls.options(num_cpus=0, max_concurrency=3 if kind == "threaded" else None).remote()
    calls = [call.remote(gives) for _ in range(3)]
    pids = [int(line) for line in records.until(3)]
    assert connected.status().objects >= 4
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    zray.wait(calls, num_returns=3, timeout=GET_S)
    del calls

    connected.until(lambda: connected.status().objects == 1, 10, "only the handle is left")
