"""What a process keeps of its node's memory: a bound, and what it lets go of can be had again."""

from __future__ import annotations

from typing import Any

from zray.core.client.near_values import NearValues
from zray.protocol.messages import LOCATED, VALUE, Outcome


class Shared:
    """Stands for bytes in shared memory."""


class Kept:
    def __init__(self, keep_bytes: int = 100) -> None:
        self.outcomes: dict[bytes, Outcome] = {}
        self.awaited: set[bytes] = set()
        self.near = NearValues(self.outcomes, self.awaited.__contains__)
        self.near.keep_bytes = keep_bytes

    def arrives(self, oid: bytes, size: int, value: Any = None) -> None:
        value = Shared() if value is None else value
        self.outcomes[oid] = Outcome(oid, VALUE, size, value)
        self.near.arrived(oid, self.outcomes[oid])

    def here(self) -> set[bytes]:
        return {oid for oid, outcome in self.outcomes.items() if not outcome.kind & LOCATED}


def test_the_oldest_values_past_the_bound_go_and_count_as_reached() -> None:
    kept = Kept()
    for number in range(5):
        kept.arrives(b"%d" % number, 40)
    assert kept.here() == {b"3", b"4"}
    assert {*kept.near.reached} == {b"0", b"1", b"2"}
    assert kept.outcomes[b"0"].size == 40


def test_the_latest_value_stays_whatever_its_size() -> None:
    kept = Kept()
    kept.arrives(b"a", 10)
    kept.arrives(b"b", 1000)
    assert kept.here() == {b"b"}
    kept.arrives(b"c", 10)
    assert kept.here() == {b"c"}


def test_one_that_comes_again_counts_once() -> None:
    kept = Kept()
    for _ in range(10):
        kept.arrives(b"a", 60)
    kept.arrives(b"b", 40)
    assert kept.here() == {b"a", b"b"}


def test_relief_takes_all_but_what_is_awaited() -> None:
    kept = Kept(1000)
    for oid in (b"a", b"b", b"c"):
        kept.arrives(oid, 10)
    kept.awaited.add(b"b")
    kept.near.relieve()
    assert kept.here() == {b"b"}


def test_small_values_and_errors_are_not_counted() -> None:
    kept = Kept()
    kept.arrives(b"a", 60)
    for number in range(100):
        kept.arrives(b"small%d" % number, 60, b"value")
    assert len(kept.here()) == 101
    kept.arrives(b"a", 60, b"an error in its place")
    kept.arrives(b"b", 100)
    assert b"a" in kept.here() and b"b" in kept.here()


def test_dropped_values_make_room() -> None:
    kept = Kept()
    kept.arrives(b"a", 60)
    del kept.outcomes[b"a"]
    kept.near.dropped(b"a")
    kept.arrives(b"b", 60)
    kept.arrives(b"c", 40)
    assert kept.here() == {b"b", b"c"} and not kept.near.reached
    kept.arrives(b"d", 40)
    assert {*kept.near.reached} == {b"b"}
    del kept.outcomes[b"b"]
    kept.near.dropped(b"b")
    assert not kept.near.reached
