"""A head whose state is in an etcd: ended, started elsewhere, and cut off from it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import zray
from tests.etcd_cluster import Etcd
from zray.util import kv

pytestmark = pytest.mark.system

GET_S = 30.0


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    etcd = Etcd(tmp_path / "etcd")
    yield etcd
    etcd.close()


@pytest.fixture
def make_counter() -> Callable[[], Any]:
    """An actor that outlives its programs."""

    @zray.actor
    class Counter:
        def __init__(self) -> None:
            self.n = 0

        def add(self) -> int:
            self.n += 1
            return self.n

    return lambda: Counter.options(
        name="counter", namespace="cluster", lifetime="detached"
    ).remote()


def test_a_killed_head_is_started_again_on_another_data_directory(
    etcd: Etcd, bare: Any, make_counter: Callable[[], Any]
) -> None:
    bare.start_head("--store", etcd.url)
    bare.start_node("one", 2)
    bare.connect()
    counter = make_counter()
    assert zray.get([counter.add.remote() for _ in range(3)], timeout=GET_S) == [1, 2, 3]
    kv.put(b"key", b"value" * 10_000)
    epoch = bare.epoch()
    data, other = bare.home / "clusters" / "default", bare.home / "other"
    assert not (data / "gcs.sqlite").exists()
    bare.head.kill()
    first = counter.add.remote()

    with pytest.raises(AssertionError, match="Copy the file"):
        bare.start_head("--store", etcd.url, "--data-directory", str(other), port=-1)
    shutil.copy(data / "cluster.key", other)
    bare.start_head("--store", etcd.url, "--data-directory", str(other), port=-1)
    assert bare.epoch() > epoch
    assert zray.get(first, timeout=GET_S) == 4
    assert zray.get(zray.get_actor("counter", "cluster").add.remote(), timeout=GET_S) == 5
    assert kv.get(b"key") == b"value" * 10_000
    zray.shutdown()
    bare.connect()
    assert zray.get(zray.get_actor("counter", "cluster").add.remote(), timeout=GET_S) == 6


def test_an_etcd_that_is_away_for_a_while_costs_patience_only(etcd: Etcd, bare: Any) -> None:
    bare.start_head("--store", etcd.url)
    bare.start_node("one", 2)
    bare.connect()

    @zray.task
    def double(number: int) -> int:
        return 2 * number

    assert zray.get(double.remote(1), timeout=GET_S) == 2
    etcd.kill(0)
    assert zray.get(double.remote(2), timeout=GET_S) == 4, "which needs no store"
    with ThreadPoolExecutor(1) as pool:
        put = pool.submit(kv.put, b"key", b"value")
        bare.until(lambda: "does not answer" in bare.status().health, 6, "health says why")
        etcd.start(0)
        put.result(GET_S)
    assert kv.get(b"key") == b"value"
    bare.until(lambda: bare.status().health == "OK", GET_S, "all is well again")


def test_state_in_a_file_is_not_forgotten_for_an_empty_etcd(etcd: Etcd, bare: Any) -> None:
    bare.start_head()
    bare.head.stop()
    with pytest.raises(AssertionError, match="to start would forget it"):
        bare.start_head("--store", etcd.url)
    bare.start_head()


def test_what_is_no_store_is_refused_at_once(bare: Any) -> None:
    for url, said in (("redis://h", "etcd://HOST:PORT"), ("etcd://u:pw@h", "ZRAY_ETCD_USER")):
        with pytest.raises(AssertionError, match=said):
            bare.start_head("--store", url)
