"""Who holds the memory? The command and the program say the same, and it is true."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import zray
from tests.real_cluster import until
from zray.util import state
from zray.util.state import memory as memory_of

ASK_S = 20.0
MB = 1 << 20


@zray.remote(num_cpus=0)
class Keeper:
    def keep(self, boxed: list[Any]) -> int:
        self.kept = boxed
        return os.getpid()

    def make(self, count: int) -> str:
        self.own = zray.put(np.zeros(count))
        return str(self.own.hex())


def command(*options: str) -> Any:
    """What ``zray memory`` prints."""
    line = [sys.executable, "-m", "zray", "memory", "--json", *options]
    done = subprocess.run(line, capture_output=True, text=True, timeout=ASK_S, env={**os.environ})
    assert not done.stderr
    return json.loads(done.stdout)


def both(ref: Any, wanted: set[tuple[str, str, int]]) -> list[Any]:
    """The references to an object once there are these, by command and from Python.

    Each: what it is, of which kind of holder, and its pid.
    """

    def held() -> list[Any]:
        return [one for one in memory_of.memory().references if one.object_id == ref.hex()]

    def of(rows: list[Any]) -> set[tuple[str, str, int]]:
        return {(row["reference_type"], row["type"], row["pid"]) for row in rows}

    try:
        found = until(lambda: held() if of(held()) == wanted else None, ASK_S, "they are")
    except TimeoutError:
        raise AssertionError(f"{wanted} are not {held()}") from None
    told = [row for row in command()["references"] if row["object_id"] == ref.hex()]
    assert of(told) == wanted
    (listed,) = state.get_objects(ref.hex())
    assert of(listed.references) == wanted
    return found


@pytest.fixture
def noted(bare: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A cluster of two nodes of which this driver and its workers note who makes references."""
    monkeypatch.setenv("ZRAY_RECORD_CALL_SITE", "1")
    bare.start_head()
    bare.start_node("one", 1, "--resources", "one=10")
    bare.connect()
    return bare


def line_of(text: str) -> int:
    """The line of this file that has the text first."""
    with open(__file__) as file:
        return next(number for number, line in enumerate(file, 1) if text in line)


def test_who_holds_the_memory(noted: Any, gate: Any) -> None:
    me = os.getpid()
    large = zray.put(np.zeros(MB))  # by the driver
    (row,) = both(large, {("LOCAL_REFERENCE", "DRIVER", me)})
    assert row.object_size >= 8 * MB and row.places == ["shared memory of head"]
    where = f"{__file__}:test_who_holds_the_memory:{line_of('# by the driver')}"
    assert row.call_site == f"(put object) | {where}"

    keeper = Keeper.options(resources={"one": 1}).remote()
    pid = zray.get(keeper.keep.remote([large]))
    rows = both(large, {("LOCAL_REFERENCE", "DRIVER", me), ("LOCAL_REFERENCE", "WORKER", pid)})
    (worker,) = [row for row in rows if row.type == "WORKER"]
    assert (worker.holder_name, worker.node) == ("Keeper", "one")
    assert worker.call_site == row.call_site  # that made it, not that took it


def test_a_task_that_waits_and_an_array_that_outlives_its_reference(noted: Any, gate: Any) -> None:
    me = os.getpid()
    large = zray.put(np.zeros(MB))
    waits = zray.remote(lambda value: gate.wait()).options(resources={"one": 1})
    tasks = [waits.remote(large) for _ in range(2)]
    ref_hex = large.hex()
    rows = until(lambda: _running(ref_hex), ASK_S, "one runs, which has it mapped")
    users = {(row.type, row.holder_name) for row in rows if row.type == "TASK"}
    assert users == {("TASK", "<lambda>")}
    (driver,) = [row for row in rows if row.type == "DRIVER"]
    assert driver.references == {"USED_BY_PENDING_TASK": 2, "LOCAL_REFERENCE": 1}
    gate.open()
    zray.get(tasks)

    mapped = zray.get(large)
    del large
    zray.wait([zray.put(1)])

    def outlived() -> Any:
        held = [one for one in memory_of.memory().references if one.object_id == ref_hex]
        return (
            held
            if [(one.reference_type, one.type, one.pid) for one in held]
            == [("PINNED_IN_MEMORY", "DRIVER", me)]
            and held[0].references == {"PINNED_IN_MEMORY": 1}
            else None
        )

    until(outlived, ASK_S, "the array alone holds it")
    del mapped
    gc.collect()
    until(
        lambda: all(one.object_id != ref_hex for one in memory_of.memory().references),
        ASK_S,
        "nobody holds it any more",
    )


def _running(ref_hex: str) -> Any:
    held = [one for one in memory_of.memory().references if one.object_id == ref_hex]
    return held if any(one.type == "WORKER" for one in held) else None


def test_what_only_this_program_or_a_worker_knows_is_told_as_well(noted: Any) -> None:
    small = zray.put(1)
    keeper = Keeper.remote()
    own = zray.get(keeper.make.remote(MB))
    listed = {one.object_id: one for one in state.list_objects(limit=1000)}
    assert listed[small.hex()].reference_type == "LOCAL_REFERENCE"
    here = "test_what_only_this_program_or_a_worker_knows_is_told_as_well"
    assert listed[small.hex()].call_site.endswith(f":{here}:{line_of('small = zray.put(1)')}")
    (held,) = listed[own].references
    assert held["holder_name"] == "Keeper" and held["call_site"].startswith("(put object) | ")
    inner = zray.put(2)
    outer = zray.put([inner])
    told = {row["object_id"]: row for row in command()["references"]}
    assert told[inner.hex()]["references"] == {"LOCAL_REFERENCE": 1, "CAPTURED_IN_OBJECT": 1}
    assert told[keeper._actor_id.hex() + "00000000"]["reference_type"] == "ACTOR_HANDLE"
    assert outer.hex() in told


def test_who_does_not_answer_is_named_and_the_others_are_there(noted: Any) -> None:
    keeper = Keeper.options(resources={"one": 1}).remote()
    held = zray.put(np.zeros(MB))
    pid = zray.get(keeper.keep.remote([held]))
    os.kill(pid, signal.SIGSTOP)
    try:
        found = memory_of.memory()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert found.silent == [f"worker pid {pid} of node one"]
    kinds = {(row.type, row.reference_type) for row in found.references}
    assert ("DRIVER", "LOCAL_REFERENCE") in kinds
    # What it holds the head knows all the same.
    assert {row.pid for row in found.references if row.object_id == held.hex()} == {
        os.getpid(),
        pid,
    }


def test_the_command_groups_sums_and_fits(noted: Any) -> None:
    refs = []
    for _ in range(3):
        refs.append(zray.put(np.zeros(MB // 8)))  # three times
    line = [sys.executable, "-m", "zray", "memory"]

    def told(*options: str) -> str:
        done = subprocess.run([*line, *options], capture_output=True, text=True, timeout=ASK_S)
        assert done.returncode == 0, done.stderr
        return done.stdout

    text = told("--group-by", "STACK_TRACE", "--units", "MB", "--sort-by", "OBJECT_SIZE")
    site = f"test_the_command_groups_sums_and_fits:{line_of('# three times')}"
    assert f"{site}: 3 objects, 3.00 MB, by 3 references" in text
    text = told("-n", "1")
    assert "smaller ones are not shown" in text and refs[0].hex()[:8] in text
    text = told("--stats-only")
    assert "of shared memory" in text and refs[0].hex() not in text
    sums = command("--stats-only")
    assert "references" not in sums and sums["bytes"] >= 3 * MB
