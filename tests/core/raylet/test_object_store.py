"""The raylet's book of shared objects: regions stay while used, and nothing stays for ever."""

from __future__ import annotations

import random
from typing import Any

import pytest

from zray import limits
from zray.core.arena import Arena, NewSegment, Region
from zray.core.raylet.object_store import (
    DeleteFile,
    DropSegment,
    FreeRegion,
    ObjectStore,
    Place,
    SpillObject,
    TrimArena,
)
from zray.errors import ObjectStoreFullError, ProtocolError

A, B, C = b"process-a", b"process-b", b"process-c"
MB = 1_000_000


def store_with(mark: int = 100 * MB, *owners: bytes) -> ObjectStore:
    store = ObjectStore(mark, lambda process: process.decode())
    for owner in owners or (A,):
        store.add_segment(owner, 1, 1000 * MB)
    return store


def put(store: ObjectStore, name: bytes, offset: int, size: int = MB, owner: bytes = A) -> Place:
    store.create(name, owner, Region(1, offset, size), 1, [])
    assert store.seal(name, owner)
    return Place(owner, 1, offset, size)


def effects(store: ObjectStore, *kinds: type) -> list[Any]:
    return [effect for effect in store.take_effects() if isinstance(effect, kinds)]


# ---- life of an object ---------------------------------------------------------------------


def test_an_object_exists_once_it_is_sealed() -> None:
    store = store_with()
    store.create(b"x", A, Region(1, 64, MB), 7, [b"inner"])
    assert store.view(b"x", B) is None
    assert store.used_bytes == MB
    store.seal(b"x", A)
    assert store.view(b"x", B) == Place(A, 1, 64, MB)
    found = store.get(b"x")
    assert found is not None
    assert (found.kind, found.size, found.contained) == (7, MB, [b"inner"])


def test_a_region_is_free_with_the_last_of_hold_and_views() -> None:
    store = store_with()
    place = put(store, b"x", 0)
    store.view(b"x", B)
    store.view(b"x", B)
    store.view(b"x", C)
    store.free(b"x")
    store.unview(b"x", B, 2)
    assert store.take_effects() == []
    store.unview(b"x", C)
    assert store.take_effects() == [FreeRegion(A, place.region)]
    assert store.get(b"x") is None
    assert store.used_bytes == 0


def test_a_hold_alone_keeps_the_object() -> None:
    store = store_with()
    put(store, b"x", 0)
    store.view(b"x", B)
    store.unview(b"x", B)
    assert store.take_effects() == []
    store.free(b"x")
    assert len(effects(store, FreeRegion)) == 1


def test_an_object_freed_while_it_is_written_goes_when_it_is_sealed() -> None:
    store = store_with()
    store.create(b"x", A, Region(1, 0, 10), 1, [])
    store.free(b"x")
    assert store.take_effects() == []
    store.seal(b"x", A)
    assert store.take_effects() == [FreeRegion(A, Region(1, 0, 10))]


def test_of_two_writers_of_one_object_the_first_to_seal_wins() -> None:
    store = store_with(100 * MB, A, B)
    store.create(b"x", A, Region(1, 0, 10), 1, [])
    store.create(b"x", B, Region(1, 0, 10), 1, [])
    assert store.seal(b"x", B)
    assert not store.seal(b"x", A)
    assert store.take_effects() == [FreeRegion(A, Region(1, 0, 10))]
    assert store.view(b"x", C) == Place(B, 1, 0, 10)


def test_an_abandoned_region_is_free() -> None:
    store = store_with()
    store.create(b"x", A, Region(1, 0, 10), 1, [])
    store.abandon(b"x", A)
    assert store.take_effects() == [FreeRegion(A, Region(1, 0, 10))]
    with pytest.raises(ProtocolError, match="is not writing"):
        store.seal(b"x", A)


@pytest.mark.parametrize(
    "region",
    [
        Region(1, 90, 20),
        Region(1, 110, 200),
        Region(1, 100, 100),
        Region(1, 140, 1),
        Region(1, 900 * MB, 101 * MB),
        Region(1, -64, 10),
        Region(1, 500, 0),
        Region(1, 500, -1),
        Region(2, 0, 10),
    ],
)
def test_a_region_that_is_not_free_space_is_refused(region: Region) -> None:
    store = store_with()
    put(store, b"x", 100, 100)
    used = store.used_bytes
    with pytest.raises(ProtocolError):
        store.create(b"y", A, region, 1, [])
    assert store.used_bytes == used


def test_misuse_is_refused() -> None:
    store = store_with()
    put(store, b"x", 0)
    with pytest.raises(ProtocolError, match="cannot be added"):
        store.add_segment(A, 1, 10)
    with pytest.raises(ProtocolError, match="has no segment"):
        store.create(b"y", B, Region(1, 0, 10), 1, [])
    with pytest.raises(ProtocolError, match="with 1 objects in it"):
        store.release_segment(A, 1)
    for count in (-1, 0, 1):
        with pytest.raises(ProtocolError, match="does not have"):
            store.unview(b"x", B, count)
    with pytest.raises(ProtocolError, match="does not have"):
        store.unview(b"unknown", B)
    store.create(b"y", A, Region(1, 5 * MB, 10), 1, [])
    with pytest.raises(ProtocolError, match="cannot write"):
        store.create(b"y", A, Region(1, 6 * MB, 10), 1, [])


# ---- deaths and segments -------------------------------------------------------------------


def test_views_of_a_dead_process_are_void() -> None:
    store = store_with()
    put(store, b"x", 0)
    store.view(b"x", B)
    store.view(b"x", B)
    store.free(b"x")
    store.process_died(B)
    assert len(effects(store, FreeRegion)) == 1


def test_what_a_dead_process_sealed_stays_readable_and_the_rest_vanishes() -> None:
    store = store_with()
    store.add_segment(A, 2, MB)
    put(store, b"x", 0, 10)
    put(store, b"y", 64, 10)
    store.create(b"z", A, Region(1, 128, 10), 1, [])
    store.grant(B, A, 1)
    store.process_died(A)
    assert store.take_effects() == [DropSegment(A, 2, ())]
    assert store.view(b"x", B) == Place(A, 1, 0, 10)
    assert store.view(b"z", B) is None
    store.free(b"y")
    store.free(b"x")
    assert store.take_effects() == []
    store.unview(b"x", B)
    assert store.take_effects() == [DropSegment(A, 1, (B,))]
    assert store.used_bytes == store.touched_bytes == 0


def test_a_dead_process_writes_no_more() -> None:
    store = store_with()
    put(store, b"x", 0, 10)
    store.process_died(A)
    with pytest.raises(ProtocolError):
        store.create(b"y", A, Region(1, 64, 10), 1, [])
    with pytest.raises(ProtocolError):
        store.add_segment(A, 2, 10)


def test_a_descriptor_is_granted_once_to_each_reader() -> None:
    store = store_with()
    assert store.grant(B, A, 1)
    assert not store.grant(B, A, 1)
    assert not store.grant(A, A, 1)
    store.process_died(B)
    assert store.grant(C, A, 1)
    store.release_segment(A, 1)
    assert store.take_effects() == [DropSegment(A, 1, (C,))]


# ---- memory --------------------------------------------------------------------------------


def full(store: ObjectStore, count: int = 10, size: int = 10 * MB) -> None:
    for number in range(count):
        put(store, b"x%d" % number, number * size, size)


def test_the_least_recently_used_object_is_spilled_first() -> None:
    store = store_with()
    full(store)
    store.view(b"x0", B)
    store.view(b"x1", B)
    store.unview(b"x0", B)
    assert not store.room(15 * MB, A, 0.0)
    spills = effects(store, SpillObject)
    assert [spill.object_id for spill in spills] == [b"x2", b"x3"]
    assert not store.room(15 * MB, A, 0.0)
    assert store.take_effects() == []
    for spill in spills:
        store.spilled(spill.object_id, "/spill/" + spill.object_id.decode())
    assert effects(store, FreeRegion) == [FreeRegion(A, s.place.region) for s in spills]
    assert store.room(15 * MB, A, 0.0)
    assert (store.used_bytes, store.spilled_bytes) == (80 * MB, 20 * MB)


def test_an_object_is_readable_while_it_is_spilled_and_then_stays() -> None:
    store = store_with()
    full(store)
    store.room(MB, A, 0.0)
    place = store.view(b"x0", B)
    assert place is not None
    store.spilled(b"x0", "/spill/x0")
    assert effects(store, FreeRegion) == []
    store.unview(b"x0", B)
    assert not effects(store, FreeRegion)
    assert store.room(MB, A, 0.0), "what is on disk already leaves at once"
    assert store.take_effects() == [FreeRegion(A, place.region)]


def test_an_object_freed_while_it_is_spilled_leaves_no_file() -> None:
    store = store_with()
    full(store)
    store.room(MB, A, 0.0)
    store.free(b"x0")
    assert effects(store, FreeRegion) == []
    store.spilled(b"x0", "/spill/x0")
    assert set(store.take_effects()) == {
        DeleteFile("/spill/x0"),
        FreeRegion(A, Region(1, 0, 10 * MB)),
    }
    assert store.spilled_bytes == 0


def spill_one(store: ObjectStore) -> None:
    full(store)
    store.room(MB, A, 0.0)
    store.spilled(b"x0", "/spill/x0")
    store.take_effects()


def test_a_spilled_object_comes_back() -> None:
    store = store_with(100 * MB, A, C)
    spill_one(store)
    assert store.view(b"x0", B) is None
    found = store.get(b"x0")
    assert found is not None and found.path == "/spill/x0" and found.place is None
    assert store.restore(b"x0", C, Region(1, 0, 10 * MB)) == "/spill/x0"
    with pytest.raises(ValueError, match="not only on disk"):
        store.restore(b"x0", C, Region(1, 20 * MB, 10 * MB))
    assert store.view(b"x0", B) is None
    store.restored(b"x0")
    assert store.view(b"x0", B) == Place(C, 1, 0, 10 * MB)
    store.unview(b"x0", B)
    store.free(b"x0")
    assert set(store.take_effects()) == {
        DeleteFile("/spill/x0"),
        FreeRegion(C, Region(1, 0, 10 * MB)),
    }


def test_an_object_freed_on_disk_or_while_it_is_read_back_leaves_nothing() -> None:
    for restoring in (False, True):
        store = store_with(100 * MB, A, C)
        spill_one(store)
        if restoring:
            store.restore(b"x0", C, Region(1, 0, 10 * MB))
        store.free(b"x0")
        if restoring:
            assert store.take_effects() == []
            store.restored(b"x0")
        assert DeleteFile("/spill/x0") in store.take_effects()
        assert store.get(b"x0") is None
        assert store.used_bytes == 90 * MB


def test_a_file_that_cannot_be_read_is_a_lost_object() -> None:
    store = store_with(100 * MB, A, C)
    spill_one(store)
    store.restore(b"x0", C, Region(1, 0, 10 * MB))
    store.restore_failed(b"x0")
    assert store.get(b"x0") is None
    assert FreeRegion(C, Region(1, 0, 10 * MB)) in store.take_effects()


def test_a_full_store_says_who_holds_the_memory() -> None:
    store = store_with(100 * MB, A, B)
    full(store, 6)
    for number in range(6):
        store.view(b"x%d" % number, C)
    store.create(b"y", B, Region(1, 0, 30 * MB), 1, [])
    with pytest.raises(ObjectStoreFullError) as caught:
        store.room(50 * MB, A, 0.0)
    assert str(caught.value) == (
        "ZR-3202 an object of 50.0 MB was not stored, because the object store of this node has "
        "100.0 MB, and 90.0 MB of it are in use: 60.0 MB in arrays that process-c uses "
        "(6 objects), 30.0 MB being written by process-b (1 object). Drop arrays and references "
        "that are not needed, or give the node a larger object_store_memory"
    )
    assert store.room(10 * MB, A, 0.0)


def test_who_wants_memory_waits_for_what_others_are_writing() -> None:
    store = store_with(100 * MB, A, B)
    store.promise(C, 50 * MB)
    store.create(b"y", B, Region(1, 0, 30 * MB), 1, [])
    assert not store.room(30 * MB, A, 0.0)
    store.seal(b"y", B)
    assert not store.room(30 * MB, A, 0.0)
    assert [s.object_id for s in effects(store, SpillObject)] == [b"y"]
    store.spilled(b"y", "/y")
    assert store.room(30 * MB, A, 0.0)
    # What is being read back can leave again.
    store.restore(b"y", B, Region(1, 0, 30 * MB))
    assert not store.room(30 * MB, A, 0.0)
    store.restored(b"y")
    assert store.room(30 * MB, A, 0.0)


def test_who_wants_memory_waits_for_those_who_may_let_go_of_it() -> None:
    store = store_with(100 * MB, A, B)
    full(store, 10)
    for number in range(10):
        store.view(b"x%d" % number, C)
    store.view(b"x0", B)
    with pytest.raises(ObjectStoreFullError):
        store.room(10 * MB, A, 0.0)
    assert not store.room(10 * MB, A, 0.0, [C])
    assert not store.room(90 * MB, A, 0.0, [C])
    with pytest.raises(ObjectStoreFullError):
        store.room(91 * MB, A, 0.0, [C])  # B has the other
    assert not store.room(100 * MB, A, 0.0, [B, C])
    said = store.full(10 * MB, [C])
    assert (
        "in arrays that process-c uses, or does not let go of: it does not answer (10 objects)"
        in said
    )
    store.unview(b"x3", C)
    assert not store.room(10 * MB, A, 0.0)
    assert [s.object_id for s in effects(store, SpillObject)] == [b"x3"]


def test_who_wants_room_waits_for_what_is_being_sent_to_other_nodes() -> None:
    store = ObjectStore(100 * MB, lambda process: process.decode(), sender=b"node")
    store.add_segment(A, 1, 1000 * MB)
    for number in range(9):
        put(store, b"x%d" % number, number * 10 * MB, 10 * MB)
        store.view(b"x%d" % number, b"node")
    assert not store.room(20 * MB, A, 0.0)
    assert "90.0 MB being sent to other nodes (9 objects)" in store.full(20 * MB)
    for number in range(9):
        store.unview(b"x%d" % number, b"node")
    assert not store.room(20 * MB, A, 0.0)
    spilled = effects(store, SpillObject)
    assert [effect.object_id for effect in spilled] == [b"x0"]
    store.view(b"x1", b"node")
    store.view(b"x1", B)
    with pytest.raises(ObjectStoreFullError):
        store.room(100 * MB, A, 0.0)


def test_an_object_larger_than_the_store_moves_nothing() -> None:
    store = store_with()
    full(store)
    with pytest.raises(ObjectStoreFullError, match=r"100\.1 MB was not stored.*smaller parts"):
        store.room(100 * MB + 100_000, A, 0.0)
    assert effects(store, SpillObject) == []


def test_a_disk_that_fails_is_named_and_tried_again_later() -> None:
    store = store_with()
    full(store)
    assert not store.room(MB, A, 0.0)
    store.take_effects()
    store.spill_failed(b"x0", "No space left on device", 1.0)
    with pytest.raises(ObjectStoreFullError, match="No space left on device") as caught:
        store.room(MB, A, 2.0)
    assert "100.0 MB waiting to be written to disk (10 objects)" in str(caught.value)
    assert store.view(b"x0", B) is not None
    assert not store.room(MB, A, 1.0 + limits.SPILL_RETRY_S)


def test_what_went_past_the_mark_unasked_is_spilled() -> None:
    store = store_with()
    full(store, 12)
    store.relieve(0.0)
    assert [s.object_id for s in effects(store, SpillObject)] == [b"x0", b"x1"]


def test_other_processes_are_asked_for_the_memory_they_keep() -> None:
    store = store_with(100 * MB, A, B, C)
    put(store, b"b", 0, 60 * MB, B)
    store.free(b"b")
    put(store, b"c", 0, 10 * MB, C)
    put(store, b"a", 0, 10 * MB, A)
    store.free(b"a")
    store.take_effects()
    assert store.room(20 * MB, A, 0.0)
    assert store.take_effects() == []
    assert store.room(40 * MB, A, 0.0)
    assert store.take_effects() == [TrimArena(B)]
    assert store.room(40 * MB, A, 0.0)
    assert store.take_effects() == [], "asked once"
    store.release_segment(B, 1)
    assert store.touched_bytes == 20 * MB


# ---- everything at random ------------------------------------------------------------------


class World:
    """Writers with real arenas, readers, deaths, frees and a disk, all at random."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.store = ObjectStore(60_000)
        self.arenas: dict[bytes, Arena] = {}
        self.mine: dict[bytes, dict[Region, bytes]] = {}  # regions in use, and what they hold
        self.unsealed: list[tuple[bytes, bytes]] = []
        self.views: dict[tuple[bytes, bytes], list[Place]] = {}
        self.files: set[str] = set()
        self.spills: list[SpillObject] = []
        self.names = 0
        self.raylet = self.start()

    def start(self) -> bytes:
        self.names += 1
        process = b"p%d" % self.names
        self.arenas[process] = Arena(8192, 16384)
        self.mine[process] = {}
        return process

    def allocate(self, process: bytes, size: int) -> Region:
        arena = self.arenas[process]
        found = arena.allocate(size)
        if isinstance(found, NewSegment):
            arena.add(*found)
            self.store.add_segment(process, *found)
            found = arena.allocate(size)
        assert isinstance(found, Region)
        for owner, _ in [*self.views]:
            for place in self.views[owner, _]:
                clash = place.owner == process and place.segment == found.segment
                assert not clash or (
                    found.offset + size <= place.offset or place.offset + place.size <= found.offset
                ), "a region was reused under a view"
        return found

    def write(self) -> None:
        process = self.rng.choice([*self.arenas])
        size = self.rng.choice((100, 1000, 5000, 12000))
        try:
            if not self.store.room(size, process, 0.0):
                return
        except ObjectStoreFullError:
            assert self.store.used_bytes + size > self.store.mark_bytes
            return
        self.names += 1
        name = b"o%d" % self.names
        region = self.allocate(process, size)
        self.mine[process][region] = name
        self.store.create(name, process, region, 1, [])
        self.unsealed.append((name, process))

    def seal(self) -> None:
        if self.unsealed:
            name, process = self.unsealed.pop(self.rng.randrange(len(self.unsealed)))
            self.store.abandon(name, process) if self.rng.random() < 0.1 else self.store.seal(
                name, process
            )

    def read(self) -> None:
        objects = self.store.sealed()
        if not objects:
            return
        found = self.rng.choice(objects)
        process = self.rng.choice([*self.arenas])
        if found.place is None and found.incoming is None and found.path is not None:
            region = self.allocate(self.raylet, found.size)
            self.mine[self.raylet][region] = found.object_id
            assert self.store.restore(found.object_id, self.raylet, region) in self.files
            if self.rng.random() < 0.1:
                return self.store.restore_failed(found.object_id)
            self.store.restored(found.object_id)
        place = self.store.view(found.object_id, process)
        if place is not None:
            self.store.grant(process, place.owner, place.segment)
            self.views.setdefault((process, found.object_id), []).append(place)

    def unread(self) -> None:
        if self.views:
            key = self.rng.choice([*self.views])
            places = self.views.pop(key)
            self.store.unview(key[1], key[0], len(places))

    def free(self) -> None:
        objects = self.store.sealed()
        if objects:
            self.store.free(self.rng.choice(objects).object_id)

    def spill(self) -> None:
        if self.spills:
            spill = self.spills.pop(self.rng.randrange(len(self.spills)))
            if self.rng.random() < 0.1:
                return self.store.spill_failed(spill.object_id, "broken", -100.0)
            path = spill.object_id.decode()
            self.files.add(path)
            self.store.spilled(spill.object_id, path)

    def die(self, process: bytes | None = None) -> None:
        if process is None:
            others = [process for process in self.arenas if process != self.raylet]
            if not others:
                return
            process = self.rng.choice(others)
        del self.arenas[process], self.mine[process]
        self.unsealed = [item for item in self.unsealed if item[1] != process]
        self.views = {key: places for key, places in self.views.items() if key[0] != process}
        self.store.process_died(process)

    def settle(self) -> None:
        for effect in self.store.take_effects():
            match effect:
                case FreeRegion(owner, region):
                    del self.mine[owner][region]
                    self.arenas[owner].free(region)
                case TrimArena(owner):
                    self.arenas[owner].trim()
                case SpillObject():
                    self.spills.append(effect)
                case DeleteFile(path):
                    self.files.remove(path)
                case DropSegment(owner, segment, _):
                    for places in self.views.values():
                        assert all(place[:2] != (owner, segment) for place in places)
        for process, arena in self.arenas.items():
            for number in arena.take_released():
                self.store.release_segment(process, number)
        for places in self.views.values():
            for place in places:
                assert place.owner not in self.mine or place.region in self.mine[place.owner]


@pytest.mark.parametrize("seed", range(20))
def test_no_region_is_reused_while_it_is_used_and_all_is_free_in_the_end(seed: int) -> None:
    world = World(seed)
    steps = [world.write, world.seal, world.read, world.unread, world.free, world.spill]
    for _ in range(1500):
        if len(world.arenas) < 5:
            world.start()
        if world.rng.random() < 0.01:
            world.die()
        else:
            world.rng.choice(steps)()
        world.settle()
    while world.spills:
        world.spill()
        world.settle()
    for process in [*world.arenas]:
        if process != world.raylet:
            world.die(process)
    world.die(world.raylet)
    for found in world.store.sealed():
        world.store.free(found.object_id)
    world.store.take_effects()
    assert world.store.used_bytes == world.store.touched_bytes == world.store.spilled_bytes == 0
    assert world.store.sealed() == []


# ---- promises ----------------------------------------------------------------------------------


def test_room_that_was_promised_is_not_promised_again() -> None:
    store = store_with(100 * MB)
    assert store.room(60 * MB, A, 0.0)
    store.promise(A, 60 * MB)
    assert store.room(40 * MB, B, 0.0)
    assert not store.room(41 * MB, B, 0.0)
    assert "60.0 MB about to be written by process-a" in store.full(41 * MB)
    store.unpromise(A, 60 * MB)
    put(store, b"x", 0, 60 * MB)
    assert store.promised_bytes == 0
    with pytest.raises(ObjectStoreFullError):
        store.view(b"x", B)
        store.room(41 * MB, B, 0.0)


def test_promises_to_a_process_end_with_it() -> None:
    store = store_with(100 * MB)
    store.promise(A, 60 * MB)
    store.promise(A, 20 * MB)
    store.unpromise(A, 5 * MB)  # never made
    store.process_died(A)
    assert store.promised_bytes == 0
    assert store.room(100 * MB, B, 0.0)
