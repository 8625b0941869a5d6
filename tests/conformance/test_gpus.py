"""Contracts of GPUs: which ones tasks get to see. Nothing here needs a real one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy


@pytest.fixture(scope="module", autouse=True)
def preset() -> Iterator[None]:
    """A cluster with two GPUs, which are the fifth and seventh of a machine."""
    os.environ["CUDA_VISIBLE_DEVICES"] = "4,6"
    ray.init(num_cpus=4, num_gpus=2, include_dashboard=False)
    yield
    ray.shutdown()
    del os.environ["CUDA_VISIBLE_DEVICES"]


@ray.remote(num_gpus=1, max_calls=0)
def see():
    import time

    time.sleep(0.2)
    return os.environ["CUDA_VISIBLE_DEVICES"], ray.get_gpu_ids(), os.getpid()


def test_tasks_see_what_was_preset() -> None:
    """With ``CUDA_VISIBLE_DEVICES`` set for the node, its tasks get of these, each another one."""
    found = ray.get([see.remote(), see.remote()])
    assert sorted(seen for seen, _, _ in found) == ["4", "6"]
    assert sorted(str(ids[0]) for _, ids, _ in found) == ["4", "6"]


def test_several_for_one_task() -> None:
    """All of them, and ``get_gpu_ids()`` in the same order."""
    seen, ids, _ = ray.get(see.options(num_gpus=2).remote())
    assert seen.split(",") == [*map(str, ids)]
    assert {*map(str, ids)} == {"4", "6"}


def test_a_part_of_one() -> None:
    """Several tasks share it."""
    found = ray.get([see.options(num_gpus=0.5).remote() for _ in range(2)])
    assert {seen for seen, _, _ in found} <= {"4", "6"}


def test_actors_see_theirs() -> None:
    """For as long as they live."""

    @ray.remote(num_gpus=1)
    class Seeing:
        def see(self):
            return os.environ["CUDA_VISIBLE_DEVICES"]

        def accelerators(self):
            return ray.get_runtime_context().get_accelerator_ids()["GPU"]

    actors = [Seeing.remote() for _ in range(2)]
    assert sorted(ray.get([actor.see.remote() for actor in actors])) == ["4", "6"]
    assert sorted(ray.get([actor.accelerators.remote() for actor in actors])) == [["4"], ["6"]]


def test_ids_of_a_task_without() -> None:
    """It has none."""

    @ray.remote
    def ids():
        return ray.get_gpu_ids()

    assert ray.get(ids.remote()) == []


def test_a_function_with_gpus_has_a_process_for_each_call() -> None:
    """As if it had ``max_calls=1``: so the memory of the GPU is free afterwards."""

    @ray.remote(num_gpus=1)
    def f():
        return os.getpid()

    assert len({ray.get(f.remote()) for _ in range(4)}) == 4


def test_unless_it_says_otherwise() -> None:
    """``max_calls=0``: a process may go on."""
    pids = [ray.get(see.remote())[2] for _ in range(6)]
    assert len(set(pids)) < 6


def test_gpus_are_in_the_resources() -> None:
    """``cluster_resources()`` has them."""
    assert ray.cluster_resources()["GPU"] == 2.0


def test_bundles_have_gpus_of_their_own() -> None:
    """Tasks in a bundle see its GPU, each time the same, and none of another bundle."""
    group = ray.util.placement_group([{"CPU": 1, "GPU": 1}, {"CPU": 1, "GPU": 1}])
    assert group.wait(30)
    strategy = PlacementGroupSchedulingStrategy
    tasks = [see.options(scheduling_strategy=strategy(group, index)) for index in (0, 1)]
    first = [seen for seen, _, _ in ray.get([task.remote() for task in tasks])]
    again = [seen for seen, _, _ in ray.get([task.remote() for task in tasks])]
    assert sorted(first) == ["4", "6"] and again == first
    ray.util.remove_placement_group(group)


def test_a_bundle_may_have_a_part_of_one() -> None:
    """Two bundles of half a GPU see one that they have a part of."""
    group = ray.util.placement_group([{"CPU": 1, "GPU": 0.5}] * 2)
    assert group.wait(30)
    strategy = PlacementGroupSchedulingStrategy
    tasks = [
        see.options(num_gpus=0.5, scheduling_strategy=strategy(group, index)) for index in (0, 1)
    ]
    found = [seen for seen, _, _ in ray.get([task.remote() for task in tasks], timeout=30)]
    assert {*found} <= {"4", "6"}
    ray.util.remove_placement_group(group)


@ray.remote
class Half:
    """Keeps a part of a GPU."""

    def see(self):
        return os.environ["CUDA_VISIBLE_DEVICES"]

    def share(self):
        return ray.get_runtime_context().get_assigned_resources()["GPU"]


def test_halves_of_a_gpu() -> None:
    """Four at a time on two GPUs: two see each, and nobody two."""
    halves = [Half.options(num_gpus=0.5).remote() for _ in range(4)]
    seen = ray.get([half.see.remote() for half in halves])
    assert sorted(seen) == ["4", "4", "6", "6"]
    assert ray.get([half.share.remote() for half in halves]) == [0.5] * 4
    assert ray.available_resources().get("GPU", 0) == 0


def test_a_task_in_a_task_sees_its_own() -> None:
    """Another GPU than the one that its caller keeps."""

    @ray.remote(num_gpus=1)
    def outer():
        inner = ray.get(see.remote())
        return os.environ["CUDA_VISIBLE_DEVICES"], inner[0]

    assert sorted(ray.get(outer.remote())) == ["4", "6"]


def test_a_task_without_gpus_in_one_that_has_them_sees_none() -> None:
    """What its caller sees is not handed down."""

    @ray.remote(num_gpus=0)
    def inner(callers):
        return os.environ.get("CUDA_VISIBLE_DEVICES") == callers, ray.get_gpu_ids()

    @ray.remote(num_gpus=1)
    def outer():
        return ray.get(inner.remote(os.environ["CUDA_VISIBLE_DEVICES"]))

    assert ray.get(outer.remote()) == (False, [])
