"""Equal lines of several workers: shown once, counted, told in time, and never out of order."""

from __future__ import annotations

from zray import limits
from zray.core.client.print_folding import HINT, PrintFolding
from zray.core.machine import NEVER
from zray.protocol import messages as m

AFTER = limits.FOLD_S


def log(pid: int, *lines: str, is_error: bool = False) -> m.Log:
    return m.Log(0, b"j" * 16, "work", pid, "n1", is_error, [*lines])


def lines(shown: list[m.Log]) -> list[tuple[int, str]]:
    return [(message.pid, line) for message in shown for line in message.lines]


def test_a_line_of_several_workers_is_shown_once_and_then_their_number() -> None:
    folding = PrintFolding()
    assert lines(folding.take(log(1, "hello"), 0.0)) == [(1, "hello")]
    assert folding.due_at == NEVER
    for pid in range(2, 14):
        assert folding.take(log(pid, "hello"), 1.0) == []
    assert folding.due_at == AFTER
    assert lines(folding.due(AFTER)) == [(13, f"hello [repeated 12x across cluster{HINT}]")]
    assert folding.take(log(3, "hello"), AFTER + 1) == []  # they go on
    assert lines(folding.due(2 * AFTER)) == [(3, "hello [repeated 1x across cluster]")]
    assert folding.due(3 * AFTER) == [] and folding.due_at == NEVER
    assert lines(folding.take(log(4, "hello"), 3 * AFTER)) == [(4, "hello")]


def test_what_one_worker_repeats_is_shown_as_it_comes() -> None:
    folding = PrintFolding()
    for turn in range(100):
        assert lines(folding.take(log(1, "tick", "tick"), turn / 10)) == [(1, "tick")] * 2
    assert folding.rest() == []


def test_a_workers_other_lines_keep_their_order() -> None:
    folding = PrintFolding()
    folding.take(log(1, "same"), 0.0)
    assert lines(folding.take(log(2, "a", "same", "b", "same", "c"), 0.0)) == [
        (2, "a"),
        (2, "b"),
        (2, "c"),
    ]
    assert lines(folding.rest()) == [(2, f"same [repeated 2x across cluster{HINT}]")]
    assert folding.rest() == []


def test_streams_and_blank_lines_are_not_mixed_up() -> None:
    folding = PrintFolding()
    folding.take(log(1, "x", "", " "), 0.0)
    assert lines(folding.take(log(2, "x", is_error=True), 0.0)) == [(2, "x")]
    assert lines(folding.take(log(2, "", " "), 0.0)) == [(2, ""), (2, " ")]


def test_what_is_remembered_is_bounded_and_a_count_is_told_before_it_goes() -> None:
    folding = PrintFolding()
    folding.take(log(1, "same"), 0.0)
    folding.take(log(2, "same"), 0.0)
    shown = folding.take(log(1, *map(str, range(limits.FOLD_LINES))), 0.0)
    assert lines(shown)[0] == (2, f"same [repeated 1x across cluster{HINT}]")
    assert len(lines(shown)) == limits.FOLD_LINES + 1
    long = "x" * limits.LOG_LINE_BYTES_MAX
    for number in range(400):
        folding.take(log(1, f"{number}{long}"), 0.0)
    assert sum(len(line) for _, line in folding._recent) <= limits.FOLD_CHARACTERS
    assert folding.rest() == [] and folding._characters == 0


def test_lines_that_are_to_be_shown_each_time_are_and_others_never() -> None:
    folding = PrintFolding(each=lambda line: "loss" in line, none=lambda line: "debug" in line)
    assert lines(folding.take(log(1, "loss 1", "debug loss", "debug", "hello"), 0.0)) == [
        (1, "loss 1"),
        (1, "debug loss"),  # what is shown each time is not looked at further
        (1, "hello"),
    ]
    assert lines(folding.take(log(2, "loss 1", "debug", "hello"), 1.0)) == [(2, "loss 1")]
    assert folding.take(log(3, "debug"), 1.0) == []
    assert [text for _, text in lines(folding.rest())] == [
        f"hello [repeated 1x across cluster{HINT}]"
    ]
