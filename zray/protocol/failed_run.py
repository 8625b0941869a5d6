"""What it takes to make a failed attempt again, as whoever kept it wrote it, and as a file.

Owns the bytes of it. Nodes and heads never look into them.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from zray import limits
from zray.errors import ReplayError
from zray.protocol import messages as m

MAGIC = "zray failed run 1"


class FailedRun(Struct, array_like=True, frozen=True):
    """One attempt.

    Attributes:
        task_id, attempt, job_id: which one; of a call its own id, and attempt 0.
        failed_s: since 1970.
        node, pid: name of the node, and the process there.
        versions: of that process.
        job: whose attempt it was: directory, import path and namespace.
        template: of the function, or of the actor's constructor.
        spec: with the arguments of that.
        values: of its dependencies, in their order. LOCATED: the value is not in here.
        error: the record of the error, as it was told to whoever waited.
        actor: of what is made; None: it is a task.
        call: of its method; None: it is a task, or the constructor itself.
        call_values: of the call's dependencies, as above.
        calls_before: so many calls of the actor had ended before.
        left_out: what is not in here and why, in words; empty: all is.
    """

    task_id: bytes
    attempt: int
    job_id: bytes
    failed_s: float
    node: str
    pid: int
    versions: m.Versions
    job: m.JobInfo | None
    template: m.Template
    spec: m.TaskSpec
    values: list[m.Outcome]
    error: bytes
    actor: m.ActorInfo | None = None
    call: m.Call | None = None
    call_values: list[m.Outcome] = []
    calls_before: int = 0
    left_out: str = ""

    @property
    def name(self) -> str:
        """Of what was run, as lists have it."""
        if self.call is not None and self.actor is not None:
            return f"{self.actor.class_name}.{self.call.method}"
        return self.template.name


class RunFile(Struct, array_like=True, frozen=True):
    """Both parts of an attempt, in a file. ``magic`` says what it is."""

    magic: Annotated[str, Meta(max_length=64)]
    data: Annotated[bytes, Meta(max_length=limits.REPLAY_RUN_BYTES_MAX)]
    function: Annotated[bytes, Meta(max_length=limits.FUNCTION_INLINE_BYTES_MAX)]


_encode = msgspec.msgpack.Encoder().encode


def encode(run: FailedRun) -> bytes:
    """As it is kept."""
    return _encode(run)


def decode(data: bytes) -> FailedRun:
    """What was kept.

    Raises:
        ReplayError: it is something else, or of another version.
    """
    try:
        return msgspec.msgpack.decode(data, type=FailedRun)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ReplayError(
            f"what was kept of the attempt cannot be read ({error}): another version of zray wrote "
            "it, or it is damaged"
        ) from None


def to_file(data: bytes, function: bytes) -> bytes:
    """The contents of a file that carries an attempt to another machine."""
    return _encode(RunFile(MAGIC, data, function))


def from_file(contents: bytes) -> tuple[bytes, bytes]:
    """Data and function of such a file.

    Raises:
        ReplayError: it is none.
    """
    try:
        found = msgspec.msgpack.decode(contents, type=RunFile)
    except (msgspec.DecodeError, msgspec.ValidationError):
        found = None
    if found is None or found.magic != MAGIC:
        raise ReplayError("the file was not written by zray replay --dump") from None
    return found.data, found.function


def brief_of(run: FailedRun, size: int, text: str) -> m.KeptRun:
    """The row of it. ``text``: of the error; ``size``: in bytes."""
    return m.KeptRun(
        run.task_id,
        run.attempt,
        run.name[: limits.NAME_MAX],
        run.job_id,
        run.failed_s,
        text[: limits.BRIEF_TEXT_MAX],
        size,
        run.call is not None,
    )


def of_dead_worker(
    made: m.Assignment,
    template: m.Template,
    function: m.Export,
    values: list[m.Outcome],
    error: bytes,
    text: str,
    where: tuple[str, int],
    versions: m.Versions | None = None,
    job: m.JobInfo | None = None,
) -> m.KeepRun | None:
    """An attempt as others know it whose worker died, or None: it takes too much.

    ``text``: of the error; ``where``: name of the node, and the process there.
    """
    run = FailedRun(
        task_id=made.spec.task_id,
        attempt=made.attempt,
        job_id=made.job_id,
        failed_s=0.0,
        node=where[0],
        pid=where[1],
        versions=versions or m.Versions("", "", ""),
        job=job,
        template=template,
        spec=made.spec,
        values=values,
        error=error,
        actor=made.actor,
    )
    data = encode(run)
    if len(data) > limits.REPLAY_RUN_BYTES_MAX:
        return None
    return m.KeepRun(0, brief_of(run, len(data), text), function.function_id, function.blob, data)
