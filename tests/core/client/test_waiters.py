"""Who waits for which objects, without the client: counting, and what is asked for meanwhile."""

from __future__ import annotations

from tests.core.benches import identity, object_of, value
from zray.core.client.waiters import SomeOf, Waiter, Waiters
from zray.protocol import messages as m

A, B = identity("a"), identity("b")
ONE, TWO = object_of(A), object_of(B)


class Bench:
    def __init__(self, *expected: bytes) -> None:
        self.outcomes: dict[bytes, m.Outcome] = {}
        self.watched: list[bytes] = []
        self.pulled: list[bytes] = []
        self.collected: set[bytes] = set()
        self.waiters = Waiters(
            self.outcomes,
            lives=lambda oid: oid not in self.collected,
            expected=expected.__contains__,
            watch=self.watched.append,
            pull=self.pulled.append,
        )

    def comes(self, outcome: m.Outcome) -> None:
        self.outcomes[outcome.object_id] = outcome
        self.waiters.watched.pop(outcome.object_id, None)
        self.waiters.wake(outcome.object_id, outcome)


def located(oid: bytes) -> m.Outcome:
    return m.Outcome(oid, m.VALUE | m.LOCATED, 5)


def test_it_is_called_once_all_that_it_counts_is_here() -> None:
    bench, calls = Bench(), []
    waiter = Waiter(lambda: calls.append("called"))
    for oid in (ONE, TWO):
        bench.waiters.want_value(oid, waiter)
    bench.comes(value(A))
    assert (waiter.remaining, calls) == (1, [])
    bench.comes(value(B))
    assert (waiter.remaining, calls) == (0, ["called"])
    assert not bench.waiters


def test_an_object_is_asked_for_once_and_not_at_all_where_it_comes_by_itself() -> None:
    bench = Bench(TWO)
    for oid in (ONE, TWO):
        bench.waiters.want_value(oid, Waiter())
        bench.waiters.want_outcome(oid, Waiter())
    assert bench.watched == [ONE]


def test_nobody_waits_for_what_was_collected() -> None:
    bench, waiter = Bench(), Waiter()
    bench.collected.add(ONE)
    bench.waiters.want_value(ONE, waiter)
    bench.waiters.want_outcome(ONE, waiter)
    assert waiter.remaining == 0 and not bench.waiters and not bench.watched
    bench.waiters.want_located(ONE, waiter)  # what a task gets has no reference
    assert waiter.remaining == 1 and bench.pulled == [ONE]


def test_a_value_elsewhere_is_an_end_but_no_value_until_it_was_pulled() -> None:
    bench, end, whole = Bench(), Waiter(), Waiter()
    bench.waiters.want_outcome(ONE, end)
    bench.waiters.want_value(ONE, whole)
    bench.comes(located(ONE))
    assert (end.remaining, whole.remaining, bench.pulled) == (0, 1, [ONE])
    bench.comes(value(A))
    assert whole.remaining == 0


def test_what_a_waiter_was_given_stays_though_it_is_let_go_of_elsewhere() -> None:
    kept: dict[bytes, m.Outcome] = {}
    bench, waiter = Bench(), Waiter(values=kept)
    for oid in (ONE, TWO):
        bench.waiters.want_value(oid, waiter)
    bench.comes(value(A))
    bench.outcomes[ONE] = located(ONE)  # memory was short
    bench.comes(value(B))
    assert waiter.remaining == 0 and kept == {ONE: value(A), TWO: value(B)}


def test_one_that_gave_up_is_not_counted_down_and_nobody_is_left_to_be_called() -> None:
    bench, patient = Bench(), Waiter()
    hasty = Waiter(lambda: None)
    for waiter in (patient, hasty):
        bench.waiters.want_value(ONE, waiter)
    assert bench.waiters.has_callbacks()
    bench.waiters.forget([ONE], hasty)
    assert not bench.waiters.has_callbacks()
    bench.comes(value(A))
    assert (patient.remaining, hasty.remaining) == (0, 1)


def test_whoever_waits_for_what_will_not_come_is_let_go() -> None:
    bench, first, second = Bench(), Waiter(), Waiter()
    bench.waiters.want_value(ONE, first)
    bench.waiters.want_outcome(TWO, second)
    bench.waiters.let_down(ONE)
    assert (first.remaining, second.remaining) == (0, 1)
    bench.waiters.release_all()
    assert second.remaining == 0 and not bench.waiters


# ---- some of many --------------------------------------------------------------------------


def some_of(bench: Bench, count: int, *, whole: bool = False) -> SomeOf:
    waiter = SomeOf({ONE, TWO}.difference(bench.outcomes), count, whole=whole)
    bench.waiters.want_some([ONE, TWO], waiter)
    return waiter


def test_one_of_many_is_enough_and_each_counts_once() -> None:
    bench = Bench()
    first, both = some_of(bench, 1), some_of(bench, 2)
    bench.comes(located(TWO))
    bench.comes(value(B))
    assert (first.remaining, both.remaining, both.missing) == (0, 1, {ONE})
    bench.comes(value(A))
    assert both.remaining == 0


def test_a_loop_of_waits_asks_for_each_object_once_in_the_given_order() -> None:
    bench = Bench()
    for _ in range(3):
        bench.waiters.forget_some(some_of(bench, 1))
    assert bench.watched == [ONE, TWO]
    assert some_of(bench, 1).remaining == 1
    bench.comes(value(A))
    bench.comes(value(B))
    assert not bench.waiters.ends


def test_values_elsewhere_are_pulled_for_those_who_wait_for_values() -> None:
    bench = Bench(ONE, TWO)
    end, whole = some_of(bench, 1), some_of(bench, 1, whole=True)
    bench.comes(located(ONE))
    assert (end.remaining, whole.remaining, bench.pulled) == (0, 1, [ONE])
    bench.waiters.forget_some(whole)
    bench.comes(located(TWO))
    assert bench.pulled == [ONE]  # nobody has the time any more
    bench.comes(value(A))
    assert not bench.waiters.values
    late = SomeOf({TWO}, 1, whole=True)
    bench.waiters.want_some([ONE, TWO], late)
    assert bench.pulled == [ONE, TWO]
    bench.comes(value(B))
    assert (whole.remaining, late.remaining) == (1, 0)


def test_one_that_gives_up_takes_nothing_from_those_who_wait_for_some() -> None:
    bench, hasty = Bench(ONE), Waiter()
    bench.waiters.want_value(ONE, hasty)
    some = some_of(bench, 1, whole=True)
    bench.waiters.forget([ONE], hasty)
    assert ONE in bench.waiters.values
    bench.comes(value(A))
    assert (some.remaining, hasty.remaining) == (0, 1)


def test_what_was_collected_counts_as_come() -> None:
    bench = Bench()
    bench.collected.add(ONE)
    both = some_of(bench, 2)
    assert (both.remaining, both.missing, bench.watched) == (1, {TWO}, [TWO])
    bench.waiters.let_down(TWO)
    assert both.remaining == 0 and not bench.waiters.ends


def test_the_end_releases_those_who_wait_for_some() -> None:
    bench = Bench()
    some = some_of(bench, 2, whole=True)
    bench.waiters.release_all()
    bench.waiters.forget_some(some)
    assert some.remaining == 0 and not bench.waiters


def test_an_error_is_enough_for_who_says_so() -> None:
    bench, one, other = Bench(), Waiter(until_error=True), Waiter()
    for oid in (ONE, TWO):
        bench.waiters.want_value(oid, one)
        bench.waiters.want_value(oid, other)
    bench.comes(m.Outcome(ONE, m.ERROR, 1, b"e"))
    assert (one.remaining, one.failed) == (0, ONE)
    assert (other.remaining, other.failed) == (1, None)
