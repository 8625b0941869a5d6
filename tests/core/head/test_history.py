"""What is kept of what is over: the last of it, within its bytes, readable page by page."""

from __future__ import annotations

import msgspec

from zray.core.head.history import BLOCK_ROWS, History
from zray.core.head.task_history import TaskHistory
from zray.protocol import messages as m


class Row(msgspec.Struct, array_like=True, frozen=True):
    number: int
    text: str = ""


def numbers(history: History[Row], before: int | None = None) -> list[int]:
    """All rows, read as a reader of pages of ten does."""
    position = history.end if before is None else before
    found: list[int] = []
    while position > history.start:
        page, position = history.before(position, 10)
        found += [row.number for row in page]
    return found


def test_it_keeps_the_last_within_its_bytes() -> None:
    history = History(Row, 10_000)
    for number in range(5000):
        history.add(Row(number, "x" * 90))
    assert history.bytes <= 10_000 and 0 < len(history) <= 10_000 // 90 + BLOCK_ROWS
    assert numbers(history) == [*range(4999, 4999 - len(history), -1)]


def test_a_reader_is_not_disturbed_by_what_is_added_meanwhile() -> None:
    history = History(Row, 1 << 20)
    for number in range(150):
        history.add(Row(number))
    position = history.end
    for number in range(150, 1000):
        history.add(Row(number))
    assert numbers(history, position) == [*range(149, -1, -1)]


def test_what_has_gone_meanwhile_ends_the_reading() -> None:
    history = History(Row, 500)
    for number in range(100):
        history.add(Row(number))
    position = history.end - 60
    for number in range(100, 10_000):
        history.add(Row(number))
    assert numbers(history, position) == []


def test_a_row_is_found_by_bytes_in_it_and_blocks_without_them_are_passed_over() -> None:
    history = History(Row, 1 << 20)
    for number in range(1000):
        history.add(Row(number, f"<{number}>"))
    for number in (0, 70, 999):
        position, found, steps = history.end, [], 0
        while position > history.start:
            page, position = history.before(position, BLOCK_ROWS, f"<{number}>".encode(), 5)
            found += [row.number for row in page if row.text == f"<{number}>"]
            steps += 1
        assert found == [number] and steps < 1000 / BLOCK_ROWS / 2


def test_one_huge_row_is_kept_until_it_is_packed_and_leaves_no_debt() -> None:
    history = History(Row, 1000)
    history.add(Row(0, "x" * 100_000))
    for number in range(1, 2 * BLOCK_ROWS):
        history.add(Row(number))
    assert history.bytes <= 1000
    assert numbers(history) == [*range(2 * BLOCK_ROWS - 1, BLOCK_ROWS - 1, -1)]


def test_what_is_taken_back_before_it_is_counted_is_not_counted() -> None:
    """A worker says that a task has failed; its node counts all that have ended later."""
    tasks = TaskHistory()
    kind = m.NORMAL_TASK
    tasks.report(
        m.TaskReport(
            0,
            tallies=[
                m.Tally("fails", kind, m.ENDED_BADLY, 1),
                m.Tally("fails", kind, m.ENDED_WELL, -1),
            ],
        )
    )
    assert tasks.tallies() == [("fails", kind, 0, 1)]
    tasks.report(m.TaskReport(0, tallies=[m.Tally("fails", kind, m.ENDED_WELL, 1)]))
    assert tasks.tallies() == [("fails", kind, 0, 1)]
