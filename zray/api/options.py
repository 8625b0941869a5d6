"""Options of tasks, actors and methods: names, types and ranges, as in Ray's ray_option_utils.

Must never talk to a cluster.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from zray import limits
from zray.core.resources import CPU, GPU, MEMORY
from zray.nodes.options import checked_text, unit

Check = Callable[[str, Any], Any]


class TaskOptions(NamedTuple):
    """Options of one task, checked. None for ``num_returns``: as the function says (1)."""

    num_cpus: float = 1
    num_gpus: float = 0
    memory: float = 0
    resources: tuple[tuple[str, float], ...] = ()
    num_returns: int = 1
    max_retries: int = limits.MAX_RETRIES
    retry_exceptions: bool | tuple[type[BaseException], ...] = False
    name: str = ""

    def amounts(self) -> list[tuple[str, int]]:
        """Resources in units of 1/10000, sorted by name, without zeros."""
        return _amounts(self.num_cpus, self.num_gpus, self.memory, self.resources)


class ActorOptions(NamedTuple):
    """Options of one actor, checked. None: as Ray chooses, see ``placed``, ``held`` and limits."""

    num_cpus: float | None = None
    num_gpus: float | None = None
    memory: float = 0
    resources: tuple[tuple[str, float], ...] = ()
    name: str = ""
    namespace: str = ""
    lifetime: str = "non_detached"
    get_if_exists: bool = False
    max_restarts: int = 0
    max_task_retries: int = 0
    max_pending_calls: int = -1
    max_concurrency: int | None = None

    def held(self) -> list[tuple[str, int]]:
        """What the actor keeps while it lives, as ``TaskOptions.amounts``.

        No CPU, unless something other than memory was asked for; then 1, unless told otherwise.
        """
        asked = self.num_cpus is not None or self.num_gpus is not None or self.resources
        cpus = self.num_cpus if self.num_cpus is not None else 1 if asked else 0
        return _amounts(cpus, self.num_gpus or 0, self.memory, self.resources)

    def placed(self) -> list[tuple[str, int]]:
        """What a node must have free to start the actor: a CPU even where it keeps none."""
        if self.num_cpus is None and self.num_gpus is None and not self.resources:
            return _amounts(1, 0, self.memory, ())
        return self.held()


class MethodOptions(NamedTuple):
    """Options of calls of one method. ``max_task_retries`` None: as the actor says."""

    num_returns: int = 1
    max_task_retries: int | None = None
    name: str = ""


Options = TypeVar("Options", TaskOptions, ActorOptions, MethodOptions)


def _amounts(
    cpus: float, gpus: float, memory: float, resources: tuple[tuple[str, float], ...]
) -> list[tuple[str, int]]:
    wanted = {CPU: cpus, GPU: gpus, MEMORY: memory, **dict(resources)}
    return sorted((name, amount) for name, value in wanted.items() if (amount := unit(name, value)))


def checked(base: Options, given: dict[str, Any]) -> Options:
    """``base`` with the given options; None leaves one as it was.

    Raises:
        ValueError: an unknown option (the message names the nearest valid one) or a bad value.
        TypeError: a value of the wrong type.
    """
    kind, checks = _KINDS[type(base)]
    changes: dict[str, Any] = {}
    for option, value in given.items():
        check = checks.get(option)
        if check is None:
            raise ValueError(_unknown(option, kind, checks))
        if value is not None:
            changes[option] = check(option, value)
    return base._replace(**changes)


def check_either(given: dict[str, Any]) -> None:
    """Check options of which it is not known yet whether they are a task's or an actor's.

    Raises:
        ValueError, TypeError: as ``checked``.
    """
    unknown = [option for option in given if option not in _TASK and option not in _ACTOR]
    if unknown:
        raise ValueError(_unknown(unknown[0], "tasks and actors", {**_TASK, **_ACTOR}))
    if all(option in _TASK for option in given):
        checked(TaskOptions(), given)
    else:
        checked(ActorOptions(), given)


def _unknown(option: str, kind: str, checks: dict[str, Check]) -> str:
    valid = sorted(name for name, check in checks.items() if check is not _not_yet)
    near = difflib.get_close_matches(option, valid, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"Invalid option keyword {option!r} for {kind}{hint} Valid ones: {valid}"


def _amount(option: str, value: Any) -> float:
    unit(option, value)
    return float(value)


def _gpus(option: str, value: Any) -> float:
    amount = _amount(option, value)
    if amount > 1 and amount != int(amount):
        raise ValueError(f"num_gpus above 1 must be a whole number, got {value!r}")
    return amount


def _resources(option: str, value: Any) -> tuple[tuple[str, float], ...]:
    if not isinstance(value, dict):
        raise TypeError(f"resources must be a dict of name to amount, got {type(value).__name__}")
    for name, amount in value.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"the name of a resource must be a non-empty string, got {name!r}")
        if name in (CPU, GPU, MEMORY):
            option_of = {CPU: "num_cpus", GPU: "num_gpus", MEMORY: "memory"}[name]
            raise ValueError(f"Use the {option_of!r} option instead of {name!r} in 'resources'")
        checked_text("the name of a resource", name)
        unit(name, amount)
    if len(value) > limits.RESOURCES_MAX:
        raise ValueError(f"resources must be at most {limits.RESOURCES_MAX}, got {len(value)}")
    return tuple(sorted(value.items()))


def _whole(option: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{option} must be a whole number, got {value!r}")
    if not least <= value < 2**31:
        raise ValueError(f"{option} must be at least {least}, got {value}")
    return value


def _num_returns(option: str, value: Any) -> int:
    if isinstance(value, str):
        raise ValueError(
            f"num_returns must be a whole number from 0; generators ({value!r}) are not there yet"
        )
    count = _whole(option, value, 0)
    if count > limits.RETURNS_MAX:
        raise ValueError(f"num_returns must be at most {limits.RETURNS_MAX}, got {value}")
    return count


def _max_retries(option: str, value: Any) -> int:
    return _whole(option, value, -1)


def _retry_exceptions(option: str, value: Any) -> bool | tuple[type[BaseException], ...]:
    if isinstance(value, bool):
        return value
    if not isinstance(value, list | tuple):
        raise TypeError(f"retry_exceptions must be a bool or a list of exceptions, got {value!r}")
    for kind in value:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"retry_exceptions must list exception classes, got {kind!r}")
    return tuple(value)


def _name(option: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"name must be a string of 1 to {limits.NAME_MAX} characters: {value!r}")
    return checked_text("name", value)


def _actor_name(option: str, value: Any) -> str:
    if value == "":
        raise ValueError("Actor name cannot be an empty string.")
    return _text(option, value)


def namespace(option: str, value: Any) -> str:
    """A namespace of actors' names.

    Raises:
        ValueError, TypeError: it cannot be one.
    """
    if value == "":
        raise ValueError('"" is not a valid namespace. Pass None to not specify a namespace.')
    return _text(option, value)


def _text(option: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{option} must be None or a string, got: {type(value)}")
    return checked_text(option, value)


def _lifetime(option: str, value: Any) -> str:
    if value not in ("detached", "non_detached"):
        raise ValueError(
            "actor `lifetime` argument must be one of 'detached', 'non_detached' and 'None'; "
            f"got {value!r}"
        )
    return str(value)


def _flag(option: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{option} must be a bool, got {value!r}")
    return value


def _retries(option: str, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        value = min(value, 2**31 - 1)  # programs pass sys.maxsize for "always"
        if value < -1:
            raise ValueError(
                f"The keyword {option!r} only accepts None, 0, -1 or a positive integer, where -1 "
                f"represents infinity; got {value}"
            )
    return _whole(option, value, -1)


def _pending_calls(option: str, value: Any) -> int:
    count = _retries(option, value)
    if count == 0:
        raise ValueError(f"{option} must be -1, which is no limit, or at least 1; got 0")
    return count


def _concurrency(option: str, value: Any) -> int:
    return _whole(option, value, 1)


def _not_yet(option: str, value: Any) -> None:
    raise ValueError(f"the option {option!r} is not supported yet; leave it out")


_COMMON: dict[str, Check] = {
    "num_cpus": _amount,
    "num_gpus": _gpus,
    "memory": _amount,
    "resources": _resources,
}
_TASK: dict[str, Check] = {
    **_COMMON,
    "num_returns": _num_returns,
    "max_retries": _max_retries,
    "retry_exceptions": _retry_exceptions,
    "name": _name,
}
_ACTOR: dict[str, Check] = {
    **_COMMON,
    "name": _actor_name,
    "namespace": namespace,
    "lifetime": _lifetime,
    "get_if_exists": _flag,
    "max_restarts": _retries,
    "max_task_retries": _retries,
    "max_pending_calls": _pending_calls,
    "max_concurrency": _concurrency,
    "concurrency_groups": _not_yet,
    "allow_out_of_order_execution": _not_yet,
}
_METHOD: dict[str, Check] = {
    "num_returns": _num_returns,
    "max_task_retries": _retries,
    "name": _name,
    "concurrency_group": _not_yet,
    "retry_exceptions": _not_yet,
}
_KINDS: dict[type, tuple[str, dict[str, Check]]] = {
    TaskOptions: ("tasks", _TASK),
    ActorOptions: ("actors", _ACTOR),
    MethodOptions: ("methods of actors", _METHOD),
}
