from __future__ import annotations

import gc
import pickle
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

from zray import limits
from zray.errors import SerializationError
from zray.runtime import buffers, pickling, serialization

ROOT = Path(__file__).parents[2]
LARGE = 200_000


class Ref:
    """What an ObjectRef does with the hooks."""

    def __init__(self, object_id: bytes) -> None:
        self.id = object_id

    def __reduce__(self) -> Any:
        pickling.note_reference(self.id)
        return serialization.restore_reference, (self.id,)


class Frame:
    """Columns of arrays with names, as data frames are."""

    def __init__(self, **columns: Any) -> None:
        self.columns = columns


@pytest.fixture(autouse=True)
def references() -> Iterator[None]:
    serialization.set_reference_factory(Ref)
    yield
    serialization.set_reference_factory(None)


def written(value: Any) -> tuple[buffers.Parts, memoryview]:
    """The parts, and a place with the value, as shared memory is: writable, with old content."""
    parts = serialization.dumps_parts(value)
    place = bytearray(b"\xaa" * (parts.size + 64))
    parts.write_into(memoryview(place))
    assert place[parts.size :] == b"\xaa" * 64
    assert parts.to_bytes() == place[: parts.size]
    return parts, memoryview(place)[: parts.size]


def round_trip(value: Any) -> Any:
    return serialization.loads(written(value)[1])


def address(array: Any) -> int:
    found: int = array.__array_interface__["data"][0]
    return found


def test_an_array_is_loaded_in_place_aligned_and_read_only() -> None:
    array = numpy.arange(LARGE, dtype=numpy.float64)
    parts, place = written(array)
    assert parts.size < array.nbytes + 512
    start = address(numpy.frombuffer(place, dtype=numpy.uint8))
    loaded = serialization.loads(place)
    assert (loaded == array).all()
    assert start < address(loaded) < start + 512
    assert (address(loaded) - start) % buffers.ALIGNMENT == 0
    assert not loaded.flags.writeable
    with pytest.raises(ValueError, match="WRITEABLE"):
        loaded.flags.writeable = True


def test_the_only_copy_is_the_one_into_the_place() -> None:
    array = numpy.zeros(LARGE, dtype=numpy.uint8)
    data = bytes(LARGE)
    parts = serialization.dumps_parts({"a": array, "b": [data]})
    assert any(piece is data for piece in parts.pieces)
    array[:] = 7
    place = memoryview(bytearray(parts.size))
    parts.write_into(place)
    assert (serialization.loads(place)["a"] == 7).all()


def test_the_order_of_an_array_stays() -> None:
    fortran = numpy.asfortranarray(numpy.arange(LARGE).reshape(100, -1))
    loaded = round_trip(fortran)
    assert loaded.flags.f_contiguous and not loaded.flags.c_contiguous
    assert (loaded == fortran).all()
    strided = numpy.arange(LARGE)[::3]
    assert (round_trip(strided) == strided).all()


@pytest.mark.parametrize(
    "value",
    [
        numpy.zeros(0),
        numpy.zeros((3, 0, 2)),
        numpy.array(5),
        numpy.float32(1.5),
        numpy.array(["a", "bb"]),
        numpy.array([("x", 1)], dtype=[("name", "U4"), ("n", "i4")]),
        numpy.ma.masked_array([1, 2, 3], [0, 1, 0]),
    ],
)
def test_arrays_of_every_kind_come_back(value: Any) -> None:
    loaded = round_trip(value)
    assert type(loaded) is type(value)
    assert loaded.dtype == value.dtype and loaded.shape == value.shape
    assert (loaded == value).all()


def test_an_array_of_objects_comes_back() -> None:
    loaded = round_trip(numpy.array([None, "x", Ref(b"r")], dtype=object))
    assert loaded[1] == "x" and loaded[2].id == b"r"


def test_small_arrays_are_read_only_too() -> None:
    assert not round_trip(numpy.zeros(3)).flags.writeable


def test_a_container_of_arrays_shares_memory_for_each() -> None:
    frame = Frame(a=numpy.arange(LARGE), b=numpy.ones(LARGE), c=numpy.arange(3))
    frame.columns["again"] = frame.columns["a"]
    parts, place = written(frame)
    assert parts.size < LARGE * 16 + 2048
    loaded = serialization.loads(place).columns
    assert loaded["again"] is loaded["a"]
    for name, array in frame.columns.items():
        assert (loaded[name] == array).all()
        assert not loaded[name].flags.writeable


@pytest.mark.parametrize(
    "value",
    [
        b"x" * LARGE,
        bytearray(b"y" * LARGE),
        "z" * LARGE,
        "\u00e9" * LARGE,
        [b"x" * LARGE, {"k": bytearray(LARGE)}, "s" * LARGE],
        (b"x" * (1 << 16), b"y" * ((1 << 16) - 1)),
        list(range(LARGE)),
        {"n": 1 << 3_000_000},
    ],
)
def test_large_values_without_buffers_are_plain_pickles(value: Any) -> None:
    _, place = written(value)
    assert place[0] == serialization.PICKLE_TAG
    assert pickle.loads(place) == value
    loaded = serialization.loads(place)
    assert loaded == value and type(loaded) is type(value)


@pytest.mark.parametrize("value", [None, 1, "x", b"x" * 1000, [1, {"a": (2,)}], Path("/x")])
def test_small_values_are_the_same_bytes_as_ever(value: Any) -> None:
    parts = serialization.dumps_parts(value)
    assert parts.to_bytes() == serialization.dumps(value)[0]
    assert parts.size == len(parts.to_bytes())


def test_references_are_collected_once_and_in_order() -> None:
    value = [Ref(b"b"), numpy.zeros(LARGE), {"x": Ref(b"a")}, Ref(b"b")]
    parts, place = written(value)
    assert parts.contained == [b"b", b"a"]
    assert [one.id for one in serialization.loads(place)[::3]] == [b"b", b"b"]
    assert serialization.dumps_parts([Ref(b"a"), lambda: 1]).contained == [b"a"]


def test_what_the_script_defines_travels_by_value_with_its_arrays() -> None:
    script = """
import sys, numpy
from zray.runtime import serialization
class Frame:
    def __init__(self, array): self.array = array
    def total(self): return int(self.array.sum())
parts = serialization.dumps_parts([b"p" * 100_000, Frame(numpy.ones(100_000))])
sys.stdout.buffer.write(parts.to_bytes())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT, timeout=60, check=True
    )
    assert done.stdout[0] == buffers.BUFFERS_TAG
    loaded = serialization.loads(done.stdout)[1]
    assert type(loaded).__module__ == "__main__"
    assert loaded.total() == 100_000
    assert not loaded.array.flags.writeable


def test_content_that_looks_like_a_name_of_the_script_is_not_searched() -> None:
    data = b"\x8c\x08__main__" * LARGE
    assert any(piece is data for piece in serialization.dumps_parts((data,)).pieces)


def test_an_array_keeps_the_memory_of_its_value() -> None:
    class Memory(bytearray):
        pass

    parts = serialization.dumps_parts([numpy.arange(LARGE), 1])
    memory = Memory(parts.size)
    gone = weakref.ref(memory)
    parts.write_into(memoryview(memory))
    part = serialization.loads(memoryview(memory))[0][10:20]
    del memory, parts
    gc.collect()
    assert gone() is not None
    assert part.tolist() == [*range(10, 20)]
    del part
    gc.collect()
    assert gone() is None


def test_a_value_that_cannot_be_pickled_names_its_part() -> None:
    value = {"k": [numpy.zeros(3), threading.Lock()]}
    with pytest.raises(SerializationError, match=r"^ZR-3201 result: the value at 'k', item 1 is"):
        serialization.dumps_parts(value, "result")


def test_a_buffer_with_gaps_is_refused() -> None:
    class Gaps:
        def __reduce_ex__(self, protocol: Any) -> Any:
            return bytes, (pickle.PickleBuffer(numpy.zeros(100)[::2]),)

    with pytest.raises(SerializationError):
        serialization.dumps_parts(Gaps())


def test_every_truncation_is_a_typed_error() -> None:
    _, place = written([numpy.arange(100), numpy.arange(7)])
    for end in range(1, len(place)):
        with pytest.raises(SerializationError):
            serialization.loads(place[:end])
    with pytest.raises(SerializationError):
        serialization.loads(bytes(place) + b"\0")


@pytest.mark.parametrize(
    "data",
    [
        b"B",
        struct.pack("<B3xIQ", 0x42, 2**32 - 1, 0),
        struct.pack("<B3xIQ", 0x42, 0, 2**64 - 1),
        struct.pack("<B3xIQQ", 0x42, 1, 0, 2**64 - 1),
        struct.pack("<B3xIQ", 0x42, 0, 3) + b"\x80\x05.",
        struct.pack("<B3xIQ", 0x42, 0, 4) + b"\x80\x05\x97.",
    ],
)
def test_damaged_values_are_a_typed_error(data: bytes) -> None:
    with pytest.raises(SerializationError):
        serialization.loads(data)


def test_the_layout_is_the_documented_one() -> None:
    pickled, first, second = b"pickle", b"x" * 70, b"y" * 10
    pieces = buffers.assemble([pickled], [memoryview(first), memoryview(second)])
    data = b"".join(pieces)
    assert data[:16] == b"B\0\0\0" + (2).to_bytes(4, "little") + (6).to_bytes(8, "little")
    assert data[16:32] == (70).to_bytes(8, "little") + (10).to_bytes(8, "little")
    assert data[32:64] == pickled + bytes(26)
    assert data[64:192] == first + bytes(58)
    assert data[192:] == second
    assert buffers.split(memoryview(data)) == (pickled, [first, second])


def test_a_copy_in_several_steps_is_complete() -> None:
    source = bytes(range(256)) * (limits.COPY_BYTES_MAX // 256) + b"end"
    target = bytearray(len(source) + 10)
    buffers.copy(source, memoryview(target), 5)
    assert target[5:-5] == source
