"""How a head that was started again goes on: first with the tasks, at last with everything.

Nodes of before may still run tasks, so each waits until all nodes that could have it are back or
dead. What is held is known when the drivers have told, too; then nothing of before is awaited any
more.
"""

from __future__ import annotations

from zray.core.head.actor_reconciliation import ActorReconciliation
from zray.core.head.definitions import Definitions
from zray.core.head.holders import Holders
from zray.core.head.members import Members
from zray.core.head.recovery import Recovery
from zray.core.head.task_table import TaskTable
from zray.core.head.tasks import TaskManager
from zray.core.head.transfers import Transfers


class Resumption:
    """Tells the machines when who is back; what has come back until then is in ``recovery``."""

    def __init__(
        self,
        recovery: Recovery,
        members: Members,
        tasks: TaskTable,
        transfers: Transfers,
        holders: Holders,
        definitions: Definitions,
        task_manager: TaskManager,
        actors: ActorReconciliation,
    ) -> None:
        self._recovery = recovery
        self._members = members
        self._tasks = tasks
        self._transfers = transfers
        self._holders = holders
        self._definitions = definitions
        self._task_manager = task_manager
        self._actors = actors

    def step(self, now: float) -> None:
        """Once per turn, for as long as the head recovers."""
        recovery = self._recovery
        if not recovery.active:
            return
        if not self._members.recovering():
            for record in recovery.take_parked():
                self._task_manager.unpark(record)
            if recovery.nodes_are_back():
                self._actors.nodes_are_back(now)
        else:
            for record in recovery.take_free():
                self._task_manager.unpark(record)
        if self._members.resynced():
            self._everybody_is_back(now)

    def _everybody_is_back(self, now: float) -> None:
        self._recovery.end()
        self._transfers.retry()
        self._holders.postpone(now)
        self._actors.owners_are_back(now)
        self._definitions.recovered()
        for task_id, record in [*self._tasks.items()]:
            if record.spec is None:  # whoever submitted it is gone
                self._task_manager.cancel(task_id, record, force=False)
