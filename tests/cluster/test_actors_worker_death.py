"""An actor whose process is killed: what its callers are told, and how it starts again."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import psutil
import pytest

import zray
from zray.errors import (
    ActorDiedError,
    ActorError,
    ActorUnavailableError,
    TaskCancelledError,
)

GET_S = 20.0


def outcome(ref: Any) -> Any:
    """The value, or the error of an actor's end."""
    try:
        return zray.get(ref, timeout=GET_S)
    except ActorError as error:
        return error


def ledger_class(records: Any, gate: Any) -> Any:
    """A class that writes down what it runs, by its caller and in order."""
    write, wait = records.write, gate.wait

    @zray.actor
    class Ledger:
        def __init__(self) -> None:
            write(f"init:{os.getpid()}:0")

        def add(self, caller: str, number: int) -> int:
            write(f"{caller}:{number}:{os.getpid()}")
            return number

        def hold(self) -> None:
            write(f"hold:{os.getpid()}:0")
            wait()

        def pid(self) -> int:
            return os.getpid()

    return Ledger


def test_calls_in_flight_end_with_their_actor_and_say_why(
    connected: Any, records: Any, gate: Any
) -> None:
    ledger = ledger_class(records, gate).remote()
    answered = [ledger.add.remote("driver", number) for number in range(10)]
    assert zray.get(answered, timeout=GET_S) == list(range(10))
    pid = zray.get(ledger.pid.remote(), timeout=GET_S)
    flying = [ledger.hold.remote(), *(ledger.add.remote("driver", n) for n in range(10, 20))]
    records.until(12)
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    for ref in flying:
        with pytest.raises(ActorDiedError) as caught:
            zray.get(ref, timeout=GET_S)
        error, text = caught.value, str(caught.value)
        assert error.maybe_executed and error.actor_id == ledger._actor_id.hex()
        assert "SIGKILL" in text and f"pid {pid}" in text and "Ledger" in text
        assert "node one" in text or "node two" in text
    assert time.monotonic() - killed < 3
    late = outcome(ledger.add.remote("driver", 20))
    assert isinstance(late, ActorDiedError) and not late.maybe_executed and "SIGKILL" in str(late)
    assert zray.get(answered, timeout=GET_S) == list(range(10))
    assert len(records.lines()) == 12  # what waited behind the running one never began
    connected.until(connected.at_rest, 5, "all resources are free")


def test_after_a_restart_without_retries_only_new_calls_run(
    connected: Any, records: Any, gate: Any
) -> None:
    ledger = ledger_class(records, gate).options(max_restarts=1).remote()
    pid = zray.get(ledger.pid.remote(), timeout=GET_S)
    flying = [ledger.hold.remote(), *(ledger.add.remote("driver", number) for number in range(5))]
    records.until(2)
    os.kill(pid, signal.SIGKILL)
    for ref in flying:
        error = outcome(ref)
        assert isinstance(error, ActorUnavailableError) and error.maybe_executed
        assert "SIGKILL" in str(error)
    again = zray.get(ledger.pid.options(max_task_retries=1).remote(), timeout=GET_S)
    assert again != pid
    assert [line for line in records.lines() if line.startswith("init")] == [
        f"init:{pid}:0",
        f"init:{again}:0",
    ]
    os.kill(again, signal.SIGKILL)  # the budget is used up
    assert isinstance(outcome(ledger.hold.remote()), ActorDiedError)


def test_retried_calls_keep_the_order_of_each_caller(
    connected: Any, records: Any, gate: Any
) -> None:
    """The driver and two tasks call, while the actor is killed again and again."""
    count = 150
    cls = ledger_class(records, gate).options(max_restarts=-1, max_task_retries=-1)
    ledger = cls.remote()

    @zray.task(num_cpus=0.5)
    def call(caller: str) -> list[int]:
        return list(zray.get([ledger.add.remote(caller, number) for number in range(count)]))

    tasks = [call.remote(caller) for caller in ("first", "second")]
    refs = []
    pids = set()
    for place in range(3):
        refs += [ledger.add.remote("driver", place * 50 + number) for number in range(50)]
        pid = zray.get(ledger.pid.remote(), timeout=GET_S)
        pids.add(pid)
        os.kill(pid, signal.SIGKILL)
    assert zray.get(refs, timeout=GET_S) == list(range(count))
    assert zray.get(tasks, timeout=GET_S) == [list(range(count))] * 2
    assert zray.get(ledger.pid.remote(), timeout=GET_S) not in pids
    lines = [line.split(":") for line in records.lines()]
    for caller in ("driver", "first", "second"):
        runs: dict[str, list[int]] = {}
        for name, number, pid_text in lines:
            if name == caller:
                runs.setdefault(pid_text, []).append(int(number))
        for run in runs.values():  # each incarnation goes on without a gap
            assert run == list(range(run[0], run[0] + len(run)))
        assert sorted({number for run in runs.values() for number in run}) == list(range(count))
    started = [name for name, _, _ in lines].count("init")
    assert started == len(pids) + 1


def test_a_killed_async_actor_takes_all_its_calls_along(connected: Any, records: Any) -> None:
    write = records.write

    @zray.actor
    class Waits:
        async def hold(self, number: int) -> None:
            import asyncio

            write(number)
            await asyncio.sleep(1000)

        async def pid(self) -> int:
            return os.getpid()

    waits = Waits.remote()
    pid = zray.get(waits.pid.remote(), timeout=GET_S)
    refs = [waits.hold.remote(number) for number in range(50)]
    records.until(50)
    zray.cancel(refs[7])
    with pytest.raises(TaskCancelledError):
        zray.get(refs[7], timeout=GET_S)
    os.kill(pid, signal.SIGKILL)
    errors = [outcome(ref) for place, ref in enumerate(refs) if place != 7]
    assert all(isinstance(e, ActorDiedError) and e.maybe_executed for e in errors)
    assert "SIGKILL" in str(errors[0])
    with pytest.raises(TaskCancelledError):  # that was its outcome, and it stays
        zray.get(refs[7], timeout=GET_S)


def test_a_killed_threaded_actor_runs_what_may_be_repeated_again(
    connected: Any, records: Any, gate: Any
) -> None:
    write, wait = records.write, gate.wait

    @zray.actor(max_concurrency=4, max_restarts=1, max_task_retries=1)
    class Threads:
        def hold(self, number: int) -> tuple[int, int]:
            write(number)
            wait()
            return number, os.getpid()

    threads = Threads.remote()
    pid = zray.get(threads.__ray_call__.remote(lambda self: os.getpid()), timeout=GET_S)
    refs = [threads.hold.remote(number) for number in range(12)]
    records.until(4)
    zray.cancel(refs[11])  # it waits for its turn
    with pytest.raises(TaskCancelledError):
        zray.get(refs[11], timeout=GET_S)
    zray.cancel(refs[1])  # it runs, and does not look
    os.kill(pid, signal.SIGKILL)
    records.until(8)
    gate.open()
    found = [zray.get(refs[place], timeout=GET_S) for place in (0, *range(2, 11))]
    assert [number for number, _ in found] == [0, *range(2, 11)]
    assert {new for _, new in found}.isdisjoint({pid}) and len({new for _, new in found}) == 1
    with pytest.raises(TaskCancelledError):  # cancelled calls are not repeated
        zray.get(refs[1], timeout=GET_S)
    assert records.lines().count("1") == 1 and "11" not in records.lines()


@pytest.mark.parametrize("kind", ["plain", "threaded", "async"])
def test_answers_before_exit_actor_are_delivered(connected: Any, records: Any, kind: str) -> None:
    value = os.urandom(100_000)

    class Leaves:
        def give(self, number: int) -> tuple[int, bytes]:
            return number, value

        def leave(self) -> None:
            zray.exit_actor()

        def pid(self) -> int:
            return os.getpid()

    class LeavesAsync(Leaves):
        async def later(self) -> None: ...

    cls = zray.actor(LeavesAsync if kind == "async" else Leaves)
    leaves = cls.options(max_concurrency=4 if kind == "threaded" else None).remote()
    pid = zray.get(leaves.pid.remote(), timeout=GET_S)

    @zray.task
    def call() -> list[int]:
        found = zray.get([leaves.give.remote(number) for number in range(30)])
        return [number for number, _ in found]

    elsewhere = call.remote()
    assert zray.get(elsewhere, timeout=GET_S) == list(range(30))
    before = [leaves.give.remote(number) for number in range(30)]
    if kind == "threaded":  # calls that run at once have no order among themselves
        zray.wait(before, num_returns=30, timeout=GET_S)
    gone = leaves.leave.remote()
    error = outcome(gone)
    assert isinstance(error, ActorDiedError) and "exit_actor" in str(error)
    assert zray.get(before, timeout=GET_S) == [(number, value) for number in range(30)]
    connected.until(lambda: not psutil.pid_exists(pid), 5, "its process has ended")
    connected.until(connected.at_rest, 5, "all resources are free")


def test_what_an_actor_prints_has_the_name_of_its_class(
    connected: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    @zray.actor
    class Speaker:
        def __init__(self) -> None:
            print("from the constructor", flush=True)

        def speak(self, text: str) -> int:
            import sys

            print(text)
            print("and an error", file=sys.stderr)
            return os.getpid()

    speaker = Speaker.remote()
    pid = zray.get(speaker.speak.remote("from a method"), timeout=GET_S)
    out = err = ""

    def printed() -> bool:
        nonlocal out, err
        more_out, more_err = capfd.readouterr()
        out, err = out + more_out, err + more_err
        return "from a method" in out and "and an error" in err

    connected.until(printed, 5, "the lines are here")
    for text, said in (("constructor", out), ("method", out), ("error", err)):
        line = next(line for line in said.splitlines() if line.endswith(text))
        assert line.startswith(f"(Speaker pid={pid}, node=")


def test_what_the_last_answer_refers_to_outlives_exit_actor(connected: Any) -> None:
    """The caller holds it before the actor, which made it, is gone."""

    @zray.task(num_cpus=0)
    def make(number: int) -> int:
        return 10 * number

    @zray.actor
    class Leaves:
        def give(self) -> list[Any]:
            return [make.remote(number) for number in range(5)]

        def large(self) -> bytes:
            return b"l" * 3_000_000

        def leave(self) -> None:
            zray.exit_actor()

    for _ in range(5):
        leaves = Leaves.remote()
        refs, value, gone = leaves.give.remote(), leaves.large.remote(), leaves.leave.remote()
        assert isinstance(outcome(gone), ActorDiedError)
        assert zray.get(value, timeout=GET_S) == b"l" * 3_000_000
        assert zray.get(zray.get(refs, timeout=GET_S), timeout=GET_S) == [0, 10, 20, 30, 40]


@pytest.mark.parametrize("max_restarts", [0, 1])
def test_a_process_that_is_killed_in_its_constructor(
    connected: Any, records: Any, gate: Any, max_restarts: int
) -> None:
    """Calls that wait for it have not run, and go to the next incarnation without a retry."""
    write, wait = records.write, gate.wait

    @zray.actor
    class Slow:
        def __init__(self) -> None:
            write(os.getpid())
            wait()

        def pid(self) -> int:
            return os.getpid()

    slow = Slow.options(max_restarts=max_restarts).remote()
    refs = [slow.pid.options(max_task_retries=number % 2).remote() for number in range(6)]
    first = int(records.until(1)[0])
    os.kill(first, signal.SIGKILL)
    if max_restarts:
        second = int(records.until(2)[1])
        gate.open()
        assert zray.get(refs, timeout=GET_S) == [second] * 6
        os.kill(second, signal.SIGKILL)
        refs = [slow.pid.remote()]
    for ref in refs:
        error = outcome(ref)
        assert isinstance(error, ActorDiedError) and "SIGKILL" in str(error)
        assert not error.maybe_executed or max_restarts
    connected.until(connected.at_rest, 5, "all resources are free")
