"""Contracts of the small utilities: as_completed, map_unordered, log_once, the node's address."""

from __future__ import annotations

import ipaddress
import time

import pytest
import ray
from ray.util import as_completed, get_node_instance_id, get_node_ip_address, map_unordered

from .functions import fail, same, slow

pytestmark = pytest.mark.usefixtures("cluster")


def test_as_completed_gives_all_values() -> None:
    """Of any number of references, none included."""
    assert sorted(as_completed([same.remote(n) for n in range(25)])) == list(range(25))
    assert list(as_completed([])) == []


def test_as_completed_gives_first_what_is_there_first() -> None:
    """With chunks of one."""
    refs = [slow.remote(2, "late"), slow.remote(0, "early")]
    assert list(as_completed(refs, chunk_size=1)) == ["early", "late"]


def test_as_completed_waits_for_a_whole_chunk() -> None:
    """By default for ten, so that a few come in their order."""
    refs = [slow.remote(0.5, "first"), slow.remote(0, "second")]
    assert list(as_completed(refs)) == ["first", "second"]


def test_as_completed_gives_references() -> None:
    """With ``yield_obj_refs``: those that were given."""
    refs = [same.remote(n) for n in range(3)]
    assert set(as_completed(refs, yield_obj_refs=True)) == set(refs)


def test_as_completed_raises_in_the_place_of_a_value() -> None:
    """A task's error."""
    with pytest.raises(ValueError, match="failed"):
        list(as_completed([fail.remote()]))
    assert len(list(as_completed([fail.remote()], yield_obj_refs=True))) == 1


def test_wrong_arguments() -> None:
    """A chunk has at least one, and num_returns is not the caller's."""
    with pytest.raises(ValueError, match="chunk_size"):
        next(as_completed([same.remote(1)], chunk_size=0))
    with pytest.raises(ValueError, match="num_returns"):
        next(as_completed([same.remote(1)], num_returns=1))
    with pytest.raises(ValueError, match="chunk_size"):
        next(map_unordered(same, [1], chunk_size=0))
    with pytest.raises(ValueError, match="num_returns"):
        next(map_unordered(same, [1], num_returns=1))
    with pytest.raises(ValueError, match="backpressure_size"):
        next(map_unordered(same, [1], backpressure_size=0))


def test_map_unordered_gives_all_results() -> None:
    """Of more items than may be in flight."""
    assert sorted(map_unordered(same, range(30), backpressure_size=4, chunk_size=2)) == list(
        range(30)
    )
    assert list(map_unordered(same, [])) == []
    assert sorted(map_unordered(same, iter("abc"), backpressure_size=None)) == ["a", "b", "c"]


def test_map_unordered_asks_for_no_more_items_than_it_may() -> None:
    """Items are taken as tasks end, so an endless source is fine."""
    taken = []

    def source():
        while True:
            taken.append(len(taken))
            yield taken[-1]

    results = map_unordered(same, source(), backpressure_size=3, chunk_size=1)
    assert next(results) in range(3)
    assert len(taken) == 3
    next(results)
    assert len(taken) == 4


def test_map_unordered_of_an_actors_method() -> None:
    """Whatever has ``remote``."""

    @ray.remote(num_cpus=0)
    class Adder:
        def add(self, value):
            return value + 1

    adder = Adder.remote()
    assert sorted(map_unordered(adder.add, [1, 2, 3])) == [2, 3, 4]


def test_log_once(program) -> None:
    """True once for each key; never after it was disabled."""
    done = program(
        """
        from ray.util import disable_log_once_globally, enable_periodic_logging, log_once
        print([log_once(key) for key in ("a", "a", "b", "a")])
        from ray.util.debug import reset_log_once
        reset_log_once("a")
        print(log_once("a"), log_once("b"))
        reset_log_once()
        print(log_once("a"), log_once("b"))
        enable_periodic_logging()
        print(log_once("a"))
        disable_log_once_globally()
        print(log_once("new"))
        """
    )
    assert done.stdout.splitlines() == [
        "[True, False, True, False]",
        "True False",
        "True True",
        "False",
        "False",
    ]


def test_log_once_makes_keys_new_after_a_minute(program) -> None:
    """With periodic logging: the call that finds the minute over is False, the next is True."""
    done = program(
        """
        from ray.util import enable_periodic_logging, log_once
        log_once("a")
        enable_periodic_logging()
        late = time.monotonic() + 100, time.time() + 100
        time.monotonic, time.time = (lambda: late[0]), (lambda: late[1])
        print(log_once("a"), log_once("a"), log_once("a"))
        """
    )
    assert done.stdout.splitlines() == ["False True False"]


def test_the_nodes_address() -> None:
    """An address, the same for the tasks of a machine."""

    @ray.remote
    def ask():
        return get_node_ip_address()

    ipaddress.ip_address(get_node_ip_address())
    assert ray.get(ask.remote()) == get_node_ip_address()


def test_the_instances_name(monkeypatch) -> None:
    """What the launcher has set, else empty."""
    monkeypatch.delenv("RAY_CLOUD_INSTANCE_ID", raising=False)
    assert get_node_instance_id() == ""
    monkeypatch.setenv("RAY_CLOUD_INSTANCE_ID", "i-123")
    assert get_node_instance_id() == "i-123"


def test_as_completed_is_lazy() -> None:
    """Values are yielded before the last ones are there."""
    refs = [slow.remote(0, 1), slow.remote(20, 2)]
    began = time.monotonic()
    assert next(as_completed(refs, chunk_size=1)) == 1
    assert time.monotonic() - began < 10
    ray.cancel(refs[1], force=True)
