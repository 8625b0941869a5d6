"""Contracts of ``ray.util.joblib``: joblib, and scikit-learn above it."""

from __future__ import annotations

import os
import time

import joblib
import numpy as np
import pytest
from joblib import Parallel, delayed, parallel_config
from ray.util.joblib import register_ray

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(autouse=True)
def _backend():
    """All tests have it as joblib's backend."""
    register_ray()
    with parallel_config("ray"):
        yield


def square(x):
    return x * x


def pid(*_):
    time.sleep(0.02)
    return os.getpid()


def fail_at_three(x):
    if x == 3:
        raise ValueError(f"not {x}")
    return x


def nested(count):
    return sum(Parallel(n_jobs=2)(delayed(square)(x) for x in range(count)))


@pytest.mark.parametrize("n_jobs", [1, 2, 4, -1])
@pytest.mark.parametrize("count", [0, 1, 10, 200])
def test_results_come_in_order(n_jobs, count) -> None:
    """For any number of jobs and calls."""
    found = Parallel(n_jobs=n_jobs)(delayed(square)(x) for x in range(count))
    assert found == [x * x for x in range(count)]


def test_calls_run_in_other_processes() -> None:
    """In as many as there are jobs, at most."""
    pids = Parallel(n_jobs=2, batch_size=1)(delayed(pid)(x) for x in range(30))
    assert os.getpid() not in pids
    assert 1 <= len(set(pids)) <= 4


def test_all_cpus() -> None:
    """-1 are those of the cluster."""
    assert joblib.effective_n_jobs(-1) == 4


def test_an_error_is_of_its_own_type() -> None:
    """And the next calls work."""
    with pytest.raises(ValueError, match="not 3"):
        Parallel(n_jobs=2)(delayed(fail_at_three)(x) for x in range(6))
    assert Parallel(n_jobs=2)(delayed(square)(x) for x in range(3)) == [0, 1, 4]


@pytest.mark.parametrize("batch_size", ["auto", 1, 7])
def test_batches(batch_size) -> None:
    """Their size changes no result."""
    found = Parallel(n_jobs=2, batch_size=batch_size)(delayed(square)(x) for x in range(50))
    assert found == [x * x for x in range(50)]


def test_a_parallel_that_is_kept_open() -> None:
    """It may be called again and again."""
    with Parallel(n_jobs=2) as parallel:
        for _ in range(3):
            assert parallel(delayed(square)(x) for x in range(5)) == [0, 1, 4, 9, 16]


def test_large_arrays_as_arguments() -> None:
    """By position, by name, and the same one for each call."""
    array = np.arange(500_000, dtype=float)

    def at(array, i, *, other):
        return float(array[i] + other[i])

    found = Parallel(n_jobs=2)(delayed(at)(array, i, other=array) for i in range(40))
    assert found == [2.0 * i for i in range(40)]


def test_large_results() -> None:
    """Arrays come back."""
    found = Parallel(n_jobs=2)(delayed(np.full)(200_000, float(i)) for i in range(4))
    assert [float(array[-1]) for array in found] == [0.0, 1.0, 2.0, 3.0]


def test_lambdas_and_closures() -> None:
    """Functions need not be importable."""
    offset = 3
    assert Parallel(n_jobs=2)(delayed(lambda x: x + offset)(x) for x in range(3)) == [3, 4, 5]


def test_parallel_calls_in_one_another() -> None:
    """They end, and give what they should."""
    assert Parallel(n_jobs=2)(delayed(nested)(4) for _ in range(6)) == [14] * 6


def test_grid_search_on_digits() -> None:
    """scikit-learn finds the same as without."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    data, target = load_digits(return_X_y=True)
    data, target = data[:400], target[:400]
    grid = {"C": [0.01, 1, 10], "gamma": [0.0005, 0.01]}
    search = GridSearchCV(SVC(), grid, cv=3, n_jobs=2).fit(data, target)
    with parallel_config("sequential"):
        alone = GridSearchCV(SVC(), grid, cv=3, n_jobs=1).fit(data, target)
    assert search.best_params_ == alone.best_params_
    assert search.best_score_ == alone.best_score_
    assert np.allclose(search.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"])


def test_a_forest_on_digits() -> None:
    """An estimator with ``n_jobs`` learns the same as without."""
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier

    data, target = load_digits(return_X_y=True)
    with parallel_config("ray", n_jobs=2):
        forest = RandomForestClassifier(20, random_state=1).fit(data, target)
    alone = RandomForestClassifier(20, random_state=1).fit(data, target)
    assert (forest.predict(data) == alone.predict(data)).all()
