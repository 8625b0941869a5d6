"""What a job is submitted with: checked, and made into the message that the head takes.

Must never talk to a cluster.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import secrets
import socket
import string
from typing import Any, NamedTuple

from zray import limits
from zray.api.definitions import template_of
from zray.api.options import ActorOptions, checked
from zray.api.runtime_env import RuntimeEnv
from zray.core.resources import HEAD_NODE
from zray.jobs.supervisor import JobSupervisor
from zray.protocol import messages as m
from zray.runtime import identity, serialization
from zray.runtime.references import ObjectRef

OF_HEAD = {HEAD_NODE: 0.0001}  # as in Ray: a command that asks for nothing runs on that node
_ID = re.compile(r"[A-Za-z0-9_.:@+=-]+")
_LETTERS = "".join(one for one in string.ascii_letters + string.digits if one not in "0OIl")


class Submission(NamedTuple):
    """What was asked for, checked. ``runtime_env``: as it was given."""

    submission_id: str
    entrypoint: str
    metadata: dict[str, str]
    runtime_env: dict[str, Any]
    options: ActorOptions
    chooses: bool  # which resources it has


def new_id() -> str:
    """As Ray makes them."""
    return "raysubmit_" + "".join(secrets.choice(_LETTERS) for _ in range(16))


def checked_submission(
    entrypoint: Any,
    submission_id: Any = None,
    runtime_env: Any = None,
    metadata: Any = None,
    entrypoint_num_cpus: Any = None,
    entrypoint_num_gpus: Any = None,
    entrypoint_memory: Any = None,
    entrypoint_resources: Any = None,
    entrypoint_label_selector: Any = None,
) -> Submission:
    """A job as ``ray.job_submission.JobSubmissionClient.submit_job`` has it.

    Raises:
        TypeError, ValueError: something is of another type, or cannot be.
    """
    _is(str, "entrypoint", entrypoint)
    if not entrypoint.strip() or "\0" in entrypoint:
        raise ValueError("entrypoint must be a shell command, got one that is empty or has a NUL")
    _utf8("entrypoint", entrypoint)
    if len(entrypoint) > limits.JOB_ENTRYPOINT_MAX:
        raise ValueError(
            f"entrypoint must have at most {limits.JOB_ENTRYPOINT_MAX:,} characters, got "
            f"{len(entrypoint):,}; put it into a script"
        )
    given = {
        "num_cpus": _number("entrypoint_num_cpus", entrypoint_num_cpus),
        "num_gpus": _number("entrypoint_num_gpus", entrypoint_num_gpus),
        "memory": _number("entrypoint_memory", entrypoint_memory, whole=True),
        "resources": _resources(entrypoint_resources),
        "label_selector": _texts("entrypoint_label_selector", entrypoint_label_selector) or None,
    }
    chosen = {name: value for name, value in given.items() if value}
    environment = _environment(runtime_env)
    env_vars = {"env_vars": environment["env_vars"]} if environment.get("env_vars") else None
    asked = {"num_cpus": 0, **(chosen or {"resources": OF_HEAD}), "runtime_env": env_vars}
    return Submission(
        _checked_id(submission_id),
        entrypoint,
        _metadata(metadata),
        environment,
        checked(ActorOptions(), asked),
        bool(set(chosen) - {"label_selector"}),
    )


def message_of(wanted: Submission) -> m.SubmitJob:
    """What the head is told; the same message is the same job, however often it is sent."""
    blob = serialization.dumps_function(JobSupervisor, False)
    name = JobSupervisor.__name__
    options = wanted.options
    template = template_of(
        *(blob.function_id, f"{name}.__init__", options.placed()),
        num_returns=1,
        max_retries=0,
        labels=options.labels(),
        env_vars=options.env_vars,
    )
    config = json.dumps({"runtime_env": wanted.runtime_env, "metadata": wanted.metadata})
    values = (wanted.submission_id, wanted.entrypoint, config, wanted.chooses)
    arguments = serialization.dumps_arguments(values, {}, ObjectRef)
    ids = identity.id_source()
    spec = m.TaskSpec(ids.task_id(), template.template_id, arguments.data)
    return m.SubmitJob(
        0,
        wanted.submission_id,
        wanted.entrypoint,
        [*wanted.metadata.items()],
        json.dumps(wanted.runtime_env),
        m.Export(0, blob.function_id, name, blob.blob, blob.contained),
        template,
        spec,
        m.ActorInfo(name, blob.function_id, [], held=options.held()),
        m.JobInfo("", "", [], "", socket.gethostname(), os.getpid(), _user(), wants_logs=False),
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())


# ---- checks --------------------------------------------------------------------------------


def _checked_id(value: Any) -> str:
    if value is None:
        return new_id()
    _is(str, "submission_id", value)
    if not _ID.fullmatch(value) or len(value) > limits.SUBMISSION_ID_MAX or value in (".", ".."):
        raise ValueError(
            f"submission_id must have 1 to {limits.SUBMISSION_ID_MAX} letters, digits or any of "
            f"_.:@+=-, got {value[:200]!r}"
        )
    return str(value)


def _is(kind: type, what: str, value: Any) -> None:
    if not isinstance(value, kind):
        named = "a string" if kind is str else "a dict"
        raise TypeError(f"{what} must be {named}, got {type(value)}")


def _utf8(what: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} must be text that UTF-8 can carry") from None


def _number(what: str, value: Any, *, whole: bool = False) -> float | None:
    if value is None:
        return None
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError(f"{what} must be {'an integer' if whole else 'a number'}, got {type(value)}")
    if not 0 <= value < 2**53:
        raise ValueError(f"{what} must be at least 0, got {value}")
    return value


def _resources(value: Any) -> dict[str, float] | None:
    if value is None:
        return None
    _is(dict, "entrypoint_resources", value)
    for name, amount in value.items():
        _is(str, "a key of entrypoint_resources", name)
        _number(f"entrypoint_resources[{name!r}]", amount)
        if amount is None:
            raise TypeError(f"entrypoint_resources[{name!r}] must be a number, got None")
    return dict(value)


def _texts(what: str, value: Any) -> dict[str, str]:
    if value is None:
        return {}
    _is(dict, what, value)
    for name, text in value.items():
        if not isinstance(name, str):
            raise TypeError(f"{what} keys must be strings, got {type(name)}")
        if not isinstance(text, str):
            raise TypeError(f"{what} values must be strings, got {type(text)}")
        _utf8(f"{what} keys", name)
        _utf8(f"{what} values", text)
    return dict(value)


def _metadata(value: Any) -> dict[str, str]:
    found = _texts("metadata", value)
    chars = sum(len(name) + len(text) for name, text in found.items())
    long = [name for name in found if len(name) > limits.NAME_MAX]
    if len(found) > limits.JOB_METADATA_MAX or chars > limits.JOB_METADATA_CHARS_MAX or long:
        raise ValueError(
            f"metadata must have at most {limits.JOB_METADATA_MAX:,} entries and "
            f"{limits.JOB_METADATA_CHARS_MAX:,} characters in all, and keys of at most "
            f"{limits.NAME_MAX}; got {len(found):,} and {chars:,}"
        )
    return found


def _environment(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    _is(dict, "runtime_env", value)
    for name in value:
        if not isinstance(name, str):
            raise TypeError(f"runtime_env keys must be strings, got {type(name)}")
    hook = value.get("worker_process_setup_hook")
    if hook is not None and not isinstance(hook, str):
        raise ValueError(
            f"worker_process_setup_hook of a submitted job must be the name of a function, got "
            f"{type(hook)}; a program of the job can give zray.init() a function"
        )
    found = dict(RuntimeEnv(**value))
    try:
        size = len(json.dumps(found))
    except (TypeError, ValueError) as error:
        raise ValueError(f"runtime_env of a submitted job must be JSON: {error}") from None
    if size > limits.TEXT_MAX:
        raise ValueError(
            f"runtime_env must have at most {limits.TEXT_MAX:,} characters of JSON, got {size:,}"
        )
    return found
