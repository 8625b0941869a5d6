"""Pool: ``multiprocessing.Pool`` on the cluster, as ``ray.util.multiprocessing.Pool``.

Its processes are actors, so what an initializer sets stays there. Owns the methods and what they
refuse; the work is done in ``zray.util.parallel``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

from zray.api import cluster
from zray.api.objects import get, wait
from zray.errors import ActorDiedError
from zray.util.multiprocessing.results import (
    AsyncResult,
    Callback,
    CallResult,
    IMapIterator,
    MapResult,
)
from zray.util.parallel import calls
from zray.util.parallel.chunk_sizes import ChunkSizes, FunctionTimes
from zray.util.parallel.crews import ActorCrew, cpus
from zray.util.parallel.dispatcher import Dispatcher, Work
from zray.util.parallel.map_run import MapRun, Results

AHEAD = 2  # chunks for each process that imap sends before somebody takes results


class Pool:
    """A pool of processes of the cluster.

    Args:
        processes: how many; None: as many as the cluster has CPUs.
        initializer, initargs: called in each process before its first call.
        maxtasksperchild: calls, or chunks, after which a process is replaced.
        context: for programs that pass one; it changes nothing, and a warning says so.
        ray_address: of the cluster, as ``zray.init`` takes it, where there is no connection yet.
        ray_remote_args: options of the actors that the processes are. Without any they take no CPU
            from what else runs.

    Raises:
        ValueError, TypeError: a bad argument, or more processes than the cluster has CPUs.
        ActorDiedError: the initializer failed; ``cause`` is what it raised.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] | None = None,
        maxtasksperchild: int | None = None,
        context: Any = None,
        ray_address: str | None = None,
        ray_remote_args: Mapping[str, Any] | None = None,
    ) -> None:
        self._state = "INIT"
        if processes is not None and processes <= 0:
            raise ValueError("Processes in the pool must be >0.")
        if maxtasksperchild is not None and maxtasksperchild <= 0:
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if context is not None:
            warnings.warn("the context of a zray Pool is not used", stacklevel=2)
        _connect(processes, ray_address)
        there = cpus()
        if processes is not None and processes > there:
            raise ValueError(
                f"Tried to start a pool with {processes} processes on an existing cluster, but "
                f"there are only {there} CPUs in the cluster."
            )
        self._processes = processes or there
        options = {"num_cpus": 0, **(ray_remote_args or {})}
        arguments = tuple(initargs or ())
        self._crew = ActorCrew(
            self._processes, initializer, arguments, maxtasksperchild, options, None
        )
        self._dispatcher = Dispatcher(self._crew, kept=False)
        self._times = FunctionTimes()
        get(self._crew.start())
        self._state = "RUN"

    # ---- single calls ----------------------------------------------------------------------

    def apply(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] | None = None,
        kwds: Mapping[str, Any] | None = None,
    ) -> Any:
        """The result of ``func(*args, **kwds)``, which runs in one of the processes."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] | None = None,
        kwds: Mapping[str, Any] | None = None,
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> AsyncResult:
        """The same without waiting; ``callback`` is called with the result, ``error_callback`` with
        what was raised, in a thread that should not be held up."""
        self._check_running()
        work = Work(func, tuple(args or ()), dict(kwds or {}))
        result = CallResult(work, callback, error_callback)
        self._dispatcher.put(result)
        return result

    # ---- of many items ---------------------------------------------------------------------

    def map(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> list[Any]:
        """The list of ``func(item)``.

        Args:
            func: called in the processes.
            iterable: read at once.
            chunksize: items that go together; None: chosen by the time that they take.
        """
        result: list[Any] = self._mapped(func, iterable, chunksize, False, None, None).get()
        return result

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> AsyncResult:
        """The same without waiting. All items are tried; the error is that of the first one."""
        return self._mapped(func, iterable, chunksize, False, callback, error_callback)

    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
    ) -> list[Any]:
        """As ``map``, of ``func(*item)``."""
        result: list[Any] = self._mapped(func, iterable, chunksize, True, None, None).get()
        return result

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> AsyncResult:
        """As ``map_async``, of ``func(*item)``."""
        return self._mapped(func, iterable, chunksize, True, callback, error_callback)

    def imap(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = 1
    ) -> IMapIterator:
        """An iterator over ``func(item)``, in order.

        It is lazy: items are read and sent as results are taken, two chunks for each process ahead.
        """
        return self._iterated(func, iterable, chunksize, ordered=True)

    def imap_unordered(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = 1
    ) -> IMapIterator:
        """The same in the order in which results come."""
        return self._iterated(func, iterable, chunksize, ordered=False)

    def _sizes(self, func: Callable[..., Any], chunksize: int | None) -> ChunkSizes:
        if chunksize is not None and chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize}")
        plain = func if calls.is_plain(func) else None
        return self._times.sizes(self._processes, plain, chunksize)

    def _mapped(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        star: bool,
        callback: Callback,
        error_callback: Callback,
    ) -> AsyncResult:
        self._check_running()
        items = [*iterable]
        sizes = self._sizes(func, chunksize)
        result = MapResult(len(items), callback, error_callback)
        MapRun(self._dispatcher, calls.pickled(func), items, star, sizes, result).feed()
        return result

    def _iterated(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        *,
        ordered: bool,
    ) -> IMapIterator:
        self._check_running()
        sizes = self._sizes(func, chunksize)
        results = Results(ordered=ordered)
        ahead = AHEAD * self._processes * (chunksize or sizes.items_max)
        function = calls.pickled(func)
        run = MapRun(self._dispatcher, function, iterable, False, sizes, results, ahead)
        results.took, results.feed = run.took, run.feed
        run.feed()
        return IMapIterator(results)

    # ---- its end ---------------------------------------------------------------------------

    def close(self) -> None:
        """Take no more calls; the processes end when those that there are have ended."""
        if self._state == "RUN":
            self._state = "CLOSE"
            self._dispatcher.close()

    def terminate(self) -> None:
        """End the processes at once; results that are not there will be errors."""
        self._state = "TERMINATE"
        self._dispatcher.end(ActorDiedError("the pool was terminated before the call had ended"))

    def join(self) -> None:
        """Wait until the processes have ended.

        Raises:
            ValueError: neither ``close`` nor ``terminate`` was called before.
        """
        if self._state == "RUN":
            raise ValueError("Pool is still running")
        self._dispatcher.join()
        left = self._crew.left()
        if left and cluster.is_initialized():
            wait(left, num_returns=len(left))

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.terminate()

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def __repr__(self) -> str:
        return f"<zray.util.multiprocessing.Pool state={self._state} pool_size={self._processes}>"

    def _check_running(self) -> None:
        if self._state != "RUN":
            raise ValueError("Pool not running")


def _connect(processes: int | None, address: str | None) -> None:
    """As Ray: where there is no connection, one's own cluster has as many CPUs as processes."""
    if cluster.is_initialized():
        return
    chosen = address or os.environ.get("ZRAY_ADDRESS") or os.environ.get("RAY_ADDRESS")
    if chosen is None or chosen == "local":
        cluster.init("local", num_cpus=processes)
    else:
        cluster.init(chosen)
