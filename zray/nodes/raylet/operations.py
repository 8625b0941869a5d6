"""What operators want to see of a node's machine: its logs, what its processes do, and how much of
it they use. I/O only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from zray.core.raylet.effects import (
    EndExamination,
    Looks,
    ReadLogFile,
    ReadUsage,
    ScrapeNode,
    StartExamination,
)
from zray.core.raylet.raylet import Raylet
from zray.nodes.raylet.examiner import Examiner
from zray.nodes.raylet.log_files import LogFiles
from zray.nodes.raylet.scraping import Scraping
from zray.nodes.raylet.shared_objects import SharedObjects
from zray.nodes.raylet.worker_processes import WorkerProcesses
from zray.runtime.linux import usage
from zray.runtime.loop import Loop


class Operations:
    """``raylet``: the machine, which hears what was found; ``log_directory``: of its workers.

    ``store``: of its node.
    """

    def __init__(
        self,
        loop: Loop,
        raylet: Callable[[], Raylet],
        store: Callable[[], SharedObjects],
        log_directory: Path | None,
        workers: WorkerProcesses,
    ) -> None:
        self._loop = loop
        self._raylet = raylet
        self._store = store
        self._logs = LogFiles(
            log_directory,
            lambda worker_id: raylet().inspection.facts(worker_id),
            lambda task_id: raylet().inspection.output(task_id),
        )
        self._examiner = Examiner(loop, self._examined)
        self._scraping = Scraping(loop, raylet, store, workers)

    def carry_out(self, effect: Looks) -> None:
        """Do what the machine wants."""
        if isinstance(effect, ReadLogFile):
            self._raylet().session.tell(self._logs.answer(effect.message))
            self._loop.wake()  # what is told now leaves in the next turn
        elif isinstance(effect, StartExamination):
            self._examiner.start(effect.number, effect.pid, effect.seconds)
        elif isinstance(effect, ScrapeNode):
            self._scraping.ask(effect.message)
        elif isinstance(effect, EndExamination):
            self._examiner.end(effect.number)
        else:
            self._measure(effect)

    def _measure(self, effect: ReadUsage) -> None:
        raylet = self._raylet()
        looked = {pid: usage.of_process(pid) for pid in effect.pids}
        found = {pid: one for pid, one in looked.items() if one is not None}
        store = self._store().usage()
        now = self._loop.now()
        raylet.inspection.measuring.measured(effect.message, usage.of_machine(), store, found, now)
        self._loop.wake()

    def _examined(self, number: int, data: bytes, code: str, text: str) -> None:
        self._raylet().inspection.examined(number, data, code, text, self._loop.now())
        self._loop.wake()

    def close(self) -> None:
        """End what still looks."""
        self._examiner.close()
        self._scraping.close()
