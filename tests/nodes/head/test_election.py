"""Heads on a real etcd: who leads, what they know of each other, and that nothing is left."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.etcd_cluster import Etcd, encoded
from tests.store.faulty_proxy import FaultyProxy
from zray import limits
from zray.core.head.head_record import HeadRecord
from zray.core.head.leadership import LeaseTerms, State, View
from zray.errors import DataDirectoryLockedError, StoreError
from zray.nodes.head.election import Election
from zray.protocol.head_messages import HeadInfo
from zray.store import etcd_address
from zray.store.etcd_layout import Layout

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[3]
DEADLINE_S = 30.0
BRIEF = LeaseTerms(ttl_s=2, renew_s=0.3, retry_s=0.1, fence_s=1.5)
LONG = LeaseTerms(ttl_s=60, renew_s=0.5, retry_s=0.1, fence_s=50.0)

# Leads or stands by, on a host of that name; says how it is whenever it is asked.
HEAD = """
import os, sys, time
from zray.nodes.head.election import Election
from zray.protocol.head_messages import HeadInfo
from zray.store import etcd_address

url, name, host = sys.argv[1:]
me = HeadInfo(os.urandom(16), [host + ":1"], host, os.getpid(), "0.1.0", time.time())
election = Election(etcd_address.parse(url, {}), name, me)
election.start()
election.campaign()
for line in sys.stdin:
    if line == "lead\\n":
        election.lead(30.0)
    if line == "end\\n":
        break
    view, term = election.view(), election.term()
    print(view.state.name, view.epoch, term.fenced() if term else "-", flush=True)
election.end()
"""

Elections = Callable[..., Election]


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """For tests that leave it as it is."""
    etcd = Etcd(tmp_path_factory.mktemp("etcd"))
    yield etcd
    etcd.close()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A cluster of the test's own."""
    return str(request.node.name)


@pytest.fixture
def elections(etcd: Etcd, name: str) -> Iterator[Elections]:
    """``elections(url)``: one that campaigns, or not; it is ended at the end of the test."""
    made: list[Election] = []

    def make(url: str = etcd.url, *, campaigns: bool = True, **options: Any) -> Election:
        host = f"h{len(made)}"
        me = HeadInfo(os.urandom(16), [f"{host}:1"], host, os.getpid(), "0.1.0", time.time())
        made.append(Election(etcd_address.parse(url, {}), name, me, **options))
        made[-1].start()
        if campaigns:
            made[-1].campaign()
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture
def proxy(etcd: Etcd) -> Iterator[FaultyProxy]:
    proxy = FaultyProxy(etcd.ports[0])
    yield proxy
    proxy.close()


@pytest.fixture
def head(etcd: Etcd, name: str) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """``head(host)``: a process that campaigns; it is killed at the end of the test."""
    made: list[subprocess.Popen[str]] = []

    def start(host: str) -> subprocess.Popen[str]:
        made.append(
            subprocess.Popen(
                [sys.executable, "-c", HEAD, etcd.url, name, host],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        )
        return made[-1]

    yield start
    for process in made:
        process.kill()
        process.communicate()


def asked(process: subprocess.Popen[str], line: str = "") -> list[str]:
    """State, epoch and why the term is over, as the process says."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    return process.stdout.readline().split(maxsplit=2)


def until(condition: Callable[[], Any], what: str = "") -> float:
    """Wait for it; how long that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < DEADLINE_S, what
        time.sleep(0.002)
    return time.monotonic() - began


def leads(election: Election) -> bool:
    return election.view().state is State.LEADING


def stands_by(election: Election) -> bool:
    """And knows who leads."""
    view = election.view()
    return view.state is State.STANDBY and view.leader is not None


# ---- who leads -------------------------------------------------------------------------------


def test_one_leads_and_all_know_all(elections: Elections, etcd: Etcd, name: str) -> None:
    first = elections()
    term = first.lead(10.0)
    others = [elections() for _ in range(2)]
    until(lambda: all(stands_by(one) and len(one.view().heads) == 3 for one in others))
    until(lambda: len(first.view().heads) == 3, "the leader hears of them, too")
    for one in (first, *others):
        view = one.view()
        assert view.epoch == term.revision and view.leader == view.heads[0]
        assert sorted(head.addresses for head in view.heads) == [["h0:1"], ["h1:1"], ["h2:1"]]
        assert [head.leads for head in view.heads] == [True, False, False]
    assert len(etcd.keys(Layout(name).heads)) == 3
    body = {"key": encoded(Layout(name).leader)}
    stored = etcd.ask("kv/range", body)["kvs"][0]
    assert int(stored["create_revision"]) == term.revision and stored["lease"] != "0"


def test_one_that_ends_is_followed_at_once_and_leaves_no_key(
    elections: Elections, etcd: Etcd, name: str
) -> None:
    first = elections()
    epoch = first.lead(10.0).revision
    second = elections()
    until(lambda: stands_by(second))
    first.end()
    assert until(lambda: leads(second)) < 1.0
    assert second.view().epoch > epoch and len(second.view().heads) == 1
    second.end()
    layout = Layout(name)
    assert etcd.keys(layout.heads) == [] == etcd.keys(layout.leader)
    assert not [one for one in threading.enumerate() if one.name == "zray-election"]


def test_the_lead_is_given_to_another_within_a_moment(elections: Elections) -> None:
    first = elections()
    term = first.lead(10.0)
    second = elections()
    until(lambda: stands_by(second))
    first.step_down("an operator has asked for it")
    assert first.view().state is State.STANDBY
    assert term.fenced() == "an operator has asked for it"
    assert until(lambda: leads(second)) < 1.0
    until(lambda: stands_by(first))
    second.step_down("back again")
    assert until(lambda: leads(first)) < 1.0
    assert first.term() is not term and term.fenced()


def test_where_nobody_else_is_there_it_leads_again(
    elections: Elections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STEP_DOWN_S", 1.0)
    only = elections()
    epoch = only.lead(10.0).revision
    only.step_down("an operator has asked for it")
    assert 0.9 < until(lambda: leads(only)) < 3.0
    assert only.view().epoch > epoch


def test_all_stop_where_one_says_so_and_later_ones_do_not(elections: Elections) -> None:
    first = elections()
    first.lead(10.0)
    second = elections()
    until(lambda: stands_by(second))
    first.stop_cluster("zray stop")
    first.end()
    assert until(lambda: second.view().stopped == "zray stop") < 1.0
    time.sleep(0.1)
    assert not leads(second)
    third = elections()
    third.lead(10.0)
    assert not third.view().stopped


def test_whoever_waits_is_told_who_leads(elections: Elections) -> None:
    elections().lead(10.0)
    began = time.monotonic()
    with pytest.raises(DataDirectoryLockedError, match=f"pid {os.getpid()} on host h0"):
        elections().lead(1.0)
    assert 0.9 < time.monotonic() - began < 5


def test_of_many_that_come_and_go_at_most_one_leads(elections: Elections) -> None:
    source = random.Random(3)
    present = [elections() for _ in range(5)]
    epochs = set()
    for number in range(12):
        until(lambda: any(map(leads, present)))
        found = [one for one in present if leads(one)]
        # One that has just been followed may say so a moment later, but its term is over.
        assert len([one for one in found if not one.term().fenced()]) == 1  # type: ignore[union-attr]
        epochs.add(found[-1].view().epoch)
        for one in [found[-1], *source.sample(present, 2)][: 1 + number % 3]:
            if one in present:
                present.remove(one)
                one.end()
                present.append(elections())
    assert len(epochs) > 6


# ---- processes that die or sleep -------------------------------------------------------------


def test_a_process_of_this_machine_that_was_killed_is_followed_at_once(
    elections: Elections, head: Any
) -> None:
    process = head("h0")  # as the first election is named; no other test needs that
    assert asked(process, "lead")[0] == "LEADING"
    standby = elections()
    until(lambda: stands_by(standby))
    process.kill()
    process.wait()
    assert until(lambda: leads(standby)) < limits.LEADER_TTL_S / 2


def test_a_machine_that_is_gone_is_followed_when_its_lease_is_over(
    elections: Elections, head: Any
) -> None:
    process = head("elsewhere")
    assert asked(process, "lead")[0] == "LEADING"
    standby = elections()
    until(lambda: stands_by(standby))
    process.kill()
    process.wait()
    assert limits.LEADER_FENCE_S - limits.LEADER_RENEW_S < until(lambda: leads(standby)) < 5.0


def test_a_leader_that_slept_says_so_before_it_has_asked_anybody(
    elections: Elections, head: Any
) -> None:
    process = head("elsewhere")
    said = asked(process, "lead")
    assert said[0] == "LEADING" and len(said) == 2
    process.send_signal(signal.SIGSTOP)
    standby = elections()
    assert until(lambda: leads(standby)) < 6.0
    process.stdin.write("\n")
    process.stdin.flush()
    process.send_signal(signal.SIGCONT)
    state, _, reason = process.stdout.readline().split(maxsplit=2)
    assert state != "LEADING" and "not renewed for" in reason
    until(lambda: asked(process)[:2] == ["STANDBY", str(standby.view().epoch)])
    standby.end()
    until(lambda: asked(process)[0] == "LEADING")


def test_a_fault_of_its_own_does_not_keep_it_from_leading(elections: Elections) -> None:
    faults = [RuntimeError("once"), RuntimeError("twice")]

    def news() -> None:
        if faults:
            raise faults.pop()

    election = elections(news=news)
    until(lambda: leads(election))
    assert not faults and not election.view().trouble


# ---- what others do to the keys --------------------------------------------------------------


def test_a_key_that_an_operator_deletes_ends_the_term(
    elections: Elections, etcd: Etcd, name: str
) -> None:
    first = elections()
    term = first.lead(10.0)
    second = elections()
    until(lambda: stands_by(second))
    etcd.delete(Layout(name).leader)
    assert until(term.fenced) < 1.0
    until(lambda: leads(first) or leads(second))
    assert max(first.view().epoch, second.view().epoch) > term.revision


@pytest.mark.parametrize("value", [b"mine", b"{}", b"\xff" * 1000])
def test_what_is_no_head_s_does_not_lead_for_ever(
    elections: Elections, etcd: Etcd, name: str, value: bytes
) -> None:
    etcd.put(Layout(name).leader, value)
    election = elections(terms=BRIEF)
    until(lambda: election.view().trouble)
    assert "no head's" in election.view().trouble and not leads(election)
    assert until(lambda: leads(election)) < BRIEF.ttl_s + 2
    assert not election.view().trouble
    epoch = election.view().epoch
    etcd.put(Layout(name).leader, value)
    until(lambda: leads(election) and election.view().epoch > epoch)


def test_a_record_that_somebody_deletes_is_written_again(
    elections: Elections, etcd: Etcd, name: str
) -> None:
    first, second = elections(), elections()
    until(lambda: len(first.view().heads) == len(second.view().heads) == 2)
    for key in etcd.keys(Layout(name).heads):
        etcd.delete(key)
    until(lambda: len(etcd.keys(Layout(name).heads)) == 2)
    until(lambda: len(first.view().heads) == len(second.view().heads) == 2)
    assert leads(first) != leads(second)


@pytest.mark.parametrize(
    "value",
    [
        b"x",
        pytest.param(b'{"later": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="deep"),
        pytest.param(b"\xff" * 1_000_000, id="large"),
    ],
)
def test_a_record_without_a_lease_is_no_head_s_and_is_removed(
    elections: Elections, etcd: Etcd, name: str, value: bytes
) -> None:
    first = elections(terms=LONG)
    term = first.lead(30.0)
    etcd.put(Layout(name).heads + b"copy", value)
    until(lambda: len(etcd.keys(Layout(name).heads)) == 1)
    assert first.term() is term and not term.fenced()


def test_copies_of_heads_that_are_gone_take_no_place_and_are_not_shown(
    elections: Elections, etcd: Etcd, name: str
) -> None:
    write_records(etcd, name, 4 * limits.HEADS_MAX)
    first, second = elections(), elections()
    until(lambda: len(first.view().heads) == len(second.view().heads) == 2)
    assert until(lambda: leads(first) or leads(second)) < 5.0
    until(lambda: len(etcd.keys(Layout(name).heads)) == 2)


def write_records(etcd: Etcd, name: str, count: int, lease: str = "0") -> None:
    """So many heads' that are not there."""
    head = HeadInfo(bytes(16), ["h:1"], "h", 7, "9.8.7", 1.0)
    value = HeadRecord.of(head).encode()
    puts = [
        {"key": encoded(Layout(name).head(f"{n:032x}")), "value": encoded(value), "lease": lease}
        for n in range(count)
    ]
    for start in range(0, count, 100):
        operations = [{"request_put": put} for put in puts[start : start + 100]]
        etcd.ask("kv/txn", {"success": operations})


def test_thousands_of_records_cost_no_more_than_the_most_that_may_be(
    elections: Elections, etcd: Etcd, name: str
) -> None:
    first = elections()
    first.lead(10.0)
    lease = etcd.ask("lease/grant", {"TTL": "600"})["ID"]
    write_records(etcd, name, 2000, lease)
    other = elections()
    until(lambda: other.view().trouble)
    assert f"{limits.HEADS_MAX} heads already" in other.view().trouble
    assert leads(first) and len(first.view().heads) == limits.HEADS_MAX
    end = Layout(name).heads[:-1] + b"0"
    keys = {"key": encoded(Layout(name).heads), "range_end": encoded(end)}
    etcd.ask("kv/deleterange", keys)
    until(lambda: not other.view().trouble and len(other.view().heads) == 2)


def test_only_heads_with_the_cluster_s_key_lead_it(
    elections: Elections, etcd: Etcd, name: str
) -> None:
    fields = {"schema": 1, "cluster_id": "11" * 16, "skipped_epochs": 7}
    etcd.put(Layout(name).meta, json.dumps(fields).encode())
    stranger = elections(campaigns=False)
    stranger.campaign(b"\x22" * 16)
    until(lambda: stranger.view().trouble)
    assert stranger.view().cluster_id == b"\x11" * 16 and not leads(stranger)
    own = elections(campaigns=False)
    own.campaign(b"\x11" * 16)
    assert own.lead(10.0).revision + 7 == own.view().epoch


def test_history_that_is_compacted_does_not_make_a_standby_deaf(
    elections: Elections, etcd: Etcd, name: str
) -> None:
    first = elections(terms=LONG._replace(renew_s=20.0))
    first.lead(10.0)
    standby = elections(terms=LONG._replace(renew_s=20.0))
    until(lambda: stands_by(standby))
    for _ in range(3):
        for number in range(20):
            etcd.put(Layout(name).halted + b"/other", b"%d" % number)
        etcd.ask("kv/compaction", {"revision": str(etcd.revision())})
    first.end()
    assert until(lambda: leads(standby)) < 3.0, "it hears, and does not wait for its next renewal"


# ---- answers that are lost or late -----------------------------------------------------------


def test_lost_answers_cost_time_and_nothing_else(proxy: FaultyProxy, elections: Elections) -> None:
    """Of the grant, the record and the campaign, then of each third question."""
    count = 0

    def lose(request: bytes) -> bool:
        nonlocal count
        if b"/v3/watch" in request:
            return False
        count += 1
        return count in (1, 3, 5) or count % 3 == 0

    proxy.lose = lose
    election = elections(proxy.url, terms=BRIEF)
    epoch = election.lead(20.0).revision
    time.sleep(2 * BRIEF.ttl_s)
    assert leads(election) and election.view().epoch == epoch


def test_a_campaign_whose_answers_are_all_lost_is_found_to_have_won(
    proxy: FaultyProxy, elections: Elections, etcd: Etcd, name: str
) -> None:
    leader = b'"request_put":{"key":"' + encoded(Layout(name).leader).encode()
    lost = threading.Event()

    def lose(request: bytes) -> bool:
        found = not lost.is_set() and leader in request
        if found:
            lost.set()
        return found

    proxy.lose = lose
    election = elections(proxy.url)
    epoch = election.lead(10.0).revision
    assert lost.is_set()
    body = {"key": encoded(Layout(name).leader)}
    assert int(etcd.ask("kv/range", body)["kvs"][0]["create_revision"]) == epoch


@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.3, 2.0])
def test_it_ends_in_time_whatever_it_waits_for(
    proxy: FaultyProxy, elections: Elections, delay_s: float
) -> None:
    source = random.Random(4)
    proxy.delay_s = delay_s
    for _ in range(4):
        election = elections(proxy.url, terms=BRIEF)
        time.sleep(source.random() * 0.5)
        began = time.monotonic()
        election.end()
        assert time.monotonic() - began < 3.5
        assert not [one for one in threading.enumerate() if one.name == "zray-election"]


def test_it_may_end_before_it_has_begun(elections: Elections, etcd: Etcd, name: str) -> None:
    me = HeadInfo(os.urandom(16), ["h:1"], "h", os.getpid(), "0.1.0", time.time())
    election = Election(etcd_address.parse(etcd.url, {}), name, me)
    election.end()
    assert election.view() == View(State.STANDBY) and election.term() is None


def test_without_an_etcd_it_says_so_and_waits(elections: Elections) -> None:
    election = elections("etcd://127.0.0.1:1,127.0.0.1:2")
    with pytest.raises(StoreError, match="does not answer"):
        election.lead(0.5)
    until(lambda: election.view().trouble)
    view = election.view()
    assert view.state is State.STANDBY and not view.revision
    assert "127.0.0.1:1" in view.trouble and "since 20" in view.trouble
    assert abs(view.trouble_s - time.time()) < 10


def test_whoever_watches_is_told_of_changes_and_not_of_renewals(elections: Elections) -> None:
    news: list[float] = []
    election = elections(news=lambda: news.append(time.monotonic()))
    election.lead(10.0)
    time.sleep(0.2)
    told = len(news)
    assert told
    time.sleep(3 * limits.LEADER_RENEW_S)
    assert len(news) == told
    elections()
    until(lambda: len(news) > told)


def test_the_wall_clock_says_nothing_about_who_leads(
    elections: Elections, monkeypatch: pytest.MonkeyPatch
) -> None:
    election = elections(terms=BRIEF)
    epoch = election.lead(10.0).revision
    real = time.time
    for step_s in (86400.0, -86400.0, 3600.0):
        monkeypatch.setattr(time, "time", lambda: real() + step_s)  # noqa: B023
        time.sleep(BRIEF.fence_s / 3)
        assert leads(election) and election.view().epoch == epoch
