"""A head that is killed and started again, with actors: state, names and calls all go on."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from typing import Any

import psutil
import pytest

import zray
from zray.errors import ActorDiedError, ActorNotFoundError, ActorUnavailableError

GET_S = 30.0


def restart(cluster: Any, *options: str) -> None:
    """``kill -9``, and the next start on the same port and data directory."""
    address = cluster.address
    cluster.head.kill()
    cluster.start_head(*options, port=-1)
    cluster.address = address


def counter_class(records: Any) -> Any:
    """Its constructor and its calls leave a line each: what ran twice is seen."""
    write = records.write

    @zray.actor
    class Counter:
        def __init__(self, name: str) -> None:
            self.name = name
            self.n = 0
            write(f"{name}:init")

        def add(self, caller: str, number: int) -> int:
            write(f"{self.name}:{caller}:{number}")
            self.n += 1
            return number

        def total(self) -> int:
            return self.n

        def pid(self) -> int:
            return os.getpid()

        def hold(self, path: str) -> str:
            write(f"{self.name}:hold")
            while not os.path.exists(path):
                time.sleep(0.01)
            return "held"

        def make(self, name: str, cls: Any) -> Any:
            return cls.options(num_cpus=0, resources={"two": 1}).remote(name)

    return Counter


def test_state_names_and_callers_outlive_the_head(
    sites: Any, records: Any, gate: Any, tmp_path: Any
) -> None:
    cls = counter_class(records)
    there = {"num_cpus": 0, "resources": {"two": 1}}
    plain = cls.options(**there).remote("plain")
    named = cls.options(name="named", **there).remote("named")
    cls.options(name="stays", lifetime="detached", **there).remote("stays")
    made = zray.get(plain.make.remote("made", cls), timeout=GET_S)
    actors = [plain, named, zray.get_actor("stays"), made]
    pids = zray.get([actor.pid.remote() for actor in actors], timeout=GET_S)
    wait = gate.wait

    @zray.task(num_cpus=0)
    def call(actors: list[Any], caller: str) -> int:
        refs = [actor.add.remote(caller, number) for actor in actors for number in range(10)]
        assert zray.get(refs) == [number for _ in actors for number in range(10)]
        wait()
        refs = [actor.add.remote(caller, number) for actor in actors for number in range(10, 20)]
        return len(zray.get(refs))

    callers = [call.options(resources={where: 1}).remote(actors, where) for where in ("one", "two")]
    records.until(84)  # 4 constructors and 80 calls
    held = plain.hold.remote(str(tmp_path / "release"))
    records.until(85)
    epoch = sites.epoch()
    sites.head.kill()
    # Without a head: calls on this machine go on.
    for number in range(10):
        assert zray.get(named.add.remote("driver", number), timeout=GET_S) == number
    flying = [actor.add.remote("driver", number) for actor in actors for number in range(10, 15)]
    gate.open()
    sites.start_head(port=-1)

    assert sites.epoch() > epoch
    (tmp_path / "release").touch()
    assert zray.get(held, timeout=GET_S) == "held"
    assert zray.get(flying, timeout=GET_S) == [*range(10, 15)] * 4
    assert zray.get(callers, timeout=GET_S) == [40, 40]
    assert zray.get_actor("named") == named and zray.get_actor("stays") == actors[2]
    assert sorted(zray.util.list_named_actors()) == ["named", "stays"]
    assert zray.get([actor.pid.remote() for actor in actors], timeout=GET_S) == pids
    assert zray.get([a.total.remote() for a in actors], timeout=GET_S) == [45, 55, 45, 45]
    lines = records.lines()
    assert len(lines) == len(set(lines)) == 4 + 190 + 1
    zray.kill(actors.pop(2))
    with pytest.raises(ActorNotFoundError):
        zray.get_actor("stays")
    del plain, named, made, actors, callers, flying, held
    sites.until(lambda: not any(map(psutil.pid_exists, pids)), 10, "all have ended")
    sites.until(sites.at_rest, 10, "all resources are free")
    sites.until(lambda: sites.status().objects == 0, 10, "all objects are free")


@pytest.mark.system
def test_relayed_calls_in_flight_run_once(apart: Any, records: Any, tmp_path: Any) -> None:
    """Nobody shares a machine: every call and answer goes by way of the head that is killed."""
    cluster, _ = apart
    cls = counter_class(records)
    one = cls.options(num_cpus=0, resources={"one": 1}).remote("one")
    two = cls.options(num_cpus=0, resources={"two": 1}, name="two").remote("two")
    count = 300

    @zray.task(num_cpus=0, resources={"one": 1})
    def call(actor: Any, caller: str) -> list[int]:
        return [zray.get(actor.add.remote(caller, number)) for number in range(count)]

    def until_held(times: int) -> None:
        cluster.until(lambda: records.lines().count("one:hold") == times, 20, "a call is running")

    elsewhere = call.remote(two, "task")
    refs = []
    for part in range(3):
        numbers = range(part * 100, part * 100 + 100)
        refs += [actor.add.remote("driver", number) for number in numbers for actor in (one, two)]
        held = one.hold.remote(str(tmp_path / f"release-{part}"))
        until_held(part + 1)
        restart(cluster, "--host", "0.0.0.0")
        (tmp_path / f"release-{part}").touch()
        assert zray.get(held, timeout=GET_S) == "held"
    expected = [number for number in range(count) for _ in range(2)]
    assert zray.get(refs, timeout=GET_S) == expected
    assert zray.get(elsewhere, timeout=GET_S) == list(range(count))
    assert zray.get_actor("two") == two
    lines = [line for line in records.lines() if "hold" not in line]
    assert len(lines) == len(set(lines)) == 2 + 3 * count
    for name, caller in (("one", "driver"), ("two", "driver"), ("two", "task")):
        mine = [line for line in lines if line.startswith(f"{name}:{caller}:")]
        assert mine == [f"{name}:{caller}:{number}" for number in range(count)]


@pytest.mark.parametrize("ends", ["while the head is away", "after its return"])
def test_the_head_is_killed_during_a_constructor(
    sites: Any, records: Any, gate: Any, ends: str
) -> None:
    write, wait = records.write, gate.wait

    @zray.actor(num_cpus=0, resources={"two": 1})
    class Slow:
        def __init__(self) -> None:
            write(f"init:{os.getpid()}")
            wait()
            write("made")

        def pid(self) -> int:
            return os.getpid()

    slow = Slow.options(name="slow").remote()
    before = slow.pid.remote()
    (line,) = records.until(1)
    sites.head.kill()
    if ends == "while the head is away":
        gate.open()
        records.until(2)
    after = slow.pid.remote()
    sites.start_head(port=-1)
    found = zray.get_actor("slow")
    gate.open()
    pid = int(line.partition(":")[2])
    refs = [before, after, found.pid.remote()]
    assert zray.get(refs, timeout=GET_S) == [pid] * 3
    assert len(records.lines()) == 2
    zray.kill(slow)
    sites.until(lambda: not psutil.pid_exists(pid), 5, "it has ended")
    sites.until(sites.at_rest, 10, "all resources are free")


@pytest.mark.parametrize("named", [False, True])
def test_the_head_is_killed_between_a_creation_and_the_first_call(
    sites: Any, records: Any, named: bool
) -> None:
    """With a name the creation is acknowledged; without one it may not even have been sent."""
    cls = counter_class(records)
    there = {"num_cpus": 0, "resources": {"two": 1}}  # not on the head's own node
    counters = [
        cls.options(name=f"c{number}" if named else None, **there).remote(f"counter-{number}")
        for number in range(5)
    ]
    sites.head.kill()
    early = [counter.add.remote("driver", 0) for counter in counters]
    sites.start_head(port=-1)
    late = [counter.add.remote("driver", 1) for counter in counters]
    assert zray.get([*early, *late], timeout=GET_S) == [0] * 5 + [1] * 5
    lines = records.lines()
    assert len(lines) == len(set(lines)) == 15
    if named:
        assert [zray.get_actor(f"c{number}") for number in range(5)] == counters


def test_actors_that_end_while_the_head_is_away(sites: Any, records: Any) -> None:
    cls = counter_class(records)
    there = {"num_cpus": 0, "resources": {"two": 1}}
    ends = cls.options(name="ends", **there).remote("ends")
    returns = cls.options(name="returns", max_restarts=1, **there).remote("returns")
    cut_off = cls.options(max_restarts=1, **there).remote("cut-off")
    last = cls.options(**there).remote("last")
    actors = [ends, returns, cut_off, last]
    pids = zray.get([actor.pid.remote() for actor in actors], timeout=GET_S)
    running = [actor.hold.remote("/nowhere") for actor in (ends, cut_off)]
    running.append(returns.hold.options(max_task_retries=1).remote("/"))
    records.until(7)
    sites.head.kill()
    del last, actors
    for pid in pids[:3]:
        os.kill(pid, signal.SIGKILL)
    sites.until(lambda: not any(map(psutil.pid_exists, pids[:3])), 5, "they are dead")
    sites.start_head(port=-1)
    with pytest.raises(ActorDiedError, match="SIGKILL") as caught:
        zray.get(running[0], timeout=GET_S)
    assert caught.value.maybe_executed
    with pytest.raises(ActorUnavailableError) as unavailable:
        zray.get(running[1], timeout=GET_S)
    assert unavailable.value.maybe_executed
    assert zray.get(running[2], timeout=GET_S) == "held"
    with pytest.raises(ActorNotFoundError):
        zray.get_actor("ends")
    assert zray.get_actor("returns") == returns
    again = [method.options(max_task_retries=1) for method in (returns.pid, cut_off.total)]
    assert zray.get(again[0].remote(), timeout=GET_S) != pids[1]
    assert zray.get(again[1].remote(), timeout=GET_S) == 0
    sites.until(lambda: not psutil.pid_exists(pids[3]), 10, "nobody has a handle of the last one")


@pytest.mark.slow_limit(90)
def test_streams_of_calls_outlive_kills_at_random_moments(sites: Any, records: Any) -> None:
    """Four actors and their callers everywhere: each call runs once, in its caller's order."""
    cls = counter_class(records)
    names = [f"counter-{number}" for number in range(4)]
    wheres = ["one", "two", "one", "two"]
    counters = [
        cls.options(num_cpus=0, resources={where: 1}).remote(name)
        for name, where in zip(names, wheres, strict=True)
    ]
    count = 400

    @zray.task(num_cpus=0)
    def call(counters: list[Any], caller: str) -> None:
        for start in range(0, count, 20):
            numbers = range(start, start + 20)
            zray.get([c.add.remote(caller, number) for number in numbers for c in counters])

    tasks = [call.options(resources={where: 1}).remote(counters, where) for where in wheres[:2]]
    failures: list[BaseException] = []

    def drive() -> None:
        try:
            for start in range(0, count, 20):
                numbers = range(start, start + 20)
                refs = [c.add.remote("driver", number) for number in numbers for c in counters]
                zray.get(refs, timeout=GET_S)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=drive)
    thread.start()
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(4):
        time.sleep(chance.uniform(0.0, 0.4))
        restart(sites)
    thread.join(GET_S)
    assert not failures and not thread.is_alive()
    zray.get(tasks, timeout=GET_S)
    lines = records.lines()
    for name in names:
        for caller in ("driver", "one", "two"):
            mine = [line for line in lines if line.startswith(f"{name}:{caller}:")]
            assert mine == [f"{name}:{caller}:{number}" for number in range(count)]
    assert zray.get([c.total.remote() for c in counters], timeout=GET_S) == [3 * count] * 4
    del tasks
    counters.clear()
    sites.until(sites.at_rest, 10, "all resources are free")
