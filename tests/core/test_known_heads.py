"""Which head is tried next: the leader at once, all others in their turn, whatever heads say."""

from __future__ import annotations

from random import Random

import pytest

from tests.core.benches import identity
from zray import limits
from zray.core.known_heads import KnownHeads
from zray.protocol import messages as m

A, B, C = "a:10001", "b:10001", "c:10001"


def head(*addresses: str, leads: bool = False) -> m.HeadInfo:
    host = addresses[0].partition(":")[0]
    return m.HeadInfo(identity(host), [*addresses], host, 1, "1.0", 0.0, leads)


def not_leader(*heads: m.HeadInfo, epoch: int = 1) -> m.NotLeader:
    return m.NotLeader(0, epoch, [*heads], "it stands by")


def refused(known: KnownHeads) -> float:
    """Nobody listens there."""
    known.begin()
    return known.ended(1.0)


def silent(known: KnownHeads) -> float:
    """No sign of life; the time that took."""
    known.begin()
    seconds = known.patience_s()
    return seconds + known.ended(1.0, answered=False)


def stands_by(known: KnownHeads, message: m.NotLeader) -> float:
    known.begin()
    known.not_leader(message)
    return known.ended(1.0)


def one_round(known: KnownHeads) -> list[str]:
    seen = []
    while (address := known.begin()) not in seen:
        seen.append(address)
        known.ended(1.0)
    return seen


def test_one_head_is_tried_as_ever_with_a_back_off_that_is_bounded() -> None:
    known = KnownHeads([A])
    waits = [refused(known) for _ in range(10)]
    assert waits[:4] == [0.05, 0.1, 0.2, 0.4] and waits[-1] == limits.RECONNECT_MAX_S
    assert known.patience_s() == limits.CONNECT_TIMEOUT_S and known.address == A
    known.begin()
    known.welcomed([], 3)
    assert known.ended(0.0) == limits.RECONNECT_FIRST_S / 2, "a cut is mended at once"


def test_untried_heads_cost_no_back_off() -> None:
    known = KnownHeads([A, B, C])
    assert refused(known) <= 0.05 and refused(known) <= 0.05
    for _ in range(10):
        refused(known)
    assert refused(known) <= limits.HEAD_ROUND_S
    assert one_round(known)[0] in (A, B, C) and {*one_round(known)} == {A, B, C}


def test_the_leader_is_next_and_at_once() -> None:
    known = KnownHeads([A, B, C])
    assert stands_by(known, not_leader(head(A), head(C, leads=True))) == 0.0
    assert known.begin() == C
    known.welcomed([head(A), head(B), head(C, leads=True)], 1)
    assert known.others() == [A, B]


def test_a_head_that_is_not_in_the_list_is_learnt_of() -> None:
    known = KnownHeads([A])
    stands_by(known, not_leader(head(A), head("d:1", "[::1]:2", leads=True)))
    assert [known.begin(), known.begin()] == ["d:1", "[::1]:2"]
    known.welcomed([head(A), head("d:1", "[::1]:2", leads=True), head(B)], 1)
    known.ended(1.0)
    assert one_round(known) == ["[::1]:2", A, "d:1", B], "the way that went is the first again"


def test_a_leader_that_does_not_answer_does_not_keep_from_those_that_stand_by() -> None:
    """As when its machine is gone: for a while the others still take it for the leader."""
    known = KnownHeads([A, B, C])
    known.begin()
    known.welcomed([head(A, leads=True), head(B), head(C)], 7)
    known.ended(1.0)
    stale = not_leader(head(A, leads=True), head(B), head(C), epoch=7)
    passed, waited_for_a = 0.0, 0
    while passed < 3.0:
        if known.begin() == A:
            waited_for_a += 1
            passed += known.patience_s() + known.ended(1.0, answered=False)
        else:
            known.not_leader(stale)
            passed += 0.01 + known.ended(1.0)
    assert waited_for_a <= 2
    known.not_leader(not_leader(head(A), head(C), head(B, leads=True), epoch=9))
    assert known.ended(1.0) == 0.0 and known.begin() == B


def test_a_head_that_wins_after_it_was_asked_is_asked_again_at_once() -> None:
    known = KnownHeads([A, B, C])
    stands_by(known, not_leader(head(A), head(B), head(C), epoch=4))
    stands_by(known, not_leader(head(A, leads=True), head(B), head(C), epoch=5))
    assert known.begin() == A


def test_what_is_said_of_an_epoch_that_is_over_moves_nobody_up() -> None:
    known = KnownHeads([A, B, C])
    known.begin()
    known.welcomed([], 9)
    known.ended(1.0)
    known.begin()
    known.not_leader(not_leader(head(C, leads=True), epoch=8))
    known.ended(1.0)
    assert known.begin() == B


@pytest.mark.parametrize("seed", range(20))
def test_heads_that_lie_do_not_lead_away_for_ever(seed: int) -> None:
    random = Random(seed)
    known = KnownHeads([A, B, C])
    seen: dict[str, int] = {}
    for step in range(800):
        address = known.begin()
        seen[address] = step
        if address in (A, C):
            leader = head(*[f"x{random.randrange(500)}:1" for _ in range(16)], leads=True)
            known.not_leader(
                not_leader(leader, head(A, leads=False), epoch=random.choice([1, step]))
            )
            known.ended(random.random())
        else:
            known.ended(random.random(), answered=random.random() < 0.5)
    assert all(800 - seen[address] < 400 for address in (A, B, C))
    assert len(known.all()) <= 2 * limits.HEADS_MAX * limits.HEAD_ADDRESSES_MAX


def test_any_number_of_heads_that_nobody_has_heard_of_is_bounded() -> None:
    known = KnownHeads(f"h{number}:1" for number in range(10_000))
    for number in range(500):
        known.not_leader(
            m.NotLeader(0, 1, [m.HeadInfo(bytes([number % 250]) * 16, ["z:1"], "", 1, "", 0.0)], "")
        )
    assert len(known.all()) <= limits.HEADS_MAX * limits.HEAD_ADDRESSES_MAX + 1


def test_a_head_that_needs_long_to_answer_is_given_more_time_each_time() -> None:
    known = KnownHeads([A, B])
    leader = not_leader(head(B), head(A, leads=True), epoch=3)
    times = []
    while len(times) < 4:
        if known.begin() == A:
            times.append(known.patience_s())
            known.ended(1.0, answered=False)
        else:
            known.not_leader(leader)
            known.ended(1.0)
    assert times == [1.0, 2.0, 4.0, limits.CONNECT_TIMEOUT_S]


def test_the_leader_says_that_another_leads_from_now_on() -> None:
    known = KnownHeads([A, B, C])
    known.begin()
    known.welcomed([head(A, leads=True), head(B), head(C)], 2)
    known.changed([head(A), head(B), head(C, leads=True)])
    known.ended(1.0)
    assert known.begin() == C


def test_where_the_head_is_may_change() -> None:
    known = KnownHeads([A])
    known.aim([])
    assert known.begin() == A
    known.aim([B])
    known.ended(1.0)
    assert known.begin() == B and known.all() == [B]


def test_a_head_that_steps_down_is_the_last_that_is_tried() -> None:
    known = KnownHeads([A, B, C])
    known.begin()
    known.welcomed([head(A, leads=True), head(B), head(C)], 2)
    known.handlers[m.SteppingDown](m.SteppingDown(0, 0, [head(B), head(C)]))
    assert known.parting
    known.ended(1.0)
    assert not known.parting and one_round(known) == [B, C, A]


def test_a_head_that_names_itself_while_it_stands_by_is_not_asked_again_at_once() -> None:
    known = KnownHeads([A, B])
    assert stands_by(known, not_leader(head(A, leads=True), head(B), epoch=3)) > 0.0
    assert known.begin() == B


def test_of_heads_with_several_addresses_each_ones_best_is_first_and_what_was_given() -> None:
    known = KnownHeads(["b2:1"])
    known.begin()
    known.welcomed(
        [head("a1:1", "a2:1", leads=True), head("b1:1", "b2:1"), head("c1:1", "c2:1", "c3:1")], 2
    )
    assert known.others() == ["b2:1", "c1:1"]
    assert known.all()[1:] == ["a1:1", "b1:1", "c1:1", "a2:1", "c2:1", "c3:1"]
    assert known.in_short() == "b2:1,c1:1"


def test_addresses_that_do_not_come_here_cost_little_while_heads_answer() -> None:
    """As of networks between containers, of which each machine has its own."""
    inner = [f"172.17.0.{number}:1" for number in range(1, 9)]
    heads = [head(A, *inner), head(B, *inner), head(C, "c2:1", *inner)]
    known = KnownHeads([A])
    seconds, asked_at, longest = 0.0, {A: 0.0, B: 0.0}, 0.0
    while seconds < 30.0:
        address = known.begin()
        if address in asked_at:
            longest = max(longest, seconds - asked_at[address])
            asked_at[address] = seconds
            known.not_leader(not_leader(*heads))
            seconds += 0.01 + known.ended(1.0)
        else:
            seconds += known.patience_s() + known.ended(1.0, answered=False)
    assert longest < 3.0, "who answers is asked again soon"
    # The third is nowhere but at its second address, which has its turn.
    while known.begin() != "c2:1":
        if known.address in (A, B):
            known.not_leader(not_leader(*heads))
        known.ended(1.0, answered=known.address in (A, B))
    known.not_leader(not_leader(*heads))
    known.ended(1.0)
    for _ in range(100):
        address = known.begin()
        assert address in (A, B, "c2:1"), "all are reached"
        known.not_leader(not_leader(*heads))
        known.ended(1.0)
    # It moves to another network: what was good is forgotten.
    tried = []
    while C not in tried:
        tried.append(known.begin())
        if tried[-1] in (A, B):
            known.not_leader(not_leader(*heads))
        known.ended(1.0, answered=tried[-1] in (A, B))
