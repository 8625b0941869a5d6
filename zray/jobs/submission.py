"""What a job is submitted with: checked, and made into the message that the head takes.

Must never talk to a cluster.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import secrets
import socket
import string
from typing import Any, NamedTuple

from zray import limits
from zray.api.options import ActorOptions, checked
from zray.api.runtime_env import NOTHING, Declared, declared
from zray.core.environments import described, packages_of
from zray.core.resources import HEAD_NODE
from zray.protocol import messages as m
from zray.protocol import values
from zray.runtime import identity

# The pickle of zray.jobs.supervisor.JobSupervisor and False, which is never retried; and how values
# begin that are portable. So that who submits, as the dashboard, has nothing to do with pickles.
CLASS_NAME = "JobSupervisor"
CLASS = b"\x80\x04\x8c\x14zray.jobs.supervisor\x8c\x0dJobSupervisor\x93\x89\x86."
PORTABLE = b"M"
CLASS_ID = hashlib.blake2b(CLASS, digest_size=16).digest()

OF_HEAD = {HEAD_NODE: 0.0001}  # as in Ray: a command that asks for nothing runs on that node
_ID = re.compile(r"[A-Za-z0-9_.:@+=-]+")
_LETTERS = "".join(one for one in string.ascii_letters + string.digits if one not in "0OIl")


class Submission(NamedTuple):
    """What was asked for, checked. ``environment``: what the runtime_env says."""

    submission_id: str
    entrypoint: str
    metadata: dict[str, str]
    environment: Declared
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
    asked = {"num_cpus": 0, **(chosen or {"resources": OF_HEAD})}
    return Submission(
        _checked_id(submission_id),
        entrypoint,
        _metadata(metadata),
        _environment(runtime_env),
        checked(ActorOptions(), asked),
        bool(set(chosen) - {"label_selector"}),
    )


def message_of(wanted: Submission, environment: m.Environment | None) -> m.SubmitJob:
    """What the head is told; the same message is the same job, however often it is sent.

    ``environment``: as it is on the cluster, where its packages are.

    Raises:
        ValueError: it is larger than a message may be.
    """
    from zray.api.definitions import template_of  # which loads pickle

    options = wanted.options
    template = template_of(
        *(CLASS_ID, f"{CLASS_NAME}.__init__", options.placed()),
        num_returns=1,
        max_retries=0,
        labels=options.labels(),
        environment=environment,
    )
    runtime_env = json.dumps(described(environment))
    if len(runtime_env) > limits.TEXT_MAX:
        raise ValueError(
            f"runtime_env must have at most {limits.TEXT_MAX:,} characters of JSON, got "
            f"{len(runtime_env):,}"
        )
    # A variable of the command, which can have 128 KiB: metadata may be more.
    config = f'{{"runtime_env": {runtime_env}}}'
    arguments = [wanted.submission_id, wanted.entrypoint, config, wanted.chooses]
    spec = m.TaskSpec(
        *(identity.id_source().task_id(), template.template_id),
        PORTABLE + values.pack([arguments, {}]),
        nested=packages_of(environment),
    )
    return m.SubmitJob(
        0,
        wanted.submission_id,
        wanted.entrypoint,
        [*wanted.metadata.items()],
        runtime_env,
        m.Export(0, CLASS_ID, CLASS_NAME, CLASS),
        template,
        spec,
        m.ActorInfo(CLASS_NAME, CLASS_ID, [], held=options.held()),
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
        raise TypeError(
            f"{what} must be {'an integer' if whole else 'a number'}, got {type(value)}"
        )
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


def _environment(value: Any) -> Declared:
    if value is None:
        return NOTHING
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
    return declared("runtime_env", value)


class Alone:
    """In the place of a participant where nothing has to be sent: a job inherits no environment."""

    environment: m.Environment | None = None


def has_files(wanted: Submission) -> bool:
    """Whether there are files of this machine in its environment, which are to be sent."""
    places = (wanted.environment.working_dir, *wanted.environment.py_modules)
    return any(place and "://" not in place for place in places)


def check_no_files(runtime_env: Any) -> None:
    """Whoever asks from elsewhere names no files of this machine.

    Raises:
        ValueError: it does.
    """
    given = runtime_env if isinstance(runtime_env, dict) else {}
    modules = given.get("py_modules")
    places = [given.get("working_dir"), *(modules if isinstance(modules, list) else ())]
    lists = [given.get("pip"), given.get("uv")]
    lists += [one.get("packages") for one in lists if isinstance(one, dict)]
    if any(isinstance(one, str) and one and "://" not in one for one in places) or any(
        isinstance(one, str) for one in lists
    ):
        raise ValueError(
            "runtime_env names files, which only programs beside them can send: use zray job "
            "submit or JobSubmissionClient, or URIs such as file:///folder/name.zip"
        )
