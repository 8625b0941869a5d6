"""Contracts of generators: tasks and methods that yield, and the references to what they yield."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import threading
import time

import numpy as np
import pytest
import ray
from ray.exceptions import RayActorError, RayTaskError, TaskCancelledError, WorkerCrashedError

pytestmark = [
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("ignore:num_returns='dynamic'"),
]


@ray.remote(num_cpus=0)
def numbers(count, pause=0.0):
    for number in range(count):
        if pause:
            time.sleep(pause)
        yield number


@ray.remote(num_cpus=0)
def breaks(count):
    for number in range(count):  # Ray cannot run a ``yield from``
        yield 1 * number
    raise ValueError("after all")


@ray.remote(num_cpus=0)
class Log:
    """Hears how far generators are."""

    def __init__(self):
        self.heard = []

    def add(self, number):
        self.heard.append(number)

    def get(self):
        return self.heard


@ray.remote(num_cpus=0)
def logged(log, count):
    for number in range(count):
        ray.get(log.add.remote(number))
        yield number


@ray.remote(num_cpus=0)
class Maker:
    """Its methods yield."""

    def numbers(self, count, pause=0.0):
        for number in range(count):
            time.sleep(pause)
            yield number

    def breaks(self, count):
        for number in range(count):
            yield 1 * number
        raise ValueError("after all")

    @ray.method(num_returns=2)
    def two(self):
        yield 1
        yield 2

    @ray.method(_generator_backpressure_num_objects=1)
    def logged(self, log, count):
        for number in range(count):
            ray.get(log.add.remote(number))
            yield number

    def plain(self):
        return 5

    def pid(self):
        return os.getpid()


@ray.remote(num_cpus=0)
class AsyncMaker:
    """Its methods yield in an event loop."""

    async def numbers(self, count, pause=0.0):
        for number in range(count):
            await asyncio.sleep(pause)
            yield number

    async def breaks(self, count):
        for number in range(count):
            yield number
        raise ValueError("after all")

    @ray.method(_generator_backpressure_num_objects=1)
    async def logged(self, log, count):
        for number in range(count):
            await log.add.remote(number)
            yield number

    async def plain(self):
        return 5


@pytest.fixture(scope="module")
def maker(cluster):
    actor = Maker.remote()
    ray.get(actor.plain.remote())
    return actor


@pytest.fixture(scope="module")
def async_maker(cluster):
    actor = AsyncMaker.remote()
    ray.get(actor.plain.remote())
    return actor


def values(generator):
    """The items, and the type of the error in place of one that raises."""
    found = []
    for ref in generator:
        try:
            found.append(ray.get(ref))
        except Exception as error:
            found.append(type(error.cause) if isinstance(error, RayTaskError) else type(error))
    return found


def eventually(true, within_s=20.0):
    """Whether it comes true."""
    deadline = time.monotonic() + within_s
    while not (reached := true()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return reached


# ---- what a call returns --------------------------------------------------------------------


def test_a_function_that_yields_returns_a_generator_of_references() -> None:
    """Without ``num_returns``, a call of a generator function gives an ObjectRefGenerator."""
    generator = numbers.remote(3)

    assert isinstance(generator, ray.ObjectRefGenerator)
    refs = list(generator)
    assert all(isinstance(ref, ray.ObjectRef) for ref in refs)
    assert ray.get(refs) == [0, 1, 2]


def test_streaming_can_be_said() -> None:
    """``num_returns="streaming"`` is the same, as an option or in the decorator."""

    @ray.remote(num_returns="streaming")
    def f():
        yield 1

    assert values(f.remote()) == [1]
    assert values(numbers.options(num_returns="streaming").remote(2)) == [0, 1]


def test_a_number_of_returns_overrules() -> None:
    """With ``num_returns=n`` a generator function has n references, as any other."""
    assert ray.get(numbers.options(num_returns=3).remote(3)) == [0, 1, 2]


def test_one_return_of_a_generator_is_its_first_item() -> None:
    """``num_returns=1``: one reference, to what was yielded first."""
    assert ray.get(numbers.options(num_returns=1).remote(3)) == 0


def test_streaming_is_for_generators_only() -> None:
    """``num_returns="streaming"`` of a function that does not yield is a ValueError."""
    with pytest.raises(ValueError, match="generator"):

        @ray.remote(num_returns="streaming")
        def f():
            return 1


@pytest.mark.parametrize("count", ["x", -1])
def test_other_numbers_are_refused(count) -> None:
    """Another word, or a negative number, is refused by the decorator."""
    with pytest.raises((ValueError, TypeError)):

        @ray.remote(num_returns=count)
        def f():
            yield 1


def test_items_come_as_they_are_yielded() -> None:
    """The first item is there long before the task has ended."""
    began = time.monotonic()
    generator = numbers.remote(2, 2.0)

    assert ray.get(next(generator)) == 0
    assert ray.wait([generator], timeout=0.1) == ([], [generator])
    assert ray.get(next(generator)) == 1
    assert time.monotonic() - began > 4.0


def test_an_empty_generator() -> None:
    """It ends without any item."""
    assert list(numbers.remote(0)) == []


def test_the_end_stays_the_end() -> None:
    """``next`` after the end raises StopIteration, every time."""
    generator = numbers.remote(1)
    list(generator)

    for _ in range(2):
        with pytest.raises(StopIteration):
            next(generator)


def test_it_is_its_own_iterator() -> None:
    """``iter`` of it, and ``aiter``, are itself."""
    generator = numbers.remote(1)

    assert iter(generator) is generator
    assert aiter(generator) is generator


@pytest.mark.parametrize("name", ["send", "throw"])
def test_nothing_can_be_sent_into_it(name) -> None:
    """``send`` and ``throw`` are NotImplementedError."""
    with pytest.raises(NotImplementedError):
        getattr(numbers.remote(1), name)(1)


def test_it_cannot_be_closed() -> None:
    """``close`` is NotImplementedError."""
    with pytest.raises(NotImplementedError):
        numbers.remote(1).close()


def test_many_items() -> None:
    """Some thousand items come, all of them, in order."""
    assert [ray.get(ref) for ref in numbers.remote(3000)] == [*range(3000)]


def test_large_items() -> None:
    """Arrays are items as well."""

    @ray.remote
    def f():
        for number in range(4):
            yield np.full(200_000, number)

    assert [int(array.sum()) for array in map(ray.get, f.remote())] == [
        0,
        200_000,
        400_000,
        600_000,
    ]


def test_items_with_references_in_them() -> None:
    """An item may contain references, which outlive the task."""

    @ray.remote
    def f():
        for number in range(3):
            yield [ray.put(number)]

    boxes = ray.get(list(f.remote()))
    assert [ray.get(box[0]) for box in boxes] == [0, 1, 2]


def test_items_as_arguments() -> None:
    """The reference of an item is an argument as any other."""

    @ray.remote
    def double(x):
        return 2 * x

    assert ray.get([double.remote(ref) for ref in numbers.remote(3)]) == [0, 2, 4]


def test_items_in_containers_go_to_other_tasks() -> None:
    """References of items can be passed on within a list."""

    @ray.remote
    def total(refs):
        return sum(ray.get(refs))

    assert ray.get(total.remote(list(numbers.remote(4)))) == 6


def test_arguments_of_a_generator_are_resolved() -> None:
    """References as arguments are values in a generator, too."""
    assert values(numbers.remote(ray.put(2))) == [0, 1]


def test_generators_in_tasks() -> None:
    """A task may read the items of its own children, and yield them again."""

    @ray.remote
    def relay():
        for ref in numbers.remote(3):
            yield 10 * ray.get(ref)

    assert values(relay.remote()) == [0, 10, 20]


def test_two_generators_at_once() -> None:
    """Two are read in turns."""
    first, second = numbers.remote(3, 0.01), numbers.remote(3, 0.01)

    found = [(ray.get(a), ray.get(b)) for a, b in zip(first, second, strict=True)]
    assert found == [(0, 0), (1, 1), (2, 2)]


def test_a_generator_with_keyword_arguments() -> None:
    """Arguments are bound as for any function, and those that do not fit are a TypeError."""
    assert values(numbers.remote(count=2)) == [0, 1]
    with pytest.raises(TypeError):
        numbers.remote()


def test_unread_items_do_not_stop_the_task() -> None:
    """Without backpressure the task goes on though nobody reads."""
    log = Log.remote()
    generator = logged.remote(log, 5)

    assert eventually(lambda: ray.get(log.get.remote()) == [0, 1, 2, 3, 4])
    assert values(generator) == [0, 1, 2, 3, 4]


# ---- passing it on ---------------------------------------------------------------------------


def test_it_cannot_be_passed_to_a_task() -> None:
    """A generator as an argument is a TypeError at the call."""

    @ray.remote
    def f(x):
        return x

    with pytest.raises(TypeError, match="generator"):
        f.remote(numbers.remote(1))


def test_it_cannot_be_put() -> None:
    """``put`` of a generator is a TypeError."""
    with pytest.raises(TypeError):
        ray.put(numbers.remote(1))


def test_it_cannot_be_pickled() -> None:
    """Nor can it be pickled."""
    with pytest.raises(TypeError):
        pickle.dumps(numbers.remote(1))


def test_get_of_it_is_itself() -> None:
    """``get`` of a generator is that generator."""
    generator = numbers.remote(1)

    assert ray.get(generator) is generator


# ---- its state -------------------------------------------------------------------------------


def test_completed_is_ready_when_the_task_has_ended() -> None:
    """``completed()`` is a reference, whose value is None, and there only at the end."""
    generator = numbers.remote(2, 1.0)
    end = generator.completed()

    assert isinstance(end, ray.ObjectRef)
    assert ray.wait([end], timeout=0.1) == ([], [end])
    assert ray.get(end) is None


def test_is_finished_says_whether_all_was_read() -> None:
    """It is False while items are there, though the task has ended."""
    generator = numbers.remote(1)
    ray.get(generator.completed())

    assert not generator.is_finished()
    next(generator)
    assert eventually(generator.is_finished)


def test_next_ready_says_whether_the_next_item_is_there() -> None:
    """It is False before an item comes, True when one is there, and False at the end."""
    generator = numbers.remote(1, 1.0)

    assert not generator.next_ready()
    assert eventually(generator.next_ready)
    next(generator)
    assert eventually(generator.is_finished)
    assert not generator.next_ready()


# ---- wait ------------------------------------------------------------------------------------


def test_wait_takes_generators() -> None:
    """A generator is ready when its next item is there, which ``wait`` does not take."""
    fast, slow = numbers.remote(1), numbers.remote(1, 5.0)

    ready, left = ray.wait([slow, fast], timeout=4.0)
    assert ready == [fast] and left == [slow]
    assert ray.get(next(fast)) == 0


def test_wait_takes_references_beside_generators() -> None:
    """Both in one list."""

    @ray.remote(num_cpus=0)
    def plain():
        return 1

    items = [numbers.remote(1), plain.remote()]
    assert ray.wait(items, num_returns=2, timeout=20.0) == (items, [])


def test_wait_takes_a_generator_that_has_ended_as_ready() -> None:
    """Nothing more will come, so nobody need wait."""
    generator = numbers.remote(0)

    assert ray.wait([generator], timeout=20.0) == ([generator], [])


def test_wait_takes_a_generator_that_has_failed_as_ready() -> None:
    """The error is the next item."""
    generator = breaks.remote(0)

    assert ray.wait([generator], timeout=20.0) == ([generator], [])
    with pytest.raises(ValueError, match="after all"):
        ray.get(next(generator))


def test_wait_for_one_generator_needs_a_list() -> None:
    """A generator alone is a TypeError."""
    with pytest.raises(TypeError, match="expected a list"):
        ray.wait(numbers.remote(1))


def test_wait_refuses_a_generator_twice() -> None:
    """All in the list must differ."""
    generator = numbers.remote(1)

    with pytest.raises(ValueError, match="unique"):
        ray.wait([generator, generator])


def test_a_loop_of_waits_over_generators() -> None:
    """The usual loop: read from whichever is ready, until all have ended."""
    left, found = [numbers.remote(3, 0.01), numbers.remote(4, 0.02)], []
    while left:
        ready, left = ray.wait(left)
        for generator in ready:
            try:
                found.append(ray.get(next(generator)))
                left.append(generator)
            except StopIteration:
                pass

    assert sorted(found) == [0, 0, 1, 1, 2, 2, 3]


# ---- errors ----------------------------------------------------------------------------------


def test_an_error_is_the_last_item() -> None:
    """What was yielded before is good, then comes one reference that raises, then the end."""
    generator = breaks.remote(2)

    refs = list(generator)
    assert ray.get(refs[:2]) == [0, 1]
    with pytest.raises(ValueError, match="after all") as caught:
        ray.get(refs[2])
    assert isinstance(caught.value, RayTaskError)
    assert len(refs) == 3


def test_an_error_of_the_generator_is_no_failure_of_the_task() -> None:
    """``completed()`` then has its value, None."""
    generator = breaks.remote(1)
    assert values(generator) == [0, ValueError]
    assert ray.get(generator.completed()) is None


def test_an_error_before_the_first_item() -> None:
    """Then the first reference raises."""
    assert values(breaks.remote(0)) == [ValueError]


def test_it_is_not_finished_before_the_error_is_read() -> None:
    """``next_ready`` until then."""
    generator = breaks.remote(0)

    assert eventually(generator.next_ready)
    assert not generator.is_finished()
    next(generator)
    assert eventually(generator.is_finished)


def test_an_item_that_cannot_be_pickled() -> None:
    """It is the error at its place."""

    @ray.remote
    def f():
        yield 1
        yield threading.Lock()

    found = values(f.remote())
    assert found[0] == 1 and len(found) == 2
    assert issubclass(found[1], TypeError)


def test_a_failed_argument_fails_the_generator() -> None:
    """The only item raises what the argument's task has raised."""

    @ray.remote
    def fails():
        raise KeyError("first")

    assert values(numbers.remote(fails.remote())) == [KeyError]


# ---- retries ---------------------------------------------------------------------------------


def test_a_worker_that_dies_yields_nothing_twice(tmp_path) -> None:
    """The task runs again; what was yielded is not there a second time."""

    @ray.remote(max_retries=2)
    def f(path):
        for number in range(5):
            if number == 3 and not os.path.exists(path):
                open(path, "w").close()
                time.sleep(0.5)
                os._exit(1)
            yield number

    assert values(f.remote(str(tmp_path / "ran"))) == [0, 1, 2, 3, 4]


def test_a_worker_that_dies_for_good_is_the_last_item() -> None:
    """What was yielded before stays, and the next reference raises."""

    @ray.remote(max_retries=0)
    def f():
        yield 0
        time.sleep(0.5)
        os._exit(1)

    generator = f.remote()
    assert ray.get(next(generator)) == 0
    with pytest.raises(WorkerCrashedError):
        ray.get(next(generator))
    with pytest.raises(StopIteration):
        next(generator)
    with pytest.raises(WorkerCrashedError):
        ray.get(generator.completed())


def test_retried_errors_yield_nothing_twice(tmp_path) -> None:
    """``retry_exceptions``: the generator runs again from its beginning, its items count once."""

    @ray.remote(max_retries=2, retry_exceptions=True)
    def f(path):
        for number in range(4):
            if number == 2 and not os.path.exists(path):
                open(path, "w").close()
                raise ValueError("once")
            yield number

    assert values(f.remote(str(tmp_path / "ran"))) == [0, 1, 2, 3]


def test_errors_that_are_retried_in_vain(tmp_path) -> None:
    """When no retry is left, the error is the last item, and that of the task."""

    @ray.remote(max_retries=1, retry_exceptions=[ValueError])
    def f():
        yield 0
        raise ValueError("always")

    generator = f.remote()
    assert values(generator) == [0, ValueError]
    with pytest.raises(ValueError, match="always"):
        ray.get(generator.completed())


# ---- cancelling and deleting -----------------------------------------------------------------


def test_cancel_of_a_running_generator() -> None:
    """Its next reference raises TaskCancelledError, then it ends."""
    generator = numbers.remote(1000, 0.05)
    ray.get(next(generator))
    ray.cancel(generator)

    found = values(generator)
    assert found[-1] is TaskCancelledError and len(found) < 1000
    assert found[:-1] == [*range(1, len(found))]


def test_cancel_by_force() -> None:
    """``force``: its worker ends, and so does the generator."""
    generator = numbers.remote(1000, 0.05)
    ray.get(next(generator))
    ray.cancel(generator, force=True)

    found = values(generator)
    assert found[-1] in (TaskCancelledError, WorkerCrashedError) and len(found) < 1000


def test_a_deleted_generator_runs_to_its_end() -> None:
    """Who drops it wants no items, but the task goes on."""
    log = Log.remote()
    generator = logged.remote(log, 4)
    next(generator)
    del generator

    assert eventually(lambda: ray.get(log.get.remote()) == [0, 1, 2, 3])


def test_items_outlive_the_generator() -> None:
    """References that were read stay good when the generator is gone."""
    generator = numbers.remote(3)
    refs = [next(generator), next(generator)]
    del generator

    assert ray.get(refs) == [0, 1]


# ---- backpressure ----------------------------------------------------------------------------


def test_backpressure_keeps_the_generator_back() -> None:
    """``_generator_backpressure_num_objects=n``: it goes on as items are read."""
    log = Log.remote()
    generator = logged.options(_generator_backpressure_num_objects=2).remote(log, 8)

    assert eventually(lambda: len(ray.get(log.get.remote())) >= 2)
    time.sleep(1.0)
    before = len(ray.get(log.get.remote()))
    assert before <= 3
    next(generator)
    assert eventually(lambda: len(ray.get(log.get.remote())) == before + 1)
    assert len(list(generator)) == 7


def test_backpressure_of_a_method(maker) -> None:
    """The same said by ``@ray.method``."""
    log = Log.remote()
    generator = maker.logged.remote(log, 5)

    assert eventually(lambda: len(ray.get(log.get.remote())) >= 1)
    time.sleep(0.5)
    assert len(ray.get(log.get.remote())) <= 2
    assert values(generator) == [0, 1, 2, 3, 4]


def test_backpressure_of_an_async_method(async_maker) -> None:
    """And of a coroutine's."""
    log = Log.remote()
    generator = async_maker.logged.remote(log, 5)

    assert eventually(lambda: len(ray.get(log.get.remote())) >= 1)
    time.sleep(0.5)
    assert len(ray.get(log.get.remote())) <= 2
    assert values(generator) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("most", "error"), [(0, ValueError), ("a", TypeError)])
def test_backpressure_that_is_none(most, error) -> None:
    """0 is refused, and what is no number."""
    with pytest.raises(error):

        @ray.remote(_generator_backpressure_num_objects=most)
        def f():
            yield 1


def test_backpressure_without_a_limit() -> None:
    """-1 is no limit."""
    generator = numbers.options(_generator_backpressure_num_objects=-1).remote(3)
    assert values(generator) == [0, 1, 2]


# ---- actors ----------------------------------------------------------------------------------


def test_methods_that_yield(maker) -> None:
    """A call of a generator method gives an ObjectRefGenerator."""
    generator = maker.numbers.remote(3)

    assert isinstance(generator, ray.ObjectRefGenerator)
    assert values(generator) == [0, 1, 2]


def test_streaming_of_methods_can_be_said(maker) -> None:
    """As an option of the call."""
    assert values(maker.numbers.options(num_returns="streaming").remote(2)) == [0, 1]


def test_errors_of_methods(maker) -> None:
    """As of tasks; the actor goes on."""
    assert values(maker.breaks.remote(2)) == [0, 1, ValueError]
    assert ray.get(maker.plain.remote()) == 5


def test_methods_with_a_number_of_returns(maker) -> None:
    """``@ray.method(num_returns=2)`` of a method that yields."""
    assert ray.get(maker.two.remote()) == [1, 2]


def test_calls_behind_a_generator_wait(maker) -> None:
    """A plain actor does one thing after the other."""
    generator = maker.numbers.remote(3, 0.3)
    began = time.monotonic()

    assert ray.get(maker.plain.remote()) == 5
    assert time.monotonic() - began > 0.6
    assert values(generator) == [0, 1, 2]


def test_async_methods_that_yield(async_maker) -> None:
    """Asynchronous generators are methods as well."""
    assert values(async_maker.numbers.remote(3)) == [0, 1, 2]


def test_errors_of_async_methods(async_maker) -> None:
    """As of all generators."""
    assert values(async_maker.breaks.remote(2)) == [0, 1, ValueError]


def test_async_generators_run_at_once(async_maker) -> None:
    """Two are under way in one event loop, and other calls between their items."""
    first, second = async_maker.numbers.remote(3, 0.5), async_maker.numbers.remote(3, 0.5)
    began = time.monotonic()

    assert ray.get(async_maker.plain.remote()) == 5
    assert values(first) == values(second) == [0, 1, 2]
    assert time.monotonic() - began < 2.9


def test_cancel_of_an_async_generator(async_maker) -> None:
    """It is cancelled where it awaits."""
    generator = async_maker.numbers.remote(1000, 0.05)
    ray.get(next(generator))
    ray.cancel(generator)

    found = values(generator)
    assert found[-1] is TaskCancelledError and len(found) < 1000


def test_an_actor_that_is_killed_ends_its_generators() -> None:
    """What was yielded stays; then comes an error."""
    actor = Maker.remote()
    generator = actor.numbers.remote(1000, 0.05)
    ray.get(next(generator))
    ray.kill(actor)

    found = values(generator)
    assert issubclass(found[-1], RayActorError) and len(found) < 1000


def test_a_call_that_is_made_again_yields_nothing_twice() -> None:
    """With ``max_task_retries`` the generator runs again in the restarted actor."""
    actor = Maker.options(max_restarts=1, max_task_retries=1).remote()
    pid = ray.get(actor.pid.remote())
    generator = actor.numbers.remote(6, 0.2)
    ray.get(next(generator))
    os.kill(pid, signal.SIGKILL)

    assert values(generator) == [1, 2, 3, 4, 5]


def test_a_handle_that_was_passed_knows_what_yields(maker) -> None:
    """In another process a handle's generator methods are such, too."""

    @ray.remote
    def f(actor):
        return [ray.get(ref) for ref in actor.numbers.remote(3)]

    assert ray.get(f.remote(maker)) == [0, 1, 2]


# ---- coroutines ------------------------------------------------------------------------------


def test_async_for() -> None:
    """``async for`` gives the references, and ends."""

    async def read():
        return [await ref async for ref in numbers.remote(3, 0.01)]

    assert asyncio.run(read()) == [0, 1, 2]


def test_async_for_with_an_error() -> None:
    """The error is in the last reference."""

    async def read():
        found = []
        async for ref in breaks.remote(1):
            try:
                found.append(await ref)
            except ValueError:
                found.append("error")
        return found

    assert asyncio.run(read()) == [0, "error"]


def test_anext_of_several_at_once() -> None:
    """They wait beside each other."""

    async def read():
        generators = [numbers.remote(1, 1.0) for _ in range(2)]
        refs = await asyncio.gather(*map(anext, generators))
        return await asyncio.gather(*refs)

    assert asyncio.run(read()) == [0, 0]


def test_anext_at_the_end() -> None:
    """StopAsyncIteration."""

    async def read():
        with pytest.raises(StopAsyncIteration):
            await anext(numbers.remote(0))

    asyncio.run(read())


# ---- dynamic ---------------------------------------------------------------------------------


def test_dynamic_is_one_reference() -> None:
    """``num_returns="dynamic"``: one reference, to a DynamicObjectRefGenerator of all items."""
    ref = numbers.options(num_returns="dynamic").remote(3)

    assert isinstance(ref, ray.ObjectRef)
    found = ray.get(ref)
    assert isinstance(found, ray.DynamicObjectRefGenerator)
    assert len(found) == 3
    assert [ray.get(one) for one in found] == [0, 1, 2]


def test_iterating_takes_the_references_out() -> None:
    """A DynamicObjectRefGenerator is empty afterwards; another ``get`` gives another."""
    ref = numbers.options(num_returns="dynamic").remote(2)
    found = ray.get(ref)

    assert len(list(found)) == 2 and len(found) == 0
    assert len(ray.get(ref)) == 2


def test_an_error_in_dynamic_is_the_last_reference() -> None:
    """What was yielded before is good."""
    ref = breaks.options(num_returns="dynamic", max_retries=0).remote(2)

    assert values(ray.get(ref)) == [0, 1, ValueError]


def test_dynamic_is_deprecated() -> None:
    """It says so."""
    with pytest.warns(DeprecationWarning, match="streaming"):
        numbers.options(num_returns="dynamic")


def test_dynamic_can_be_passed_on() -> None:
    """The reference is an argument as any other."""

    @ray.remote
    def total(found):
        return sum(ray.get(list(found)))

    assert ray.get(total.remote(numbers.options(num_returns="dynamic").remote(4))) == 6


def test_dynamic_methods(maker) -> None:
    """As an option of a call."""
    ref = maker.numbers.options(num_returns="dynamic").remote(2)
    assert [ray.get(one) for one in ray.get(ref)] == [0, 1]
