"""The contract of ``concurrent.futures`` executors: submit, futures, initializers, processes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import zray
from tests.api.conftest import eventually
from tests.util.executors.functions import fail, nap, nested, note, pid, square, wait_for
from zray import Executor
from zray.util.executor import BrokenExecutorError

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture
def executor(cluster: None) -> Iterator[Executor]:
    with Executor() as executor:
        yield executor


# ---- submit --------------------------------------------------------------------------------


def test_it_is_an_executor(executor) -> None:
    assert isinstance(executor, concurrent.futures.Executor)


def test_a_call(executor) -> None:
    future = executor.submit(pow, 2, 8)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result() == 256
    assert future.exception() is None
    assert future.done()
    assert not future.running()
    assert not future.cancelled()


def test_a_call_runs_in_another_process(executor) -> None:
    assert executor.submit(os.getpid).result() != os.getpid()


@pytest.mark.parametrize("name", ["self", "fn", "function", "args", "task"])
def test_keyword_arguments_of_any_name(executor, name) -> None:
    assert executor.submit(dict, **{name: 1}).result() == {name: 1}


def test_references_among_the_arguments_go_as_values(executor) -> None:
    assert executor.submit(square, zray.put(5)).result() == 25


def test_a_closure_has_what_it_has_when_it_is_submitted(executor) -> None:
    values = []
    for value in (1, 2):
        values.append(value)
        assert executor.submit(lambda: len(values)).result() == value


def test_methods_and_partials(executor) -> None:
    import functools

    assert executor.submit("a,b".split, ",").result() == ["a", "b"]
    assert executor.submit(functools.partial(pow, 2), 3).result() == 8


def test_large_arrays(executor) -> None:
    array = np.arange(1_000_000)
    assert int(executor.submit(np.sum, array).result()) == int(array.sum())
    assert executor.submit(np.ones, 1_000_000).result().nbytes == 8_000_000


def test_a_thousand_calls(executor) -> None:
    futures = [executor.submit(square, i) for i in range(1000)]
    assert [future.result() for future in futures] == [i * i for i in range(1000)]


# ---- errors --------------------------------------------------------------------------------


def test_what_a_call_raises_is_of_its_own_type(executor) -> None:
    error = executor.submit(fail, "mine", 2).exception()
    assert type(error) is KeyError
    assert error.args == ("mine", 2)


def test_its_cause_is_the_traceback_there(executor) -> None:
    error = executor.submit(fail, "mine").exception()
    assert error is not None
    assert "raise KeyError(*args)" in str(error.__cause__)
    assert "functions.py" in str(error.__cause__)


@pytest.mark.parametrize("kwargs", [{}, {"x": 1, "y": 2}])
def test_arguments_that_do_not_fit_are_an_error_of_the_future(executor, kwargs) -> None:
    with pytest.raises(TypeError):
        executor.submit(square, **kwargs).result()


def test_what_cannot_be_pickled_is_an_error_of_the_future(executor) -> None:
    future = executor.submit(square, threading.Lock())
    with pytest.raises(TypeError, match="pickle"):
        future.result()
    with pytest.raises(TypeError, match="pickle"):
        executor.submit(lambda: threading.Lock()).result()
    assert executor.submit(square, 3).result() == 9


def test_a_generator_is_no_result(executor) -> None:
    def generate():
        yield 1

    with pytest.raises(TypeError, match="generator"):
        executor.submit(generate).result()


def test_a_program_may_raise_what_a_broken_executor_raises(executor) -> None:
    def pretend():
        raise zray.errors.WorkerCrashedError("no")

    with pytest.raises(zray.errors.WorkerCrashedError):
        executor.submit(pretend).result()
    assert executor.submit(square, 3).result() == 9


# ---- futures -------------------------------------------------------------------------------


def test_a_result_that_is_not_there_in_time(executor) -> None:
    future = executor.submit(nap, 0.4, "late")
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(timeout=0.01)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.exception(timeout=0.01)
    assert future.result(timeout=20) == "late"


def test_what_has_not_started_can_be_cancelled(executor, tmp_path: Path) -> None:
    with Executor(max_workers=1) as executor:
        first = executor.submit(wait_for, tmp_path / "go")
        second = executor.submit(square, 2)
        third = executor.submit(square, 3)
        assert first.running()
        assert not first.cancel()
        assert second.cancel()
        assert second.cancelled()
        with pytest.raises(concurrent.futures.CancelledError):
            second.result()
        (tmp_path / "go").touch()
        assert third.result(timeout=20) == 9
        assert first.result() == str(tmp_path / "go")
    assert concurrent.futures.wait([second], timeout=1).done == {second}


def test_callbacks(executor) -> None:
    seen: list[concurrent.futures.Future[int]] = []
    both = threading.Barrier(2)

    def note_it(future):
        seen.append(future)
        both.wait(20)

    future = executor.submit(nap, 0.1, 1)
    future.add_done_callback(note_it)
    both.wait(20)
    assert seen == [future]


def test_a_callback_that_raises_holds_nobody_up(executor, caplog) -> None:
    future = executor.submit(nap, 0.1)
    future.add_done_callback(lambda future: 1 / 0)
    future.result()
    assert executor.submit(square, 4).result() == 16


def test_a_callback_may_submit(executor) -> None:
    second: concurrent.futures.Future[int] = concurrent.futures.Future()

    def go_on(future):
        second.set_result(executor.submit(square, future.result()))

    executor.submit(square, 3).add_done_callback(go_on)
    assert second.result(20).result(20) == 81


def test_wait_and_as_completed(executor) -> None:
    slow, quick = executor.submit(nap, 1.0, "slow"), executor.submit(nap, 0.0, "quick")
    first = concurrent.futures.wait([slow, quick], return_when=concurrent.futures.FIRST_COMPLETED)
    assert first.done == {quick}
    assert [future.result() for future in concurrent.futures.as_completed([slow, quick])] == [
        "quick",
        "slow",
    ]


def test_wait_for_the_first_exception(executor) -> None:
    futures = [executor.submit(nap, 1.5), executor.submit(fail)]
    done, _ = concurrent.futures.wait(
        futures, timeout=20, return_when=concurrent.futures.FIRST_EXCEPTION
    )
    assert done == {futures[1]}


# ---- how many, and which processes ---------------------------------------------------------


def test_max_workers_is_how_many_run_at_a_time(tmp_path: Path) -> None:
    with Executor(max_workers=1) as executor:
        futures = [executor.submit(_alone, str(tmp_path)) for _ in range(5)]
        assert [future.result() for future in futures] == [1] * 5


def _alone(folder):
    """How many run now."""
    mine = Path(folder) / f"{os.getpid()}-{time.monotonic_ns()}"
    mine.touch()
    time.sleep(0.03)
    found = len([*Path(folder).iterdir()])
    mine.unlink()
    return found


def test_calls_run_beside_each_other(executor, tmp_path: Path) -> None:
    first = executor.submit(wait_for, tmp_path / "a")
    executor.submit((tmp_path / "a").touch).result(timeout=20)
    assert first.result(timeout=20)


@pytest.mark.parametrize("number", [0, -1])
def test_no_workers_are_refused(number) -> None:
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        Executor(max_workers=number)


def test_bad_arguments_are_refused_at_once() -> None:
    with pytest.raises(TypeError, match="initializer must be a callable"):
        Executor(initializer=1)
    with pytest.raises(ValueError, match="max_tasks_per_child"):
        Executor(max_tasks_per_child=0)
    with pytest.raises(TypeError, match="max_tasks_per_child"):
        Executor(max_tasks_per_child=1.5)
    with pytest.raises(ValueError, match="num_cpu"):
        Executor(num_cpu=2)
    with pytest.raises(ValueError, match="max_retries"):
        Executor(max_retries=-2)


def test_options_of_tasks() -> None:
    with Executor(num_cpus=2, runtime_env={"env_vars": {"MARK": "yes"}}) as executor:
        assert executor.submit(os.getenv, "MARK").result() == "yes"
        assert [*executor.map(os.getenv, ["MARK"])] == ["yes"]


def test_an_initializer_runs_in_each_process() -> None:
    with Executor(2, initializer=_prepare, initargs=("yes",)) as executor:
        seen = {executor.submit(_prepared).result() for _ in range(6)}
        seen |= {*executor.map(_prepared, *[range(6)], chunksize=1)}
    assert {value for value, _, _ in seen} == {"yes"}
    assert {count for _, _, count in seen} == {1}
    assert len({process for _, process, _ in seen}) <= 2


_value = ""
_times = 0


def _prepare(value):
    global _value, _times
    _value = value
    _times += 1


def _prepared(*_):
    return _value, os.getpid(), _times


def test_an_initializer_that_fails_breaks_the_executor() -> None:
    executor = Executor(2, initializer=fail, initargs=("at the start",))
    future = executor.submit(square, 2)
    with pytest.raises(concurrent.futures.BrokenExecutor, match="initializer"):
        future.result(timeout=20)
    with pytest.raises(concurrent.futures.BrokenExecutor, match="at the start"):
        for _ in range(100):
            executor.submit(square, 2)
    executor.shutdown()


@pytest.mark.parametrize("most", [1, 3])
def test_max_tasks_per_child(most) -> None:
    with Executor(2, max_tasks_per_child=most) as executor:
        pids = [future.result() for future in [executor.submit(pid) for _ in range(8)]]
    assert all(pids.count(process) <= most for process in pids)


def test_an_executor_in_a_task(executor) -> None:
    assert executor.submit(nested, 5).result(timeout=30) == [0, 1, 4, 9, 16]


def test_in_a_loop_that_waits_for_it() -> None:
    @zray.remote
    class Asynchronous:
        def __init__(self) -> None:
            self.executor = zray.Executor()

        def mapped(self) -> int:
            return sum(self.executor.map(abs, range(100)))

        async def submitted(self) -> int:
            return self.executor.submit(abs, -3).result()

        async def referred(self) -> int:
            return zray.remote(abs).remote(-4).future().result()

    actor = Asynchronous.remote()
    calls = [actor.mapped.remote(), actor.submitted.remote(), actor.referred.remote()]
    assert zray.get(calls, timeout=20) == [4950, 3, 4]


def test_executors_in_each_others_calls() -> None:
    """As many as there are CPUs, each of which waits for calls of its own."""
    with Executor(2) as executor:
        assert [*executor.map(nested, [3] * 4, chunksize=1)] == [[0, 1, 4]] * 4


# ---- workers that die ----------------------------------------------------------------------


def test_a_worker_that_dies_breaks_its_executor_alone(executor) -> None:
    with pytest.raises(concurrent.futures.BrokenExecutor):
        Executor(1).submit(os._exit, 3).result(timeout=20)
    assert executor.submit(square, 2).result() == 4


@pytest.mark.parametrize("options", [{}, {"initializer": square, "initargs": (1,)}])
def test_all_calls_of_a_broken_executor_are_errors(tmp_path: Path, options) -> None:
    executor = Executor(2, **options)
    futures = [executor.submit(wait_for, tmp_path / "never"), executor.submit(os._exit, 3)]
    futures += [executor.submit(square, i) for i in range(50)]
    for future in (futures[0], futures[1], futures[-1]):
        with pytest.raises(BrokenExecutorError, match="a worker died"):
            future.result(timeout=20)
    with pytest.raises(concurrent.futures.BrokenExecutor):
        executor.submit(square, 1)
    with pytest.raises(concurrent.futures.BrokenExecutor):
        executor.map(square, [1])
    executor.shutdown()


def test_with_retries_a_call_runs_again(tmp_path: Path) -> None:
    with Executor(max_retries=2) as executor:
        assert executor.submit(_die_once, str(tmp_path / "count")).result(timeout=30) == 2
        assert executor.submit(square, 3).result() == 9


def test_where_the_retries_are_over_it_is_that_calls_error() -> None:
    with Executor(max_retries=1) as executor:
        with pytest.raises(zray.errors.WorkerCrashedError):
            executor.submit(os._exit, 3).result(timeout=30)
        assert executor.submit(square, 3).result() == 9


def test_processes_of_ones_own_with_retries(tmp_path: Path) -> None:
    with Executor(1, max_tasks_per_child=5, max_retries=2) as executor:
        assert executor.submit(_die_once, str(tmp_path / "count")).result(timeout=30) == 2


def _die_once(path):
    count = note(path)
    if count == 1:
        os._exit(3)
    return count


# ---- the end -------------------------------------------------------------------------------


def test_shutdown_waits() -> None:
    executor = Executor(2)
    futures = [executor.submit(nap, 0.1, i) for i in range(6)]
    executor.shutdown()
    assert [future.result(timeout=0) for future in futures] == [*range(6)]


def test_shutdown_without_waiting() -> None:
    executor = Executor(2)
    futures = [executor.submit(nap, 0.1, i) for i in range(6)]
    began = time.monotonic()
    executor.shutdown(wait=False)
    assert time.monotonic() - began < 0.3
    assert [future.result(timeout=20) for future in futures] == [*range(6)]


def test_after_shutdown_nothing_is_taken() -> None:
    executor = Executor()
    assert executor.submit(square, 2).result() == 4
    executor.shutdown()
    executor.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(square, 2)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.map(square, [2])


def test_an_executor_without_calls_ends() -> None:
    with Executor():
        pass
    executor = Executor()
    executor.shutdown(cancel_futures=True)
    with pytest.raises(RuntimeError):
        executor.submit(square, 2)


def test_shutdown_with_cancelling(tmp_path: Path) -> None:
    executor = Executor(max_workers=1)
    futures = [executor.submit(wait_for, tmp_path / "go")]
    futures += [executor.submit(square, i) for i in range(20)]
    threading.Timer(0.2, (tmp_path / "go").touch).start()
    executor.shutdown(cancel_futures=True)
    assert futures[0].result(timeout=0) == str(tmp_path / "go")
    assert all(future.cancelled() for future in futures[1:])


def test_an_executor_that_nobody_has_does_its_calls() -> None:
    future = Executor().submit(nap, 0.2, "done")
    assert future.result(timeout=20) == "done"


@pytest.mark.parametrize("shut", [True, False])
def test_the_processes_of_an_executor_end_with_it(shut) -> None:
    executor = Executor(2, max_tasks_per_child=100)
    pids = {executor.submit(pid).result() for _ in range(4)}
    if shut:
        executor.shutdown()
    del executor
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{process}").exists() for process in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_program_ends_when_its_calls_have_ended(run, tmp_path: Path) -> None:
    done = run(
        """
        def note(path):
            time.sleep(0.5)
            open(path, "w").close()

        zray.init("local", num_cpus=2)
        zray.Executor().submit(note, sys.argv[1])
        print("last line")
        """,
        str(tmp_path / "file"),
    )
    assert "last line" in done.stdout
    assert (tmp_path / "file").exists()
    assert not done.stderr


def test_a_program_whose_cluster_was_left_ends(run) -> None:
    done = run(
        """
        zray.init("local", num_cpus=1)
        executor = zray.Executor()
        futures = [executor.submit(time.sleep, 60) for _ in range(4)]
        zray.shutdown()
        print([type(future.exception(timeout=20)).__name__ for future in futures])
        """
    )
    assert done.stdout == f"{['ClusterShutdownError'] * 4}\n"


def test_an_executor_outlives_its_cluster(run) -> None:
    done = run(
        """
        executor = zray.Executor()
        for _ in range(2):
            with zray.init("local", num_cpus=1):
                print(executor.submit(pow, 2, 3).result(), *executor.map(abs, [-1, -2]))
        """
    )
    assert done.stdout.split() == ["8", "1", "2"] * 2


# ---- asyncio -------------------------------------------------------------------------------


def test_run_in_executor(executor) -> None:
    async def main():
        loop = asyncio.get_running_loop()
        values = await asyncio.gather(
            *(loop.run_in_executor(executor, square, i) for i in range(20))
        )
        with pytest.raises(KeyError):
            await loop.run_in_executor(executor, fail)
        return values

    assert asyncio.run(main()) == [i * i for i in range(20)]


def test_a_coroutine_that_is_cancelled_cancels_what_has_not_started(tmp_path: Path) -> None:
    async def main(executor):
        loop = asyncio.get_running_loop()
        first = loop.run_in_executor(executor, wait_for, tmp_path / "go")
        second = loop.run_in_executor(executor, note, str(tmp_path / "ran"))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(second, 0.1)
        (tmp_path / "go").touch()
        await first
        return await loop.run_in_executor(executor, square, 2)

    with Executor(max_workers=1) as executor:
        assert asyncio.run(main(executor)) == 4
    assert not (tmp_path / "ran").exists()


def test_tasks_have_the_names_of_their_functions(executor) -> None:
    from zray.util.state import list_tasks

    executor.submit(nap, 0.0).result()
    executor.submit(abs, -1).result()
    assert [*executor.map(pid, range(2))]
    wanted = {"nap", "abs", "pid"}
    eventually(lambda: wanted <= {task.name for task in list_tasks(limit=10_000)})
    error = executor.submit(int, "x").exception()
    assert error is not None
    assert "int failed" in str(error.__cause__)


def test_interrupts_lose_no_call(run) -> None:
    """Whatever a signal interrupts, the executor and its calls stay whole."""
    done = run(
        """
        import signal, threading

        def square(x):
            return x * x

        def shoot():
            time.sleep(0.1)
            for _ in range(40):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.04)

        def use():
            for i in range(1_000_000):
                if not shooting.is_alive():
                    return
                executor = executors[i % 2]
                if i % 3:
                    assert [*executor.map(square, range(3000))][-1] == 2999**2
                else:
                    calls = [executor.submit(square, x) for x in range(100)]
                    assert calls[-1].result() == 99**2

        zray.init("local", num_cpus=2)
        executors = zray.Executor(), zray.Executor(2, max_tasks_per_child=1000)
        shooting = threading.Thread(target=shoot)
        shooting.start()
        caught = 0
        while shooting.is_alive():
            try:
                use()
            except KeyboardInterrupt:
                caught += 1
        assert caught
        for executor in executors:
            print(*executor.map(square, range(5)), executor.submit(square, 5).result())
            executor.shutdown()
        """,
        ZRAY_ADVICE="0",
    )
    assert done.stdout == "0 1 4 9 16 25\n" * 2
