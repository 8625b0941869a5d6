from __future__ import annotations

import msgpack
import msgspec
import pytest

from zray import limits
from zray.protocol import errors
from zray.protocol.errors import ErrorRecord


def test_a_record_is_an_array_that_any_peer_can_read() -> None:
    record = ErrorRecord("ZR-3001", "boom", "ValueError", "f", "Traceback", "n1", 7, b"\x80", "x")
    data = errors.encode_error(record)
    assert msgpack.unpackb(data) == [
        *("ZR-3001", "boom", "ValueError", "f", "Traceback", "n1", 7, b"\x80", "x"),
        *(False, b"", "", []),
    ]
    assert errors.decode_error(data) == record


def test_records_of_older_and_newer_peers_are_read() -> None:
    assert errors.decode_error(msgpack.packb(["ZR-3003"])) == ErrorRecord("ZR-3003")
    known = ("ZR-3003", "m", "", "", "", "", 0, b"", "", False, b"", "", [])
    newer = [*known, "a field of the future"]
    assert errors.decode_error(msgpack.packb(newer)) == ErrorRecord("ZR-3003", "m")


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x90", msgpack.packb([1]), msgpack.packb({})])
def test_damaged_records_are_refused(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        errors.decode_error(data)


def test_a_system_error_has_its_fields_and_a_bound() -> None:
    data = errors.system_error("ZR-3003", "x" * 10**6, function_name="f", node="n", pid=3, note="y")
    record = errors.decode_error(data)
    assert (record.code, record.function_name, record.node, record.pid) == ("ZR-3003", "f", "n", 3)
    assert record.note == "y"
    assert record.pickled == b""
    assert len(data) < 2 * errors.MESSAGE_BYTES_MAX


@pytest.mark.parametrize("size", [100, 1000, limits.ERROR_TEXT_BYTES_MAX])
@pytest.mark.parametrize("character", ["a", "\xe9", "\u20ac", "\U0001f600", "\udc80"])
def test_cut_texts_fit_and_keep_both_ends(size: int, character: str) -> None:
    text = "start" + character * size + "end"
    cut = errors.cut_text(text, size)
    assert len(cut.encode()) <= size
    assert cut.startswith("start")
    assert cut.endswith("end")
    assert f"[cut: {len(text)} characters in all]" in cut


def test_texts_that_fit_are_not_cut() -> None:
    assert errors.cut_text("x" * 100, 100) == "x" * 100
    assert errors.cut_text("", 100) == ""
    assert errors.cut_text("a\udc80", 100) == "a\\udc80"
