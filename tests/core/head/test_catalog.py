"""Key-value pairs: who is told what before values are durable."""

from __future__ import annotations

from tests.core.benches import HeadBench
from zray.protocol import messages as m


def said(head: HeadBench) -> list[tuple[int, bool]]:
    """To which requests the driver has had answers, and whether there was a value."""
    return [(one.about, one.found) for one in head.taken("d", m.KvReply)]


def test_of_many_who_add_one_is_first_and_the_others_hear_so_when_it_is_durable() -> None:
    head = HeadBench(durable=False)
    head.driver("d")
    head.commit()
    head.turn()
    head.taken("d")
    head.say("d", m.Kv(11, "add", b"key", b"first"), m.Kv(12, "add", b"key", b"second"))
    head.say("d", m.Kv(13, "add", b"key", b"third"))
    assert said(head) == []
    head.commit()
    head.turn()
    assert said(head) == [(11, False), (12, True), (13, True)]
    assert head.gcs.catalog.kv[b"key"] == b"first"


def test_add_leaves_a_value_and_stores_where_there_is_none_any_more() -> None:
    head = HeadBench()
    head.driver("d")
    head.taken("d")
    head.say("d", m.Kv(11, "put", b"key", b"old"))
    head.say("d", m.Kv(12, "add", b"key", b"new"))
    assert said(head) == [(11, False), (12, True)] and head.gcs.catalog.kv[b"key"] == b"old"
    head.say("d", m.Kv(13, "delete", b"key"))
    head.say("d", m.Kv(14, "add", b"key", b"new"))
    assert said(head) == [(13, True), (14, False)] and head.gcs.catalog.kv[b"key"] == b"new"
