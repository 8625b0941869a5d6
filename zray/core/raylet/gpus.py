"""Which of a node's GPUs are free, and how much of each: of the node itself, and of its bundles."""

from __future__ import annotations

from zray import limits
from zray.core import bundles
from zray.core.resources import Needs

Picked = dict[int, int]  # GPU index -> amount


class Gpus:
    """Whoever needs GPUs of a bundle has those that the bundle was given."""

    def __init__(self, count: int) -> None:
        self.free = [limits.RESOURCE_UNIT] * count  # of the node itself
        self._of_bundles: dict[str, Picked] = {}  # by the name of a bundle's GPUs

    def pick(self, wanted: Needs) -> tuple[str, Picked] | None:
        """Of which bundle (empty: of the node), which GPUs and how much of each.

        None: they are free only in pieces.
        """
        amount, name = 0, ""
        for one, much in wanted:
            if bundles.is_gpu(one):
                amount, name = much, max(name, one, key=len)  # one with an index is longer
        if not amount:
            return "", {}
        if (found := bundles.parts(name)) is None:
            picked = _pick(dict(enumerate(self.free)), amount)
            return ("", picked) if picked is not None else None
        _, index, group_id = found
        for place, free in self._of_bundles.items():
            if place == name or (index == bundles.ANY and _is_of(place, group_id)):
                picked = _pick(free, amount)
                if picked is not None:
                    return place, picked
        return None

    def take(self, place: str, picked: Picked) -> None:
        """These are in use."""
        free = self._of_bundles[place] if place else self.free
        for index, amount in picked.items():
            free[index] -= amount

    def give(self, place: str, picked: Picked) -> None:
        """They are free again."""
        free = self._of_bundles.get(place, {}) if place else self.free
        for index, amount in picked.items():
            if not place or index in free:
                free[index] += amount

    def reserve(self, place: str, picked: Picked) -> None:
        """These become those of a bundle."""
        self.take("", picked)
        self._of_bundles[place] = dict(picked)

    def release(self, place: str, picked: Picked) -> None:
        """Nothing of the bundle is in use any more."""
        del self._of_bundles[place]
        self.give("", picked)


def _is_of(place: str, group_id: bytes) -> bool:
    found = bundles.parts(place)
    return found is not None and found[2] == group_id


def _pick(free: Picked, amount: int) -> Picked | None:
    unit = limits.RESOURCE_UNIT
    if amount < unit:
        fitting = [(left, index) for index, left in free.items() if left >= amount]
        return {min(fitting)[1]: amount} if fitting else None
    whole = [index for index, left in free.items() if left == unit]
    count = amount // unit
    return dict.fromkeys(whole[:count], unit) if len(whole) >= count else None
