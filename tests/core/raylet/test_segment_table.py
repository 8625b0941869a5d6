"""Segments: a region is used once at a time, and a segment goes when nobody can need it."""

from __future__ import annotations

import pytest

from zray.core.arena import Region
from zray.core.raylet.segment_table import SegmentTable
from zray.core.raylet.store_effects import DropSegment, Effect, FreeRegion, Place, TrimArena
from zray.errors import ProtocolError

A, B, C = b"process-a", b"process-b", b"process-c"


class Table(SegmentTable):
    """With a segment 1 of 1000 bytes of A's."""

    def __init__(self) -> None:
        self.effects: list[Effect] = []
        super().__init__(self.effects.append)
        self.add(A, 1, 1000)

    def take_effects(self) -> list[Effect]:
        effects = [*self.effects]
        self.effects.clear()
        return effects


@pytest.mark.parametrize(
    "region",
    [
        Region(1, 90, 20),
        Region(1, 110, 200),
        Region(1, 100, 100),
        Region(1, 140, 1),
        Region(1, 900, 101),
        Region(1, -64, 10),
        Region(1, 500, 0),
        Region(1, 500, -1),
        Region(2, 0, 10),
    ],
)
def test_a_region_that_is_not_free_space_is_refused(region: Region) -> None:
    table = Table()
    table.occupy(A, Region(1, 100, 100))
    with pytest.raises(ProtocolError):
        table.occupy(A, region)
    assert (table.used_bytes, table.touched_bytes) == (100, 200)


def test_misuse_is_refused() -> None:
    table = Table()
    table.occupy(A, Region(1, 0, 10))
    with pytest.raises(ProtocolError, match="cannot be added"):
        table.add(A, 1, 10)
    with pytest.raises(ProtocolError, match="has no segment"):
        table.occupy(B, Region(1, 0, 10))
    with pytest.raises(ProtocolError, match="with 1 objects in it"):
        table.release(A, 1)
    with pytest.raises(ProtocolError, match="has no segment"):
        table.release(A, 2)


def test_memory_that_was_written_once_counts_until_its_segment_goes() -> None:
    table = Table()
    place = table.occupy(A, Region(1, 100, 50))
    table.vacate(place)
    assert table.take_effects() == [FreeRegion(A, Region(1, 100, 50))]
    assert (table.used_bytes, table.touched_bytes) == (0, 150)
    table.occupy(A, Region(1, 0, 120))
    assert (table.used_bytes, table.touched_bytes) == (120, 150)
    table.vacate(Place(A, 1, 0, 120))
    table.release(A, 1)
    assert (table.used_bytes, table.touched_bytes) == (0, 0)


def test_a_descriptor_is_granted_once_to_each_reader() -> None:
    table = Table()
    assert table.grant(B, A, 1)
    assert not table.grant(B, A, 1)
    assert not table.grant(A, A, 1)
    table.process_died(B)
    assert table.grant(C, A, 1)
    table.release(A, 1)
    assert table.take_effects() == [DropSegment(A, 1, (C,))]


def test_segments_of_a_dead_process_go_when_nothing_is_in_them() -> None:
    table = Table()
    table.add(A, 2, 1000)
    place = table.occupy(A, Region(1, 0, 10))
    table.grant(B, A, 1)
    table.process_died(A)
    assert table.take_effects() == [DropSegment(A, 2, ())]
    with pytest.raises(ProtocolError, match="is dead"):
        table.occupy(A, Region(1, 64, 10))
    with pytest.raises(ProtocolError, match="cannot be added"):
        table.add(A, 3, 10)
    table.vacate(place)
    assert table.take_effects() == [DropSegment(A, 1, (B,))]
    assert table.used_bytes == table.touched_bytes == 0


def test_each_is_asked_once_for_the_empty_segments_that_it_keeps() -> None:
    table = Table()
    table.add(B, 1, 1000)
    table.add(C, 1, 1000)
    table.occupy(C, Region(1, 0, 10))
    table.trim(A)
    assert table.take_effects() == [TrimArena(B)]
    table.trim(A)
    assert table.take_effects() == []
    table.vacate(table.occupy(B, Region(1, 0, 10)))  # it was of use once more
    table.trim(A)
    assert table.take_effects() == [FreeRegion(B, Region(1, 0, 10)), TrimArena(B)]
