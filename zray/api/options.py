"""Options of tasks, actors and methods: names, types and ranges, as in Ray's ray_option_utils.

Must never talk to a cluster.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from zray import limits
from zray.api import label_options
from zray.api.label_options import Selector
from zray.api.runtime_env import NOTHING, Declared, declared
from zray.core.resources import CPU, GPU, MEMORY
from zray.nodes.options import checked_text, unit
from zray.protocol import messages as m

Check = Callable[[str, Any], Any]


class TaskOptions(NamedTuple):
    """Options of one task, checked. None for ``num_returns``: as the function says.

    ``unread_max``: as in TEMPLATE.
    """

    num_cpus: float = 1
    num_gpus: float = 0
    memory: float = 0
    resources: tuple[tuple[str, float], ...] = ()
    num_returns: int | None = None
    max_retries: int = limits.MAX_RETRIES
    retry_exceptions: bool | tuple[type[BaseException], ...] = False
    name: str = ""
    accelerator_type: str = ""
    max_calls: int = 0
    label_selector: Selector = ()
    fallback_strategy: tuple[Selector, ...] = ()
    runtime_env: Declared = NOTHING
    unread_max: int = 0
    timeout_s: float = 0.0
    priority: int = 0
    items_per_yield: int = 1
    events: bool = True

    def labels(self) -> tuple[Selector, ...]:
        """Selectors of the node, the preferred one first; none if any will do."""
        return label_options.selectors(self.label_selector, self.fallback_strategy)

    def amounts(self) -> list[tuple[str, int]]:
        """Resources in units of 1/10000, sorted by name, without zeros."""
        resources = _with_accelerator(self.resources, self.accelerator_type)
        return _amounts(self.num_cpus, self.num_gpus, self.memory, resources)


class ActorOptions(NamedTuple):
    """Options of one actor, checked. None: as Ray chooses, see ``placed``, ``held`` and limits.

    ``unread_max``: as in ActorInfo.
    """

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
    accelerator_type: str = ""
    label_selector: Selector = ()
    fallback_strategy: tuple[Selector, ...] = ()
    runtime_env: Declared = NOTHING
    concurrency_groups: tuple[tuple[str, int], ...] = ()
    allow_out_of_order_execution: bool | None = None
    unread_max: int = 0
    events: bool = True

    def labels(self) -> tuple[Selector, ...]:
        """As ``TaskOptions.labels``."""
        return label_options.selectors(self.label_selector, self.fallback_strategy)

    def held(self) -> list[tuple[str, int]]:
        """What the actor keeps while it lives, as ``TaskOptions.amounts``.

        No CPU, unless something other than memory was asked for; then 1, unless told otherwise.
        """
        asked = self.num_cpus is not None or self.num_gpus is not None or self.resources
        cpus = self.num_cpus if self.num_cpus is not None else 1 if asked else 0
        resources = _with_accelerator(self.resources, self.accelerator_type)
        return _amounts(cpus, self.num_gpus or 0, self.memory, resources)

    def placed(self) -> list[tuple[str, int]]:
        """What a node must have free to start the actor: a CPU even where it keeps none."""
        if self.num_cpus is None and self.num_gpus is None and not self.resources:
            return _amounts(1, 0, self.memory, _with_accelerator((), self.accelerator_type))
        return self.held()


class MethodOptions(NamedTuple):
    """Options of calls of one method. None for ``max_task_retries``: as the actor says; for
    ``num_returns`` and ``retry_exceptions``, and an empty ``concurrency_group``: as the method
    says. ``unread_max``: as in TEMPLATE. ``events``: its calls are listed, and in timelines."""

    num_returns: int | None = None
    max_task_retries: int | None = None
    name: str = ""
    retry_exceptions: bool | tuple[type[BaseException], ...] | None = None
    concurrency_group: str = ""
    unread_max: int = 0
    items_per_yield: int = 1
    events: bool = True


# In place of a number of returns.
STREAMING = -1
DYNAMIC = -2
YIELDS = {"streaming": STREAMING, "dynamic": DYNAMIC}


def check_yields(num_returns: int | None, *, generates: bool | None) -> None:
    """Check that what is to yield does; ``generates`` None: that is not known here.

    Raises:
        ValueError: it does not.
    """
    if num_returns is None or num_returns >= 0:
        return
    word = next(word for word, number in YIELDS.items() if number == num_returns)
    if num_returns == DYNAMIC:
        warnings.warn(
            "num_returns='dynamic' is deprecated and will be removed in a future Ray release. "
            "Use num_returns='streaming' instead.",
            DeprecationWarning,
            stacklevel=4,
        )
    if generates is False:
        raise ValueError(
            f"num_returns={word!r} can only be used with generator functions (functions that use "
            "'yield'). The decorated function is not a generator function."
        )


def is_generator(function: Any) -> bool:
    """Whether calls of the function give a generator, asynchronous or not."""
    plain = inspect.unwrap(getattr(function, "__func__", function))
    return inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain)


def returns(num_returns: int | None, *, generates: bool) -> tuple[int, int]:
    """How many references a call has, and what becomes of what it yields, as in TEMPLATE."""
    if num_returns is None:
        num_returns = STREAMING if generates else 1
    if num_returns >= 0:
        return num_returns, m.RETURNS
    return 1, m.ITEMS if num_returns == STREAMING else m.REFERENCES


Options = TypeVar("Options", TaskOptions, ActorOptions, MethodOptions)


def _amounts(
    cpus: float, gpus: float, memory: float, resources: tuple[tuple[str, float], ...]
) -> list[tuple[str, int]]:
    wanted = {CPU: cpus, GPU: gpus, MEMORY: memory, **dict(resources)}
    return sorted((name, amount) for name, value in wanted.items() if (amount := unit(name, value)))


def _with_accelerator(
    resources: tuple[tuple[str, float], ...], kind: str
) -> tuple[tuple[str, float], ...]:
    """As Ray, a little of what only nodes with such accelerators have."""
    return (*resources, (f"accelerator_type:{kind}", 0.001)) if kind else resources


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
            value = check(option, value)
            field = _FIELDS.get(option, option)
            if field in base._fields:  # the others change nothing
                changes[field] = value
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
    import difflib  # for those who need it

    valid = sorted(name for name, check in checks.items() if check not in _REFUSALS)
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
        if value in YIELDS:
            return YIELDS[value]
        raise ValueError(
            f"num_returns must be a whole number from 0, 'streaming' or 'dynamic', got {value!r}"
        )
    count = _whole(option, value, 0)
    if count > limits.RETURNS_MAX:
        raise ValueError(f"num_returns must be at most {limits.RETURNS_MAX}, got {value}")
    return count


def _unread_max(option: str, value: Any) -> int:
    if value == 0:
        raise ValueError(
            f"{option}=0 is not allowed. Use a value > 0 to bound how many items wait, or -1 not to"
        )
    return max(0, _whole(option, value, -1))


def _timeout(option: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{option} must be a number of seconds, got {value!r}")
    if not 0 < value <= limits.TIMEOUT_MAX_S:
        raise ValueError(
            f"{option} must be more than 0 seconds, and at most {limits.TIMEOUT_MAX_S:g}; got "
            f"{value!r}. Leave it out for no limit"
        )
    return float(value)


def _priority(option: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{option} must be a whole number, got {value!r}")
    if abs(value) > limits.PRIORITY_MAX:
        raise ValueError(f"{option} must be within {limits.PRIORITY_MAX} of 0, got {value}")
    return value


def _no_timeout(option: str, value: Any) -> None:
    raise ValueError(
        f"{option!r} is an option of tasks, not of actors and their methods: an interrupt may "
        "leave an actor with half of a change. Use zray.get(ref, timeout=), and asyncio.timeout in "
        "a method that is a coroutine"
    )


def _no_priority(option: str, value: Any) -> None:
    raise ValueError(
        f"{option!r} is an option of tasks, not of actors and their methods: calls of an actor "
        "start in the order in which they come"
    )


def _items_per_yield(option: str, value: Any) -> int:
    return _whole(option, value, 1)


def _max_retries(option: str, value: Any) -> int:
    return _whole(option, value, -1)


def _max_calls(option: str, value: Any) -> int:
    return _whole(option, value, 0)


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
    return _text(option, value)


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


def _groups(option: str, value: Any) -> tuple[tuple[str, int], ...]:
    if not isinstance(value, dict):
        raise TypeError(f"{option} must be a dict of name to number of calls, got {value!r}")
    if len(value) > limits.GROUPS_MAX:
        raise ValueError(f"{option} must be at most {limits.GROUPS_MAX}, got {len(value)}")
    return tuple(
        (_group("the name of a concurrency group", name), _whole(f"{option}[{name!r}]", most, 1))
        for name, most in value.items()
    )


def _group(option: str, value: Any) -> str:
    if value == "":
        raise ValueError(f"{option} cannot be an empty string")
    return _text(option, value)


def _strategy(option: str, value: Any) -> None:
    # Both are what the head does: it gives tasks to the emptiest nodes.
    if not isinstance(value, str):
        raise TypeError(f"{option} must be a string, got {value!r}")
    if value not in ("DEFAULT", "SPREAD"):
        raise ValueError(f'Invalid {option} value {value}. Valid values are ["DEFAULT" | "SPREAD"]')


def _anything(option: str, value: Any) -> None:
    """For libraries on top of Ray, which look at it themselves."""


def _pairs(option: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise TypeError(f"{option} must be a dict, got {value!r}")
    if any(not isinstance(text, str) for pair in value.items() for text in pair):
        raise TypeError(f"{option} must have strings only, got {value!r}")


def _no_group(option: str, value: Any) -> None:
    if value not in ("default", -1, False):
        _not_yet(option, value)


def _not_yet(option: str, value: Any) -> None:
    raise ValueError(f"the option {option!r} is not supported yet; leave it out")


_UNREAD_MAX = "_generator_backpressure_num_objects"
_ACTOR_UNREAD_MAX = "_actor_generator_backpressure_num_objects"
ITEMS_PER_YIELD = "_num_objects_per_yield"
_REFUSALS = (_not_yet, _no_timeout, _no_priority)
_NO_OPTIONS: dict[str, Check] = {"timeout": _no_timeout, "priority": _no_priority}
# Of options, where they have other names.
_FIELDS = {
    "timeout": "timeout_s",
    "enable_task_events": "events",
    _UNREAD_MAX: "unread_max",
    _ACTOR_UNREAD_MAX: "unread_max",
    ITEMS_PER_YIELD: "items_per_yield",
}
_COMMON: dict[str, Check] = {
    "num_cpus": _amount,
    "num_gpus": _gpus,
    "memory": _amount,
    "resources": _resources,
    "accelerator_type": _text,
    "scheduling_strategy": _strategy,
    "label_selector": label_options.label_selector,
    "fallback_strategy": label_options.fallback_strategy,
    "runtime_env": declared,
    "placement_group": _no_group,
    "placement_group_bundle_index": _no_group,
    "placement_group_capture_child_tasks": _no_group,
    "enable_task_events": _flag,
    "_labels": _pairs,
    "_metadata": _anything,
}
_TASK: dict[str, Check] = {
    **_COMMON,
    "num_returns": _num_returns,
    "max_retries": _max_retries,
    "max_calls": _max_calls,
    "retry_exceptions": _retry_exceptions,
    "name": _name,
    "timeout": _timeout,
    "priority": _priority,
    _UNREAD_MAX: _unread_max,
    ITEMS_PER_YIELD: _items_per_yield,
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
    "concurrency_groups": _groups,
    "allow_out_of_order_execution": _flag,
    **_NO_OPTIONS,
    _ACTOR_UNREAD_MAX: _unread_max,
}
_METHOD: dict[str, Check] = {
    "num_returns": _num_returns,
    "max_task_retries": _retries,
    "name": _name,
    "enable_task_events": _flag,
    "concurrency_group": _group,
    "retry_exceptions": _retry_exceptions,
    _UNREAD_MAX: _unread_max,
    **_NO_OPTIONS,
    ITEMS_PER_YIELD: _items_per_yield,
}
_KINDS: dict[type, tuple[str, dict[str, Check]]] = {
    TaskOptions: ("tasks", _TASK),
    ActorOptions: ("actors", _ACTOR),
    MethodOptions: ("methods of actors", _METHOD),
}
