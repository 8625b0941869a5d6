"""What a generator has yielded: what leaves when, what is kept, said again, and waited for."""

from __future__ import annotations

import pytest

from tests.core.benches import identity, value
from zray import limits
from zray.core.worker.outgoing_stream import OutgoingStream
from zray.protocol import messages as m

TASK, WORKER, READER = identity("task"), identity("worker"), identity("reader")


class Bench:
    def __init__(self, unread_max: int = 0) -> None:
        self.now = 10.0
        self.stream: OutgoingStream[str] = OutgoingStream(
            TASK, WORKER, READER, unread_max, self.now
        )

    def add(self, data: bytes = b"item", *pins: str) -> None:
        self.stream.add(value(TASK, data, self.stream.yielded + 1), list(pins))

    def take(self) -> list[int]:
        return numbers(self.stream.take(self.now))

    def taken(self, upto: int, used: int = 0, *, closed: bool = False) -> None:
        self.stream.on_taken(m.Taken(0, READER, WORKER, TASK, upto, used, closed), self.now)


def numbers(items: m.Items | None) -> list[int]:
    assert items is not None
    return [int.from_bytes(outcome.object_id[16:], "big") for outcome in items.outcomes]


def test_the_first_item_leaves_at_once_and_those_that_follow_together() -> None:
    bench = Bench()
    bench.add()
    assert bench.stream.due(bench.now)
    assert bench.take() == [1]

    bench.add()
    bench.add()
    assert not bench.stream.due(bench.now) and bench.stream.fresh()
    bench.now += 2 * limits.STREAM_DELAY_S
    assert bench.stream.due(bench.now)
    assert bench.take() == [2, 3]
    assert not bench.stream.due(bench.now) and not bench.stream.fresh()


def test_much_leaves_at_once() -> None:
    bench = Bench()
    bench.add()
    bench.take()
    bench.add(bytes(limits.STREAM_SEND_BYTES))
    assert bench.stream.due(bench.now)


def test_items_name_who_yields_and_who_gets_them() -> None:
    bench = Bench()
    bench.add()
    items = bench.stream.take(bench.now)
    assert (items.source, items.target, items.task_id) == (WORKER, READER, TASK)


def test_it_is_settled_when_the_consumer_has_all() -> None:
    bench = Bench()
    assert bench.stream.is_settled()
    bench.add()
    bench.add()
    bench.take()
    bench.taken(1)
    assert not bench.stream.is_settled()
    bench.taken(2)
    assert bench.stream.is_settled()


def test_what_the_consumer_has_not_is_said_again_after_a_while() -> None:
    bench = Bench()
    for _ in range(3):
        bench.add()
    bench.take()
    bench.taken(1)
    assert bench.stream.again(bench.now) is None
    bench.now += limits.STREAM_AGAIN_S
    assert numbers(bench.stream.again(bench.now)) == [2, 3]
    assert bench.stream.again(bench.now) is None, "it has time to answer"


def test_a_word_of_the_consumer_gives_it_more_time() -> None:
    bench = Bench()
    bench.add()
    bench.take()
    bench.now += limits.STREAM_AGAIN_S - 0.1
    bench.taken(0)
    bench.now += 0.2
    assert bench.stream.again(bench.now) is None


def test_a_consumer_that_has_all_and_uses_nothing_is_asked() -> None:
    """What it has said of that may be lost."""
    bench = Bench(unread_max=1)
    bench.add()
    bench.take()
    bench.taken(1)
    bench.now += limits.STREAM_AGAIN_S
    assert numbers(bench.stream.again(bench.now)) == []


def test_an_old_word_changes_nothing() -> None:
    bench = Bench(unread_max=2)
    bench.add()
    bench.add()
    bench.take()
    bench.taken(2, used=2)
    bench.taken(1, used=0)
    assert bench.stream.is_settled() and bench.stream.may_go_on()


@pytest.mark.parametrize("most", [1, 3])
def test_it_goes_on_as_items_are_used(most: int) -> None:
    bench = Bench(unread_max=most)
    for _ in range(most):
        assert bench.stream.may_go_on()
        bench.add()
    assert not bench.stream.may_go_on()
    bench.taken(most)
    assert not bench.stream.may_go_on(), "to have them is not to use them"
    bench.taken(most, used=1)
    assert bench.stream.may_go_on()


def test_it_waits_for_a_consumer_that_is_far_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STREAM_KEPT_ITEMS", 2)
    bench = Bench()
    bench.add()
    bench.add()
    assert not bench.stream.may_go_on()
    bench.taken(1)
    assert bench.stream.may_go_on()


def test_it_waits_for_a_consumer_that_lacks_much() -> None:
    bench = Bench()
    bench.add(bytes(limits.STREAM_KEPT_BYTES))
    assert not bench.stream.may_go_on()
    bench.taken(1)
    assert bench.stream.may_go_on()


@pytest.mark.parametrize("gone", [False, True])
def test_what_nobody_wants_is_not_kept_and_holds_nobody_up(gone: bool) -> None:
    bench = Bench(unread_max=1)
    bench.add()
    bench.take()
    if gone:
        bench.stream.gone()
    else:
        bench.taken(0, closed=True)
    assert bench.stream.is_settled() and bench.stream.may_go_on()
    bench.add()
    assert bench.stream.is_settled() and not bench.stream.fresh()
    assert bench.stream.yielded == 2
