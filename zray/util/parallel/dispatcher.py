"""Dispatcher: jobs that wait for a crew's workers, and those that these have.

A job waits here until a worker is free for it, so it can be cancelled until then. Nothing here
blocks: what is to happen when a job has ended happens in the thread that reads for the process.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from zray.api.session import participant
from zray.errors import ClusterShutdownError, TaskError, ZrayError
from zray.runtime import session
from zray.runtime.interrupts import interrupts
from zray.runtime.references import ObjectRef
from zray.util.parallel.calls import original


class Work(NamedTuple):
    """What a crew starts: a call of a function. ``chunk``: the function is ``run_chunk``, and the
    first argument says which function the items are for."""

    function: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    chunk: bool = False


class Crew(Protocol):
    """Workers: tasks of the cluster, or actors."""

    def room(self, under_way: int) -> bool:
        """Whether one more may be started, where so many are."""

    def submit(self, work: Work) -> tuple[ObjectRef[Any], Any]:
        """Start it; the reference to its value, and a token for ``ended``. By a thread at a time.

        Raises:
            Exception: it cannot be pickled, or does not fit the function.
        """

    def ended(self, token: Any, seconds: float, others: int) -> None:
        """What was started has its value or error, after so many seconds among so many others."""

    def broken(self, error: BaseException) -> BaseException | None:
        """What all jobs end with because one had this error; None: nothing, it is that one's."""

    def close(self) -> None:
        """Nothing more will be started, and all has ended: workers may end."""

    def kill(self, refs: list[ObjectRef[Any]]) -> None:
        """Nothing more will be started, and nobody needs these values any more."""


class Job(Protocol):
    """What somebody wants to be run, and hears of."""

    def begin(self) -> Work | None:
        """What to start now; None: it was cancelled."""

    def succeeded(self, value: Any) -> None:
        """It has this value."""

    def failed(self, error: BaseException) -> None:
        """It has none, whether it was begun or not."""


_busy: set[Dispatcher] = set()  # those with jobs, which the end of the program waits for


def _finish() -> None:
    for dispatcher in [*_busy]:
        if not dispatcher.is_left():  # as by a forked child
            dispatcher.join()


class Dispatcher:
    """Of one crew, in the cluster that this process is connected to now.

    ``kept``: the program ends when the jobs have ended.
    """

    def __init__(self, crew: Crew, *, kept: bool) -> None:
        self._crew = crew
        self._kept = kept
        self._participant = participant()
        if hasattr(self._participant, "close"):  # a program's; a worker ends with its cluster
            atexit.unregister(_finish)
            atexit.register(_finish)  # again: it goes before the end of this cluster
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._under_way: set[_Completion] = set()
        self._starting = False
        self._closing = False  # the crew's workers end when there is nothing more
        self._over: BaseException | None = None  # why nothing is taken any more

    def put(self, job: Job) -> None:
        """Take a job; it is started when a worker is free.

        Raises:
            BaseException: the crew is broken, or was terminated; the job was not taken.
        """
        with interrupts:  # a job that is begun by half would never end
            with self._changed:
                self.check()
                self._waiting.append(job)
                if self._kept:
                    _busy.add(self)
            self._start()

    def check(self) -> None:
        """Raise what ``put`` would."""
        if self._over is not None:
            raise self._over.with_traceback(None)  # which would grow each time

    def is_left(self) -> bool:
        """Whether its cluster was left: what is put is an error."""
        return session.current() is not self._participant

    def cancel_waiting(self) -> list[Job]:
        """Forget the jobs that have not been started, and return them."""
        with self._changed:
            jobs = [*self._waiting]
            self._waiting.clear()
        self._start()
        return jobs

    def join(self) -> None:
        """Wait until no job is left."""
        with self._changed:
            self._changed.wait_for(self._is_idle)

    def close(self) -> None:
        """No job will come any more: the workers end when none is left."""
        with self._changed:
            self._closing = True
        self._start()

    def end(self, error: BaseException) -> None:
        """End the workers at once, and each job with the error."""
        with self._changed:
            if self._over is None:
                self._over = error
            left = [one for one in self._under_way if not one.told]
            jobs = [*self._waiting, *(one.job for one in left)]
            for one in left:
                one.told = True
            self._waiting.clear()
            self._under_way.difference_update(left)
            self._closing = False
        if not self.is_left():
            try:
                self._crew.kill([one.ref for one in left if one.ref is not None])
            except ZrayError:
                pass  # the cluster has ended, and with it the workers
        for job in jobs:
            _guarded(job.failed, error)
        with self._changed:
            self._rest()

    def _rest(self) -> None:
        _busy.discard(self)
        self._changed.notify_all()

    def _is_idle(self) -> bool:
        return not self._waiting and not self._under_way

    def _start(self) -> None:
        """Start what there is room for. One thread does so at a time; the others need not wait."""
        while True:
            with self._changed:
                if self._starting:
                    return
                if self._waiting and self._crew.room(len(self._under_way)):
                    self._starting = True
                    completion = _Completion(self, self._waiting.popleft())
                    self._under_way.add(completion)
                    completion.others = len(self._under_way)
                elif self._is_idle():
                    self._rest()
                    if not self._closing:
                        return
                    self._closing = False
                    completion = None
                else:
                    return
            if completion is None:
                self._crew.close()
                return
            try:
                self._start_one(completion)
            finally:
                with self._changed:
                    self._starting = False

    def _start_one(self, completion: _Completion) -> None:
        if self.is_left():
            self.end(ClusterShutdownError("the cluster was left before the call was started"))
            return
        work = completion.job.begin()
        if work is None:
            with self._changed:
                self._under_way.discard(completion)
            return
        try:
            completion.ref, completion.token = self._crew.submit(work)
        except BaseException as error:
            self._tell(completion, completion.job.failed, error)
            if not isinstance(error, Exception):
                raise
        else:
            self._participant.complete(completion.ref, completion)

    def arrived(self, completion: _Completion, value: Any) -> None:
        """What was started has its value."""
        self._crew.ended(completion.token, completion.seconds(), completion.others)
        self._tell(completion, completion.job.succeeded, value)
        self._start()

    def failed(self, completion: _Completion, error: BaseException) -> None:
        """It has ended with that error."""
        left = isinstance(error, ClusterShutdownError) and not isinstance(error, TaskError)
        broken = error if left else self._crew.broken(error)
        if broken is not None:
            self.end(broken)
            return
        self._crew.ended(completion.token, completion.seconds(), completion.others)
        self._tell(completion, completion.job.failed, original(error))
        self._start()

    def _tell(self, completion: _Completion, tell: Callable[[Any], None], what: Any) -> None:
        with self._changed:
            if completion.told:
                return
            completion.told = True
        _guarded(tell, what)
        with self._changed:  # not before: who joins may rely on it
            self._under_way.discard(completion)


class _Completion:
    """Stands for a job where a future is expected that takes a value or an error."""

    __slots__ = ("_began", "_dispatcher", "job", "others", "ref", "token", "told")

    def __init__(self, dispatcher: Dispatcher, job: Job) -> None:
        self._dispatcher = dispatcher
        self.job = job
        self.told = False  # the job knows its end
        self.ref: ObjectRef[Any] | None = None
        self.token: Any = None
        self.others = 1
        self._began = time.monotonic()

    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self._began

    def done(self) -> bool:
        return False

    def running(self) -> bool:
        return True

    def set_result(self, value: Any) -> None:
        with interrupts:
            self._dispatcher.arrived(self, value)

    def set_exception(self, error: BaseException) -> None:
        with interrupts:
            self._dispatcher.failed(self, error)


def _guarded(tell: Callable[[Any], None], what: Any) -> None:
    """Call what may run the user's code: its error is shown, and stops nothing."""
    try:
        tell(what)
    except Exception:
        hook = threading.ExceptHookArgs([*sys.exc_info(), threading.current_thread()])
        threading.excepthook(hook)
