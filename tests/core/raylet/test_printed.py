"""What tasks have printed: parts of logs, merged where they touch, and bounded."""

from __future__ import annotations

from typing import Any

from zray import limits
from zray.core.raylet.printed import Printed, PrintedPart

WORKER = b"w" * 16


def task(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_what_follows_at_once_is_one_part() -> None:
    printed = Printed()
    for begin, end in ((0, 5), (5, 9), (20, 22)):
        printed.add(WORKER, task(1), PrintedPart(7, begin, end))
    printed.add(WORKER, task(1), PrintedPart(8, 22, 23))
    output = printed.get(task(1))
    assert output is not None and output.size() == 12
    assert output.parts == [PrintedPart(7, 0, 9), PrintedPart(7, 20, 22), PrintedPart(8, 22, 23)]


def test_another_attempt_is_known_by_its_own_output() -> None:
    printed = Printed()
    printed.add(WORKER, task(1), PrintedPart(7, 0, 5))
    printed.add(b"x" * 16, task(1), PrintedPart(9, 0, 2))
    output = printed.get(task(1))
    assert output is not None and (output.worker_id, output.size()) == (b"x" * 16, 2)


def test_tasks_and_parts_are_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(limits, "PRINTED_TASKS_KEPT", 10)
    monkeypatch.setattr(limits, "PRINTED_PARTS_MAX", 3)
    printed = Printed()
    for number in range(25):
        printed.add(WORKER, task(number), PrintedPart(7, number, number + 1))
    assert [number for number in range(25) if printed.get(task(number))] == [*range(15, 25)]
    for number in range(6):
        printed.add(WORKER, task(20), PrintedPart(7, 100 + 10 * number, 105 + 10 * number))
    output = printed.get(task(20))
    assert output is not None and len(output.parts) == 3
    assert (output.dropped, output.size()) == (16, 31)
