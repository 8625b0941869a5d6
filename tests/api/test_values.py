"""Values of any size and kind, by copy: as arguments, results, puts and between tasks."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import numpy as np
import pytest

import zray

pytestmark = pytest.mark.usefixtures("cluster")

SIZES = [0, 1, 4095, 4096, 4097, 40_000, 65_535, 65_536, 65_537, 1 << 20, 9_000_001]


@zray.remote
def echo(x: Any) -> Any:
    return x


@zray.remote
def size(*values: bytes) -> list[int]:
    return [len(value) for value in values]


@zray.remote
def make(n: int) -> bytes:
    return bytes(n)


@pytest.mark.parametrize("n", SIZES)
def test_sizes(n: int) -> None:
    data = bytes(range(256)) * (n // 256) + bytes(n % 256)
    ref = zray.put(data)
    assert zray.get(ref) == data
    assert zray.get(echo.remote(data)) == data
    assert zray.get(echo.remote(ref)) == data
    assert zray.get(echo.remote(echo.remote(ref))) == data
    assert zray.get(size.remote(data, ref, make.remote(n), data)) == [n] * 4


@pytest.mark.slow_limit(120)
def test_a_hundred_megabytes() -> None:
    n = 100_000_000
    data = bytes(n)
    assert zray.get(size.remote(data)) == [n]
    ref = zray.put(data)
    del data
    assert zray.get(size.remote(ref)) == [n]
    made = make.remote(n)
    assert zray.get(size.remote(made)) == [n]
    assert len(zray.get(made)) == n


def test_large_values_inside_tasks() -> None:
    @zray.remote
    def inside(n: int) -> list[Any]:
        ref = zray.put(bytes(n))
        assert len(zray.get(ref)) == n
        assert len(zray.get(make.remote(n))) == n
        assert zray.get(size.remote(bytes(n), ref)) == [n, n]
        return [ref, make.remote(n)]

    for n in (10, 50_000, 2_000_000):
        assert [len(value) for value in zray.get(zray.get(inside.remote(n)))] == [n, n]


def test_one_large_argument_for_many_tasks() -> None:
    ref = zray.put(bytes(3_000_000))
    assert zray.get([size.remote(ref) for _ in range(20)]) == [[3_000_000]] * 20


def test_many_arguments_of_medium_size() -> None:
    refs = [size.remote(bytes(20_000), bytes(10)) for _ in range(300)]
    assert zray.get(refs) == [[20_000, 10]] * 300


@pytest.mark.parametrize(
    "value",
    [
        2**200,
        1.5 - 2j,
        float("inf"),
        "text \N{SNOWMAN} \x00",
        {"a": {1: (2, [3, {4}])}},
        frozenset({1, 2}),
        datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC),
        decimal.Decimal("1.10"),
        range(5),
        Ellipsis,
        int,
    ],
)
def test_kinds(value: Any) -> None:
    assert zray.get(echo.remote(value)) == value
    assert zray.get(zray.put(value)) == value


def test_a_value_that_contains_itself() -> None:
    value: list[Any] = [1]
    value.append(value)
    found = zray.get(echo.remote(value))
    assert found[0] == 1 and found[1] is found


def test_arrays() -> None:
    array = np.arange(1_000_000, dtype=np.float64).reshape(1000, 1000)
    found = zray.get(echo.remote(array))
    assert found.dtype == array.dtype and (found == array).all()
    assert zray.get(zray.put(np.array([]))).size == 0


def test_classes_and_instances_of_the_test_itself() -> None:
    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

        def __eq__(self, other: object) -> bool:
            return type(other).__name__ == "Point" and vars(other) == vars(self)

    @zray.remote
    def move(point: Point, by: int) -> Point:
        return Point(point.x + by)

    assert zray.get(move.remote(Point(1), 2)) == Point(3)


def test_arguments_are_copies() -> None:
    @zray.remote
    def change(values: list[int]) -> list[int]:
        values.append(9)
        return values

    values = [1]
    ref = zray.put(values)
    assert zray.get([change.remote(values), change.remote(ref), change.remote(ref)]) == [[1, 9]] * 3
    values.append(2)
    assert zray.get(ref) == [1]


def test_later_changes_of_an_argument_do_not_matter() -> None:
    values = [1]
    refs = []
    for i in range(5):
        values[0] = i
        refs.append(echo.remote(values))
    assert zray.get(refs) == [[0], [1], [2], [3], [4]]
