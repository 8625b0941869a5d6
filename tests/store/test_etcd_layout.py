"""How rows lie in etcd, and that what is read is what was written."""

from __future__ import annotations

import random

import pytest

from zray.store import etcd_layout
from zray.store.etcd_layout import Damaged, Delete, Layout, Meta, Place, Planner

LAYOUT = Layout("a/b c")


@pytest.mark.parametrize("table", ["kv", "", "a/b", "\u00e9 %2f", "rows/"])
@pytest.mark.parametrize("key", [b"", b"a/b", b"\xff\0", b"/"])
def test_keys_come_back(table: str, key: bytes) -> None:
    assert LAYOUT.table_and_key(LAYOUT.row(table, key)) == (table, key)


def test_no_cluster_is_inside_another() -> None:
    names = ["a", "a/", "a/b", "ab", "a b", "", "%2F"]
    roots = [Layout(name).root for name in names]
    for root in roots:
        assert [other for other in roots if other.startswith(root)] == [root]


def test_a_row_that_was_changed_is_noticed() -> None:
    stored = etcd_layout.whole("t", b"k", b"value")
    assert etcd_layout.read("t", b"k", stored) == b"value"
    for number in range(len(stored)):
        flipped = bytearray(stored)
        flipped[number] ^= 1
        with pytest.raises(Damaged):
            etcd_layout.read("t", b"k", bytes(flipped))
    for table, key in (("u", b"k"), ("t", b"l"), ("tk", b"")):
        with pytest.raises(Damaged):
            etcd_layout.read(table, key, stored)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\xff", b"7", b"[]", b"{}", b'{"schema": "x"}', b'{"schema": 1e999}'),
        b'{"schema": 1, "cluster_id": "ab", "skipped_epochs": 0}',
        b'{"schema": 1, "cluster_id": 5, "skipped_epochs": 0}',
        b'{"schema": 1, "cluster_id": "", "skipped_epochs": -1}',
        b'{"schema": 1, "cluster_id": "", "skipped_epochs": 9007199254740992}',
        b'{"schema": 1, "cluster_id": "", "skipped_epochs": 1e999}',
        pytest.param(b"[" * 100_000 + b"]" * 100_000, id="deep"),
    ],
)
def test_what_is_no_cluster_s_record_is_damaged(content: bytes) -> None:
    with pytest.raises(Damaged):
        Meta.decode(content)


def test_a_large_value_is_in_parts_that_are_written_first_and_dropped_last() -> None:
    planner = Planner(LAYOUT, b"42")
    value = random.Random(1).randbytes(3 * etcd_layout.PART_BYTES + 1)
    planned = planner.plan({("t", b"k"): value, ("t", b"small"): b"v"})
    parts = [operation for group in planned.before for operation in group]
    assert b"".join(content for _, content in parts) == value
    assert all(etcd_layout.fits(group) for group in planned.before)
    assert [operation[0] for operation in planned.together] == [
        LAYOUT.row("t", b"k"),
        LAYOUT.row("t", b"small"),
    ]
    place = etcd_layout.read("t", b"k", planned.together[0][1])
    assert place == Place(b"42-1", 4, len(value))
    etcd_layout.check("t", b"k", planned.together[0][1], value, place)
    with pytest.raises(Damaged):
        etcd_layout.check("t", b"k", planned.together[0][1], value[:-1], place)

    again = planner.plan({("t", b"k"): value})
    assert again.together[1:] == [LAYOUT.all_parts(b"42-1")], (
        "in the transaction with its successor"
    )
    gone = planner.plan({("t", b"k"): None})
    assert gone.together == [Delete(LAYOUT.row("t", b"k")), LAYOUT.all_parts(b"42-2")]
    assert planner.plan({("t", b"k"): None}).together == [Delete(LAYOUT.row("t", b"k"))]


def test_operations_are_packed_in_order_and_within_limits() -> None:
    source = random.Random(2)
    puts = [(b"%d" % n, b"x" * source.choice((0, 9, 500_000))) for n in range(1000)]
    groups = etcd_layout.packed(puts)
    assert [one for group in groups for one in group] == puts
    assert all(etcd_layout.fits(group) for group in groups)
    assert etcd_layout.packed([]) == []


def test_a_staged_batch_is_whole_or_nothing() -> None:
    operations = [(b"%d" % n, b"v" * 900) for n in range(1000)]
    operations += [Delete(b"a"), Delete(b"a", b"b")]
    puts = etcd_layout.stage(operations, LAYOUT)
    assert len(puts) > 2 and puts[-1][0] == LAYOUT.commit
    assert etcd_layout.unstage(dict(puts), LAYOUT) == operations
    assert etcd_layout.unstage(dict(puts[:-1]), LAYOUT) == []
    assert etcd_layout.unstage({}, LAYOUT) == []
    with pytest.raises(Damaged):
        etcd_layout.unstage(dict(puts[1:]), LAYOUT)
    with pytest.raises(Damaged):
        etcd_layout.unstage({**dict(puts), puts[0][0]: b"x"}, LAYOUT)
    with pytest.raises(Damaged):
        etcd_layout.unstage({**dict(puts), LAYOUT.commit: b"x"}, LAYOUT)


def test_of_two_changes_the_later_holds() -> None:
    batches = [[("t", b"a", b"1"), ("t", b"b", b"1")], [("t", b"a", None), ("u", b"a", b"2")]]
    assert etcd_layout.merged(batches) == {
        ("t", b"a"): None,
        ("t", b"b"): b"1",
        ("u", b"a"): b"2",
    }
