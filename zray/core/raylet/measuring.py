"""What this node's processes use, for whoever asks: which they are, and who hears of it.

Looking is the shell's, at most every ``limits.MEASURED_FRESH_S``: who asks sooner gets what was
found last. Without a question nothing is done or kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from zray import limits
from zray.core.raylet.effects import Effect, ReadUsage
from zray.core.raylet.local_records import WorkerSlot
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.protocol import messages as m


class Measuring:
    """Of one incarnation of the raylet, which is the process ``pid``.

    ``effect``: takes what the shell is to do. ``tell_head``: as ``HeadSession.tell``.
    """

    def __init__(
        self,
        pid: int,
        scheduler: LocalScheduler,
        effect: Callable[[Effect], None],
        tell_head: Callable[[m.Message], None],
    ) -> None:
        self._pid = pid
        self._scheduler = scheduler
        self._effect = effect
        self._tell_head = tell_head
        self._last: m.Measured | None = None
        # A part of the raylet's table.
        self.handlers: dict[type[m.Message], Callable[[m.Measure, float], None]] = {
            m.Measure: self.on_measure
        }

    def on_measure(self, message: m.Measure, now: float) -> None:
        """Somebody asks."""
        last = self._last
        if last is not None and now - last.at_s < limits.MEASURED_FRESH_S:
            last.target, last.about = message.source, message.seq
            self._tell_head(last)
            return
        workers = [slot.pid for slot in self._scheduler.workers.values() if slot.pid]
        daemons = [self._pid, *([message.head_pid] if message.head_pid else [])]
        self._effect(ReadUsage(message, [*daemons, *workers][: limits.MEASURED_PROCESSES_MAX]))

    def measured(
        self,
        message: m.Measure,
        machine: m.MachineUsage,
        store: m.StoreUsage,
        found: Mapping[int, m.Usage],
        now: float,
        clock_s: float,
    ) -> None:
        """That is what was found, of processes by their pids. ``clock_s``: since 1970."""
        told = [
            m.UsedBy(found[pid], kind)
            for pid, kind in ((self._pid, m.NODE_PROCESS), (message.head_pid, m.HEAD_PROCESS))
            if pid in found
        ]
        slots = [slot for slot in self._scheduler.workers.values() if slot.pid]
        told += [_used_by(slot, found[slot.pid]) for slot in slots if slot.pid in found]
        left_out = len(slots) + 1 + bool(message.head_pid) - limits.MEASURED_PROCESSES_MAX
        whom = (message.source, message.seq, now)
        self._last = answer = m.Measured(0, *whom, machine, store, told, max(0, left_out), clock_s)
        self._tell_head(answer)


def _used_by(slot: WorkerSlot, usage: m.Usage) -> m.UsedBy:
    first = slot.current()
    running = first.template.message.name if first is not None else ""
    actor = slot.actor.actor_id if slot.actor is not None else b""
    title = slot.class_name or running or (slot.leased_name if slot.lease is not None else "")
    busy = bool(first is not None or slot.lease is not None or actor)
    return m.UsedBy(usage, m.WORKER_PROCESS, slot.worker_id, slot.key[0], actor, title, busy)
