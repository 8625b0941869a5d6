"""Executor: a ``concurrent.futures.Executor`` whose calls run on the cluster.

Owns the contract of CPython's executors; the work is done in ``zray.util.parallel``.
"""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable, Iterable, Iterator
from threading import Lock
from typing import Any, ParamSpec, TypeVar

from zray.api.options import ActorOptions, TaskOptions, checked
from zray.errors import WorkerPoolBrokenError
from zray.util.parallel import calls
from zray.util.parallel.chunk_sizes import FunctionTimes
from zray.util.parallel.crews import ActorCrew, TaskCrew, cpus
from zray.util.parallel.dispatcher import Dispatcher, Work
from zray.util.parallel.map_run import MapRun, Results

P = ParamSpec("P")
T = TypeVar("T")


class BrokenExecutorError(WorkerPoolBrokenError, concurrent.futures.BrokenExecutor):
    """The executor takes no calls any more: one of its workers died, or failed to initialize."""


def _broken(what: str, error: BaseException) -> BaseException:
    found = BrokenExecutorError(
        f"{what}, so this executor takes no calls any more and those that it had have no result: "
        f"{error}\nMake another Executor; with max_retries=3 such calls run again instead"
    )
    found.__cause__ = error
    return found


class Executor(concurrent.futures.Executor):
    """Runs calls on the cluster, as ``concurrent.futures.ProcessPoolExecutor`` does on a machine.

    Args:
        max_workers: calls that run at a time, at most; None: as many as the cluster has CPUs for.
        mp_context: for programs that pass one; it changes nothing.
        initializer, initargs: called in each worker process before its first call.
        max_tasks_per_child: calls, or chunks of ``map``, after which a process is replaced.
        max_retries: how often a call runs again whose worker died. 0: it does not, and the executor
            is broken then, as CPython's are.
        options: of the tasks, as ``num_cpus``, ``resources``, ``runtime_env`` and ``priority``;
            with an initializer or ``max_tasks_per_child``, of the actors that the workers are then.

    Raises:
        ValueError, TypeError: a bad argument or option.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        max_retries: int = 0,
        **options: Any,
    ) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
        self._max_workers = max_workers
        self._initializer, self._initargs = initializer, tuple(initargs)
        self._max_tasks_per_child = max_tasks_per_child
        self._max_retries = max_retries
        if not self._has_processes:
            options["max_retries"] = max_retries
            checked(TaskOptions(), options)
        else:
            if max_retries:
                options = {"max_restarts": -1, "max_task_retries": max_retries, **options}
            checked(ActorOptions(), options)
        self._options = options
        self._lock = Lock()
        self._shut = False
        self._times = FunctionTimes()
        self._crew: TaskCrew | ActorCrew | None = None
        self._dispatcher: Dispatcher | None = None

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> concurrent.futures.Future[T]:
        """Run ``fn(*args, **kwargs)`` on the cluster; references among the arguments go as values.

        Raises:
            RuntimeError: after ``shutdown``.
            BrokenExecutorError: a worker died.
        """
        job = _Call(fn, args, kwargs)
        self._running().put(job)
        return job.future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """As the builtin ``map``, with the calls on the cluster, several in a chunk.

        Args:
            fn: called with an item of each iterable.
            iterables: read at once, unless there is a ``buffersize``.
            timeout: seconds from now until the last result.
            chunksize: calls that go and come back together; None: chosen by the time that they
                take, so that a chunk is some milliseconds of work.
            buffersize: how many calls there may be whose results nobody has taken; None: all.

        Raises:
            TimeoutError: when a result is taken that is not there in time.
            Exception: what a call has raised, when its result is taken; there are no others then.
            ValueError, TypeError, RuntimeError, BrokenExecutorError: as ``submit``, or a bad size.
        """
        if chunksize is not None and chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        end = None if timeout is None else time.monotonic() + timeout
        dispatcher = self._running()
        dispatcher.check()
        star = len(iterables) != 1
        items: Iterable[Any] = zip(*iterables, strict=False) if star else iterables[0]
        if buffersize is None:
            items = [*items]
        results = Results(ordered=True)
        with self._lock:
            assert self._crew is not None
            plain = fn if calls.is_plain(fn) else None
            sizes = self._times.sizes(self._crew.workers, plain, chunksize)
        run = MapRun(dispatcher, calls.pickled(fn), items, star, sizes, results, ahead=buffersize)
        results.took = run.took
        if buffersize is not None:
            results.feed = run.feed
        run.feed()
        return _taken(results, run, end)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and end when those that there are have ended.

        Args:
            wait: return when they have.
            cancel_futures: cancel those that have not been started.
        """
        with self._lock:
            self._shut = True
            dispatcher = self._dispatcher
        if dispatcher is None:
            return
        if cancel_futures:
            for job in dispatcher.cancel_waiting():
                if isinstance(job, _Call):
                    job.future.cancel()
                else:
                    job.failed(concurrent.futures.CancelledError())
        dispatcher.close()
        if wait:
            dispatcher.join()

    def terminate_workers(self) -> None:
        """End at once: what runs is interrupted, and calls without a result are errors.

        As ``ProcessPoolExecutor.terminate_workers``.
        """
        with self._lock:
            self._shut = True
            dispatcher = self._dispatcher
        if dispatcher is not None:
            dispatcher.end(BrokenExecutorError("the workers of this executor were terminated"))

    kill_workers = terminate_workers

    def _running(self) -> Dispatcher:
        """What takes the calls; made with the first one."""
        with self._lock:
            if self._shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if self._dispatcher is None or self._dispatcher.is_left():
                self._crew = self._new_crew()
                self._dispatcher = Dispatcher(self._crew, kept=True)
            elif self._crew is not None:
                self._crew.look()
            return self._dispatcher

    @property
    def _has_processes(self) -> bool:
        return self._initializer is not None or self._max_tasks_per_child is not None

    def _new_crew(self) -> TaskCrew | ActorCrew:
        if not self._has_processes:
            return TaskCrew(self._max_workers, self._options, _broken)
        return ActorCrew(
            self._max_workers or cpus(),
            *(self._initializer, self._initargs, self._max_tasks_per_child, self._options),
            None if self._max_retries else _broken,
        )


class _Call:
    """The job of a call, and its future."""

    __slots__ = ("_arguments", "_function", "_keywords", "future")

    def __init__(self, function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self._function, self._arguments, self._keywords = function, arguments, keywords
        self.future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def begin(self) -> Work | None:
        if not self.future.set_running_or_notify_cancel():
            return None
        return Work(self._function, self._arguments, self._keywords)

    def succeeded(self, value: Any) -> None:
        self.future.set_result(value)

    def failed(self, error: BaseException) -> None:
        if not self.future.running() and not self.future.set_running_or_notify_cancel():
            return
        self.future.set_exception(error)


def _taken(results: Results, run: MapRun, end: float | None) -> Iterator[Any]:
    try:
        while (part := results.take(end)) is not None:
            yield from part.values
            if part.error is not None:
                raise part.error
    finally:
        run.stop()
