"""What answers to a leader's writes say, and that each is applied once: decided without a store."""

from __future__ import annotations

import pytest

from zray.store.fencing import Verdict, WriteSequence


def test_each_write_has_a_mark_of_its_own_after_the_one_before() -> None:
    sequence = WriteSequence(42, None)
    assert (sequence.previous(), sequence.mark()) == (None, b"42:0")
    sequence.advance()
    assert (sequence.previous(), sequence.mark()) == (b"42:0", b"42:1")
    assert WriteSequence(57, b"42:9").previous() == b"42:9"


@pytest.mark.parametrize(
    ("succeeded", "leader", "stored", "verdict"),
    [
        (True, 0, b"", Verdict.APPLIED),
        (False, 42, b"42:1", Verdict.APPLIED),  # the answer to its first copy was lost
        (False, 42, b"42:0", Verdict.OVERTAKEN),
        (False, 42, b"42:2", Verdict.OVERTAKEN),
        (False, 42, b"", Verdict.OVERTAKEN),
        (False, 43, b"42:1", Verdict.FENCED),  # applied or not: it is not for this head to say
        (False, 0, b"42:1", Verdict.FENCED),
    ],
)
def test_what_an_answer_says(succeeded: bool, leader: int, stored: bytes, verdict: Verdict) -> None:
    sequence = WriteSequence(42, b"7:3")
    sequence.advance()
    assert sequence.judge(succeeded, leader, stored) is verdict


def test_copies_of_a_write_in_any_order_are_applied_once() -> None:
    """A store with one cell and two heads; every copy of a request may arrive late, or twice."""
    stored, applied = b"7:3", []

    def ask(sequence: WriteSequence, leader: int, copy: tuple[bytes | None, bytes]) -> Verdict:
        nonlocal stored
        terms = (sequence.revision, copy[0]) == (leader, stored)
        if terms:
            stored = copy[1]
            applied.append(copy[1])
        return sequence.judge(terms, leader, stored)

    first = WriteSequence(42, stored)
    late = []
    for _ in range(3):
        copy = (first.previous(), first.mark())
        late.append(copy)
        assert ask(first, 42, copy) is Verdict.APPLIED
        assert ask(first, 42, copy) is Verdict.APPLIED, "sent again, as its answer was lost"
        first.advance()
    for copy in late:
        ask(first, 42, copy)
    assert applied == [b"42:0", b"42:1", b"42:2"]
    second = WriteSequence(57, stored)
    assert ask(first, 57, (first.previous(), first.mark())) is Verdict.FENCED
    assert ask(second, 57, (second.previous(), second.mark())) is Verdict.APPLIED
    assert applied[3:] == [b"57:0"]
