"""What ``zray.util.dask`` does beyond the contracts of Ray's (tests/conformance)."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest

import zray
from tests.api.conftest import eventually, objects
from zray.util.dask import get, ray_dask_get_sync, ray_dask_persist

pytestmark = pytest.mark.usefixtures("cluster")


@dask.delayed
def inc(x):
    return x + 1


@dask.delayed
def fail(x):
    raise KeyError(x)


def test_one_task_after_the_other() -> None:
    assert inc(inc(1)).compute(scheduler=ray_dask_get_sync) == 3
    with pytest.raises(KeyError):
        fail("mine").compute(scheduler=ray_dask_get_sync)


def test_an_error_is_the_original_with_its_traceback_there() -> None:
    with pytest.raises(KeyError) as raised:
        inc(fail("mine")).compute(scheduler=get)
    assert type(raised.value) is KeyError
    assert "raise KeyError(x)" in str(raised.value.__cause__)


def test_a_plain_graph() -> None:
    graph = {"a": 1, "b": (sum, ["a", 2]), "c": "b", "d": [(sum, ["b", "c"])]}
    assert get(graph, ["c", ["d", "a"]]) == (3, ([6], 1))


def test_nothing_is_left_in_the_cluster() -> None:
    before = objects()
    array = da.ones((1000, 1000), chunks=(250, 250))
    assert float((array + array.T).sum().compute(scheduler=get)) == 2_000_000.0
    eventually(lambda: objects() <= before)


def test_what_is_persisted_stays_there_until_nobody_has_it() -> None:
    before = objects()
    (kept,) = ray_dask_persist(da.ones(100_000, chunks=25_000) + 1)
    assert all(isinstance(value, zray.ObjectRef) for value in kept.dask.values())
    assert float((kept * 2).sum().compute(scheduler=get)) == 400_000.0
    del kept
    eventually(lambda: objects() <= before)


def test_a_large_literal_goes_to_the_cluster_once() -> None:
    values = np.arange(200_000)
    array = da.from_array(values, chunks=50_000)
    assert int((array.sum() + array.max()).compute(scheduler=get)) == int(
        values.sum() + values.max()
    )


def test_tasks_have_the_names_of_their_keys() -> None:
    from zray.util.state import list_tasks

    inc(41).compute(scheduler=get)
    assert any(task.name == "dask:inc" for task in list_tasks(limit=10_000))


@pytest.mark.parametrize("key", ["k" * 1000, "line\nof \ud800", ("\x1b[31m", 1)])
def test_keys_that_no_name_can_have(key) -> None:
    assert get({key: (abs, -1), "b": (abs, key)}, "b") == 1


def test_options_of_layers() -> None:
    import os

    with dask.annotate(ray_remote_args={"runtime_env": {"env_vars": {"MARK": "yes"}}}):
        marked = dask.delayed(os.getenv)("MARK")
    with dask.config.set({"optimization.annotations.fuse": False}):
        found = dask.compute(marked, dask.delayed(os.getenv)("MARK"), scheduler=get)
    assert found == ("yes", None)


def test_a_chain_of_two_hundred() -> None:
    deep = inc(0)
    for _ in range(200):
        deep = inc(deep)
    assert deep.compute(scheduler=get, optimize_graph=False) == 201


def test_two_thousand_beside_each_other() -> None:
    assert sum(dask.compute(*[inc(x) for x in range(2000)], scheduler=get)) == 2_001_000
