"""The bundles of placement groups that this node has reserved, as the head asks for it.

Prepared, a bundle has its part of the node's resources, and nobody can use it. Committed, it is
resources of its own, by the names in `zray.core.bundles`, and tasks need these as any others.
Released, it gives its part back once what runs in it has ended.
"""

from __future__ import annotations

from collections.abc import Callable

from zray.core import bundles, resources
from zray.core.raylet.gpus import Picked
from zray.core.raylet.local_records import LocalTask, WorkerSlot
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.core.resources import GPU, Needs
from zray.protocol import messages as m

REMOVED = "its placement group was removed"


class _Bundle:
    """``gpus``: those that it has of the node's."""

    __slots__ = ("amounts", "committed", "gpus", "round")

    def __init__(self, amounts: Needs, gpus: Picked, number: int) -> None:
        self.amounts = amounts
        self.gpus = gpus
        self.round = number
        self.committed = False


class Bundles:
    """Of one incarnation of the raylet.

    Args:
        kill: end a worker, and say why.
        give_back: tasks that cannot start here, to the head.
        tell_head: as ``HeadSession.tell``.
    """

    def __init__(
        self,
        scheduler: LocalScheduler,
        kill: Callable[[WorkerSlot, str], None],
        give_back: Callable[[list[LocalTask]], None],
        tell_head: Callable[[m.Message], None],
    ) -> None:
        self._scheduler = scheduler
        self._kill = kill
        self._give_back = give_back
        self._tell_head = tell_head
        self._groups: dict[bytes, dict[int, _Bundle]] = {}
        self._leaving: dict[bytes, int] = {}  # groups of which something still runs, their round

    # ---- what the head says ----------------------------------------------------------------

    def on_reserve(self, message: m.Reserve, now: float) -> None:
        """A step for some bundles of a group."""
        if message.step == m.PREPARE:
            lacking = self._prepare(message)
            outcome = m.UNPREPARED if lacking else m.PREPARED
            self._answer(message.group_id, message.round, outcome, lacking)
        elif message.step == m.COMMIT:
            self._commit(message)
        else:
            self._release(message)

    def _answer(self, group_id: bytes, number: int, outcome: int, text: str = "") -> None:
        self._tell_head(m.Reserved(0, group_id, number, outcome, text))

    def announced(self) -> list[m.HeldBundle]:
        """All that are here, for the head's new session."""
        return [
            m.HeldBundle(group_id, index, list(one.amounts), one.round, one.committed)
            for group_id, group in self._groups.items()
            for index, one in group.items()
        ]

    def has(self, group_id: bytes) -> bool:
        """Whether something may start in the group here, sooner or later."""
        return group_id in self._groups and group_id not in self._leaving

    # ---- steps -----------------------------------------------------------------------------

    def _prepare(self, message: m.Reserve) -> str:
        """What is in the way; empty: all of it is reserved now."""
        if message.group_id in self._leaving:
            return "what ran in the group there has not ended yet"
        group = self._groups.get(message.group_id, {})
        wanted = [one for one in message.bundles if one.index not in group]
        amounts = [resources.needs(one.resources) for one in wanted]
        free = self._scheduler.free
        in_all = bundles.added(amounts)
        if not resources.fits(free, in_all):
            lacking = resources.missing(free, in_all)
            return resources.shortage(free, self._scheduler.total, lacking)
        taken: list[Picked] = []
        for needs in amounts:
            found = self._scheduler.gpus.pick(needs)
            if found is None:
                for picked in taken:
                    self._scheduler.gpus.give("", picked)
                return "its GPUs are free only in pieces"
            taken.append(found[1])
            self._scheduler.gpus.take("", found[1])
        group = self._groups.setdefault(message.group_id, group)
        for part, needs, picked in zip(wanted, amounts, taken, strict=True):
            resources.take(free, needs)
            group[part.index] = _Bundle(needs, picked, message.round)
        for each in message.bundles:  # some may have come before
            group[each.index].round = message.round
        return ""

    def _commit(self, message: m.Reserve) -> None:
        group = self._groups.get(message.group_id, {})
        for one in message.bundles:
            bundle = group.get(one.index)
            if bundle is None or bundle.committed or message.group_id in self._leaving:
                continue
            bundle.committed = True
            offered = bundles.offered(bundle.amounts, message.group_id, one.index)
            resources.give(self._scheduler.total, offered)
            resources.give(self._scheduler.free, offered)
            if bundle.gpus:
                place = bundles.named(GPU, message.group_id, one.index)
                self._scheduler.gpus.give("", bundle.gpus)
                self._scheduler.gpus.reserve(place, bundle.gpus)

    def _release(self, message: m.Reserve) -> None:
        """Those that are named, as far as none can be in use; none named: the whole group."""
        group = self._groups.get(message.group_id, {})
        for one in message.bundles:
            bundle = group.get(one.index)
            if bundle is not None and not bundle.committed:
                self._drop(message.group_id, one.index)
        if message.bundles or message.group_id not in self._groups:
            self._answer(message.group_id, message.round, m.RELEASED)
            return
        self._leaving[message.group_id] = message.round
        self._give_back(self._scheduler.take_of(message.group_id))
        for slot in self._users(message.group_id):
            self._kill(slot, REMOVED)

    def _users(self, group_id: bytes) -> list[WorkerSlot]:
        slots = self._scheduler.workers.values()
        return [slot for slot in slots if slot.busy and bundles.group_of(slot.needs) == group_id]

    def step(self, now: float) -> None:
        """Give back what was released, once nothing runs there any more."""
        for group_id, number in [*self._leaving.items()] if self._leaving else ():
            if not self._users(group_id):
                del self._leaving[group_id]
                for index in [*self._groups[group_id]]:
                    self._drop(group_id, index)
                self._answer(group_id, number, m.RELEASED)

    def _drop(self, group_id: bytes, index: int) -> None:
        scheduler = self._scheduler
        group = self._groups[group_id]
        bundle = group.pop(index)
        if not group:
            del self._groups[group_id]
        resources.give(scheduler.free, bundle.amounts)
        if not bundle.committed:
            scheduler.gpus.give("", bundle.gpus)
            return
        if bundle.gpus:
            scheduler.gpus.release(bundles.named(GPU, group_id, index), bundle.gpus)
        offered = bundles.offered(bundle.amounts, group_id, index)
        resources.take(scheduler.total, offered)
        resources.take(scheduler.free, offered)
        for name, _ in offered:
            if not scheduler.total.get(name):  # that was the last one here
                for vector in (scheduler.total, scheduler.free, scheduler.released):
                    vector.pop(name, None)
