"""Portable user values: what peers in every language can pack and unpack, as strict msgpack.

Owns the table of types. A value is None, bool, int (-2^63 to 2^64-1), float, str, bytes, list or
dict with str keys; nothing is converted on the way, and nothing else is packed or accepted.
"""

from __future__ import annotations

from typing import Any

import msgpack

# How msgpack's own timestamps begin; the unpacker makes objects of these without asking.
_TIMESTAMPS = (b"\xd6\xff", b"\xd7\xff", b"\xc7\x0c\xff")


def pack(value: Any) -> bytes:
    """The msgpack bytes of a portable value.

    Raises:
        TypeError, ValueError, OverflowError, RecursionError: it is not portable.
    """
    _check_keys(value)
    data: bytes = msgpack.packb(value, use_bin_type=True, strict_types=True)
    return data


def unpack(data: bytes | memoryview) -> Any:
    """The value of msgpack bytes.

    Raises:
        ValueError, msgpack.UnpackException: they are damaged, or hold what is not portable.
    """
    data = bytes(data)
    value = msgpack.unpackb(data, raw=False, object_pairs_hook=_dict, ext_hook=_refuse_extension)
    if any(mark in data for mark in _TIMESTAMPS):
        _refuse_timestamps(value)
    return value


def _check_keys(value: Any) -> None:
    if type(value) is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise TypeError(f"a dict has the key {key!r}, which is not a str")
            _check_keys(item)
    elif type(value) is list:
        for item in value:
            _check_keys(item)


def _dict(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    for key, _ in pairs:
        if type(key) is not str:
            raise ValueError(f"a map has the key {key!r}, which is not a str")
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a map has the same key twice")
    return value


def _refuse_extension(code: int, data: bytes) -> Any:
    raise ValueError(f"extension type {code} is not portable")


def _refuse_timestamps(value: Any) -> None:
    if type(value) is list:
        for item in value:
            _refuse_timestamps(item)
    elif type(value) is dict:
        for item in value.values():
            _refuse_timestamps(item)
    elif type(value) is msgpack.Timestamp:
        _refuse_extension(-1, b"")
