"""Contracts of calls: options of methods, retries, concurrency groups, and the order of starts."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
import ray
from ray.exceptions import RayActorError, RayError

from tests.conformance.functions import slow

pytestmark = pytest.mark.usefixtures("cluster")


def fails_until(self, least, kind):
    self.count += 1
    if self.count < least:
        raise kind(self.count)
    return self.count


@ray.remote(max_task_retries=2)
class Wobbling:
    """Methods that raise until they were called so often."""

    def __init__(self):
        self.count = 0

    def plain(self, least, kind=ValueError):
        return fails_until(self, least, kind)

    @ray.method(retry_exceptions=True)
    def any_error(self, least, kind=ValueError):
        return fails_until(self, least, kind)

    @ray.method(retry_exceptions=[KeyError])
    def key_errors(self, least, kind=KeyError):
        return fails_until(self, least, kind)

    @ray.method(retry_exceptions=True, max_task_retries=0)
    def never(self, least, kind=ValueError):
        return fails_until(self, least, kind)

    @ray.method(retry_exceptions=True, max_task_retries=-1)
    def always(self, least, kind=ValueError):
        return fails_until(self, least, kind)

    @ray.method(retry_exceptions=True, max_task_retries=4)
    def four(self, least, kind=ValueError):
        return fails_until(self, least, kind)

    @ray.method(retry_exceptions=True, num_returns=2)
    def two(self, least, kind=ValueError):
        return fails_until(self, least, kind), -1

    def calls(self):
        return self.count


def runs_of(actor, ref, kind=None):
    """How often the method ran for it; ``kind``: what it has to raise in the end."""
    if kind is None:
        ray.get(ref, timeout=40)
    else:
        with pytest.raises(kind):
            ray.get(ref, timeout=40)
    return ray.get(actor.calls.remote())


# ---- retries -------------------------------------------------------------------------------


def test_an_error_is_not_retried_by_itself() -> None:
    """``max_task_retries`` alone is for ends of the actor."""
    actor = Wobbling.remote()
    assert runs_of(actor, actor.plain.remote(2), ValueError) == 1


def test_retry_exceptions_of_a_method() -> None:
    """``@ray.method(retry_exceptions=True)``: the call is made again after any exception."""
    actor = Wobbling.remote()
    assert runs_of(actor, actor.any_error.remote(3)) == 3


def test_retries_are_as_many_as_the_actor_says() -> None:
    """Its ``max_task_retries``; then the last error is the call's."""
    actor = Wobbling.remote()
    with pytest.raises(ValueError, match="3"):
        ray.get(actor.any_error.remote(9))
    assert ray.get(actor.calls.remote()) == 3


def test_a_list_of_exceptions_to_retry() -> None:
    """Others are final."""
    actor = Wobbling.remote()
    assert runs_of(actor, actor.key_errors.remote(3)) == 3
    other = Wobbling.remote()
    assert runs_of(other, other.key_errors.remote(3, ValueError), ValueError) == 1


def test_a_subclass_of_a_listed_exception_is_retried() -> None:
    """The list has classes, as ``except`` does."""

    class Special(KeyError):
        pass

    actor = Wobbling.remote()
    assert runs_of(actor, actor.key_errors.remote(3, Special)) == 3


def test_max_task_retries_of_a_method() -> None:
    """``@ray.method(max_task_retries=)`` goes before the actor's; 0: never, -1: always."""
    actor = Wobbling.remote()
    assert runs_of(actor, actor.never.remote(2), ValueError) == 1
    other = Wobbling.remote()
    assert runs_of(other, other.always.remote(9)) == 9
    third = Wobbling.remote()
    assert runs_of(third, third.four.remote(9), ValueError) == 5


def test_an_actor_without_retries_retries_nothing() -> None:
    """``retry_exceptions`` of a method needs retries, which an actor has not by default."""
    actor = Wobbling.options(max_task_retries=0).remote()
    assert runs_of(actor, actor.any_error.remote(2), ValueError) == 1


def test_retry_exceptions_of_one_call() -> None:
    """``.options(retry_exceptions=True)``, or a list."""
    actor = Wobbling.remote()
    assert runs_of(actor, actor.plain.options(retry_exceptions=True).remote(3)) == 3
    other = Wobbling.remote()
    assert runs_of(other, other.plain.options(retry_exceptions=[ValueError]).remote(3)) == 3
    third = Wobbling.remote()
    final = third.plain.options(retry_exceptions=[KeyError]).remote(3)
    assert runs_of(third, final, ValueError) == 1


def test_one_call_can_refuse_what_its_method_has() -> None:
    """``.options(retry_exceptions=False)``."""
    actor = Wobbling.remote()
    assert (
        runs_of(actor, actor.any_error.options(retry_exceptions=False).remote(2), ValueError) == 1
    )


def test_max_task_retries_of_one_call() -> None:
    """``.options(max_task_retries=)``, more or less than the actor has."""
    actor = Wobbling.remote()
    assert runs_of(actor, actor.any_error.options(max_task_retries=6).remote(7)) == 7
    other = Wobbling.remote()
    once = other.any_error.options(max_task_retries=1).remote(9)
    assert runs_of(other, once, ValueError) == 2


def test_a_retried_method_with_several_returns() -> None:
    """Both are of the run that went well."""
    actor = Wobbling.remote()
    assert ray.get(actor.two.remote(2)) == [2, -1]


def test_retries_in_a_coroutine() -> None:
    """The same in an async actor."""

    @ray.remote(max_task_retries=3)
    class Async:
        def __init__(self):
            self.count = 0

        @ray.method(retry_exceptions=[ValueError])
        async def go(self, least):
            return fails_until(self, least, ValueError)

    assert ray.get(Async.remote().go.remote(3)) == 3


def test_retries_in_a_thread() -> None:
    """The same in a threaded actor."""

    @ray.remote(max_task_retries=3, max_concurrency=2)
    class Threaded:
        def __init__(self):
            self.count = 0

        @ray.method(retry_exceptions=[ValueError])
        def go(self, least):
            return fails_until(self, least, ValueError)

    assert ray.get(Threaded.remote().go.remote(3)) == 3


def test_retries_through_a_handle_that_was_passed_on() -> None:
    """Tasks that get the handle call with the same options."""

    @ray.remote
    def use(handle):
        return ray.get(handle.four.remote(5))

    assert ray.get(use.remote(Wobbling.remote())) == 5


def test_retries_through_a_handle_that_was_found() -> None:
    """So do those that find it by name."""
    actor = Wobbling.options(name="wobbling").remote()
    found = ray.get_actor("wobbling")
    assert ray.get(found.four.remote(5)) == 5
    del actor


def test_the_task_id_stays_the_same_through_retries() -> None:
    """It is one task, however often it runs."""

    @ray.remote(max_task_retries=3)
    class Ids:
        def __init__(self):
            self.ids = []

        @ray.method(retry_exceptions=True)
        def go(self):
            self.ids.append(ray.get_runtime_context().get_task_id())
            if len(self.ids) < 3:
                raise ValueError
            return self.ids

    assert len({*ray.get(Ids.remote().go.remote())}) == 1


# ---- concurrency groups --------------------------------------------------------------------


@ray.remote(concurrency_groups={"io": 2, "compute": 4})
class Grouped:
    def __init__(self):
        self.lock = threading.Lock()
        self.now = {}
        self.most = {}

    def stay(self, group, seconds):
        with self.lock:
            self.now[group] = self.now.get(group, 0) + 1
            self.most[group] = max(self.most.get(group, 0), self.now[group])
        time.sleep(seconds)
        with self.lock:
            self.now[group] -= 1
        return threading.get_ident()

    @ray.method(concurrency_group="io")
    def io(self, seconds=0.3):
        return self.stay("io", seconds)

    @ray.method(concurrency_group="compute")
    def compute(self, seconds=0.3):
        return self.stay("compute", seconds)

    def other(self, seconds=0.3, group="other"):
        return self.stay(group, seconds)

    def peaks(self):
        return self.most


def test_groups_run_so_many_calls_at_once() -> None:
    """Each as many as it says, and what is in none, one."""
    actor = Grouped.remote()
    refs = [actor.io.remote() for _ in range(4)]
    refs += [actor.compute.remote() for _ in range(8)]
    refs += [actor.other.remote() for _ in range(2)]
    ray.get(refs)

    assert ray.get(actor.peaks.remote()) == {"io": 2, "compute": 4, "other": 1}


def test_groups_have_threads_of_their_own() -> None:
    """No thread runs calls of two groups."""
    actor = Grouped.remote()
    threads = [{*ray.get([actor.io.remote() for _ in range(4)])}]
    threads += [{*ray.get([actor.compute.remote() for _ in range(8)])}]
    threads += [{*ray.get([actor.other.remote() for _ in range(2)])}]

    assert len(set.union(*threads)) == sum(map(len, threads)) == 7


def test_the_group_of_one_call() -> None:
    """``.options(concurrency_group=)`` goes before the method's."""
    actor = Grouped.remote()
    ray.get([actor.other.options(concurrency_group="io").remote(0.3, "io") for _ in range(4)])
    ray.get([actor.io.options(concurrency_group="compute").remote() for _ in range(4)])

    assert ray.get(actor.peaks.remote()) == {"io": 4}


def test_a_full_group_does_not_hold_others() -> None:
    """Calls of other groups, and of none, run meanwhile."""
    actor = Grouped.remote()
    ray.get(actor.peaks.remote())
    busy = [actor.io.remote(3) for _ in range(3)]
    ray.get([actor.compute.remote(0), actor.other.remote(0)], timeout=2.5)
    assert ray.wait(busy, timeout=0)[0] == []
    ray.get(busy)


def test_groups_of_a_handle_that_was_found() -> None:
    """Whoever has a handle calls in the same groups."""
    actor = Grouped.options(name="grouped").remote()
    found = ray.get_actor("grouped")
    assert len({*ray.get([found.io.remote() for _ in range(4)])}) == 2
    del actor


def test_groups_with_max_concurrency() -> None:
    """``max_concurrency`` is the number of calls that are in no group."""

    @ray.remote(concurrency_groups={"io": 1}, max_concurrency=3)
    class Several:
        def __init__(self):
            self.barrier = threading.Barrier(3)

        def meet(self):
            return self.barrier.wait(30) >= 0

    actor = Several.remote()
    assert ray.get([actor.meet.remote() for _ in range(3)], timeout=40) == [True] * 3


@ray.remote(concurrency_groups={"io": 2, "compute": 4})
class AsyncGrouped:
    def __init__(self):
        self.now = {}
        self.most = {}

    async def stay(self, group, seconds):
        self.now[group] = self.now.get(group, 0) + 1
        self.most[group] = max(self.most.get(group, 0), self.now[group])
        await asyncio.sleep(seconds)
        self.now[group] -= 1
        return threading.get_ident(), id(asyncio.get_running_loop())

    @ray.method(concurrency_group="io")
    async def io(self, seconds=0.3):
        return await self.stay("io", seconds)

    @ray.method(concurrency_group="compute")
    async def compute(self, seconds=0.3):
        return await self.stay("compute", seconds)

    @ray.method(concurrency_group="io")
    async def block(self, seconds):
        time.sleep(seconds)

    async def other(self, seconds=0.3):
        return await self.stay("other", seconds)

    async def peaks(self):
        return self.most


def test_groups_of_an_async_actor() -> None:
    """Coroutines of a group run at once as it says; those of none as ``max_concurrency`` does."""
    actor = AsyncGrouped.remote()
    refs = [actor.io.remote() for _ in range(4)]
    refs += [actor.compute.remote() for _ in range(8)]
    refs += [actor.other.remote() for _ in range(20)]
    ray.get(refs)

    assert ray.get(actor.peaks.remote()) == {"io": 2, "compute": 4, "other": 20}


def test_each_group_of_an_async_actor_has_a_loop() -> None:
    """In a thread of its own."""
    actor = AsyncGrouped.remote()
    places = [
        {*ray.get([method.remote(0) for _ in range(4)])}
        for method in (actor.io, actor.compute, actor.other)
    ]

    assert [len(place) for place in places] == [1, 1, 1]
    assert len(set.union(*places)) == 3


def test_what_blocks_the_loop_of_a_group_does_not_block_others() -> None:
    """A coroutine that computes holds up its own group only."""
    actor = AsyncGrouped.remote()
    ray.get(actor.other.remote(0))
    busy = actor.block.remote(3)
    ray.get(actor.other.remote(0), timeout=2.5)
    assert ray.wait([busy], timeout=0)[0] == []
    ray.get(busy)


def test_groups_are_not_an_option_of_one_actor() -> None:
    """``.options(concurrency_groups=)`` is a ValueError: they belong to the class."""
    with pytest.raises(ValueError, match="concurrency_groups"):
        Grouped.options(concurrency_groups={"io": 1}).remote()


def test_a_method_of_a_group_that_its_class_lacks() -> None:
    """It is refused when an actor is made."""

    @ray.remote(concurrency_groups={"io": 1})
    class Wrong:
        @ray.method(concurrency_group="nope")
        def go(self):
            return 1

    with pytest.raises((AssertionError, ValueError)):
        Wrong.remote()


@pytest.mark.parametrize("kind", [Grouped, AsyncGrouped, Wobbling])
def test_a_call_in_a_group_that_there_is_not(kind) -> None:
    """It fails, whatever becomes of the actor."""
    actor = kind.remote()
    method = actor.calls if kind is Wobbling else actor.peaks
    with pytest.raises(RayError):
        ray.get(method.options(concurrency_group="nope").remote(), timeout=40)


@pytest.mark.parametrize("groups", [1, "io", {"io": -1}, {"io": "two"}, {3: 1}])
def test_bad_groups(groups) -> None:
    """They are refused when the class is decorated, or when an actor is made."""

    class Plain:
        def go(self):
            return 1

    with pytest.raises((TypeError, ValueError, OverflowError, AttributeError)):
        ray.remote(concurrency_groups=groups)(Plain).remote()


# ---- order ---------------------------------------------------------------------------------


@ray.remote
class Ledger:
    def __init__(self):
        self.log = []

    def note(self, number, needs=None):
        self.log.append(number)

    def read(self):
        return self.log


@ray.remote
class AsyncLedger:
    def __init__(self):
        self.log = []

    async def note(self, number, needs=None):
        self.log.append(number)

    async def read(self):
        return self.log


def order_of(actor):
    """In which order calls run of which the first has to wait for its argument."""
    ray.get(actor.read.remote())
    late = slow.remote(2)
    ray.get([actor.note.remote(0, late), actor.note.remote(1), actor.note.remote(2)])
    return ray.get(actor.read.remote())


def test_a_plain_actor_keeps_the_order() -> None:
    """A call whose argument is late keeps those behind it."""
    assert order_of(Ledger.remote()) == [0, 1, 2]


def test_an_async_actor_starts_what_is_ready() -> None:
    """A call whose argument is late does not keep the others."""
    assert order_of(AsyncLedger.remote()) == [1, 2, 0]


def test_a_threaded_actor_starts_what_is_ready() -> None:
    """The same with ``max_concurrency``."""
    found = order_of(Ledger.options(max_concurrency=2).remote())
    assert found[2] == 0


def test_out_of_order_execution_of_a_plain_actor() -> None:
    """``allow_out_of_order_execution=True`` has it start what is ready."""
    assert order_of(Ledger.options(allow_out_of_order_execution=True).remote()) == [1, 2, 0]


def test_in_order_execution_of_a_plain_actor() -> None:
    """False is what it does anyway."""
    assert order_of(Ledger.options(allow_out_of_order_execution=False).remote()) == [0, 1, 2]


def test_an_async_actor_cannot_promise_order() -> None:
    """``allow_out_of_order_execution=False`` is a ValueError, of threaded actors, too."""
    with pytest.raises(ValueError, match="out-of-order"):
        AsyncLedger.options(allow_out_of_order_execution=False).remote()
    with pytest.raises(ValueError, match="out-of-order"):
        Ledger.options(allow_out_of_order_execution=False, max_concurrency=2).remote()


def test_a_failed_argument_fails_its_own_call_only() -> None:
    """The method does not run; those behind it do."""

    @ray.remote(max_retries=0)
    def fails():
        raise ValueError("of the argument")

    actor = Ledger.remote()
    first, second = actor.note.remote(0, fails.remote()), actor.note.remote(1)
    with pytest.raises(ValueError, match="of the argument"):
        ray.get(first)
    ray.get(second)
    assert ray.get(actor.read.remote()) == [1]


# ---- restarts ------------------------------------------------------------------------------


def test_calls_that_are_made_again_after_a_crash_and_after_an_error(counter) -> None:
    """Both use up ``max_task_retries``."""

    @ray.remote(max_restarts=-1, max_task_retries=2)
    class Crashing:
        @ray.method(retry_exceptions=True)
        def go(self):
            import os

            calls = counter()
            if calls == 1:
                os._exit(1)
            raise ValueError(calls)

    actor = Crashing.remote()
    with pytest.raises((ValueError, RayActorError)):
        ray.get(actor.go.remote(), timeout=50)
    assert counter() == 4
