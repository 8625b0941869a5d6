"""Members of an etcd that die, sleep or fill up: what waits, what is said, and what comes back."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.etcd_cluster import Etcd
from zray.core.head.leadership import LeaseTerms
from zray.errors import FencedError, StoreError
from zray.nodes.head.elected_store import ElectedStore
from zray.store import etcd_address

pytestmark = pytest.mark.system

PATIENT = LeaseTerms(ttl_s=60, renew_s=1.0, retry_s=0.1, fence_s=50.0)

Wait = Callable[[ElectedStore, int], list[int]]


@pytest.fixture
def members(tmp_path: Path) -> Iterator[Etcd]:
    """Three, of the test's own."""
    etcd = Etcd(tmp_path / "etcd", 3)
    yield etcd
    etcd.close()


@pytest.fixture
def opened(request: pytest.FixtureRequest, members: Etcd) -> Iterator[Callable[..., ElectedStore]]:
    made: list[ElectedStore] = []

    def make(**options: Any) -> ElectedStore:
        address = etcd_address.parse(members.url, {})
        made.append(ElectedStore(address, request.node.name, **options))
        return made[-1]

    yield make
    for store in made:
        store.close()


def written(store: ElectedStore, wait: Wait, number: int) -> float:
    """Write a row, and how long it took."""
    began = time.monotonic()
    store.submit(number, [("t", b"%d" % number, b"v")])
    assert wait(store, 1) == [number]
    return time.monotonic() - began


def test_the_leading_member_is_killed(
    members: Etcd, opened: Callable[..., ElectedStore], wait_completed: Wait
) -> None:
    store = opened()
    store.open()
    written(store, wait_completed, 1)
    leader = members.leader()
    members.kill(leader)
    assert written(store, wait_completed, 2) < 7.5
    members.start(leader)
    assert (store.failure(), store.stall()) == (None, None)
    store.close()
    assert opened().open().rows == {"t": {b"1": b"v", b"2": b"v"}}


def test_the_leading_member_sleeps(
    members: Etcd, opened: Callable[..., ElectedStore], wait_completed: Wait
) -> None:
    store = opened(terms=PATIENT)
    store.open()
    leader = members.leader()
    members.signal(leader, signal.SIGSTOP)
    try:
        assert written(store, wait_completed, 1) < 15
        assert written(store, wait_completed, 2) < 15
    finally:
        members.signal(leader, signal.SIGCONT)
    store.close()
    assert opened().open().rows == {"t": {b"1": b"v", b"2": b"v"}}


def test_two_of_three_are_away_and_come_back(
    members: Etcd, opened: Callable[..., ElectedStore], wait_completed: Wait, wait_until: Any
) -> None:
    store = opened(terms=PATIENT)
    store.open()
    written(store, wait_completed, 1)
    members.kill(0)
    members.kill(1)
    store.submit(2, [("t", b"2", b"v")])
    wait_until(lambda: "does not answer" in str(store.stall()))
    assert (store.completed(), store.failure()) == ([], None)
    members.start(0, wait=False)
    members.start(1)
    assert wait_completed(store, 1) == [2]
    assert (store.stall(), store.failure()) == (None, None)
    members.await_member(0)


def test_whoever_cannot_renew_is_fenced_in_time_and_stores_nothing_more(
    members: Etcd, opened: Callable[..., ElectedStore], wait_completed: Wait, wait_until: Any
) -> None:
    store = opened(terms=LeaseTerms(ttl_s=6, renew_s=0.5, retry_s=0.1, fence_s=3.0))
    epoch = store.open().epoch
    written(store, wait_completed, 1)
    members.kill(0)
    members.kill(1)
    began = time.monotonic()
    store.submit(2, [("t", b"2", b"v")])
    wait_until(lambda: store.failure() is not None)
    assert 1.5 < time.monotonic() - began < 4.5
    assert isinstance(store.failure(), FencedError) and "not renewed for 3" in str(store.failure())
    members.start(0, wait=False)
    members.start(1)
    members.await_member(0)
    assert store.completed() == []
    store.submit(3, [("t", b"3", b"v")])
    store.close()
    opening = opened().open()
    assert opening.epoch > epoch
    # The second was sent while two were away: whether it is there is nobody's promise.
    assert {b"1"} <= opening.rows["t"].keys() <= {b"1", b"2"}


def test_a_full_etcd_is_told_and_passes(
    tmp_path: Path, wait_completed: Wait, wait_until: Any
) -> None:
    quota = 16 << 20
    etcd = Etcd(tmp_path / "etcd", 1, "--quota-backend-bytes", str(quota))
    store = ElectedStore(etcd_address.parse(etcd.url, {}), "c", terms=PATIENT)
    try:
        store.open()
        number = 0
        while store.stall() is None:
            number += 1
            store.submit(number, [("t", b"k", b"%d" % number + b"x" * 400_000)])
            wait_until(lambda: store.stall() is not None or bool(store.completed()))
            assert number < 100
        assert "is full" in str(store.stall()) and "alarm disarm" in str(store.stall())
        other = ElectedStore(etcd_address.parse(etcd.url, {}), "d", wait_s=1.0)
        with pytest.raises(StoreError, match="its database is full"):
            other.open()
        assert (store.completed(), store.failure()) == ([], None)
        etcd.ask("kv/compaction", {"revision": str(etcd.revision()), "physical": True})
        etcd.ask("maintenance/defragment", {})
        for alarm in etcd.ask("maintenance/alarm", {"action": "GET"})["alarms"]:
            etcd.ask("maintenance/alarm", {"action": "DEACTIVATE", **alarm})
        assert wait_completed(store, 1) == [number]
        assert (store.stall(), store.failure()) == (None, None)
    finally:
        store.close()
        etcd.close()


def test_a_single_member_is_killed_and_started_again(tmp_path: Path, wait_completed: Wait) -> None:
    """All that was acknowledged is there, over and over."""
    etcd = Etcd(tmp_path / "etcd")
    store = ElectedStore(etcd_address.parse(etcd.url, {}), "c", terms=PATIENT)
    try:
        store.open()
        for number in range(4):
            for token in range(20):
                store.submit(token, [("t", b"%d-%d" % (number, token), b"v")])
            etcd.kill(0)
            etcd.start(0)
            assert wait_completed(store, 20) == list(range(20))
        store.close()
        store = ElectedStore(etcd_address.parse(etcd.url, {}), "c")
        assert len(store.open().rows["t"]) == 80
    finally:
        store.close()
        etcd.close()
