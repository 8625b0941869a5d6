"""What a program inherits of the submitted job whose command has started it, by its environment.

As Ray's RAY_JOB_CONFIG_JSON_ENV_VAR: https://docs.ray.io/en/latest/ray-core/handling-dependencies.html
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from zray import limits

ID_VARIABLE = "ZRAY_JOB_SUBMISSION_ID"
CONFIG_VARIABLE = "ZRAY_JOB_CONFIG_JSON"
_OVERRIDES = ("ZRAY_OVERRIDE_JOB_RUNTIME_ENV", "RAY_OVERRIDE_JOB_RUNTIME_ENV")


def submission_id() -> str:
    """Of the job that this program is of; empty: of none."""
    found = os.environ.get(ID_VARIABLE, "")
    return found if len(found) <= limits.SUBMISSION_ID_MAX and found.isascii() else ""


def runtime_env(own: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The ``runtime_env`` of ``init``, ``own``, together with that of the job.

    Raises:
        ValueError: both have the same field or variable, and ZRAY_OVERRIDE_JOB_RUNTIME_ENV is not
            1, with which the program's own counts.
    """
    of_job = _of_job()
    if not of_job or (own is not None and not isinstance(own, Mapping)):
        return own
    mine = {name: value for name, value in (own or {}).items() if value is not None}
    overrides = any(os.environ.get(name) == "1" for name in _OVERRIDES)
    variables = _variables(of_job), _variables(mine)
    twice = {*of_job} & {*mine} - {"env_vars"} | {*variables[0]} & {*variables[1]}
    if twice and not overrides:
        raise ValueError(
            f"runtime_env of the submitted job and that of init() both have {sorted(twice)}; leave "
            "them out of one, or set ZRAY_OVERRIDE_JOB_RUNTIME_ENV=1 for those of init() to count"
        )
    found = {**of_job, **mine}
    if variables[0] or variables[1]:
        found["env_vars"] = {**variables[0], **variables[1]}
    return found


def _of_job() -> dict[str, Any]:
    try:
        found = json.loads(os.environ.get(CONFIG_VARIABLE) or "{}")
    except ValueError:
        return {}
    environment = found.get("runtime_env") if isinstance(found, dict) else None
    return environment if isinstance(environment, dict) else {}


def _variables(environment: Mapping[str, Any]) -> dict[str, Any]:
    found = environment.get("env_vars")
    return dict(found) if isinstance(found, Mapping) else {}
