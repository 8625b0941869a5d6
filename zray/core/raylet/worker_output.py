"""What a node's workers print, and how far their tasks are, on its way to the head.

Owns which progress bars of a worker are open, so that they end with it, and how often they are
told.
"""

from __future__ import annotations

from zray import limits
from zray.core.pace import Pace
from zray.core.raylet.head_session import HeadSession
from zray.core.raylet.local_records import WorkerSlot
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.protocol import messages as m


class WorkerOutput:
    """``node``: the name of this one."""

    def __init__(self, node: str, session: HeadSession, scheduler: LocalScheduler) -> None:
        self._node = node
        self._session = session
        self._scheduler = scheduler
        self._pace = Pace(limits.PROGRESS_NODE_PER_S)
        self._open: dict[bytes, dict[int, m.Bar]] = {}  # by worker

    def log(self, worker_id: bytes, is_error: bool, lines: list[str]) -> None:
        """Lines that a worker printed."""
        slot = self._scheduler.workers.get(worker_id)
        if slot is not None:
            name = (slot.key[0], self._name(slot), slot.pid, self._node)
            self._session.log(m.Log(0, *name, is_error, lines))

    @staticmethod
    def _name(slot: WorkerSlot) -> str:
        first = next(iter(slot.inflight.values()), None)
        task_name = first.template.message.name if first is not None else "worker"
        return slot.class_name or slot.leased_name or task_name

    def on_progress(self, slot: WorkerSlot, message: m.Progress, now: float) -> None:
        """How far a worker is; left out where there is too much of that, but for the ends."""
        bars = self._open.setdefault(slot.worker_id, {})
        known = [bar for bar in message.bars if bar.number in bars or not bar.ended]
        for bar in known:
            if bar.ended:
                bars.pop(bar.number, None)
            elif bar.number in bars or len(bars) < limits.BARS_MAX:
                bars[bar.number] = bar
        if not bars:
            del self._open[slot.worker_id]
        told = known if self._pace.allows(now) else [bar for bar in known if bar.ended]
        self._tell(slot, told)

    def exited(self, slot: WorkerSlot) -> None:
        """A worker is gone, and its bars with it."""
        bars = self._open.pop(slot.worker_id, {}).values()
        self._tell(slot, [m.Bar(bar.number, bar.label, bar.done, bar.total, True) for bar in bars])

    def _tell(self, slot: WorkerSlot, bars: list[m.Bar]) -> None:
        if bars:
            name = (slot.key[0], self._name(slot), slot.pid, self._node)
            self._session.tell(m.Progress(0, *name, bars))
