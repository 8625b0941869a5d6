"""Contracts of ``max_calls``: how often one worker process runs a function."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest
import ray

pytestmark = pytest.mark.usefixtures("cluster")


@ray.remote(max_calls=1)
def once():
    return os.getpid()


def test_one_call_in_each_process() -> None:
    """``max_calls=1``: each call has a process of its own."""
    pids = [ray.get(once.remote()) for _ in range(5)]
    assert len(set(pids)) == 5


def test_one_call_in_each_process_of_many_at_once() -> None:
    """Also when they are submitted together."""
    pids = ray.get([once.remote() for _ in range(12)])
    assert len(set(pids)) == 12


def test_some_calls_in_each_process() -> None:
    """``max_calls=3``: no process runs it more often."""

    @ray.remote(max_calls=3)
    def f():
        return os.getpid()

    assert max(Counter(ray.get(f.remote()) for _ in range(12)).values()) <= 3
    assert max(Counter(ray.get([f.remote() for _ in range(24)])).values()) <= 3


def test_calls_are_counted_by_function() -> None:
    """Others may run in that process as often as they like."""

    @ray.remote(max_calls=1000)
    def f():
        return os.getpid()

    @ray.remote
    def g():
        return os.getpid()

    assert len(ray.get([f.remote() for _ in range(20)])) == 20
    assert len(ray.get([g.remote() for _ in range(20)])) == 20


def test_a_call_that_raises_counts() -> None:
    """Whatever becomes of it, the process has run it."""

    @ray.remote(max_calls=1)
    def f():
        raise ValueError(os.getpid())

    pids = set()
    for _ in range(4):
        with pytest.raises(ValueError) as raised:
            ray.get(f.remote())
        pids.add(str(raised.value).splitlines()[-1])
    assert len(pids) == 4


def test_results_outlive_the_process() -> None:
    """Small and large ones."""

    @ray.remote(max_calls=1)
    def f(size):
        return np.ones(size)

    refs = [f.remote(10), f.remote(1_000_000)]
    ray.get(once.remote())
    assert [ray.get(ref).sum() for ref in refs] == [10, 1_000_000]


def test_results_as_arguments_of_each_other() -> None:
    """A chain of such tasks."""

    @ray.remote(max_calls=1)
    def add(x):
        return x + 1

    ref = ray.put(0)
    for _ in range(6):
        ref = add.remote(ref)
    assert ray.get(ref) == 6


def test_tasks_of_tasks() -> None:
    """It counts for tasks that tasks submit, too, and for their parents."""

    @ray.remote(max_calls=1)
    def outer():
        return [os.getpid(), *(ray.get(once.remote()) for _ in range(3))]

    pids = ray.get(outer.remote()) + ray.get(outer.remote())
    assert len(set(pids)) == 8


def test_retries() -> None:
    """A call that ends its process runs again in another."""

    @ray.remote(max_calls=1, max_retries=3)
    def f(path):
        with open(path, "a+") as file:
            file.write("x")
            file.seek(0)
            if len(file.read()) < 3:
                file.flush()
                os._exit(1)
        return 1

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        assert ray.get(f.remote(f"{folder}/runs"), timeout=30) == 1


def test_zero_is_no_limit() -> None:
    """``max_calls=0``: a process may go on."""

    @ray.remote(max_calls=0)
    def f():
        return os.getpid()

    ray.get([f.remote() for _ in range(4)])
    assert len({ray.get(f.remote()) for _ in range(20)}) < 20


def test_options_do_not_take_it() -> None:
    """It belongs to the decorator: in ``options`` it is a ValueError."""
    with pytest.raises(ValueError, match="max_calls"):
        once.options(max_calls=2)


@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), ("1", TypeError), (1.5, TypeError)])
def test_values_that_cannot_be(value, error) -> None:
    """A whole number from 0."""
    with pytest.raises(error):
        ray.remote(max_calls=value)(lambda: 1)


def test_actors_have_none() -> None:
    """An actor class with ``max_calls`` is refused."""
    with pytest.raises(ValueError):
        ray.remote(max_calls=1)(type("C", (), {}))
