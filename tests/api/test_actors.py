"""Actors while they live: state, order, arguments, handles, names, concurrency, context."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import zray
from tests.api.conftest import Run, eventually
from zray.errors import (
    ActorAlreadyExistsError,
    ActorNotFoundError,
    GetTimeoutError,
    PendingCallsLimitExceededError,
    TaskCancelledError,
    TaskError,
)

pytestmark = pytest.mark.usefixtures("cluster")


@zray.actor
class Counter:
    """Keeps a number, and what was done to it."""

    def __init__(self, start: int = 0) -> None:
        self.n = start
        self.seen: list[Any] = []

    def add(self, n: int = 1) -> int:
        self.n += n
        return self.n

    def see(self, value: Any) -> list[Any]:
        self.seen.append(value)
        return self.seen

    def echo(self, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, kwargs

    def fail(self, text: str) -> None:
        raise KeyError(text)

    def wait_for(self, path: str) -> str:
        deadline = time.monotonic() + 30
        while not os.path.exists(path):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return path

    @zray.method(num_returns=2)
    def pair(self) -> tuple[int, str]:
        return self.n, "two"

    def pid(self) -> int:
        return os.getpid()


@zray.remote
def slow(value: Any, seconds: float) -> Any:
    time.sleep(seconds)
    return value


@zray.remote
def add_to(handle: Any, n: int) -> int:
    return zray.get(handle.add.remote(n))


# ---- state and order -----------------------------------------------------------------------


def test_state_is_kept_between_calls() -> None:
    counter = Counter.remote(10)
    assert zray.get(counter.add.remote()) == 11
    assert zray.get(counter.add.remote(5)) == 16
    assert zray.get(Counter.remote().add.remote()) == 1


def test_calls_run_in_order() -> None:
    counter = Counter.remote()
    assert zray.get([counter.add.remote() for _ in range(3000)]) == list(range(1, 3001))


def test_order_holds_where_an_argument_is_late() -> None:
    counter = Counter.remote()
    refs = [counter.see.remote(slow.remote("first", 0.3))]
    refs += [counter.see.remote(value) for value in ("second", "third")]
    assert zray.get(refs)[-1] == ["first", "second", "third"]


def test_threads_of_one_caller_each_keep_their_order() -> None:
    counter = Counter.remote()

    def call(name: int) -> None:
        for i in range(200):
            counter.see.remote((name, i))

    threads = [threading.Thread(target=call, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = zray.get(counter.see.remote(None))[:-1]
    for name in range(4):
        assert [i for caller, i in seen if caller == name] == list(range(200))


def test_an_actor_is_a_process_of_its_own() -> None:
    handles = [Counter.remote() for _ in range(3)]
    pids = zray.get([handle.pid.remote() for handle in handles for _ in range(2)])
    assert len(set(pids)) == 3 and os.getpid() not in pids and pids[::2] == pids[1::2]


def test_actors_take_no_cpu_by_default() -> None:
    handles = [Counter.remote() for _ in range(6)]  # of two CPUs
    assert zray.get([handle.add.remote() for handle in handles]) == [1] * 6
    assert zray.available_resources()["CPU"] == 2


def test_an_actor_keeps_what_it_asked_for() -> None:
    counter = Counter.options(num_cpus=1.5).remote()
    zray.get(counter.add.remote())
    assert zray.available_resources()["CPU"] == 0.5
    waiting = Counter.options(num_cpus=1).remote()
    ref = waiting.add.remote()
    with pytest.raises(GetTimeoutError):
        zray.get(ref, timeout=0.3)
    del counter
    assert zray.get(ref, timeout=10) == 1
    del waiting, ref
    eventually(lambda: zray.available_resources()["CPU"] == 2)


# ---- arguments and results -----------------------------------------------------------------


def test_arguments_are_as_those_of_tasks() -> None:
    counter = Counter.remote(zray.put(3))
    inner = zray.put("inner")
    ref = counter.echo.remote(slow.remote(1, 0.05), [inner], x=zray.put("x"))
    (one, (nested,)), kwargs = zray.get(ref)
    assert (one, kwargs) == (1, {"x": "x"}) and nested == inner
    assert zray.get(counter.add.remote(zray.put(2))) == 5


@pytest.mark.parametrize("size", [5_000, 100_000, 3_000_000])
def test_large_arguments_and_results(size: int) -> None:
    counter = Counter.remote()
    value = os.urandom(size)
    refs = [counter.echo.remote(value, again=zray.put(value)) for _ in range(3)]
    for args, kwargs in zray.get(refs):
        assert args == (value,) and kwargs == {"again": value}


def test_results_are_arguments_of_tasks_and_actors() -> None:
    one, other = Counter.remote(), Counter.remote()
    assert zray.get(other.add.remote(one.add.remote(4))) == 4
    assert zray.get(slow.remote(one.add.remote(1), 0)) == 5
    ready, left = zray.wait([one.add.remote(), one.add.remote()], num_returns=2, timeout=10)
    assert zray.get(ready) == [6, 7] and not left


def test_several_returns() -> None:
    counter = Counter.remote(1)
    first, second = counter.pair.remote()
    assert zray.get([first, second]) == [1, "two"]
    assert counter.add.options(num_returns=0).remote() is None
    assert zray.get(counter.pair.options(num_returns=1).remote()) == (2, "two")
    with pytest.raises(ValueError, match="num_returns=3"):
        zray.get(counter.pair.options(num_returns=3).remote()[0])


def test_an_error_of_a_method_is_the_call_s_only() -> None:
    counter = Counter.remote()
    failed = counter.fail.remote("the reason")
    after = counter.add.remote()
    with pytest.raises(KeyError, match="the reason") as caught:
        zray.get(failed)
    assert isinstance(caught.value, TaskError) and "Counter.fail" in str(caught.value)
    assert zray.get(after) == 1


def test_an_error_of_an_argument_is_the_call_s() -> None:
    counter = Counter.remote()
    with pytest.raises(KeyError, match="of the argument"):
        zray.get(counter.see.remote(counter.fail.remote("of the argument")))
    assert zray.get(counter.see.remote(1)) == [1]


def test_a_result_that_cannot_be_pickled() -> None:
    counter = Counter.remote()
    with pytest.raises(TypeError, match="pickle"):
        zray.get(counter.__ray_call__.remote(lambda self: threading.Lock()))
    assert zray.get(counter.add.remote()) == 1


def test_methods_of_every_actor() -> None:
    counter = Counter.remote(4)
    assert zray.get(counter.__ray_ready__.remote()) is True
    assert zray.get(counter.__ray_call__.remote(lambda self, n, *, m: self.n + n + m, 1, m=2)) == 7


def test_the_same_method_by_its_function() -> None:
    assert zray.get(Counter.remote(4)[Counter.add].remote(2)) == 6


def test_a_class_of_which_nothing_is_special() -> None:
    class Base:
        def __init__(self) -> None:
            self.names = ["base"]

        @property
        def count(self) -> int:
            return len(self.names)

        @staticmethod
        def double(n: int) -> int:
            return 2 * n

    @zray.remote
    class Derived(Base):
        def __init__(self) -> None:
            super().__init__()
            self.names.append("derived")

        @classmethod
        def name(cls) -> str:
            return cls.__name__

        def __len__(self) -> int:
            return self.count

    handle = Derived.remote()
    found = [handle.double.remote(4), handle.name.remote(), handle.__len__.remote()]
    assert zray.get(found) == [8, "Derived", 2]
    assert zray.get(zray.remote(dict).remote(a=1).get.remote("a")) == 1


# ---- handles -------------------------------------------------------------------------------


def test_handles_in_tasks() -> None:
    counter = Counter.remote()
    assert sorted(zray.get([add_to.remote(counter, 1) for _ in range(4)])) == [1, 2, 3, 4]

    @zray.remote
    def nested(box: dict[str, Any]) -> Any:
        return zray.get(box["counters"][0].add.remote(10)), box["counters"][0]

    @zray.remote
    def captured() -> int:
        return zray.get(counter.add.remote(100))

    value, again = zray.get(nested.remote({"counters": [counter]}))
    assert value == 14 and again == counter
    assert zray.get(captured.remote()) == 114
    assert zray.get(add_to.remote(zray.put(counter), 1)) == 115
    zray.kill(counter)  # a function that captured the handle keeps it until its job ends


def test_a_handle_that_a_task_made_and_returned() -> None:
    @zray.remote
    def make(n: int) -> Any:
        return Counter.remote(n)

    handle = zray.get(make.remote(7))
    assert zray.get(handle.add.remote()) == 8


def test_handles_in_actors() -> None:
    @zray.actor
    class Client:
        def __init__(self, counter: Any) -> None:
            self.counter = counter

        def work(self, n: int) -> list[int]:
            return zray.get([self.counter.add.remote() for _ in range(n)])

        def give(self) -> Any:
            return self.counter

    counter = Counter.remote()
    clients = [Client.remote(counter) for _ in range(3)]
    del counter
    found = zray.get([client.work.remote(100) for client in clients])
    assert sorted(n for one in found for n in one) == list(range(1, 301))
    assert all(one == sorted(one) for one in found)
    assert zray.get(zray.get(clients[0].give.remote()).add.remote()) == 301


def test_an_actor_passes_on_its_own_handle() -> None:
    @zray.actor
    class Registered:
        def register(self, other: Any) -> Any:
            return zray.get(other.see.remote(zray.get_runtime_context().current_actor))

        def hello(self) -> str:
            return "hello"

    counter, registered = Counter.remote(), Registered.remote()
    (handle,) = zray.get(registered.register.remote(counter))
    assert handle == registered and zray.get(handle.hello.remote()) == "hello"


# ---- names ---------------------------------------------------------------------------------


def test_named_actors() -> None:
    counter = Counter.options(name="the counter").remote(5)
    found = zray.get_actor("the counter")
    assert found == counter and zray.get(found.add.remote()) == 6
    assert "the counter" in zray.util.list_named_actors()
    with pytest.raises(AttributeError, match="Counter has no method 'ad'"):
        found.ad.remote()

    @zray.remote
    def by_name() -> int:
        return zray.get(zray.get_actor("the counter").add.remote())

    assert zray.get(by_name.remote()) == 7
    with pytest.raises(ActorAlreadyExistsError, match="the counter") as caught:
        Counter.options(name="the counter").remote()
    assert isinstance(caught.value, ValueError)
    with pytest.raises(ActorNotFoundError, match="Failed to look up actor with name 'nobody'"):
        zray.get_actor("nobody")


def test_a_name_is_free_again_after_its_actor() -> None:
    counter = Counter.options(name="again").remote(1)
    zray.get(counter.add.remote())
    zray.kill(counter)
    eventually(lambda: "again" not in zray.util.list_named_actors())
    with pytest.raises(ActorNotFoundError):
        zray.get_actor("again")
    other = Counter.options(name="again").remote(10)
    assert zray.get(zray.get_actor("again").add.remote()) == 11
    assert other != counter


def test_get_if_exists() -> None:
    make = Counter.options(name="shared", get_if_exists=True)
    first, second = make.remote(1), make.remote(100)
    assert first == second
    assert zray.get([first.add.remote(), second.add.remote()]) == [2, 3]

    @zray.remote
    def join() -> int:
        return zray.get(make.remote().add.remote())

    assert sorted(zray.get([join.remote() for _ in range(4)])) == [4, 5, 6, 7]


def test_namespaces() -> None:
    here = Counter.options(name="spaced").remote(1)
    there = Counter.options(name="spaced", namespace="elsewhere").remote(2)
    assert zray.get_actor("spaced") == here != there
    assert zray.get_actor("spaced", "elsewhere") == there
    own = zray.get_runtime_context().namespace
    found = zray.util.list_named_actors(all_namespaces=True)
    assert {"namespace": "elsewhere", "name": "spaced"} in found
    assert {"namespace": own, "name": "spaced"} in found
    assert zray.util.list_named_actors().count("spaced") == 1


def test_detached_actors_outlive_their_driver(run: Run) -> None:
    program = """
        zray.init(sys.argv[1], namespace="tests")

        @zray.actor
        class Store:
            def __init__(self):
                self.values = {}

            def set(self, key, value):
                self.values[key] = value

            def all(self):
                return self.values, os.getpid()

        detached = Store.options(name="detached", lifetime="detached", max_restarts=1).remote()
        owned = Store.options(name="owned").remote()
        zray.get([detached.set.remote("a", 1), owned.set.remote("a", 1)])
    """
    address = zray.get_runtime_context().gcs_address
    run(program, address)
    store = zray.get_actor("detached", "tests")
    values, pid = zray.get(store.all.remote())
    assert values == {"a": 1}
    zray.get(store.set.remote("b", 2))
    assert zray.get(store.all.remote())[0] == {"a": 1, "b": 2}

    def owned() -> bool:
        return {"namespace": "tests", "name": "owned"} in zray.util.list_named_actors(True)

    eventually(lambda: not owned())
    del store
    run(
        """
        zray.init(sys.argv[1], namespace="tests")
        values, pid = zray.get(zray.get_actor("detached").all.remote())
        assert (values, pid) == ({"a": 1, "b": 2}, int(sys.argv[2])), (values, pid)
        zray.kill(zray.get_actor("detached"))
        """,
        *(address, str(pid)),
    )
    eventually(lambda: not zray.util.list_named_actors(True) or not owned())
    with pytest.raises(ActorNotFoundError):
        zray.get_actor("detached", "tests")


# ---- many calls at once --------------------------------------------------------------------


@zray.actor
class Async:
    def __init__(self) -> None:
        self.event: asyncio.Event | None = None
        self.started: list[int] = []
        self.cancelled: list[int] = []

    async def wait(self, i: int, seen_in: str = "") -> int:
        self.event = self.event or asyncio.Event()
        self.started.append(i)
        if seen_in:
            Path(seen_in, str(i)).touch()
        try:
            await self.event.wait()
        except asyncio.CancelledError:
            self.cancelled.append(i)
            raise
        return i

    async def open(self) -> list[int]:
        assert self.event is not None
        self.event.set()
        return self.started

    async def nested(self, ref: list[Any]) -> Any:
        return await ref[0]

    async def lists(self) -> tuple[list[int], list[int]]:
        return self.started, self.cancelled

    def plain(self) -> str:
        return threading.current_thread().name

    async def fail(self) -> None:
        await asyncio.sleep(0)
        raise KeyError("async")


def test_async_calls_interleave_and_start_in_order() -> None:
    handle = Async.remote()
    refs = [handle.wait.remote(i) for i in range(200)]
    assert zray.get(handle.open.remote()) == list(range(200))
    assert zray.get(refs) == list(range(200))


def test_async_methods_await_references() -> None:
    handle = Async.remote()
    assert zray.get(handle.nested.remote([slow.remote("value", 0.1)])) == "value"
    with pytest.raises(KeyError, match="async"):
        zray.get(handle.fail.remote())
    assert isinstance(zray.get(handle.plain.remote()), str)


def test_concurrency_of_an_async_actor_is_limited(tmp_path: Path) -> None:
    handle = Async.options(max_concurrency=2).remote()
    refs = [handle.wait.remote(i, str(tmp_path)) for i in range(2)]
    opens = handle.open.remote()
    eventually(lambda: len([*tmp_path.iterdir()]) == 2)
    with pytest.raises(GetTimeoutError):
        zray.get(opens, timeout=0.3)
    zray.cancel(refs[0])
    assert zray.get(opens, timeout=10) == [0, 1]
    assert zray.get(refs[1], timeout=10) == 1


def test_cancelling_an_async_call() -> None:
    handle = Async.remote()
    refs = [handle.wait.remote(i) for i in range(3)]
    eventually(lambda: zray.get(handle.lists.remote())[0] == [0, 1, 2])
    zray.cancel(refs[1])
    with pytest.raises(TaskCancelledError):
        zray.get(refs[1], timeout=10)
    assert zray.get(handle.lists.remote())[1] == [1]
    zray.get(handle.open.remote())
    assert zray.get([refs[0], refs[2]]) == [0, 2]


def test_threads_of_an_actor_run_calls_at_once() -> None:
    @zray.actor(max_concurrency=4)
    class Threaded:
        def __init__(self) -> None:
            self.barrier = threading.Barrier(4)

        def meet(self) -> str:
            self.barrier.wait(20)
            return threading.current_thread().name

    handle = Threaded.remote()
    assert len(set(zray.get([handle.meet.remote() for _ in range(4)]))) == 4


def test_one_call_at_a_time_by_default() -> None:
    @zray.actor
    class Exclusive:
        def __init__(self) -> None:
            self.inside = 0

        def enter(self) -> int:
            self.inside += 1
            time.sleep(0.001)
            found, self.inside = self.inside, self.inside - 1
            return found

    handle = Exclusive.remote()
    assert zray.get([handle.enter.remote() for _ in range(50)]) == [1] * 50


def test_max_pending_calls(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    counter = Counter.options(max_pending_calls=3).remote()
    zray.get(counter.add.remote())
    refs = [counter.wait_for.remote(str(gate)), counter.add.remote(), counter.add.remote()]
    with pytest.raises(PendingCallsLimitExceededError):
        counter.add.remote()
    gate.touch()
    assert zray.get(refs)[1:] == [2, 3]
    assert zray.get(counter.add.remote()) == 4


# ---- cancel --------------------------------------------------------------------------------


def test_cancelling_a_call_that_waits(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    counter = Counter.remote()
    first = counter.wait_for.remote(str(gate))
    waiting, last = counter.add.remote(10), counter.add.remote(1)
    zray.cancel(waiting)
    gate.touch()
    with pytest.raises(TaskCancelledError):
        zray.get(waiting, timeout=10)
    assert zray.get([first, last]) == [str(gate), 1]


def test_a_running_call_sees_that_it_is_cancelled() -> None:
    @zray.actor
    class Patient:
        def work(self, path: str) -> str:
            open(path, "w").close()
            deadline = time.monotonic() + 20
            while not zray.get_runtime_context().is_canceled():
                assert time.monotonic() < deadline
                time.sleep(0.005)
            open(path + "-seen", "w").close()
            return "seen"

        def after(self) -> bool:
            return zray.get_runtime_context().is_canceled()

    path = os.environ["ZRAY_HOME"] + "/working"
    handle = Patient.remote()
    ref = handle.work.remote(path)
    eventually(lambda: os.path.exists(path))
    zray.cancel(ref)
    eventually(lambda: os.path.exists(path + "-seen"))
    assert zray.get(handle.after.remote()) is False
    os.unlink(path)
    os.unlink(path + "-seen")


# ---- context -------------------------------------------------------------------------------


@zray.actor
class Curious:
    def __init__(self) -> None:
        self.of_init = self.facts()

    def facts(self) -> dict[str, Any]:
        found = zray.get_runtime_context()
        return {
            "actor": found.get_actor_id(),
            "name": found.get_actor_name(),
            "task": found.get_task_name(),
            "resources": found.get_assigned_resources(),
            "reconstructed": found.was_current_actor_reconstructed,
            "namespace": found.namespace,
            "self": found.current_actor,
        }

    def first(self) -> dict[str, Any]:
        return self.of_init

    async def later(self) -> dict[str, Any]:
        return self.facts()


@pytest.mark.parametrize(
    ("options", "resources"), [({}, {}), ({"num_cpus": 0.5, "name": "asks"}, {"CPU": 0.5})]
)
def test_runtime_context_of_an_actor(options: dict[str, Any], resources: dict[str, float]) -> None:
    handle = Curious.options(**options).remote()
    expected = {
        "actor": handle._actor_id.hex(),
        "name": options.get("name", ""),
        "resources": resources,
        "reconstructed": False,
        "namespace": zray.get_runtime_context().namespace,
        "self": handle,
    }
    for method, name in (("facts", "facts"), ("later", "later"), ("first", "__init__")):
        found = zray.get(getattr(handle, method).remote())
        assert found == {**expected, "task": f"Curious.{name}"}


def test_runtime_context_outside_of_actors() -> None:
    @zray.remote
    def outside() -> tuple[Any, Any, bool]:
        found = zray.get_runtime_context()
        return found.get_actor_id(), found.get_actor_name(), found.is_canceled()

    assert zray.get(outside.remote()) == (None, None, False)
    found = zray.get_runtime_context()
    assert found.get_actor_id() is None and found.get_actor_name() is None
    with pytest.raises(RuntimeError, match="only available in an actor"):
        found.current_actor  # noqa: B018
    with pytest.raises(RuntimeError, match="only available in an actor"):
        found.was_current_actor_reconstructed  # noqa: B018
    with pytest.raises(RuntimeError, match="only available when the process is a worker"):
        found.is_canceled()


def test_each_call_has_a_task_id() -> None:
    counter = Counter.remote()

    def task_id(_: Any) -> str | None:
        return zray.get_runtime_context().get_task_id()

    refs = [counter.__ray_call__.remote(task_id) for _ in range(3)]
    assert zray.get(refs) == [ref.task_id().hex() for ref in refs]


def test_an_actor_submits_tasks_and_makes_actors() -> None:
    @zray.actor
    class Parent:
        def __init__(self) -> None:
            self.children = [Counter.remote(i) for i in range(3)]

        def run(self) -> list[int]:
            one: Callable[..., Any] = slow.remote
            refs = [child.add.remote(one(1, 0.01)) for child in self.children]
            return zray.get(refs)

    parent = Parent.remote()
    assert zray.get([parent.run.remote() for _ in range(2)]) == [[1, 2, 3], [2, 3, 4]]


def test_first_use_by_await() -> None:
    async def main() -> list[int]:
        counter = Counter.remote()
        return list(await asyncio.gather(*[counter.add.remote() for _ in range(20)]))

    assert asyncio.run(main()) == list(range(1, 21))
