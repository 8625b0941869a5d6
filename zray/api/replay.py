"""``replay``: a failed attempt is made again, here, in this process.

Owns what that needs: function, arguments, environment, and what the runtime context says meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import inspect
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import GeneratorType, SimpleNamespace
from typing import Any, NamedTuple

from zray.api import failed_attempts
from zray.api.attempt_terms import Yielded, check_returned, in_time
from zray.api.failed_attempts import Fetched
from zray.api.session import participant
from zray.core import causes
from zray.errors import ReplayError, ZrayError
from zray.nodes.participant.shared_values import load
from zray.protocol import messages as m
from zray.protocol.failed_run import FailedRun
from zray.runtime import identity, serialization, session
from zray.runtime.environment import take_on
from zray.runtime.large_functions import LargeFunction
from zray.runtime.references import ObjectRef

REFERENCES_LOOKED_AT = 16  # among the arguments
WHY_S = 2.0
FETCH_S = 30.0  # how long an argument that is not kept is waited for


class Prepared(NamedTuple):
    """What is about to run: ``make()(*args, **kwargs)``.

    ``make`` gives the function; of an actor's method it runs the constructor first.
    """

    run: FailedRun
    make: Callable[[], Callable[..., Any]]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self) -> Any:
        """Run it; what it yields, or awaits, to the end, and within its time.

        Raises:
            TaskTimeoutError: it took longer.
            ValueError, SerializationError: what it came to cannot be returned.
        """
        with in_time(self.run):
            value = finished(self.make()(*self.args, **self.kwargs))
        check_returned(self.run, value)
        return value


def replay(task: ObjectRef[Any] | str, *, function: Callable[..., Any] | None = None) -> Any:
    """Run the last failed attempt of a task, or of a call of an actor, again in this process.

    It gets the arguments that it had, the environment variables of its tasks, and a runtime context
    that says the same of task, attempt, resources and actor. What it submits goes to the cluster.
    Of an actor the constructor runs first, with its arguments of then: what calls before have
    changed in it is not there. In the main thread a ``timeout=`` of the task interrupts it, too;
    what it returns has to be something that can be returned.

    Args:
        task: a reference that it has returned, or the id in hex of the task or of that.
        function: run this in the place of the task's function, or of the actor's class: with what
            has been changed in it since.

    Returns:
        What it returns now; of a generator, a list.

    Raises:
        Whatever it raises now, with the traceback from here.
        RunNotKeptError: nothing is kept of it; the message says why.
        ReplayError: what is kept cannot be run here: an argument is gone, Python is another.
    """
    text = task.hex() if isinstance(task, ObjectRef) else task
    if not isinstance(text, str):
        raise TypeError(f"replay takes a reference or a task's id as text, not {type(task)}")
    wanted = failed_attempts.task_id(text)
    participant()
    attempt = failed_attempts.fetch(wanted)
    with pretending(attempt.run):
        return prepare(attempt, function)()


# ---- what runs -------------------------------------------------------------------------------


def prepare(attempt: Fetched, function: Callable[..., Any] | None = None) -> Prepared:
    """Load function and arguments.

    Raises:
        ReplayError: that is not possible here; the message says why.
    """
    run = attempt.run
    _check(run)
    take_place(run)
    chosen = _plain(function) if function is not None else _function(attempt)
    args, kwargs = _arguments(run.spec.arguments, run.values, run.spec.boxed)
    call = run.call
    if call is None:
        return Prepared(run, lambda: chosen, args, kwargs)

    def method() -> Callable[..., Any]:
        return _method(chosen(*args, **kwargs), call.method)

    return Prepared(run, method, *_arguments(call.arguments, run.call_values, call.boxed))


def _check(run: FailedRun) -> None:
    here = identity.versions(pickles=True)
    if run.versions.python and run.versions.python != here.python:
        raise ReplayError(
            f"the task ran under Python {run.versions.python}, and this is {here.python}, which "
            "cannot load its function: replay it with that Python"
        )
    if run.template.by_name:
        raise ReplayError(
            f"{run.name} is offered by name by its node's modules (--import), so its code is not "
            "kept: import that module and call the function"
        )


def take_place(run: FailedRun) -> None:
    """The environment of the task, and where its program's modules are, if they are here."""
    job = run.job
    if job is not None:
        known = set(sys.path)
        here = [one for one in (job.directory, *job.python_path) if os.path.isdir(one)]
        sys.path[:0] = [one for one in here if one not in known]
    if run.template.environment is not None:
        take_on(run.template.environment)


def _function(attempt: Fetched) -> Callable[..., Any]:
    try:
        found = serialization.loads_function(attempt.function)[0]
        if isinstance(found, LargeFunction):
            (blob,) = participant().get([found.ref], FETCH_S)
            found = serialization.loads_function(blob)[0]
        return found
    except ZrayError as error:
        raise ReplayError(
            f"the function of {attempt.run.name} cannot be loaded here: {error}"
        ) from error


def _arguments(
    data: bytes, values: list[m.Outcome], boxed: bool
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments, with what is not kept fetched."""
    here: bytes | memoryview = data
    if boxed:
        box, values = values[0], values[1:]
        here = box.value
        if box.kind & m.LOCATED:
            here = serialization.dumps_parts(_fetched(box, "its arguments")).to_bytes()
    loaded = []
    for number, value in enumerate(values, 1):
        if value.kind & m.LOCATED:
            loaded.append(_fetched(value, f"argument reference {number}"))
        else:
            loaded.append(load(value))
    try:
        return serialization.loads_arguments(here, loaded)
    except ZrayError as error:
        raise ReplayError(f"the arguments cannot be loaded here: {error}") from error


def _fetched(value: m.Outcome, what: str) -> Any:
    """A value that was too large to be kept, if the cluster has it still."""
    oid = value.object_id
    connected = session.current()
    if connected is None:
        raise ReplayError(
            f"{what}, {value.size:,} bytes: too large to be kept, and this process is not "
            f"connected to the cluster that may have it (object {oid.hex()}): give --address"
        )
    try:
        return connected.get([connected.borrow(oid)], FETCH_S)[0]
    except ZrayError as error:
        raise ReplayError(
            f"{what}, {value.size:,} bytes: too large to be kept, and gone from the "
            f"cluster: object {oid.hex()}: {error}"
        ) from error


def gone(run: FailedRun) -> list[str]:
    """Of the references that the arguments contain, those whose objects are gone, and why."""
    connected = session.current()
    nested = [*(run.call.nested if run.call is not None else ()), *run.spec.nested]
    found = []
    for oid in nested[:REFERENCES_LOOKED_AT] if connected is not None else ():
        cause = connected.why(oid, WHY_S).causes[0]
        if cause.code == causes.UNKNOWN:
            found.append(f"object {oid.hex()}: {cause.text}")
    return found


def _method(instance: Any, name: str) -> Callable[..., Any]:
    if name == "__ray_call__":
        return lambda function, *args, **kwargs: function(instance, *args, **kwargs)
    method: Callable[..., Any] = getattr(instance, name)
    return method


def finished(value: Any) -> Any:
    """What a function has come to: a generator's items, a coroutine's result."""
    if isinstance(value, GeneratorType):
        return Yielded(value)
    if inspect.iscoroutine(value):
        return asyncio.run(value)
    if inspect.isasyncgen(value):
        return asyncio.run(_collected(value))
    return value


async def _collected(items: Any) -> list[Any]:
    return Yielded([item async for item in items])


# ---- another function in its place -----------------------------------------------------------


def find(text: str) -> Callable[..., Any]:
    """The function or class that ``FILE.py:NAME`` or ``MODULE:NAME`` stands for.

    Raises:
        ReplayError: there is none.
    """
    place, _, name = text.rpartition(":")
    if not place or not name:
        raise ReplayError(f"{text!r} names no function: write FILE.py:NAME or MODULE:NAME")
    try:
        module = _module(place)
    except OSError as error:
        raise ReplayError(f"{place} cannot be read: {error}") from error
    except ImportError as error:
        raise ReplayError(f"{place} cannot be imported: {error}") from error
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise ReplayError(f"{place} has no {name}")
        found = getattr(found, part)
    return _plain(found)


def _module(place: str) -> Any:
    if not place.endswith(".py"):
        sys.path.insert(0, os.getcwd())
        return importlib.import_module(place)
    path = Path(place).resolve()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    sys.path.insert(0, str(path.parent))
    spec.loader.exec_module(module)
    return module


def _plain(function: Any) -> Callable[..., Any]:
    """A remote function's or actor class's own."""
    inner = getattr(function, "_function", None) or getattr(function, "_class", None) or function
    if not callable(inner):
        raise ReplayError(f"{function!r} is neither a function nor a class")
    found: Callable[..., Any] = inner
    return found


# ---- the runtime context ---------------------------------------------------------------------

_NOTHING = object()


@contextlib.contextmanager
def pretending(run: FailedRun) -> Iterator[None]:
    """While it runs, ``get_runtime_context`` says what it said then of the task.

    Afterwards the environment and the import path are as before.
    """
    environment, path = dict(os.environ), [*sys.path]
    try:
        with _context(run):
            yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        time.tzset()
        sys.path[:] = path


@contextlib.contextmanager
def _context(run: FailedRun) -> Iterator[None]:
    connected = session.current()
    if connected is None:
        yield
        return
    attempt, template = max(run.attempt, 1), run.template
    names = {
        "assignment": m.Assignment(attempt, run.job_id, run.spec, max(0, attempt - 1), run.actor),
        "task_inbox": SimpleNamespace(
            setup=None, templates={template.template_id: template}, functions={}
        ),
        "environment": template.environment,
        "running_task": lambda: run.task_id,
    }
    if run.actor is not None:
        call = run.call
        names |= {"actor_id": run.spec.task_id, "actor_info": run.actor, "actor_restarts": 0}
        names |= {"current_call": lambda: call}
    before = {name: vars(connected).get(name, _NOTHING) for name in names}
    vars(connected).update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is _NOTHING:
                del vars(connected)[name]
            else:
                vars(connected)[name] = value
