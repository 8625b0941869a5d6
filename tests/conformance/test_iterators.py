"""Contracts of util.iter and ActorGroup, which Ray has, though it calls them deprecated."""

from __future__ import annotations

import time

import pytest
import ray
from ray.util.actor_group import ActorGroup
from ray.util.iter import (
    LocalIterator,
    ParallelIteratorWorker,
    from_actors,
    from_items,
    from_iterators,
    from_range,
)

pytestmark = [
    pytest.mark.usefixtures("many_cpus"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def many_cpus():
    """Each shard takes one."""
    ray.init(num_cpus=32, include_dashboard=False)
    yield
    ray.shutdown()


def test_items_come_in_turn() -> None:
    """One of each shard."""
    assert list(from_items([1, 2, 3, 4]).gather_sync()) == [1, 2, 3, 4]
    assert list(from_range(6, num_shards=2).gather_sync()) == [0, 3, 1, 4, 2, 5]
    assert list(from_iterators([range(3), range(2)]).gather_sync()) == [0, 0, 1, 1, 2]
    assert list(from_iterators([lambda: iter("ab")]).gather_sync()) == ["a", "b"]


def test_items_come_as_they_are_ready() -> None:
    """All of them, with any number of requests at a time."""
    for options in ({}, {"num_async": 3}, {"batch_ms": 20}):
        assert sorted(from_range(20, num_shards=3).gather_async(**options)) == list(range(20))


def test_steps_in_the_actors() -> None:
    """``for_each``, ``filter``, ``batch``, ``flatten``, ``combine`` and ``transform``."""
    numbers = from_range(8, num_shards=2)
    assert list(numbers.for_each(lambda n: n * 2).gather_sync()) == [0, 8, 2, 10, 4, 12, 6, 14]
    assert list(from_range(8).filter(lambda n: n % 2).gather_sync()) == [1, 5, 3, 7]
    batches = from_range(8, num_shards=2).batch(3)
    assert list(batches.gather_sync()) == [[0, 1, 2], [4, 5, 6], [3], [7]]
    assert sorted(batches.flatten().gather_sync()) == list(range(8))
    assert list(from_range(2, 1).combine(lambda n: [n, n]).gather_sync()) == [0, 0, 1, 1]
    doubled = from_range(3, 1).transform(lambda items: (2 * n for n in items))
    assert list(doubled.gather_sync()) == [0, 2, 4]


def test_steps_here() -> None:
    """The same of what is gathered."""
    here = from_range(6, 1).gather_sync().for_each(lambda n: n + 1).filter(lambda n: n % 2)
    assert list(here.batch(2)) == [[1, 3], [5]]
    assert from_range(6, 1).gather_sync().combine(lambda n: [n] * n).take(3) == [1, 2, 2]
    shuffled = list(from_range(50, 1).gather_sync().shuffle(10, seed=1))
    assert sorted(shuffled) == list(range(50)) != shuffled


def test_several_calls_at_a_time() -> None:
    """In tasks, in whatever order."""
    found = from_range(8, 1).for_each(lambda n: n * n, max_concurrency=4)
    assert sorted(found.gather_async()) == [n * n for n in range(8)]


def test_rounds() -> None:
    """Lists of one item of each shard that has one."""
    rounds = from_iterators([range(2), range(3)]).batch_across_shards()
    assert list(rounds) == [[0, 0], [1, 1], [2]]


def test_taking_some() -> None:
    """``take`` has no more than there are; ``repeat`` has no end."""
    assert from_range(4, 2).take(3) == [0, 2, 1]
    assert from_range(4, 2).take(10) == [0, 2, 1, 3]
    assert from_items([1, 2], num_shards=1, repeat=True).take(5) == [1, 2, 1, 2, 1]


def test_showing_some(capsys) -> None:
    """A line for each."""
    from_range(3, 1).show(2)
    assert [line for line in capsys.readouterr().out.splitlines() if line.isdigit()] == ["0", "1"]


def test_shards() -> None:
    """Each alone; some of them; wrong ones."""
    numbers = from_range(10, num_shards=3)
    assert numbers.num_shards() == 3
    assert [list(one) for one in numbers.shards()] == [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]
    assert list(from_range(10, num_shards=3).get_shard(2, num_async=2)) == [6, 7, 8, 9]
    assert list(from_range(10, num_shards=3).select_shards([0, 2]).gather_sync()) == [
        *(0, 6, 1, 7, 2, 8, 9)
    ]
    with pytest.raises(ValueError, match="out of range"):
        numbers.get_shard(3)
    with pytest.raises(ValueError, match="at least one"):
        numbers.select_shards([])
    with pytest.raises(ValueError, match="positive"):
        numbers.gather_async(num_async=0)
    with pytest.raises(TypeError, match="gather"):
        iter(numbers)


def test_other_numbers_of_shards() -> None:
    """The same items."""
    parts = from_range(8, 2).repartition(3)
    assert parts.num_shards() == 3
    assert sorted(parts.gather_sync()) == list(range(8))
    again = from_range(9, 1).repartition(2, batch_ms=10).for_each(lambda n: -n)
    assert sorted(again.gather_async()) == sorted(-n for n in range(9))


def test_local_shuffles() -> None:
    """Each shard for itself, the same with one seed."""
    first, second = (
        list(from_range(40, 2).local_shuffle(10, seed=7).get_shard(1)) for _ in range(2)
    )
    assert first == second != sorted(first)
    assert sorted(first) == list(range(20, 40))


def test_unions() -> None:
    """Of shards, and of what is gathered."""
    both = from_range(3, 1).union(from_items(["a", "b"], 1).for_each(str.upper))
    assert sorted(map(str, both.gather_sync())) == ["0", "1", "2", "A", "B"]
    with pytest.raises(TypeError):
        both.union([1])
    with pytest.raises(ValueError, match="union"):
        both.select_shards([0])
    one, two = from_range(3, 1).gather_sync(), from_items(["a"], 1).gather_sync()
    assert list(one.union(two, deterministic=True)) == [0, "a", 1, 2]
    one, two = from_range(3, 1).gather_sync(), from_items(["a"], 1).gather_sync()
    assert sorted(map(str, one.union(two))) == ["0", "1", "2", "a"]
    one, two = from_range(4, 1).gather_sync(), from_items(["a", "b"], 1).gather_sync()
    assert list(one.union(two, round_robin_weights=[2, 1])) == [0, 1, "a", 2, 3, "b"]


def test_copies() -> None:
    """Each has all items."""
    first, second = from_range(5, 1).gather_sync().duplicate(2)
    found = list(first.union(second, deterministic=False))
    assert sorted(found) == sorted([*range(5)] * 2)
    with pytest.raises(ValueError, match=">= 2"):
        from_range(5, 1).gather_sync().duplicate(1)


def test_actors_of_ones_own() -> None:
    """Subclasses of the worker."""

    @ray.remote(num_cpus=0)
    class Source(ParallelIteratorWorker):
        def __init__(self, start):
            super().__init__(range(start, start + 3), False)

    found = from_actors([Source.remote(0), Source.remote(10)])
    assert list(found.gather_sync()) == [0, 10, 1, 11, 2, 12]


def test_which_actor_an_item_is_of() -> None:
    """Known of what is gathered as it is ready."""
    pairs = list(from_range(4, 2).gather_async().zip_with_source_actor())
    assert sorted(item for _, item in pairs) == [0, 1, 2, 3]
    assert len({actor for actor, _ in pairs}) == 2
    with pytest.raises(ValueError, match="source actor"):
        next(from_range(4, 2).gather_sync().zip_with_source_actor())


def test_metrics_of_an_iterator() -> None:
    """Functions count in them, here."""

    def count(item):
        LocalIterator.get_metrics().counters["seen"] += 1
        return item, LocalIterator.get_metrics().counters["seen"]

    assert from_range(3, 1).gather_sync().for_each(count).take(3) == [(0, 1), (1, 2), (2, 3)]


def test_iterators_are_passed_on() -> None:
    """A shard can be read in a task."""

    @ray.remote(num_cpus=0)
    def read(shard):
        return list(shard)

    shards = from_range(6, 2).for_each(lambda n: n + 1).shards()
    assert ray.get([read.remote(one) for one in shards]) == [[1, 2, 3], [4, 5, 6]]


def test_names() -> None:
    """What they say of themselves."""
    assert repr(from_range(4, 2)) == "ParallelIterator[from_range[4, shards=2]]"
    named = from_items([1], 1).for_each(abs).batch(2).gather_sync()
    assert repr(named) == (
        "LocalIterator[ParallelIterator[from_items[int, 1, shards=1].for_each().batch(2)]"
        ".gather_sync()]"
    )


def test_errors_come_through() -> None:
    """What a function raises in an actor."""
    with pytest.raises(ZeroDivisionError):
        list(from_range(3, 1).for_each(lambda n: 1 // n).gather_sync())


class Counter:
    def __init__(self, start=0):
        self.total = start

    def add(self, number):
        self.total += number
        return self.total

    def sleep(self, seconds):
        time.sleep(seconds)


def test_groups_call_all_their_actors() -> None:
    """With the arguments of the constructor that were given."""
    group = ActorGroup(Counter, num_actors=3, num_cpus_per_actor=0, init_args=(10,))
    assert len(group) == 3
    assert ray.get(group.add.remote(2)) == [12] * 3
    with pytest.raises(TypeError, match="cannot be called directly"):
        group.add(1)
    group.add_actors(1)
    assert ray.get(group.add.remote(1)) == [13, 13, 13, 11]
    group.remove_actors([0])
    assert ray.get(group.add.remote(1)) == [14, 14, 12]
    assert ray.get(group[2].actor.add.remote(0)) == 12
    group.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        group.add.remote(1)
    group.start()
    with pytest.raises(RuntimeError, match="already"):
        group.start()
    assert ray.get(group.add.remote(1)) == [11] * 3
    group.shutdown(patience_s=0)


def test_wrong_groups() -> None:
    """None, or negative numbers."""
    with pytest.raises(ValueError, match="num_actors"):
        ActorGroup(Counter, num_actors=0)
    with pytest.raises(ValueError, match="negative"):
        ActorGroup(Counter, num_cpus_per_actor=-1)
