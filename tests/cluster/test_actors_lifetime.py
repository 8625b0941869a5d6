"""Actors without the process that made them: detached ones go on, all others end with it."""

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
    ActorNotFoundError,
    ObjectLostError,
    OwnerDiedError,
)

GET_S = 30.0

DETACHED = """
    import os
    import zray

    zray.init(namespace="tests")

    @zray.task(num_cpus=0.5)
    def double(number):
        return 2 * number

    @zray.actor
    class Child:
        def pid(self):
            return os.getpid()

    @zray.actor
    class Service:
        def __init__(self, large):
            self.large = large
            self.refs = []
            self.child = None

        def pid(self):
            return os.getpid()

        def work(self, count):
            return sum(zray.get([double.remote(number) for number in range(count)]))

        def own(self, size):
            self.refs.append(zray.put(b"o" * size))
            self.refs.append(double.remote(size))
            return self.refs[-2:]

        def sizes(self):
            return len(zray.get(self.large[0])), [type(v).__name__ for v in zray.get(self.refs)]

        def child_pid(self):
            if self.child is None:
                self.child = Child.remote()
            return zray.get(self.child.pid.remote())

    large = zray.put(b"l" * 1_000_000)
    options = {"name": "service", "lifetime": "detached", "max_restarts": 1}
    service = Service.options(**options).remote([large])
    assert zray.get(service.work.remote(4)) == 12
    Child.options(name="child").remote()
    print("pid", zray.get(service.pid.remote()), flush=True)
    {end}
"""


@pytest.mark.parametrize("end", ["zray.shutdown()", "raise ValueError('its own')"])
def test_a_detached_actor_goes_on_without_its_driver(cluster: Any, end: str) -> None:
    driver = cluster.run("maker", DETACHED.replace("{end}", end))
    driver.wait(20)
    pid = int(driver.says("pid ").split()[-1])
    zray.init(cluster.address, namespace="tests")
    service = zray.get_actor("service")
    assert zray.get(service.pid.remote(), timeout=GET_S) == pid
    cluster.until(lambda: zray.util.list_named_actors() == ["service"], 10, "the other has ended")
    assert zray.get(service.work.remote(50), timeout=GET_S) == 2450
    stored, computed = zray.get(service.own.remote(2_000_000), timeout=GET_S)
    assert zray.get(stored, timeout=GET_S) == b"o" * 2_000_000
    assert zray.get(computed, timeout=GET_S) == 4_000_000
    size, kinds = zray.get(service.sizes.remote(), timeout=GET_S)
    assert kinds == ["bytes", "int"] and size == 1_000_000  # its argument came from the driver
    child = zray.get(service.child_pid.remote(), timeout=GET_S)

    os.kill(pid, signal.SIGKILL)  # it starts again, with the constructor's arguments of then
    cluster.until(lambda: not psutil.pid_exists(child), 10, "what it made has ended")
    again = until_answered(service.pid)
    assert again != pid
    assert zray.get(service.work.remote(5), timeout=GET_S) == 20
    again_child = zray.get(service.child_pid.remote(), timeout=GET_S)

    zray.kill(service)
    left = (again, again_child)
    cluster.until(lambda: not any(map(psutil.pid_exists, left)), 10, "all of it has ended")
    with pytest.raises(ActorNotFoundError):
        zray.get_actor("service")
    with pytest.raises(ActorDiedError, match="kill"):
        zray.get(service.pid.remote(), timeout=GET_S)
    del service, stored, computed
    zray.shutdown()
    cluster.until(cluster.at_rest, 10, "all resources are free")
    cluster.until(lambda: not cluster.status().jobs, 10, "no job is left")
    cluster.until(lambda: cluster.status().objects == 0, 10, "all objects are free")


LARGE_CLASS = """
    import os
    import zray

    zray.init(namespace="tests")
    data = os.urandom(12 << 20)

    @zray.actor
    class Large:
        def pid(self):
            return os.getpid()

        def size(self):
            return len(data)

    actor = Large.options(name="large", lifetime="detached", max_restarts=1).remote()
    assert zray.get(actor.size.remote()) == 12 << 20
    zray.shutdown()
"""


def test_a_detached_actor_of_a_large_class_starts_again_without_its_driver(cluster: Any) -> None:
    """Its class is too large for messages: an object, which the class that was sent holds."""
    cluster.run("maker", LARGE_CLASS).wait(20)
    zray.init(cluster.address, namespace="tests")
    actor = zray.get_actor("large")
    pid = zray.get(actor.pid.remote(), timeout=GET_S)
    cluster.until(lambda: len(cluster.status().jobs) == 2, 10, "the driver has ended")
    os.kill(pid, signal.SIGKILL)
    assert until_answered(actor.size) == 12 << 20
    zray.kill(actor)
    zray.shutdown()
    cluster.until(lambda: cluster.status().objects == 0, 10, "nothing is left of the class")


def until_answered(method: Any) -> Any:
    """A call's value, where calls that a restart interrupts are made again."""
    return zray.get(method.options(max_task_retries=-1).remote(), timeout=GET_S)


def test_actors_end_with_the_worker_that_made_them(connected: Any, records: Any) -> None:
    write = records.write

    @zray.actor
    class Child:
        def pid(self) -> int:
            return os.getpid()

        def hold(self, started: bool) -> None:
            write("holds")
            time.sleep(1000)

    @zray.task(max_retries=0, num_cpus=0)
    def make() -> tuple[int, Any, Any]:
        child = Child.remote()
        detached = Child.options(name="stays", lifetime="detached").remote()
        zray.get(detached.pid.remote())
        return os.getpid(), child, zray.get(child.pid.remote())

    maker, child, pid = zray.get(make.remote(), timeout=GET_S)
    assert zray.get(child.pid.remote(), timeout=GET_S) == pid
    running = child.hold.remote(True)
    records.until(1)
    os.kill(maker, signal.SIGKILL)
    connected.until(lambda: not psutil.pid_exists(pid), 5, "the child has ended")
    with pytest.raises(ActorDiedError, match="the worker that made it has ended") as caught:
        zray.get(running, timeout=GET_S)
    assert caught.value.maybe_executed
    with pytest.raises(ActorDiedError) as late:
        zray.get(child.pid.remote(), timeout=GET_S)
    assert not late.value.maybe_executed
    stays = zray.get_actor("stays")
    assert zray.get(stays.pid.remote(), timeout=GET_S) != pid
    zray.kill(stays)
    del child, stays, running
    connected.until(connected.at_rest, 10, "all resources are free")


def test_results_that_a_killed_caller_awaited_are_lost_with_a_reason(
    connected: Any, records: Any, gate: Any
) -> None:
    """A call's result belongs to its caller: whoever got the reference is told."""
    wait, write = gate.wait, records.write

    @zray.actor
    class Slow:
        def give(self) -> int:
            write("gives")
            wait()
            return 5

    @zray.actor
    class Middle:
        def __init__(self, slow: Any) -> None:
            self.slow = slow

        def start(self) -> list[Any]:
            return [self.slow.give.remote()]

        def pid(self) -> int:
            return os.getpid()

    slow = Slow.remote()
    middle = Middle.remote(slow)
    (ref,) = zray.get(middle.start.remote(), timeout=GET_S)
    records.until(1)
    os.kill(zray.get(middle.pid.remote(), timeout=GET_S), signal.SIGKILL)
    with pytest.raises((OwnerDiedError, ObjectLostError), match="ended before the answer"):
        zray.get(ref, timeout=GET_S)
    gate.open()
    assert zray.get(slow.give.remote(), timeout=GET_S) == 5


@pytest.mark.slow_limit(90)
def test_actors_end_with_a_driver_that_is_killed(cluster: Any) -> None:
    driver = cluster.run(
        "killed",
        """
        import os, time
        import zray

        zray.init(namespace="tests")

        @zray.actor(max_restarts=-1, num_cpus=0)
        class Actor:
            def pid(self):
                return os.getpid()

            def hold(self):
                time.sleep(1000)

            def make(self):
                self.child = Actor.remote()
                return zray.get(self.child.pid.remote())

        actors = [Actor.remote() for _ in range(3)]
        named = Actor.options(name="named").remote()
        stays = Actor.options(name="stays", lifetime="detached").remote()
        refs = [actor.pid.remote() for actor in [*actors, named, stays]]
        pids = zray.get([actors[0].make.remote(), *refs])
        refs = [actor.hold.remote() for actor in actors]
        print("pids", *pids, flush=True)
        time.sleep(1000)
        """,
    )
    *pids, stays = map(int, driver.says("pids ").split()[1:])
    zray.init(cluster.address, namespace="tests")
    assert sorted(zray.util.list_named_actors()) == ["named", "stays"]
    driver.kill()
    killed = time.monotonic()
    cluster.until(lambda: not any(map(psutil.pid_exists, pids)), 30, "its actors have ended")
    assert time.monotonic() - killed < 28
    assert zray.util.list_named_actors() == ["stays"]
    actor = zray.get_actor("stays")
    assert zray.get(actor.pid.remote(), timeout=GET_S) == stays
    zray.kill(actor)
    zray.shutdown()
    cluster.until(cluster.at_rest, 10, "all resources are free")
    cluster.until(lambda: not cluster.status().jobs, 10, "no job is left")
