"""Small durable key-value pairs of the cluster, as ``ray.experimental.internal_kv``.

Stored in the head's control store: a ``put`` that returned survives a restart of the head. For
configuration and rendezvous; large or many values belong into objects.
"""

from __future__ import annotations

from zray import limits
from zray.api.session import participant
from zray.errors import HeadSilentError
from zray.protocol.messages import Kv, KvReply

KEY_BYTES_MAX = 1024


def put(key: bytes, value: bytes) -> bool:
    """Store a value; returns whether the key had one before.

    Raises:
        ValueError: the key is longer than 1024 bytes, or the value than 1 MiB.
        HeadSilentError: no answer in time; the value may have been stored.
    """
    return _store("put", key, value)


def add(key: bytes, value: bytes) -> bool:
    """Store a value if the key has none; returns whether it had one. One of several is the first.

    Raises:
        ValueError, HeadSilentError: as ``put``.
    """
    return _store("add", key, value)


def get(key: bytes) -> bytes | None:
    """The value of a key, or None.

    Raises:
        ValueError, HeadSilentError: as ``put``.
    """
    reply = _operate("get", key)
    return reply.value if reply.found else None


def delete(key: bytes) -> bool:
    """Remove a key; returns whether it was there.

    Raises:
        ValueError, HeadSilentError: as ``put``.
    """
    return _operate("delete", key).found


def keys(prefix: bytes = b"") -> list[bytes]:
    """The keys that start with ``prefix``, sorted.

    Raises:
        ValueError, HeadSilentError: as ``put``.
    """
    return _operate("keys", prefix).keys


def _store(op: str, key: bytes, value: bytes) -> bool:
    if len(value) > limits.CHUNK_BYTES:
        raise ValueError(f"a value of {len(value)} bytes is too large for a key; use zray.put")
    return _operate(op, key, value).found


def _operate(op: str, key: bytes, value: bytes = b"") -> KvReply:
    if len(key) > KEY_BYTES_MAX:
        raise ValueError(f"a key has at most {KEY_BYTES_MAX} bytes, this one {len(key)}")
    answer = participant().ask(lambda seq: Kv(seq, op, key, value), limits.CONNECT_TIMEOUT_S)
    if not isinstance(answer, KvReply):
        raise HeadSilentError(f"the head did not answer a key-value {op} in time")
    return answer
