"""Why the bundles of a placement group find no nodes: a look at all nodes, when somebody asks."""

from __future__ import annotations

from itertools import islice
from typing import Any

from zray import limits
from zray.core import bundles, resources
from zray.core.head.bundle_policy import together
from zray.core.head.members import Members
from zray.core.head.placement_table import GroupRecord
from zray.core.head.task_records import NodeView
from zray.core.head.task_scheduler import TaskScheduler
from zray.core.head.wait_reasons import distance
from zray.core.resources import Needs
from zray.protocol import messages as m

Found = dict[tuple[Any, ...], str]  # what groups lack, by what they ask for
GROUPS_MAX = 200  # kinds of groups that are looked at, for one answer about all
KINDS_MAX = 8  # of bundles that are looked at, for one answer


class PlacementReasons:
    """Looks at ``limits.WHY_NODES_MAX`` nodes at most."""

    def __init__(self, members: Members, scheduler: TaskScheduler) -> None:
        self._members = members
        self._scheduler = scheduler

    def of(self, record: GroupRecord, found: Found | None = None) -> str:
        """What a group waits for; empty: it has all that it wants.

        ``found``: what others lack, for an answer about many; of so many kinds that is looked for.
        """
        if record.state in (m.GROUP_CREATED, m.GROUP_REMOVED):
            return ""
        if record.expected:
            return "its nodes are not back since the head's restart"
        if record.awaited:
            names = ", ".join(self._name(view) for view in islice(record.awaited, KINDS_MAX))
            return f"its bundles are being reserved; awaited: {names}"
        parts = [record.lost] if record.lost else []
        parts.append(self._lacking(record) if found is None else self._alike(record, found))
        if record.refused:
            parts.append(record.refused)
        return "; ".join(filter(None, parts))[: limits.BRIEF_TEXT_MAX]

    def _alike(self, record: GroupRecord, found: Found) -> str:
        """The same for all that ask for the same."""
        kind = (record.request.strategy, *record.needs)
        key = (record.group_id,) if record.placed else kind
        if key not in found:
            if len(found) >= GROUPS_MAX:
                return "too many groups wait to look at each of them here: ask about this one alone"
            found[key] = self._lacking(record)
        return found[key]

    def _name(self, view: NodeView) -> str:
        node = self._members.nodes.get(view.node_id)
        return node.info.name if node is not None else view.node_id.hex()

    def _nodes(self) -> list[NodeView]:
        nodes = islice(self._scheduler.nodes.values(), limits.WHY_NODES_MAX)
        return [node for node in nodes if node.reserves]

    def _lacking(self, record: GroupRecord) -> str:
        """Which bundle is in the way, and what the nodes lack for it."""
        nodes = self._nodes()
        if not nodes:
            return "no node has joined; start one with zray-worker"
        left = record.unplaced()
        kinds = {record.needs[index]: index for index in reversed(left)}
        for needs, index in islice(kinds.items(), KINDS_MAX):
            if not any(resources.fits(node.total, needs) for node in nodes):
                return self._never(f"bundle {index}", needs, nodes)
        strategy = record.request.strategy
        if strategy == bundles.STRICT_PACK:
            in_all = together([record.needs[index] for index in left])
            if not any(resources.fits(node.total, in_all) for node in nodes):
                return self._never("STRICT_PACK: all bundles on one node", in_all, nodes)
            return self._in_use("STRICT_PACK: all bundles on one node", in_all, nodes)
        if strategy == bundles.STRICT_SPREAD:
            had = sum(place is not None for place in record.places)
            able = sum(any(resources.fits(node.total, needs) for needs in kinds) for node in nodes)
            if able < len(left) + had:
                return (
                    f"STRICT_SPREAD: each of {len(record.places)} bundles needs a node of its own, "
                    f"and {able} of {len(nodes)} nodes ever have what one needs; add nodes"
                )
        for needs, index in islice(kinds.items(), KINDS_MAX):
            if not any(node.usable and resources.fits(node.free, needs) for node in nodes):
                return self._in_use(f"bundle {index}", needs, nodes)
        return "its bundles do not fit together into what is free now"

    def _never(self, what: str, needs: Needs, nodes: list[NodeView]) -> str:
        nearest = min(nodes, key=lambda node: distance(node.total, needs))
        lacking = resources.missing(nearest.total, needs)
        return (
            f"{what} needs {resources.in_words(needs)}; no node ever has that (the nearest, "
            f"{self._name(nearest)}, has {resources.in_words(_has(nearest, lacking))}): add a node "
            "that has it, or ask for less"
        )

    def _in_use(self, what: str, needs: Needs, nodes: list[NodeView]) -> str:
        able = [node for node in nodes if resources.fits(node.total, needs)]
        nearest = min(able, key=lambda node: distance(node.free, needs))
        if not nearest.usable:
            state = "is being drained" if nearest.draining else "is not heard of just now"
            return f"{what} needs {resources.in_words(needs)}; {self._name(nearest)} {state}"
        short = resources.shortage(
            nearest.free, nearest.total, resources.missing(nearest.free, needs)
        )
        return (
            f"{what} needs {resources.in_words(needs)}, which is in use on every node that has it "
            f"(on {self._name(nearest)}: {short})"
        )


def _has(node: NodeView, lacking: Needs) -> list[tuple[str, int]]:
    return [(name, node.total.get(name, 0)) for name, _ in lacking]
