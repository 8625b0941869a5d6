"""``priority=``: which of a program's ready tasks start first, on each way that they can go."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import zray
from tests.api.conftest import eventually

pytestmark = pytest.mark.usefixtures("cluster")


@zray.remote
def notes(log: Path, name: str, seconds: float = 0.0, *_: Any) -> None:
    with log.open("a") as file:
        file.write(f"{name} ")
    time.sleep(seconds)


@zray.remote
def holds(began: Path, free: Path) -> None:
    began.touch()
    while not free.exists():
        time.sleep(0.005)


class Gate:
    """Both CPUs are in use until it opens."""

    def __init__(self, place: Path) -> None:
        self._free = place / "free"
        marks = [place / "a", place / "b"]
        self._refs = [holds.remote(mark, self._free) for mark in marks]
        eventually(lambda: all(mark.exists() for mark in marks))

    def open(self) -> None:
        self._free.touch()
        zray.get(self._refs, timeout=20)


def positions(log: Path) -> dict[str, list[int]]:
    """The places at which tasks of each name started."""
    found: dict[str, list[int]] = {}
    for place, name in enumerate(log.read_text().split()):
        found.setdefault(name, []).append(place)
    return found


def test_those_with_more_start_first_whenever_they_were_submitted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    gate = Gate(tmp_path)
    refs = [notes.remote(log, "normal", 0.01) for _ in range(10)]
    refs += [notes.options(priority=-5).remote(log, "low", 0.01) for _ in range(6)]
    refs += [notes.options(priority=2).remote(log, "high", 0.01) for _ in range(6)]
    refs += [notes.options(priority=7).remote(log, "highest", 0.01) for _ in range(6)]
    refs += [notes.remote(log, "normal", 0.01) for _ in range(4)]
    gate.open()
    zray.get(refs, timeout=20)
    found = positions(log)
    # Two CPUs: what starts at the same time may be written down in any order.
    order = [found[name] for name in ("highest", "high", "normal", "low")]
    assert all(max(before) - 1 <= min(after) for before, after in pairwise(order))


def test_one_comes_before_thousands(tmp_path: Path) -> None:
    log = tmp_path / "log"
    refs = [notes.remote(log, "normal", 0.001) for _ in range(2000)]
    eventually(log.exists)
    urgent = notes.options(priority=1).remote(log, "urgent")
    zray.get(urgent, timeout=20)
    so_far = len(log.read_text().split())
    assert so_far < 1500, so_far
    for ref in refs:
        zray.cancel(ref)


def test_of_what_a_task_submits_too(tmp_path: Path) -> None:
    @zray.remote
    def parent(log: Path) -> None:
        urgent = notes.options(priority=1)
        zray.get([urgent.remote(log, "first")])
        refs = [notes.remote(log, "normal", 0.02) for _ in range(20)]
        refs += [urgent.remote(log, "high", 0.02) for _ in range(6)]
        zray.get(refs)

    log = tmp_path / "log"
    gate = holds.remote(tmp_path / "a", tmp_path / "free")  # one CPU is left for all of it
    eventually((tmp_path / "a").exists)
    zray.get(parent.remote(log), timeout=20)
    (tmp_path / "free").touch()
    zray.get(gate)
    found = positions(log)
    assert max(found["high"]) <= 12, found


def test_a_large_argument_s_node_does_not_matter(tmp_path: Path) -> None:
    log = tmp_path / "log"
    large = zray.put(bytes(2_000_000))
    gate = Gate(tmp_path)
    refs = [notes.options(priority=-1).remote(log, "low", 0.01, large) for _ in range(8)]
    refs += [notes.options(priority=1).remote(log, "high", 0.01) for _ in range(8)]
    gate.open()
    zray.get(refs, timeout=20)
    found = positions(log)
    early = [place for place in found["low"] if place < max(found["high"]) - 1]
    assert len(early) <= 2, "each was next on its CPU before the others came"


def test_it_is_a_whole_number() -> None:
    with pytest.raises(TypeError, match=r"priority must be a whole number, got 1\.5"):
        notes.options(priority=1.5)
    with pytest.raises(TypeError, match="priority must be a whole number, got True"):
        notes.options(priority=True)
    with pytest.raises(ValueError, match="priority must be within 1000000 of 0"):
        notes.options(priority=2_000_000)
    with pytest.raises(ValueError, match="'priority' is an option of tasks, not of actors"):

        @zray.actor(priority=1)
        class Counter: ...
