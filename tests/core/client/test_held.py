"""What a process says that it holds: how each object is referred to, and the largest ones first."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.benches import FUNCTION, identity, object_of
from tests.core.client.benches import ME, client, said, submit
from zray import limits
from zray.core.client.client import Client
from zray.protocol import messages as m

ASKER = identity("asker")


def asked(made: Client, most: int = limits.HELD_ROWS_MAX) -> m.HeldBy:
    made.message(m.AskHeld(5, ASKER, ME, most))
    (answer,) = said(made, m.Held)
    assert (answer.target, answer.about) == (ASKER, 5)
    (held,) = answer.holders
    return held  # type: ignore[no-any-return]


def rows(held: m.HeldBy) -> dict[bytes, m.HeldObject]:
    return {one.object_id: one for one in held.objects}


def test_how_an_object_is_referred_to() -> None:
    made = client()
    plain = made.references.put(b"x" * 50, [])
    made.references.add(plain)
    inside = made.references.put(b"inner", [])
    outside = made.references.put(b"outer", [inside])
    awaited = submit(made, nested=[plain])[0]
    found = rows(asked(made))
    assert (found[plain].size, found[plain].state, found[plain].place) == (50, "READY", "PROCESS")
    assert (found[plain].local, found[plain].tasks) == (2, 1)
    assert (found[inside].local, found[inside].contained) == (1, 1)
    assert (found[outside].local, found[outside].contained) == (1, 0)
    assert (found[awaited].state, found[awaited].local) == ("PENDING", 1)
    assert not any(one.pinned or one.is_handle for one in found.values())


def test_what_only_unfinished_tasks_use_is_no_reference_of_the_program() -> None:
    made = client()
    made.export(m.Export(0, FUNCTION, "work", b"code"))
    submit(made)  # a lease takes longer than this one
    made.flush()
    kept, far = (made.references.put(b"x", []) for _ in range(2))
    leased = submit(made, nested=[kept])[0]
    assert leased[:16] in made.leased_tasks
    parent = identity("parent")
    waiting = submit(made, nested=[far], parent=parent)[0]  # goes by way of the head
    assert waiting[:16] in made.tasks.unsubmitted
    for oid in (kept, far):
        made.references.remove(oid)  # the program's
    found = rows(asked(made))
    assert [(found[oid].local, found[oid].tasks) for oid in (kept, far)] == [(0, 1), (0, 1)]
    made.flush()
    assert far not in rows(asked(made))  # the head has it, with the task that uses it


def test_a_value_in_shared_memory_is_pinned_while_it_is_mapped() -> None:
    made = client()
    oid = object_of(identity("large"))
    made.references.add(oid)

    class Mapped(bytes):
        """As a value that lies in the node's memory: no plain bytes."""

    made.outcomes[oid] = m.Outcome(oid, m.VALUE, 1 << 20, Mapped())
    found = rows(asked(made))[oid]
    assert (found.pinned, found.place, found.size) == (True, "STORE", 1 << 20)
    made.outcomes[oid] = m.Outcome(oid, m.VALUE | m.LOCATED, 1 << 20)
    found = rows(asked(made))[oid]
    assert (found.pinned, found.place) == (False, "")


def test_the_largest_are_told_and_the_others_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    made = client()
    ids = [made.references.put(b"x" * size, []) for size in range(1, 101)]
    held = asked(made, most=10)
    assert {*rows(held)} == {*ids[-10:]} and held.left_out == 90
    monkeypatch.setattr(limits, "HELD_LOOKED_AT_MAX", 20)
    assert {*rows(asked(made, most=10))} == {*ids[10:20]}  # of those that were looked at
    assert asked(client()).objects == []


def test_lines_are_told_once_each_where_they_are_noted() -> None:
    made = client()
    assert not asked(made).records_sites
    first, second = (made.references.put(b"x", []) for _ in range(2))
    task = submit(made)[0]
    sites: dict[bytes, Any] = {first: "a.py:f:1", second: "a.py:f:1", task: "a.py:g:2"}
    made.references.sites = sites
    held = asked(made)
    assert held.records_sites
    found = rows(held)
    assert found[first].site == found[second].site
    named = {oid: held.sites[one.site - 1] for oid, one in found.items()}
    assert named == sites and len(held.sites) == 2
