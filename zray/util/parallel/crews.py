"""The workers of executors and pools: TaskCrew, whose calls are tasks, and ActorCrew.

Tasks share the cluster's worker processes, so they cost nothing while there are none. Actors are
processes of one's own: for an initializer, and where a process ends after so many calls.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from zray.api.actor_handles import ActorHandle
from zray.api.actors import actor, kill
from zray.api.cluster import cluster_resources
from zray.api.functions import remote
from zray.api.objects import cancel
from zray.api.session import participant
from zray.errors import ActorDiedError, ActorError, TaskError, WorkerCrashedError
from zray.runtime.references import ObjectRef
from zray.util.parallel import calls
from zray.util.parallel.dispatcher import Work

AHEAD_S = 0.005  # of work waits at the workers
AHEAD_MAX = 128  # calls for each worker
LOOK_S = 5.0  # between two looks at the cluster's size
FUNCTIONS_MAX = 64  # that a crew knows as tasks of their own

Broken = Callable[[str, BaseException], BaseException]


class Window:
    """How many calls of a TaskCrew may be under way: the shorter they are, the more wait at the
    workers.

    ``strict``: as many as there are workers, since nothing else keeps more from running at a time.
    """

    def __init__(self, workers: int, *, strict: bool) -> None:
        self._workers = workers
        self._strict = strict
        self._most = workers if strict else 2 * workers

    def resize(self, workers: int, *, strict: bool) -> None:
        """There are so many workers now."""
        ahead = self._most * workers // self._workers
        self._most = workers if strict else max(2 * workers, ahead)
        self._workers, self._strict = workers, strict

    def room(self, under_way: int) -> bool:
        """Whether there may be one more."""
        return under_way < self._most

    def measured(self, seconds: float, others: int) -> None:
        """One came after so many seconds, when there were so many in all."""
        if not self._strict:
            each_s = max(seconds * self._workers / max(others, self._workers), 1e-6)
            ahead = max(1, min(AHEAD_MAX, round(AHEAD_S / each_s)))
            self._most = self._workers * (1 + ahead)


def cpus() -> int:
    """The CPUs of the cluster, at least 1."""
    return max(1, int(cluster_resources().get("CPU", 1)))


def _lost(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether a worker has died; not an error of that kind that the call has raised."""
    return isinstance(error, kind) and not isinstance(error, TaskError)


class TaskCrew:
    """Calls as tasks, at most ``workers`` at a time; None: as many as the cluster has CPUs for."""

    def __init__(self, workers: int | None, options: dict[str, Any], broken: Broken) -> None:
        self._each = float(options.get("num_cpus", 1) or 0)
        fit = self._fitting()
        self._asked = workers
        self.workers = workers or fit
        strict = not self._each or self.workers < fit
        self._looked = time.monotonic()
        self._window = Window(self.workers, strict=strict)
        self._broken = broken
        self._retries = bool(options.get("max_retries"))
        self._options = options
        self._call = remote(**options)(calls.call)
        self._chunk = remote(**options)(calls.run_chunk)
        self._functions: OrderedDict[Any, Any] = OrderedDict()
        self._names: OrderedDict[tuple[bool, str], Any] = OrderedDict()

    def room(self, under_way: int) -> bool:
        """As ``Crew.room``."""
        return self._window.room(under_way)

    def submit(self, work: Work) -> tuple[ObjectRef[Any], Any]:
        """As ``Crew.submit``."""
        if work.chunk:
            return self._named(True, work.arguments[0]).remote(*work.arguments), True
        function = work.function
        if not calls.is_plain(function):
            task = self._named(False, function)
            return task.remote(function, *work.arguments, **work.keywords), False
        return self._known(function).remote(*work.arguments, **work.keywords), False

    def _fitting(self) -> int:
        """How many calls the cluster has CPUs for."""
        return max(1, int(cpus() / self._each)) if self._each else cpus()

    def look(self) -> None:
        """Now and then, see whether the cluster has grown or shrunk. Asks the head."""
        now = time.monotonic()
        if not self._each or now - self._looked < LOOK_S:
            return
        if not participant().client.linked:
            return  # the head would not answer
        self._looked = now
        fit = self._fitting()
        self.workers = self._asked or fit
        self._window.resize(self.workers, strict=self.workers < fit)

    def _named(self, chunk: bool, function: Any) -> Any:
        """The task that runs calls, under the name of their function."""
        key = chunk, calls.shown_name(function)
        found = self._names.get(key)
        if found is None:
            task = self._chunk if chunk else self._call
            found = self._names[key] = task.options(name=key[1])
            if len(self._names) > FUNCTIONS_MAX:
                self._names.popitem(last=False)
        return found

    def _known(self, function: Any) -> Any:
        """The function as a task, which is sent once."""
        functions = self._functions
        found = functions.get(function)
        if found is None:
            found = functions[function] = remote(**self._options)(calls.Called(function))
            if len(functions) > FUNCTIONS_MAX:
                functions.popitem(last=False)
        return found

    def ended(self, token: Any, seconds: float, others: int) -> None:
        """As ``Crew.ended``."""
        if not token:
            self._window.measured(seconds, others)

    def broken(self, error: BaseException) -> BaseException | None:
        """As ``Crew.broken``."""
        if self._retries or not _lost(error, WorkerCrashedError):
            return None
        return self._broken("a worker died while it ran a call", error)

    def close(self) -> None:
        """The processes are the cluster's."""

    def kill(self, refs: list[ObjectRef[Any]]) -> None:
        """As ``Crew.kill``."""
        for ref in refs:
            cancel(ref, force=True)


class _Process:
    """The class of a crew's actors."""

    def __init__(
        self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
    ) -> None:
        if initializer is not None:
            calls.initialize(initializer, initargs)

    def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        return calls.call(function, *args, **kwargs)

    def run_chunk(self, *arguments: Any) -> calls.Ran:
        return calls.run_chunk(*arguments)

    def ready(self) -> None:
        """Answered once the initializer has run."""


class _Member:
    """One process: its handle, and how many calls it has had."""

    __slots__ = ("had", "handle")

    def __init__(self, handle: ActorHandle[Any]) -> None:
        self.handle = handle
        self.had = 0


class ActorCrew:
    """Calls of ``workers`` actors, of each one at a time.

    Args:
        initializer, initargs: called in each process before anything else.
        calls_max: of a process, which is then replaced; None: no limit.
        options: of the actors.
        broken: makes what all ends with where a process dies; None: it is replaced, and what it ran
            has that error.
    """

    def __init__(
        self,
        workers: int,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        calls_max: int | None,
        options: dict[str, Any],
        broken: Broken | None,
    ) -> None:
        self.workers = workers
        self._initializer, self._initargs = initializer, initargs
        self._calls_max = calls_max
        self._class = actor(**options)(_Process)
        self._broken = broken
        self._lock = threading.Lock()
        self._members: list[_Member] = []
        self._idle: deque[_Member] = deque()
        self._leaving: deque[ObjectRef[Any]] = deque(maxlen=workers)
        self._killed = False

    def start(self) -> list[ObjectRef[Any]]:
        """Make all processes now; references that are ready once these are."""
        with self._lock:
            while len(self._members) < self.workers:
                self._idle.append(self._new())
            return [member.handle.ready.remote() for member in self._members]

    def _new(self) -> _Member:
        member = _Member(self._class.remote(self._initializer, self._initargs))
        self._members.append(member)
        return member

    def room(self, under_way: int) -> bool:
        """As ``Crew.room``."""
        return under_way < self.workers

    def submit(self, work: Work) -> tuple[ObjectRef[Any], Any]:
        """As ``Crew.submit``."""
        with self._lock:
            if self._killed:
                raise RuntimeError("the workers were ended")
            member = self._idle.popleft() if self._idle else self._new()
        try:
            return self._called(member.handle, work), member
        except BaseException:
            with self._lock:
                self._idle.appendleft(member)
            raise

    def _called(self, handle: ActorHandle[Any], work: Work) -> ObjectRef[Any]:
        if work.chunk:
            return handle.run_chunk.remote(*work.arguments)
        function = calls.pickled(work.function) if calls.is_plain(work.function) else work.function
        return handle.call.remote(function, *work.arguments, **work.keywords)

    def ended(self, token: Any, seconds: float, others: int) -> None:
        """As ``Crew.ended``."""
        member: _Member = token
        member.had += 1
        with self._lock:
            if member not in self._members:
                return  # it has died
            worn = self._calls_max is not None and member.had >= self._calls_max
            if not worn:
                self._idle.append(member)
                return
            self._members.remove(member)
        self._leave(member)

    def _leave(self, member: _Member) -> None:
        """It has no calls any more, and ends."""
        self._leaving.append(member.handle.__ray_terminate__.remote())

    def broken(self, error: BaseException) -> BaseException | None:
        """As ``Crew.broken``."""
        if not _lost(error, ActorError):
            return None
        if isinstance(error, ActorDiedError) and self._broken is None:
            self._forget(error.actor_id)
        if self._broken is None:
            return None
        if isinstance(error, ActorDiedError) and error.actor_init_failed:
            return self._broken("the initializer of a worker failed", error)
        return self._broken("a worker died while it ran a call", error)

    def _forget(self, actor_id: str) -> None:
        """It is dead: the next call makes another one."""
        with self._lock:
            for member in self._members:
                if member.handle._actor_id.hex() == actor_id:
                    self._members.remove(member)
                    break

    def close(self) -> None:
        """As ``Crew.close``."""
        with self._lock:
            members, self._members = self._members, []
            self._idle.clear()
        for member in members:
            self._leave(member)

    def look(self) -> None:
        """There are as many as were asked for."""

    def left(self) -> list[ObjectRef[Any]]:
        """References that are ready when the processes that were to end have ended."""
        return [*self._leaving]

    def kill(self, refs: list[ObjectRef[Any]]) -> None:
        """As ``Crew.kill``."""
        with self._lock:
            self._killed = True
            members, self._members = self._members, []
            self._idle.clear()
        for member in members:
            kill(member.handle)
