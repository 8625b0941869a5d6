"""Which nodes the bundles of a group go to: PACK, SPREAD, STRICT_PACK and STRICT_SPREAD.

Nodes that were found full are looked at again once they have changed, and of those with room a few
are compared: so a bundle costs the same on ten nodes as on thousands.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence

from zray import limits
from zray.core import bundles, resources
from zray.core.head.openings import NodeChanges
from zray.core.head.task_records import NodeView
from zray.core.resources import CPU, GPU, LABELS, Needs, Vector

COMPARED = 8  # nodes with room
PASSED_MAX = 64  # nodes whose room other bundles of the group have taken

Choice = dict[int, NodeView]


class _Candidates:
    """The nodes that were not found full for such a bundle since they changed.

    Those that were looked at last come last.
    """

    __slots__ = ("heard", "places")

    def __init__(self) -> None:
        self.places: OrderedDict[NodeView, None] = OrderedDict()
        self.heard = -1


class BundlePolicy:
    """``nodes``: all that there are."""

    def __init__(self, changes: NodeChanges, nodes: Mapping[bytes, NodeView]) -> None:
        self._changes = changes
        self._nodes = nodes
        self._shapes: OrderedDict[Needs, _Candidates] = OrderedDict()

    def choose(
        self,
        strategy: int,
        needs: Sequence[Needs],
        places: Sequence[NodeView | None],
        avoided: Collection[NodeView] = (),
    ) -> Choice | int:
        """A node for each bundle whose place is None; else the index of one that finds none.

        ``needs``: of each bundle, with the labels that its node has to have. ``avoided``: nodes
        that get none of them.
        """
        open_ones = [index for index, place in enumerate(places) if place is None]
        open_ones.sort(key=lambda index: _size(needs[index]), reverse=True)
        had = dict.fromkeys(place for place in places if place is not None)
        if strategy in (bundles.PACK, bundles.STRICT_PACK):
            return self._pack(strategy, needs, open_ones, had, avoided)
        return self._spread(strategy, needs, open_ones, had, avoided)

    def has_room(self, needs: Needs) -> bool:
        """Whether any node could have such a bundle now, if it were the only one."""
        return self._find(needs, {}, ()) is not None

    def _pack(
        self,
        strategy: int,
        needs: Sequence[Needs],
        left: list[int],
        had: dict[NodeView, None],
        avoided: Collection[NodeView],
    ) -> Choice | int:
        in_all = together([needs[index] for index in left])
        there = [place for place in had if place.usable and place not in avoided]
        for place in there:  # of a group that has lost some bundles
            if resources.fits(place.free, in_all):
                return dict.fromkeys(left, place)
        if strategy == bundles.PACK or not had:
            found = self._find(in_all, {}, avoided, fullest=True)
            if found is not None:
                return dict.fromkeys(left, found)
        if strategy == bundles.STRICT_PACK:
            return left[0]
        used: dict[NodeView, Vector] = {}
        choice: Choice = {}
        for node in there:
            self._fill(node, needs, left, used, choice)
        while left:
            found = self._find(needs[left[0]], used, avoided, fullest=True)
            if found is None:
                return left[0]
            self._fill(found, needs, left, used, choice)
        return choice

    @staticmethod
    def _fill(
        node: NodeView,
        needs: Sequence[Needs],
        left: list[int],
        used: dict[NodeView, Vector],
        found: Choice,
    ) -> None:
        """Give the node as many of those that are left as it has room for."""
        taken = used.setdefault(node, {})
        for index in [*left]:
            if _fits(node, needs[index], taken):
                resources.give(taken, _counted(needs[index]))
                found[index] = node
                left.remove(index)

    def _spread(
        self,
        strategy: int,
        needs: Sequence[Needs],
        left: list[int],
        had: dict[NodeView, None],
        avoided: Collection[NodeView],
    ) -> Choice | int:
        used: dict[NodeView, Vector] = {node: {} for node in had}
        found: Choice = {}
        others = dict.fromkeys([*had, *avoided])  # where none of them is to be, at best
        for index in left:
            place = self._find(needs[index], used, others)
            if place is None and strategy == bundles.SPREAD:
                place = self._find(needs[index], used, avoided)
            if place is None:
                return index
            others[place] = None
            resources.give(used.setdefault(place, {}), _counted(needs[index]))
            found[index] = place
        return found

    def _find(
        self,
        needs: Needs,
        used: Mapping[NodeView, Vector],
        but: Collection[NodeView],
        *,
        fullest: bool = False,
    ) -> NodeView | None:
        """Of some nodes that have room for it the emptiest, or the fullest.

        ``used``: what others of the group have taken of nodes. ``but``: none of these.
        """
        places = self._candidates(needs)
        best: NodeView | None = None
        score, compared, passed = 0, 0, 0
        for _ in range(len(places)):
            node = next(iter(places))
            if not (node.usable and resources.fits(node.free, needs)):
                del places[node]
                continue
            places.move_to_end(node)
            if node in but or (node in used and not _fits(node, needs, used[node])):
                passed += 1
                if passed >= PASSED_MAX + len(used) + len(but):
                    break
                continue
            room = resources.slots(node.free, needs)
            if best is None or (room < score if fullest else room > score):
                best, score = node, room
            compared += 1
            if compared >= COMPARED:
                break
        return best

    def _candidates(self, needs: Needs) -> OrderedDict[NodeView, None]:
        found = self._shapes.get(needs)
        if found is None:
            found = self._shapes[needs] = _Candidates()
            if len(self._shapes) > limits.GROUP_SHAPES_MAX:
                self._shapes.popitem(last=False)
        else:
            self._shapes.move_to_end(needs)
        changed = self._changes.since(found.heard)
        for node in self._nodes.values() if changed is None else changed:
            if node.live and node.reserves:
                found.places[node] = None
        found.heard = self._changes.until_now()
        return found.places


def _counted(needs: Needs) -> Needs:
    return tuple(pair for pair in needs if not pair[0].startswith(LABELS))


def together(several: Sequence[Needs]) -> Needs:
    """What one node has to have for all of them."""
    selected = {pair for needs in several for pair in needs if pair[0].startswith(LABELS)}
    return tuple(sorted({*bundles.added(map(_counted, several)), *selected}))


def _fits(node: NodeView, needs: Needs, taken: Vector) -> bool:
    return all(node.free.get(name, 0) - taken.get(name, 0) >= amount for name, amount in needs)


def _size(needs: Needs) -> tuple[int, int, int, int]:
    """The scarcest first: those that are placed first have the choice."""
    amounts = dict(needs)
    others = sum(amount for name, amount in needs if name not in (CPU, GPU))
    return len(needs), amounts.get(GPU, 0), amounts.get(CPU, 0), others
