"""What a driver's user is shown: prints of workers, how far they are, and warnings of the head.

A part of Driver. In the order in which they came, and before the values that came after them.
"""

from __future__ import annotations

import contextlib
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from zray.core.client.client import Client
from zray.core.client.prints import Shown
from zray.errors import ZrayError
from zray.nodes.participant.participant import Participant
from zray.protocol import messages as m
from zray.runtime.interrupts import interrupts

if TYPE_CHECKING:  # loaded where workers print, or where there are bars
    from zray.nodes.driver.worker_lines import WorkerLines
    from zray.runtime.progress import OwnBar, ProgressDisplay

ADVICE = "ZR-6"  # how its codes begin
ECHO_S = 1.0  # how long a program that ends waits for what its actors have printed
PRINT_S = 1.0  # how long a value waits for prints that come before it and that nobody reads


class Printing(Participant):
    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._printing = False  # a thread is at it
        self._lines: WorkerLines | None = None
        self._bars: ProgressDisplay | None = None

    def _prints_came(self) -> None:
        self._completions.append(self._print)
        self._attend()

    def _prints_due(self) -> bool:
        return self._printing or bool(self.client.prints)

    def _show_prints(self) -> None:
        if self.client.prints:
            self._unlocked(self._print)
        deadline = time.monotonic() + PRINT_S if self._printing else 0.0
        while self._printing and time.monotonic() < deadline:
            self._follow(None, 0.005)  # another thread has them, and is about to finish

    def _print(self) -> None:
        """Print what has come, in order: one thread at a time prints for all."""
        mine = False
        try:
            with interrupts, self._lock:
                if self._printing:
                    return
                self._printing = mine = True
            while True:
                with interrupts, self._lock:
                    prints = self._taken()
                    if not prints:
                        self._printing = False
                        return
                self._show(prints)
        except BaseException:
            if mine:
                self._printing = False
            raise

    def _taken(self) -> list[Shown]:
        """What is to be shown now, equal lines of several workers only once."""
        prints, now, shown = self.client.prints.take(), time.monotonic(), list[Shown]()
        for message in prints:
            if isinstance(message, m.Log):
                shown += self._worker_lines().take(message, now)
            else:
                shown.append(message)
        return shown + (self._lines.due(now) if self._lines is not None else [])

    def _worker_lines(self) -> WorkerLines:
        if self._lines is None:
            from zray.nodes.driver.worker_lines import WorkerLines

            self._lines = WorkerLines()
        return self._lines

    def _tend_prints(self, now: float) -> None:
        """Show what was held back long enough. With the lock held."""
        if self._lines is not None and now >= self._lines.due_at:
            self._completions.append(self._print)

    def _hear_prints(self) -> None:
        """What actors printed before they answered comes by another way than their answers do."""
        client, deadline = self.client, time.monotonic() + ECHO_S
        for node_id in client.calls.actors.nodes(self.machine) if self.machine else ():
            ask = partial(_echo, client.process_id, node_id)
            left = deadline - time.monotonic()
            if client.linked and left > 0:
                with contextlib.suppress(ZrayError):
                    self.ask(ask, left)

    def _end_prints(self) -> None:
        """Nothing more is shown."""
        self._print()
        if self._lines is not None:
            self._show([*self._lines.rest()])
        if self._bars:
            self._bars.end()

    def _show(self, prints: list[Shown]) -> None:
        for message in prints:
            if isinstance(message, m.Notice):
                say(_in_words(message))
            elif isinstance(message, m.Progress):
                self._display().told(message)
            else:
                self._write(message)

    # ---- progress --------------------------------------------------------------------------

    def open_bar(self, label: str, total: int, unit: str = "") -> OwnBar:
        return self._display().open(label, total, unit)

    def _display(self) -> ProgressDisplay:
        if self._bars is None:
            from zray.runtime.progress import ProgressDisplay

            self._bars = ProgressDisplay()
        return self._bars

    def _tend_bars(self) -> None:
        """Now and then. With the lock held."""
        if self._bars:
            self._completions.append(self._bars.tend)

    def _write(self, message: m.Log) -> None:
        stream = sys.stderr if message.is_error else sys.stdout
        # None, closed, a pipe that ended, or a stream of the program's own that fails.
        with contextlib.suppress(Exception):
            stream.write(self._worker_lines().text(message, stream))
            stream.flush()


def _echo(asker: bytes, node_id: bytes, number: int) -> m.Message:
    return m.Trace(number, asker, node_id, True)


def _in_words(notice: m.Notice) -> str:
    if not notice.code:
        return notice.text
    kind = "advice" if notice.code.startswith(ADVICE) else "warning"
    return f"zray: {kind} {notice.code}: {notice.text}"


def say(text: str) -> None:
    """A line of zray's own, to standard error, if that takes it."""
    with contextlib.suppress(Exception):
        print(text, file=sys.stderr, flush=True)
