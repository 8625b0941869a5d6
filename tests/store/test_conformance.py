"""What the GCS depends on, for every engine. A new engine adds itself to ``engine`` below."""

from __future__ import annotations

import random
import select
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.etcd_cluster import Etcd
from zray.errors import StoreError
from zray.nodes.head.elected_store import ElectedStore
from zray.store import etcd_address
from zray.store.base import Row, Rows, Store
from zray.store.memory import MemoryStore
from zray.store.sqlite import SqliteStore

CLUSTER = b"\x01" * 16


class Engine:
    """Makes one store after another over the same durable content."""

    def __init__(self, directory: Path, etcd: Etcd | None = None, *, durable: bool = True) -> None:
        self._directory = directory
        self._etcd = etcd
        self._durable = durable
        self._last: Store | None = None

    def next(self) -> Store:
        """Close the last store and make its successor, not opened."""
        self.close()
        if self._etcd is not None:
            address = etcd_address.parse(self._etcd.url, {})
            self._last = ElectedStore(address, self._directory.parent.name)
        elif self._durable:
            self._last = SqliteStore(self._directory)
        elif isinstance(self._last, MemoryStore):
            self._last = self._last.crash()
        else:
            self._last = MemoryStore()
        return self._last

    def close(self) -> None:
        if self._last is not None:
            self._last.close()


@pytest.fixture(
    params=[
        *("memory", "sqlite"),
        *(pytest.param(f"etcd of {count}", marks=pytest.mark.system) for count in (1, 3)),
    ]
)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    kind, _, members = request.param.partition(" of ")
    etcd = request.getfixturevalue(f"etcd_of_{members}") if members else None
    engine = Engine(tmp_path / "data", etcd, durable=kind != "memory")
    yield engine
    engine.close()


def write(store: Store, wait: Callable[[Store, int], list[int]], *rows: Row) -> None:
    store.submit(0, list(rows))
    assert wait(store, 1) == [0]


def test_new_store_is_empty(engine: Engine) -> None:
    opened = engine.next().open()
    assert opened.epoch > 0
    assert (opened.rows, opened.cluster_id) == ({}, None)


def test_rows_survive(engine: Engine, wait_completed) -> None:
    store = engine.next()
    store.open()
    write(store, wait_completed, ("kv", b"a", b"1"), ("kv", b"", b""), ("\u00e9", b"\xff\0", b"2"))
    expected = {"kv": {b"a": b"1", b"": b""}, "\u00e9": {b"\xff\0": b"2"}}
    assert engine.next().open().rows == expected


def test_delete_and_overwrite(engine: Engine, wait_completed) -> None:
    store = engine.next()
    store.open()
    write(store, wait_completed, ("t", b"a", b"1"), ("t", b"b", b"1"), ("u", b"c", b"1"))
    write(store, wait_completed, ("t", b"a", None), ("t", b"b", b"2"), ("u", b"c", None))
    assert engine.next().open().rows == {"t": {b"b": b"2"}}


def test_delete_of_an_absent_row(engine: Engine, wait_completed) -> None:
    store = engine.next()
    store.open()
    write(store, wait_completed, ("t", b"a", None))
    assert engine.next().open().rows == {}


def test_later_row_of_a_batch_holds(engine: Engine, wait_completed) -> None:
    store = engine.next()
    store.open()
    write(
        store,
        wait_completed,
        ("t", b"a", b"1"),
        ("t", b"a", None),
        ("t", b"b", None),
        ("t", b"b", b"2"),
    )
    assert engine.next().open().rows == {"t": {b"b": b"2"}}


def test_completion_in_order_and_once(engine: Engine, wait_completed) -> None:
    store = engine.next()
    store.open()
    for token in range(500):
        store.submit(token, [("t", b"k", b"%d" % token)] if token % 3 else [])
    assert wait_completed(store, 500) == list(range(500))
    assert store.completed() == []
    assert engine.next().open().rows == {"t": {b"k": b"499"}}


def test_large_values_and_batches(engine: Engine, wait_completed) -> None:
    store = engine.next()
    store.open()
    many: list[Row] = [("t", b"%d" % i, b"x" * (i % 300)) for i in range(10_000)]
    large = bytes(range(256)) * (20 << 12)
    store.submit(1, many)
    store.submit(2, [("f", b"large", large)])
    assert wait_completed(store, 2) == [1, 2]
    rows = engine.next().open().rows
    assert rows == {"t": {key: value for _, key, value in many}, "f": {b"large": large}}


def test_epoch_rises(engine: Engine) -> None:
    epochs = [engine.next().open().epoch for _ in range(5)]
    assert epochs == sorted(set(epochs))
    assert engine.next().open(skip=1000).epoch > epochs[-1] + 1000
    assert engine.next().open().epoch > epochs[-1] + 1001


def test_cluster_id(engine: Engine) -> None:
    store = engine.next()
    store.open()
    store.set_cluster_id(CLUSTER)
    store.set_cluster_id(CLUSTER)
    store = engine.next()
    assert store.open().cluster_id == CLUSTER
    with pytest.raises(StoreError):
        store.set_cluster_id(b"\x02" * 16)
    assert engine.next().open().cluster_id == CLUSTER


def test_close_drains(engine: Engine) -> None:
    store = engine.next()
    store.open()
    for token in range(100):
        store.submit(token, [("t", b"%d" % token, b"v")])
    store.close()
    store.close()
    assert store.completed() == list(range(100))
    assert len(engine.next().open().rows["t"]) == 100


def test_submit_needs_an_open_store(engine: Engine) -> None:
    store = engine.next()
    with pytest.raises(StoreError):
        store.submit(1, [("t", b"k", b"v")])
    store.open()
    store.close()
    with pytest.raises(StoreError):
        store.submit(2, [("t", b"k", b"v")])
    assert store.completed() == []
    assert engine.next().open().rows == {}


def test_opened_once(engine: Engine) -> None:
    store = engine.next()
    store.open()
    with pytest.raises(StoreError):
        store.open()
    store.close()
    with pytest.raises(StoreError):
        store.open()


def test_close_of_an_unopened_store(engine: Engine) -> None:
    engine.next().close()
    assert engine.next().open().epoch > 0


def test_caller_owns_the_rows(engine: Engine, wait_completed) -> None:
    store = engine.next()
    store.open()
    write(store, wait_completed, ("t", b"a", b"1"))
    store = engine.next()
    rows = store.open().rows
    rows["t"][b"b"] = b"2"
    rows["u"] = {}
    assert engine.next().open().rows == {"t": {b"a": b"1"}}


def test_descriptor_tells_of_completion(engine: Engine, wait_completed) -> None:
    store = engine.next()
    store.open()
    store.submit(7, [("t", b"a", b"1")])
    descriptor = store.fileno()
    if descriptor is None:
        assert store.completed() == [7]
        return
    assert select.select([descriptor], [], [], 20.0)[0]
    assert store.completed() == [7]
    assert not select.select([descriptor], [], [], 0.0)[0]
    store.close()
    assert store.fileno() is None


@pytest.mark.parametrize("seed", range(5))
def test_content_matches_a_model(engine: Engine, wait_completed, seed: int) -> None:
    source = random.Random(seed)
    model: Rows = {}
    for _ in range(5):
        store = engine.next()
        assert store.open().rows == {t: r for t, r in model.items() if r}
        count = source.randrange(40)
        for token in range(count):
            batch: list[Row] = []
            for _ in range(source.choice((0, 1, 3, 16, 17, 300))):
                table, key = source.choice("abc"), b"%d" % source.randrange(50)
                value = None if source.random() < 0.3 else source.randbytes(source.randrange(99))
                batch.append((table, key, value))
                content = model.setdefault(table, {})
                content.pop(key, None)
                if value is not None:
                    content[key] = value
            store.submit(token, batch)
        assert wait_completed(store, count) == list(range(count))
