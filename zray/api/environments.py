"""What a ``runtime_env`` comes to on a cluster: files are packed, and sent there once.

Packages are objects of the process that sends them, which holds them for as long as it is
connected. Whoever names one by its URI has to know that it is still held.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zray import limits
from zray.api.runtime_env import NOTHING, Declared, Installed
from zray.core.environments import merged
from zray.protocol import messages as m
from zray.runtime import serialization

_SCHEME = "zray://"
_KINDS = {"pip": m.PIP, "uv": m.UV}


def environment_of(participant: Any, wanted: Declared) -> m.Environment | None:
    """The environment of what is made from here with that ``runtime_env``; None: that of nothing.

    Raises:
        ValueError: a folder or file has too much in it, or is not what it should be.
        OSError: a file cannot be read.
        SerializationError: the hook cannot be pickled.
    """
    if wanted == NOTHING:
        found: m.Environment | None = participant.environment
        return found
    return merged(participant.environment, _resolved(participant, wanted))


def _resolved(participant: Any, wanted: Declared) -> m.Environment:
    """The environment that says this alone; its packages are there."""
    parts = []
    if wanted.working_dir:
        parts.append(_files(participant, m.WORKING_DIR, wanted.working_dir, wanted.excludes))
    for module in wanted.py_modules:
        parts.append(_files(participant, m.PY_MODULE, module, wanted.excludes))
    if wanted.installed is not None:
        outer = participant.environment
        above = outer.env_vars if outer is not None else ()
        variables = {**dict(above), **dict(wanted.env_vars)}
        parts.append(_installation(wanted.installed, sorted(variables.items())))
    if wanted.py_executable:
        parts.append(m.EnvironmentPart(m.PY_EXECUTABLE, wanted.py_executable))
    if len(parts) > limits.PARTS_MAX:
        raise ValueError(f"runtime_env: there are more than {limits.PARTS_MAX} py_modules")
    hook, name = b"", ""
    if isinstance(wanted.hook, str):
        name = wanted.hook
    else:
        hook, name = _pickled(wanted.hook)
    return m.Environment([*wanted.env_vars], parts, hook, name, wanted.timeout_s)


def _pickled(hook: Any) -> tuple[bytes, str]:
    name = str(getattr(hook, "__name__", type(hook).__name__))
    found = serialization.dumps_function(hook, False)
    if found.contained:
        raise ValueError(
            f"runtime_env: worker_process_setup_hook {name} must not capture references"
        )
    if len(found.blob) > limits.SETUP_HOOK_BYTES_MAX:
        raise ValueError(
            f"runtime_env: worker_process_setup_hook {name} captures {len(found.blob)} bytes; "
            f"{limits.SETUP_HOOK_BYTES_MAX} may be: let it import what it needs"
        )
    return found.blob, name


def _installation(wanted: Installed, env_vars: Sequence[tuple[str, str]]) -> m.EnvironmentPart:
    prefix = f"{wanted.tool.upper()}_"
    return m.EnvironmentPart(
        _KINDS[wanted.tool],
        lines=[*wanted.lines],
        options=[*wanted.options],
        version=wanted.version,
        checks=wanted.checks,
        variables=[(name, value) for name, value in env_vars if name.startswith(prefix)],
    )


# ---- packages ------------------------------------------------------------------------------------


def _files(participant: Any, kind: int, place: str, excludes: Sequence[str]) -> m.EnvironmentPart:
    if place.startswith(_SCHEME):
        content, object_id = _parsed(place)
        return m.EnvironmentPart(kind, place, content, object_id)
    if "://" in place:
        return m.EnvironmentPart(kind, place, _look_of(place))
    return _part(participant, kind, Path(place), excludes)


def _part(participant: Any, kind: int, path: Path, excludes: Sequence[str]) -> m.EnvironmentPart:
    from zray.runtime import packages  # loaded for the first

    inside = path.name if kind == m.PY_MODULE and path.is_dir() else ""
    package = packages.pack(path, excludes, inside=inside)
    object_id = participant.packages.get(package.digest)
    if object_id is None:
        object_id = participant.keep_bytes(package.data)
        participant.packages[package.digest] = object_id
    uri = f"{_SCHEME}{package.digest}-{object_id.hex()}.zip"
    return m.EnvironmentPart(kind, uri, package.digest, object_id)


def upload(participant: Any, path: str | os.PathLike[str], excludes: Sequence[str] = ()) -> str:
    """Send a folder, zip file or wheel to the cluster; its URI, which a ``working_dir`` can be.

    The package is there for as long as ``participant`` is connected, or an actor may be started
    again in whose ``runtime_env`` it is. What has been sent already is not sent again.

    Raises:
        ValueError: it is not there, or has more than ``limits.PACKAGE_BYTES_MAX``.
        OSError: a file cannot be read.
        ObjectStoreFullError: the node has no memory for it.
    """
    return _part(participant, m.WORKING_DIR, Path(path).expanduser().absolute(), excludes).source


def _parsed(uri: str) -> tuple[str, bytes]:
    """The digest and the object of a package that was sent.

    Raises:
        ValueError: it is no URI of such.
    """
    name = uri.removeprefix(_SCHEME).rpartition(".")[0]
    content, _, number = name.partition("-")
    try:
        object_id = bytes.fromhex(number)
        bytes.fromhex(content)
    except ValueError:
        object_id = b""
    if len(content) != 32 or len(object_id) != 20:
        raise ValueError(f"runtime_env: {uri!r} is not the URI of a package that was sent")
    return content, object_id


def _look_of(uri: str) -> str:
    """What tells the file from another of the same name, if it is on this machine."""
    try:
        found = os.stat(uri.removeprefix("file://"))
    except OSError:
        return ""
    return f"{found.st_size}-{found.st_mtime_ns}"
