"""Contracts of tqdm_ray's bars: what a program can do with them, wherever it runs."""

from __future__ import annotations

import pytest
import ray
from ray.experimental import tqdm_ray

pytestmark = pytest.mark.usefixtures("cluster")


def test_iterating_passes_everything_on() -> None:
    """Over a list, or what has no length."""
    assert list(tqdm_ray.tqdm([1, 2, 3], desc="list")) == [1, 2, 3]
    assert list(tqdm_ray.tqdm(iter("abc"))) == ["a", "b", "c"]


def test_counting_by_hand() -> None:
    """``update``, ``n``, ``total``, ``set_description``, ``refresh`` and ``close``."""
    bar = tqdm_ray.tqdm(desc="by hand", total=10, unit="rows", position=1)
    assert (bar.n, bar.total) == (0, 10)
    bar.update()
    bar.update(4)
    bar.set_description("otherwise")
    bar.refresh()
    assert bar.n == 5
    bar.n = 7
    bar.total = 20
    assert (bar.n, bar.total) == (7, 20)
    bar.close()


def test_the_total_is_the_length_if_there_is_one() -> None:
    """Else it is not known."""
    bars = [tqdm_ray.tqdm([1, 2]), tqdm_ray.tqdm(iter([1])), tqdm_ray.tqdm([1], total=5)]
    assert [bar.total for bar in bars] == [2, None, 5]
    for bar in bars:
        bar.close()


def test_without_anything_to_iterate_over() -> None:
    """It is a ValueError."""
    bar = tqdm_ray.tqdm(total=3)
    with pytest.raises(ValueError, match="No iterable"):
        list(bar)
    bar.close()


def test_in_tasks_and_actors() -> None:
    """The same."""

    @ray.remote
    def task(count):
        return sum(tqdm_ray.tqdm(range(count), desc="task"))

    @ray.remote
    class Actor:
        def work(self, count):
            return sum(tqdm_ray.tqdm(range(count), desc="actor", flush_interval_s=0.0))

    assert ray.get([task.remote(10), Actor.remote().work.remote(100)]) == [45, 4950]
