"""The contract of joblib's backends, and what goes to the cluster how often."""

from __future__ import annotations

import multiprocessing
import os
import time

import joblib
import numpy as np
import pytest
from joblib import Parallel, delayed, parallel_config

import zray
from tests.api.conftest import eventually, objects
from tests.util.executors.functions import fail_at, nap, square
from zray.util.joblib import register_zray

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(autouse=True)
def _backend():
    register_zray()
    with parallel_config("zray", n_jobs=2):
        yield


def test_results_come_as_a_generator() -> None:
    values = Parallel(return_as="generator")(delayed(square)(x) for x in range(20))
    assert next(values) == 0
    assert [*values] == [x * x for x in range(1, 20)]


def test_results_come_as_they_are_there() -> None:
    calls = [delayed(nap)(seconds, seconds) for seconds in (1.0, 0.01)]
    values = Parallel(return_as="generator_unordered", batch_size=1)(calls)
    assert next(values) == 0.01
    assert [*values] == [1.0]


@pytest.mark.filterwarnings("ignore:.*still being processed by the workers")
def test_a_generator_that_nobody_finishes() -> None:
    values = Parallel(return_as="generator")(delayed(nap)(0.05) for _ in range(100))
    next(values)
    del values
    assert Parallel()(delayed(square)(x) for x in range(3)) == [0, 1, 4]


def test_a_timeout() -> None:
    with pytest.raises(multiprocessing.TimeoutError):
        Parallel(timeout=0.3, batch_size=1)(delayed(nap)(20.0) for _ in range(2))
    assert Parallel()(delayed(square)(x) for x in range(3)) == [0, 1, 4]


def test_calls_are_read_as_others_end() -> None:
    read = []

    def calls():
        for i in range(400):
            read.append(i)
            yield delayed(nap)(0.01, i)

    values = Parallel(return_as="generator", batch_size=1, pre_dispatch=4)(calls())
    assert next(values) == 0
    assert len(read) < 100
    assert [*values] == [*range(1, 400)]


def test_an_error_ends_what_runs() -> None:
    began = time.monotonic()
    with pytest.raises(ValueError, match="1"):
        Parallel(batch_size=1)([delayed(nap)(60.0), delayed(fail_at)(1, 1)])
    assert time.monotonic() - began < 20
    assert Parallel()(delayed(square)(x) for x in range(3)) == [0, 1, 4]


def test_a_worker_that_dies_is_an_error() -> None:
    with pytest.raises(zray.errors.WorkerPoolBrokenError):
        Parallel()(delayed(os._exit)(3) for _ in range(2))
    assert Parallel()(delayed(square)(x) for x in range(3)) == [0, 1, 4]


def test_a_large_array_goes_to_the_cluster_once(monkeypatch) -> None:
    import zray.util.joblib.backend as backend

    put, times = backend.put, []
    monkeypatch.setattr(backend, "put", lambda value: (times.append(value), put(value))[1])
    array = np.arange(1_000_000)
    before = objects()
    calls = (delayed(_pick)(array, [array, 1], key=(array,), i=i) for i in range(100))
    assert Parallel(batch_size=3)(calls) == [3 * i for i in range(100)]
    assert len(times) == 1
    eventually(lambda: objects() <= before)


def _pick(array, arrays, *, key, i):
    return int(array[i] + arrays[0][i] + key[0][i])


def test_arrays_are_not_shared_where_that_is_not_wanted() -> None:
    array = np.arange(100_000)
    calls = (delayed(_pick)(array, [array], key=[array], i=i) for i in range(5))
    assert Parallel(max_nbytes=None)(calls) == [0, 3, 6, 9, 12]


def test_nested_calls_run_on_the_cluster_up_to_a_depth() -> None:
    names = Parallel()(delayed(_backends)(3) for _ in range(2))[0]
    assert names == ["ZrayBackend", "ZrayBackend", "SequentialBackend"]


def _backends(depth):
    own = type(joblib.parallel.get_active_backend()[0]).__name__
    if depth == 1:
        return [own]
    return [own, *Parallel(n_jobs=2)(delayed(_backends)(depth - 1) for _ in range(2))[0]]


def test_jobs_are_counted_as_joblib_does() -> None:
    assert joblib.effective_n_jobs(-1) == 2
    assert joblib.effective_n_jobs(-2) == 1
    assert joblib.effective_n_jobs(5) == 5
    with pytest.raises(ValueError, match="n_jobs == 0"):
        joblib.effective_n_jobs(0)


def test_threads_inside_of_calls() -> None:
    with parallel_config("zray", n_jobs=2, inner_max_num_threads=3):
        found = Parallel()(delayed(os.getenv)("OMP_NUM_THREADS") for _ in range(4))
    assert found == ["3"] * 4


def test_options_of_the_tasks() -> None:
    options = {"runtime_env": {"env_vars": {"MARK": "yes"}}}
    with parallel_config("zray", n_jobs=2, ray_remote_args=options):
        assert Parallel()(delayed(os.getenv)("MARK") for _ in range(3)) == ["yes"] * 3


def test_ten_thousand_calls() -> None:
    assert Parallel()(delayed(square)(x) for x in range(10_000)) == [x * x for x in range(10_000)]
