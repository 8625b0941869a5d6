"""Contracts of what can be passed and returned, and how classes and functions travel."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import functools
import io
import pathlib
import re
import threading
import uuid

import numpy as np
import pytest
import ray

from tests.conformance.functions import same

pytestmark = pytest.mark.usefixtures("cluster")


@ray.remote
def kind_of(value):
    return type(value).__name__, repr(value)


@dataclasses.dataclass
class Data:
    x: int
    items: list


class Color(enum.Enum):
    RED = 1


class Slots:
    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x


class Reduced:
    def __init__(self, x):
        self.x = x

    def __reduce__(self):
        return Reduced, (self.x + 1,)


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    "value",
    [
        Data(1, [2]),
        Color.RED,
        Point(1, 2),
        collections.OrderedDict(a=1),
        collections.Counter("aab"),
        collections.deque([1], maxlen=3),
        datetime.datetime(2020, 1, 2, 3),
        datetime.timedelta(seconds=1),
        decimal.Decimal("1.5"),
        uuid.UUID(int=5),
        pathlib.PurePosixPath("/a/b"),
        float("inf"),
        re.compile("a+"),
        np.float32(1.5),
        np.dtype("int16"),
        len,
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_goes_there_and_back(value) -> None:
    """What a task returns of its argument is equal, and of the same type."""
    found = ray.get(same.remote(value))

    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "dtype", ["int8", "uint16", "float16", "float64", "complex128", "bool", "U5"]
)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (300, 301)], ids=str)
def test_arrays(dtype, shape) -> None:
    """Arrays of each type and shape come back equal."""
    array = np.ones(shape, dtype=dtype)
    found = ray.get(same.remote(array))

    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert (found == array).all()


def test_arrays_of_another_order() -> None:
    """Fortran order and strides are kept or made plain; values are the same."""
    for array in (np.asfortranarray(np.arange(6).reshape(2, 3)), np.arange(10)[::2]):
        assert (ray.get(same.remote(array)) == array).all()


def test_arrays_of_objects() -> None:
    """They are pickled as a whole."""
    array = np.array([1, "a", None], dtype=object)

    assert list(ray.get(same.remote(array))) == [1, "a", None]


def test_structured_arrays() -> None:
    """Their fields stay."""
    array = np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])

    assert ray.get(same.remote(array))["b"][0] == 2.0


def test_a_value_that_contains_itself() -> None:
    """Cycles are kept."""
    value = []
    value.append(value)
    found = ray.get(same.remote(value))

    assert found[0] is found


def test_slots_and_reduce() -> None:
    """Objects with slots, and with a ``__reduce__`` of their own."""
    assert ray.get(same.remote(Slots(4))).x == 4
    assert ray.get(ray.put(Reduced(1))).x == 2


def test_functions_as_values() -> None:
    """Lambdas, closures, partials and bound methods can be passed and called."""
    number = 3

    @ray.remote
    def call(function, *args):
        return function(*args)

    assert ray.get(call.remote(lambda x: x + number, 1)) == 4
    assert ray.get(call.remote(functools.partial(pow, 2), 5)) == 32
    assert ray.get(call.remote([1, 2, 2].count, 2)) == 2


def test_classes_defined_in_a_function() -> None:
    """A local class goes along; an instance that comes back is of the driver's class."""

    class Local:
        def __init__(self, x):
            self.x = x

    found = ray.get(same.remote(Local(5)))
    assert found.x == 5
    assert isinstance(found, Local)


def test_generators_cannot_be_passed() -> None:
    """A generator is a TypeError."""
    with pytest.raises(TypeError):
        same.remote(x for x in [1])


def test_a_module_in_a_closure() -> None:
    """A function may use modules that the driver has imported."""
    import math as mathematics

    @ray.remote
    def f():
        return mathematics.floor(2.5)

    assert ray.get(f.remote()) == 2


def test_a_global_of_the_module() -> None:
    """A function sees the globals of its module."""

    @ray.remote
    def f():
        return Color.RED, Point(1, 2)

    assert ray.get(f.remote()) == (Color.RED, Point(1, 2))


def test_a_function_that_was_defined_again() -> None:
    """A new function of the same name is another one."""

    def make(number):
        @ray.remote
        def f():
            return number

        return f

    assert ray.get([make(1).remote(), make(2).remote()]) == [1, 2]


def test_handles_and_references_in_values() -> None:
    """They work wherever they come out."""

    @ray.remote
    class Actor:
        def go(self):
            return 1

    @ray.remote
    def use(value):
        return ray.get([value["actor"].go.remote(), value["refs"][0]])

    assert ray.get(use.remote({"actor": Actor.remote(), "refs": [ray.put(2)]})) == [1, 2]


def test_a_remote_function_in_a_value() -> None:
    """Remote functions and actor classes can be passed."""

    @ray.remote
    class Actor:
        def go(self):
            return 1

    @ray.remote
    def use(function, cls):
        return ray.get([function.remote(5), cls.remote().go.remote()])

    assert ray.get(use.remote(same, Actor)) == [5, 1]


def test_cloudpickle_is_there() -> None:
    """``ray.cloudpickle`` pickles lambdas."""
    assert ray.cloudpickle.loads(ray.cloudpickle.dumps(lambda x: x + 1))(1) == 2


def test_what_cannot_be_pickled_is_the_tasks_error() -> None:
    """A task that returns such a thing fails, and the next one runs."""

    @ray.remote
    def f():
        return threading.Lock()

    with pytest.raises(Exception, match=r"lock"):
        ray.get(f.remote())
    assert ray.get(same.remote(1)) == 1


def test_bytes_of_some_megabytes() -> None:
    """Large bytes and texts come back."""
    for value in (b"x" * 3_000_000, "y" * 3_000_000, bytearray(2_000_000)):
        assert ray.get(same.remote(value)) == value


def test_a_large_list_of_small_values() -> None:
    """A list of many numbers."""
    assert ray.get(same.remote(list(range(200_000)))) == list(range(200_000))


def test_many_references_in_one_value() -> None:
    """A value of a thousand references."""
    refs = [ray.put(i) for i in range(1000)]

    assert ray.get(ray.get(ray.put(refs))) == list(range(1000))


def test_a_serializer_of_ones_own() -> None:
    """``register_serializer`` is used for what could not be pickled, until it is deregistered."""

    class Locked:
        def __init__(self, x):
            self.x = x
            self.lock = threading.Lock()

    @ray.remote
    def look(values):
        return values[0].x

    with pytest.raises(TypeError):
        ray.put(Locked(1))
    ray.util.register_serializer(
        Locked, serializer=lambda value: value.x, deserializer=lambda x: Locked(x)
    )
    assert ray.get(ray.put(Locked(4))).x == 4
    assert ray.get(look.remote([Locked(5)])) == 5
    ray.util.deregister_serializer(Locked)
    with pytest.raises(TypeError):
        ray.put(Locked(1))


def test_inspect_serializability_of_a_function() -> None:
    """It names the variable that cannot be pickled, and what has it."""
    lock = threading.Lock()

    def f():
        return lock

    good, failures = ray.util.inspect_serializability(f, name="f", print_file=io.StringIO())
    (failure,) = failures
    assert not good
    assert failure.obj is lock
    assert failure.parent is f
    assert failure.path == ("f", "lock")


def test_inspect_serializability_of_an_object() -> None:
    """It names the attribute."""

    class Holder:
        def __init__(self):
            self.held = threading.Lock()

    holder = Holder()
    good, failures = ray.util.inspect_serializability(holder, name="h", print_file=io.StringIO())
    (failure,) = failures
    assert not good
    assert failure.obj is holder.held
    assert failure.path == ("h", "held")


def test_inspect_serializability_of_what_is_good() -> None:
    """It is true, and there are no failures."""
    found = ray.util.inspect_serializability([1], name="one", print_file=io.StringIO())

    assert found == (True, set())
