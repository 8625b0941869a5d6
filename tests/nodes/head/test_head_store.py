"""Where a head keeps its state, and which key belongs to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zray.errors import StartError
from zray.nodes.head.head_store import SharedStore, cluster_key, make_store
from zray.nodes.options import HeadOptions
from zray.store.memory import MemoryStore
from zray.store.sqlite import SqliteStore

FILE, ETCD, LOCAL = HeadOptions(), HeadOptions(store="etcd://h1"), HeadOptions(local=True)


def test_each_has_its_store(tmp_path: Path) -> None:
    for options, kind in ((FILE, SqliteStore), (LOCAL, MemoryStore)):
        store = make_store(options, tmp_path)
        assert type(store) is kind
        store.close()


def test_what_a_head_enters_etcd_with_is_not_for_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZRAY_ETCD_USER", "zray")
    monkeypatch.setenv("ZRAY_ETCD_PASSWORD", "secret")
    shared = SharedStore(ETCD)
    assert shared.address.password == "secret"
    assert not [name for name in os.environ if name.startswith("ZRAY_ETCD_")]


def test_a_new_cluster_has_a_new_key_and_keeps_it(tmp_path: Path) -> None:
    key = cluster_key(ETCD, tmp_path, None)
    assert cluster_key(ETCD, tmp_path, key.cluster_id).cluster_id == key.cluster_id


@pytest.mark.parametrize("options", [FILE, ETCD])
def test_a_cluster_without_its_key_gets_no_other(tmp_path: Path, options: HeadOptions) -> None:
    with pytest.raises(StartError, match="Copy the file"):
        cluster_key(options, tmp_path, b"\1" * 16)
    assert not (tmp_path / "cluster.key").exists()


def test_a_key_of_another_cluster_is_refused(tmp_path: Path) -> None:
    cluster_key(FILE, tmp_path, None)
    with pytest.raises(StartError, match="of another cluster"):
        cluster_key(FILE, tmp_path, b"\1" * 16)
