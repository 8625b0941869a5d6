"""Options of tasks: accepted, refused, and passed on."""

from __future__ import annotations

from typing import Any

import pytest

import zray

pytestmark = pytest.mark.usefixtures("cluster")


@zray.remote
def context() -> dict[str, Any]:
    found = zray.get_runtime_context()
    return {
        "name": found.get_task_name(),
        "resources": found.get_assigned_resources(),
        "attempt": found.get_attempt(),
    }


def test_defaults_and_overrides() -> None:
    assert zray.get(context.remote()) == {
        "name": "context",
        "resources": {"CPU": 1.0},
        "attempt": 1,
    }
    bound = context.options(num_cpus=0.5, name="other", memory=1000)
    expected = {"name": "other", "resources": {"CPU": 0.5, "memory": 1000.0}, "attempt": 1}
    assert zray.get([bound.remote(), bound.remote()]) == [expected] * 2
    assert zray.get(context.remote())["name"] == "context"


def test_options_of_the_decorator_stay() -> None:
    @zray.remote(num_cpus=2, num_returns=2)
    def pair() -> tuple[Any, Any]:
        return zray.get_runtime_context().get_assigned_resources(), None

    assert zray.get(pair.remote()[0]) == {"CPU": 2.0}
    assert zray.get(pair.options(num_cpus=0).remote()[0]) == {}
    assert zray.get(pair.options(num_cpus=None).remote()[0]) == {"CPU": 2.0}


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"num_cpu": 1}, ValueError, "Invalid option keyword 'num_cpu'.*did you mean 'num_cpus'"),
        ({"max_retry": 1}, ValueError, "did you mean 'max_retries'"),
        ({"xyzzy": 1}, ValueError, "Invalid option keyword 'xyzzy' for tasks"),
        ({"num_cpus": -1}, ValueError, "from 0"),
        ({"num_cpus": "1"}, TypeError, "must be a number"),
        ({"num_cpus": 0.00001}, ValueError, "granularity"),
        ({"num_gpus": 1.5}, ValueError, "whole number"),
        ({"num_gpus": float("nan")}, ValueError, "from 0"),
        ({"memory": -1}, ValueError, "from 0"),
        ({"resources": {"CPU": 1}}, ValueError, "Use the 'num_cpus' option"),
        ({"resources": {"GPU": 1}}, ValueError, "Use the 'num_gpus' option"),
        ({"resources": {"": 1}}, TypeError, "name of a resource"),
        ({"resources": {"x": -1}}, ValueError, "'x'"),
        ({"resources": [("x", 1)]}, TypeError, "must be a dict"),
        ({"num_returns": -1}, ValueError, "at least 0"),
        ({"num_returns": 1.0}, TypeError, "whole number"),
        ({"num_returns": True}, TypeError, "whole number"),
        ({"num_returns": "stream"}, ValueError, "'streaming' or 'dynamic'"),
        ({"_generator_backpressure_num_objects": 0}, ValueError, "is not allowed"),
        ({"max_retries": -2}, ValueError, "at least -1"),
        ({"max_retries": "3"}, TypeError, "whole number"),
        ({"retry_exceptions": ValueError}, TypeError, "a bool or a list"),
        ({"retry_exceptions": [5]}, TypeError, "exception classes"),
        ({"retry_exceptions": ["ValueError"]}, TypeError, "exception classes"),
        ({"name": "x" * 300}, ValueError, "at most 256 characters"),
        ({"name": 5}, TypeError, "name must be"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        context.options(**options)
    with pytest.raises(error, match=text):
        zray.remote(**options)
    with pytest.raises(error, match=text):
        zray.task(**options)


def test_runtime_context_of_the_driver() -> None:
    found = zray.get_runtime_context()
    (node,) = zray.nodes()
    assert found.get_node_id() == node["NodeID"]
    assert found.get_task_id() is None and found.get_task_name() is None
    assert found.get_attempt() == 0 and found.get_assigned_resources() == {}
    assert found.get_job_id() == found.get_worker_id() != ""
    assert found.gcs_address.startswith("127.0.0.1:")


def test_runtime_context_of_a_task() -> None:
    @zray.remote
    def ids() -> dict[str, Any]:
        found = zray.get_runtime_context()
        mine = {"worker": found.get_worker_id(), "name": found.get_node_name()}
        return {**found.get(), **mine}

    ref = ids.remote()
    found = zray.get(ref)
    driver = zray.get_runtime_context()
    assert found["job_id"] == driver.job_id and found["node_id"] == driver.node_id
    assert found["worker"] != driver.get_worker_id() and len(found["worker"]) == 32
    assert found["task_id"].hex() == ref.task_id().hex() and found["name"] == "head"


def test_attempts_are_numbered() -> None:
    @zray.remote(retry_exceptions=True)
    def third() -> int:
        attempt = zray.get_runtime_context().get_attempt()
        if attempt < 3:
            raise ValueError
        return attempt

    assert zray.get(third.remote()) == 3


def test_nodes() -> None:
    (node,) = zray.nodes()
    assert node["Alive"] and node["State"] == "ALIVE" and node["NodeName"] == "head"
    assert node["Resources"]["CPU"] == 2
    assert node["Labels"] == {"ray.io/node-id": node["NodeID"]}
    before = node["TasksFinished"]
    zray.get([context.remote() for _ in range(3)])
    assert zray.nodes()[0]["TasksFinished"] == before + 3
