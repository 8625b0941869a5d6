"""What generators yield, at their consumer: in order, once, counted, and let go of."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.benches import identity, object_of, value
from tests.core.client.benches import ME, client, hear, said
from zray.core.client.client import Client
from zray.core.client.waiters import Waiter
from zray.ids import item_id, items_of, split_objects
from zray.protocol import messages as m

WORKER = identity("w1")
STREAM = m.Template(0, b"s" * 16, b"f" * 16, "yields", [("CPU", 10_000)], 1, 3, yields=m.ITEMS)


class Bench:
    """A client with one stream, whose task went by way of the head."""

    def __init__(self, *, limited: bool = False) -> None:
        self.client: Client = client()
        self.client.template(STREAM)
        spec = m.TaskSpec(self.client.new_task(), STREAM.template_id, b"", consumer=ME)
        (self.end,) = self.client.submit(spec, 1)
        self.task = spec.task_id
        self.client.streams.open(self.task, limited=limited)
        said(self.client)

    def items(self, *indices: int, source: bytes = WORKER, **fields: Any) -> list[m.Taken]:
        """They come; what is answered."""
        outcomes = [value(items_of(self.task), b"%d" % index, index, **fields) for index in indices]
        hear(self.client, m.Items(0, source, ME, self.task, outcomes))
        return said(self.client, m.Taken)

    def ends(self, kind: int = m.VALUE) -> None:
        outcome = m.Outcome(self.end, kind, 1, b"x")
        hear(self.client, m.Result(1, ME, [outcome]))

    def take(self) -> int | None:
        """The index of the next item."""
        oid = self.client.streams.take(self.task)
        return None if oid is None else int.from_bytes(oid[16:], "big")

    def waiter(self) -> Waiter:
        made = Waiter()
        self.client.want_outcome(self.client.streams.next_id(self.task), made)
        return made


def test_items_are_taken_in_order_and_acknowledged() -> None:
    bench = Bench()
    (taken,) = bench.items(1, 2)
    assert (taken.source, taken.target, taken.task_id) == (ME, WORKER, bench.task)
    assert (taken.upto, taken.closed) == (2, False)
    assert [bench.take(), bench.take(), bench.take()] == [1, 2, None]
    assert bench.client.here(item_id(bench.task, 2)) is not None


def test_items_that_come_again_count_once() -> None:
    bench = Bench()
    bench.items(1, 2)
    (taken,) = bench.items(1, 2, 3, source=identity("w2"))
    assert taken.upto == 3 and taken.target == identity("w2")
    assert [bench.take() for _ in range(4)] == [1, 2, 3, None]


def test_items_wait_for_those_before_them() -> None:
    bench = Bench()
    (taken,) = bench.items(2, 3)
    assert taken.upto == 0 and bench.take() is None
    (taken,) = bench.items(1)
    assert taken.upto == 3
    assert [bench.take() for _ in range(3)] == [1, 2, 3]


def test_who_waits_for_the_next_one_is_woken() -> None:
    bench = Bench()
    waiter = bench.waiter()
    assert waiter.remaining == 1
    bench.items(1)
    assert waiter.remaining == 0
    bench.take()
    assert bench.waiter().remaining == 1


def test_the_end_is_the_end_when_all_is_taken() -> None:
    bench = Bench()
    streams = bench.client.streams
    bench.items(1)
    bench.ends()
    assert streams.has_next(bench.task) and not streams.is_over(bench.task)
    assert bench.take() == 1
    assert streams.is_over(bench.task) and bench.take() is None


def test_the_end_wakes_who_waits() -> None:
    bench = Bench()
    waiter = bench.waiter()
    bench.ends()
    assert waiter.remaining == 0 and bench.client.streams.is_over(bench.task)
    assert bench.waiter().remaining == 0


def test_an_error_is_the_last_item() -> None:
    bench = Bench()
    bench.items(1)
    bench.ends(m.ERROR)
    assert bench.take() == 1
    assert bench.client.streams.has_next(bench.task)
    assert bench.client.streams.take(bench.task) == bench.end
    assert bench.client.streams.is_over(bench.task)


def test_nothing_comes_after_the_end() -> None:
    bench = Bench()
    bench.items(2)
    bench.ends(m.ERROR)
    bench.items(1, 2)
    assert bench.client.streams.take(bench.task) == bench.end
    assert bench.take() is None


@pytest.mark.parametrize("limited", [False, True])
def test_what_is_used_is_told_to_a_generator_that_waits_for_that(limited: bool) -> None:
    bench = Bench(limited=limited)
    bench.items(1, 2)
    bench.take()
    told = said(bench.client, m.Taken)
    assert [message.used for message in told] == ([1] if limited else [])
    assert bench.client.streams.tells is limited


def test_what_items_refer_to_is_kept_by_the_worker_until_it_is_held_here() -> None:
    bench = Bench()
    inner = object_of(identity("inner"))
    (taken,) = bench.items(1, contained=[inner])
    assert taken.upto == 0
    (taken,) = bench.items(2)
    assert taken.upto == 0, "later ones do not overtake it"
    hear(bench.client, m.Synced(0, bench_sync(bench)))
    (taken,) = said(bench.client, m.Taken)
    assert taken.upto == 2


def bench_sync(bench: Bench) -> int:
    (number,) = bench.client.requests._asked
    return number


def test_large_items_are_held_where_they_are() -> None:
    bench = Bench()
    oid = item_id(bench.task, 1)
    outcome = m.Outcome(oid, m.VALUE | m.LOCATED, 1 << 20)
    hear(bench.client, m.Items(0, WORKER, ME, bench.task, [outcome]))
    held = [one for hold in said(bench.client, m.Hold) for one in split_objects(hold.object_ids)]
    assert held == [oid]
    assert bench.client.streams.take(bench.task) == oid


def test_what_was_not_taken_is_let_go_of() -> None:
    bench = Bench()
    bench.items(1, 2, 3)
    assert bench.take() == 1
    bench.client.streams.close(bench.task)
    (taken,) = said(bench.client, m.Taken)
    assert taken.closed
    references = bench.client.references
    assert {*references.counts} == {bench.end, item_id(bench.task, 1)}
    references.remove(item_id(bench.task, 1))
    references.remove(bench.end)
    assert not (references.counts or references.own or bench.client.outcomes)
    assert not bench.client.call_results.awaited and not len(bench.client.streams)


def test_nobody_wants_items_of_a_generator_that_is_closed() -> None:
    bench = Bench()
    bench.client.streams.close(bench.task)
    (taken,) = bench.items(1)
    assert taken.closed and not bench.client.outcomes


def test_a_closed_generator_may_end() -> None:
    bench = Bench()
    bench.client.streams.close(bench.task)
    bench.ends()
    assert bench.end in bench.client.outcomes


def test_a_generator_whose_call_was_given_up_hears_that_nobody_reads_on() -> None:
    bench = Bench()
    bench.items(1)
    bench.ends(m.ERROR)
    (taken,) = bench.items(1, 2, 3)
    assert taken.closed and taken.upto == 1
    assert bench.take() == 1
    assert bench.client.streams.take(bench.task) == bench.end
