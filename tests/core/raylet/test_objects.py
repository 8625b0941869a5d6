"""The values that a node keeps, fetches and serves, without the raylet."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.benches import identity, value
from zray import limits
from zray.core.raylet.objects import LocalObjects
from zray.errors import ObjectLostError
from zray.ids import items_of
from zray.protocol import messages as m

LARGE = bytes(2 * limits.INLINE_BYTES_MAX)


class Bench:
    def __init__(self) -> None:
        self.to_head: list[Any] = []
        self.objects = LocalObjects(self.to_head.append)
        self.arrived: list[tuple[bytes | None, str]] = []

    def fetch(self, oid: bytes) -> None:
        def arrived(outcome: m.Outcome | None, text: str) -> None:
            self.arrived.append((None if outcome is None else outcome.value, text))

        self.objects.fetch(oid, arrived)

    def told(self, kind: type[m.Message]) -> list[Any]:
        messages = [message for message in self.to_head if isinstance(message, kind)]
        self.to_head.clear()
        return messages


def test_the_head_gets_small_values_and_of_large_ones_the_size() -> None:
    bench = Bench()
    small, large = value(identity("a")), value(identity("b"), LARGE)
    assert bench.objects.put(small) is small
    told = bench.objects.put(large)
    assert (told.value, told.size) == (b"", len(LARGE)) and told.kind & m.LOCATED
    assert bench.objects.stored[large.object_id] is large
    assert bench.objects.small_bytes == len(small.value) + len(LARGE)
    bench.objects.free(small.object_id + large.object_id)
    assert not bench.objects.stored and not bench.objects.small_bytes


@pytest.mark.parametrize("data", [b"one", LARGE])
def test_an_item_stays_as_the_first_attempt_has_yielded_it(data: bytes) -> None:
    bench = Bench()
    item = items_of(identity("t"))
    first, second = value(item, data, 1), value(item, b"another", 1)
    told = bench.objects.put(first)
    assert bench.objects.put(second) == told
    assert bench.objects.stored[first.object_id] is first
    bench.objects.free(first.object_id)
    bench.objects.put(second)
    assert bench.objects.stored[first.object_id] is second


def test_of_many_results_of_one_task_those_past_a_bound_stay_here() -> None:
    bench = Bench()
    data = bytes(limits.INLINE_BYTES_MAX)
    fitting = limits.INLINE_TOTAL_BYTES_MAX // len(data)
    made = [value(identity("t"), data, index) for index in range(fitting + 2)]
    told = bench.objects.put_all(made)
    assert [bool(outcome.value) for outcome in told] == [True] * fitting + [False] * 2
    assert bench.objects.put_all([made[0]]) == [made[0]]


def test_a_value_is_asked_for_once_however_many_wait_for_it() -> None:
    bench = Bench()
    wanted = value(identity("a"), b"abc")
    for _ in range(3):
        bench.fetch(wanted.object_id)
    (pull,) = bench.told(m.Pull)
    bench.objects.on_chunk(m.Chunk(0, pull.transfer, m.VALUE, 0, 3, b"abc"))
    assert bench.arrived == [(b"abc", "")] * 3
    assert bench.told(m.Have) == [m.Have(0, wanted.object_id)], "others can get it from here now"


def test_what_nobody_has_is_an_error_for_all_and_can_be_asked_for_again() -> None:
    bench = Bench()
    oid = value(identity("a")).object_id
    bench.fetch(oid)
    bench.fetch(oid)
    (pull,) = bench.told(m.Pull)
    bench.objects.on_failed(m.PullFailed(0, pull.transfer, ObjectLostError.code, "it is lost"))
    assert bench.arrived == [(None, "it is lost")] * 2
    bench.fetch(oid)
    assert len(bench.told(m.Pull)) == 1


def test_a_new_session_asks_again_for_what_has_not_come() -> None:
    bench = Bench()
    oid = value(identity("a")).object_id
    bench.fetch(oid)
    (before,) = bench.told(m.Pull)
    bench.objects.new_session()
    (after,) = bench.told(m.Pull)
    assert after.object_id == oid
    bench.objects.on_chunk(m.Chunk(0, after.transfer, m.VALUE, 0, 1, b"x"))
    assert bench.arrived == [(b"x", "")]
    assert before.transfer != after.transfer


def test_what_is_kept_is_announced_without_its_bytes() -> None:
    bench = Bench()
    bench.objects.put(value(identity("a"), b"abc", contained=[bytes(20)]))
    (told,) = bench.objects.announced()
    assert (told.value, told.size, told.contained) == (b"", 3, [bytes(20)])
    assert told.kind & m.LOCATED
