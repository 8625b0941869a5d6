"""``zray top``: looks at a cluster again and again, and shows it until somebody quits.

Owns the terminal meanwhile, and leaves it as it was, whatever happens.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType

from rich.console import Console
from rich.live import Live

from zray.cli import reporting, state_view
from zray.cli.entry import INTERRUPTED
from zray.cli.reporting import Failed
from zray.cli.status import duration, locate
from zray.cli.top_figures import Counts, Look, figures
from zray.cli.top_screen import Screen
from zray.errors import ZrayError
from zray.nodes.driver.operator import Operator
from zray.protocol import messages as m

ANSWER_S = 1.0  # a node that has not answered by then has no figures this time
AGAIN_S = 1.0  # after a failure
RUNNING_MAX = 1000  # tasks that run of which is told for how long
COUNTS_SHARE = 20  # counting tasks takes one such part of the time at most
BLINK_S = 0.2  # how soon the age of old figures is seen to grow
SORT_KEYS = {"P": "cpu", "M": "memory", "T": "time", "N": "name"}


class Looker:
    """Looks through one operator. ``address``: of its head."""

    def __init__(self) -> None:
        self._counts: Counts | None = None
        self._before: Counts | None = None
        self._count_at = 0.0
        self._started = 0.0  # the head's, by whose counts ours are meant

    def look(self, operator: Operator) -> Look:
        """What there is now.

        Raises:
            HeadConnectionError, HeadSilentError: the head does not say.
        """
        status = operator.status()
        there = [node.node_id for node in status.nodes if node.state in ("ALIVE", "DRAINING")]
        told = operator.measure(there, ANSWER_S)
        measured = {one: found for one, found in zip(there, told, strict=True) if found is not None}
        running = operator.page(m.TASKS, [m.Filter("state", m.RUNNING)], RUNNING_MAX).tasks
        self._count(operator, status)
        now = time.monotonic()
        return Look(now, status, measured, running, self._counts, self._before)

    def _count(self, operator: Operator, status: m.Status) -> None:
        """Counting costs the head as much as there are unfinished tasks: it is done less often."""
        if status.started_s != self._started:
            self._started, self._counts, self._before, self._count_at = (
                status.started_s,
                None,
                None,
                0,
            )
        began = time.monotonic()
        if began < self._count_at:
            return
        summary = operator.summary(m.TASKS)
        now = time.monotonic()
        self._counts, self._before = Counts(now, summary), self._counts
        self._count_at = now + COUNTS_SHARE * (now - began)


def _words(operator: Operator) -> str:
    return f"cluster {operator.info.name}, head at {operator.address}"


# ---- once, and for programs --------------------------------------------------------------------


def report(
    addresses: list[str], sort: str, every_s: float, rounds: int, *, as_json: bool, lines: int
) -> int:
    """Print so many looks, each against the one before; returns the exit code."""
    looker = Looker()
    try:
        with reporting.operator(addresses, as_json=as_json) as operator:
            before = looker.look(operator)
            for _ in range(rounds):
                time.sleep(every_s)
                now = looker.look(operator)
                shown = figures(before, now, sort)
                before = now
                if as_json:
                    print(json.dumps(shown.as_json()), flush=True)
                    continue
                console = Console(highlight=False, markup=False, emoji=False)
                if not console.is_terminal:
                    console.width = state_view.WIDE
                shown.processes = shown.processes[:lines]
                screen = Screen(_words(operator), sort)
                console.print(screen.render(shown, "", console.width, 0, keys=False))
                sys.stdout.flush()
    except Failed:
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


# ---- live --------------------------------------------------------------------------------------


class Sampler:
    """Looks in a thread of its own, so that keys are heard while the head is silent.

    ``latest``: two looks, once there are. ``trouble``: why there is no newer one; empty: all is
    well. ``fd`` can be read from when something has changed.
    """

    def __init__(self, addresses: Sequence[str], operator: Operator, every_s: float) -> None:
        self._addresses = addresses
        self._operator = operator
        self._every_s = every_s
        self._stop = threading.Event()
        self.latest: tuple[Look | None, Look] | None = None
        self.trouble = ""
        self.rounds = 0
        self.fd, self._tell_fd = os.pipe()
        self._thread = threading.Thread(target=self._run, name="zray-top", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End soon; a question that is open is not waited for."""
        self._stop.set()
        self._thread.join(0.5)

    def _run(self) -> None:
        looker = Looker()
        operator: Operator | None = self._operator
        while not self._stop.is_set():
            try:
                if operator is None:
                    operator = Operator(*locate(self._addresses))
                    operator.__enter__()
                self._took(looker.look(operator))
                pause_s = self._every_s if self.rounds > 1 else min(1.0, self._every_s)
            except (ZrayError, OSError, ValueError) as error:
                self.trouble = str(error)
                if operator is not None:
                    with contextlib.suppress(Exception):
                        operator.__exit__(None, None, None)
                operator, pause_s = None, AGAIN_S
            with contextlib.suppress(OSError):
                os.write(self._tell_fd, b".")
            self._stop.wait(pause_s)
        if operator is not None:
            operator.__exit__(None, None, None)

    def _took(self, look: Look) -> None:
        before = self.latest[1] if self.latest is not None else None
        self.latest, self.trouble = (before, look), ""
        self.rounds += 1


@contextlib.contextmanager
def _keyboard() -> Iterator[int]:
    """Keys come at once and are not shown; the descriptor to read them from, or -1."""
    try:
        import termios
        import tty

        fd = sys.stdin.fileno()
        saved = termios.tcgetattr(fd)
    except (ImportError, OSError, ValueError, termios.error):  # no terminal
        yield -1
        return
    try:
        tty.setcbreak(fd)
        yield fd
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, saved)


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + _number)


def live(addresses: list[str], sort: str, every_s: float, rounds: int) -> int:
    """Show it until q, Ctrl-C, or so many rounds (0: any number); returns the exit code."""
    try:
        operator = Operator(*locate(addresses))
        operator.__enter__()
    except (ZrayError, OSError, ValueError) as error:
        print(f"zray: {error}", file=sys.stderr)
        return 1
    screen = Screen(_words(operator), sort)
    sampler = Sampler(addresses, operator, every_s)
    before = signal.signal(signal.SIGTERM, _end)
    try:
        console = Console(highlight=False, markup=False, emoji=False)
        with (
            _keyboard() as keys,
            Live(console=console, screen=True, auto_refresh=False, transient=True) as shown,
        ):
            sampler.start()
            _loop(screen, sampler, shown, console, keys, rounds)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
        sampler.stop()
    return 0


def _loop(
    screen: Screen, sampler: Sampler, shown: Live, console: Console, keys: int, rounds: int
) -> None:
    while True:
        latest, trouble = sampler.latest, _trouble(sampler)
        found = figures(*latest, screen.sort) if latest is not None else None
        size = console.size
        drawn = screen.render(found, trouble, size.width, size.height - 1, keys=keys >= 0)
        shown.update(drawn, refresh=True)
        if rounds and sampler.rounds > rounds:
            return
        watched = [fd for fd in (sampler.fd, keys) if fd >= 0]
        ready = select.select(watched, [], [], BLINK_S if trouble else None)[0]
        if sampler.fd in ready:
            os.read(sampler.fd, 4096)
        if keys in ready:
            pressed = os.read(keys, 64).decode("ascii", "replace")
            if not pressed or "q" in pressed or "Q" in pressed:
                return
            for key in pressed:
                screen.sort = SORT_KEYS.get(key.upper(), screen.sort)


def _trouble(sampler: Sampler) -> str:
    if not sampler.trouble:
        return ""
    if sampler.latest is None:
        return sampler.trouble
    age = duration(time.time() - sampler.latest[1].clock)
    return f"no news for {age}: {sampler.trouble}"


def show(
    addresses: list[str],
    sort: str,
    every_s: float,
    rounds: int,
    *,
    once: bool,
    as_json: bool,
    lines: int,
) -> int:
    """Show it, live where somebody looks; returns the exit code."""
    if once or as_json or not sys.stdout.isatty():
        count = 1 if once or not (rounds or as_json) else rounds or 1
        return report(addresses, sort, every_s, count, as_json=as_json, lines=lines)
    return live(addresses, sort, every_s, rounds)
