"""Contracts of scheduling strategies: on one node, by labels, spread out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray
from ray.util.scheduling_strategies import (
    DoesNotExist,
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
)

OnNode = NodeAffinitySchedulingStrategy
OnLabels = NodeLabelSchedulingStrategy


@pytest.fixture(scope="module", autouse=True)
def labelled() -> Iterator[None]:
    """A cluster of one node with two CPUs and labels."""
    ray.init(num_cpus=2, include_dashboard=False, labels={"region": "us", "tier": "a"})
    yield
    ray.shutdown()


@pytest.fixture
def here() -> str:
    return ray.get_runtime_context().get_node_id()


@pytest.fixture
def nowhere(here) -> str:
    """The id of a node that is not there."""
    return ("0" if here[0] != "0" else "1") + here[1:]


@ray.remote
def where():
    return ray.get_runtime_context().get_node_id()


@ray.remote
class Actor:
    def where(self):
        return ray.get_runtime_context().get_node_id()


def runs(strategy, **options) -> bool:
    """Whether a task with the strategy runs soon."""
    ref = where.options(scheduling_strategy=strategy, **options).remote()
    ready, _ = ray.wait([ref], timeout=2)
    if not ready:
        ray.cancel(ref)
    return bool(ready)


# ---- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["DEFAULT", "SPREAD"])
def test_by_name(here, strategy):
    """DEFAULT and SPREAD are names of strategies."""
    assert ray.get(where.options(scheduling_strategy=strategy).remote()) == here
    actor = Actor.options(scheduling_strategy=strategy).remote()
    assert ray.get(actor.where.remote()) == here


def test_in_the_decorator(here):
    """A strategy can be said with the function."""

    @ray.remote(scheduling_strategy=OnNode(here, soft=False))
    def fixed():
        return ray.get_runtime_context().get_node_id()

    assert ray.get(fixed.remote()) == here


@pytest.mark.parametrize("strategy", ["TIGHT", "", "spread"])
def test_no_such_name(strategy):
    """Other names are refused."""
    with pytest.raises(ValueError):
        where.options(scheduling_strategy=strategy).remote()


@pytest.mark.parametrize("strategy", [1, ["SPREAD"], object()])
def test_no_strategy(strategy):
    """What is no strategy is refused."""
    with pytest.raises((TypeError, ValueError)):
        where.options(scheduling_strategy=strategy).remote()


# ---- on one node ---------------------------------------------------------------------------------


@pytest.mark.parametrize("soft", [False, True])
def test_on_a_node(here, soft):
    """A task and an actor run on the node that is named."""
    strategy = OnNode(here, soft=soft)
    assert ray.get(where.options(scheduling_strategy=strategy).remote()) == here
    assert ray.get(Actor.options(scheduling_strategy=strategy).remote().where.remote()) == here


def test_softly_on_a_node_that_is_not_there(here, nowhere):
    """soft=True runs elsewhere where there is no such node."""
    strategy = OnNode(nowhere, soft=True)
    assert ray.get(where.options(scheduling_strategy=strategy).remote(), timeout=20) == here
    actor = Actor.options(scheduling_strategy=strategy).remote()
    assert ray.get(actor.where.remote(), timeout=20) == here


def test_a_task_on_a_node_that_is_not_there(nowhere):
    """soft=False ends the task with an error then."""
    ref = where.options(scheduling_strategy=OnNode(nowhere, soft=False)).remote()
    with pytest.raises(ray.exceptions.TaskUnschedulableError):
        ray.get(ref, timeout=20)


def test_an_actor_on_a_node_that_is_not_there(nowhere):
    """And so it does the calls of an actor."""
    actor = Actor.options(scheduling_strategy=OnNode(nowhere, soft=False)).remote()
    with pytest.raises(ray.exceptions.ActorUnschedulableError):
        ray.get(actor.where.remote(), timeout=20)


def test_a_task_that_its_node_never_has(here):
    """A node that never has what a task needs is as one that is not there."""
    task = where.options(num_cpus=100, scheduling_strategy=OnNode(here, soft=False))
    with pytest.raises(ray.exceptions.TaskUnschedulableError):
        ray.get(task.remote(), timeout=20)


def test_waits_for_its_node(here):
    """A task whose node is full waits."""

    @ray.remote
    def sleep():
        import time

        time.sleep(1.5)

    busy = [sleep.remote() for _ in range(2)]
    ref = where.options(scheduling_strategy=OnNode(here, soft=False)).remote()
    assert ray.get(ref, timeout=20) == here
    ray.get(busy)


@pytest.mark.parametrize("node_id", ["abc", "", "zz" * 16, "node"])
def test_no_node_id(node_id):
    """What cannot be the id of a node is refused at once."""
    with pytest.raises(ValueError):
        OnNode(node_id, soft=False)


def test_spilling_needs_soft(here):
    """_spill_on_unavailable goes with soft=True alone."""
    with pytest.raises(ValueError):
        OnNode(here, soft=False, _spill_on_unavailable=True)


# ---- by labels -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hard",
    [
        {"region": In("us")},
        {"region": In("eu", "us")},
        {"region": NotIn("eu")},
        {"absent": NotIn("x")},
        {"region": Exists()},
        {"absent": DoesNotExist()},
        {"region": In("us"), "tier": Exists()},
    ],
)
def test_selects_by_labels(hard):
    """A task runs on a node that has the labels."""
    assert runs(OnLabels(hard=hard))


@pytest.mark.parametrize(
    "hard",
    [
        {"region": In("eu")},
        {"region": NotIn("us")},
        {"absent": Exists()},
        {"region": DoesNotExist()},
        {"region": In("us"), "tier": In("b")},
    ],
)
def test_does_not_select_by_labels(hard):
    """It waits where no node has them."""
    assert not runs(OnLabels(hard=hard))


def test_soft_labels_are_a_wish():
    """soft labels are for choosing among nodes that have the hard ones."""
    assert runs(OnLabels(hard={"region": In("us")}, soft={"tier": In("b")}))
    assert not runs(OnLabels(hard={"region": In("eu")}, soft={"tier": In("a")}))


def test_an_actor_by_labels(here):
    """An actor lives on a node that has the labels."""
    actor = Actor.options(scheduling_strategy=OnLabels(hard={"region": In("us")})).remote()
    assert ray.get(actor.where.remote(), timeout=20) == here


@pytest.mark.parametrize("hard", [{}, {"region": "us"}, {1: In("us")}, ["region"], {"region": In}])
def test_no_expressions(hard):
    """What are no expressions is refused at once."""
    with pytest.raises(ValueError):
        OnLabels(hard=hard)


@pytest.mark.parametrize("operator", [In, NotIn])
def test_operators_take_values(operator):
    """In and NotIn need a value."""
    with pytest.raises(ValueError):
        operator()


# ---- with other options --------------------------------------------------------------------------


def test_beside_a_selector(here):
    """A label selector counts beside a strategy."""
    task = where.options(scheduling_strategy="SPREAD", label_selector={"region": "us"})
    assert ray.get(task.remote(), timeout=20) == here


def test_every_node_has_its_id_as_a_label(here):
    """ray.io/node-id is a label of every node."""
    assert ray.nodes()[0]["Labels"]["ray.io/node-id"] == here
    task = where.options(label_selector={"ray.io/node-id": here})
    assert ray.get(task.remote(), timeout=20) == here


def test_an_accelerator_that_no_node_has():
    """accelerator_type= waits for a node that has one of the kind."""
    assert not runs("DEFAULT", accelerator_type="none-such")


def test_a_fallback(here):
    """fallback_strategy= counts where no node is selected."""
    fallbacks = [{"label_selector": {"region": "asia"}}, {"label_selector": {"region": "us"}}]
    task = where.options(label_selector={"region": "eu"}, fallback_strategy=fallbacks)
    assert ray.get(task.remote(), timeout=20) == here
