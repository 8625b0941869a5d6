"""A head's record survives being stored, and what is none is not taken for one."""

from __future__ import annotations

import json

import pytest

from zray.core.head.head_record import HeadRecord
from zray.protocol.head_messages import HeadInfo

HEAD = HeadInfo(b"h" * 16, ["h1:10001", "10.0.0.1:10001"], "h1", 7, "0.1.0", 1.5)
ME = HeadRecord.of(HEAD, "boot", "pid:[1]", "99")


def test_it_survives_its_encoding_and_people_can_read_it() -> None:
    assert HeadRecord.decode(ME.encode()) == ME
    assert ME.head(leads=False) == HEAD and ME.head(leads=True).leads
    found = json.loads(ME.encode())
    assert found["head_id"] == (b"h" * 16).hex() and found["addresses"][0] == "h1:10001"


DEEP = b'{"later": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"[]", b"{}", b'{"pid": 1}', b"\xff", b"7", pytest.param(DEEP, id="deep")],
)
def test_what_is_no_record_is_none(content: bytes) -> None:
    assert HeadRecord.decode(content) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("pid", "7"), ("pid", True), ("pid", -1), ("pid", 2**60), ("host", 1)),
        *(("head_id", "xy"), ("head_id", "0" * 31), ("addresses", ["h:1"] * 17)),
        *(("host", "h" * 100_000), ("addresses", "h:1")),
        *(("since_s", 1e300), ("since_s", -1.0)),
    ],
)
def test_a_record_with_a_wrong_field_is_none(field: str, value: object) -> None:
    fields = json.loads(ME.encode()) | {field: value}
    assert HeadRecord.decode(json.dumps(fields).encode()) is None


def test_machines_are_the_same_only_where_process_ids_mean_the_same() -> None:
    fields = json.loads(ME.encode())

    def other(**changes: str) -> HeadRecord:
        return HeadRecord(**{**fields, "pid": 8, **changes})

    assert ME.shares_machine_with(other())
    assert not ME.shares_machine_with(other(boot="later"))
    assert not ME.shares_machine_with(other(host="h2")), "a copy of a virtual machine"
    assert not ME.shares_machine_with(other(namespace="pid:[2]"))
    unknown = other(boot="", namespace="")
    assert not unknown.shares_machine_with(unknown)


def test_its_minor_is_told_and_one_that_says_nothing_of_it_speaks_minor_0() -> None:
    head = HeadInfo(bytes(16), ["h:1"], "h", 7, "9.8.7", 1.0, False, 3)
    record = HeadRecord.of(head)
    assert HeadRecord.decode(record.encode()) == record
    assert record.head(leads=True).minor == 3
    old = json.loads(record.encode())
    del old["minor"]
    read = HeadRecord.decode(json.dumps({**old, "later": [1]}).encode())
    assert read is not None and read.head(leads=False).minor == 0
