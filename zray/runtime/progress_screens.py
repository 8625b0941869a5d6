"""How progress bars look: at the foot of a terminal, as lines in a log, as a table in a notebook.

A terminal's bars are its last lines. While there are any, ``sys.stdout`` and ``sys.stderr`` are
wrapped where they are that terminal, so that what is printed stays readable above them.
"""

from __future__ import annotations

import contextlib
import html
import os
import sys
import threading
import time
import unicodedata
from typing import Any, Protocol

DRAW_S = 0.05  # no more often
NOTEBOOK_S = 0.2
LOOK_S = 0.5  # at which bars are due for a line
LINE_S = 10.0  # between two lines of one bar in a log
COLUMNS_MAX = 200
CELLS = 24  # of a bar
LINES_MIN = 4


class Shown:
    """One bar. ``where`` names the process that it is of; empty: the driver."""

    def __init__(self, where: str, label: str, total: int, now: float, unit: str = "") -> None:
        self.where = clean(where)
        self.label = clean(label)
        self.total = total
        self.unit = clean(f" {unit}") if unit else ""
        self.done = 0
        self.began = self.heard = self.told = now

    def count(self) -> str:
        """``3/10 30%``, with the unit, or what is known of that."""
        if not self.total:
            return f"{self.done}{self.unit}"
        return f"{self.done}/{self.total}{self.unit} {100 * self.done // self.total}%"

    def time(self, now: float) -> str:
        """How long it has taken, and will at this rate."""
        taken = now - self.began
        if not 0 < self.done < self.total:
            return _seconds(taken)
        left = taken * (self.total - self.done) / self.done
        return f"{_seconds(taken)}, {_seconds(left)} left"


def clean(text: str) -> str:
    """A text of somebody's for one line of a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def cut(text: str, columns: int) -> str:
    """As much of it as fits; wide characters take two columns."""
    taken = 0
    for place, character in enumerate(text):
        taken += _width(character)
        if taken > columns:
            return text[:place]
    return text


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)


def _seconds(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Screen(Protocol):
    """Called with the display's lock. ``end``: one is over, and these are left."""

    def draw(self, bars: list[Shown]) -> None: ...

    def end(self, bar: Shown, left: list[Shown]) -> None: ...

    def close(self) -> None: ...


def screen(lock: threading.RLock) -> Screen:
    """What suits where this program runs."""
    if (show := _notebook()) is not None:
        return Notebook(show)
    with contextlib.suppress(Exception):  # None, closed, or of the program's own
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            return Terminal(lock)
    return LogLines()


def _notebook() -> Any:
    """What shows something in the cell of a notebook, if this is one."""
    ipython, display = sys.modules.get("IPython"), sys.modules.get("IPython.display")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(display, "display", None) if hasattr(shell, "kernel") else None


class LogLines:
    """A line now and then, for a file or a pipe."""

    def __init__(self) -> None:
        self._looked = float("-inf")

    def draw(self, bars: list[Shown]) -> None:
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        for bar in bars:
            if now - bar.told >= LINE_S:
                self._line(bar, now)

    def end(self, bar: Shown, left: list[Shown]) -> None:
        now = time.monotonic()
        if not bar.where or now - bar.began >= LINE_S:
            self._line(bar, now)

    def close(self) -> None:
        pass

    @staticmethod
    def _line(bar: Shown, now: float) -> None:
        bar.told = now
        with contextlib.suppress(Exception):
            text = f"{bar.where}{bar.label}: {bar.count()} ({bar.time(now)})"
            print(text, file=sys.stderr, flush=True)


class Terminal:
    """The last lines of a terminal. Owns the wrapped streams."""

    def __init__(self, lock: threading.RLock) -> None:
        self.lock: Any = lock
        self.begun = False  # somebody has printed a line by half
        self._lines = 0  # that are drawn
        self._drawn = float("-inf")
        self._stream: Any = sys.stderr
        self._wrapped: list[tuple[str, Above]] = []
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            with contextlib.suppress(Exception):
                if stream.isatty():
                    above = Above(stream, self)
                    setattr(sys, name, above)
                    self._wrapped.append((name, above))

    def draw(self, bars: list[Shown]) -> None:
        now = time.monotonic()
        if now - self._drawn >= DRAW_S:
            self._draw(bars, now)

    def end(self, bar: Shown, left: list[Shown]) -> None:
        self.erase()
        now = time.monotonic()
        if not bar.where:
            self._write(("\n" if self.begun else "") + self._line(bar, now) + "\n")
            self.begun = False
        if left:
            self._draw(left, now)

    def close(self) -> None:
        self.erase()
        for name, above in self._wrapped:
            if getattr(sys, name) is above:
                setattr(sys, name, above.stream)

    def erase(self) -> None:
        """Leave the terminal as it was before it had bars."""
        if self._lines:
            self._write(f"{self._up()}\x1b[J")
            self._lines = 0
            self._drawn = float("-inf")

    def _up(self) -> str:
        return "\r" + (f"\x1b[{self._lines - 1}A" if self._lines > 1 else "")

    def _draw(self, bars: list[Shown], now: float) -> None:
        if self.begun:
            return
        self._drawn = now
        most = max(LINES_MIN, self._size().lines // 2)
        shown = sorted(bars, key=lambda bar: bool(bar.where))
        more = len(shown) - most
        lines = [self._line(bar, now) for bar in (shown[: most - 1] if more > 0 else shown)]
        if more > 0:
            lines.append(f"... and {more + 1} more")
        up = self._up() if self._lines else ""
        self._write(up + "\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J")
        self._lines = len(lines)

    def _size(self) -> os.terminal_size:
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return os.terminal_size((80, 24))
        return size if size.columns else os.terminal_size((80, 24))

    def _line(self, bar: Shown, now: float) -> str:
        columns = min(self._size().columns - 1, COLUMNS_MAX)
        utf8 = "utf" in (getattr(self._stream, "encoding", "") or "").lower()
        full, empty = ("\u2501", "\u254c") if utf8 else ("#", "-")
        rest = f" {bar.count()} {bar.time(now)}"
        label = cut(bar.where + bar.label, max(columns // 2, columns - len(rest)))
        drawn = ""
        if bar.total and (cells := min(CELLS, columns - _width(label) - len(rest) - 1)) > 4:
            filled = cells * min(bar.done, bar.total) // bar.total
            drawn = f" {full * filled}{empty * (cells - filled)}"
        return cut(f"{label}{drawn}{rest}", columns)

    def _write(self, text: str) -> None:
        with contextlib.suppress(Exception):
            self._stream.write(text)
            self._stream.flush()


class Above:
    """A stream on a terminal that has bars: what is written appears above them."""

    def __init__(self, stream: Any, terminal: Terminal) -> None:
        self.stream = stream
        self._terminal = terminal
        self._pid = os.getpid()

    def write(self, text: str) -> Any:
        """As of a text stream."""
        terminal = self._terminal
        if os.getpid() != self._pid:  # a forked child: whoever had the lock is not there
            return self.stream.write(text)
        with terminal.lock:
            terminal.erase()
            written = self.stream.write(text)
            self.stream.flush()
            if text:
                terminal.begun = not text.endswith("\n")
        return written

    def writelines(self, lines: Any) -> None:
        """As of a text stream."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class Notebook:
    """One output of a notebook's cell, that is changed; as text for those who show no HTML."""

    def __init__(self, show: Any) -> None:
        self._drawn = float("-inf")
        self._ended: list[Shown] = []
        self._handle: Any = show(Table([], 0.0), display_id=True)

    def draw(self, bars: list[Shown]) -> None:
        now = time.monotonic()
        if now - self._drawn >= NOTEBOOK_S:
            self._update(bars, now)

    def end(self, bar: Shown, left: list[Shown]) -> None:
        if not bar.where:
            self._ended.append(bar)
        self._update(left, time.monotonic())

    def close(self) -> None:
        pass

    def _update(self, bars: list[Shown], now: float) -> None:
        self._drawn = now
        self._handle.update(Table([*self._ended, *bars], now))


class Table:
    """What a notebook shows of them at one time."""

    def __init__(self, bars: list[Shown], now: float) -> None:
        self._rows = [
            (bar.where + bar.label, bar.done, bar.total, f"{bar.count()} {bar.time(now)}")
            for bar in bars
        ]

    def __repr__(self) -> str:
        return "\n".join(f"{label} {rest}" for label, _, _, rest in self._rows)

    def _repr_html_(self) -> str:
        rows = []
        for label, done, total, rest in self._rows:
            state = f"value='{done}' max='{total}'" if total else ""
            rows.append(
                f"<tr><td style='text-align:left'>{html.escape(label)}</td>"
                f"<td><progress {state}></progress></td>"
                f"<td style='text-align:left'>{html.escape(rest)}</td></tr>"
            )
        return f"<table>{''.join(rows)}</table>"
