"""Large values on one node: no copy for readers, memory reused but never under a reader's hands."""

from __future__ import annotations

import gc
import os
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest

import zray
from tests import shared_memory
from tests.api.conftest import eventually, shares_memory
from zray.runtime import session

MB = 1_000_000
SEED = 20_261


class Frame:
    """A container of arrays, as data frames are."""

    def __init__(self, columns: dict[str, Any], index: Any) -> None:
        self.columns = columns
        self.index = index

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Frame)
        same = all((self.columns[name] == other.columns[name]).all() for name in self.columns)
        return same and list(self.index) == list(other.index)


@pytest.fixture(scope="module", autouse=True)
def _leaves_no_memory() -> Iterator[None]:
    with shared_memory.unchanged():
        yield
        gc.collect()


@pytest.fixture(scope="module")
def node(_leaves_no_memory: None, cluster: None) -> Iterator[None]:
    """A node with two CPUs that shares memory with this process."""
    yield


def array(megabytes: float, fill: float = 1.0) -> Any:
    return np.full(int(megabytes * MB) // 8, fill)


def node_rss() -> int:
    """Memory of all processes below this one, what they share counted once."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total


VALUES: dict[str, Any] = {
    "C order": np.arange(300_000).reshape(300, 1000),
    "F order": np.asfortranarray(np.arange(300_000.0).reshape(300, 1000)),
    "strided": np.arange(600_000)[::2],
    "column": np.arange(600_000).reshape(1000, 600)[:, 5:300],
    "structured": np.zeros(50_000, dtype=[("a", "<i4"), ("b", "<f8")]),
    "empty axis": np.zeros((0, 5)),
    "bytes": bytes(range(256)) * 4000,
    "bytearray": bytearray(b"\x07" * 500_000),
    "text": "\N{SNOWMAN}" * 200_000,
    "several": {"x": np.ones(100_000), "y": [np.zeros(50_000, np.int8), b"z" * 200_000]},
    "frame": Frame({"a": np.arange(100_000), "b": np.ones(100_000, np.float32)}, range(100_000)),
}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all())
    if isinstance(one, dict):
        return all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return all(map(same, one, other))
    return bool(one == other) and type(one) is type(other)


@pytest.mark.parametrize("name", VALUES)
def test_values_of_every_kind_come_back_equal(node: None, name: str) -> None:
    value = VALUES[name]

    @zray.task
    def echo(given: Any) -> Any:
        return given

    @zray.task
    def through_another(given: list[Any]) -> Any:
        return zray.get(echo.remote(given[0]))

    stored = zray.put(value)
    assert same(value, zray.get(stored))
    for ref in (echo.remote(stored), echo.remote(value), through_another.remote([stored])):
        assert same(value, zray.get(ref, timeout=30))


def test_memory_order_is_kept(node: None) -> None:
    for order in "CF":
        value = np.array(np.arange(120_000.0).reshape(300, 400), order=order)  # type: ignore[call-overload]
        found = zray.get(zray.put(value))
        assert found.flags[f"{order}_CONTIGUOUS"] and (found == value).all()


def test_a_bytearray_is_ones_own(node: None) -> None:
    ref = zray.put(bytearray(500_000))
    first = zray.get(ref)
    first[0] = 1
    assert zray.get(ref)[0] == 0


def test_get_is_a_read_only_view_of_one_memory(node: None) -> None:
    ref = zray.put(np.arange(5 * MB))
    first = zray.get(ref)
    assert not first.flags.writeable
    with pytest.raises(ValueError):
        first[0] = 1
    before = psutil.Process().memory_full_info().uss
    kept = [zray.get(ref) for _ in range(20)]
    assert psutil.Process().memory_full_info().uss - before < 5 * MB
    assert {value.ctypes.data for value in kept} == {first.ctypes.data}
    assert shared_memory.maps(first.ctypes.data)
    assert first[-1] == 5 * MB - 1


def test_all_tasks_share_the_memory_of_an_argument(node: None) -> None:
    @zray.task
    def look(value: Any) -> tuple[int, float, str]:
        with open("/proc/self/maps") as lines:
            address = value.ctypes.data
            for line in lines:
                begin, end = (int(part, 16) for part in line.split()[0].split("-"))
                if begin <= address < end:
                    return value.flags.writeable, float(value[-1]), line.split(maxsplit=5)[-1]
        return value.flags.writeable, float(value[-1]), ""

    ref = zray.put(array(80, 3.0))
    for writeable, last, where in zray.get([look.remote(ref) for _ in range(10)], timeout=30):
        assert not writeable and last == 3.0 and where.startswith(shared_memory.SEGMENT)


def test_large_arguments_by_value_are_shared_not_sent(node: None) -> None:
    class Kept:
        def __init__(self, value: Any) -> None:
            self.value = value

        def look(self, value: Any, scale: int = 1) -> tuple[bool, bool, float]:
            shared = [shared_memory.maps(each.ctypes.data) for each in (self.value, value)]
            return all(shared), value.flags.writeable, float(value[-1] + self.value[-1]) * scale

    @zray.task
    def look(value: Any, first: int) -> tuple[bool, bool, float]:
        shared = bool(shared_memory.maps(value.ctypes.data))
        return shared, value.flags.writeable, float(value[-1]) + first

    value, one = array(8, 3.0), zray.put(1)
    assert zray.get([look.remote(value, one) for _ in range(4)]) == [(True, False, 4.0)] * 4
    actor = zray.remote(Kept).remote(array(8, 4.0))
    calls = [actor.look.remote(value, scale=one) for _ in range(4)]
    assert zray.get(calls) == [(True, False, 7.0)] * 4
    value[:] = 5.0  # the caller's own, as ever
    assert zray.get(actor.look.remote(value)) == (True, False, 9.0)


def test_an_actor_keeps_and_returns_arrays(node: None) -> None:
    @zray.actor
    class Holder:
        def __init__(self, value: Any) -> None:
            self.value = value

        def swap(self, value: Any) -> Any:
            self.value, before = value, self.value
            return before

        def sums(self, refs: list[Any]) -> list[float]:
            return [float(value.sum()) for value in zray.get(refs)]

    holder = Holder.remote(array(1, 1.0))
    assert zray.get(holder.swap.remote(zray.put(array(2, 2.0))), timeout=30)[-1] == 1.0
    assert zray.get(holder.swap.remote(array(1, 3.0)))[-1] == 2.0
    refs = [zray.put(array(1, fill)) for fill in (4.0, 5.0)]
    assert zray.get(holder.sums.remote(refs)) == [500_000.0, 625_000.0]
    last = holder.swap.remote(0)
    assert zray.get(holder.sums.remote([last, *refs])) == [375_000.0, 500_000.0, 625_000.0]


def test_references_inside_large_values_keep_what_they_refer_to(node: None) -> None:
    @zray.task
    def make() -> list[Any]:
        return [zray.put(array(1, 7.0)), array(1, 8.0)]

    @zray.task
    def total(boxes: list[Any]) -> float:
        inner, values = zray.get(boxes[0])
        return float(zray.get(inner)[0] + values[0])

    outer = zray.put([zray.put(array(1, 5.0)), array(1, 6.0)])
    gc.collect()
    inner, values = zray.get(outer)
    assert zray.get(inner)[-1] == 5.0 and values[-1] == 6.0
    del inner, values
    assert zray.get(total.remote([outer]), timeout=30) == 11.0
    assert zray.get(total.remote([make.remote()]), timeout=30) == 15.0


# ---- reuse -----------------------------------------------------------------------------------


def stays_as_it_is(read: Any, seed: int) -> bool:
    """Whether arrays read before keep their content through 1000 puts, their references gone."""
    draw = random.Random(seed)
    first, second = read(1.0), read(2.0)
    part = second[1000:2000:7]
    del second
    for number in range(1000):
        zray.put(np.full(draw.randrange(70_000, 2_000_000) // 8, 1000.0 + number))
    return bool((first == 1.0).all() and (part == 2.0).all())


@pytest.mark.slow_limit(120)
def test_an_array_in_use_is_never_overwritten(node: None) -> None:
    check = stays_as_it_is  # by value: workers cannot import this module

    def own(fill: float) -> Any:
        return zray.get(zray.put(np.full(200_000, fill)))

    @zray.task
    def make(fill: float) -> Any:
        return np.full(200_000, fill)

    def made(fill: float) -> Any:
        return zray.get(make.remote(fill))

    @zray.task
    def in_task(reads: list[Any]) -> list[bool]:
        return [check(read, SEED) for read in reads]

    @zray.actor
    class Reader:
        def read(self, reads: list[Any]) -> list[bool]:
            return [check(read, SEED) for read in reads]

        def keep(self, value: Any) -> None:
            self.value = value[5:]

        def kept(self) -> bool:
            return bool((self.value == 9.0).all())

    reader = Reader.remote()
    zray.get(reader.keep.remote(np.full(300_000, 9.0)), timeout=30)
    assert stays_as_it_is(own, SEED) and stays_as_it_is(made, SEED)
    assert zray.get(in_task.remote([own, made]), timeout=60) == [True, True]
    assert zray.get(reader.read.remote([own, made]), timeout=60) == [True, True]
    assert zray.get(reader.kept.remote())


def test_memory_of_what_was_dropped_is_used_again(node: None) -> None:
    value = array(10)
    for _ in range(50):
        zray.put(value)
    before = shared_memory.segment_bytes()
    for _ in range(1000):
        zray.put(value)
    assert shared_memory.segment_bytes() - before < 100 * MB


def test_results_that_were_dropped_leave_no_memory_behind(node: None) -> None:
    @zray.task
    def make() -> Any:
        return np.ones(10 * MB // 8)

    def rounds(count: int) -> None:
        for _ in range(count):
            zray.get([make.remote() for _ in range(4)], timeout=30)

    rounds(5)
    before = shared_memory.segment_bytes()
    rounds(40)
    assert shared_memory.segment_bytes() - before < 150 * MB


def test_many_objects_need_few_descriptors(node: None) -> None:
    processes = psutil.Process().children(recursive=True)
    before = sum(len(shared_memory.descriptors(p.pid)) for p in processes)
    kept = [zray.put(np.full(MB // 8, float(i))) for i in range(300)]
    values = zray.get(kept)
    assert [value[0] for value in values] == [float(i) for i in range(300)]
    here = os.getpid()
    assert not shared_memory.descriptors(here)
    assert len(shared_memory.mappings(here)) < 20
    processes = psutil.Process().children(recursive=True)
    after = sum(len(shared_memory.descriptors(p.pid)) for p in processes)
    assert after - before < 10


# ---- what user code may do -----------------------------------------------------------------


def test_a_forked_child_has_no_part_in_it(node: None) -> None:
    ref = zray.put(array(1, 5.0))
    value = zray.get(ref)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            code = 0 if value[0] == 5.0 and not zray.is_initialized() else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert zray.get(ref)[-1] == 5.0
    assert zray.get(zray.put(array(1, 6.0)))[-1] == 6.0


def test_a_child_that_lives_on_does_not_keep_the_session(node: None) -> None:
    assert shares_memory()
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        os.write(ready[1], b"%d" % len(_sockets(os.getpid())))
        os.read(go[0], 1)
        os._exit(0)
    try:
        link = session.current()._store.link
        in_child = int(os.read(ready[0], 16))
        assert in_child < len(_sockets(os.getpid()))
        assert link.fileno() >= 0
    finally:
        os.write(go[1], b".")
        os.waitpid(pid, 0)
        for fd in (*ready, *go):
            os.close(fd)


def _sockets(pid: int) -> list[str]:
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if target.startswith("socket:"):
            found.append(target)
    return found


@pytest.mark.slow_limit(90)
def test_many_threads_put_and_get_at_once(node: None) -> None:
    @zray.task
    def twice(value: Any) -> Any:
        return value * 2

    wrong: list[str] = []
    until = time.monotonic() + 10

    def work(number: int) -> None:
        draw = random.Random(number)
        kept: list[tuple[Any, float]] = []
        try:
            while time.monotonic() < until:
                fill = draw.random()
                ref = zray.put(np.full(draw.randrange(9_000, 400_000), fill))
                if draw.random() < 0.2:
                    ref, fill = twice.remote(ref), 2 * fill
                kept.append((zray.get(ref, timeout=30), fill))
                if len(kept) > 10:
                    value, expected = kept.pop(draw.randrange(10))
                    if not (value == expected).all():
                        wrong.append(f"thread {number}: {expected}")
        except BaseException as error:
            wrong.append(f"thread {number}: {error!r}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_interrupted_put_leaves_nothing(node: None) -> None:
    import _thread

    value = array(300)
    before = shared_memory.segment_bytes()
    interrupted = 0
    for delay in (0.001, 0.01, 0.03, 0.05, 0.02, 0.04):
        timer = threading.Timer(delay, _thread.interrupt_main)
        timer.start()
        try:
            ref = zray.put(value)
            del ref
            timer.join()
            time.sleep(0.5)  # for the interrupt, where the put was faster
        except KeyboardInterrupt:
            interrupted += 1
    assert interrupted == 6
    assert zray.get(zray.put(array(1, 4.0)))[-1] == 4.0
    store = session.current()._store
    eventually(lambda: not store._arena.used_bytes or zray.put(1) is None, 10)
    assert shared_memory.segment_bytes() - before < 700 * MB


def test_a_result_that_cannot_be_told_leaves_nothing(node: None) -> None:
    @zray.task(num_returns=2)
    def bad() -> Any:
        return np.ones(10 * MB // 8), threading.Lock()

    before = shared_memory.segment_bytes()
    for _ in range(30):
        first, second = bad.remote()
        for ref in (first, second):
            with pytest.raises(TypeError):
                zray.get(ref, timeout=30)
    assert shared_memory.segment_bytes() - before < 100 * MB
