"""Heads whose etcd is not well: who leads does so for as long as it may, and all return."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.etcd_cluster import Etcd
from zray import limits
from zray.core.head.leadership import LeaseTerms, State
from zray.nodes.head.election import Election
from zray.protocol.head_messages import HeadInfo
from zray.store import etcd_address
from zray.store.etcd import EtcdStore

pytestmark = pytest.mark.system

DEADLINE_S = 40.0
PATIENT = LeaseTerms(ttl_s=20, renew_s=0.4, retry_s=0.1, fence_s=15.0)

Elections = Callable[..., Election]


@pytest.fixture
def etcds(tmp_path: Path) -> Iterator[Callable[..., Etcd]]:
    """``etcds(count)``: of the test's own, in ``tmp_path/etcd``."""
    made: list[Etcd] = []

    def make(*options: Any) -> Etcd:
        made.append(Etcd(tmp_path / "etcd", *options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def elections(etcds: Any) -> Iterator[Elections]:
    """``elections(url)``: one that campaigns; it is ended at the end of the test, before etcd."""
    made: list[Election] = []

    def make(url: str, terms: LeaseTerms = LeaseTerms()) -> Election:  # noqa: B008 - a tuple
        host = f"h{len(made)}"
        me = HeadInfo(os.urandom(16), [f"{host}:1"], host, os.getpid(), "0.1.0", time.time())
        made.append(Election(etcd_address.parse(url, {}), "c", me, terms=terms))
        made[-1].start()
        made[-1].campaign()
        return made[-1]

    yield make
    for one in made:
        one.end()


def until(condition: Callable[[], Any]) -> float:
    """Wait for it; how long that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < DEADLINE_S
        time.sleep(0.005)
    return time.monotonic() - began


def leads(election: Election) -> bool:
    return election.view().state is State.LEADING


def stands_by(election: Election) -> bool:
    """And knows who leads."""
    view = election.view()
    return view.state is State.STANDBY and view.leader is not None and not view.trouble


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_new_leader_of_etcd_costs_no_term(
    etcds: Any, elections: Elections, how: signal.Signals
) -> None:
    """Whichever member is asked first, and though others hang that ask it."""
    members = etcds(3)
    election = elections(members.url, PATIENT)
    epoch = election.lead(10.0).revision
    for _ in range(2):
        member = members.leader()
        if how is signal.SIGKILL:
            members.kill(member)
        else:
            members.signal(member, how)
        revision = election.view().revision
        store = EtcdStore(etcd_address.parse(members.url, {}), "c", election.lead(1.0))
        began = time.monotonic()
        store.open()  # which writes
        store.close()
        until(lambda: election.view().revision > revision)  # noqa: B023
        assert time.monotonic() - began < PATIENT.fence_s
        if how is signal.SIGKILL:
            members.start(member)
        else:
            members.signal(member, signal.SIGCONT)
    assert leads(election) and election.view().epoch == epoch


def test_without_a_majority_the_leader_is_fenced_in_time_and_all_return(
    etcds: Any, elections: Elections
) -> None:
    members = etcds(3)
    first = elections(members.url)
    term = first.lead(10.0)
    second = elections(members.url)
    until(lambda: stands_by(second))
    store = EtcdStore(etcd_address.parse(members.url, {}), "c", term)
    try:
        store.open()
        members.kill(0)
        members.kill(1)
        store.submit(1, [("t", b"k", b"v")])
        took = until(lambda: not leads(first))
        assert took < limits.LEADER_FENCE_S + 0.5
        assert first.view().state is State.FENCED and first.view().leader is None
        assert store.failure() is not None and store.completed() == []
        until(lambda: first.view().trouble and second.view().trouble)
        for one in (first, second):
            said = one.view().trouble
            assert "does not answer" in said or "cannot be asked" in said
            assert "since 20" in said
        assert not leads(first) and not leads(second)
        members.start(0, wait=False)
        members.start(1)
        until(lambda: leads(first) or leads(second))
        leader, other = (first, second) if leads(first) else (second, first)
        until(lambda: stands_by(other))
        assert leader.view().epoch > term.revision and not leader.view().trouble
        assert term.fenced() and store.completed() == []
    finally:
        store.close()


def test_a_full_etcd_keeps_its_leader_and_has_no_new_one_until_there_is_room(
    tmp_path: Path, etcds: Any, elections: Elections
) -> None:
    etcd = etcds(1, "--quota-backend-bytes", str(16 << 20))
    first = elections(etcd.url)
    epoch = first.lead(10.0).revision
    second = elections(etcd.url)
    until(lambda: stands_by(second))
    with pytest.raises(OSError):
        for number in range(100):
            etcd.put(b"other%d" % number, b"x" * 1_000_000)
    until(lambda: etcd.ask("maintenance/alarm", {"action": "GET"}).get("alarms"))
    time.sleep(limits.LEADER_TTL_S + 0.5)
    assert leads(first) and first.view().epoch == epoch, "a renewal stores nothing"
    first.end()
    until(lambda: "database space exceeded" in second.view().trouble)
    assert not leads(second)
    etcd.make_room(b"other")
    until(lambda: leads(second))
    assert not second.view().trouble


def test_an_etcd_that_was_put_back_to_an_older_copy(
    tmp_path: Path, etcds: Any, elections: Elections
) -> None:
    """As with ``etcdctl snapshot restore``: revisions, leases and records are those of then."""
    etcd = etcds()
    first = elections(etcd.url)
    term = first.lead(10.0)
    second = elections(etcd.url)
    until(lambda: stands_by(second))
    etcd.kill(0)
    shutil.copytree(tmp_path / "etcd" / "m0", tmp_path / "copy")
    etcd.start(0)
    until(lambda: (leads(first) or leads(second)) and not first.view().trouble)
    first.end()
    until(lambda: leads(second))
    epoch = second.view().epoch
    etcd.kill(0)
    shutil.rmtree(tmp_path / "etcd" / "m0")
    (tmp_path / "copy").rename(tmp_path / "etcd" / "m0")
    etcd.start(0)
    until(lambda: leads(second) and second.view().epoch != epoch)
    assert second.view().epoch > term.revision, "what was given then is not given again"
    assert not second.view().stopped


def test_slow_disks_delay_and_end_nothing(etcds: Any, elections: Elections) -> None:
    """Each fsync of each member takes 0.3 s more, and changes are written all the time."""
    members = etcds(3)
    first = elections(members.url)
    term = first.lead(10.0)
    second = elections(members.url)
    until(lambda: stands_by(second))
    store = EtcdStore(etcd_address.parse(members.url, {}), "c", term)
    store.open()
    members.slow(0.3)
    try:
        written = 0
        deadline = time.monotonic() + 6
        store.submit(0, [("t", b"k", b"v")])
        while time.monotonic() < deadline:
            assert store.failure() is None
            if store.completed():
                written += 1
                store.submit(written, [("t", b"k", b"v")])
            time.sleep(0.01)
        assert written > 1 and not term.fenced() and leads(first)
    finally:
        members.fast()
        store.close()
    first.step_down("its disks are slow")
    until(lambda: leads(second))


def test_disks_that_take_longer_than_a_lease_leave_nobody_and_then_somebody(
    tmp_path: Path, etcds: Any, elections: Elections
) -> None:
    etcd = etcds()
    first = elections(etcd.url)
    epoch = first.lead(10.0).revision
    second = elections(etcd.url)
    until(lambda: stands_by(second))
    etcd.slow(4.0)
    etcd_busy = EtcdStore(etcd_address.parse(etcd.url, {}), "c", first.lead(1.0))
    try:
        with pytest.raises(Exception, match="not renewed for"):
            etcd_busy.open()
        assert first.view().state is not State.LEADING
        until(lambda: first.view().trouble)
    finally:
        etcd.fast()
    until(lambda: leads(first) or leads(second))
    assert max(first.view().epoch, second.view().epoch) > epoch
