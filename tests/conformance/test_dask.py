"""Contracts of ``ray.util.dask``: Dask's graphs as tasks."""

from __future__ import annotations

import os
import time

import dask
import dask.array as da
import numpy as np
import pytest
from ray.util.dask import (
    disable_dask_on_ray,
    enable_dask_on_ray,
    ray_dask_get,
    ray_dask_persist,
)

pytestmark = pytest.mark.usefixtures("cluster")


@dask.delayed
def inc(x):
    return x + 1


@dask.delayed
def total(*values):
    return sum(values)


@dask.delayed
def fail(x):
    raise KeyError(x)


@dask.delayed
def pid():
    time.sleep(0.02)
    return os.getpid()


def test_a_delayed_call() -> None:
    """Gives its value."""
    assert inc(1).compute(scheduler=ray_dask_get) == 2


def test_calls_that_depend_on_calls() -> None:
    """As many as you like, and deep."""
    assert total(*[inc(x) for x in range(20)]).compute(scheduler=ray_dask_get) == 210
    deep = inc(0)
    for _ in range(30):
        deep = inc(deep)
    assert deep.compute(scheduler=ray_dask_get) == 31


def test_calls_run_elsewhere() -> None:
    """Not in the program's own process."""
    assert os.getpid() not in dask.compute(*[pid() for _ in range(5)], scheduler=ray_dask_get)


def test_several_values_at_once() -> None:
    """In the structure in which they were asked for."""
    found = dask.compute(inc(1), [inc(2), inc(inc(3))], {"a": inc(5)}, scheduler=ray_dask_get)
    assert found == (2, [3, 5], {"a": 6})


def test_calls_in_lists_and_dicts_as_arguments() -> None:
    """They are values when the call runs."""

    @dask.delayed
    def look(things):
        return things["a"][0] + things["b"]

    things = {"a": [inc(1)], "b": inc(2)}
    assert look(things).compute(scheduler=ray_dask_get) == 5


def test_an_error_is_of_its_own_type() -> None:
    """Also where another call needs its result."""
    with pytest.raises(KeyError):
        total(inc(1), fail("mine")).compute(scheduler=ray_dask_get)
    assert inc(2).compute(scheduler=ray_dask_get) == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.sum(),
        lambda x: (x @ x.T).mean(axis=0),
        lambda x: (x + x.T)[::3, 5:9],
        lambda x: x.rechunk((25, 100)).std(axis=1),
        lambda x: da.linalg.norm(x),
    ],
)
def test_arrays(make) -> None:
    """Give what numpy gives."""
    values = np.random.default_rng(1).random((100, 100))
    array = da.from_array(values, chunks=(30, 40))
    found = make(array).compute(scheduler=ray_dask_get)
    assert np.allclose(found, make(array).compute(scheduler="sync"))


def test_large_blocks() -> None:
    """They go from task to task."""
    array = da.ones((2000, 2000), chunks=(1000, 1000)) * 3
    assert float((array + array).sum().compute(scheduler=ray_dask_get)) == 24_000_000.0


def test_enabled_for_a_block() -> None:
    """Then it is Dask's scheduler, and not any more after it."""
    with enable_dask_on_ray():
        assert pid().compute() != os.getpid()
        assert dask.config.get("scheduler") is ray_dask_get
    assert pid().compute(scheduler="sync") == os.getpid()
    assert dask.config.get("scheduler", None) is not ray_dask_get


def test_enabled_until_it_is_disabled() -> None:
    """As a call."""
    enable_dask_on_ray()
    try:
        assert pid().compute() != os.getpid()
    finally:
        disable_dask_on_ray()
    assert dask.config.get("scheduler", None) is None


def test_ray_remote_args() -> None:
    """They are options of the tasks."""

    @dask.delayed
    def marked():
        return os.environ["MARK"]

    options = {"runtime_env": {"env_vars": {"MARK": "yes"}}}
    assert marked().compute(scheduler=ray_dask_get, ray_remote_args=options) == "yes"


def test_resources_have_another_name() -> None:
    """And are refused."""
    with pytest.raises(ValueError, match="ray_remote_args"):
        inc(1).compute(scheduler=ray_dask_get, resources={"a": 1})


def test_the_result_of_one_in_another() -> None:
    """What was persisted is used again."""
    array = da.ones(1000, chunks=100)
    with enable_dask_on_ray():
        (kept,) = ray_dask_persist(array + 1)
        assert float((kept + kept).sum().compute()) == 4000.0


def test_from_several_threads() -> None:
    """At the same time."""
    from concurrent.futures import ThreadPoolExecutor

    def work(start):
        calls = [inc(x) for x in range(start, start + 5)]
        return total(*calls).compute(scheduler=ray_dask_get)

    with ThreadPoolExecutor(4) as threads:
        assert [*threads.map(work, range(4))] == [15 + 5 * x for x in range(4)]
