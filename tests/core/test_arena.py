"""The writer's allocator: no overlap, warm space first, all space comes back, surplus leaves."""

from __future__ import annotations

import random

import pytest

from zray.core.arena import ALIGNMENT, Arena, NewSegment, Region

POOLED = 64 << 10
WARM = 256 << 10


class Bench:
    """An arena whose segments always can be made; checks every region against all others."""

    def __init__(self, pooled: int = POOLED, warm: int = WARM) -> None:
        self.arena = Arena(pooled, warm)
        self.sizes: dict[int, int] = {}
        self.live: dict[tuple[int, int], Region] = {}

    def allocate(self, size: int) -> Region:
        found = self.arena.allocate(size)
        if isinstance(found, NewSegment):
            self.sizes[found.number] = found.size
            self.arena.add(*found)
            found = self.arena.allocate(size)
        assert isinstance(found, Region)
        assert found.size == size
        assert found.offset % ALIGNMENT == 0
        assert found.offset + size <= self.sizes[found.segment]
        for other in self.live.values():
            if other.segment == found.segment:
                apart = found.offset + size <= other.offset
                assert apart or other.offset + other.size <= found.offset
        self.live[found[:2]] = found
        return found

    def free(self, region: Region) -> None:
        del self.live[region[:2]]
        self.arena.free(region)
        self.release()

    def release(self) -> list[int]:
        released = self.arena.take_released()
        for number in released:
            del self.sizes[number]
            assert all(region.segment != number for region in self.live.values())
        return released


def test_objects_share_a_segment_and_a_large_one_gets_its_own() -> None:
    bench = Bench()
    a, b = bench.allocate(1000), bench.allocate(1000)
    assert (a.segment, a.offset, b.segment, b.offset) == (1, 0, 1, 1024)
    large = bench.allocate(POOLED + 1)
    assert (large.segment, large.offset) == (2, 0)
    assert bench.allocate(POOLED).segment == 3
    assert bench.allocate(5).segment == 1


def test_a_segment_that_could_not_be_made_is_forgotten() -> None:
    arena = Arena(POOLED, WARM)
    first, second = arena.allocate(10), arena.allocate(10)
    assert isinstance(first, NewSegment) and isinstance(second, NewSegment)
    assert first.number != second.number
    arena.add(*second)
    assert arena.allocate(10) == Region(second.number, 0, 10)
    assert arena.segment_bytes == POOLED


def test_what_was_freed_is_used_again_before_cold_space() -> None:
    bench = Bench()
    regions = [bench.allocate(1024) for _ in range(4)]
    bench.free(regions[1])
    assert bench.allocate(1000)[:2] == regions[1][:2]
    assert bench.allocate(1024).offset == 4096


def test_the_best_fit_is_taken_and_of_equals_the_latest_freed() -> None:
    bench = Bench()
    a, _, b, _, c, _, d, _ = (bench.allocate(n) for n in (512, 64, 256, 64, 256, 64, 128, 64))
    for region in (a, c, b, d):
        bench.free(region)
    assert bench.allocate(200).offset == b.offset
    assert bench.allocate(256).offset == c.offset
    assert bench.allocate(256).offset == a.offset
    assert bench.allocate(100).offset == d.offset


def test_neighbours_coalesce_into_one_range() -> None:
    bench = Bench()
    regions = [bench.allocate(POOLED // 8) for _ in range(8)]
    for index in (1, 3, 5, 0, 7, 2, 6, 4):
        bench.free(regions[index])
    assert bench.allocate(POOLED) == Region(1, 0, POOLED)


def test_a_warm_end_grows_into_cold_space() -> None:
    bench = Bench()
    bench.allocate(64)
    bench.free(bench.allocate(1024))
    assert bench.allocate(4096) == Region(1, 64, 4096)
    assert bench.arena.warm_free_bytes == 0


def test_an_own_segment_is_reused_by_objects_of_about_its_size() -> None:
    size = 100_000_000
    bench = Bench(64 << 20, 256 << 20)
    for used in (size, size - 1, size + 1000, size * 4 // 5, size):
        region = bench.allocate(used)
        assert region == Region(1, 0, used)
        bench.free(region)
    assert bench.allocate(65 << 20).segment == 2


def test_surplus_empty_segments_are_released_the_longest_empty_first() -> None:
    bench = Bench(warm=2 * POOLED)
    regions = [bench.allocate(POOLED) for _ in range(5)]
    for region in regions:
        bench.arena.free(region)
    assert bench.arena.take_released() == [1, 2, 3]
    assert bench.arena.take_released() == []
    assert bench.arena.allocate(10) == Region(5, 0, 10)
    bench.arena.trim()
    assert bench.arena.take_released() == [4]


def test_what_is_larger_than_all_that_may_be_kept_is_released_at_once() -> None:
    bench = Bench(warm=POOLED)
    bench.arena.free(bench.allocate(POOLED * 4))
    assert bench.arena.take_released() == [1]
    assert bench.arena.segment_bytes == 0


def test_misuse_is_refused() -> None:
    bench = Bench()
    region = bench.allocate(10)
    with pytest.raises(ValueError, match="not in use"):
        bench.arena.free(Region(1, 64, 10))
    bench.arena.free(region)
    with pytest.raises(ValueError, match="not in use"):
        bench.arena.free(region)
    with pytest.raises(ValueError, match="cannot have"):
        bench.arena.allocate(-1)
    for number in (0, 1, 2):
        with pytest.raises(ValueError, match="was not asked for"):
            bench.arena.add(number, POOLED)


def sizes(rng: random.Random) -> int:
    kind = rng.random()
    if kind < 0.5:
        return rng.randrange(0, 600)
    if kind < 0.9:
        return rng.randrange(600, POOLED // 3)
    return rng.randrange(POOLED // 3, POOLED * 3)


@pytest.mark.parametrize("seed", range(20))
def test_any_sequence_never_overlaps_and_gives_all_back(seed: int) -> None:
    rng = random.Random(seed)
    bench = Bench(warm=rng.choice((0, POOLED, WARM)))
    for _ in range(800):
        regions = [*bench.live.values()]
        if regions and rng.random() < len(regions) / 60:
            bench.free(rng.choice(regions))
        else:
            bench.allocate(sizes(rng))
        live = sum(max(-(-r.size // ALIGNMENT), 1) * ALIGNMENT for r in bench.live.values())
        assert bench.arena.used_bytes == live
        assert bench.arena.segment_bytes == sum(bench.sizes.values())
    for region in [*bench.live.values()]:
        bench.free(region)
    assert bench.arena.used_bytes == 0
    bench.arena.trim()
    bench.release()
    assert bench.sizes == {}
    assert bench.arena.segment_bytes == bench.arena.warm_free_bytes == 0


@pytest.mark.parametrize("seed", range(5))
def test_waste_is_bounded(seed: int) -> None:
    """At a steady load of mixed sizes the pooled segments stay less than twice the live bytes."""
    rng = random.Random(seed)
    bench = Bench(1 << 20, warm=1 << 20)
    live = 0
    for _ in range(3000):
        while live > 6 << 20:
            region = rng.choice([*bench.live.values()])
            live -= region.size
            bench.free(region)
        size = int(64 * 2 ** rng.uniform(0, 12))
        live += size
        bench.allocate(size)
    assert bench.arena.segment_bytes < 2 * live
