"""Labels of nodes, and selectors: which nodes a task or actor may be on.

A selector is a list of pairs of a label's name and what its value is to be: ``a``, ``!a``,
``in(a, b)`` or ``!in(a, b)``, as in Ray. The negated ones select nodes without the label, too.
``*`` is any value, and ``!*`` that the node does not have the label.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from zray.core import resources

Selector = Sequence[tuple[str, str]]
NODE = "the node"  # in place of a label's name: the node of that id, and no label can be called so
ANY_VALUE = "*"  # in place of a value, which no label has: any
TEXT_MAX = 500  # characters of selectors, for people


def selects(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Whether a node with these labels is one of those that the selector means."""
    return all(_agrees(labels.get(name), wanted) for name, wanted in selector)


def _agrees(value: str | None, wanted: str) -> bool:
    negated = wanted.startswith("!")
    rest = wanted.removeprefix("!")
    if rest.startswith("in(") and rest.endswith(")"):
        found = value in [one.strip() for one in rest[3:-1].split(",")]
    elif rest == ANY_VALUE:
        found = value is not None
    else:
        found = value == rest
    return found is not negated


def only_node(selectors: Sequence[Selector]) -> str:
    """The node, if there is no other that they select; empty: there may be."""
    return dict(selectors[0]).get(NODE, "") if len(selectors) == 1 else ""


def in_words(selectors: Iterable[Selector]) -> str:
    """``a=b, c=!d``; what is instead of that, after ``or``."""
    texts = (", ".join(_pair(name, wanted) for name, wanted in one) for one in selectors)
    return " or ".join(text or "any" for text in texts)


def _pair(name: str, wanted: str) -> str:
    return f"node {wanted}" if name == NODE else f"{name}={wanted}"


def term(selectors: Sequence[Selector], amounts: Iterable[tuple[str, int]]) -> str:
    """What tasks with these selectors need of a node, beside the amounts; nothing if none.

    Of several selectors those count that are the first to select any node; so which amounts there
    are matters, too.
    """
    if not selectors:
        return ""
    pairs = [[[name, wanted] for name, wanted in one] for one in selectors]
    others = list(resources.countable(resources.needs(amounts))) if len(pairs) > 1 else []
    made_of = msgspec.json.encode([pairs, others]).decode()
    return f"{resources.LABELS}{in_words(selectors)[:TEXT_MAX]}\n{made_of}"


def read(name: str) -> tuple[list[Selector], resources.Needs]:
    """The selectors and amounts of a term."""
    pairs, amounts = msgspec.json.decode(name.partition("\n")[2])
    selectors: list[Selector] = [[(one, wanted) for one, wanted in pair] for pair in pairs]
    return selectors, tuple((one, amount) for one, amount in amounts)
