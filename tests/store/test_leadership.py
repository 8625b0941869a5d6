"""Who leads, for how long, and what answers to writes say: decided without a store or a clock."""

from __future__ import annotations

import json

import pytest

from zray.store.leadership import Candidate, Leadership, LeaseTerms, Verdict, WriteSequence

TERMS = LeaseTerms(ttl_s=10, renew_s=2.5, retry_s=0.25, fence_s=7.5)
ME = Candidate("n1", "h1", "boot", "pid:[1]", 7, "99", "today")


def test_a_lease_counts_from_when_it_was_asked_for() -> None:
    term = Leadership(TERMS, 100.0)
    assert (term.renew_at(), term.fence_at()) == (102.5, 107.5)
    assert not term.fenced(107.4)
    term.proved(102.5, 107.4)
    assert (term.renew_at(), term.fence_at()) == (105.0, 110.0)


def test_without_a_renewal_it_ends_before_the_lease_does() -> None:
    term = Leadership(TERMS, 100.0)
    assert "7.5 s" in term.fenced(107.5)
    assert term.fence_at() < 100.0 + TERMS.ttl_s


def test_an_end_is_for_ever() -> None:
    term = Leadership(TERMS, 100.0)
    assert term.fenced(120.0)
    term.proved(119.0, 120.0)
    assert term.fenced(120.0)
    assert term.fenced(100.0), "though the clock went back"


def test_an_answer_that_comes_too_late_saves_nothing() -> None:
    """Whoever looks first, the head's loop or the thread that renews."""
    term = Leadership(TERMS, 100.0)
    term.proved(105.0, 108.0)
    assert term.fenced(108.0)


def test_an_older_answer_takes_nothing_back() -> None:
    term = Leadership(TERMS, 100.0)
    term.proved(104.0, 104.1)
    term.proved(102.0, 104.2)
    assert term.fence_at() == 111.5


def test_a_failed_renewal_is_repeated_soon_and_changes_nothing_else() -> None:
    term = Leadership(TERMS, 100.0)
    term.unproved(103.0)
    assert (term.renew_at(), term.fence_at()) == (103.25, 107.5)


def test_the_store_ends_a_term_at_once() -> None:
    term = Leadership(TERMS, 100.0)
    term.ended("another does")
    term.ended("a second reason")
    assert term.fenced(100.0) == "another does"


def test_renewals_are_sent_in_time_whatever_answers_take() -> None:
    """One after the other: two of them take less than the fence, or it ends."""
    for takes, ends in ((0.0, False), (2.0, False), (3.7, False), (3.8, True), (7.6, True)):
        term, now = Leadership(TERMS, 0.0), 0.0
        for _ in range(20):
            sent = max(now, term.renew_at())
            now = sent + takes
            if term.fenced(now):
                break
            term.proved(sent, now)
        assert bool(term.fenced(now)) == ends, takes


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


def test_a_candidate_survives_its_encoding() -> None:
    assert Candidate.decode(ME.encode()) == ME


@pytest.mark.parametrize("content", [b"", b"x", b"[]", b"{}", b'{"pid": 1}', b"\xff"])
def test_what_is_no_candidate_is_none(content: bytes) -> None:
    assert Candidate.decode(content) is None


def test_a_candidate_with_a_field_of_another_kind_is_none() -> None:
    for field, value in (("pid", "7"), ("pid", True), ("host", 1)):
        assert Candidate.decode(json.dumps(ME._asdict() | {field: value}).encode()) is None


def test_machines_are_the_same_only_where_process_ids_mean_the_same() -> None:
    assert ME.shares_machine_with(ME._replace(pid=8, nonce="n2"))
    assert not ME.shares_machine_with(ME._replace(boot="later"))
    assert not ME.shares_machine_with(ME._replace(host="h2")), "a copy of a virtual machine"
    assert not ME.shares_machine_with(ME._replace(namespace="pid:[2]"))
    unknown = ME._replace(boot="", namespace="")
    assert not unknown.shares_machine_with(unknown)
