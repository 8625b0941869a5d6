"""Contracts of ``get``, ``put`` and ``wait``."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import ray
from ray.exceptions import GetTimeoutError

from tests.conformance.functions import fail, same, slow

pytestmark = pytest.mark.usefixtures("cluster")


@ray.remote
class Gate:
    """Opens when it is told to; who passes waits for that."""

    def __init__(self):
        self.is_open = False

    def open(self):
        self.is_open = True

    def is_it_open(self):
        return self.is_open


@ray.remote(num_cpus=0)
def behind(gate, value=None):
    while not ray.get(gate.is_it_open.remote()):
        time.sleep(0.02)
    return value


# ---- get -----------------------------------------------------------------------------------


def test_get_of_a_list_keeps_its_order() -> None:
    """Values come in the order of the references, and one may be there twice."""
    first, second = slow.remote(0.1, 1), same.remote(2)

    assert ray.get([first, second, first]) == [1, 2, 1]


def test_get_of_an_empty_list() -> None:
    """It is an empty list."""
    assert ray.get([]) == []


@pytest.mark.parametrize("value", [1, "text", None, (1, 2), {"a": 1}])
def test_get_of_no_reference_is_refused(value) -> None:
    """Anything but a reference or a list is a ValueError."""
    with pytest.raises(ValueError, match="'object_refs' must either be an ObjectRef or a list"):
        ray.get(value)


def test_get_of_a_tuple_is_refused() -> None:
    """A tuple of references is no list."""
    with pytest.raises(ValueError, match="'object_refs' must either be an ObjectRef or a list"):
        ray.get((ray.put(1),))


@pytest.mark.parametrize("value", [[1], ["text", None], [[1]]])
def test_get_of_a_list_of_something_else_is_refused(value) -> None:
    """A list of anything but references is a TypeError."""
    with pytest.raises(TypeError, match="Attempting to call `get` on the value"):
        ray.get(value)


def test_get_does_not_look_into_nested_lists() -> None:
    """A list of lists of references is a TypeError."""
    with pytest.raises(TypeError, match="Attempting to call `get` on the value"):
        ray.get([[ray.put(1)]])


def test_get_with_a_timeout_raises() -> None:
    """Past the timeout it is a GetTimeoutError, which is a TimeoutError."""
    gate = Gate.remote()
    ref = behind.remote(gate, 1)

    with pytest.raises(GetTimeoutError) as caught:
        ray.get(ref, timeout=0.1)
    assert isinstance(caught.value, TimeoutError)
    gate.open.remote()
    assert ray.get(ref, timeout=30) == 1


def test_get_with_no_time_asks_only() -> None:
    """``timeout=0`` gives what is there, and raises at once for what is not."""
    gate = Gate.remote()
    ref = behind.remote(gate)

    with pytest.raises(GetTimeoutError):
        ray.get(ref, timeout=0)
    assert ray.get(ray.put(3), timeout=0) == 3
    gate.open.remote()


def test_timeout_is_a_keyword() -> None:
    """``get(ref, 1)`` is a TypeError."""
    with pytest.raises(TypeError):
        ray.get(ray.put(1), 1)


def test_get_of_many_raises_as_soon_as_one_has_failed() -> None:
    """``get`` of a list does not wait for the others when one is known to have failed."""
    gate = Gate.remote()
    waiting = behind.remote(gate)
    failed = fail.remote()

    with pytest.raises(ValueError, match="failed"):
        ray.get([failed, waiting], timeout=20)
    gate.open.remote()


def test_get_raises_again_and_again() -> None:
    """The error of a task is raised by each ``get`` of it."""
    ref = fail.remote()

    for _ in range(3):
        with pytest.raises(ValueError, match="failed"):
            ray.get(ref)


def test_get_in_a_thread() -> None:
    """Any thread of a driver may submit and get."""
    found = []
    threads = [
        threading.Thread(target=lambda i=i: found.append(ray.get(same.remote(i)))) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(found) == list(range(8))


def test_get_in_a_task_frees_its_cpu() -> None:
    """Tasks that wait for others do not keep the CPUs that these need."""

    @ray.remote
    def outer(depth):
        return 1 if depth == 0 else 1 + ray.get(outer.remote(depth - 1))

    assert ray.get([outer.remote(6) for _ in range(2)], timeout=50) == [7, 7]


def test_each_get_of_a_small_value_is_a_copy() -> None:
    """What is done to one value is not seen in the next."""
    ref = ray.put([1])
    ray.get(ref).append(2)

    assert ray.get(ref) == [1]


def test_a_large_array_is_read_only() -> None:
    """Arrays of the object store cannot be written to; a copy can."""
    array = ray.get(ray.put(np.zeros(1_000_000)))

    assert not array.flags.writeable
    with pytest.raises(ValueError):
        array[0] = 1
    array.copy()[0] = 1


def test_arrays_are_aligned() -> None:
    """Arrays come back aligned to 64 bytes."""
    arrays = ray.get(ray.put([np.zeros(100_003, dtype=np.uint8), np.arange(100_001)]))

    assert [array.ctypes.data % 64 for array in arrays] == [0, 0]


def test_an_array_outlives_its_reference() -> None:
    """Its memory is not used again while it is there."""
    array = ray.get(ray.put(np.full(1_000_000, 7)))
    for _ in range(5):
        ray.put(np.zeros(1_000_000))

    assert (array == 7).all()


# ---- put -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        1 << 80,
        1.5,
        1j,
        "text",
        "\u2603",
        b"bytes",
        (1, (2, 3)),
        [1, [2]],
        {"a": {"b": 1}},
        {1, 2},
        frozenset([1]),
        slice(1, 2),
        range(3),
        Ellipsis,
        int,
    ],
    ids=repr,
)
def test_values_come_back(value) -> None:
    """What is put is what ``get`` gives."""
    found = ray.get(ray.put(value))

    assert found == value
    assert type(found) is type(value)


def test_a_reference_cannot_be_put() -> None:
    """``put`` of a reference is a TypeError; in a list it goes."""
    ref = ray.put(1)

    with pytest.raises(TypeError, match=r"Calling 'put' on an .*ObjectRef is not allowed"):
        ray.put(ref)
    assert ray.get(ray.get(ray.put([ref]))[0]) == 1


def test_what_cannot_be_pickled_cannot_be_put() -> None:
    """It is a TypeError."""
    with pytest.raises(TypeError, match="lock"):
        ray.put(threading.Lock())


def test_references_of_two_puts_differ() -> None:
    """Each put makes an object of its own."""
    assert ray.put(1) != ray.put(1)


def test_a_reference_lives_as_long_as_what_contains_it() -> None:
    """An object stays while a reference to it is inside of another object."""
    outer = ray.put([ray.put(np.full(200_000, 3))])
    time.sleep(0.2)

    assert ray.get(ray.get(outer)[0])[0] == 3


# ---- wait ----------------------------------------------------------------------------------


def test_wait_gives_ready_and_unready() -> None:
    """Both lists together are the given references."""
    gate = Gate.remote()
    later, now = behind.remote(gate, 1), same.remote(2)

    assert ray.wait([later, now]) == ([now], [later])
    gate.open.remote()
    assert ray.wait([later], timeout=30) == ([later], [])


def test_wait_gives_no_more_than_asked_for() -> None:
    """At most ``num_returns`` are ready; the rest stays, though it is there."""
    refs = [ray.put(i) for i in range(4)]

    for number in (1, 3):
        ready, others = ray.wait(refs, num_returns=number)
        assert len(ready) == number
        assert {*ready, *others} == {*refs}


def test_wait_keeps_the_order() -> None:
    """Ready references stand in the order in which they were given."""
    first, second = slow.remote(0.3, 1), same.remote(2)

    assert ray.wait([first, second], num_returns=2) == ([first, second], [])


def test_wait_with_a_timeout_gives_what_there_is() -> None:
    """Past the timeout there may be fewer than ``num_returns``."""
    gate = Gate.remote()
    later, now = behind.remote(gate), ray.put(1)

    assert ray.wait([later, now], num_returns=2, timeout=0.2) == ([now], [later])
    assert ray.wait([later], timeout=0) == ([], [later])
    gate.open.remote()


def test_wait_of_nothing() -> None:
    """An empty list gives two empty lists."""
    assert ray.wait([]) == ([], [])


def test_a_failed_task_is_ready() -> None:
    """``wait`` does not raise what the task raised."""
    ref = fail.remote()

    assert ray.wait([ref], timeout=30) == ([ref], [])


@pytest.mark.parametrize("refs", [1, (), "text", None])
def test_wait_of_no_list_is_refused(refs) -> None:
    """Anything but a list is a TypeError."""
    with pytest.raises(TypeError):
        ray.wait(refs)


def test_wait_of_one_reference_is_refused() -> None:
    """A single reference is a TypeError."""
    with pytest.raises(TypeError, match=r"wait\(\) expected a list of ray\.ObjectRef"):
        ray.wait(ray.put(1))


def test_wait_of_something_else_in_a_list_is_refused() -> None:
    """A list with anything but references is a TypeError."""
    with pytest.raises(TypeError, match=r"wait\(\) expected a list of ray\.ObjectRef"):
        ray.wait([ray.put(1), 2])


def test_wait_of_one_reference_twice_is_refused() -> None:
    """It is a ValueError."""
    ref = ray.put(1)

    with pytest.raises(ValueError, match="Wait requires a list of unique"):
        ray.wait([ref, ref])


@pytest.mark.parametrize("count", [0, -1, 2])
def test_wait_for_a_number_that_cannot_be_is_refused(count) -> None:
    """``num_returns`` is from 1 to the number of references."""
    with pytest.raises(ValueError):
        ray.wait([ray.put(1)], num_returns=count)


def test_wait_with_a_negative_timeout_is_refused() -> None:
    """It is a ValueError."""
    with pytest.raises(ValueError, match="'timeout' argument must be nonnegative"):
        ray.wait([ray.put(1)], timeout=-1)


def test_wait_takes_fetch_local() -> None:
    """``fetch_local=False`` is about where the value is; what is made is ready."""
    ref = same.remote(1)

    assert ray.wait([ref], timeout=30, fetch_local=False) == ([ref], [])


def test_wait_in_a_loop_takes_all() -> None:
    """The usual loop over ``wait`` sees each reference once."""
    left = [slow.remote(0.01 * (i % 3), i) for i in range(12)]
    seen = []
    while left:
        ready, left = ray.wait(left)
        seen += ray.get(ready)

    assert sorted(seen) == list(range(12))


def test_wait_does_not_change_the_list() -> None:
    """The list that is given stays as it is."""
    refs = [ray.put(1), ray.put(2)]
    before = [*refs]
    ray.wait(refs)

    assert refs == before
