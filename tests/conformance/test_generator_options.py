"""Contracts of the options of generators that libraries on top of Ray Core use."""

from __future__ import annotations

import time

import pytest
import ray
from ray.exceptions import RayTaskError

pytestmark = [
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("ignore:num_returns='dynamic'"),
]


@ray.remote(num_cpus=0)
class Log:
    """Hears how far generators are."""

    def __init__(self):
        self.heard = []

    def add(self, what):
        self.heard.append(what)

    def get(self):
        return self.heard


@ray.remote(num_cpus=0, _num_objects_per_yield=2)
def pairs(groups):
    for place in range(len(groups)):  # Ray cannot run a ``yield from``
        yield groups[place]


@ray.remote(num_cpus=0)
class Pairs:
    @ray.method(_num_objects_per_yield=2)
    def pairs(self, groups):
        for place in range(len(groups)):
            yield groups[place]

    @ray.method(_num_objects_per_yield=2)
    def value(self):
        return 1, 2


@ray.remote(num_cpus=0)
class AsyncPairs:
    @ray.method(_num_objects_per_yield=2)
    async def pairs(self, groups):
        for group in groups:
            yield group


@pytest.fixture(params=["task", "method", "async method"], scope="module")
def call(request, cluster):
    """What is called to have that many in each yield."""
    if request.param == "task":
        return pairs
    actor = (Pairs if request.param == "method" else AsyncPairs).remote()
    assert values(actor.pairs.remote([])) == []
    return actor.pairs


def values(generator):
    """The items, and the message of the error in place of one that raises."""
    found = []
    for ref in generator:
        try:
            found.append(ray.get(ref, timeout=40))
        except RayTaskError as error:
            assert isinstance(error, ValueError)
            found.append(str(error))
    return found


def eventually(condition, seconds=30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def heard(log, count) -> bool:
    return len(ray.get(log.get.remote())) == count


def stays(log, count) -> bool:
    """Whether nobody goes on meanwhile, who would need one such call for each item."""
    return all(heard(log, count) for _ in range(100))


# ---- several items in each yield -------------------------------------------------------------


def test_each_yield_has_so_many_items(call) -> None:
    """``_num_objects_per_yield=n``: each yields a tuple or list of n, which are items each."""
    assert values(call.remote([(1, 2), [3, (4,)]])) == [1, 2, 3, (4,)]


def test_a_generator_of_none(call) -> None:
    """That has no items."""
    assert values(call.remote([])) == []


@pytest.mark.parametrize("wrong", [3, "ab", {1: 1, 2: 2}], ids=["number", "text", "dict"])
def test_a_yield_that_is_no_tuple_or_list(call, wrong) -> None:
    """It is a ValueError in the place of its items, the last one."""
    *before, error = values(call.remote([(1, 2), wrong, (5, 6)]))
    assert before == [1, 2]
    assert "must yield a tuple or list of length 2" in error


@pytest.mark.parametrize("wrong", [(), (3,), (3, 4, 5)], ids=[0, 1, 3])
def test_a_yield_of_another_length(call, wrong) -> None:
    """The same for too few or too many."""
    *before, error = values(call.remote([(1, 2), wrong]))
    assert before == [1, 2]
    assert f"yielded {len(wrong)} objects, but _num_objects_per_yield=2" in error


def test_one_item_in_each_yield_is_that_itself() -> None:
    """With 1, and with None, what is yielded is the item."""

    @ray.remote(_num_objects_per_yield=1)
    def one():
        yield (1,)

    @ray.remote(_num_objects_per_yield=None)
    def none():
        yield (1, 2)

    assert values(one.remote()) == [(1,)]
    assert values(none.remote()) == [(1, 2)]


def test_what_yields_nothing_does_not_mind() -> None:
    """Functions and methods that return."""

    @ray.remote(_num_objects_per_yield=2)
    def f():
        return 1, 2

    assert ray.get(f.remote()) == (1, 2)
    assert ray.get(Pairs.remote().value.remote()) == (1, 2)


def test_all_items_at_once_stay_as_they_are_yielded() -> None:
    """It is for streams: with ``num_returns="dynamic"`` the yields are the items."""
    generator = ray.get(pairs.options(num_returns="dynamic").remote([(1, 2), (3, 4)]))
    assert values(generator) == [(1, 2), (3, 4)]


def test_backpressure_counts_items() -> None:
    """``_generator_backpressure_num_objects`` counts them, and not the yields."""

    @ray.remote(num_cpus=0, _num_objects_per_yield=2, _generator_backpressure_num_objects=3)
    def logged(log):
        for number in range(6):
            ray.get(log.add.remote(number))
            yield number, number

    log = Log.remote()
    generator = logged.remote(log)
    for told in (2, 2, 3, 3):  # 3 items, and then one more for each that is read
        eventually(lambda told=told: heard(log, told))
        assert stays(log, told)
        next(generator)
    assert values(generator) == [2, 2, 3, 3, 4, 4, 5, 5]


def test_the_number_is_the_decorators() -> None:
    """Another one in ``options`` is a ValueError; the same is not, but for methods."""
    with pytest.raises(ValueError, match="cannot be overridden per task call"):
        pairs.options(_num_objects_per_yield=3)
    with pytest.raises(ValueError, match="cannot be overridden per task call"):
        pairs.options(_num_objects_per_yield=None)
    assert values(pairs.options(_num_objects_per_yield=2).remote([(1, 2)])) == [1, 2]
    assert values(pairs.options(num_cpus=0.5).remote([(1, 2)])) == [1, 2]
    with pytest.raises(ValueError, match="cannot be overridden per actor method call"):
        Pairs.remote().pairs.options(_num_objects_per_yield=2)


@pytest.mark.parametrize("number", [0, -1])
def test_a_number_that_is_none(number) -> None:
    """It is a ValueError at the decorator."""
    with pytest.raises(ValueError, match="_num_objects_per_yield"):

        @ray.remote(_num_objects_per_yield=number)
        def f():
            yield 1

    with pytest.raises(ValueError, match="_num_objects_per_yield"):

        class Actor:
            @ray.method(_num_objects_per_yield=number)
            def f(self):
                yield 1


def test_a_handle_elsewhere_knows_it() -> None:
    """Calls by a task to which the handle is passed have the same items."""

    @ray.remote(num_cpus=0)
    def total(actor):
        return sum(ray.get([*actor.pairs.remote([(1, 2), (3, 4)])]))

    assert ray.get(total.remote(Pairs.remote()), timeout=40) == 10


# ---- backpressure of a whole actor -----------------------------------------------------------


@ray.remote(num_cpus=0, max_concurrency=4, _actor_generator_backpressure_num_objects=3)
class Bounded:
    def __init__(self, log):
        self.log = log

    def logged(self, name, count):
        for number in range(count):
            ray.get(self.log.add.remote(name))
            yield number

    @ray.method(_generator_backpressure_num_objects=1)
    def tight(self, count):
        for number in range(count):
            ray.get(self.log.add.remote("tight"))
            yield number

    def plain(self):
        return 5


@ray.remote(num_cpus=0, _actor_generator_backpressure_num_objects=3)
class AsyncBounded:
    def __init__(self, log):
        self.log = log

    async def logged(self, name, count):
        for number in range(count):
            await self.log.add.remote(name)
            yield number

    async def plain(self):
        return 5


both = pytest.mark.parametrize("kind", [Bounded, AsyncBounded], ids=["threaded", "async"])


def made(kind):
    """An actor, and the log of what it yields."""
    log = Log.remote()
    return kind.remote(log), log


@both
def test_unread_items_of_all_generators_are_bounded(kind) -> None:
    """``_actor_generator_backpressure_num_objects``: as many may wait for their consumers."""
    actor, log = made(kind)
    first = actor.logged.remote("first", 9)
    eventually(lambda: heard(log, 3))
    second = actor.logged.remote("second", 2)
    assert ray.get(actor.plain.remote(), timeout=40) == 5  # others than generators go on
    assert stays(log, 3)
    assert values(first) == [*range(9)]
    assert values(second) == [0, 1]


@both
def test_what_is_read_of_one_is_room_for_all(kind) -> None:
    """An item that is read may be followed by one of either."""
    actor, log = made(kind)
    first, second = actor.logged.remote("first", 9), actor.logged.remote("second", 9)
    eventually(lambda: heard(log, 3))
    for count in (4, 5):
        ready, _ = ray.wait([first, second], num_returns=1, timeout=40)
        next(ready[0])
        eventually(lambda count=count: heard(log, count))
        assert stays(log, count)


@both
def test_a_generator_that_nobody_reads_any_more_leaves_its_room(kind) -> None:
    """Once it is collected, others have that."""
    actor, log = made(kind)
    first = actor.logged.remote("first", 9)
    eventually(lambda: heard(log, 3))
    second = actor.logged.remote("second", 2)
    del first
    assert values(second) == [0, 1]


def test_the_tighter_bound_counts() -> None:
    """Beside the bound of a method."""
    log = Log.remote()
    generator = Bounded.remote(log).tight.remote(4)
    eventually(lambda: heard(log, 1))
    assert stays(log, 1)
    assert values(generator) == [0, 1, 2, 3]


@pytest.mark.parametrize("number", [0, -2])
def test_a_bound_that_is_none(number) -> None:
    """It is a ValueError; -1 and None are no bound."""
    with pytest.raises(ValueError, match="_actor_generator_backpressure_num_objects"):
        ray.remote(_actor_generator_backpressure_num_objects=number)(type("Actor", (), {}))
    for none in (-1, None):
        log = Log.remote()
        options = {"_actor_generator_backpressure_num_objects": none}
        generator = Bounded.options(**options).remote(log).logged.remote("all", 8)
        if none == -1:
            eventually(lambda log=log: heard(log, 8))
        assert values(generator) == [*range(8)]


def test_the_bound_is_for_actors() -> None:
    """A task that has it is a ValueError."""
    with pytest.raises(ValueError, match="_actor_generator_backpressure_num_objects"):

        @ray.remote(_actor_generator_backpressure_num_objects=3)
        def f():
            yield 1
