"""The store on etcd: who leads, what is refused, and what interrupted writes leave behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.etcd_cluster import Etcd, encoded
from tests.store.faulty_proxy import FaultyProxy
from tests.store.fixed_term import FixedTerm
from zray import limits
from zray.core.head.leadership import LeaseTerms
from zray.errors import DataDirectoryLockedError, FencedError, StoreError
from zray.nodes.head.elected_store import ElectedStore
from zray.store import etcd_address, etcd_layout
from zray.store.etcd import EtcdStore
from zray.store.etcd_layout import Layout

pytestmark = pytest.mark.system

BRIEF = LeaseTerms(ttl_s=3, renew_s=0.5, retry_s=0.1, fence_s=2.0)
LONG = LeaseTerms(ttl_s=60, renew_s=1.0, retry_s=0.1, fence_s=50.0)

# Opens the store and says its epoch; then, when told to, says how it is, writes, and says what
# became of that.
HEAD = """
import sys
from zray.store import etcd_address
from zray.nodes.head.elected_store import ElectedStore
from zray.core.head.leadership import LeaseTerms

url, name, brief = sys.argv[1:]
terms = LeaseTerms(3, 0.5, 0.1, 2.0) if brief == "brief" else LeaseTerms()
store = ElectedStore(etcd_address.parse(url, {}), name, terms=terms)
print(store.open().epoch, flush=True)
for token, line in enumerate(sys.stdin):
    print(type(store.failure()).__name__, end=" ")
    store.submit(token, [("t", b"%d" % token, line.encode())])
    while not (done := store.completed()) and store.failure() is None:
        pass
    print(done, type(store.failure()).__name__, flush=True)
"""

# Writes one batch after the other, all of whose rows say which it is, and says what is durable.
WRITER = """
import sys
from zray.store import etcd_address
from zray.nodes.head.elected_store import ElectedStore

store = ElectedStore(etcd_address.parse(sys.argv[1], {}), sys.argv[2])
store.open()
number = int(sys.argv[3])
while True:
    rows = [("t", b"%d" % row, b"%d" % number) for row in range(300)]
    store.submit(number, [*rows, ("large", b"k", (b"%8d" % number).ljust(700_000, b"x"))])
    while not store.completed():
        assert store.failure() is None
    print(number, flush=True)
    number += 1
"""

Stores = Callable[..., ElectedStore]
Fenced = Callable[[], tuple[EtcdStore, FixedTerm]]
Wait = Callable[[ElectedStore, int], list[int]]


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A cluster of the test's own."""
    return str(request.node.name)


@pytest.fixture
def etcd(etcd_of_1: Etcd) -> Etcd:
    return etcd_of_1


@pytest.fixture
def etcds(name: str) -> Iterator[Stores]:
    """``etcds(url, **options)``: a store, not opened, that is closed at the end of the test."""
    made: list[ElectedStore] = []

    def make(url: str, **options: Any) -> ElectedStore:
        made.append(ElectedStore(etcd_address.parse(url, {}), name, **options))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def fenced_stores(etcd: Etcd, name: str) -> Iterator[Fenced]:
    """``fenced_stores()``: a store, not opened, and its term, which only the test ends."""
    made: list[EtcdStore] = []

    def make() -> tuple[EtcdStore, FixedTerm]:
        term = FixedTerm(etcd, name)
        made.append(EtcdStore(etcd_address.parse(etcd.url, {}), name, term))
        return made[-1], term

    yield make
    for store in made:
        store.close()


@pytest.fixture
def proxy(etcd: Etcd) -> Iterator[FaultyProxy]:
    proxy = FaultyProxy(etcd.ports[0])
    yield proxy
    proxy.close()


# ---- who leads -----------------------------------------------------------------------------


def test_a_second_head_is_refused_and_told_who_leads(etcd: Etcd, etcds: Stores) -> None:
    etcds(etcd.url).open()
    began = time.monotonic()
    with pytest.raises(DataDirectoryLockedError, match=f"pid {os.getpid()} on host"):
        etcds(etcd.url, wait_s=0.5).open()
    assert 0.4 < time.monotonic() - began < 5


def test_a_head_that_was_killed_here_is_followed_at_once(
    etcd: Etcd, etcds: Stores, child: Any, name: str
) -> None:
    process = child(HEAD, etcd.url, name, "usual")
    epoch = int(process.stdout.readline())
    process.kill()
    process.wait()
    began = time.monotonic()
    assert etcds(etcd.url).open().epoch > epoch
    assert time.monotonic() - began < 5, "its lease lasts for 10 s"


def test_a_head_that_slept_past_its_lease_says_nothing_more(
    etcd: Etcd, etcds: Stores, child: Any, name: str, wait_completed: Wait
) -> None:
    process = child(HEAD, etcd.url, name, "brief")
    epoch = int(process.stdout.readline())
    process.stdin.write("first\n")
    process.stdin.flush()
    assert process.stdout.readline() == "NoneType [0] NoneType\n"
    process.send_signal(signal.SIGSTOP)
    store = etcds(etcd.url)
    opened = store.open()
    assert opened.epoch > epoch and opened.rows == {"t": {b"0": b"first\n"}}
    store.submit(1, [("t", b"1", b"ours")])
    assert wait_completed(store, 1) == [1]
    process.stdin.write("second\n")
    process.stdin.flush()
    process.send_signal(signal.SIGCONT)
    assert process.stdout.readline() == "FencedError [] FencedError\n"
    store.close()
    assert etcds(etcd.url).open().rows == {"t": {b"0": b"first\n", b"1": b"ours"}}


def test_the_write_of_a_head_that_was_followed_is_refused(
    etcd: Etcd, fenced_stores: Fenced, etcds: Stores, name: str, wait_until: Any
) -> None:
    """By etcd, whatever its clocks say."""
    first, term = fenced_stores()
    first.open()
    etcd.delete(Layout(name).leader)
    second = etcds(etcd.url)
    second.open()
    first.submit(1, [("t", b"k", b"first")])
    wait_until(lambda: first.failure() is not None)
    assert isinstance(first.failure(), FencedError) and "another does" in str(first.failure())
    assert first.completed() == [] and term.reason == "another does"
    assert second.failure() is None
    second.close()
    assert etcds(etcd.url).open().rows == {}


def test_a_write_is_refused_where_nobody_leads_yet(
    etcd: Etcd, fenced_stores: Fenced, name: str, wait_until: Any
) -> None:
    store, _ = fenced_stores()
    store.open()
    etcd.delete(Layout(name).leader)
    store.submit(1, [("t", b"k", b"v")])
    wait_until(lambda: store.failure() is not None)
    assert "its key is gone" in str(store.failure()) and store.completed() == []
    assert etcd.keys(Layout(name).rows) == []


def test_a_foreign_write_in_a_leader_s_name_is_noticed(
    etcd: Etcd, fenced_stores: Fenced, name: str, wait_until: Any
) -> None:
    store, term = fenced_stores()
    store.open()
    etcd.put(Layout(name).mark, b"7:7")
    store.submit(1, [("t", b"k", b"v")])
    wait_until(lambda: store.failure() is not None)
    assert "in its name" in str(store.failure()) and "in its name" in term.reason


def test_a_term_that_is_over_opens_nothing_and_stores_nothing(
    etcd: Etcd, fenced_stores: Fenced, name: str
) -> None:
    store, term = fenced_stores()
    store.open()
    store.submit(1, [("t", b"k", b"v")])
    term.reason = "it slept"
    assert store.completed() == [] and "it slept" in str(store.failure())
    store.close()
    assert etcd.keys(Layout(name).leader), "the key is not the store's to give back"
    store, term = fenced_stores()
    term.reason = "it slept"
    with pytest.raises(FencedError, match="it slept"):
        store.open()


def test_kill_9_loses_nothing_reported_and_halves_no_batch(
    etcd: Etcd, etcds: Stores, child: Any, name: str
) -> None:
    """Each batch takes several transactions: rows, and a value that is in parts."""
    source, epoch, stored = random.Random(7), 0, -1
    for _ in range(6):
        process = child(WRITER, etcd.url, name, stored + 1)
        reported = stored
        for _ in range(source.randrange(1, 8)):
            reported = int(process.stdout.readline())
        time.sleep(source.random() * 0.1)
        process.kill()
        reported = max([reported, *map(int, process.stdout.read().split())])
        process.wait()
        store = etcds(etcd.url)
        opened = store.open()
        found = {*opened.rows["t"].values(), opened.rows["large"][b"k"][:8].strip()}
        assert len(found) == 1 and len(opened.rows["t"]) == 300
        assert len(opened.rows["large"][b"k"]) == 700_000
        stored = int(found.pop())
        assert stored >= reported and opened.epoch > epoch
        assert len(etcd.keys(Layout(name).parts)) == 2
        epoch = opened.epoch
        store.close()


# ---- answers that are lost or late ---------------------------------------------------------


def test_lost_answers_lose_nothing_and_write_nothing_twice(
    proxy: FaultyProxy, etcds: Stores, wait_completed: Wait, etcd: Etcd
) -> None:
    asked = {"all": 0, "lost": 0}

    def lose(request: bytes) -> bool:
        asked["all"] += 1
        lost = asked["all"] % 3 == 0 or asked["all"] in (2, 4)  # lease, key of the leader
        asked["lost"] += lost
        return lost

    proxy.lose = lose
    store = etcds(proxy.url, terms=LONG)
    store.open()
    for token in range(40):
        several = [("many", b"%d" % row, b"%d" % token) for row in range(200) if token % 10 == 0]
        store.submit(token, [("t", b"last", b"%d" % token), ("t", b"%d" % token, b"v"), *several])
        assert wait_completed(store, 1) == [token]
    assert store.failure() is None
    assert asked["lost"] > 10
    store.close()
    rows = etcds(etcd.url).open().rows
    assert rows["t"] == {b"last": b"39", **{b"%d" % token: b"v" for token in range(40)}}
    assert rows["many"] == {b"%d" % row: b"30" for row in range(200)}


def test_slow_is_told_and_passes(
    proxy: FaultyProxy, etcds: Stores, wait_completed: Wait, wait_until: Any
) -> None:
    store = etcds(proxy.url, terms=LONG)
    store.open()
    proxy.delay_s = 1.5
    store.submit(1, [("t", b"k", b"v")])
    wait_until(lambda: store.stall() is not None)
    assert "takes longer than 1 s" in str(store.stall())
    assert wait_completed(store, 1) == [1]
    assert (store.stall(), store.failure()) == (None, None)
    proxy.delay_s = 0.0


# ---- what is there -------------------------------------------------------------------------


def test_a_batch_that_was_being_applied_is_finished(etcd: Etcd, etcds: Stores, name: str) -> None:
    layout = Layout(name)
    etcds(etcd.url).open()
    operations = [
        (layout.row("t", b"%d" % number), etcd_layout.whole("t", b"%d" % number, b"v" * 9000))
        for number in range(200)
    ]
    pieces = etcd_layout.stage(operations, layout)
    for key, value in pieces[:-1]:
        etcd.put(key, value)
    etcd.put(layout.part(b"7-1", 0), b"of a row that was never written")
    etcd.delete(layout.leader)
    store = etcds(etcd.url)
    assert store.open().rows == {}, "its last piece was not written"
    assert etcd.keys(layout.staged) == etcd.keys(layout.parts) == []
    for key, value in pieces:
        etcd.put(key, value)
    store.close()
    assert etcds(etcd.url).open().rows == {"t": {b"%d" % n: b"v" * 9000 for n in range(200)}}
    assert etcd.keys(layout.staged) == []


def test_parts_of_values_that_are_gone_go_too(
    etcd: Etcd, etcds: Stores, name: str, wait_completed: Wait
) -> None:
    layout = Layout(name)
    store = etcds(etcd.url)
    store.open()
    store.submit(1, [("t", b"k", b"x" * 3_000_000), ("t", b"l", b"y" * 20_000)])
    assert wait_completed(store, 1) == [1]
    assert len(etcd.keys(layout.parts)) == 7
    store.submit(2, [("t", b"k", b"small")])
    assert wait_completed(store, 1) == [2]
    assert len(etcd.keys(layout.parts)) == 1
    store.close()
    store = etcds(etcd.url)
    assert store.open().rows == {"t": {b"k": b"small", b"l": b"y" * 20_000}}
    store.submit(3, [("t", b"l", None)])
    assert wait_completed(store, 1) == [3]
    assert etcd.keys(layout.parts) == []


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("row", "does not match its checksum"),
        ("part", "does not match its checksum"),
        ("parts", "does not match its checksum"),
        ("meta", "`meta` is missing"),
        ("text", "`meta` cannot be read"),
        ("schema", "by a newer zray"),
    ],
)
def test_what_is_damaged_is_refused_and_left(
    etcd: Etcd, etcds: Stores, name: str, wait_completed: Wait, harm: str, said: str
) -> None:
    layout = Layout(name)
    store = etcds(etcd.url)
    store.open()
    store.submit(1, [("t", b"k", b"v"), ("t", b"large", b"x" * 600_000)])
    assert wait_completed(store, 1) == [1]
    store.close()
    parts = etcd.keys(layout.parts)
    meta = {"schema": 2, "cluster_id": "", "skipped_epochs": 0, "more": 1}
    doing: dict[str, Callable[[], None]] = {
        "row": lambda: etcd.put(layout.row("t", b"k"), etcd_layout.whole("t", b"l", b"v")),
        "part": lambda: etcd.put(parts[0], b"x" * 600_001),
        "parts": lambda: etcd.delete(parts[1]),
        "meta": lambda: etcd.delete(layout.meta),
        "text": lambda: etcd.put(layout.meta, b"{}"),
        "schema": lambda: etcd.put(layout.meta, json.dumps(meta).encode()),
    }
    doing[harm]()
    keys = etcd.keys(layout.rows) + etcd.keys(layout.parts)
    with pytest.raises(StoreError, match=said):
        etcds(etcd.url).open()
    assert etcd.keys(layout.rows) + etcd.keys(layout.parts) == keys
    assert etcd.keys(layout.leader) == [], "the next head need not wait for its lease"


def test_history_is_forgotten_after_a_while_and_rows_are_not(
    etcd: Etcd, etcds: Stores, wait_completed: Wait, wait_until: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(limits, "LEADER_COMPACT_S", 0.2)
    store = etcds(etcd.url, terms=LONG._replace(renew_s=0.1))
    store.open()
    store.submit(1, [("t", b"k", b"v")])
    assert wait_completed(store, 1) == [1]
    revision = etcd.revision()

    def is_forgotten() -> bool:
        try:
            etcd.ask("kv/range", {"key": encoded(b"x"), "revision": str(revision - 1)})
        except urllib.error.HTTPError as error:
            return b"compacted" in error.read()
        return False

    wait_until(is_forgotten)
    store.close()
    assert etcds(etcd.url).open().rows == {"t": {b"k": b"v"}}


def test_clusters_of_one_etcd_do_not_meet(
    etcd: Etcd, etcds: Stores, name: str, wait_completed: Wait
) -> None:
    store, other = etcds(etcd.url), ElectedStore(etcd_address.parse(etcd.url, {}), f"{name}/rows")
    store.open()
    other.open()
    store.submit(1, [("t", b"k", b"v")])
    assert wait_completed(store, 1) == [1]
    other.close()
    store.close()
    assert etcds(etcd.url).open().rows == {"t": {b"k": b"v"}}


# ---- how it is entered ---------------------------------------------------------------------


def test_without_an_etcd_there_is_no_start(etcds: Stores) -> None:
    with pytest.raises(StoreError, match=r"does not answer .*endpoint health"):
        etcds("etcd://127.0.0.1:1,127.0.0.1:2", wait_s=0.3).open()


def test_a_port_of_something_else_is_no_etcd(etcds: Stores, proxy: FaultyProxy) -> None:
    proxy.lose = lambda request: True
    with pytest.raises(StoreError, match="does not answer"):
        etcds(proxy.url, wait_s=0.3).open()


def test_what_has_to_be_installed_is_named(etcds: Stores, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(StoreError, match=r'pip install "zray\[etcd\]"'):
        etcds("etcd://127.0.0.1:1")


def test_user_and_password(tmp_path: Path, wait_completed: Wait) -> None:
    etcd = Etcd(tmp_path / "etcd")
    try:
        for user in ("root", "zray", "other"):
            etcd.ask("auth/user/add", {"name": user, "password": "secret"})
        etcd.ask("auth/user/grant", {"user": "root", "role": "root"})
        etcd.ask("auth/role/add", {"name": "zray"})
        keys = {"permType": "READWRITE", "key": "L3pyYXkv", "range_end": "L3pyYXkw"}
        etcd.ask("auth/role/grant", {"name": "zray", "perm": keys})  # /zray/ to /zray0
        etcd.ask("auth/user/grant", {"user": "zray", "role": "zray"})
        etcd.ask("auth/enable", {})
        for user, password in (("", ""), ("other", "secret"), ("zray", "wrong")):
            given = {"ZRAY_ETCD_USER": user, "ZRAY_ETCD_PASSWORD": password}
            store = ElectedStore(etcd_address.parse(etcd.url, given), "c", wait_s=1.0)
            with pytest.raises(StoreError, match="refuses this head"):
                store.open()
        given = {"ZRAY_ETCD_USER": "zray", "ZRAY_ETCD_PASSWORD": "secret"}
        store = ElectedStore(etcd_address.parse(etcd.url, given), "c")
        try:
            store.open()
            etcd.kill(0)  # and with it the token that the head has been given
            etcd.start(0)
            store.submit(1, [("t", b"k", b"v")])
            assert wait_completed(store, 1) == [1]
        finally:
            store.close()
    finally:
        etcd.close()


def test_tls_with_certificates_of_both(tmp_path: Path, wait_completed: Wait) -> None:
    def run(*command: str) -> None:
        subprocess.run(["openssl", *command], cwd=tmp_path, check=True, capture_output=True)

    own = ("-nodes", "-newkey", "rsa:2048", "-days", "2")
    run("req", "-x509", *own, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    run("req", *own[:3], "-subj", "/CN=h", "-keyout", "h.key", "-out", "h.csr")
    (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1")
    by = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
    run("x509", "-req", "-in", "h.csr", *by, "-extfile", "names", "-out", "h.pem")
    ca, certificate, key = (str(tmp_path / one) for one in ("ca.pem", "h.pem", "h.key"))
    files = ("--cert-file", certificate, "--key-file", key, "--trusted-ca-file", ca)
    etcd = Etcd(tmp_path / "etcd", 1, *files, "--client-cert-auth", scheme="https")
    given = {"ZRAY_ETCD_CA": ca, "ZRAY_ETCD_CERT": certificate, "ZRAY_ETCD_KEY": key}
    try:
        for some in ({}, {"ZRAY_ETCD_CA": ca}):
            store = ElectedStore(etcd_address.parse(etcd.url, some), "c", wait_s=0.5)
            with pytest.raises(StoreError, match="does not answer"):
                store.open()
        with pytest.raises(StoreError, match="ZRAY_ETCD_CA"):
            ElectedStore(etcd_address.parse(etcd.url, given | {"ZRAY_ETCD_CA": "/none"}), "c")
        store = ElectedStore(etcd_address.parse(etcd.url, given), "c")
        try:
            store.open()
            store.submit(1, [("t", b"k", b"v")])
            assert wait_completed(store, 1) == [1]
        finally:
            store.close()
    finally:
        etcd.close()
