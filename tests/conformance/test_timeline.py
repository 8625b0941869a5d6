"""Contracts of the timeline of what has run."""

from __future__ import annotations

import json
import time

import pytest
import ray

from tests.conformance.functions import until

pytestmark = pytest.mark.usefixtures("cluster")


@ray.remote
def sleeps(seconds):
    time.sleep(seconds)
    return ray.get_runtime_context().get_worker_id()


@ray.remote
class Sleeper:
    def sleep(self, seconds):
        time.sleep(seconds)
        return ray.get_runtime_context().get_worker_id()


def events_of(category, count=1):
    """The events of tasks with that category, once there are so many."""
    found = []

    def there():
        found[:] = [event for event in ray.timeline() if event.get("cat") == category]
        return len(found) >= count

    until(there)
    return found


def test_a_task_that_has_run_is_a_complete_event() -> None:
    """Its category is its name, behind "task::"; ts and dur are microseconds."""
    before = time.time()
    worker = ray.get(sleeps.remote(0.2))
    after = time.time()

    event = events_of("task::sleeps")[-1]
    assert event["ph"] == "X" and event["name"].endswith("sleeps")
    assert before <= event["ts"] / 1e6 <= event["ts"] / 1e6 + 0.2 <= after
    assert 0.2e6 <= event["dur"] <= (after - before) * 1e6
    assert event["tid"] == f"worker:{worker}"


def test_its_row_is_of_its_node() -> None:
    """pid is the address of the node."""
    ray.get(sleeps.remote(0))

    nodes = {node["NodeManagerAddress"] for node in ray.nodes()}
    assert {event["pid"] for event in events_of("task::sleeps")} <= nodes


def test_it_names_the_task() -> None:
    """args has the task's id."""
    ref = sleeps.remote(0)
    ray.get(ref)

    def named():
        return any(
            event["args"].get("task_id") == ref.task_id().hex()
            for event in events_of("task::sleeps")
        )

    until(named)


def test_the_name_of_the_options_is_its_category() -> None:
    """options(name=...)"""
    ray.get(sleeps.options(name="a nap").remote(0))

    assert events_of("task::a nap")


def test_calls_of_actors_and_their_constructors_are_in_it() -> None:
    """With the class in the category, and the method as the name."""
    sleeper = Sleeper.remote()
    worker = ray.get(sleeper.sleep.remote(0.1))

    (made,) = events_of("task::Sleeper.__init__")
    (called,) = events_of("task::Sleeper.sleep")
    assert (made["name"], called["name"]) == ("__init__", "sleep")
    assert made["tid"] == called["tid"] == f"worker:{worker}"
    assert called["dur"] >= 0.1e6


def test_a_task_that_raises_is_in_it() -> None:
    """As others."""

    @ray.remote(max_retries=0)
    def fails():
        raise ValueError

    with pytest.raises(ValueError):
        ray.get(fails.remote())

    assert events_of("task::fails")


def test_it_is_written_to_a_file(tmp_path) -> None:
    """As JSON, and nothing is returned."""
    ray.get(sleeps.remote(0))
    count = len(events_of("task::sleeps"))

    assert ray.timeline(str(tmp_path / "trace.json")) is None

    written = json.loads((tmp_path / "trace.json").read_text())
    assert sum(event.get("cat") == "task::sleeps" for event in written) >= count


def test_it_needs_a_cluster(program) -> None:
    """Without one it is a RuntimeError."""
    done = program(
        """
        try:
            ray.timeline()
        except RuntimeError:
            print("refused")
        """
    )

    assert "refused" in done.stdout
