"""A node's shared objects: regions stay while used, and nothing stays for ever."""

from __future__ import annotations

import random

import pytest

from tests.core.raylet.node_store import MB, A, B, C, NodeStore
from zray.core.arena import Arena, NewSegment, Region
from zray.core.raylet.store_effects import (
    DeleteFile,
    DropSegment,
    FreeRegion,
    Place,
    SpillObject,
    TrimArena,
)
from zray.errors import ObjectStoreFullError, ProtocolError


def test_an_object_exists_once_it_is_sealed() -> None:
    store = NodeStore()
    store.objects.create(b"x", A, Region(1, 64, MB), 7, [b"inner"])
    assert store.objects.view(b"x", B) is None
    assert store.segments.used_bytes == MB
    store.objects.seal(b"x", A)
    assert store.objects.view(b"x", B) == Place(A, 1, 64, MB)
    found = store.objects.get(b"x")
    assert found is not None
    assert (found.kind, found.size, found.contained) == (7, MB, [b"inner"])


def test_a_region_is_free_with_the_last_of_hold_and_views() -> None:
    store = NodeStore()
    place = store.put(b"x", 0)
    store.objects.view(b"x", B)
    store.objects.view(b"x", B)
    store.objects.view(b"x", C)
    store.objects.free(b"x")
    store.objects.unview(b"x", B, 2)
    assert store.take_effects() == []
    store.objects.unview(b"x", C)
    assert store.take_effects() == [FreeRegion(A, place.region)]
    assert store.objects.get(b"x") is None
    assert store.segments.used_bytes == 0


def test_a_hold_alone_keeps_the_object() -> None:
    store = NodeStore()
    store.put(b"x", 0)
    store.objects.view(b"x", B)
    store.objects.unview(b"x", B)
    assert store.take_effects() == []
    store.objects.free(b"x")
    assert len(store.effects_of(FreeRegion)) == 1


def test_an_object_freed_while_it_is_written_goes_when_it_is_sealed() -> None:
    store = NodeStore()
    store.objects.create(b"x", A, Region(1, 0, 10), 1, [])
    store.objects.free(b"x")
    assert store.take_effects() == []
    store.objects.seal(b"x", A)
    assert store.take_effects() == [FreeRegion(A, Region(1, 0, 10))]


def test_of_two_writers_of_one_object_the_first_to_seal_wins() -> None:
    store = NodeStore(owners=(A, B))
    store.objects.create(b"x", A, Region(1, 0, 10), 1, [])
    store.objects.create(b"x", B, Region(1, 0, 10), 1, [])
    assert store.objects.seal(b"x", B)
    assert not store.objects.seal(b"x", A)
    assert store.take_effects() == [FreeRegion(A, Region(1, 0, 10))]
    assert store.objects.view(b"x", C) == Place(B, 1, 0, 10)


def test_an_abandoned_region_is_free() -> None:
    store = NodeStore()
    store.objects.create(b"x", A, Region(1, 0, 10), 1, [])
    store.objects.abandon(b"x", A)
    assert store.take_effects() == [FreeRegion(A, Region(1, 0, 10))]
    with pytest.raises(ProtocolError, match="is not writing"):
        store.objects.seal(b"x", A)


def test_misuse_is_refused() -> None:
    store = NodeStore()
    store.put(b"x", 0)
    for count in (-1, 0, 1):
        with pytest.raises(ProtocolError, match="does not have"):
            store.objects.unview(b"x", B, count)
    with pytest.raises(ProtocolError, match="does not have"):
        store.objects.unview(b"unknown", B)
    store.objects.create(b"y", A, Region(1, 5 * MB, 10), 1, [])
    with pytest.raises(ProtocolError, match="already"):
        store.objects.create(b"y", A, Region(1, 6 * MB, 10), 1, [])
    with pytest.raises(ProtocolError, match="overlaps"):
        store.objects.create(b"z", A, Region(1, 0, 10), 1, [])


# ---- deaths ---------------------------------------------------------------------------------


def test_views_of_a_dead_process_are_void() -> None:
    store = NodeStore()
    store.put(b"x", 0)
    store.objects.view(b"x", B)
    store.objects.view(b"x", B)
    store.objects.free(b"x")
    store.process_died(B)
    assert len(store.effects_of(FreeRegion)) == 1


def test_what_a_dead_process_sealed_stays_readable_and_the_rest_vanishes() -> None:
    store = NodeStore()
    store.segments.add(A, 2, MB)
    store.put(b"x", 0, 10)
    store.put(b"y", 64, 10)
    store.objects.create(b"z", A, Region(1, 128, 10), 1, [])
    store.segments.grant(B, A, 1)
    store.process_died(A)
    assert store.take_effects() == [DropSegment(A, 2, ())]
    assert store.objects.view(b"x", B) == Place(A, 1, 0, 10)
    assert store.objects.view(b"z", B) is None
    store.objects.free(b"y")
    store.objects.free(b"x")
    assert store.take_effects() == []
    store.objects.unview(b"x", B)
    assert store.take_effects() == [DropSegment(A, 1, (B,))]
    assert store.segments.used_bytes == store.segments.touched_bytes == 0


# ---- disk -----------------------------------------------------------------------------------


def spill_first(store: NodeStore) -> None:
    store.fill()
    store.admission.room(MB, A, 0.0)
    store.objects.spilled(b"x0", "/spill/x0")
    store.take_effects()


def test_an_object_is_readable_while_it_is_spilled_and_then_stays() -> None:
    store = NodeStore()
    store.fill()
    store.admission.room(MB, A, 0.0)
    place = store.objects.view(b"x0", B)
    assert place is not None
    store.objects.spilled(b"x0", "/spill/x0")
    assert store.effects_of(FreeRegion) == []
    store.objects.unview(b"x0", B)
    assert not store.effects_of(FreeRegion)
    assert store.admission.room(MB, A, 0.0), "what is on disk already leaves at once"
    assert store.take_effects() == [FreeRegion(A, place.region)]


def test_an_object_freed_while_it_is_spilled_leaves_no_file() -> None:
    store = NodeStore()
    store.fill()
    store.admission.room(MB, A, 0.0)
    store.objects.free(b"x0")
    assert store.effects_of(FreeRegion) == []
    store.objects.spilled(b"x0", "/spill/x0")
    assert set(store.take_effects()) == {
        DeleteFile("/spill/x0"),
        FreeRegion(A, Region(1, 0, 10 * MB)),
    }
    assert store.objects.spilled_bytes == 0


def test_a_spilled_object_comes_back() -> None:
    store = NodeStore(owners=(A, C))
    spill_first(store)
    assert store.objects.view(b"x0", B) is None
    found = store.objects.get(b"x0")
    assert found is not None and found.path == "/spill/x0" and found.place is None
    assert store.objects.restore(b"x0", C, Region(1, 0, 10 * MB)) == "/spill/x0"
    with pytest.raises(ValueError, match="not only on disk"):
        store.objects.restore(b"x0", C, Region(1, 20 * MB, 10 * MB))
    assert store.objects.view(b"x0", B) is None
    store.objects.restored(b"x0")
    assert store.objects.view(b"x0", B) == Place(C, 1, 0, 10 * MB)
    store.objects.unview(b"x0", B)
    store.objects.free(b"x0")
    assert set(store.take_effects()) == {
        DeleteFile("/spill/x0"),
        FreeRegion(C, Region(1, 0, 10 * MB)),
    }


def test_an_object_freed_on_disk_or_while_it_is_read_back_leaves_nothing() -> None:
    for restoring in (False, True):
        store = NodeStore(owners=(A, C))
        spill_first(store)
        if restoring:
            store.objects.restore(b"x0", C, Region(1, 0, 10 * MB))
        store.objects.free(b"x0")
        if restoring:
            assert store.take_effects() == []
            store.objects.restored(b"x0")
        assert DeleteFile("/spill/x0") in store.take_effects()
        assert store.objects.get(b"x0") is None
        assert store.segments.used_bytes == 90 * MB


def test_a_file_that_cannot_be_read_is_a_lost_object() -> None:
    store = NodeStore(owners=(A, C))
    spill_first(store)
    store.objects.restore(b"x0", C, Region(1, 0, 10 * MB))
    store.objects.restore_failed(b"x0")
    assert store.objects.get(b"x0") is None
    assert FreeRegion(C, Region(1, 0, 10 * MB)) in store.take_effects()


# ---- everything at random -------------------------------------------------------------------


class World:
    """Writers with real arenas, readers, deaths, frees and a disk, all at random."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.store = NodeStore(60_000, owners=())
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
            self.store.segments.add(process, *found)
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
            if not self.store.admission.room(size, process, 0.0):
                return
        except ObjectStoreFullError:
            assert self.store.segments.used_bytes + size > self.store.admission.mark_bytes
            return
        self.names += 1
        name = b"o%d" % self.names
        region = self.allocate(process, size)
        self.mine[process][region] = name
        self.store.objects.create(name, process, region, 1, [])
        self.unsealed.append((name, process))

    def seal(self) -> None:
        if self.unsealed:
            name, process = self.unsealed.pop(self.rng.randrange(len(self.unsealed)))
            self.store.objects.abandon(
                name, process
            ) if self.rng.random() < 0.1 else self.store.objects.seal(name, process)

    def read(self) -> None:
        objects = self.store.objects.sealed()
        if not objects:
            return
        found = self.rng.choice(objects)
        process = self.rng.choice([*self.arenas])
        if found.place is None and found.incoming is None and found.path is not None:
            region = self.allocate(self.raylet, found.size)
            self.mine[self.raylet][region] = found.object_id
            assert self.store.objects.restore(found.object_id, self.raylet, region) in self.files
            if self.rng.random() < 0.1:
                return self.store.objects.restore_failed(found.object_id)
            self.store.objects.restored(found.object_id)
        place = self.store.objects.view(found.object_id, process)
        if place is not None:
            self.store.segments.grant(process, place.owner, place.segment)
            self.views.setdefault((process, found.object_id), []).append(place)

    def unread(self) -> None:
        if self.views:
            key = self.rng.choice([*self.views])
            places = self.views.pop(key)
            self.store.objects.unview(key[1], key[0], len(places))

    def free(self) -> None:
        objects = self.store.objects.sealed()
        if objects:
            self.store.objects.free(self.rng.choice(objects).object_id)

    def spill(self) -> None:
        if self.spills:
            spill = self.spills.pop(self.rng.randrange(len(self.spills)))
            if self.rng.random() < 0.1:
                return self.store.objects.spill_failed(spill.object_id, "broken", -100.0)
            path = spill.object_id.decode()
            self.files.add(path)
            self.store.objects.spilled(spill.object_id, path)

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
                self.store.segments.release(process, number)
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
    for found in world.store.objects.sealed():
        world.store.objects.free(found.object_id)
    world.store.take_effects()
    assert (
        world.store.segments.used_bytes
        == world.store.segments.touched_bytes
        == world.store.objects.spilled_bytes
        == 0
    )
    assert world.store.objects.sealed() == []
