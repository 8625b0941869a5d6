"""References: identity, lifetime, pickling, and that objects nobody holds are freed."""

from __future__ import annotations

import gc
import pickle
import time
from typing import Any

import pytest

import zray
from tests.api.conftest import eventually, objects

pytestmark = pytest.mark.usefixtures("cluster")


@zray.remote
def make(size: int = 1, seconds: float = 0.0) -> bytes:
    time.sleep(seconds)
    return bytes(size)


@pytest.fixture
def frees() -> Any:
    """All objects made in the test are freed after it."""
    before = objects()
    yield
    eventually(lambda: objects() <= before, 5)


def test_identity() -> None:
    a, b = make.remote(), make.remote()
    same = pickle.loads(pickle.dumps(a))
    assert a == same and hash(a) == hash(same) and a != b and a != a.id
    assert {a: 1, b: 2}[same] == 1
    assert a.hex() == a.id.hex() == a.binary().hex() and a.task_id().binary() == a.id[:16]


def test_repr_tells_the_state() -> None:
    @zray.remote
    def fail() -> None:
        raise ValueError

    slow, failing, put = make.remote(1, 0.3), fail.remote(), zray.put(1)
    assert repr(slow) == f"ObjectRef({slow.hex()}, pending)"
    zray.wait([failing, slow], num_returns=2)
    assert "ready" in repr(slow) and "ready" in repr(put) and "failed" in repr(failing)


@pytest.mark.usefixtures("frees")
@pytest.mark.parametrize("size", [1, 200_000])
def test_dropped_before_and_after_the_result(size: int) -> None:
    kept = [make.remote(size, 0.05) for _ in range(4)]
    for _ in range(50):
        make.remote(size)
    assert sum(len(value) for value in zray.get(kept)) == 4 * size


@pytest.mark.usefixtures("frees")
def test_tasks_without_returns_leave_nothing() -> None:
    @zray.remote(num_returns=0)
    def nothing() -> None: ...

    for _ in range(20):
        nothing.remote()
    zray.get([make.remote() for _ in range(4)])


@pytest.mark.usefixtures("frees")
def test_arguments_and_intermediate_results_are_freed() -> None:
    @zray.remote
    def size(data: bytes, box: list[Any]) -> int:
        return len(data) + len(zray.get(box[0]))

    total = zray.get([size.remote(make.remote(5000), [zray.put(bytes(5000))]) for _ in range(20)])
    assert total == [10_000] * 20


@pytest.mark.usefixtures("frees")
def test_results_that_contain_references_are_freed() -> None:
    @zray.remote
    def tree(depth: int) -> list[Any]:
        return [zray.put(bytes(10_000)), *([tree.remote(depth - 1)] if depth else [])]

    refs = [tree.remote(3) for _ in range(5)]
    for ref in refs:
        value = zray.get(ref)
        while len(value) == 2:
            assert len(zray.get(value[0])) == 10_000
            value = zray.get(value[1])
    del refs, ref, value


@pytest.mark.usefixtures("frees")
def test_puts_of_puts_are_freed() -> None:
    ref: Any = zray.put(bytes(10_000))
    for _ in range(10):
        ref = zray.put([ref])

    @zray.remote
    def unpack(value: Any) -> int:
        while isinstance(value, list):
            value = zray.get(value[0])
        return len(value)

    assert zray.get(unpack.remote(ref)) == 10_000


def test_a_reference_pickled_elsewhere_keeps_its_object() -> None:
    data = pickle.dumps(make.remote(3))
    zray.get([make.remote() for _ in range(5)])
    gc.collect()
    assert zray.get(pickle.loads(data)) == bytes(3)


def test_a_put_pickled_elsewhere_keeps_its_object() -> None:
    @zray.remote
    def load(data: bytes) -> Any:
        return zray.get(pickle.loads(data))

    assert zray.get(load.remote(pickle.dumps(zray.put("kept")))) == "kept"
