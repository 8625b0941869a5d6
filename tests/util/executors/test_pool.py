"""What ``Pool`` and ``JoinableQueue`` do beyond the contracts of Ray's (tests/conformance)."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import time

import pytest

import zray
from tests.util.executors.functions import fail, fail_at, nap, pid, square
from zray.util.multiprocessing import JoinableQueue, Pool

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def pool(cluster: None):
    with Pool(2) as pool:
        yield pool


def odd_fails(x):
    if x % 2:
        raise ValueError(x)
    return x


@pytest.mark.parametrize("chunksize", [None, 1, 3, 100])
@pytest.mark.parametrize("ordered", [True, False])
def test_imap_goes_on_after_an_error(pool, chunksize, ordered) -> None:
    make = pool.imap if ordered else pool.imap_unordered
    results, found = make(odd_fails, iter(range(8)), chunksize), []
    while True:
        try:
            found.append(results.next(timeout=20))
        except StopIteration:
            break
        except ValueError as error:
            found.append(error.args[0])
    assert (found if ordered else sorted(found)) == [*range(8)]


def test_a_map_raises_what_its_first_failing_item_raised(pool) -> None:
    with pytest.raises(ValueError) as raised:
        pool.map(odd_fails, range(10), chunksize=2)
    assert type(raised.value) is ValueError
    assert raised.value.args == (1,)
    assert "odd_fails" in str(raised.value.__cause__)


def test_the_callback_of_a_map_gets_the_results_in_order(pool) -> None:
    got = []
    pool.map_async(nap, [0.2, 0.0, 0.1, 0.0], chunksize=1, callback=got.append).get()
    assert got == [[None] * 4]
    pool.map_async(square, range(50), chunksize=1, callback=got.append).wait()
    assert got[1] == [x * x for x in range(50)]


def test_the_result_is_there_after_its_callback(pool) -> None:
    got = []

    def slow(value) -> None:
        time.sleep(0.2)
        got.append(value)

    assert pool.apply_async(square, (2,), callback=slow).get() == 4
    assert got == [4]


def test_a_callback_that_raises_is_shown_and_holds_nobody_up(pool, monkeypatch) -> None:
    shown = []
    monkeypatch.setattr(threading, "excepthook", lambda args: shown.append(args.exc_type))
    assert pool.apply_async(square, (2,), callback=lambda value: 1 / 0).get(timeout=20) == 4
    assert pool.apply(square, (3,)) == 9
    assert shown == [ZeroDivisionError]


def test_starmap_in_chunks_of_its_own_size(pool) -> None:
    assert pool.starmap(pow, [(2, x) for x in range(300)]) == [2**x for x in range(300)]
    got = []
    assert pool.starmap_async(pow, [(2, 3)], 1, got.append).get() == [8]
    assert got == [[8]]


def test_bad_chunk_sizes_are_refused(pool) -> None:
    for method in (pool.map, pool.imap, pool.imap_unordered, pool.starmap):
        with pytest.raises(ValueError, match="hunksize"):
            method(square, [1], chunksize=0)


def test_a_pool_cannot_be_sent(pool) -> None:
    with pytest.raises(NotImplementedError, match="cannot be passed"):
        pickle.dumps(pool)


def test_a_process_that_dies_is_replaced(pool) -> None:
    with pytest.raises(zray.errors.ActorDiedError):
        pool.apply(os._exit, (3,))
    assert pool.map(square, range(10), chunksize=1) == [x * x for x in range(10)]


def test_an_initializer_that_fails() -> None:
    with pytest.raises(zray.errors.ActorDiedError, match="at the start"):
        Pool(1, initializer=fail, initargs=("at the start",))


def test_what_a_terminated_pool_had_is_an_error() -> None:
    pool = Pool(2)
    result = pool.map_async(nap, [60.0] * 5, chunksize=1)
    single = pool.apply_async(nap, (60.0,))
    pool.terminate()
    for one in (result, single):
        with pytest.raises(zray.errors.ActorDiedError, match="terminated"):
            one.get(timeout=20)
    pool.join()
    pool.terminate()


def test_a_closed_pool_ends_its_processes() -> None:
    pool = Pool(2)
    pids = {*pool.map(pid, range(6), chunksize=1)}
    pool.close()
    pool.close()
    pool.join()
    deadline = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{process}") for process in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_empty_pool_can_be_closed_and_joined() -> None:
    pool = Pool(1)
    pool.close()
    pool.join()


def test_a_context_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="context"):
        pool = Pool(1, context=multiprocessing.get_context())
    pool.terminate()


def test_errors_before_values_of_the_same_chunk(pool) -> None:
    results = pool.imap(fail_at_two, range(4), 4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="2"):
        next(results)
    assert next(results) == 3


def fail_at_two(x):
    return fail_at(x, 2)


def test_a_pool_outside_of_a_cluster_starts_one(run) -> None:
    done = run(
        """
        from zray.util.multiprocessing import Pool

        with Pool(3) as pool:
            print(zray.cluster_resources()["CPU"], pool.map(abs, [-1, -2]))
        """
    )
    assert done.stdout == "3.0 [1, 2]\n"


def test_a_program_does_not_wait_for_its_pools(run) -> None:
    began = time.monotonic()
    run(
        """
        from zray.util.multiprocessing import Pool

        pool = Pool(1)
        pool.map_async(time.sleep, [60.0] * 3)
        """
    )
    assert time.monotonic() - began < 30


def test_an_initializer_of_a_script_sets_its_global_variables(run) -> None:
    done = run(
        """
        from zray.util.multiprocessing import Pool

        model = None

        def load(name):
            global model
            model = name

        def use(x):
            return model, x

        with Pool(2, load, ("large",)) as pool:
            print(pool.map(use, range(2)), pool.apply(use, (7,)))
        """
    )
    assert done.stdout == "[('large', 0), ('large', 1)] ('large', 7)\n"


# ---- JoinableQueue -------------------------------------------------------------------------


def test_a_queue_between_a_program_and_a_pool(pool) -> None:
    todo, done = JoinableQueue(), JoinableQueue()
    results = [pool.apply_async(_worker, (todo, done)) for _ in range(2)]
    for i in range(50):
        todo.put(i)
    todo.join()
    for _ in results:
        todo.put(None)
    assert sum(result.get(timeout=20) for result in results) == 50
    assert sorted(done.get(timeout=20) for _ in range(50)) == [x * x for x in range(50)]
    assert done.empty()


def _worker(todo, done):
    count = 0
    while (item := todo.get(timeout=20)) is not None:
        done.put(item * item)
        todo.task_done()
        count += 1
    return count


def test_a_reference_stays_one_in_a_queue() -> None:
    items = JoinableQueue()
    items.put(zray.put(5))
    assert zray.get(items.get(timeout=20)) == 5


def test_many_who_wait_for_items() -> None:
    items = JoinableQueue()
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(items.get(timeout=20))) for _ in range(30)
    ]
    for thread in threads:
        thread.start()
    for i in range(30):
        items.put(i)
    for thread in threads:
        thread.join()
    assert sorted(found) == [*range(30)]
