"""Processes that build parts of environments, and the folder of what is built, on a real loop."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from zray.core.environments import part_id
from zray.core.raylet.effects import BuildPart, EndBuild, RemovePart
from zray.nodes.raylet.environment_builds import EnvironmentBuilds
from zray.protocol import messages as m
from zray.runtime import packages
from zray.runtime.loop import Loop


class Heard:
    """What the machine would hear."""

    def __init__(self) -> None:
        self.there: dict[str, tuple[int, str]] = {}
        self.texts: dict[str, str] = {}
        self.lines: list[str] = []
        self.pids: list[int] = []

    def began(self, number: str, pid: int) -> None:
        self.pids.append(pid)

    def said(self, number: str, lines: list[str]) -> None:
        self.lines += lines

    def built(self, number: str, size: int, place: str, now: float) -> None:
        self.there[number] = (size, place)

    def failed(self, number: str, text: str, now: float) -> None:
        self.texts[number] = text


class Bench:
    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
        self.errors: list[Exception] = []
        self.loop = Loop(lambda what, error: self.errors.append(error))
        self.heard: Any = Heard()
        self.builds = EnvironmentBuilds(self.loop, lambda: self.heard, lambda number: None)
        self.base = tmp_path

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 20.0
        while not condition():
            assert time.monotonic() < deadline
            self.loop.turn(0.05)
        assert self.errors == []

    def files(self) -> list[str]:
        return sorted(one.name for one in self.base.rglob("*") if one.is_file())


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    base = tmp_path / "temporary"
    base.mkdir()
    made = Bench(base, monkeypatch)
    yield made
    made.builds.close()
    made.loop.close()
    assert made.files() == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in made.heard.pids)


def package(tmp_path: Path) -> tuple[m.EnvironmentPart, bytes]:
    top = tmp_path / "top"
    top.mkdir()
    (top / "a.txt").write_text("abc")
    made = packages.pack(top)
    return m.EnvironmentPart(m.WORKING_DIR, "zray://x.zip", made.digest), bytes(made.data)


def test_a_package_is_unpacked_and_removed(bench: Bench, tmp_path: Path) -> None:
    part, data = package(tmp_path)
    number = part_id(part)
    bench.builds.carry_out(BuildPart(number, part, memoryview(data)))
    bench.until(lambda: number in bench.heard.there)
    size, place = bench.heard.there[number]
    assert size == 3 and (Path(place) / "a.txt").read_text() == "abc"
    bench.builds.carry_out(RemovePart(number))
    assert not Path(place).exists()
    bench.builds.carry_out(BuildPart(number, part, memoryview(data)))
    bench.heard.there.clear()
    bench.until(lambda: number in bench.heard.there)
    assert (Path(place) / "a.txt").exists()


def test_a_package_that_is_another_than_its_name_says_is_refused(
    bench: Bench, tmp_path: Path
) -> None:
    part, data = package(tmp_path)
    bench.builds.carry_out(BuildPart("1" * 32, part, data + b"more"))
    bench.until(lambda: bench.heard.texts)
    assert "is not the one that its name says" in bench.heard.texts["1" * 32]
    bench.until(lambda: not any(name.endswith((".package", ".away")) for name in bench.files()))


def test_a_build_that_is_ended_leaves_nothing_and_tells_nothing(bench: Bench) -> None:
    part = m.EnvironmentPart(m.PY_EXECUTABLE, "/bin/sleep 1000")
    bench.builds.carry_out(BuildPart("2" * 32, part, None))
    bench.until(lambda: bench.heard.pids)
    bench.builds.carry_out(EndBuild("2" * 32))
    bench.until(lambda: not bench.builds._builds)
    assert not bench.heard.texts and not bench.heard.there


def test_what_is_wanted_again_is_built_when_that_which_was_ended_has(
    bench: Bench, tmp_path: Path
) -> None:
    part, data = package(tmp_path)
    number = part_id(part)
    endless = m.EnvironmentPart(m.PY_EXECUTABLE, "/bin/sleep 1000")
    bench.builds.carry_out(BuildPart(number, endless, None))
    bench.until(lambda: bench.heard.pids)
    for _ in range(3):
        bench.builds.carry_out(EndBuild(number))
        bench.builds.carry_out(BuildPart(number, part, memoryview(data)))
    bench.until(lambda: number in bench.heard.there)
    assert not bench.heard.texts and len(bench.heard.pids) == 2
    bench.until(lambda: not any(name.endswith((".package", ".away")) for name in bench.files()))
    bench.builds.carry_out(BuildPart(number, endless, None))
    bench.until(lambda: len(bench.heard.pids) == 3)
    bench.builds.carry_out(BuildPart(number, endless, None))  # of another incarnation
    os.killpg(bench.heard.pids[-1], signal.SIGKILL)
    bench.until(lambda: number in bench.heard.texts)
    assert len(bench.heard.pids) == 3


def test_what_a_build_has_left_running_ends_with_it(bench: Bench) -> None:
    seconds = f"{os.getpid()}.5"
    command = f"sh -c 'sleep {seconds} > /dev/null 2>&1 & exit 1'"
    bench.builds.carry_out(BuildPart("4" * 32, m.EnvironmentPart(m.PY_EXECUTABLE, command), None))
    bench.until(lambda: bench.heard.texts)
    bench.until(lambda: not any(["sleep", seconds] == one for one in command_lines()))


def command_lines() -> list[list[str]]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            found.append(process.cmdline())
    return found


def test_a_build_that_runs_when_the_node_ends_is_ended(bench: Bench) -> None:
    part = m.EnvironmentPart(m.PY_EXECUTABLE, "/bin/sleep 1000")
    bench.builds.carry_out(BuildPart("3" * 32, part, None))
    bench.until(lambda: bench.heard.pids)
    # The fixture closes all, and looks whether it is gone.
