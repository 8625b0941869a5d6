"""Contracts of the internal key-value pairs that libraries on top of Ray use."""

from __future__ import annotations

import pytest
import ray
from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_exists,
    _internal_kv_get,
    _internal_kv_initialized,
    _internal_kv_list,
    _internal_kv_put,
)

pytestmark = pytest.mark.usefixtures("cluster")


def test_it_is_there_while_connected() -> None:
    """``_internal_kv_initialized``."""
    assert _internal_kv_initialized()


def test_put_and_get() -> None:
    """Texts and bytes are the same; what comes back is bytes."""
    assert _internal_kv_get("absent") is None
    assert _internal_kv_put("text", "value") is False
    assert _internal_kv_get(b"text") == b"value"
    _internal_kv_put(b"text", b"\x00\xff")
    assert _internal_kv_get("text") == b"\x00\xff"
    _internal_kv_put("empty", b"")
    assert _internal_kv_get("empty") == b""


def test_put_says_whether_there_was_a_value() -> None:
    """And without ``overwrite`` that one stays."""
    assert _internal_kv_put("twice", "1") is False
    assert _internal_kv_put("twice", "2") is True
    assert _internal_kv_get("twice") == b"2"
    assert _internal_kv_put("twice", "3", overwrite=False) is True
    assert _internal_kv_get("twice") == b"2"
    assert _internal_kv_put("once", "1", overwrite=False) is False
    assert _internal_kv_get("once") == b"1"


def test_exists() -> None:
    """Whether there is a value, even an empty one."""
    assert not _internal_kv_exists("exists")
    _internal_kv_put("exists", "")
    assert _internal_kv_exists(b"exists")


def test_delete() -> None:
    """Returns how many there were."""
    _internal_kv_put("gone", "1")
    assert _internal_kv_del("gone") == 1
    assert _internal_kv_del("gone") == 0
    assert _internal_kv_get("gone") is None


def test_delete_by_prefix() -> None:
    """All that begin so."""
    for name in ("pre:a", "pre:b", "other"):
        _internal_kv_put(name, "1", namespace="prefixes")
    assert _internal_kv_del("pre:", del_by_prefix=True, namespace="prefixes") == 2
    assert _internal_kv_list("", namespace="prefixes") == [b"other"]


def test_list() -> None:
    """The keys that begin so, as bytes."""
    for name in ("list:b", "list:a", "list"):
        _internal_kv_put(name, "1", namespace="lists")
    assert sorted(_internal_kv_list("list:", namespace="lists")) == [b"list:a", b"list:b"]
    assert _internal_kv_list(b"no", namespace=b"lists") == []


def test_namespaces_are_apart() -> None:
    """A key of one is not in another, nor outside of all."""
    _internal_kv_put("same", "a", namespace="a")
    _internal_kv_put("same", "b", namespace=b"b")
    assert _internal_kv_get("same", namespace=b"a") == b"a"
    assert _internal_kv_get("same", namespace="b") == b"b"
    assert _internal_kv_get("same") is None
    _internal_kv_del("same", namespace="a")
    assert _internal_kv_exists("same", namespace="b")


def test_tasks_have_the_same_pairs() -> None:
    """What a task puts the driver gets."""

    @ray.remote
    def store(key):
        return _internal_kv_put(key, "from a task"), _internal_kv_get(key)

    assert ray.get(store.remote("of-a-task")) == (False, b"from a task")
    assert _internal_kv_get("of-a-task") == b"from a task"


def test_of_many_who_put_without_overwrite_one_is_first() -> None:
    """Only one of them is told that there was none."""

    @ray.remote(num_cpus=0)
    def claim(name):
        return _internal_kv_put("claimed", name, overwrite=False)

    told = ray.get([claim.remote(str(number)) for number in range(8)])
    assert told.count(False) == 1
    assert _internal_kv_get("claimed") == str(told.index(False)).encode()


@pytest.mark.parametrize("key", [1, None])
def test_keys_are_texts_or_bytes(key) -> None:
    """Anything else is refused."""
    with pytest.raises((AssertionError, TypeError)):
        _internal_kv_get(key)
