"""``zray top``: what it makes of two looks, and how it is on a terminal of a real cluster."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace
from rich.console import Console

from tests.cli.conftest import until
from zray.cli.top_figures import Counts, Look, figures
from zray.cli.top_screen import Screen
from zray.protocol import messages as m

PROGRAM = """
import sys, time
import zray
zray.init(sys.argv[1])

@zray.remote
def short(x):
    pass

@zray.remote(num_cpus=0)
class Spinner:
    def spin(self):
        while True:
            sum(range(1000))

spinner = Spinner.remote()
spinner.spin.remote()
print("spins", flush=True)
while True:
    zray.get([short.remote(1) for _ in range(20)])
    time.sleep(0.05)
"""
SHUT = "\x1b[?1049l"  # the screen is as it was before


# ---- what it makes of two looks ----------------------------------------------------------------

NODE = b"n" * 16
INFO = m.NodeInfo("n1", "host", 1, [("CPU", 40_000)], [], "machine")


def look(at: float, *processes: m.UsedBy, cpu_s: float = 0.0, counts: Any = None) -> Look:
    node = m.NodeStatus(NODE, 1, "ALIVE", INFO, [("CPU", 10_000)], 3, 2, 7, 0.0)
    status = m.Status(0, 0, b"c" * 16, 1.0, "OK", [node], [], [], 5, [], [])
    machine = m.MachineUsage(4, cpu_s, 1 << 30, 1 << 29, 0.0)
    told = m.Measured(0, b"o" * 16, 1, at + 1000, machine, m.StoreUsage(100, 50), [*processes])
    found = Look(at, status, {NODE: told}, clock=2000.0 + at)
    if counts is not None:
        found.counts_before, found.counts = counts
    return found


def process(pid: int, cpu_s: float, rss: int = 1, started_s: float = 1000.0) -> m.UsedBy:
    usage = m.Usage(pid, cpu_s, rss, 0, 1, "R", started_s)
    return m.UsedBy(usage, m.WORKER_PROCESS, bytes([pid]) * 16, b"", b"", f"f{pid}", True)


def test_shares_are_of_the_time_between_two_looks() -> None:
    before = look(0, process(1, 10.0), process(2, 0.0, rss=9), cpu_s=100)
    now = look(2, process(1, 10.5), process(2, 2.0, rss=9), process(3, 5.0), cpu_s=106)
    found = figures(before, now)
    assert [(one.pid, one.cpu_percent) for one in found.processes] == [
        (2, 100.0),
        (1, 25.0),
        (3, pytest.approx(100 * 5 / 1002)),  # since its start: it is new
    ]
    assert found.nodes[0].cpu_percent == 75.0
    assert (found.nodes[0].cpus_used, found.nodes[0].cpus) == (3.0, 4.0)
    assert [one.pid for one in figures(before, now, "memory").processes] == [2, 1, 3]
    assert [one.pid for one in figures(before, now, "time").processes] == [1, 3, 2]


def test_another_process_of_the_same_pid_has_not_run_backwards() -> None:
    before, now = look(0, process(1, 50.0)), look(2, process(1, 1.0, started_s=1992.0))
    assert figures(before, now).processes[0].cpu_percent == pytest.approx(10.0)


def test_one_look_alone_has_no_rates() -> None:
    found = figures(None, look(0, process(1, 1.0)))
    assert found.per_s is None and found.nodes[0].cpu_percent is None


def test_rates_are_of_tasks_that_have_ended_between_two_counts() -> None:
    def counted(at: float, *groups: m.Group) -> Counts:
        return Counts(at, m.Summary(0, 1, m.TASKS, 0, [*groups]))

    states = [("FINISHED", 10), ("FAILED", 2)]
    first = counted(0, m.Group("f", m.NORMAL_TASK, [*states]))
    later = [("FINISHED", 30), ("FAILED", 4), ("PENDING_ARGS_AVAIL", 5)]
    second = counted(
        4, m.Group("f", m.NORMAL_TASK, later), m.Group("g", m.NORMAL_TASK, [("FINISHED", 400)])
    )
    found = figures(None, look(5, counts=(first, second)))
    assert [(one.name, one.per_s, one.waiting) for one in found.names] == [
        ("g", 100.0, 0),
        ("f", 5.5, 5),
    ]
    assert found.per_s == 105.5


@pytest.mark.parametrize(("width", "height"), [(20, 6), (40, 12), (80, 24), (200, 60)])
def test_a_terminal_of_any_size_is_not_left(width: int, height: int) -> None:
    evil = "\x1b[31m[bold]\u4f60\u597d" * 20
    now = look(2, *(process(pid, pid / 10, rss=pid << 20) for pid in range(1, 200)))
    now.measured[NODE].processes[0] = replace(now.measured[NODE].processes[0], title=evil)
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    screen = Screen(evil, "cpu")
    for trouble in ("", "no news for 5 s: " + evil):
        drawn = screen.render(figures(None, now), trouble, width, height, keys=True)
        lines = console.render_lines(drawn, pad=False)
        assert len(lines) <= height
        text = ["".join(one.text for one in line) for line in lines]
        assert "\x1b" not in "".join(text)
        assert "q quits" in "".join(text) or width < 10


# ---- on a real cluster -------------------------------------------------------------------------


class Terminal:
    """``zray top`` on a terminal of its own; ``text``: all that it has written."""

    def __init__(self, commands: Any, *options: object) -> None:
        self.ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.before = termios.tcgetattr(self.theirs)
        line = commands.line("zray", "top", "-d", 0.3, *options)
        ends = {"stdin": self.theirs, "stdout": self.theirs, "stderr": self.theirs}
        self.process = subprocess.Popen(line, **ends, env={**os.environ, "TERM": "xterm"})
        self.text = ""
        self._over = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while not self._over.is_set():
            if select.select([self.ours], [], [], 0.05)[0]:
                with contextlib.suppress(OSError):
                    self.text += os.read(self.ours, 1 << 16).decode("utf-8", "replace")

    def shows(self, text: str, since: int = 0) -> int:
        """Wait for it; how much has been written by then."""
        until(lambda: text in self.text[since:], f"{text!r} in {self.text[-3000:]!r}")
        return len(self.text)

    def press(self, key: str) -> None:
        os.write(self.ours, key.encode())

    def ends(self, code: int) -> None:
        assert self.process.wait(10) == code, self.text[-3000:]
        until(lambda: SHUT in self.text, "the screen is shut")
        assert termios.tcgetattr(self.theirs) == self.before

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self._over.set()
        self._reader.join()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def busy(commands: Any) -> Iterator[Any]:
    """A head with a program that runs short tasks and an actor that spins."""
    head = commands.head("--num-cpus", 1)
    path = commands.home / "program.py"
    path.write_text(PROGRAM)
    program = subprocess.Popen(
        [sys.executable, str(path), head.address()],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert program.stdout is not None and program.stdout.readline() == b"spins\n"
    yield head
    program.kill()
    program.wait(10)
    program.stdout.close()


def test_once_says_what_is_busy(busy: Any, commands: Any) -> None:
    def looked() -> Any:
        found = json.loads(commands.run("zray", "top", "--once", "--json").stdout)
        names = {one["name"]: one for one in found["names"]}
        spins = names.get("Spinner.spin", {}).get("running") == 1
        return found if spins and names["short"]["per_s"] else None

    found = until(looked, "tasks end and a call runs")
    (node,) = found["nodes"]
    assert node["state"] == "ALIVE" and node["workers"] >= 2 and node["cpu_percent"] > 0
    first = max(found["processes"], key=lambda one: one["cpu_percent"])
    (spinner,) = [one for one in found["processes"] if one["title"] == "Spinner"]
    assert spinner["runs_s"] > 0 and spinner["actor_id"] and spinner["cpu_percent"] > 5
    assert first["cpu_percent"] >= spinner["cpu_percent"]
    assert {one["kind"] for one in found["processes"]} == {"NODE", "HEAD", "WORKER"}
    text = commands.run("zray", "top", "--once", "--lines", 1, "--sort", "time").stdout
    assert "actor Spinner" in text and "tasks/s" in text
    rounds = commands.run("zray", "top", "--json", "-n", 2, "-d", 0.3).stdout.splitlines()
    assert len(rounds) == 2


def test_live_until_somebody_quits(busy: Any, commands: Any) -> None:
    terminal = Terminal(commands)
    try:
        terminal.shows("actor Spinner")
        terminal.press("m")
        at = terminal.shows("(now memory)")
        os.kill(busy.pid, signal.SIGSTOP)
        try:
            terminal.shows("no news for", at)
            terminal.press("T")  # it hears all the same
            terminal.shows("(now time)", at)
        finally:
            os.kill(busy.pid, signal.SIGCONT)
        at = len(terminal.text)
        until(lambda: "no news for" not in _last(terminal.text[at:]), "the head is back")
        terminal.press("q")
        terminal.ends(0)
    finally:
        terminal.close()


def test_it_goes_on_with_the_next_head(commands: Any) -> None:
    head = commands.head("--num-cpus", 0)
    port = head.address().rpartition(":")[2]
    terminal = Terminal(commands)
    try:
        at = terminal.shows("q quits")
        head.end(signal.SIGKILL)
        at = terminal.shows("no news for", at)
        commands.start("zray-head", "--port", port, "--num-cpus", 0)
        until(lambda: "no news for" not in _last(terminal.text[at:]), "the next head is found")
        terminal.press("q")
        terminal.ends(0)
    finally:
        terminal.close()


def _last(text: str) -> str:
    """The last screen that is whole."""
    screens = text.split("\x1b[H")
    return screens[-2] if len(screens) > 2 else "no news for"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_the_terminal_as_it_was(
    commands: Any, number: signal.Signals, code: int
) -> None:
    commands.head()
    terminal = Terminal(commands)
    try:
        terminal.shows("q quits")
        terminal.process.send_signal(number)
        terminal.ends(code)
    finally:
        terminal.close()


def test_without_a_head_it_says_so_and_ends(commands: Any) -> None:
    done = commands.run("zray", "top", "--once", code=1)
    assert "zray: " in done.stderr
    terminal = Terminal(commands)
    try:
        assert terminal.process.wait(20) == 1
        assert SHUT not in terminal.text
    finally:
        terminal.close()
