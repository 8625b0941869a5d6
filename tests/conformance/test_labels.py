"""Contracts of labels: what nodes have, and which of them tasks and actors select by them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray

from tests.conformance.functions import same


@pytest.fixture(scope="module", autouse=True)
def labelled() -> Iterator[None]:
    """A cluster of one node with two CPUs and labels."""
    ray.init(num_cpus=2, include_dashboard=False, labels={"region": "us", "example.com/tier": "a"})
    yield
    ray.shutdown()


@ray.remote
class Actor:
    def region(self):
        return ray.get_runtime_context().get_node_labels()["region"]


SELECTING = [
    {"region": "us"},
    {"region": "in(us)"},
    {"region": "in(eu,us)"},
    {"region": "!eu"},
    {"region": "!in(eu,asia)"},
    {"absent": "!x"},
    {"absent": "!in(x,y)"},
    {"region": "us", "example.com/tier": "a"},
    {"example.com/tier": "!b", "region": "in(us)"},
    {},
]
NOT_SELECTING = [
    {"region": "eu"},
    {"region": "in(eu,asia)"},
    {"region": "!us"},
    {"region": "!in(us,eu)"},
    {"absent": "x"},
    {"absent": "in(x,y)"},
    {"region": "us", "example.com/tier": "b"},
    {"Region": "us"},
    {"region": "US"},
]


def waits(ref: ray.ObjectRef) -> bool:
    """Whether nothing becomes of it for a while."""
    ready, _ = ray.wait([ref], timeout=1)
    ray.cancel(ref)
    return not ready


# ---- labels of nodes -------------------------------------------------------------------------


def test_a_node_has_the_labels_that_it_was_started_with() -> None:
    """``nodes()`` has them under ``Labels``."""
    (node,) = ray.nodes()
    assert node["Labels"]["region"] == "us"
    assert node["Labels"]["example.com/tier"] == "a"


def test_a_node_has_its_id_as_a_label() -> None:
    """``ray.io/node-id`` is the node's id in hexadecimal."""
    (node,) = ray.nodes()
    assert node["Labels"]["ray.io/node-id"] == node["NodeID"]


def test_the_context_has_the_labels_of_the_node() -> None:
    """``get_node_labels()`` of a driver and of a task on the node are those of ``nodes()``."""

    @ray.remote
    def found():
        return ray.get_runtime_context().get_node_labels()

    (node,) = ray.nodes()
    assert ray.get_runtime_context().get_node_labels() == node["Labels"]
    assert ray.get(found.remote()) == node["Labels"]


# ---- selectors -------------------------------------------------------------------------------


@pytest.mark.parametrize("selector", SELECTING)
def test_a_task_runs_where_its_selector_agrees(selector) -> None:
    """``a``, ``!a``, ``in(a,b)``, ``!in(a,b)``; a label that is not there is any other value."""
    assert ray.get(same.options(label_selector=selector).remote(1), timeout=20) == 1


@pytest.mark.parametrize("selector", NOT_SELECTING)
def test_a_task_waits_while_no_node_is_selected(selector) -> None:
    """All of a selector has to agree, and case matters."""
    assert waits(same.options(label_selector=selector).remote(1))


def test_a_decorator_has_the_selector() -> None:
    """``@ray.remote(label_selector=...)`` is for every call, unless ``options`` has another."""

    @ray.remote(label_selector={"region": "eu"})
    def f():
        return 1

    assert waits(f.remote())
    assert ray.get(f.options(label_selector={"region": "us"}).remote(), timeout=20) == 1


def test_a_task_selects_a_node_by_its_id() -> None:
    """``ray.io/node-id`` can be selected as other labels can."""
    (node,) = ray.nodes()
    here = same.options(label_selector={"ray.io/node-id": node["NodeID"]})
    elsewhere = same.options(label_selector={"ray.io/node-id": "!" + node["NodeID"]})

    assert ray.get(here.remote(1), timeout=20) == 1
    assert waits(elsewhere.remote(1))


def test_a_selector_and_resources_are_needed_both() -> None:
    """A node that is selected and lacks a resource is none."""
    chosen = same.options(label_selector={"region": "us"}, resources={"absent": 1})
    assert waits(chosen.remote(1))


def test_a_task_of_a_task_selects_as_well() -> None:
    """Selectors count for tasks that tasks submit."""

    @ray.remote(num_cpus=0)
    def outer():
        good = same.options(label_selector={"region": "us"}).remote(1)
        bad = same.options(label_selector={"region": "eu"}).remote(1)
        ready, left = ray.wait([good, bad], num_returns=2, timeout=2)
        ray.cancel(bad)
        return len(ready), len(left)

    assert ray.get(outer.remote(), timeout=30) == (1, 1)


def test_many_tasks_with_a_selector() -> None:
    """They run as others do."""
    chosen = same.options(label_selector={"region": "us"})
    assert ray.get([chosen.remote(i) for i in range(200)], timeout=60) == [*range(200)]


@pytest.mark.parametrize("selector", [{"region": "us"}, {"region": "!eu"}, {"region": "in(us,eu)"}])
def test_an_actor_lives_where_its_selector_agrees(selector) -> None:
    """The same for actors."""
    actor = Actor.options(label_selector=selector).remote()
    assert ray.get(actor.region.remote(), timeout=20) == "us"


def test_an_actor_waits_while_no_node_is_selected() -> None:
    """Its calls wait with it."""
    actor = Actor.options(label_selector={"region": "eu"}).remote()
    assert ray.wait([actor.region.remote()], timeout=1)[0] == []
    ray.kill(actor)


# ---- fallbacks -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fallbacks",
    [
        [{"label_selector": {"region": "us"}}],
        [{"label_selector": {"region": "asia"}}, {"label_selector": {"region": "us"}}],
        [{"label_selector": {"region": "!eu"}}],
        [{"label_selector": {}}],
    ],
)
def test_a_fallback_counts_where_no_node_is_selected(fallbacks) -> None:
    """``fallback_strategy`` is a list of options that are tried in order."""
    chosen = same.options(label_selector={"region": "eu"}, fallback_strategy=fallbacks)
    assert ray.get(chosen.remote(1), timeout=20) == 1


def test_fallbacks_that_select_nothing_either() -> None:
    """The task waits."""
    fallbacks = [{"label_selector": {"region": "asia"}}]
    chosen = same.options(label_selector={"region": "eu"}, fallback_strategy=fallbacks)
    assert waits(chosen.remote(1))


def test_an_actor_has_fallbacks() -> None:
    """The same for actors."""
    fallbacks = [{"label_selector": {"region": "us"}}]
    actor = Actor.options(label_selector={"region": "eu"}, fallback_strategy=fallbacks).remote()
    assert ray.get(actor.region.remote(), timeout=20) == "us"


# ---- what may be said ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "selector",
    [
        {"region": "-us"},
        {"region": "us_"},
        {"region": "in()"},
        {"region": "in(us,"},
        {"region": "in(us,!eu)"},
        {"region": "!!us"},
        {"region": "x" * 64},
        {"-region": "us"},
        {"re gion": "us"},
        {"example..com/": "us"},
        {"x" * 64: "us"},
    ],
)
def test_a_selector_that_cannot_be(selector) -> None:
    """It is a ValueError at once, of tasks and of actors."""
    with pytest.raises(ValueError):
        same.options(label_selector=selector).remote(1)
    with pytest.raises(ValueError):
        Actor.options(label_selector=selector).remote()


@pytest.mark.parametrize(
    "fallbacks",
    [
        [{}],
        [1],
        [{"num_cpus": 1}],
        [{"label_selector": {"region": "us"}, "memory": 1}],
        [{"label_selector": {"region": "-us"}}],
        [{"label_selector": "us"}],
    ],
)
def test_fallbacks_that_cannot_be(fallbacks) -> None:
    """Of Ray's options there is ``label_selector``; anything else is a ValueError at once."""
    with pytest.raises(ValueError):
        same.options(fallback_strategy=fallbacks).remote(1)


@pytest.mark.parametrize(
    ("option", "value"),
    [("label_selector", 1), ("label_selector", "region=us"), ("fallback_strategy", {})],
)
def test_another_type(option, value) -> None:
    """A selector is a dict, and fallbacks are a list; anything else is a TypeError at once."""
    with pytest.raises(TypeError):
        same.options(**{option: value}).remote(1)
