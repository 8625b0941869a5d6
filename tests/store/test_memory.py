"""The memory store as the simulator uses it: it decides when commits and crashes happen."""

from __future__ import annotations

from zray.errors import StoreError
from zray.store.memory import MemoryStore


def test_commits_happen_when_told() -> None:
    store = MemoryStore(auto=False)
    store.open()
    for token in (1, 2, 3):
        store.submit(token, [("t", b"%d" % token, b"v")])
    assert (store.completed(), store.waiting()) == ([], 3)
    assert store.commit(2) == 2
    assert (store.completed(), store.waiting()) == ([1, 2], 1)
    assert store.commit(5) == 1
    assert store.completed() == [3]


def test_crash_loses_what_was_not_durable() -> None:
    store = MemoryStore({"t": {b"old": b"v"}}, epoch=4, cluster_id=b"c", auto=False)
    assert store.open().epoch == 5
    store.submit(1, [("t", b"durable", b"v")])
    store.submit(2, [("t", b"lost", b"v")])
    store.commit(1)
    successor = store.crash()
    assert store.completed() == []
    opened = successor.open()
    assert (opened.epoch, opened.cluster_id) == (6, b"c")
    assert opened.rows == {"t": {b"old": b"v", b"durable": b"v"}}
    successor.submit(3, [("t", b"old", None)])
    assert successor.completed() == []


def test_crash_while_opening_keeps_epochs_apart() -> None:
    store = MemoryStore()
    assert store.open().epoch == 1
    assert store.crash().crash().open().epoch == 2


def test_failure_fences() -> None:
    store = MemoryStore(auto=False)
    store.open()
    store.submit(1, [("t", b"a", b"v")])
    store.commit(1)
    store.submit(2, [("t", b"b", b"v")])
    error = StoreError("disk I/O error")
    store.fail(error)
    store.submit(3, [("t", b"c", b"v")])
    assert store.failure() is error
    assert (store.completed(), store.commit(9)) == ([], 0)
    assert store.crash().open().rows == {"t": {b"a": b"v"}}
