"""What a node keeps of failed attempts: the latest, within bytes, and how it is read."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.benches import identity
from tests.core.raylet.task_bench import TaskBench
from zray import limits
from zray.core import failures
from zray.core.raylet.failed_runs import FailedRuns
from zray.errors import RunNotKeptError
from zray.protocol import failed_run
from zray.protocol import messages as m

ME = identity("driver")
NODE = identity("n1")


class Node:
    def __init__(self) -> None:
        self.told: list[Any] = []
        self.runs = FailedRuns("n1", m.Versions("3.11", "0", "3"), self.told.append)

    def keep(self, task: str, data: bytes = b"data", function: bytes = b"code") -> None:
        run = m.KeptRun(identity(task), 1, task, b"", 0.0, "it raised")
        self.runs.keep(m.KeepRun(0, run, function[:16].ljust(16), function, data))

    def part(self, task: str, offset: int = 0) -> m.RunPart:
        self.runs.on_read(m.ReadRun(7, ME, NODE, identity(task), offset))
        answer = self.told.pop()
        assert (answer.target, answer.about) == (ME, 7)
        assert isinstance(answer, m.RunPart)
        return answer

    def listed(self) -> m.RunsListed:
        self.runs.on_list(m.ListRuns(8, ME, NODE))
        answer = self.told.pop()
        assert isinstance(answer, m.RunsListed)
        return answer


def test_what_is_kept_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REPLAY_PART_BYTES_MAX", 3)
    node = Node()
    node.keep("t", b"abcdefg", b"xyz")

    found = b""
    while (part := node.part("t", len(found))).data:
        found += part.data

    assert found == b"abcdefgxyz"
    assert (part.size, part.function_size, part.code) == (10, 3, "")


def test_what_is_not_kept_has_a_code() -> None:
    answer = Node().part("t")
    assert answer.code == RunNotKeptError.code and identity("t").hex() in answer.text
    assert not answer.data


def test_the_last_attempt_of_a_task_stays() -> None:
    node = Node()
    node.keep("t", b"first")
    node.keep("u", b"other")
    node.keep("t", b"second")

    assert node.part("t").data == b"secondcode"
    assert [run.name for run in node.listed().runs] == ["t", "u"]


def test_the_oldest_go_first_and_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REPLAY_NODE_BYTES", 10_000)
    node = Node()
    for number in range(100):
        node.keep(f"t{number}", bytes(500))

    listed = node.listed()
    assert listed.bytes <= 10_000
    assert listed.kept + listed.dropped == 100 and listed.kept > 5
    assert listed.runs[0].name == "t99"
    assert "place of" in node.part("t0").text


def test_a_function_is_kept_once_and_goes_with_its_last_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "REPLAY_NODE_BYTES", 100_000)
    node = Node()
    for number in range(50):
        node.keep(f"t{number}", b"d", b"f" * 40_000)
    assert node.listed().kept == 50

    node.keep("u", b"d", b"g" * 70_000)
    listed = node.listed()
    assert listed.bytes < 100_000 and [run.name for run in listed.runs] == ["u"]
    assert node.part("u").function_size == 70_000


def test_one_that_is_larger_than_all_that_may_be_kept_stays_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "REPLAY_NODE_BYTES", 1000)
    node = Node()
    node.keep("t", bytes(5000))
    node.keep("u", bytes(5000))
    assert [run.name for run in node.listed().runs] == ["u"]


def test_lists_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REPLAY_LISTED_MAX", 3)
    node = Node()
    for number in range(9):
        node.keep(f"t{number}")
    listed = node.listed()
    assert [run.name for run in listed.runs] == ["t8", "t7", "t6"] and listed.kept == 9


def test_a_task_whose_worker_dies_is_kept_by_its_node() -> None:
    bench = TaskBench()
    node = Node()
    bench.give("t0")
    bench.start()
    left = [*bench.slot.inflight.values()]

    bench.tasks.worker_died(bench.slot, left, 1, "killed by signal 11")

    ((task, pid, error),) = bench.crashed
    node.runs.crashed(task, pid, error, {})
    part = node.part("t0")
    run = failed_run.decode(part.data[: part.size - part.function_size])
    assert run.spec == task.assignment.spec and run.name == "work"
    assert "signal 11" in failures.read(run.error).message
    assert part.data.endswith(b"code")
