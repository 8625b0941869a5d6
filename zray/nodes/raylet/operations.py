"""What operators want to see of a node's machine: its logs, what its processes do, and how much of
it they use. I/O only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from zray.core.raylet.effects import EndExamination, ScrapeNode, ReadLogFile, StartExamination
from zray.core.raylet.raylet import Raylet
from zray.nodes.raylet.examiner import Examiner
from zray.nodes.raylet.log_files import LogFiles
from zray.nodes.raylet.scraping import Scraping
from zray.nodes.raylet.store_server import StoreServer
from zray.nodes.raylet.worker_processes import WorkerProcesses
from zray.runtime.loop import Loop


class Operations:
    """``raylet``: the machine, which hears what was found; ``log_directory``: of its workers."""

    def __init__(
        self,
        loop: Loop,
        raylet: Callable[[], Raylet],
        log_directory: Path | None,
        store: Callable[[], StoreServer],
        workers: WorkerProcesses,
    ) -> None:
        self._loop = loop
        self._raylet = raylet
        self._logs = LogFiles(
            log_directory,
            lambda worker_id: raylet().inspection.facts(worker_id),
            lambda task_id: raylet().inspection.output(task_id),
        )
        self._examiner = Examiner(loop, self._examined)
        self._scraping = Scraping(loop, raylet, store, workers)

    def carry_out(
        self, effect: ReadLogFile | StartExamination | EndExamination | ScrapeNode
    ) -> None:
        """Do what the machine wants."""
        if isinstance(effect, ReadLogFile):
            self._raylet().session.tell(self._logs.answer(effect.message))
            self._loop.wake()  # what is told now leaves in the next turn
        elif isinstance(effect, StartExamination):
            self._examiner.start(effect.number, effect.pid, effect.seconds)
        elif isinstance(effect, ScrapeNode):
            self._scraping.ask(effect.message)
        else:
            self._examiner.end(effect.number)

    def _examined(self, number: int, data: bytes, code: str, text: str) -> None:
        self._raylet().inspection.examined(number, data, code, text, self._loop.now())
        self._loop.wake()

    def close(self) -> None:
        """End what still looks."""
        self._examiner.close()
        self._scraping.close()
