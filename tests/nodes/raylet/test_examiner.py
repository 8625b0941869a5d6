"""What looks into a process is a process of its own: what it says counts, and it ends in time."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from zray import limits
from zray.errors import ProfilerError
from zray.nodes.raylet import examiner
from zray.nodes.raylet.examiner import Examiner
from zray.runtime.loop import Loop

ENOUGH_S = 20.0


class Bench:
    """An examiner on a loop of its own, with a script in the place of py-spy."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = Loop(self._failed)
        self.found: list[tuple[int, bytes, str, str]] = []
        self.examiner = Examiner(self.loop, lambda *found: self.found.append(found))
        self.script = path / "py-spy"
        monkeypatch.setattr(examiner, "find_tool", lambda: str(self.script))

    @staticmethod
    def _failed(what: str, error: Exception) -> None:
        raise error

    def tool(self, text: str) -> None:
        self.script.write_text(f"#!/bin/sh\n{text}\n")
        self.script.chmod(self.script.stat().st_mode | stat.S_IXUSR)

    def look(self, seconds: float = 0.0) -> tuple[int, bytes, str, str]:
        self.examiner.start(7, os.getpid(), seconds)
        deadline = time.monotonic() + ENOUGH_S
        while not self.found:
            assert time.monotonic() < deadline
            self.loop.turn(0.05)
        return self.found.pop()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(tmp_path, monkeypatch)
    yield made
    made.examiner.close()
    made.loop.close()


def test_what_it_says_is_the_stack(bench: Bench) -> None:
    bench.tool('echo "$1 of $3"; echo aside >&2')
    assert bench.look() == (7, f"dump of {os.getpid()}\n".encode(), "", "")


def test_a_flame_graph_is_what_it_writes(bench: Bench) -> None:
    bench.tool('echo progress; for last; do :; done; shift 7; echo "$2 <svg>" > "$2"')
    _, data, code, _ = bench.look(2.0)
    assert b"<svg>" in data and b"progress" not in data and not code


def test_why_it_fails_is_told(bench: Bench) -> None:
    bench.tool('echo "Error: no such process" >&2; exit 3')
    _, data, code, text = bench.look()
    assert (data, code) == (b"", ProfilerError.code)
    assert "exit status 3" in text and "no such process" in text


def test_a_missing_right_is_told_with_how_to_get_it(bench: Bench) -> None:
    bench.tool('echo "Permission Denied: Try running again with elevated permissions" >&2; exit 1')
    *_, text = bench.look()
    assert "SYS_PTRACE" in text and "ptrace_scope" in text


def test_a_tool_that_is_not_there_or_cannot_be_started(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "cannot be started" in bench.look()[3]
    monkeypatch.setattr(examiner, "find_tool", lambda: None)
    assert 'pip install "zray[profile]"' in bench.look()[3]


def test_one_that_does_not_end_is_ended(bench: Bench) -> None:
    bench.tool("exec sleep 600")
    bench.examiner.start(7, os.getpid(), 0.0)
    bench.loop.turn(0.1)
    assert not bench.found
    bench.examiner.end(7)
    deadline = time.monotonic() + ENOUGH_S
    while not bench.found:
        assert time.monotonic() < deadline
        bench.loop.turn(0.05)
    assert bench.found[0][2] == ProfilerError.code
    bench.examiner.end(7)  # it has ended


def test_what_is_too_much_is_no_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EXAMINED_BYTES_MAX", 1000)
    bench.tool("head -c 1500 /dev/zero")
    _, data, code, _ = bench.look()
    assert (data, code) == (b"", ProfilerError.code)
    bench.tool("head -c 50000000 /dev/zero")  # it is stopped from writing more
    assert bench.look()[2] == ProfilerError.code


def test_those_that_run_end_with_the_node(bench: Bench) -> None:
    bench.tool("exec sleep 600")
    bench.examiner.start(8, os.getpid(), 0.0)
    (look,) = bench.examiner._looks.values()
    bench.examiner.close()
    assert look.process.returncode is not None and not bench.examiner._looks
