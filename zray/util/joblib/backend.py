"""ZrayBackend: joblib's batches as calls of an Executor; large arrays go to the cluster once.

Owns the contract of joblib's backends. Nested ``Parallel`` calls run on the cluster, too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from joblib._parallel_backends import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
)

from zray.api.objects import put
from zray.runtime.references import ObjectRef
from zray.util.executor import Executor
from zray.util.parallel.crews import cpus

LEVELS_MAX = 3  # Parallel calls in one another; deeper ones run where they are
SHARED_BYTES_MIN = 64 << 10  # a smaller argument costs less to send again
BATCH_S = 0.05  # a batch is made to take so long at least


class ZrayBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Made by joblib.

    Args:
        nesting_level, inner_max_num_threads: as joblib's own backends have them.
        ray_remote_args: options of the tasks.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    MIN_IDEAL_BATCH_DURATION = BATCH_S

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        ray_remote_args: dict[str, Any] | None = None,
        **others: Any,
    ) -> None:
        super().__init__(
            nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads, **others
        )
        self._options = ray_remote_args or {}
        self._executor: Executor | None = None
        self._shared = _SharedArguments()

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.nesting_level, self.inner_max_num_threads, self._options)

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """As joblib counts them, of the CPUs of the cluster."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return max(1, cpus() + 1 + n_jobs) if n_jobs < 0 else n_jobs

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        prefer: str | None = None,
        require: str | None = None,
        ray_remote_args: dict[str, Any] | None = None,
        max_nbytes: Any = SHARED_BYTES_MIN,
        **others: Any,
    ) -> int:
        """Be ready for a ``Parallel`` call; how many jobs it runs at a time."""
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        options = {**self._options, **(ray_remote_args or {})}
        if self.inner_max_num_threads is not None:
            environment = dict(options.get("runtime_env") or {})
            threads = self._prepare_worker_env(n_jobs=n_jobs)
            environment["env_vars"] = {**threads, **environment.get("env_vars", {})}
            options["runtime_env"] = environment
        self._executor = Executor(n_jobs, **options)
        self._shared = _SharedArguments(shares=max_nbytes is not None)
        return n_jobs

    def submit(
        self, func: Any, callback: Callable[[Future[Any]], None] | None = None
    ) -> Future[Any]:
        """Run a batch."""
        assert self._executor is not None
        batch, refs = self._shared.taken_out(func)
        future = self._executor.submit(batch, *refs)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """The results of a batch, or its error."""
        return out.result()

    def get_nested_backend(self) -> tuple[ParallelBackendBase, int | None]:
        """What ``Parallel`` calls use inside of a batch."""
        level = (self.nesting_level or 0) + 1
        if level >= LEVELS_MAX:
            return SequentialBackend(nesting_level=level), None
        return ZrayBackend(nesting_level=level, ray_remote_args=self._options), None

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End what runs: one batch has failed."""
        if self._executor is not None:
            self._executor.terminate_workers()
        self._executor = None
        if ensure_ready:
            parallel = self.parallel
            self.configure(parallel.n_jobs, parallel, **parallel._backend_kwargs)

    def terminate(self) -> None:
        """The ``Parallel`` call is over."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = None
        self._shared = _SharedArguments()
        self.reset_batch_stats()


def _restored(
    nesting_level: int | None, threads: int | None, options: dict[str, Any]
) -> ZrayBackend:
    return ZrayBackend(nesting_level, threads, options)


class _Place:
    """Stands in a batch for an argument that goes beside it."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class _Batch:
    """A batch of joblib's whose large arguments are given to it when it is called."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __call__(self, *values: Any) -> Any:
        items = self._batch.items
        self._batch.items = [
            (
                function,
                [_filled(value, values) for value in args],
                {name: _filled(value, values) for name, value in kwargs.items()},
            )
            for function, args, kwargs in items
        ]
        return self._batch()


def _filled(value: Any, values: tuple[Any, ...]) -> Any:
    kind = type(value)
    if kind is _Place:
        return values[value.number]
    if kind is list or kind is tuple:
        return kind(_filled(one, values) for one in value)
    return value


class _SharedArguments:
    """The large arguments of a ``Parallel`` call, which are put once however many batches have
    them."""

    def __init__(self, *, shares: bool = True) -> None:
        self._shares = shares
        self._refs: dict[int, tuple[Any, ObjectRef[Any]]] = {}  # the value keeps its id its own

    def taken_out(self, batch: Any) -> tuple[Any, list[ObjectRef[Any]]]:
        """The batch as it is to be called, and the references that it is to be called with."""
        refs: dict[ObjectRef[Any], _Place] = {}
        if not self._shares or not hasattr(batch, "items"):
            return batch, []
        items = [
            (
                function,
                [self._replaced(value, refs) for value in args],
                {name: self._replaced(value, refs) for name, value in kwargs.items()},
            )
            for function, args, kwargs in batch.items
        ]
        if not refs:
            return batch, []
        batch.items = items
        return _Batch(batch), [*refs]

    def _replaced(self, value: Any, refs: dict[ObjectRef[Any], _Place]) -> Any:
        kind = type(value)
        if (kind is list or kind is tuple) and len(value) <= 16:
            return kind(self._replaced(one, refs) for one in value)
        if _size(value) < SHARED_BYTES_MIN:
            return value
        found = self._refs.get(id(value))
        if found is None:
            found = self._refs[id(value)] = value, put(value)
        ref = found[1]
        return refs.setdefault(ref, _Place(len(refs)))


def _size(value: Any) -> int:
    """About how many bytes it has: of arrays, sparse matrices, frames, bytes and texts."""
    for array in (value, getattr(value, "data", None)):
        size = getattr(array, "nbytes", None)
        if isinstance(size, int):
            return size
    return sys.getsizeof(value, 0)
