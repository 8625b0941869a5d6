"""Contracts of ``ray.util.multiprocessing.Pool``."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from ray.util.multiprocessing import JoinableQueue, Pool, TimeoutError

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def pool(cluster: None) -> Iterator[Pool]:
    """One of two processes, for tests that do not end it."""
    with Pool(processes=2) as pool:
        yield pool


def double(x):
    return 2 * x


def add(x, y=10, *, z=0):
    return x + y + z


def fail(*_):
    raise KeyError("mine")


def fail_at_three(x):
    if x == 3:
        raise ValueError(f"not {x}")
    return x


def nap(seconds):
    time.sleep(seconds)
    return seconds


def pid(*_):
    time.sleep(0.02)
    return os.getpid()


# ---- single calls --------------------------------------------------------------------------


def test_apply_returns_the_result(pool) -> None:
    """With positional and keyword arguments, or none."""
    assert pool.apply(double, (3,)) == 6
    assert pool.apply(add, (1,), {"z": 5}) == 16
    assert pool.apply(add, args=(1, 2)) == 3
    assert pool.apply(dict) == {}


def test_apply_raises_what_was_raised(pool) -> None:
    """As its own type."""
    with pytest.raises(KeyError, match="mine"):
        pool.apply(fail)


def test_apply_of_a_lambda_with_a_closure(pool) -> None:
    """Functions need not be importable."""
    offset = 5
    assert pool.apply(lambda x: x + offset, (1,)) == 6


def test_apply_async_is_there_later(pool) -> None:
    """``ready`` and ``wait`` say when."""
    result = pool.apply_async(nap, (0.5,))
    assert not result.ready()
    result.wait(0.05)
    assert not result.ready()
    result.wait()
    assert result.ready()
    assert result.successful()
    assert result.get() == 0.5


def test_successful_before_it_is_there(pool) -> None:
    """It is a ValueError to ask."""
    result = pool.apply_async(nap, (0.5,))
    with pytest.raises(ValueError, match="not ready"):
        result.successful()
    result.get()


def test_get_with_a_timeout(pool) -> None:
    """Too late is multiprocessing's own TimeoutError, and the result comes all the same."""
    result = pool.apply_async(nap, (0.8,))
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(timeout=0.05)
    assert TimeoutError is multiprocessing.TimeoutError
    assert result.get(timeout=20) == 0.8


def test_a_failed_result(pool) -> None:
    """It is ready, not successful, and raises each time."""
    result = pool.apply_async(fail)
    result.wait(20)
    assert not result.successful()
    for _ in range(2):
        with pytest.raises(KeyError):
            result.get()


def test_callback_of_a_result(pool) -> None:
    """It gets the result, in another thread."""
    got = []
    done = threading.Event()
    result = pool.apply_async(double, (4,), callback=lambda value: (got.append(value), done.set()))
    assert result.get() == 8
    assert done.wait(20)
    assert got == [8]


def test_error_callback(pool) -> None:
    """It is called where the call raised, and the other one is not."""
    got, wrong = [], []
    done = threading.Event()

    def note(error):
        got.append(error)
        done.set()

    result = pool.apply_async(fail, callback=wrong.append, error_callback=note)
    assert done.wait(20)
    result.wait(20)
    assert len(got) == 1
    assert isinstance(got[0], Exception)
    assert not wrong


# ---- maps ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 7, 100])
def test_map_keeps_the_order(pool, count) -> None:
    """For any number of items."""
    assert pool.map(double, range(count)) == [2 * x for x in range(count)]


@pytest.mark.parametrize("chunksize", [1, 3, 50])
def test_map_in_chunks(pool, chunksize) -> None:
    """The size of the chunks changes no result."""
    assert pool.map(double, range(20), chunksize=chunksize) == [2 * x for x in range(20)]


def test_map_of_an_iterator(pool) -> None:
    """It need not have a length."""
    assert pool.map(double, iter(range(10))) == [2 * x for x in range(10)]


def test_map_uses_all_processes(pool) -> None:
    """And no others than the pool has."""
    pids = pool.map(pid, range(20), chunksize=1)
    assert len(set(pids)) == 2
    assert os.getpid() not in pids


def test_map_raises(pool) -> None:
    """What an item raised."""
    with pytest.raises(ValueError, match="not 3"):
        pool.map(fail_at_three, range(6))


def test_the_other_chunks_of_a_map_run_all_the_same(pool, tmp_path: Path) -> None:
    """An error keeps no other chunk from being run."""

    def touch(x):
        (tmp_path / str(x)).touch()
        if x == 0:
            raise ValueError

    with pytest.raises(ValueError):
        pool.map(touch, range(6), chunksize=1)
    assert {path.name for path in tmp_path.iterdir()} == {*map(str, range(6))}


def test_map_async(pool) -> None:
    """With a callback that gets all results, once."""
    got = []
    done = threading.Event()
    result = pool.map_async(
        double, range(5), callback=lambda values: (got.append(values), done.set())
    )
    assert result.get(timeout=20) == [0, 2, 4, 6, 8]
    assert done.wait(20)
    assert [sorted(values) for values in got] == [[0, 2, 4, 6, 8]]


def test_map_async_that_fails(pool) -> None:
    """The error callback is called once."""
    got, wrong = [], []
    done = threading.Event()
    result = pool.map_async(
        fail,
        range(6),
        chunksize=1,
        callback=wrong.append,
        error_callback=lambda error: (got.append(error), done.set()),
    )
    with pytest.raises(KeyError):
        result.get(timeout=20)
    assert done.wait(20)
    assert len(got) == 1
    assert not wrong
    assert not result.successful()


def test_starmap(pool) -> None:
    """Each item is the arguments of a call."""
    assert pool.starmap(add, [(1, 2), (3, 4), (5,)]) == [3, 7, 15]
    assert pool.starmap(add, zip(range(3), range(3), strict=True), chunksize=2) == [0, 2, 4]


def test_starmap_async(pool) -> None:
    """The same later."""
    assert pool.starmap_async(add, [(1, 2), (3, 4)]).get(timeout=20) == [3, 7]


def test_large_items_and_results(pool) -> None:
    """Arrays go there and back."""
    import numpy as np

    arrays = [np.full(200_000, i, dtype=float) for i in range(4)]
    doubled = pool.map(double, arrays, chunksize=1)
    assert [float(array[-1]) for array in doubled] == [0.0, 2.0, 4.0, 6.0]


# ---- lazy ones -----------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_imap_keeps_the_order(pool, chunksize) -> None:
    """Of a list and of an iterator."""
    assert [*pool.imap(double, [*range(10)], chunksize)] == [2 * x for x in range(10)]
    assert [*pool.imap(double, iter(range(10)), chunksize)] == [2 * x for x in range(10)]


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_imap_unordered_has_all(pool, chunksize) -> None:
    """In whatever order."""
    assert sorted(pool.imap_unordered(double, iter(range(10)), chunksize)) == [
        2 * x for x in range(10)
    ]


def test_imap_of_nothing(pool) -> None:
    """It ends at once."""
    assert [*pool.imap(double, iter([]))] == []
    assert [*pool.imap_unordered(double, iter([]))] == []


def test_imap_unordered_gives_the_first_that_is_there(pool) -> None:
    """A slow item holds nobody up."""
    assert next(pool.imap_unordered(nap, iter([1.5, 0.01]))) == 0.01


def test_imap_is_lazy(pool) -> None:
    """Of an iterator without end it reads a part, and more as results are taken."""
    read = []

    def items():
        for i in itertools.count():
            read.append(i)
            yield i

    results = pool.imap(double, items())
    assert [next(results) for _ in range(10)] == [2 * x for x in range(10)]
    assert len(read) < 100


def test_imap_with_a_timeout(pool) -> None:
    """Too late is a TimeoutError, and the result comes all the same."""
    results = pool.imap(nap, iter([0.8, 0.01]))
    with pytest.raises(multiprocessing.TimeoutError):
        results.next(timeout=0.05)
    assert [results.next(timeout=20), results.next(timeout=20)] == [0.8, 0.01]
    with pytest.raises(StopIteration):
        results.next(timeout=20)


# ---- processes -----------------------------------------------------------------------------


def test_the_initializer_runs_in_each_process() -> None:
    """Before the first call, with its arguments."""

    def prepare(value):
        os.environ["PREPARED"] = value

    def prepared(_):
        time.sleep(0.02)
        return os.environ["PREPARED"], os.getpid()

    with Pool(2, initializer=prepare, initargs=("yes",)) as pool:
        seen = pool.map(prepared, range(12), chunksize=1)
    assert {value for value, _ in seen} == {"yes"}
    assert len({process for _, process in seen}) == 2


def test_a_process_keeps_its_state() -> None:
    """What a call leaves in the process is there for the next one."""

    def keep(value):
        os.environ["KEPT"] = value

    def kept():
        return os.environ["KEPT"]

    with Pool(1) as pool:
        pool.apply(keep, ("1",))
        assert pool.apply(kept) == "1"


def test_maxtasksperchild() -> None:
    """A process runs so many chunks at most."""
    with Pool(2, maxtasksperchild=2) as pool:
        pids = pool.map(pid, range(8), chunksize=1)
    assert all(pids.count(process) <= 2 for process in pids)
    assert len(set(pids)) >= 4


def test_more_processes_than_there_are_cpus() -> None:
    """It is refused."""
    with pytest.raises(ValueError):
        Pool(100)


@pytest.mark.parametrize("processes", [0, -1])
def test_no_processes(processes) -> None:
    """It is refused."""
    with pytest.raises(ValueError):
        Pool(processes)


def test_processes_default_to_the_cpus() -> None:
    """Of the cluster."""
    with Pool() as pool:
        assert len(set(pool.map(pid, range(60), chunksize=1))) == 4


def test_ray_remote_args(cluster: None) -> None:
    """They are options of the actors."""
    with Pool(1, ray_remote_args={"num_cpus": 3}) as pool:
        assert pool.apply(double, (1,)) == 2
        deadline = time.monotonic() + 20
        while ray.available_resources().get("CPU", 0) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)


# ---- its end -------------------------------------------------------------------------------


def test_after_close() -> None:
    """No call is taken; those that were are done, and ``join`` waits for them."""
    pool = Pool(2)
    result = pool.map_async(nap, [0.3] * 4, chunksize=1)
    pool.close()
    for refused in (
        lambda: pool.apply(double, (1,)),
        lambda: pool.apply_async(double, (1,)),
        lambda: pool.map(double, [1]),
        lambda: pool.starmap(add, [(1, 2)]),
        lambda: pool.imap(double, [1]),
        lambda: pool.imap_unordered(double, [1]),
    ):
        with pytest.raises(ValueError, match="Pool not running"):
            refused()
    pool.join()
    assert result.get(timeout=20) == [0.3] * 4


def test_join_before_close() -> None:
    """It is refused."""
    with Pool(1) as pool, pytest.raises(ValueError, match="still running"):
        pool.join()


def test_terminate_does_not_wait() -> None:
    """What runs is ended."""
    pool = Pool(2)
    pool.map_async(nap, [60.0] * 4, chunksize=1)
    began = time.monotonic()
    pool.terminate()
    pool.join()
    assert time.monotonic() - began < 20
    with pytest.raises(ValueError, match="Pool not running"):
        pool.apply(double, (1,))


def test_the_context_manager_terminates() -> None:
    """After it no call is taken, and it cannot be entered again."""
    with Pool(1) as pool:
        assert pool.map(double, range(3)) == [0, 2, 4]
    with pytest.raises(ValueError, match="Pool not running"):
        pool.map(double, range(3))
    with pytest.raises(ValueError, match="Pool not running"), pool:
        pass


def test_a_process_that_dies(pool, counter: Callable[[], int]) -> None:
    """The call that it ran is an error."""
    with Pool(1) as own:
        result = own.apply_async(os._exit, (3,))
        with pytest.raises(ray.exceptions.RayActorError):
            result.get(timeout=30)


def test_a_pool_in_a_task() -> None:
    """Tasks may have pools."""

    @ray.remote(num_cpus=0)
    def task():
        with Pool(2) as pool:
            return pool.map(double, range(5))

    assert ray.get(task.remote(), timeout=60) == [0, 2, 4, 6, 8]


# ---- JoinableQueue -------------------------------------------------------------------------


def test_a_joinable_queue() -> None:
    """Items come out in their order; ``join`` returns when each is done."""
    items = JoinableQueue()
    for i in range(3):
        items.put(i)
    done = []

    def work():
        for _ in range(3):
            done.append(items.get(timeout=20))
            time.sleep(0.05)
            items.task_done()

    thread = threading.Thread(target=work)
    thread.start()
    items.join()
    assert done == [0, 1, 2]
    thread.join()
    with pytest.raises(ValueError, match="too many times"):
        items.task_done()


def test_a_queue_with_nothing_in_it() -> None:
    """Is Empty at once, or after the timeout."""
    items = JoinableQueue()
    assert items.empty()
    with pytest.raises(queue.Empty):
        items.get_nowait()
    with pytest.raises(queue.Empty):
        items.get(timeout=0.05)


def test_a_queue_of_limited_size() -> None:
    """Is Full at once, or after the timeout."""
    items = JoinableQueue(1)
    items.put("a")
    assert items.full()
    assert items.qsize() == 1
    with pytest.raises(queue.Full):
        items.put_nowait("b")
    with pytest.raises(queue.Full):
        items.put("b", timeout=0.05)
    assert items.get(timeout=20) == "a"
    items.put("b", timeout=20)
    assert items.get(timeout=20) == "b"


def test_a_closed_queue() -> None:
    """Takes no items."""
    items = JoinableQueue()
    items.close()
    with pytest.raises(ValueError, match="is closed"):
        items.put(1)
    items.join_thread()
