"""Who gets memory of a node's store, who waits for it, and who learns that there is none."""

from __future__ import annotations

import pytest

from tests.core.raylet.node_store import MB, A, B, C, NodeStore
from zray import limits
from zray.core.arena import Region
from zray.core.raylet.store_effects import FreeRegion, SpillObject, TrimArena
from zray.errors import ObjectStoreFullError


def test_the_least_recently_used_object_is_spilled_first() -> None:
    store = NodeStore()
    store.fill()
    store.objects.view(b"x0", B)
    store.objects.view(b"x1", B)
    store.objects.unview(b"x0", B)
    assert not store.admission.room(15 * MB, A, 0.0)
    spills = store.effects_of(SpillObject)
    assert [spill.object_id for spill in spills] == [b"x2", b"x3"]
    assert not store.admission.room(15 * MB, A, 0.0)
    assert store.take_effects() == []
    for spill in spills:
        store.objects.spilled(spill.object_id, "/spill/" + spill.object_id.decode())
    assert store.effects_of(FreeRegion) == [FreeRegion(A, s.place.region) for s in spills]
    assert store.admission.room(15 * MB, A, 0.0)
    assert (store.segments.used_bytes, store.objects.spilled_bytes) == (80 * MB, 20 * MB)


def test_a_full_store_says_who_holds_the_memory() -> None:
    store = NodeStore(owners=(A, B))
    store.fill(6)
    for number in range(6):
        store.objects.view(b"x%d" % number, C)
    store.objects.create(b"y", B, Region(1, 0, 30 * MB), 1, [])
    with pytest.raises(ObjectStoreFullError) as caught:
        store.admission.room(50 * MB, A, 0.0)
    assert str(caught.value) == (
        "ZR-3202 an object of 50.0 MB was not stored, because the object store of this node has "
        "100.0 MB, and 90.0 MB of it are in use: 60.0 MB in arrays that process-c uses "
        "(6 objects), 30.0 MB being written by process-b (1 object). Drop arrays and references "
        "that are not needed, or give the node a larger object_store_memory"
    )
    assert store.admission.room(10 * MB, A, 0.0)


def test_who_wants_memory_waits_for_what_others_are_writing() -> None:
    store = NodeStore(owners=(A, B))
    store.admission.promise(C, 50 * MB)
    store.objects.create(b"y", B, Region(1, 0, 30 * MB), 1, [])
    assert not store.admission.room(30 * MB, A, 0.0)
    store.objects.seal(b"y", B)
    assert not store.admission.room(30 * MB, A, 0.0)
    assert [s.object_id for s in store.effects_of(SpillObject)] == [b"y"]
    store.objects.spilled(b"y", "/y")
    assert store.admission.room(30 * MB, A, 0.0)
    # What is being read back can leave again.
    store.objects.restore(b"y", B, Region(1, 0, 30 * MB))
    assert not store.admission.room(30 * MB, A, 0.0)
    store.objects.restored(b"y")
    assert store.admission.room(30 * MB, A, 0.0)


def test_who_wants_memory_waits_for_those_who_may_let_go_of_it() -> None:
    store = NodeStore(owners=(A, B))
    store.fill(10)
    for number in range(10):
        store.objects.view(b"x%d" % number, C)
    store.objects.view(b"x0", B)
    with pytest.raises(ObjectStoreFullError):
        store.admission.room(10 * MB, A, 0.0)
    assert not store.admission.room(10 * MB, A, 0.0, [C])
    assert not store.admission.room(90 * MB, A, 0.0, [C])
    with pytest.raises(ObjectStoreFullError):
        store.admission.room(91 * MB, A, 0.0, [C])  # B has the other
    assert not store.admission.room(100 * MB, A, 0.0, [B, C])
    said = store.admission.full(10 * MB, [C])
    assert (
        "in arrays that process-c uses, or does not let go of: it does not answer (10 objects)"
        in said
    )
    store.objects.unview(b"x3", C)
    assert not store.admission.room(10 * MB, A, 0.0)
    assert [s.object_id for s in store.effects_of(SpillObject)] == [b"x3"]


def test_who_wants_room_waits_for_what_is_being_sent_to_other_nodes() -> None:
    store = NodeStore(sender=b"node")
    for number in range(9):
        store.put(b"x%d" % number, number * 10 * MB, 10 * MB)
        store.objects.view(b"x%d" % number, b"node")
    assert not store.admission.room(20 * MB, A, 0.0)
    assert "90.0 MB being sent to other nodes (9 objects)" in store.admission.full(20 * MB)
    for number in range(9):
        store.objects.unview(b"x%d" % number, b"node")
    assert not store.admission.room(20 * MB, A, 0.0)
    spilled = store.effects_of(SpillObject)
    assert [effect.object_id for effect in spilled] == [b"x0"]
    store.objects.view(b"x1", b"node")
    store.objects.view(b"x1", B)
    with pytest.raises(ObjectStoreFullError):
        store.admission.room(100 * MB, A, 0.0)


def test_an_object_larger_than_the_store_moves_nothing() -> None:
    store = NodeStore()
    store.fill()
    with pytest.raises(ObjectStoreFullError, match=r"100\.1 MB was not stored.*smaller parts"):
        store.admission.room(100 * MB + 100_000, A, 0.0)
    assert store.effects_of(SpillObject) == []


def test_a_disk_that_fails_is_named_and_tried_again_later() -> None:
    store = NodeStore()
    store.fill()
    assert not store.admission.room(MB, A, 0.0)
    store.take_effects()
    store.objects.spill_failed(b"x0", "No space left on device", 1.0)
    with pytest.raises(ObjectStoreFullError, match="No space left on device") as caught:
        store.admission.room(MB, A, 2.0)
    assert "100.0 MB waiting to be written to disk (10 objects)" in str(caught.value)
    assert store.objects.view(b"x0", B) is not None
    assert not store.admission.room(MB, A, 1.0 + limits.SPILL_RETRY_S)


def test_what_went_past_the_mark_unasked_is_spilled() -> None:
    store = NodeStore()
    store.fill(12)
    store.admission.relieve(0.0)
    assert [s.object_id for s in store.effects_of(SpillObject)] == [b"x0", b"x1"]


def test_other_processes_are_asked_for_the_memory_they_keep() -> None:
    store = NodeStore(owners=(A, B, C))
    store.put(b"b", 0, 60 * MB, B)
    store.objects.free(b"b")
    store.put(b"c", 0, 10 * MB, C)
    store.put(b"a", 0, 10 * MB, A)
    store.objects.free(b"a")
    store.take_effects()
    assert store.admission.room(20 * MB, A, 0.0)
    assert store.take_effects() == []
    assert store.admission.room(40 * MB, A, 0.0)
    assert store.take_effects() == [TrimArena(B)]
    assert store.admission.room(40 * MB, A, 0.0)
    assert store.take_effects() == [], "asked once"
    store.segments.release(B, 1)
    assert store.segments.touched_bytes == 20 * MB


def test_room_that_was_promised_is_not_promised_again() -> None:
    store = NodeStore()
    assert store.admission.room(60 * MB, A, 0.0)
    store.admission.promise(A, 60 * MB)
    assert store.admission.room(40 * MB, B, 0.0)
    assert not store.admission.room(41 * MB, B, 0.0)
    assert "60.0 MB about to be written by process-a" in store.admission.full(41 * MB)
    store.admission.unpromise(A, 60 * MB)
    store.put(b"x", 0, 60 * MB)
    assert store.admission.promised_bytes == 0
    with pytest.raises(ObjectStoreFullError):
        store.objects.view(b"x", B)
        store.admission.room(41 * MB, B, 0.0)


def test_promises_to_a_process_end_with_it() -> None:
    store = NodeStore()
    store.admission.promise(A, 60 * MB)
    store.admission.promise(A, 20 * MB)
    store.admission.unpromise(A, 5 * MB)  # never made
    store.process_died(A)
    assert store.admission.promised_bytes == 0
    assert store.admission.room(100 * MB, B, 0.0)
