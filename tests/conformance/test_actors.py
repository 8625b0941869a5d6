"""Contracts of actors: creation, calls, order, names, ends and restarts."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import psutil
import pytest
import ray
from ray.exceptions import RayActorError

pytestmark = pytest.mark.usefixtures("cluster")


@ray.remote
class Counter:
    """Counts."""

    KIND = "counter"

    def __init__(self, start=0):
        self.value = start

    def add(self, n=1):
        self.value += n
        return self.value

    def get(self):
        return self.value

    @staticmethod
    def double(x):
        return 2 * x

    @ray.method(num_returns=2)
    def pair(self):
        return self.value, -self.value

    def pid(self):
        return os.getpid()


@ray.remote
class Async:
    def __init__(self):
        self.event = asyncio.Event()
        self.waiting = 0

    async def wait(self):
        self.waiting += 1
        await self.event.wait()
        return self.waiting

    async def open(self):
        self.event.set()

    async def count(self):
        return self.waiting

    def plain(self):
        return "plain"


def wait_for_end(pid) -> None:
    deadline = time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


# ---- creation and calls --------------------------------------------------------------------


def test_an_actor_keeps_its_state() -> None:
    """Calls of one actor see what the calls before have done."""
    counter = Counter.remote(10)

    assert ray.get([counter.add.remote(), counter.add.remote(5), counter.get.remote()]) == [
        11,
        16,
        16,
    ]


def test_each_actor_is_a_process_of_its_own() -> None:
    """Two actors have two pids, and neither is the driver's."""
    pids = ray.get([Counter.remote().pid.remote() for _ in range(2)])

    assert len({*pids, os.getpid()}) == 3


def test_calls_run_in_the_order_of_their_submission() -> None:
    """Calls of one caller run one after the other, in order."""
    counter = Counter.remote()

    assert ray.get([counter.add.remote() for _ in range(100)]) == list(range(1, 101))


def test_arguments_of_the_constructor() -> None:
    """They may be references, and are checked at the call."""
    assert ray.get(Counter.remote(ray.put(4)).get.remote()) == 4
    assert ray.get(Counter.remote(start=3).get.remote()) == 3
    with pytest.raises(TypeError):
        Counter.remote(1, 2)


def test_arguments_of_methods_are_checked_at_the_call() -> None:
    """A call that does not fit the signature is a TypeError at ``.remote()``."""
    counter = Counter.remote()

    with pytest.raises(TypeError):
        counter.add.remote(1, 2)
    with pytest.raises(TypeError):
        counter.get.remote(n=1)


def test_a_class_is_not_called_directly() -> None:
    """``C()`` is a TypeError."""
    with pytest.raises(TypeError, match=r"Actors cannot be instantiated directly"):
        Counter()


def test_a_method_is_not_called_directly() -> None:
    """``handle.method()`` is a TypeError."""
    with pytest.raises(TypeError, match=r"Actor methods cannot be called directly"):
        Counter.remote().add()


def test_an_unknown_method_is_an_attribute_error() -> None:
    """``handle.nonsense`` is an AttributeError at the caller."""
    with pytest.raises(AttributeError):
        Counter.remote().nonsense.remote()


def test_several_returns_of_a_method() -> None:
    """``@ray.method(num_returns=2)`` gives two references, and ``options`` overrides it."""
    counter = Counter.remote(3)

    assert ray.get(counter.pair.remote()) == [3, -3]
    assert ray.get(counter.pair.options(num_returns=1).remote()) == (3, -3)


def test_static_methods_are_methods() -> None:
    """They can be called through a handle."""
    assert ray.get(Counter.remote().double.remote(4)) == 8


def test_methods_are_listed() -> None:
    """``dir(handle)`` has the methods."""
    assert {"add", "get", "double"} <= {*dir(Counter.remote())}


def test_an_actor_class_may_inherit_from_plain_classes() -> None:
    """Methods of the bases are there."""

    class Base:
        def base(self):
            return "base"

    @ray.remote
    class Derived(Base):
        def own(self):
            return super().base() + " own"

    actor = Derived.remote()
    assert ray.get([actor.base.remote(), actor.own.remote()]) == ["base", "base own"]


def test_inheriting_from_an_actor_class_is_refused() -> None:
    """It is an error at the class statement."""
    with pytest.raises(TypeError, match=r"[Ii]nherit"):

        class Derived(Counter):
            pass


def test_a_handle_in_an_argument() -> None:
    """Tasks and other actors can call an actor whose handle they get."""

    @ray.remote
    def use(counter):
        return ray.get(counter.add.remote(5))

    counter = Counter.remote()
    assert ray.get(use.remote(counter)) == 5
    assert ray.get(use.remote(counter)) == 10


def test_handles_of_one_actor_are_equal() -> None:
    """And of one hash, wherever they come from."""

    @ray.remote
    def back(handle):
        return handle

    counter = Counter.remote()
    same = ray.get(back.remote(counter))
    assert same == counter
    assert hash(same) == hash(counter)
    assert counter != Counter.remote()


def test_a_method_as_an_argument() -> None:
    """A result of one actor's call can be the argument of another's."""
    one, two = Counter.remote(), Counter.remote()

    assert ray.get(two.add.remote(one.add.remote(7))) == 7


def test_resources_of_an_actor() -> None:
    """What it keeps is not available while it lives."""
    before = ray.available_resources()["CPU"]
    actor = Counter.options(num_cpus=2).remote()
    ray.get(actor.get.remote())
    deadline = time.monotonic() + 20
    while ray.available_resources().get("CPU", 0) > before - 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    del actor
    while ray.available_resources().get("CPU", 0) < before:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_idle_actor_keeps_no_cpu() -> None:
    """By default an actor takes no CPU while it runs."""
    actors = [Counter.remote(i) for i in range(6)]

    assert ray.get([actor.get.remote() for actor in actors], timeout=50) == list(range(6))


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("max_restarts", -2, ValueError),
        ("max_task_retries", -2, ValueError),
        ("max_concurrency", -1, ValueError),
        ("lifetime", "forever", ValueError),
        ("name", 1, TypeError),
        ("namespace", 1, TypeError),
        ("num_returns", 1, ValueError),
        ("max_retries", 1, ValueError),
        ("nonsense", 1, ValueError),
        ("num_cpus", -1, ValueError),
        ("get_if_exists", True, ValueError),
    ],
)
def test_bad_options_are_refused(option, value, kind) -> None:
    """Unknown ones and bad values are refused at ``options`` or ``remote``."""
    with pytest.raises(kind):
        Counter.options(**{option: value}).remote()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_restarts", 0),
        ("max_restarts", -1),
        ("max_task_retries", 3),
        ("max_concurrency", 2),
        ("lifetime", None),
        ("lifetime", "non_detached"),
        ("max_pending_calls", -1),
        ("num_cpus", 0),
        ("num_gpus", 0),
        ("memory", 1_000_000),
        ("scheduling_strategy", "SPREAD"),
        ("runtime_env", {}),
        ("enable_task_events", False),
        ("get_if_exists", False),
        ("label_selector", {}),
    ],
)
def test_an_option_that_an_actor_runs_with(option, value) -> None:
    """The option is taken, and the actor answers."""
    assert ray.get(Counter.options(**{option: value}).remote(1).get.remote(), timeout=50) == 1


def test_calls_that_are_not_to_be_told_of() -> None:
    """``enable_task_events=False`` of a method's calls changes nothing of what they return or
    raise, also where the method was passed on."""

    @ray.remote
    class Both:
        def works(self):
            return 1

        def fails(self):
            raise ValueError("no")

    @ray.remote
    def asks(actor):
        return ray.get(actor.works.options(enable_task_events=False).remote())

    actor = Both.remote()
    assert ray.get(actor.works.options(enable_task_events=False).remote()) == 1
    assert ray.get(asks.remote(actor)) == 1
    with pytest.raises(ValueError, match="no"):
        ray.get(actor.fails.options(enable_task_events=False).remote())


def test_underscore_remote_of_actors() -> None:
    """``C._remote(args=, kwargs=, **options)``, and the same of a method."""
    counter = Counter._remote(args=[5], num_cpus=0)

    assert ray.get(counter.add._remote(args=[1])) == 6
    assert ray.get(counter.pair._remote(num_returns=1)) == (6, -6)


# ---- what every actor has ------------------------------------------------------------------


def test_ray_ready() -> None:
    """``__ray_ready__`` is done when the constructor is."""
    assert ray.get(Counter.remote().__ray_ready__.remote()) is True


def test_ray_call() -> None:
    """``__ray_call__`` runs a function on the instance."""
    counter = Counter.remote(8)

    assert ray.get(counter.__ray_call__.remote(lambda self, x: self.value + x, 1)) == 9


def test_ray_terminate() -> None:
    """``__ray_terminate__`` ends the actor after the calls before it."""
    counter = Counter.remote()
    value = counter.add.remote()
    counter.__ray_terminate__.remote()

    assert ray.get(value) == 1
    with pytest.raises(RayActorError):
        ray.get(counter.get.remote())


# ---- names ---------------------------------------------------------------------------------


def test_a_named_actor_is_found() -> None:
    """``get_actor`` gives a handle of it."""
    counter = Counter.options(name="found").remote(2)

    assert ray.get(ray.get_actor("found").add.remote()) == 3
    assert ray.get(counter.get.remote()) == 3


def test_get_if_exists() -> None:
    """It makes the actor the first time, and gives a handle of it then."""
    first = Counter.options(name="maybe", get_if_exists=True).remote(1)
    second = Counter.options(name="maybe", get_if_exists=True).remote(50)

    assert ray.get(second.add.remote()) == 2
    assert first == second


@pytest.mark.parametrize("name", ["", 1, None])
def test_bad_names(name) -> None:
    """An empty name, or none, is refused by ``get_actor``; an empty one by ``remote``."""
    with pytest.raises((TypeError, ValueError)):
        ray.get_actor(name)
    if name == "":
        with pytest.raises(ValueError):
            Counter.options(name=name).remote()


def test_a_name_is_free_again() -> None:
    """Once its actor is dead, another can have it."""
    first = Counter.options(name="free").remote()
    ray.get(first.get.remote())
    ray.kill(first)
    deadline = time.monotonic() + 30
    while True:
        try:
            second = Counter.options(name="free").remote(9)
            break
        except ValueError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert ray.get(second.get.remote()) == 9


def test_a_detached_actor_outlives_its_handles() -> None:
    """It is there without a handle, until it is killed."""
    detached = Counter.options(name="detached", lifetime="detached").remote(4)
    ray.get(detached.get.remote())
    del detached
    time.sleep(0.5)

    found = ray.get_actor("detached")
    assert ray.get(found.get.remote()) == 4
    ray.kill(found)


def test_an_actor_ends_with_its_last_handle() -> None:
    """Its process is gone some time after."""
    counter = Counter.remote()
    pid = ray.get(counter.pid.remote())
    del counter

    wait_for_end(pid)


# ---- ends ----------------------------------------------------------------------------------


def test_kill_ends_it() -> None:
    """``ray.kill`` ends the process, and calls raise RayActorError."""
    counter = Counter.remote()
    pid = ray.get(counter.pid.remote())
    ray.kill(counter)

    wait_for_end(pid)
    with pytest.raises(RayActorError):
        ray.get(counter.get.remote())


def test_kill_takes_a_handle_only() -> None:
    """Anything else is a ValueError."""
    for thing in (1, "name", ray.put(1), Counter):
        with pytest.raises(ValueError):
            ray.kill(thing)


def test_exit_actor_ends_it() -> None:
    """``ray.actor.exit_actor()`` ends the actor from within; the calls after it fail."""

    @ray.remote
    class Ending:
        def end(self):
            ray.actor.exit_actor()

        def go(self):
            return 1

    actor = Ending.remote()
    assert ray.get(actor.go.remote()) == 1
    actor.end.remote()
    with pytest.raises(RayActorError):
        ray.get(actor.go.remote(), timeout=50)


def test_exit_actor_outside_of_an_actor() -> None:
    """It is a TypeError."""
    with pytest.raises(TypeError):
        ray.actor.exit_actor()


def test_a_crash_without_restarts() -> None:
    """Calls after it raise RayActorError."""

    @ray.remote
    class Crashing:
        def crash(self):
            os._exit(1)

        def go(self):
            return 1

    actor = Crashing.remote()
    with pytest.raises(RayActorError):
        ray.get(actor.crash.remote(), timeout=50)
    with pytest.raises(RayActorError):
        ray.get(actor.go.remote(), timeout=50)


def test_a_restart() -> None:
    """With ``max_restarts=1`` it comes back once, with the state of its constructor."""

    @ray.remote(max_restarts=1, max_task_retries=-1)
    class Restarting:
        def __init__(self):
            self.calls = 0

        def add(self):
            self.calls += 1
            return self.calls

        def pid(self):
            return os.getpid()

    actor = Restarting.remote()
    assert ray.get([actor.add.remote(), actor.add.remote()]) == [1, 2]
    pid = ray.get(actor.pid.remote())
    os.kill(pid, 9)
    assert ray.get(actor.add.remote(), timeout=50) == 1
    assert ray.get(actor.pid.remote()) != pid


def test_kill_with_restarts() -> None:
    """``no_restart=False`` lets it come back."""
    actor = Counter.options(max_restarts=1, max_task_retries=-1).remote(3)
    pid = ray.get(actor.pid.remote())
    ray.kill(actor, no_restart=False)

    deadline = time.monotonic() + 40
    while True:
        try:
            if ray.get(actor.pid.remote(), timeout=40) != pid:
                break
        except RayActorError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)


# ---- concurrency ---------------------------------------------------------------------------


def test_coroutines_run_at_once() -> None:
    """Calls of an async actor that wait do not hold the others."""
    actor = Async.remote()
    waiting = [actor.wait.remote() for _ in range(20)]
    deadline = time.monotonic() + 30
    while ray.get(actor.count.remote()) < 20:
        assert time.monotonic() < deadline
    actor.open.remote()

    assert ray.get(waiting) == [20] * 20


def test_plain_methods_of_an_async_actor() -> None:
    """They run in its loop's thread, one at a time."""
    assert ray.get(Async.remote().plain.remote()) == "plain"


def test_max_concurrency_of_an_async_actor() -> None:
    """With ``max_concurrency=1`` one coroutine runs at a time."""
    actor = Async.options(max_concurrency=1).remote()
    waits = actor.wait.remote()
    count = actor.count.remote()

    assert ray.wait([count], timeout=1) == ([], [count])
    ray.kill(actor)
    del waits


def test_threads_of_an_actor() -> None:
    """With ``max_concurrency=n`` plain methods run in n threads."""

    @ray.remote(max_concurrency=4)
    class Threaded:
        def __init__(self):
            self.barrier = threading.Barrier(4)

        def meet(self):
            self.barrier.wait(30)
            return threading.get_ident()

    actor = Threaded.remote()
    assert len({*ray.get([actor.meet.remote() for _ in range(4)], timeout=50)}) == 4


def test_an_actor_waits_for_others_in_its_coroutines() -> None:
    """``await`` of a reference in an async actor."""

    @ray.remote
    class Awaiting:
        async def go(self, refs):
            return await asyncio.gather(*refs)

    assert ray.get(Awaiting.remote().go.remote([ray.put(1), Counter.remote().add.remote()])) == [
        1,
        1,
    ]


def test_an_error_of_a_coroutine() -> None:
    """It is the call's error; the actor goes on."""

    @ray.remote
    class Failing:
        async def go(self, fails):
            if fails:
                raise ValueError("failed")
            return 1

    actor = Failing.remote()
    with pytest.raises(ValueError, match="failed"):
        ray.get(actor.go.remote(True))
    assert ray.get(actor.go.remote(False)) == 1
