"""The runner of a job's command alone: how that ends, and that nothing of it is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from zray.runtime.linux import job_runner

GRACE_S = 0.5
WAIT_S = 20.0


class Run:
    """A runner and its command; ``mark`` is in the environment of all that the command starts."""

    def __init__(self, command: str, grace_s: float = GRACE_S) -> None:
        ours, theirs = os.pipe()
        self.mark = f"ZRAY_TEST_RUN={os.getpid()}-{time.monotonic_ns()}"
        name, _, value = self.mark.partition("=")
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(job_runner.__file__)), str(theirs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, name: value},
            pass_fds=(theirs,),
            start_new_session=True,
        )
        os.close(theirs)
        self._status = ours
        assert self.process.stdin is not None
        order = {"command": command, "grace_s": grace_s}
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()

    def hang_up(self) -> None:
        """The supervisor ends."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def outcome(self) -> dict[str, Any]:
        status_fd, self._status = self._status, -1
        with open(status_fd, "rb") as status:
            found: dict[str, Any] = json.loads(status.read())
        return found

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdout.close()
        self.process.stdin.close()
        if self._status >= 0:
            os.close(self._status)

    def printed(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.read()

    def line(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def left(self) -> list[int]:
        """Processes that are of the command, or the runner."""
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                if self.mark.encode() in Path(f"/proc/{name}/environ").read_bytes():
                    found.append(int(name))
            except OSError:
                continue
        return found


@pytest.fixture
def run() -> Iterator[Callable[..., Run]]:
    made: list[Run] = []

    def start(*args: Any) -> Run:
        made.append(Run(*args))
        return made[-1]

    yield start
    for one in made:
        for pid in one.left():
            os.kill(pid, signal.SIGKILL)
        one.process.wait(WAIT_S)
        one.close()


def gone(one: Run) -> bool:
    deadline = time.monotonic() + WAIT_S
    while one.left() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not one.left()


def test_a_command_that_ends_well_and_what_it_prints(run: Callable[..., Run]) -> None:
    one = run("echo out; echo err >&2")
    assert one.printed() == b"out\nerr\n"
    assert one.outcome() == {"exit_code": 0, "text": "out\nerr\n"}


@pytest.mark.parametrize(
    ("command", "code"), [("exit 3", 3), ("kill -9 $$", -9), ("no-such-program", 127)]
)
def test_how_it_ends(run: Callable[..., Run], command: str, code: int) -> None:
    assert run(command).outcome()["exit_code"] == code


def test_only_the_last_that_it_has_printed_is_told(run: Callable[..., Run]) -> None:
    one = run("head -c 300000 /dev/zero | tr '\\0' x; echo end; exit 1")
    assert len(one.printed()) == 300004
    text = one.outcome()["text"]
    assert text.endswith("end\n") and len(text) == job_runner.TAIL_BYTES


def test_its_supervisors_end_is_its_own(run: Callable[..., Run]) -> None:
    one = run("trap 'echo bye; exit 7' TERM; echo began; while :; do sleep 0.05; done")
    assert one.line() == b"began\n"
    one.hang_up()
    assert one.printed().endswith(b"bye\n") and one.outcome()["exit_code"] == 7
    assert gone(one)


def test_one_that_does_not_obey_is_killed(run: Callable[..., Run]) -> None:
    one = run("trap '' TERM; echo began; while :; do sleep 0.05; done")
    assert one.line() == b"began\n"
    began = time.monotonic()
    one.hang_up()
    assert one.outcome()["exit_code"] == -9
    assert time.monotonic() - began >= GRACE_S and gone(one)


def test_one_that_is_stopped_by_a_signal_is_ended(run: Callable[..., Run]) -> None:
    one = run("echo $$; kill -STOP $$; sleep 60")
    one.line()
    one.hang_up()
    assert one.outcome()["exit_code"] == -15 and gone(one)


@pytest.mark.parametrize(
    "left",
    [
        "sleep 60 &",
        "setsid sleep 60 & ",
        "(setsid sh -c 'sleep 60 & sleep 60' &)",
        "(trap '' TERM; sleep 60) &",
    ],
)
def test_nothing_that_it_has_started_outlives_it(run: Callable[..., Run], left: str) -> None:
    one = run(f"{left}\necho began")
    assert one.line() == b"began\n"
    assert one.outcome()["exit_code"] == 0
    assert one.printed() == b"" and gone(one)


def test_what_a_daemon_of_it_started_ends_when_it_is_stopped(run: Callable[..., Run]) -> None:
    one = run("setsid sh -c 'echo began; sleep 60 & sleep 60' & sleep 60")
    one.line()
    one.hang_up()
    assert one.outcome()["exit_code"] == -15 and gone(one)


def test_signals_to_the_runner_are_not_the_commands(run: Callable[..., Run]) -> None:
    one = run("echo began; read line < /dev/null; sleep 0.3; trap")
    one.line()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        one.process.send_signal(number)
    assert one.outcome() == {"exit_code": 0, "text": "began\n"}


def test_a_command_ends_with_a_runner_that_is_killed(run: Callable[..., Run]) -> None:
    one = run("echo $$; exec sleep 60")
    one.line()
    one.process.kill()
    assert gone(one)


def test_nobody_who_reads_what_it_prints_does_not_end_it(run: Callable[..., Run]) -> None:
    one = run("echo began; sleep 0.2; for i in 1 2 3; do echo more || exit 9; done")
    one.line()
    assert one.process.stdout is not None
    one.process.stdout.close()
    assert one.outcome()["exit_code"] == 0


def test_a_supervisor_that_ends_before_it_has_said_anything(run: Callable[..., Run]) -> None:
    ours, theirs = os.pipe()
    command = [sys.executable, "-I", "-S", str(Path(job_runner.__file__)), str(theirs)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(theirs,))
    os.close(theirs)
    with open(ours, "rb") as status:
        assert status.read() == b""
    assert process.wait(WAIT_S) == 1
