"""Options of tasks: names, types and ranges, as Ray's ray_option_utils checks them."""

from __future__ import annotations

import difflib
from typing import Any, NamedTuple

from zray import limits
from zray.core.resources import CPU, GPU, MEMORY
from zray.nodes.options import unit


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
        wanted = {CPU: self.num_cpus, GPU: self.num_gpus, MEMORY: self.memory}
        wanted.update(self.resources)
        return sorted(
            (name, amount) for name, value in wanted.items() if (amount := unit(name, value))
        )


def checked(base: TaskOptions, given: dict[str, Any]) -> TaskOptions:
    """``base`` with the given options; None leaves one as it was.

    Raises:
        ValueError: an unknown option (the message names the nearest valid one) or a bad value.
        TypeError: a value of the wrong type.
    """
    changes: dict[str, Any] = {}
    for option, value in given.items():
        check = _CHECKS.get(option)
        if check is None:
            raise ValueError(_unknown(option))
        if value is not None:
            changes[option] = check(option, value)
    return base._replace(**changes)


def _unknown(option: str) -> str:
    near = difflib.get_close_matches(option, _CHECKS, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"Invalid option keyword {option!r} for tasks{hint} Valid ones: {sorted(_CHECKS)}"


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
        unit(name, amount)
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
    if not isinstance(value, str) or not value or len(value) > 256:
        raise ValueError(f"name must be a string of 1 to 256 characters, got {value!r}")
    return value


_CHECKS = {
    "num_cpus": _amount,
    "num_gpus": _gpus,
    "memory": _amount,
    "resources": _resources,
    "num_returns": _num_returns,
    "max_retries": _max_retries,
    "retry_exceptions": _retry_exceptions,
    "name": _name,
}
