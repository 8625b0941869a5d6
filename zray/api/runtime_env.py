"""Runtime environments of jobs, tasks and actors: what may be said there, and how they add up.

Of Ray's fields there is ``env_vars``. Must never talk to a cluster.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from zray import limits
from zray.nodes.options import checked_text

EnvVars = tuple[tuple[str, str], ...]  # by name

_ADVICE = {
    "working_dir": "workers on this machine use the driver's directory; elsewhere install the code",
    "py_modules": "workers on this machine use the driver's import path; elsewhere install them",
    "pip": "install the packages where the nodes run",
    "uv": "install the packages where the nodes run",
    "conda": "start the nodes in that environment",
    "container": "start the nodes in that container",
    "image_uri": "start the nodes in that container",
    "py_executable": "start the nodes with that Python",
    "worker_process_setup_hook": "call it first in the tasks",
}
_HERE = "working_dir"  # fine if it is what workers have in any case
_IGNORED = ("config", "_ray_release", "_ray_commit", "_inject_current_ray")


def env_vars(option: str, value: Any) -> EnvVars:
    """The environment variables that a ``runtime_env`` sets, checked.

    Raises:
        TypeError: it is no mapping, or a name or value is no string.
        ValueError: it has a field that zray does not have yet, or no field of Ray's; or a variable
            cannot have that name or value.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{option} must be a dict, got {value!r}")
    for field, wanted in value.items():
        if field == "env_vars" or field in _IGNORED or wanted is None:
            continue
        if field == _HERE and _is_here(wanted):
            continue
        if field in _ADVICE:
            raise ValueError(
                f"runtime_env: {field!r} is not there yet, only 'env_vars' is; {_ADVICE[field]}"
            )
        raise ValueError(f"runtime_env: there is no field {field!r}; 'env_vars' is there")
    found = value.get("env_vars") or {}
    if not isinstance(found, Mapping):
        raise TypeError(f"runtime_env['env_vars'] must be a dict, got {type(found)}")
    for name, text in found.items():
        _check(name, text)
    size = sum(len(name) + len(text) for name, text in found.items())
    if size > limits.ENV_VARS_CHARS_MAX:
        raise ValueError(
            f"runtime_env: all variables together must have at most {limits.ENV_VARS_CHARS_MAX} "
            f"characters, got {size}"
        )
    return tuple(sorted(found.items()))


def _is_here(path: Any) -> bool:
    """Whether that is the directory of this program, which workers on its machine have, too."""
    try:
        return os.path.samefile(path, os.getcwd())
    except (OSError, TypeError, ValueError):
        return False


def _check(name: Any, value: Any) -> None:
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(
            "runtime_env['env_vars'] must be of type Dict[str, str], got "
            f"{type(name).__name__} {name!r} with {type(value).__name__} {value!r}"
        )
    checked_text("the name of an environment variable", name)
    if not name or "=" in name or "\0" in name or "\0" in value:
        raise ValueError(f"an environment variable cannot be called {name!r}, or have that value")
    if len(value) > limits.TEXT_MAX:
        raise ValueError(
            f"the value of the environment variable {name} must have at most {limits.TEXT_MAX} "
            f"characters, got {len(value)}"
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"the value of the environment variable {name} must be text that UTF-8 can carry"
        ) from None


def merged(outer: EnvVars, inner: EnvVars) -> EnvVars:
    """What a task of its own ``inner`` variables has in a job, or below a task, with ``outer``."""
    if not (outer and inner):
        return outer or inner
    return tuple(sorted({**dict(outer), **dict(inner)}.items()))


class RuntimeEnv(dict[str, Any]):
    """A ``runtime_env`` as an object, checked when it is made; as in Ray, it is a dict."""

    def __init__(self, **fields: Any) -> None:
        """Fields: ``env_vars``; and those that are accepted where they ask for nothing else.

        Raises:
            TypeError, ValueError: as for ``runtime_env``.
        """
        env_vars("runtime_env", fields)
        super().__init__({name: value for name, value in fields.items() if value is not None})

    def env_vars(self) -> dict[str, str]:
        """The environment variables that it sets."""
        return dict(self.get("env_vars") or {})
