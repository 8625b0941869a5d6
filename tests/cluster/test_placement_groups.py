"""Placement groups on several nodes: where bundles are, and what becomes of them when nodes go."""

from __future__ import annotations

import time
from typing import Any

import pytest

import zray
from zray.util import (
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from zray.util.placement_group import PlacementGroup
from zray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as InGroup


def where() -> Any:
    """A function of its own for workers, which cannot import this module."""

    @zray.task(num_cpus=0)
    def node() -> str:
        return str(zray.get_runtime_context().get_node_name())

    return node


def start(bare: Any, *names: str) -> dict[str, Any]:
    bare.start_head()
    found = {
        name: bare.start_node(name, 2, "--labels", f"name={name}", wait=False) for name in names
    }
    for name in names:
        bare.await_node(name)
    bare.connect()
    return found


def places(group: PlacementGroup) -> list[str]:
    """The node of each bundle, as tasks in them say."""
    tasks = [
        where().options(scheduling_strategy=InGroup(group, i))
        for i in range(len(group.bundle_specs))
    ]
    return list(zray.get([task.remote() for task in tasks], timeout=30))


def state(group: PlacementGroup) -> str:
    return str(placement_group_table(group)["state"])


def free(bare: Any) -> int:
    """CPUs that are reserved by nobody."""
    return sum(dict(node.available).get("CPU", 0) for node in bare.status().nodes) // 10_000


def test_each_strategy_puts_its_bundles_where_it_says(bare: Any) -> None:
    start(bare, "a", "b", "c")
    ones: list[dict[str, float]] = [{"CPU": 1}, {"CPU": 1}]

    def of(strategy: str, bundles: Any = ones, **options: Any) -> list[str]:
        group = placement_group(bundles, strategy, **options)
        assert group.wait(20)
        found = places(group)
        remove_placement_group(group)
        bare.until(lambda: free(bare) == 6, 10, "all is free again")
        return found

    assert len(set(of("STRICT_SPREAD"))) == 2 and len(set(of("SPREAD"))) == 2
    assert len(set(of("PACK"))) == 1 and len(set(of("STRICT_PACK"))) == 1
    assert len(set(of("SPREAD", [{"CPU": 1}] * 6))) == 3
    assert len(set(of("PACK", [{"CPU": 1}] * 4))) == 2
    selectors = [{"name": "c"}, {"name": "!c"}]
    first, second = of("SPREAD", bundle_label_selector=selectors)
    assert first == "c" and second != "c"
    apart = placement_group([{"CPU": 1}] * 4, "STRICT_SPREAD")
    assert not apart.wait(0.5)
    assert "STRICT_SPREAD" in placement_group_table(apart)["reason"]
    bare.start_node("d", 2)
    assert apart.wait(20) and len(set(places(apart))) == 4


def test_bundles_of_a_dead_node_are_placed_again(bare: Any) -> None:
    nodes = start(bare, "a", "b", "c")
    group = placement_group([{"CPU": 2}, {"CPU": 2}], "STRICT_SPREAD")
    assert group.wait(20)

    @zray.actor(max_restarts=1)
    class Actor:
        def node(self) -> str:
            return str(zray.get_runtime_context().get_node_name())

    strategies = [InGroup(group, index) for index in range(2)]
    actors = [Actor.options(num_cpus=1, scheduling_strategy=one).remote() for one in strategies]
    first, second = zray.get([actor.node.remote() for actor in actors], timeout=20)
    node = where().options(num_cpus=1, scheduling_strategy=strategies[0])
    nodes[first].kill()
    bare.until(lambda: bare.node(first) is None, 10, "its death is noticed")
    assert group.wait(20)
    third = zray.get(node.remote(), timeout=30)
    assert third not in (first, second)
    assert places(group) == [third, second]
    bare.until(lambda: _node_of(actors[0]) == third, 20, "the actor is there again")
    assert zray.get(actors[1].node.remote(), timeout=20) == second


def _node_of(actor: Any) -> str:
    try:
        return str(zray.get(actor.node.remote(), timeout=20))
    except zray.errors.ActorError:
        return ""


def test_groups_outlive_a_head(bare: Any) -> None:
    head = bare.start_head()
    bare.start_node("a", 2)
    bare.connect()
    there, waits = placement_group([{"CPU": 1}], name="there"), placement_group([{"CPU": 2}])
    assert there.wait(20) and not waits.wait(0.2)

    @zray.task
    def slow() -> str:
        time.sleep(3)
        return "done"

    ref = slow.options(scheduling_strategy=InGroup(there)).remote()
    bare.until(lambda: bare.node("a").running == 1, 10, "it runs")
    head.kill()
    bare.start_head(port=-1)
    assert zray.get(ref, timeout=40) == "done"
    assert state(there) == "CREATED" and places(there) == ["a"]
    assert not waits.wait(0.2)
    remove_placement_group(there)
    assert waits.wait(20) and places(waits) == ["a"]


def test_a_group_is_made_while_tasks_take_all_that_becomes_free(bare: Any) -> None:
    start(bare, "a", "b")

    @zray.task
    def short() -> None:
        time.sleep(0.01)

    refs = [short.remote() for _ in range(1500)]
    zray.wait(refs, num_returns=50, timeout=20)
    group = placement_group([{"CPU": 2}])
    assert group.wait(20)
    assert zray.wait(refs, num_returns=len(refs), timeout=0)[1]  # there was no end of them yet
    remove_placement_group(group)
    zray.get(refs, timeout=60)


def test_a_group_says_what_it_waits_for(bare: Any) -> None:
    start(bare, "a")
    too_much = placement_group([{"CPU": 1}, {"CPU": 3}])
    assert "bundle 1 needs CPU 3" in placement_group_table(too_much)["reason"]
    assert "has CPU 2" in placement_group_table(too_much)["reason"]
    absent = placement_group([{"CPU": 1}], bundle_label_selector=[{"name": "z"}])
    assert "name=z" in placement_group_table(absent)["reason"]
    assert placement_group([{"CPU": 2}]).wait(20)
    ref = where().options(scheduling_strategy=InGroup(too_much)).remote()
    with pytest.raises(zray.errors.GetTimeoutError, match="placement group"):
        zray.get(ref, timeout=0.5)


def test_gpus_that_are_free_only_in_pieces_are_passed_over(bare: Any) -> None:
    bare.start_head()
    bare.start_node("a", 2, "--num-gpus", "2")
    bare.connect()

    @zray.actor
    class Holder:
        def gpus(self) -> Any:
            return zray.get_runtime_context().get_accelerator_ids()["GPU"]

    holders = [Holder.options(num_cpus=0, num_gpus=0.6).remote() for _ in range(2)]
    assert sorted(zray.get([one.gpus.remote() for one in holders], timeout=30)) == [["0"], ["1"]]
    bare.start_node("b", 2, "--num-gpus", "4")
    group = placement_group([{"GPU": 0.8}])  # a has 0.8, but of no one GPU
    assert group.wait(20) and places(group) == ["b"]


def test_what_is_no_group_is_refused_at_once(bare: Any) -> None:
    start(bare, "a")
    for wrong in ("group", None, 5):
        with pytest.raises(TypeError, match="no placement group"):
            remove_placement_group(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no placement group"):
        placement_group_table("group")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be a string"):
        get_placement_group(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="UTF-8"):
        get_placement_group("\ud800")
    for amounts in ({"": 1}, {"GPU": 1.5}, {"CPU": 10**400}, {"CPU": float("nan")}):
        with pytest.raises(ValueError):
            placement_group([amounts])
    with pytest.raises(ValueError, match="Failed to look up"):
        get_placement_group("\x1b[31m\u202e")
