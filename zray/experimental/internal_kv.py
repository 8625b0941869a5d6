"""The cluster's small key-value pairs, under the names that programs for Ray use.

Semantics: ``ray.experimental.internal_kv`` of Ray 2.60; how they are kept: ``zray.util.kv``.
Keys and values are bytes, or texts, which are encoded in UTF-8. A key and its namespace have at
most 1000 bytes, a value 1 MiB.
"""

from __future__ import annotations

from zray.runtime import session
from zray.util import kv

_NAMESPACE = b"@namespace_"

Text = str | bytes


def _internal_kv_initialized() -> bool:
    """Whether this process takes part in a cluster."""
    return session.current() is not None


def _internal_kv_reset() -> None:
    """Nothing: the pairs are reached through the process's connection, as long as that is."""


def _internal_kv_get(key: Text, *, namespace: Text | None = None) -> bytes | None:
    """The value, or None."""
    return kv.get(_path(key, namespace))


def _internal_kv_exists(key: Text, *, namespace: Text | None = None) -> bool:
    """Whether there is one."""
    return kv.get(_path(key, namespace)) is not None


def _internal_kv_put(
    key: Text, value: Text, overwrite: bool = True, *, namespace: Text | None = None
) -> bool:
    """Store a value; returns whether there was one before, which without ``overwrite`` stays."""
    if not isinstance(overwrite, bool):
        raise TypeError(f"overwrite must be a bool, got {overwrite!r}")
    store = kv.put if overwrite else kv.add
    return store(_path(key, namespace), _bytes("value", value))


def _internal_kv_del(
    key: Text, *, del_by_prefix: bool = False, namespace: Text | None = None
) -> int:
    """Remove a pair, or all whose keys begin with ``key``; returns how many there were."""
    if not del_by_prefix:
        return int(kv.delete(_path(key, namespace)))
    return sum(
        kv.delete(_path(found, namespace)) for found in _internal_kv_list(key, namespace=namespace)
    )


def _internal_kv_list(prefix: Text, *, namespace: Text | None = None) -> list[bytes]:
    """The keys that begin so, sorted."""
    found = kv.keys(_path(prefix, namespace))
    if namespace is None:
        return [key for key in found if not key.startswith(_NAMESPACE)]
    return [key[len(_path(b"", namespace)) :] for key in found]


def _path(key: Text, namespace: Text | None) -> bytes:
    """Where the pair of a namespace is among all."""
    of_key = _bytes("key", key)
    if namespace is None:
        return of_key
    return _NAMESPACE + _bytes("namespace", namespace) + b":" + of_key


def _bytes(what: str, given: Text) -> bytes:
    if isinstance(given, str):
        return given.encode()
    if not isinstance(given, bytes):
        raise TypeError(f"the {what} must be bytes or a text, got {given!r}")
    return given
