"""Stores that another version has led with: which are gone on with, what stays in their rows."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.core.benches import CLUSTER, VERSIONS, identity
from zray.core.head import stored_version
from zray.core.head.identity import HeadIdentity
from zray.core.head.journal import Journal
from zray.core.head.members import NodeRow
from zray.core.head.stored_version import KEY, MINE, TABLE, StoredVersion
from zray.core.head.tables import Tables
from zray.core.head.unknown_fields import KINDS, UnknownFields
from zray.protocol import messages as m

Stored = dict[str, dict[bytes, bytes]]


NODE = NodeRow(1, True, "n1", [("CPU", 10000)])


def written_by(minor: int, protocol: int = m.PROTOCOL_VERSION) -> Stored:
    return {TABLE: {KEY: msgspec.msgpack.encode(StoredVersion(protocol, minor, "9.8.7"))}}


@pytest.mark.parametrize("rows", [{}, *map(written_by, range(MINE.minor + 2))])
def test_older_stores_and_those_of_the_next_minor_are_gone_on_with(rows: Stored) -> None:
    assert stored_version.objection(rows) == ""


@pytest.mark.parametrize("rows", [written_by(MINE.minor + 2), written_by(0, MINE.protocol + 1)])
def test_a_store_of_a_later_version_is_not_and_both_are_named(rows: Stored) -> None:
    text = stored_version.objection(rows)
    assert "zray 9.8.7 (protocol" in text and f"zray {MINE.zray} (protocol" in text
    assert "does not lead" in text


@pytest.mark.parametrize(
    ("rows", "noted"),
    [({}, True), (written_by(MINE.minor - 1), True), (written_by(MINE.minor), False)],
)
def test_a_version_notes_that_it_has_led_before_anything_else(rows: Stored, noted: bool) -> None:
    journal = Journal()
    stored_version.note(rows, journal)
    entries = journal.take()
    assert bool(entries) is noted
    for _, stored in entries:
        assert stored == [(TABLE, KEY, msgspec.msgpack.encode(MINE))]


def test_that_a_newer_one_has_led_stays_noted_while_an_older_one_leads() -> None:
    journal = Journal()
    stored_version.note(written_by(MINE.minor + 1), journal)
    assert not journal.take() and journal.unknown is not None


def test_no_version_is_skipped_while_nodes_of_the_former_may_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stored_version, "MINE", StoredVersion(1, 5, "5.5.5"))

    def stored(minor: int | None, *rows: NodeRow) -> Stored:
        nodes = {b"%d" % n: msgspec.msgpack.encode(row) for n, row in enumerate(rows)}
        return {**(written_by(minor) if minor is not None else {}), "nodes": nodes}

    for minor in (None, 3):
        text = stored_version.objection(stored(minor, NODE.dead(1), NODE))
        assert "(n1)" in text and "zray 5.5.5 (protocol 1.5)" in text and "zray stop" in text
        assert stored_version.objection(stored(minor, NODE.dead(1))) == ""
        assert stored_version.objection(stored(minor)) == ""
    assert stored_version.objection(stored(4, NODE)) == ""
    many = stored_version.objection(stored(3, *[NODE] * 1000))
    assert "and 994 more" in many and len(many) < 600


def longer(value: Any, *more: object, at: int | None = None) -> bytes:
    """Encoded as a newer version has it: with more at the end, or in the record at that place."""
    plain = msgspec.msgpack.decode(msgspec.msgpack.encode(value))
    (plain if at is None else plain[at]).extend(more)
    return msgspec.msgpack.encode(plain)


JOB = m.JobInfo("p", "/", [], "machine", "host", 1)


def test_what_a_newer_version_has_appended_stays_in_rows_that_are_stored_again() -> None:
    key = identity("n1")
    rows = {**written_by(MINE.minor + 1), "nodes": {key: longer(NODE, "zone", [1, b"x"])}}
    tables = Tables(HeadIdentity(CLUSTER, 5, VERSIONS, 0.0), rows, 0.0)
    assert tables.members.node_rows[key] == NODE
    changed = msgspec.structs.replace(NODE, draining=True)
    tables.journal.persist([tables.members.row(key, changed)], lambda now: None)
    ((_, [(table, where, value)]),) = tables.journal.take()
    assert (table, where) == ("nodes", key) and value is not None
    assert msgspec.msgpack.decode(value, type=NodeRow) == changed
    assert msgspec.msgpack.decode(value)[-2:] == ["zone", [1, b"x"]]


def test_it_stays_in_records_of_a_row_too() -> None:
    """A submitted job's row is a number and a record."""
    job = m.SubmittedJob("job-1", "PENDING", "python train.py", identity("a"))
    stored = [1, job]
    rows = {"submissions": {b"job-1": longer(stored, "of the job", at=1)}}
    found = UnknownFields(rows).kept([("submissions", b"job-1", msgspec.msgpack.encode(stored))])
    assert msgspec.msgpack.decode(found[0][2] or b"")[1][-1] == "of the job"


def test_rows_of_others_and_those_that_are_deleted_are_as_they_are() -> None:
    unknown = UnknownFields({"jobs": {b"j": longer(JOB, 7)}})
    plain = msgspec.msgpack.encode(JOB)
    others = [("jobs", b"k", plain), ("kv", b"j", plain), ("jobs", b"j", None)]
    assert unknown.kept([*others]) == others
    assert unknown.kept([("jobs", b"j", plain)]) == [("jobs", b"j", plain)]  # another of that id


def test_every_table_that_the_head_decodes_is_looked_at() -> None:
    assert {*KINDS} | {TABLE, "kv"} == {
        *("nodes", "jobs", "functions", "actors", "submissions", "placement_groups"),
        *(TABLE, "kv"),
    }
    UnknownFields({})  # all of their shapes can be read
