from __future__ import annotations

from typing import Any

import msgpack
import pytest

from zray.protocol import values


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 0, -(2**63), 2**64 - 1, 1.5, float("inf"), "", "\x00", b"", b"\xff"),
        [1, [None]],
        {"": 1, "a": {"b": [b""]}},
    ],
)
def test_values_come_back_equal_and_of_the_same_type(value: Any) -> None:
    loaded = values.unpack(values.pack(value))
    assert loaded == value
    assert type(loaded) is type(value)


@pytest.mark.parametrize(
    "value", [(1,), {1: 2}, {b"a": 1}, [{None: 1}], 2**64, {1}, object(), "\udc80", range(2)]
)
def test_nothing_else_is_packed(value: Any) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        values.pack(value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x01\x01",
        b"\xa2a",
        b"\xa1\xff",
        b"\x82\xa1a\x01\xa1a\x02",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\x91" * 100_000,
        msgpack.packb({1: 2}),
        msgpack.packb({b"a": 2}),
        msgpack.packb([1]) + b"x",
        msgpack.packb(msgpack.ExtType(1, b"x")),
        msgpack.packb(msgpack.Timestamp(1, 0)),
        msgpack.packb([{"a": [msgpack.Timestamp(1, 5)]}]),
        msgpack.packb({"a": msgpack.Timestamp(2**40, 5)}),
    ],
)
def test_nothing_else_is_unpacked(data: bytes) -> None:
    with pytest.raises((ValueError, msgpack.UnpackException)):
        values.unpack(data)
