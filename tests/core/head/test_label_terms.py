"""Which nodes get tasks with selectors of labels, as nodes come and go."""

from __future__ import annotations

from zray.core import labels, resources
from zray.core.head.label_terms import LabelTerms
from zray.core.head.task_records import NodeView
from zray.core.resources import Needs

CPU: list[tuple[str, int]] = [("CPU", 10_000)]


def node(name: str, cpus: int = 1, **found: str) -> NodeView:
    return NodeView(name.encode(), 1, {"CPU": cpus * 10_000}, found.items())


def needs(*selectors: dict[str, str]) -> Needs:
    return resources.needs(CPU, labels.term([[*one.items()] for one in selectors], CPU))


def able(nodes: list[NodeView], wanted: Needs) -> list[bytes]:
    there = [one for one in nodes if resources.fits(one.total, wanted)]
    assert there == [one for one in nodes if resources.slots(one.free, wanted) > 0]
    return [one.node_id for one in there]


def test_those_nodes_that_are_selected_have_what_is_needed() -> None:
    terms, nodes = LabelTerms(), [node("a", region="us"), node("b", region="eu"), node("c")]
    us, other = needs({"region": "us"}), needs({"region": "!us"})
    for wanted in (us, other):
        terms.learn(wanted, nodes)

    assert able(nodes, us) == [b"a"]
    assert able(nodes, other) == [b"b", b"c"]


def test_a_node_that_comes_has_it_at_once() -> None:
    terms, nodes = LabelTerms(), [node("a")]
    us = needs({"region": "us"})
    terms.learn(us, nodes)
    assert able(nodes, us) == []

    nodes.append(node("b", region="us"))
    terms.nodes_changed(nodes)

    assert able(nodes, us) == [b"b"]


def test_a_fallback_counts_while_no_node_is_selected() -> None:
    terms, nodes = LabelTerms(), [node("a", region="eu"), node("b", region="asia")]
    wanted = needs({"region": "us"}, {"region": "eu"})
    terms.learn(wanted, nodes)
    assert able(nodes, wanted) == [b"a"]
    resources.take(nodes[0].free, wanted)

    nodes.append(node("c", region="us"))
    terms.nodes_changed(nodes)
    resources.give(nodes[0].free, wanted)  # what ran there has ended
    assert able(nodes, wanted) == [b"c"]

    terms.nodes_changed(nodes[:2])
    assert able(nodes[:2], wanted) == [b"a"]


def test_a_fallback_counts_where_the_selected_node_is_too_small() -> None:
    terms = LabelTerms()
    nodes = [node("a", cpus=0, region="us"), node("b", region="eu")]
    wanted = needs({"region": "us"}, {})
    terms.learn(wanted, nodes)

    assert able(nodes, wanted) == [b"b"]


def test_nodes_that_have_changed_are_looked_at_again() -> None:
    terms, one = LabelTerms(), node("a", region="us")
    terms.learn(needs({"region": "us"}), [one])
    assert one in one.changes
