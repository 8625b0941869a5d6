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
    Place,
    Shelf,
    SpillObject,
    TrimArena,
)
from zray.errors import ObjectStoreFullError, ProtocolError

A, B, C = b"process-a", b"process-b", b"process-c"
MB = 1_000_000


def shelf_with(mark: int = 100 * MB, *owners: bytes) -> Shelf:
    shelf = Shelf(mark, lambda process: process.decode())
    for owner in owners or (A,):
        shelf.add_segment(owner, 1, 1000 * MB)
    return shelf


def put(shelf: Shelf, name: bytes, offset: int, size: int = MB, owner: bytes = A) -> Place:
    shelf.create(name, owner, Region(1, offset, size), 1, [])
    assert shelf.seal(name, owner)
    return Place(owner, 1, offset, size)


def effects(shelf: Shelf, *kinds: type) -> list[Any]:
    return [effect for effect in shelf.take_effects() if isinstance(effect, kinds)]


# ---- life of an object ---------------------------------------------------------------------


def test_an_object_exists_once_it_is_sealed() -> None:
    shelf = shelf_with()
    shelf.create(b"x", A, Region(1, 64, MB), 7, [b"inner"])
    assert shelf.view(b"x", B) is None
    assert shelf.used_bytes == MB
    shelf.seal(b"x", A)
    assert shelf.view(b"x", B) == Place(A, 1, 64, MB)
    found = shelf.get(b"x")
    assert found is not None
    assert (found.kind, found.size, found.contained) == (7, MB, [b"inner"])


def test_a_region_is_free_with_the_last_of_hold_and_views() -> None:
    shelf = shelf_with()
    place = put(shelf, b"x", 0)
    shelf.view(b"x", B)
    shelf.view(b"x", B)
    shelf.view(b"x", C)
    shelf.free(b"x")
    shelf.unview(b"x", B, 2)
    assert shelf.take_effects() == []
    shelf.unview(b"x", C)
    assert shelf.take_effects() == [FreeRegion(A, place.region)]
    assert shelf.get(b"x") is None
    assert shelf.used_bytes == 0


def test_a_hold_alone_keeps_the_object() -> None:
    shelf = shelf_with()
    put(shelf, b"x", 0)
    shelf.view(b"x", B)
    shelf.unview(b"x", B)
    assert shelf.take_effects() == []
    shelf.free(b"x")
    assert len(effects(shelf, FreeRegion)) == 1


def test_an_object_freed_while_it_is_written_goes_when_it_is_sealed() -> None:
    shelf = shelf_with()
    shelf.create(b"x", A, Region(1, 0, 10), 1, [])
    shelf.free(b"x")
    assert shelf.take_effects() == []
    shelf.seal(b"x", A)
    assert shelf.take_effects() == [FreeRegion(A, Region(1, 0, 10))]


def test_of_two_writers_of_one_object_the_first_to_seal_wins() -> None:
    shelf = shelf_with(100 * MB, A, B)
    shelf.create(b"x", A, Region(1, 0, 10), 1, [])
    shelf.create(b"x", B, Region(1, 0, 10), 1, [])
    assert shelf.seal(b"x", B)
    assert not shelf.seal(b"x", A)
    assert shelf.take_effects() == [FreeRegion(A, Region(1, 0, 10))]
    assert shelf.view(b"x", C) == Place(B, 1, 0, 10)


def test_an_abandoned_region_is_free() -> None:
    shelf = shelf_with()
    shelf.create(b"x", A, Region(1, 0, 10), 1, [])
    shelf.abandon(b"x", A)
    assert shelf.take_effects() == [FreeRegion(A, Region(1, 0, 10))]
    with pytest.raises(ProtocolError, match="is not writing"):
        shelf.seal(b"x", A)


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
    shelf = shelf_with()
    put(shelf, b"x", 100, 100)
    used = shelf.used_bytes
    with pytest.raises(ProtocolError):
        shelf.create(b"y", A, region, 1, [])
    assert shelf.used_bytes == used


def test_misuse_is_refused() -> None:
    shelf = shelf_with()
    put(shelf, b"x", 0)
    with pytest.raises(ProtocolError, match="cannot be added"):
        shelf.add_segment(A, 1, 10)
    with pytest.raises(ProtocolError, match="has no segment"):
        shelf.create(b"y", B, Region(1, 0, 10), 1, [])
    with pytest.raises(ProtocolError, match="with 1 objects in it"):
        shelf.release_segment(A, 1)
    for count in (-1, 0, 1):
        with pytest.raises(ProtocolError, match="does not have"):
            shelf.unview(b"x", B, count)
    with pytest.raises(ProtocolError, match="does not have"):
        shelf.unview(b"unknown", B)
    shelf.create(b"y", A, Region(1, 5 * MB, 10), 1, [])
    with pytest.raises(ProtocolError, match="cannot write"):
        shelf.create(b"y", A, Region(1, 6 * MB, 10), 1, [])


# ---- deaths and segments -------------------------------------------------------------------


def test_views_of_a_dead_process_are_void() -> None:
    shelf = shelf_with()
    put(shelf, b"x", 0)
    shelf.view(b"x", B)
    shelf.view(b"x", B)
    shelf.free(b"x")
    shelf.process_died(B)
    assert len(effects(shelf, FreeRegion)) == 1


def test_what_a_dead_process_sealed_stays_readable_and_the_rest_vanishes() -> None:
    shelf = shelf_with()
    shelf.add_segment(A, 2, MB)
    put(shelf, b"x", 0, 10)
    put(shelf, b"y", 64, 10)
    shelf.create(b"z", A, Region(1, 128, 10), 1, [])
    shelf.grant(B, A, 1)
    shelf.process_died(A)
    assert shelf.take_effects() == [DropSegment(A, 2, ())]
    assert shelf.view(b"x", B) == Place(A, 1, 0, 10)
    assert shelf.view(b"z", B) is None
    shelf.free(b"y")
    shelf.free(b"x")
    assert shelf.take_effects() == []
    shelf.unview(b"x", B)
    assert shelf.take_effects() == [DropSegment(A, 1, (B,))]
    assert shelf.used_bytes == shelf.touched_bytes == 0


def test_a_dead_process_writes_no_more() -> None:
    shelf = shelf_with()
    put(shelf, b"x", 0, 10)
    shelf.process_died(A)
    with pytest.raises(ProtocolError):
        shelf.create(b"y", A, Region(1, 64, 10), 1, [])
    with pytest.raises(ProtocolError):
        shelf.add_segment(A, 2, 10)


def test_a_descriptor_is_granted_once_to_each_reader() -> None:
    shelf = shelf_with()
    assert shelf.grant(B, A, 1)
    assert not shelf.grant(B, A, 1)
    assert not shelf.grant(A, A, 1)
    shelf.process_died(B)
    assert shelf.grant(C, A, 1)
    shelf.release_segment(A, 1)
    assert shelf.take_effects() == [DropSegment(A, 1, (C,))]


# ---- memory --------------------------------------------------------------------------------


def full(shelf: Shelf, count: int = 10, size: int = 10 * MB) -> None:
    for number in range(count):
        put(shelf, b"x%d" % number, number * size, size)


def test_the_least_recently_used_object_is_spilled_first() -> None:
    shelf = shelf_with()
    full(shelf)
    shelf.view(b"x0", B)
    shelf.view(b"x1", B)
    shelf.unview(b"x0", B)
    assert not shelf.room(15 * MB, A, 0.0)
    spills = effects(shelf, SpillObject)
    assert [spill.object_id for spill in spills] == [b"x2", b"x3"]
    assert not shelf.room(15 * MB, A, 0.0)
    assert shelf.take_effects() == []
    for spill in spills:
        shelf.spilled(spill.object_id, "/spill/" + spill.object_id.decode())
    assert effects(shelf, FreeRegion) == [FreeRegion(A, s.place.region) for s in spills]
    assert shelf.room(15 * MB, A, 0.0)
    assert (shelf.used_bytes, shelf.spilled_bytes) == (80 * MB, 20 * MB)


def test_an_object_is_readable_while_it_is_spilled_and_then_stays() -> None:
    shelf = shelf_with()
    full(shelf)
    shelf.room(MB, A, 0.0)
    place = shelf.view(b"x0", B)
    assert place is not None
    shelf.spilled(b"x0", "/spill/x0")
    assert effects(shelf, FreeRegion) == []
    shelf.unview(b"x0", B)
    assert not effects(shelf, FreeRegion)
    assert shelf.room(MB, A, 0.0), "what is on disk already leaves at once"
    assert shelf.take_effects() == [FreeRegion(A, place.region)]


def test_an_object_freed_while_it_is_spilled_leaves_no_file() -> None:
    shelf = shelf_with()
    full(shelf)
    shelf.room(MB, A, 0.0)
    shelf.free(b"x0")
    assert effects(shelf, FreeRegion) == []
    shelf.spilled(b"x0", "/spill/x0")
    assert set(shelf.take_effects()) == {
        DeleteFile("/spill/x0"),
        FreeRegion(A, Region(1, 0, 10 * MB)),
    }
    assert shelf.spilled_bytes == 0


def spill_one(shelf: Shelf) -> None:
    full(shelf)
    shelf.room(MB, A, 0.0)
    shelf.spilled(b"x0", "/spill/x0")
    shelf.take_effects()


def test_a_spilled_object_comes_back() -> None:
    shelf = shelf_with(100 * MB, A, C)
    spill_one(shelf)
    assert shelf.view(b"x0", B) is None
    found = shelf.get(b"x0")
    assert found is not None and found.path == "/spill/x0" and found.place is None
    assert shelf.restore(b"x0", C, Region(1, 0, 10 * MB)) == "/spill/x0"
    with pytest.raises(ValueError, match="not only on disk"):
        shelf.restore(b"x0", C, Region(1, 20 * MB, 10 * MB))
    assert shelf.view(b"x0", B) is None
    shelf.restored(b"x0")
    assert shelf.view(b"x0", B) == Place(C, 1, 0, 10 * MB)
    shelf.unview(b"x0", B)
    shelf.free(b"x0")
    assert set(shelf.take_effects()) == {
        DeleteFile("/spill/x0"),
        FreeRegion(C, Region(1, 0, 10 * MB)),
    }


def test_an_object_freed_on_disk_or_while_it_is_read_back_leaves_nothing() -> None:
    for restoring in (False, True):
        shelf = shelf_with(100 * MB, A, C)
        spill_one(shelf)
        if restoring:
            shelf.restore(b"x0", C, Region(1, 0, 10 * MB))
        shelf.free(b"x0")
        if restoring:
            assert shelf.take_effects() == []
            shelf.restored(b"x0")
        assert DeleteFile("/spill/x0") in shelf.take_effects()
        assert shelf.get(b"x0") is None
        assert shelf.used_bytes == 90 * MB


def test_a_file_that_cannot_be_read_is_a_lost_object() -> None:
    shelf = shelf_with(100 * MB, A, C)
    spill_one(shelf)
    shelf.restore(b"x0", C, Region(1, 0, 10 * MB))
    shelf.restore_failed(b"x0")
    assert shelf.get(b"x0") is None
    assert FreeRegion(C, Region(1, 0, 10 * MB)) in shelf.take_effects()


def test_a_full_store_says_who_holds_the_memory() -> None:
    shelf = shelf_with(100 * MB, A, B)
    full(shelf, 6)
    for number in range(6):
        shelf.view(b"x%d" % number, C)
    shelf.create(b"y", B, Region(1, 0, 30 * MB), 1, [])
    with pytest.raises(ObjectStoreFullError) as caught:
        shelf.room(50 * MB, A, 0.0)
    assert str(caught.value) == (
        "ZR-3202 an object of 50.0 MB was not stored, because the object store of this node has "
        "100.0 MB, and 90.0 MB of it are in use: 60.0 MB in arrays that process-c uses "
        "(6 objects), 30.0 MB being written by process-b (1 object). Drop arrays and references "
        "that are not needed, or give the node a larger object_store_memory"
    )
    assert shelf.room(10 * MB, A, 0.0)


def test_who_wants_memory_waits_for_what_others_are_writing() -> None:
    shelf = shelf_with(100 * MB, A, B)
    shelf.promise(C, 50 * MB)
    shelf.create(b"y", B, Region(1, 0, 30 * MB), 1, [])
    assert not shelf.room(30 * MB, A, 0.0)
    shelf.seal(b"y", B)
    assert not shelf.room(30 * MB, A, 0.0)
    assert [s.object_id for s in effects(shelf, SpillObject)] == [b"y"]
    shelf.spilled(b"y", "/y")
    assert shelf.room(30 * MB, A, 0.0)
    # What is being read back can leave again.
    shelf.restore(b"y", B, Region(1, 0, 30 * MB))
    assert not shelf.room(30 * MB, A, 0.0)
    shelf.restored(b"y")
    assert shelf.room(30 * MB, A, 0.0)


def test_who_wants_memory_waits_for_those_who_may_let_go_of_it() -> None:
    shelf = shelf_with(100 * MB, A, B)
    full(shelf, 10)
    for number in range(10):
        shelf.view(b"x%d" % number, C)
    shelf.view(b"x0", B)
    with pytest.raises(ObjectStoreFullError):
        shelf.room(10 * MB, A, 0.0)
    assert not shelf.room(10 * MB, A, 0.0, [C])
    assert not shelf.room(90 * MB, A, 0.0, [C])
    with pytest.raises(ObjectStoreFullError):
        shelf.room(91 * MB, A, 0.0, [C])  # B has the other
    assert not shelf.room(100 * MB, A, 0.0, [B, C])
    said = shelf.full(10 * MB, [C])
    assert (
        "in arrays that process-c uses, or does not let go of: it does not answer (10 objects)"
        in said
    )
    shelf.unview(b"x3", C)
    assert not shelf.room(10 * MB, A, 0.0)
    assert [s.object_id for s in effects(shelf, SpillObject)] == [b"x3"]


def test_who_wants_room_waits_for_what_is_being_sent_to_other_nodes() -> None:
    shelf = Shelf(100 * MB, lambda process: process.decode(), sender=b"node")
    shelf.add_segment(A, 1, 1000 * MB)
    for number in range(9):
        put(shelf, b"x%d" % number, number * 10 * MB, 10 * MB)
        shelf.view(b"x%d" % number, b"node")
    assert not shelf.room(20 * MB, A, 0.0)
    assert "90.0 MB being sent to other nodes (9 objects)" in shelf.full(20 * MB)
    for number in range(9):
        shelf.unview(b"x%d" % number, b"node")
    assert not shelf.room(20 * MB, A, 0.0)
    spilled = effects(shelf, SpillObject)
    assert [effect.object_id for effect in spilled] == [b"x0"]
    shelf.view(b"x1", b"node")
    shelf.view(b"x1", B)
    with pytest.raises(ObjectStoreFullError):
        shelf.room(100 * MB, A, 0.0)


def test_an_object_larger_than_the_store_moves_nothing() -> None:
    shelf = shelf_with()
    full(shelf)
    with pytest.raises(ObjectStoreFullError, match=r"100\.1 MB was not stored.*smaller parts"):
        shelf.room(100 * MB + 100_000, A, 0.0)
    assert effects(shelf, SpillObject) == []


def test_a_disk_that_fails_is_named_and_tried_again_later() -> None:
    shelf = shelf_with()
    full(shelf)
    assert not shelf.room(MB, A, 0.0)
    shelf.take_effects()
    shelf.spill_failed(b"x0", "No space left on device", 1.0)
    with pytest.raises(ObjectStoreFullError, match="No space left on device") as caught:
        shelf.room(MB, A, 2.0)
    assert "100.0 MB waiting to be written to disk (10 objects)" in str(caught.value)
    assert shelf.view(b"x0", B) is not None
    assert not shelf.room(MB, A, 1.0 + limits.SPILL_RETRY_S)


def test_what_went_past_the_mark_unasked_is_spilled() -> None:
    shelf = shelf_with()
    full(shelf, 12)
    shelf.relieve(0.0)
    assert [s.object_id for s in effects(shelf, SpillObject)] == [b"x0", b"x1"]


def test_other_processes_are_asked_for_the_memory_they_keep() -> None:
    shelf = shelf_with(100 * MB, A, B, C)
    put(shelf, b"b", 0, 60 * MB, B)
    shelf.free(b"b")
    put(shelf, b"c", 0, 10 * MB, C)
    put(shelf, b"a", 0, 10 * MB, A)
    shelf.free(b"a")
    shelf.take_effects()
    assert shelf.room(20 * MB, A, 0.0)
    assert shelf.take_effects() == []
    assert shelf.room(40 * MB, A, 0.0)
    assert shelf.take_effects() == [TrimArena(B)]
    assert shelf.room(40 * MB, A, 0.0)
    assert shelf.take_effects() == [], "asked once"
    shelf.release_segment(B, 1)
    assert shelf.touched_bytes == 20 * MB


# ---- everything at random ------------------------------------------------------------------


class World:
    """Writers with real arenas, readers, deaths, frees and a disk, all at random."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.shelf = Shelf(60_000)
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
            self.shelf.add_segment(process, *found)
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
            if not self.shelf.room(size, process, 0.0):
                return
        except ObjectStoreFullError:
            assert self.shelf.used_bytes + size > self.shelf.mark_bytes
            return
        self.names += 1
        name = b"o%d" % self.names
        region = self.allocate(process, size)
        self.mine[process][region] = name
        self.shelf.create(name, process, region, 1, [])
        self.unsealed.append((name, process))

    def seal(self) -> None:
        if self.unsealed:
            name, process = self.unsealed.pop(self.rng.randrange(len(self.unsealed)))
            self.shelf.abandon(name, process) if self.rng.random() < 0.1 else self.shelf.seal(
                name, process
            )

    def read(self) -> None:
        objects = self.shelf.sealed()
        if not objects:
            return
        found = self.rng.choice(objects)
        process = self.rng.choice([*self.arenas])
        if found.place is None and found.incoming is None and found.path is not None:
            region = self.allocate(self.raylet, found.size)
            self.mine[self.raylet][region] = found.object_id
            assert self.shelf.restore(found.object_id, self.raylet, region) in self.files
            if self.rng.random() < 0.1:
                return self.shelf.restore_failed(found.object_id)
            self.shelf.restored(found.object_id)
        place = self.shelf.view(found.object_id, process)
        if place is not None:
            self.shelf.grant(process, place.owner, place.segment)
            self.views.setdefault((process, found.object_id), []).append(place)

    def unread(self) -> None:
        if self.views:
            key = self.rng.choice([*self.views])
            places = self.views.pop(key)
            self.shelf.unview(key[1], key[0], len(places))

    def free(self) -> None:
        objects = self.shelf.sealed()
        if objects:
            self.shelf.free(self.rng.choice(objects).object_id)

    def spill(self) -> None:
        if self.spills:
            spill = self.spills.pop(self.rng.randrange(len(self.spills)))
            if self.rng.random() < 0.1:
                return self.shelf.spill_failed(spill.object_id, "broken", -100.0)
            path = spill.object_id.decode()
            self.files.add(path)
            self.shelf.spilled(spill.object_id, path)

    def die(self, process: bytes | None = None) -> None:
        if process is None:
            others = [process for process in self.arenas if process != self.raylet]
            if not others:
                return
            process = self.rng.choice(others)
        del self.arenas[process], self.mine[process]
        self.unsealed = [item for item in self.unsealed if item[1] != process]
        self.views = {key: places for key, places in self.views.items() if key[0] != process}
        self.shelf.process_died(process)

    def settle(self) -> None:
        for effect in self.shelf.take_effects():
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
                self.shelf.release_segment(process, number)
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
    for found in world.shelf.sealed():
        world.shelf.free(found.object_id)
    world.shelf.take_effects()
    assert world.shelf.used_bytes == world.shelf.touched_bytes == world.shelf.spilled_bytes == 0
    assert world.shelf.sealed() == []


# ---- promises ----------------------------------------------------------------------------------


def test_room_that_was_promised_is_not_promised_again() -> None:
    shelf = shelf_with(100 * MB)
    assert shelf.room(60 * MB, A, 0.0)
    shelf.promise(A, 60 * MB)
    assert shelf.room(40 * MB, B, 0.0)
    assert not shelf.room(41 * MB, B, 0.0)
    assert "60.0 MB about to be written by process-a" in shelf.full(41 * MB)
    shelf.unpromise(A, 60 * MB)
    put(shelf, b"x", 0, 60 * MB)
    assert shelf.promised_bytes == 0
    with pytest.raises(ObjectStoreFullError):
        shelf.view(b"x", B)
        shelf.room(41 * MB, B, 0.0)


def test_promises_to_a_process_end_with_it() -> None:
    shelf = shelf_with(100 * MB)
    shelf.promise(A, 60 * MB)
    shelf.promise(A, 20 * MB)
    shelf.unpromise(A, 5 * MB)  # never made
    shelf.process_died(A)
    assert shelf.promised_bytes == 0
    assert shelf.room(100 * MB, B, 0.0)
