"""Runtime environments of jobs, tasks and actors: what may be said there, checked.

What is said is Ray's ``runtime_env``. What it comes to on a cluster is `environments`. Must never
talk to one.
"""

from __future__ import annotations

import os
import types
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from zray import limits
from zray.nodes.options import checked_text

Pairs = tuple[tuple[str, str], ...]

_ADVICE = {
    "conda": "start the nodes in that environment, or use 'pip' or 'uv'",
    "container": "start the nodes in that container",
    "image_uri": "start the nodes in that container",
}
_IGNORED = ("_ray_release", "_ray_commit", "_inject_current_ray")
_URIS = ("file", "zray")


class Installed(NamedTuple):
    """Packages for ``tool``, pip or uv, each as a line of a requirements file; further
    ``options`` of its ``install``; its own ``version``, such as ``==26.0``; whether what is there
    then has to fit together."""

    tool: str
    lines: tuple[str, ...]
    options: tuple[str, ...] = ()
    version: str = ""
    checks: bool = False


class Declared(NamedTuple):
    """What a ``runtime_env`` asks for. Paths are absolute, files are not read yet.

    ``py_modules``: URIs or paths; of those that are folders the package has the folder itself.
    ``hook``: a function, or "module.function".
    """

    env_vars: Pairs = ()
    working_dir: str = ""
    excludes: tuple[str, ...] = ()
    py_modules: tuple[str, ...] = ()
    installed: Installed | None = None
    py_executable: str = ""
    hook: Callable[[], Any] | str = ""
    timeout_s: float = limits.SETUP_TIMEOUT_S

    def builds(self) -> bool:
        """Whether a node has to prepare anything for it."""
        return bool(self.working_dir or self.py_modules or self.installed or self.py_executable)


NOTHING = Declared()


def declared(option: str, value: Any) -> Declared:
    """What a ``runtime_env`` says, checked.

    Raises:
        TypeError: it is no mapping, or a value is of the wrong type.
        ValueError: it has a field that zray does not have, or no field of Ray's; a file or folder
            is not there; or a value cannot be.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{option} must be a dict, got {value!r}")
    found: dict[str, Any] = {}
    for field, wanted in value.items():
        check = _CHECKS.get(field)
        if field in _IGNORED or wanted is None:
            continue
        if check is not None:
            found.update(check(wanted))
        elif field in _ADVICE:
            raise ValueError(f"runtime_env: zray does not have {field!r}; {_ADVICE[field]}")
        else:
            raise ValueError(
                f"runtime_env: there is no field {field!r}; there are {sorted(_CHECKS)}"
            )
    _check_together(value)
    return Declared(**found)


def _check_together(value: Mapping[str, Any]) -> None:
    chosen = [name for name in ("pip", "uv", "py_executable", "conda") if value.get(name)]
    if len(chosen) > 1:
        raise ValueError(
            f"The {' and '.join(repr(name) for name in chosen)} fields of runtime_env cannot be "
            "specified at the same time: each says which Python the workers have"
        )


# ---- env_vars ------------------------------------------------------------------------------------


def _env_vars(value: Any) -> dict[str, Pairs]:
    if not isinstance(value, Mapping):
        raise TypeError(f"runtime_env['env_vars'] must be a dict, got {type(value)}")
    for name, text in value.items():
        _check(name, text)
    size = sum(len(name) + len(text) for name, text in value.items())
    if size > limits.ENV_VARS_CHARS_MAX:
        raise ValueError(
            f"runtime_env: all variables together must have at most {limits.ENV_VARS_CHARS_MAX} "
            f"characters, got {size}"
        )
    return {"env_vars": tuple(sorted(value.items()))}


def _check(name: Any, value: Any) -> None:
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(
            "runtime_env['env_vars'] must be of type Dict[str, str], got "
            f"{type(name).__name__} {name!r} with {type(value).__name__} {value!r}"
        )
    checked_text("the name of an environment variable", name)
    if not name or "=" in name or "\0" in name or "\0" in value:
        raise ValueError(f"an environment variable cannot be called {name!r}, or have that value")
    _check_text(f"the value of the environment variable {name}", value)


def _check_text(what: str, value: str) -> None:
    if len(value) > limits.TEXT_MAX:
        raise ValueError(f"{what} must have at most {limits.TEXT_MAX} characters, got {len(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} must be text that UTF-8 can carry") from None


# ---- files ---------------------------------------------------------------------------------------


def _working_dir(value: Any) -> dict[str, str]:
    if not isinstance(value, str | os.PathLike):
        raise TypeError(
            f"runtime_env['working_dir'] must be a string (either a path or a URI), got "
            f"{type(value)}"
        )
    text = os.fspath(value)
    if not text:
        return {}
    place = _place("working_dir", text)
    if "://" not in place and not os.path.isdir(place) and not place.endswith(".zip"):
        raise ValueError(f"runtime_env: working_dir {text!r} is neither a folder nor a zip file")
    return {"working_dir": place}


def _place(field: str, text: Any) -> str:
    """A URI, or the absolute path of what is there."""
    if not isinstance(text, str):
        raise TypeError(f"runtime_env[{field!r}] must be a path or a URI, got {text!r}")
    _check_text(f"runtime_env[{field!r}]", text)
    scheme, mark, rest = text.partition("://")
    if mark:
        if scheme not in _URIS:
            raise ValueError(
                f"runtime_env: {field} {text!r} is fetched from nowhere: put the files where each "
                "node sees them, as file:///folder/name.zip, or give a folder of this machine"
            )
        if not rest.endswith((".zip", ".whl")):
            raise ValueError(
                f"runtime_env: {field} {text!r} must name a .zip file, or a wheel of py_modules"
            )
        return text
    path = os.path.abspath(os.path.expanduser(text))
    if not os.path.exists(path):
        raise ValueError(f"runtime_env: {field} {text!r} is not a valid path: it is not there")
    return path


def _py_modules(value: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"runtime_env['py_modules'] must be a list, got {type(value)}")
    return {"py_modules": tuple(map(_module, value))}


def _module(value: Any) -> str:
    if isinstance(value, types.ModuleType):
        paths = [*getattr(value, "__path__", ())] or [getattr(value, "__file__", None)]
        if len(paths) != 1 or not isinstance(paths[0], str):
            raise ValueError(
                f"runtime_env: py_modules: {value!r} lies in {len(paths)} folders or in no file; "
                "give the folders instead"
            )
        return _place("py_modules", paths[0])
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise TypeError(
            "runtime_env['py_modules'] must be a list of paths, URIs or imported modules, got "
            f"{value!r}"
        )
    place = _place("py_modules", value)
    if "://" in place or os.path.isdir(place) or place.endswith((".zip", ".whl", ".py")):
        return place
    raise ValueError(
        f"runtime_env: py_modules: {value!r} is neither a folder nor a zip file, a wheel or a "
        ".py file"
    )


def _excludes(value: Any) -> dict[str, tuple[str, ...]]:
    return {"excludes": _texts("excludes", value)}


def _texts(field: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or any(not isinstance(one, str) for one in value):
        raise TypeError(f"runtime_env[{field!r}] must be a list of strings, got {value!r}")
    for one in value:
        _check_text(f"runtime_env[{field!r}]", one)
    return tuple(value)


# ---- Python --------------------------------------------------------------------------------------


def _pip(value: Any) -> dict[str, Installed | None]:
    known = ("packages", "pip_check", "pip_version", "pip_install_options")
    return {"installed": _installed("pip", value, known)}


def _uv(value: Any) -> dict[str, Installed | None]:
    known = ("packages", "uv_check", "uv_version", "uv_pip_install_options")
    return {"installed": _installed("uv", value, known)}


def _installed(tool: str, value: Any, known: tuple[str, ...]) -> Installed | None:
    options: Mapping[str, Any] = value if isinstance(value, Mapping) else {"packages": value}
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ValueError(f"runtime_env[{tool!r}]: there is no {unknown[0]!r}; there are {known}")
    if "packages" not in options:
        raise ValueError(f"runtime_env[{tool!r}] must include the key 'packages'")
    lines = _requirements(tool, options["packages"])
    if len(lines) > limits.REQUIREMENTS_MAX:
        raise ValueError(f"runtime_env[{tool!r}]: more than {limits.REQUIREMENTS_MAX} requirements")
    checks, version = options.get(known[1], False), options.get(known[2]) or ""
    if not isinstance(checks, bool):
        raise TypeError(f"runtime_env[{tool!r}]: {known[1]} must be a bool, got {checks!r}")
    if not isinstance(version, str):
        raise TypeError(f"runtime_env[{tool!r}]: {known[2]} must be a string, got {version!r}")
    further = _texts(known[3], options.get(known[3]) or ())
    size = sum(map(len, (*lines, *further)))
    if size > limits.ENV_VARS_CHARS_MAX:
        raise ValueError(f"runtime_env[{tool!r}]: more than {limits.ENV_VARS_CHARS_MAX} characters")
    return Installed(tool, lines, further, checked_text(known[2], version), checks)


def _requirements(tool: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        path = Path(value).expanduser()
        if not path.is_file():
            raise ValueError(f"runtime_env[{tool!r}]: {value!r} is not a valid file")
        value = path.read_text().splitlines()
    if not isinstance(value, list | tuple):
        raise TypeError(
            f"runtime_env[{tool!r}] must be of type str or List[str], got {type(value)}"
        )
    lines = [line.strip() for line in _texts(tool, value)]
    return tuple(line for line in lines if line and not line.startswith("#"))


def _py_executable(value: Any) -> dict[str, str]:
    if not isinstance(value, str):
        raise TypeError(f"runtime_env['py_executable'] must be a string, got {value!r}")
    _check_text("runtime_env['py_executable']", value)
    return {"py_executable": value}


def _hook(value: Any) -> dict[str, Any]:
    if not callable(value) and not isinstance(value, str):
        raise TypeError(
            "runtime_env['worker_process_setup_hook'] must be a function or 'module.function', "
            f"got {value!r}"
        )
    if not isinstance(value, Hashable):  # it is a part of options, which are compared
        raise TypeError(f"runtime_env['worker_process_setup_hook'] must be hashable, got {value!r}")
    if isinstance(value, str):
        _check_text("runtime_env['worker_process_setup_hook']", value)
    if isinstance(value, str) and not all(value.rpartition(".")):
        raise ValueError(
            f"runtime_env: worker_process_setup_hook {value!r} must be of the form module.function"
        )
    return {"hook": value}


def _config(value: Any) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise TypeError(
            f"runtime_env['config'] must be of type dict or RuntimeEnvConfig, got {type(value)}"
        )
    checked = RuntimeEnvConfig(**{name: one for name, one in value.items() if one is not None})
    return {"timeout_s": float(checked["setup_timeout_seconds"])}


_CHECKS: dict[str, Callable[[Any], Mapping[str, Any]]] = {
    "env_vars": _env_vars,
    "working_dir": _working_dir,
    "excludes": _excludes,
    "py_modules": _py_modules,
    "pip": _pip,
    "uv": _uv,
    "py_executable": _py_executable,
    "worker_process_setup_hook": _hook,
    "config": _config,
}


class RuntimeEnvConfig(dict[str, Any]):
    """How long a ``runtime_env`` may take to be built; as in Ray, it is a dict."""

    def __init__(
        self,
        setup_timeout_seconds: int = int(limits.SETUP_TIMEOUT_S),
        eager_install: bool = True,
        log_files: list[str] | None = None,
    ) -> None:
        """Args:
            setup_timeout_seconds: on one node, of all that has to be built; -1: any time.
            eager_install: accepted; a node builds when the first task that needs it comes there.
            log_files: accepted; what a build says goes to its drivers.

        Raises:
            TypeError, ValueError: a value is of the wrong type, or cannot be.
        """
        seconds = setup_timeout_seconds
        if isinstance(seconds, bool) or not isinstance(seconds, int):
            raise TypeError(f"setup_timeout_seconds must be of type int, got: {type(seconds)}")
        if not (0 < seconds <= limits.TIMEOUT_MAX_S or seconds == -1):
            raise ValueError(
                f"setup_timeout_seconds must be greater than zero or equals to -1, got: {seconds}"
            )
        if not isinstance(eager_install, bool):
            raise TypeError(f"eager_install must be a boolean, got {type(eager_install)}")
        if log_files is not None and not isinstance(log_files, list):
            raise TypeError(f"log_files must be a list of strings or None, got {log_files!r}")
        super().__init__(
            setup_timeout_seconds=seconds, eager_install=eager_install, log_files=log_files or []
        )


class RuntimeEnv(dict[str, Any]):
    """A ``runtime_env`` as an object, checked when it is made; as in Ray, it is a dict."""

    def __init__(self, **fields: Any) -> None:
        """Fields: as of ``runtime_env``.

        Raises:
            TypeError, ValueError: as for ``runtime_env``.
        """
        declared("runtime_env", fields)
        super().__init__({name: value for name, value in fields.items() if value is not None})

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> RuntimeEnv:
        """The one of a task that runs, which was checked where it was declared."""
        made = cls()
        made.update(fields)
        return made

    def env_vars(self) -> dict[str, str]:
        """The environment variables that it sets."""
        return dict(self.get("env_vars") or {})

    def working_dir(self) -> str:
        """The folder or URI that tasks start in; empty: the driver's."""
        return str(self.get("working_dir") or "")

    def py_modules(self) -> list[Any]:
        """What can be imported beside."""
        return [*(self.get("py_modules") or ())]

    def to_dict(self) -> dict[str, Any]:
        """The same as a plain dict."""
        return dict(self)
