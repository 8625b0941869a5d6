"""Where there may be room for tasks of a class, so that no turn looks at all nodes that are full.

A node that was found full is looked at again once it has changed: a task has left it, it reports,
it is heard of again. So a turn costs what has come and is sent, however many nodes there are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from zray.core.head.task_records import NodeView


class NodeChanges:
    """Which nodes may have more room than before, in the order in which that came about.

    ``new``: since ``take`` was called last; the nodes note it there themselves.
    """

    def __init__(self) -> None:
        self.new: dict[NodeView, None] = {}
        self._log: list[NodeView] = []
        self._forgotten = 0

    def take(self, most: int) -> list[NodeView]:
        """Those that are new; they are old from now on, and about the last ``most`` are kept."""
        found = [*self.new]
        self.new.clear()
        self._log += found
        if len(self._log) > 2 * most:
            self._forgotten += len(self._log) - most
            del self._log[:-most]
        return found

    def until_now(self) -> int:
        """A number for all that were taken by now."""
        return self._forgotten + len(self._log)

    def since(self, number: int) -> list[NodeView] | None:
        """Those after that, also those that are new; None: that is too long ago."""
        place = number - self._forgotten
        return [*self._log[place:], *self.new] if place >= 0 else None


class Openings:
    """Of one class the nodes that were not found full since they changed.

    ``start``: for tasks that start at once. ``ahead``: for tasks that are sent ahead. Those that
    were used last come last.
    """

    __slots__ = ("ahead", "heard", "start")

    def __init__(self) -> None:
        self.start: OrderedDict[NodeView, None] = OrderedDict()
        self.ahead: OrderedDict[NodeView, None] = OrderedDict()
        self.heard = -1

    def hear(self, changes: NodeChanges, all_nodes: Iterable[NodeView]) -> None:
        """Take in what has changed since the last call."""
        changed = changes.since(self.heard)
        for node in all_nodes if changed is None else changed:
            self.start[node] = self.ahead[node] = None
        self.heard = changes.until_now()
