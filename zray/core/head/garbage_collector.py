"""Frees what nobody holds any more: objects, and all that was kept for them alone."""

from __future__ import annotations

from zray.core.head.actor_table import ActorTable
from zray.core.head.actors import Actors
from zray.core.head.holders import Holders
from zray.core.head.lineage import Lineage
from zray.core.head.members import Members
from zray.core.head.object_table import PENDING, ObjectRecord, ObjectTable
from zray.core.head.results import Results
from zray.core.head.task_table import TaskTable
from zray.core.head.transfers import Transfers
from zray.core.machine import Outbox
from zray.ids import origin_of, task_of
from zray.protocol.messages import Free


class GarbageCollector:
    """Once per turn, over the objects that have lost a holder in it."""

    def __init__(
        self,
        *,
        outbox: Outbox[bytes],
        members: Members,
        tasks: TaskTable,
        objects: ObjectTable,
        results: Results,
        transfers: Transfers,
        holders: Holders,
        lineage: Lineage,
        actors: Actors,
        actor_table: ActorTable,
    ) -> None:
        self._outbox = outbox
        self._members = members
        self._tasks = tasks
        self._objects = objects
        self._results = results
        self._transfers = transfers
        self._holders = holders
        self._lineage = lineage
        self._actors = actors
        self._actor_table = actor_table

    def collect(self, _now: float) -> None:
        """Free what can be, and tell whoever has its values."""
        swept = self._objects.sweep(self._is_needed)
        if not swept:
            return
        freed: dict[bytes, list[bytes]] = {}
        nodes, actors, origins = self._members.nodes, self._actor_table, self._lineage.origins
        while swept:
            for oid, known in swept:
                task_id = task_of(oid)
                self._holders.forget_freed(oid)
                if (maker := origin_of(oid)) in origins:
                    self._lineage.freed(maker)  # which may let go of others
                if task_id in actors:
                    self._actors.handle_gone(task_id)
                self._transfers.serve(oid)
                for place in known.locations:
                    if known.served or place in nodes:
                        freed.setdefault(place, []).append(oid)
            swept = self._objects.sweep(self._is_needed)
        for place, ids in freed.items():
            self._outbox.send(place, Free(0, b"".join(ids)))

    def _is_needed(self, oid: bytes, record: ObjectRecord) -> bool:
        if record.kind == PENDING:
            return task_of(oid) in self._tasks
        return self._results.is_owed(oid, record)
