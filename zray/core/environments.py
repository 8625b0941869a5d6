"""What runtime environments consist of: how they add up, are called and shown."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from zray.core.resources import BUILT, ENVIRONMENT
from zray.protocol import messages as m

_INSTALLERS = {m.PIP: "pip", m.UV: "uv"}
_INTERPRETERS = (m.PIP, m.UV, m.PY_EXECUTABLE)


def part_id(part: m.EnvironmentPart) -> str:
    """Equal for parts that a node builds alike, whoever has sent them."""
    return _digest(msgspec.structs.replace(part, object_id=b""))


def name_of(environment: m.Environment) -> str:
    """What it is called among a task's resources: equal for those whose tasks may share workers."""
    parts = [part_id(part) for part in environment.parts]
    fields = (environment.env_vars, parts, environment.hook, environment.hook_name)
    return (BUILT if parts else ENVIRONMENT) + _digest(fields)


def _digest(thing: Any) -> str:
    return hashlib.blake2b(msgspec.msgpack.encode(thing), digest_size=16).hexdigest()


def packages_of(environment: m.Environment | None) -> list[bytes]:
    """The objects that it is made of."""
    if environment is None:
        return []
    return [part.object_id for part in environment.parts if part.object_id]


def merged(outer: m.Environment | None, inner: m.Environment | None) -> m.Environment | None:
    """What a task with ``inner`` has in a job, or below a task, with ``outer``.

    Variables add up, of one name the inner one counts; what else ``inner`` has is in place of what
    ``outer`` has of it.
    """
    if outer is None or inner is None:
        return inner or outer
    kinds = {_field(part) for part in inner.parts}
    kept = [part for part in outer.parts if _field(part) not in kinds]
    has_hook = inner.hook or inner.hook_name
    hooked = inner if has_hook else outer
    return m.Environment(
        sorted({**dict(outer.env_vars), **dict(inner.env_vars)}.items()),
        sorted([*kept, *inner.parts], key=lambda part: part.kind),
        hooked.hook,
        hooked.hook_name,
        inner.timeout_s,
    )


def _field(part: m.EnvironmentPart) -> int:
    return m.PIP if part.kind in _INTERPRETERS else part.kind


def described(environment: m.Environment | None) -> dict[str, Any]:
    """The environment as a ``runtime_env``, with URIs in place of folders."""
    if environment is None:
        return {}
    found: dict[str, Any] = {}
    if environment.env_vars:
        found["env_vars"] = dict(environment.env_vars)
    for part in environment.parts:
        if part.kind == m.WORKING_DIR:
            found["working_dir"] = part.source
        elif part.kind == m.PY_MODULE:
            found.setdefault("py_modules", []).append(part.source)
        elif part.kind == m.PY_EXECUTABLE:
            found["py_executable"] = part.source
        else:
            installer = _INSTALLERS[part.kind]
            found[installer] = {"packages": [*part.lines], f"{installer}_check": part.checks}
            if part.version:
                found[installer][f"{installer}_version"] = part.version
    if environment.hook_name:
        found["worker_process_setup_hook"] = environment.hook_name
    return found


def in_words(part: m.EnvironmentPart) -> str:
    """``working_dir file:///x.zip``, ``pip install emoji``; for people."""
    if part.kind == m.WORKING_DIR:
        return f"working_dir {part.source}"
    if part.kind == m.PY_MODULE:
        return f"py_modules {part.source}"
    if part.kind == m.PY_EXECUTABLE:
        return f"py_executable {part.source}"
    lines = " ".join(part.lines)
    return f"{_INSTALLERS[part.kind]} install {lines[:200]}{' ...' if len(lines) > 200 else ''}"
