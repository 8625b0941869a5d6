"""Placement groups in local mode: each has its place at once, since resources are not counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from msgspec.structs import replace

from zray import limits
from zray.core import bundles
from zray.errors import PlacementGroupExistsError
from zray.protocol import messages as m


class LocalGroups:
    """``node_id``: where all bundles are; ``end``: what runs in a group has to end."""

    def __init__(self, node_id: bytes, end: Callable[[bytes], None]) -> None:
        self._node_id = node_id
        self._end = end
        self._groups: dict[bytes, m.GroupStatus] = {}
        self._removed: deque[m.GroupStatus] = deque(maxlen=limits.GROUPS_KEPT_MAX)

    def create(self, asked: m.CreateGroup) -> m.Groups:
        """The answer to who makes one."""
        for other in self._groups.values():
            if asked.name and (other.name, other.namespace) == (asked.name, asked.namespace):
                text = (
                    f"A placement group with name {asked.name!r} already exists in namespace "
                    f"{asked.namespace!r}; use another name, or zray.util.get_placement_group()"
                )
                return m.Groups(0, 0, [], code=PlacementGroupExistsError.code, text=text)
        made = m.GroupStatus(
            *(asked.group_id, asked.name, asked.namespace, asked.strategy, asked.detached),
            *(asked.job_id, m.GROUP_CREATED),
            asked.bundles,
            [self._node_id] * len(asked.bundles),
        )
        self._groups[asked.group_id] = made
        return m.Groups(0, 0, [made])

    def find(self, asked: m.AskGroups) -> m.Groups:
        """The answer to who looks for one, or for all."""
        found = [*self._groups.values()]
        if asked.group_id:
            known = [*self._removed, *found]
            return m.Groups(0, 0, [one for one in known if one.group_id == asked.group_id])
        if asked.name:
            wanted = asked.name, asked.namespace
            return m.Groups(0, 0, [one for one in found if (one.name, one.namespace) == wanted])
        return m.Groups(0, 0, [*found, *self._removed])

    def remove(self, asked: m.RemoveGroup) -> m.Synced:
        """It is no more, and what runs in it ends."""
        known = self._groups.pop(asked.group_id, None)
        if known is not None:
            gone = replace(known, state=m.GROUP_REMOVED, nodes=[b""] * len(known.nodes))
            self._removed.append(gone)
            self._end(asked.group_id)
        return m.Synced(0, 0)

    def lacks(self, template: m.Template) -> str:
        """Why what has this template cannot run; empty: it is in no group, or in one there is."""
        group_id = bundles.group_of(template.resources)
        if not group_id or group_id in self._groups:
            return ""
        return f"its placement group {group_id.hex()} was removed, or there never was one"
