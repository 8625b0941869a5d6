"""What a worker's node keeps of an attempt that has failed here: all that it takes to run it again.

Loaded with the first failure. Values are copied, since they may be freed before anybody asks; what
is too large stays a reference.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Protocol

from msgspec.structs import replace

from zray import limits
from zray.core import failures
from zray.core.worker.actor_inbox import Entry
from zray.core.worker.task_inbox import Delivered
from zray.nodes.participant.shared_values import bytes_of
from zray.nodes.worker.host import Host
from zray.protocol import failed_run
from zray.protocol import messages as m
from zray.protocol.failed_run import FailedRun
from zray.runtime import identity
from zray.runtime.interrupts import interrupts

Take = Callable[[list[bytes]], dict[bytes, m.Outcome | None]]  # as of ``UserCode``
_versions: list[m.Versions] = []  # of this process, once it was asked for


class Actor(Protocol):
    """What this process has become."""

    assignment: m.Assignment
    creation_values: list[m.Outcome]

    def calls_ended(self) -> int: ...


def of_task(
    worker: Host, take: Take, delivered: Delivered, template: m.Template, error: bytes
) -> m.KeepRun | None:
    """A task, or the constructor of an actor. None: its function is not here any more."""
    made = delivered.assignment
    values, left_out = delivered.values, ""
    if any(value.kind & m.LOCATED for value in values):
        values, left_out = _fetched(worker, take, values)
    run = _run(worker, made, template, values, error)
    return _message(worker, run, left_out)


def of_call(worker: Host, actor: Actor, entry: Entry, error: bytes) -> m.KeepRun | None:
    """A call of an actor's method: the constructor's arguments go along."""
    call, made = entry.call, actor.assignment
    template = worker.task_inbox.templates.get(made.spec.template_id)
    if template is None:
        return None
    values, left_out = _copied([entry.values[oid] for oid in call.dependencies])
    run = _run(worker, made, template, actor.creation_values, error)
    run = replace(
        run,
        task_id=call.task_id,
        attempt=0,
        call=replace(call, values=[], retry=b""),
        call_values=values,
        calls_before=actor.calls_ended(),
    )
    return _message(worker, run, left_out)


def _run(
    worker: Host,
    made: m.Assignment,
    template: m.Template,
    values: list[m.Outcome],
    error: bytes,
) -> FailedRun:
    setup = worker.task_inbox.setup
    if not _versions:
        _versions.append(identity.versions(pickles=True))
    return FailedRun(
        task_id=made.spec.task_id,
        attempt=made.attempt,
        job_id=made.job_id,
        failed_s=time.time(),
        node=setup.node_name if setup is not None else "",
        pid=os.getpid(),
        versions=_versions[0],
        job=setup.job if setup is not None else None,
        template=template,
        spec=made.spec,
        values=values,
        error=error,
        actor=made.actor,
    )


def _message(worker: Host, run: FailedRun, left_out: str) -> m.KeepRun | None:
    function = worker.task_inbox.functions.get(run.template.function_id)
    if function is None and not run.template.by_name:
        return None
    blob = function.blob if function is not None else b""
    if left_out:
        run = replace(run, left_out=left_out)
    data = failed_run.encode(run)
    if len(data) > limits.REPLAY_RUN_BYTES_MAX:
        over = f"values of {len(data):,} bytes are more than is kept of one attempt"
        run = replace(
            run,
            values=[*map(_elsewhere, run.values)],
            call_values=[*map(_elsewhere, run.call_values)],
            left_out=f"{left_out}; {over}" if left_out else over,
        )
        data = failed_run.encode(run)
        if len(data) > limits.REPLAY_RUN_BYTES_MAX:
            return None
    record = failures.read(run.error)
    text = f"{record.type_name}: {record.message}" if record.type_name else record.message
    brief = failed_run.brief_of(run, len(data), text)
    return m.KeepRun(0, brief, run.template.function_id, blob, data)


def _elsewhere(outcome: m.Outcome) -> m.Outcome:
    kind = outcome.kind | m.LOCATED
    return m.Outcome(outcome.object_id, kind, outcome.size, b"", outcome.contained)


def _fetched(worker: Host, take: Take, values: list[m.Outcome]) -> tuple[list[m.Outcome], str]:
    """Values of which some are in the node's store, as far as there is room for them."""
    room = limits.REPLAY_RUN_BYTES_MAX - sum(len(value.value) for value in values)
    wanted = []
    for value in values:
        if value.kind & m.LOCATED and value.size <= room:
            room -= value.size
            wanted.append(value.object_id)
    with interrupts, worker.lock:
        found = take(wanted)
    return _copied([found.get(value.object_id) or value for value in values])


def _copied(values: list[m.Outcome]) -> tuple[list[m.Outcome], str]:
    """The same with their bytes, and what is left out of that, in words."""
    room = limits.REPLAY_RUN_BYTES_MAX
    found, over = [], []
    for value in values:
        here = not value.kind & m.LOCATED or type(value.value) is not bytes
        size = max(value.size, len(value.value) if type(value.value) is bytes else 0)
        if here and size <= room:
            data = bytes(bytes_of(value))
            room -= len(data)
            kind = value.kind & ~m.LOCATED
            found.append(m.Outcome(value.object_id, kind, len(data), data, value.contained))
        else:
            over.append(size)
            found.append(_elsewhere(value))
    if not over:
        return found, ""
    which = f"{len(over)} arguments" if len(over) > 1 else "an argument"
    return found, (
        f"{which} of {sum(over):,} bytes: more than the {limits.REPLAY_RUN_BYTES_MAX:,} that are "
        "kept of one attempt"
    )
