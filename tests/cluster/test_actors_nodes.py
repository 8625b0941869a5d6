"""Actors on another node than their callers: calls, large values, and what a node's end means."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

import psutil
import pytest

import zray
from zray.errors import ActorDiedError, ActorUnavailableError, GetTimeoutError

GET_S = 30.0
LARGE = (1 << 20, 20 << 20)


def bank_class(records: Any) -> Any:
    write = records.write

    @zray.actor
    class Bank:
        def __init__(self, start: int = 0) -> None:
            self.n = start
            self.kept: list[Any] = []
            write(f"init:{os.getpid()}")

        def add(self, n: int = 1) -> int:
            self.n += n
            return self.n

        def pid(self) -> int:
            return os.getpid()

        def node(self) -> str:
            return str(zray.get_runtime_context().get_node_id())

        def echo(self, value: bytes) -> bytes:
            return value

        def keep(self, box: list[Any]) -> int:
            self.kept += box
            return len(zray.get(box[0]))

        def give(self) -> Any:
            return self.kept.pop()

        def forward(self, other: Any, count: int) -> list[int]:
            return list(zray.get([other.add.remote() for _ in range(count)]))

        def slow(self, number: int) -> int:
            write(f"slow:{number}")
            time.sleep(0.05)
            self.n += 1
            return number

    return Bank


def test_callers_on_every_node_and_large_values(sites: Any, records: Any) -> None:
    bank_cls = bank_class(records)
    one = bank_cls.options(resources={"one": 1}).remote()
    two = bank_cls.options(num_cpus=0, resources={"two": 1}).remote(1000)
    assert zray.get(one.node.remote(), timeout=GET_S) == sites.node("one").node_id.hex()
    assert zray.get(two.node.remote(), timeout=GET_S) == sites.node("two").node_id.hex()

    @zray.task(num_cpus=0)
    def call(bank: Any, count: int) -> list[int]:
        return list(zray.get([bank.add.remote() for _ in range(count)]))

    calls = [call.options(resources={where: 1}).remote(two, 50) for where in ("one", "two", "one")]
    found = [n for values in zray.get(calls, timeout=GET_S) for n in values]
    assert sorted(found) == list(range(1001, 1151))
    assert zray.get(one.forward.remote(two, 50), timeout=GET_S) == list(range(1151, 1201))
    for size in LARGE:
        value = os.urandom(size)
        stored = zray.put(value)
        for bank in (one, two):
            assert zray.get(bank.echo.remote(value), timeout=GET_S) == value
            assert zray.get(bank.echo.remote(stored), timeout=GET_S) == value
        there_and_back = one.echo.remote(two.echo.remote(one.echo.remote(stored)))
        assert zray.get(there_and_back, timeout=GET_S) == value
        assert zray.get(two.keep.remote([stored]), timeout=GET_S) == size
        del stored
        again = zray.get(two.give.remote(), timeout=GET_S)
        assert zray.get(one.echo.remote(again), timeout=GET_S) == value
    del one, two, bank, again, there_and_back, calls
    sites.until(sites.at_rest, 10, "all resources are free")
    sites.until(lambda: sites.status().objects == 0, 10, "all objects are free")


def test_a_killed_node_ends_its_actors_or_moves_them(sites: Any, records: Any) -> None:
    bank_cls = bank_class(records)
    pinned = bank_cls.options(num_cpus=0, resources={"two": 1}).remote()
    zray.get(pinned.pid.remote(), timeout=GET_S)
    # Both nodes have what these ask for; `two` has all of its CPU, `one` has none free now.
    blocker = bank_cls.options(num_cpus=1, resources={"one": 1}).remote()
    zray.get(blocker.pid.remote(), timeout=GET_S)
    moves = bank_cls.options(num_cpus=1, max_restarts=1, max_task_retries=-1).remote(7)
    fragile = bank_cls.options(num_cpus=0, resources={"two": 1}, max_restarts=1).remote()
    assert zray.get(moves.node.remote(), timeout=GET_S) == sites.node("two").node_id.hex()
    zray.get(fragile.pid.remote(), timeout=GET_S)
    pids = [zray.get(bank.pid.remote(), timeout=GET_S) for bank in (pinned, moves, fragile)]
    running = moves.slow.remote(1)
    flying = [pinned.slow.remote(0), *(pinned.add.remote() for _ in range(20))]
    cut_off = fragile.slow.remote(2)
    del blocker
    records.until(7)
    sites.programs[2].kill()
    killed = time.monotonic()

    for ref in flying:
        with pytest.raises(ActorDiedError, match="node two") as caught:
            zray.get(ref, timeout=GET_S)
        assert caught.value.maybe_executed
    assert zray.get(running, timeout=GET_S) == 1  # it ran again, on the other node
    assert time.monotonic() - killed < 6
    assert zray.get(moves.node.remote(), timeout=GET_S) == sites.node("one").node_id.hex()
    assert zray.get(moves.add.remote(), timeout=GET_S) == 9
    with pytest.raises(ActorUnavailableError, match="node two") as unavailable:
        zray.get(cut_off, timeout=GET_S)
    assert unavailable.value.maybe_executed
    _, alive = psutil.wait_procs([psutil.Process(p) for p in pids if psutil.pid_exists(p)], 5)
    assert not alive
    waits = fragile.add.options(max_task_retries=1).remote()
    sites.start_node("two", 1, "--resources", "two=10")  # what it waits for is back
    assert zray.get(waits, timeout=GET_S) == 1
    with pytest.raises(ActorDiedError, match="node two") as late:
        zray.get(pinned.add.remote(), timeout=GET_S)
    assert not late.value.maybe_executed


def test_an_actor_on_a_node_that_stands_still_loses_nothing(sites: Any, records: Any) -> None:
    bank = bank_class(records).options(resources={"two": 1}).remote()

    @zray.task(num_cpus=0, resources={"one": 1})
    def call(bank: Any) -> list[int]:
        return list(zray.get([bank.slow.remote(100 + number) for number in range(20)]))

    refs = [bank.slow.remote(number) for number in range(20)]
    elsewhere = call.remote(bank)
    records.until(6)
    two = sites.programs[2]
    frozen = [psutil.Process(two.pid), *two.below()]
    for process in frozen:
        process.suspend()
    time.sleep(3.0)  # the length of the fault
    refs += [bank.slow.remote(number) for number in range(20, 30)]
    for process in frozen:
        process.resume()
    assert zray.get(refs, timeout=GET_S) == list(range(30))
    assert zray.get(elsewhere, timeout=GET_S) == list(range(100, 120))
    lines = [line for line in records.lines() if line.startswith("slow")]
    assert len(lines) == len(set(lines)) == 50
    assert zray.get(bank.add.remote(), timeout=GET_S) == 51


@pytest.mark.slow_limit(90)
def test_an_actor_on_a_node_that_is_silent_for_too_long_starts_afresh_elsewhere(
    sites: Any, records: Any
) -> None:
    """The old incarnation ends as soon as its node moves again, and no call reaches both."""
    bank_cls = bank_class(records)
    blocker = bank_cls.options(num_cpus=1, resources={"one": 1}).remote()
    zray.get(blocker.pid.remote(), timeout=GET_S)
    moves = bank_cls.options(num_cpus=1, max_restarts=1, max_task_retries=-1).remote(100)
    stays = bank_cls.options(num_cpus=0, resources={"two": 1}, name="stays").remote()
    old = zray.get([moves.pid.remote(), stays.pid.remote()], timeout=GET_S)
    assert zray.get(moves.add.remote(), timeout=GET_S) == 101
    del blocker
    two = sites.programs[2]
    frozen = [psutil.Process(two.pid), *two.below()]
    for process in frozen:
        process.suspend()
    refs = [moves.slow.remote(number) for number in range(5)]
    lost = stays.slow.remote(99)
    sites.until(lambda: sites.node("two") is None, 35, "the node is dead")
    assert zray.get(refs, timeout=GET_S) == list(range(5))
    assert zray.get(moves.node.remote(), timeout=GET_S) == sites.node("one").node_id.hex()
    with pytest.raises(ActorDiedError, match="node two") as caught:
        zray.get(lost, timeout=GET_S)
    assert caught.value.maybe_executed
    assert "stays" not in zray.util.list_named_actors()
    for process in frozen:
        process.resume()
    sites.until(lambda: not any(map(psutil.pid_exists, old)), 10, "what ran there has ended")
    sites.await_node("two")
    assert zray.get(moves.add.remote(), timeout=GET_S) == 106
    again = bank_cls.options(num_cpus=0, resources={"two": 1}, name="stays").remote(5)
    assert zray.get(again.add.remote(), timeout=GET_S) == 6
    del moves, stays, again
    sites.until(sites.at_rest, 10, "all resources are free")


def test_a_call_that_waits_says_what_its_actor_waits_for(sites: Any, records: Any) -> None:
    bank_cls = bank_class(records)
    nowhere = bank_cls.options(num_cpus=0, resources={"two": 11}).remote()
    with pytest.raises(GetTimeoutError, match=r"Bank.add waits here.*INFEASIBLE.*two"):
        zray.get(nowhere.add.remote(), timeout=0.5)
    busy = bank_cls.options(num_cpus=0, resources={"two": 10}, max_restarts=-1).remote()
    zray.get(busy.add.remote(), timeout=GET_S)
    waits = bank_cls.options(num_cpus=0, resources={"two": 1}).remote()
    with pytest.raises(GetTimeoutError, match=r"Bank.add waits here.*WAIT_RESOURCES.*two"):
        zray.get(waits.add.remote(), timeout=0.5)
    zray.kill(waits)
    for _ in range(6):  # it is restarted later and later
        pid = None
        while pid is None:
            with contextlib.suppress(ActorUnavailableError):
                pid = zray.get(busy.pid.remote(), timeout=GET_S)
        os.kill(pid, signal.SIGKILL)
        sites.until(lambda pid=pid: not psutil.pid_exists(pid), 5, "it is killed")
    with pytest.raises(GetTimeoutError, match=r"WAIT_RESTART.*SIGKILL.*starts again in 0\.\d s"):
        zray.get(busy.add.options(max_task_retries=-1).remote(), timeout=0.3)


def test_the_end_of_a_zygote_restarts_its_actors(sites: Any, records: Any) -> None:
    cls = bank_class(records).options(num_cpus=0, resources={"two": 1}, max_restarts=1)
    banks = [cls.remote() for _ in range(3)]
    pids = zray.get([bank.pid.remote() for bank in banks], timeout=GET_S)
    (zygote,) = sites.programs[2].children()
    zygote.kill()
    sites.until(lambda: not any(map(psutil.pid_exists, pids)), 5, "its workers have ended")
    again = [bank.pid.options(max_task_retries=-1).remote() for bank in banks]
    found = zray.get(again, timeout=GET_S)
    assert len(set(found)) == 3 and set(found).isdisjoint(pids)
    assert (
        zray.get([bank.node.remote() for bank in banks], timeout=GET_S)
        == [sites.node("two").node_id.hex()] * 3
    )
