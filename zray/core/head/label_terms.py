"""Which nodes have what selectors of labels ask for: a resource without end that they have, or not.

A task may have several selectors, of which the later ones are for when no node is selected by those
before. So which nodes have it may change with each that comes or goes.
"""

from __future__ import annotations

from collections.abc import Iterable

from zray.core import labels, resources
from zray.core.head.task_records import NodeView
from zray.core.labels import Selector
from zray.core.resources import LABELS, Needs


class LabelTerms:
    """Those that scheduling classes have."""

    def __init__(self) -> None:
        self._terms: dict[str, tuple[list[Selector], Needs]] = {}

    def learn(self, needs: Needs, nodes: Iterable[NodeView]) -> None:
        """There are tasks that need this."""
        for name, _ in needs:
            if name.startswith(LABELS) and name not in self._terms:
                self._terms[name] = labels.read(name)
                self._look(name, nodes)

    def nodes_changed(self, nodes: Iterable[NodeView]) -> None:
        """A node has come or gone; these are there now."""
        for name in self._terms:
            self._look(name, nodes)

    def _look(self, name: str, nodes: Iterable[NodeView]) -> None:
        selectors, amounts = self._terms[name]
        for selector in selectors:
            found = [
                node
                for node in nodes
                if labels.selects(selector, node.labels) and resources.fits(node.total, amounts)
            ]
            if found:
                break
        for node in nodes:
            has = node in found
            if has != (name in node.total):
                if has:
                    node.total[name] = resources.ENDLESS
                else:
                    del node.total[name]
                # What runs there gives its part back some time, and makes no room by that.
                node.free[name] = resources.ENDLESS if has else -resources.ENDLESS
                node.changed()
