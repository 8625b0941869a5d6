"""The store that plays etcd: leases, revisions, terms, and answers that do not come."""

from __future__ import annotations

from random import Random

import pytest

from zray.testing.world.clock import START_S, Clock
from zray.testing.world.shared_store import (
    EXPIRY_LAG_S,
    Answer,
    Created,
    Equals,
    Get,
    Grant,
    KeepAlive,
    Revoke,
    SharedStore,
    Transact,
)
from zray.testing.world.store_link import StoreLink, Weather


class Asker:
    name = "a head"

    def __init__(self) -> None:
        self.alive = True
        self.frozen_until = 0.0


class Place:
    """A store, and one process that asks it."""

    def __init__(self, seed: int = 0, lost: float = 0.0) -> None:
        self.clock = Clock(100_000)
        self.store = SharedStore(self.clock, Random(seed))
        self.weather = Weather(0.001, 0.002, lost)
        self.asker = Asker()
        self.link = StoreLink(self.asker, self.clock, Random(seed), self.store, self.weather)
        self.answers: list[tuple[float, Answer | None]] = []

    def ask(self, request: object, within_s: float = 2.0) -> None:
        def done(answer: Answer | None) -> None:
            self.answers.append((self.clock.now - START_S, answer))

        self.link.ask(request, within_s, done)  # type: ignore[arg-type]

    def run_for(self, seconds: float) -> None:
        end = self.clock.now + seconds
        while self.clock.next_at() <= end:
            self.clock.step()
        self.clock.now = end

    def put(self, key: bytes, lease: int = 0) -> Answer:
        return self.store.execute(Transact((Created(key, 0),), ((key, b"v"),), (key,), lease))


def test_a_key_goes_with_its_lease_and_not_before() -> None:
    place = Place()
    place.store.execute(Grant(7, 3.0))
    assert place.put(b"leader", 7).succeeded
    place.run_for(2.5)
    assert place.store.execute(KeepAlive(7)).succeeded
    place.run_for(2.99)
    assert place.store.get(b"leader") is not None
    place.run_for(0.01 + EXPIRY_LAG_S)
    assert place.store.get(b"leader") is None
    assert not place.store.execute(KeepAlive(7)).succeeded
    assert place.put(b"leader", 7).refusal


def test_a_lease_that_is_over_is_not_renewed_though_it_is_still_there() -> None:
    place = Place()
    place.store.execute(Grant(7, 3.0))
    place.run_for(3.0)
    assert not place.store.execute(KeepAlive(7)).succeeded


def test_a_second_copy_of_a_grant_does_not_renew() -> None:
    place = Place()
    place.store.execute(Grant(7, 3.0))
    place.run_for(2.0)
    place.store.execute(Grant(7, 3.0))
    place.run_for(1.01 + EXPIRY_LAG_S)
    assert not place.store.execute(KeepAlive(7)).succeeded


def test_the_revision_in_which_a_key_was_made_stays_and_rises_when_it_is_made_again() -> None:
    place = Place()
    first = place.put(b"leader").revision
    assert not place.put(b"leader").succeeded
    changed = Transact((Equals(b"leader", b"v"),), ((b"leader", b"w"),), ())
    assert place.store.execute(changed).succeeded
    (pair,) = place.store.execute(Get((b"leader",))).pairs
    assert (pair.value, pair.created) == (b"w", first)
    place.store.execute(Transact((), ((b"leader", None),), ()))
    assert place.put(b"leader").revision > first
    again = place.store.get(b"leader")
    assert again is not None and again.created > first


def test_keys_of_a_lease_that_is_revoked_are_gone_and_told_of() -> None:
    place = Place()
    gone: list[bytes] = []
    place.store.gone = gone.append
    place.store.execute(Grant(7, 3.0))
    place.put(b"leader", 7)
    place.put(b"stays")
    place.store.execute(Revoke(7))
    assert gone == [b"leader"]
    assert place.store.get(b"stays") is not None


def test_an_answer_that_is_lost_says_nothing_of_what_was_done() -> None:
    """Half of all messages are lost: of what was not answered some is done, and some is not."""
    unanswered: set[bool] = set()
    for seed in range(60):
        place = Place(seed, lost=0.5)
        place.ask(Transact((Created(b"k", 0),), ((b"k", b"v"),), ()), 0.4)
        place.run_for(3.0)
        ((_, answer),) = place.answers
        if answer is None:
            unanswered.add(place.store.get(b"k") is not None)
    assert unanswered == {True, False}


def test_what_is_asked_of_a_store_without_a_majority_may_be_done_later() -> None:
    later: set[bool] = set()
    for seed in range(20):
        place = Place(seed)
        place.store.lose_quorum(5.0)
        place.ask(Transact((), ((b"k", b"v"),), ()), 0.4)
        place.run_for(4.9)
        assert place.answers == [(pytest.approx(0.4), None)]
        assert place.store.get(b"k") is None
        place.run_for(1.0)
        later.add(place.store.get(b"k") is not None)
    assert later == {True, False}


def test_no_lease_ends_while_there_is_no_majority() -> None:
    place = Place()
    place.store.execute(Grant(7, 3.0))
    place.put(b"leader", 7)
    place.store.lose_quorum(20.0)
    place.run_for(19.9)
    assert place.store.get(b"leader") is not None
    place.run_for(3.2 + 2 * EXPIRY_LAG_S)
    assert place.store.get(b"leader") is None


def test_a_process_that_is_stopped_reads_its_answers_when_it_goes_on() -> None:
    place = Place()
    place.ask(Get((b"k",)))
    place.asker.frozen_until = place.clock.now + 1.5
    place.run_for(1.49)
    assert not place.answers
    place.run_for(0.1)
    ((when, answer),) = place.answers
    assert answer is not None and 1.5 <= when < 1.51


def test_a_process_that_has_ended_hears_nothing() -> None:
    place = Place()
    place.ask(Get((b"k",)))
    place.asker.alive = False
    place.run_for(5.0)
    assert not place.answers
