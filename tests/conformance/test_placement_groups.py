"""Contracts of placement groups: made, waited for, found, used by tasks and actors, removed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray.util import (
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as InGroup

from tests.conformance.functions import until

pytestmark = pytest.mark.usefixtures("cluster")
Bundles = list[dict[str, float]]


@ray.remote
def where() -> dict[str, Any]:
    """What a task knows of where it runs."""
    context = ray.get_runtime_context()
    group = get_current_placement_group()
    return {
        "group": context.get_placement_group_id(),
        "current": group.id.hex() if group is not None else None,
        "specs": group.bundle_specs if group is not None else None,
        "resources": context.get_assigned_resources(),
        "captures": context.should_capture_child_tasks_in_placement_group,
    }


@ray.remote(num_cpus=0)
def child() -> dict[str, Any]:
    return ray.get(where.options(num_cpus=0).remote())


@ray.remote
class Actor:
    def where(self) -> Any:
        return ray.get_runtime_context().get_placement_group_id()

    def child(self) -> Any:
        return ray.get(where.options(num_cpus=0).remote())

    def sleep(self) -> None:
        time.sleep(100)


@ray.remote
def sleep(seconds: float = 100) -> None:
    time.sleep(seconds)


@pytest.fixture
def made() -> Iterator[Any]:
    """Makes groups that are gone after the test."""
    groups = []

    def make(bundles: Bundles | None = None, **options: Any) -> PlacementGroup:
        group = placement_group(bundles or [{"CPU": 1}, {"CPU": 1}], **options)
        groups.append(group)
        return group

    yield make
    for group in groups:
        remove_placement_group(group)
    until(lambda: ray.available_resources().get("CPU") == 4)


def free() -> float:
    return ray.available_resources().get("CPU", 0)


# ---- made ----------------------------------------------------------------------------------------


def test_waits_until_it_is_there(made):
    """wait() says that all bundles are reserved."""
    assert made().wait(30) is True


def test_ready_gives_the_group(made):
    """ready() is a reference whose value is the group."""
    group = made()
    assert ray.get(group.ready(), timeout=30) == group


def test_takes_its_resources_of_the_node(made):
    """What is reserved is not available to others."""
    assert made([{"CPU": 3}]).wait(30)
    until(lambda: free() == 1)


def test_gives_them_back(made):
    """A removed group's resources are available again."""
    group = made([{"CPU": 3}])
    assert group.wait(30)
    remove_placement_group(group)
    until(lambda: free() == 4)


def test_a_part_of_a_resource(made):
    """Amounts need not be whole."""
    assert made([{"CPU": 0.5}, {"CPU": 0.25}]).wait(30)


def test_does_not_fit(made):
    """One that no node has room for is not there, and wait says so in time."""
    group = made([{"CPU": 100}])
    start = time.monotonic()
    assert group.wait(1) is False
    assert time.monotonic() - start < 10
    assert placement_group_table(group)["state"] == "PENDING"


def test_all_or_none(made):
    """Where one bundle finds no place, none is reserved."""
    assert made([{"CPU": 1}, {"CPU": 100}]).wait(1) is False
    assert free() == 4


def test_waits_for_room(made):
    """It is there once others give back what it needs."""
    first, second = made([{"CPU": 4}]), made([{"CPU": 4}])
    assert first.wait(30) and not second.wait(0.5)
    remove_placement_group(first)
    assert second.wait(30)


def test_strict_spread_needs_nodes(made):
    """STRICT_SPREAD does not put two bundles on one node."""
    assert made(strategy="STRICT_SPREAD").wait(1) is False


@pytest.mark.parametrize("strategy", ["PACK", "SPREAD", "STRICT_PACK"])
def test_other_strategies_fit_one_node(made, strategy):
    """All others put two bundles on one node if there is one."""
    assert made(strategy=strategy).wait(30)


@pytest.mark.parametrize(
    "bundles",
    [
        *([], [{}], [{"CPU": 0}], {"CPU": 1}, [1], [{1: 1}], [{"CPU": "a"}], [{"CPU": 1}, {}]),
        None,
    ],
)
def test_no_bundles(bundles):
    """What are no bundles is refused at once."""
    with pytest.raises(ValueError):
        placement_group(bundles)


def test_no_such_strategy():
    """An unknown strategy is refused."""
    with pytest.raises(ValueError, match="Invalid placement group strategy"):
        placement_group([{"CPU": 1}], strategy="TIGHT")


def test_no_such_lifetime():
    """A lifetime is "detached" or None."""
    with pytest.raises(ValueError, match="lifetime"):
        placement_group([{"CPU": 1}], lifetime="long")


def test_selectors_are_of_each_bundle():
    """There are as many selectors as bundles."""
    with pytest.raises(ValueError, match="length"):
        placement_group([{"CPU": 1}], bundle_label_selector=[{"a": "b"}, {"a": "b"}])


def test_a_selector_that_is_none():
    """A selector is checked."""
    with pytest.raises(ValueError):
        placement_group([{"CPU": 1}], bundle_label_selector=[{"a": "b!"}])


def test_a_selector_that_no_node_has(made):
    """A bundle waits for a node with its labels."""
    assert made([{"CPU": 1}], bundle_label_selector=[{"a": "b"}]).wait(1) is False


def test_a_selector_that_all_nodes_have(made):
    """A bundle is on a node that its selector selects."""
    assert made([{"CPU": 1}], bundle_label_selector=[{"a": "!b"}]).wait(30)


# ---- handles -------------------------------------------------------------------------------------


def test_says_what_it_has(made):
    """A handle knows its bundles."""
    group = made([{"CPU": 1}, {"CPU": 2}])
    assert group.bundle_specs == [{"CPU": 1}, {"CPU": 2}] and group.bundle_count == 2
    assert not group.is_empty


def test_empty():
    """There is a handle that stands for no group."""
    assert PlacementGroup.empty().is_empty


def test_equal_and_hashable(made):
    """Handles of one group are equal, those of two are not."""
    first, second = made([{"CPU": 1}]), made([{"CPU": 1}])
    again = ray.get(first.ready(), timeout=30)
    assert again == first and hash(again) == hash(first) and first != second


def test_goes_to_tasks(made):
    """A handle can be an argument, and its methods work there."""

    @ray.remote
    def waits(group: PlacementGroup) -> Any:
        return group.wait(10), group.bundle_specs

    assert ray.get(waits.remote(made([{"CPU": 1}]))) == (True, [{"CPU": 1}])


# ---- names ---------------------------------------------------------------------------------------


def test_is_found_by_its_name(made):
    """get_placement_group finds a group by its name."""
    group = made([{"CPU": 1}], name="found")
    found = get_placement_group("found")
    assert found == group and found.bundle_specs == [{"CPU": 1}]


@pytest.mark.parametrize("name", ["nobody", ""])
def test_is_not_found(name):
    """No group of that name is a ValueError."""
    with pytest.raises(ValueError):
        get_placement_group(name)


def test_a_name_is_taken(made):
    """Two groups cannot have one name."""
    made([{"CPU": 1}], name="taken")
    with pytest.raises(Exception, match="already exists"):
        placement_group([{"CPU": 1}], name="taken")


def test_a_name_is_free_again(made):
    """A removed group's name is free."""
    remove_placement_group(made([{"CPU": 1}], name="again"))
    with pytest.raises(ValueError):
        get_placement_group("again")
    assert made([{"CPU": 1}], name="again").wait(30)


# ---- table ---------------------------------------------------------------------------------------


def test_table_of_one(made):
    """The table has a group's name, bundles, nodes, strategy and state."""
    group = made([{"CPU": 1}, {"CPU": 2}], name="listed", strategy="SPREAD")
    assert group.wait(30)
    entry = placement_group_table(group)
    node = ray.get_runtime_context().get_node_id()
    assert entry["placement_group_id"] == group.id.hex() and entry["name"] == "listed"
    assert entry["bundles"] == {0: {"CPU": 1}, 1: {"CPU": 2}}
    assert entry["bundles_to_node_id"] == {0: node, 1: node}
    assert entry["strategy"] == "SPREAD" and entry["state"] == "CREATED" and "stats" in entry


def test_table_of_all(made):
    """Without a group the table has all, by their ids."""
    first, second = made([{"CPU": 1}]), made([{"CPU": 100}])
    assert first.wait(30)
    table = placement_group_table()
    assert table[first.id.hex()]["state"] == "CREATED"
    assert table[second.id.hex()]["state"] == "PENDING"


def test_table_of_removed(made):
    """A removed group is still known."""
    group = made([{"CPU": 1}])
    remove_placement_group(group)
    until(lambda: placement_group_table(group)["state"] == "REMOVED")


# ---- tasks ---------------------------------------------------------------------------------------


def test_a_task_runs_in_the_group(made):
    """A task with the strategy runs in the group, and knows."""
    group = made()
    found = ray.get(where.options(scheduling_strategy=InGroup(group)).remote(), timeout=30)
    assert found["group"] == found["current"] == group.id.hex()
    assert found["specs"] == group.bundle_specs and found["resources"] == {"CPU": 1}


@pytest.mark.parametrize("index", [-1, 0, 1])
def test_in_a_bundle(made, index):
    """A task can say which bundle; -1 is any."""
    strategy = InGroup(made(), placement_group_bundle_index=index)
    assert ray.get(where.options(scheduling_strategy=strategy).remote(), timeout=30)["group"]


def test_by_the_older_options(made):
    """placement_group= and placement_group_bundle_index= do the same."""
    group = made()
    task = where.options(placement_group=group, placement_group_bundle_index=1)
    assert ray.get(task.remote(), timeout=30)["group"] == group.id.hex()


def test_not_in_a_group():
    """Other tasks and drivers are in no group."""
    assert get_current_placement_group() is None
    found = ray.get(where.remote())
    assert found["group"] is None and found["current"] is None and not found["captures"]


@pytest.mark.parametrize(
    "options", [{"scheduling_strategy": InGroup(None)}, {"placement_group": None}]
)
def test_no_group(options):
    """None stands for no group."""
    assert ray.get(where.options(**options).remote())["group"] is None


def test_both_ways_at_once(made):
    """The older option and a strategy together are refused."""
    with pytest.raises(ValueError, match="scheduling_strategy"):
        where.options(placement_group=made(), scheduling_strategy="SPREAD").remote()


@pytest.mark.parametrize("index", [2, -2])
def test_no_such_bundle(made, index):
    """An index beyond the bundles is refused."""
    with pytest.raises(ValueError, match="index"):
        where.options(scheduling_strategy=InGroup(made(), index)).remote()


@pytest.mark.parametrize("options", [{"num_cpus": 2}, {"resources": {"x": 1}}, {"num_gpus": 1}])
def test_does_not_fit_into_a_bundle(made, options):
    """A task that no bundle can ever have is refused at once."""
    with pytest.raises(ValueError, match="cannot fit into any bundles"):
        where.options(**options, scheduling_strategy=InGroup(made())).remote()


def test_waits_for_the_group(made):
    """A task in a group that is not there yet waits, and runs once it is."""
    first = made([{"CPU": 4}])
    assert first.wait(30)
    second = made([{"CPU": 2}])
    ref = where.options(scheduling_strategy=InGroup(second)).remote()
    assert not ray.wait([ref], timeout=1)[0]
    remove_placement_group(first)
    assert ray.get(ref, timeout=30)["group"] == second.id.hex()


def test_has_no_more_than_its_bundle(made):
    """Tasks in a bundle wait for one another where it is full, whatever else is free."""
    strategy = InGroup(made([{"CPU": 1}]), 0)
    refs = [sleep.options(scheduling_strategy=strategy).remote(1) for _ in range(2)]
    ready, _ = ray.wait(refs, num_returns=2, timeout=1.7)
    assert len(ready) < 2
    ray.get(refs, timeout=30)


def test_is_not_in_the_way_of_others(made):
    """A full cluster has room in a reserved bundle."""
    group = made([{"CPU": 1}])
    assert group.wait(30)
    others = [Actor.options(num_cpus=1).remote() for _ in range(3)]
    ray.get([other.where.remote() for other in others], timeout=30)
    until(lambda: free() == 0)
    task = where.options(scheduling_strategy=InGroup(group)).remote()
    assert ray.get(task, timeout=30)["group"] == group.id.hex()
    for other in others:
        ray.kill(other)


# ---- what tasks submit ---------------------------------------------------------------------------


def test_children_are_not_captured(made):
    """What a task in a group submits is not in the group."""
    found = ray.get(child.options(scheduling_strategy=InGroup(made())).remote(), timeout=30)
    assert found["group"] is None


def test_children_are_captured(made):
    """With placement_group_capture_child_tasks it is, and so on."""
    group = made()
    strategy = InGroup(group, placement_group_capture_child_tasks=True)
    found = ray.get(child.options(scheduling_strategy=strategy).remote(), timeout=30)
    assert found["group"] == group.id.hex() and found["captures"]


def test_a_child_may_leave(made):
    """A captured task's child can say that it is in no group."""

    @ray.remote(num_cpus=0)
    def leaves() -> Any:
        return ray.get(where.options(num_cpus=0, scheduling_strategy=InGroup(None)).remote())

    strategy = InGroup(made(), placement_group_capture_child_tasks=True)
    found = ray.get(leaves.options(scheduling_strategy=strategy).remote(), timeout=30)
    assert found["group"] is None


def test_a_waiting_task_lends_its_cpu_in_the_bundle(made):
    """A child in the same bundle runs while its parent waits for it."""

    @ray.remote
    def parent() -> Any:
        return ray.get(where.remote())

    strategy = InGroup(made([{"CPU": 1}]), placement_group_capture_child_tasks=True)
    assert ray.get(parent.options(scheduling_strategy=strategy).remote(), timeout=30)["group"]


# ---- actors --------------------------------------------------------------------------------------


def test_an_actor_lives_in_the_group(made):
    """An actor with the strategy lives in the group."""
    group = made()
    actor = Actor.options(num_cpus=1, scheduling_strategy=InGroup(group, 1)).remote()
    assert ray.get(actor.where.remote(), timeout=30) == group.id.hex()


def test_its_calls_submit_into_the_group(made):
    """What its methods submit is captured where it says so."""
    group = made()
    for captures in (True, False):
        strategy = InGroup(group, placement_group_capture_child_tasks=captures)
        actor = Actor.options(scheduling_strategy=strategy).remote()
        found = ray.get(actor.child.remote(), timeout=30)
        assert found["group"] == (group.id.hex() if captures else None)


def test_actors_fill_a_bundle(made):
    """An actor keeps its part of the bundle."""
    strategy = InGroup(made([{"CPU": 1}]))
    first = Actor.options(num_cpus=1, scheduling_strategy=strategy).remote()
    ray.get(first.where.remote(), timeout=30)
    second = Actor.options(num_cpus=1, scheduling_strategy=strategy).remote()
    call = second.where.remote()
    assert not ray.wait([call], timeout=1)[0]
    ray.kill(first)
    ray.get(call, timeout=30)


# ---- removed -------------------------------------------------------------------------------------


def test_removing_twice(made):
    """A group that is gone can be removed again."""
    group = made()
    remove_placement_group(group)
    remove_placement_group(group)


def test_ready_of_a_removed_group(made):
    """ready() of a group that is removed is an error of its own."""
    group = made([{"CPU": 100}])
    before = group.ready()
    remove_placement_group(group)
    for ref in (before, group.ready()):
        with pytest.raises(ray.exceptions.TaskPlacementGroupRemoved):
            ray.get(ref, timeout=30)


def test_waiting_for_a_removed_group(made):
    """wait() of a removed group raises."""
    group = made()
    remove_placement_group(group)
    until(lambda: placement_group_table(group)["state"] == "REMOVED")
    with pytest.raises(Exception, match="does not exist"):
        group.wait(5)


def test_a_task_that_waits_in_a_removed_group(made):
    """A task that has not started ends."""
    strategy = InGroup(made([{"CPU": 1}]))
    runs = sleep.options(max_retries=0, scheduling_strategy=strategy).remote()
    waits = sleep.options(max_retries=0, scheduling_strategy=strategy).remote()
    assert not ray.wait([runs], timeout=2)[0]
    remove_placement_group(strategy.placement_group)
    with pytest.raises(ray.exceptions.TaskPlacementGroupRemoved):
        ray.get(waits, timeout=30)
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(runs, timeout=30)


def test_an_actor_in_a_removed_group(made):
    """An actor ends with its group."""
    group = made()
    actor = Actor.options(num_cpus=1, scheduling_strategy=InGroup(group)).remote()
    ray.get(actor.where.remote(), timeout=30)
    call = actor.sleep.remote()
    remove_placement_group(group)
    with pytest.raises(ray.exceptions.RayActorError, match="placement group"):
        ray.get(call, timeout=30)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(actor.where.remote(), timeout=30)


# ---- lifetimes -----------------------------------------------------------------------------------

PROGRAM = """
    import subprocess
    from ray.util import get_placement_group, placement_group, placement_group_table
    other = "; ".join([
        "import ray, sys",
        "from ray.util import placement_group",
        "ray.init(address=sys.argv[1], namespace='shared')",
        "assert placement_group([{'CPU': 1}], name='left', lifetime=LIFETIME).wait(30)",
    ])
    context = ray.init(num_cpus=2, include_dashboard=False, namespace="shared")
    address = context.address_info["gcs_address"]
    subprocess.run([sys.executable, "-c", other.replace("LIFETIME", %r), address], check=True)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and ray.available_resources()["CPU"] < 2:
        time.sleep(0.1)
    try:
        print(placement_group_table(get_placement_group("left"))["state"])
    except ValueError:
        print("gone")
"""


def test_goes_with_its_program(program):
    """A group goes with the program that made it."""
    assert "gone" in program(PROGRAM % "None").stdout


def test_outlives_its_program(program):
    """A detached one does not."""
    assert "CREATED" in program(PROGRAM % "'detached'").stdout
