"""Failed attempts that nodes keep: which there are; one of them fetched, or carried in a file.

Owns the asking. Runs nothing; ``replay`` does.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from zray import limits
from zray.api.cluster import nodes
from zray.api.session import participant
from zray.errors import HeadSilentError, ReplayError, RunNotKeptError, ZrayError
from zray.ids import OBJECT_BYTES, TASK_BYTES, task_of
from zray.protocol import failed_run
from zray.protocol import messages as m
from zray.protocol.failed_run import FailedRun

ANSWER_S = 5.0  # how long a node is waited for
NODES_ASKED_MAX = 64


class Fetched(NamedTuple):
    """An attempt with its function, pickled, and the bytes of both for a file."""

    run: FailedRun
    function: bytes
    data: bytes


class Kept(NamedTuple):
    """What one node keeps. ``silent``: it has not answered."""

    node: str
    runs: list[m.KeptRun]
    kept: int
    dropped: int
    bytes: int
    silent: bool


def task_id(text: str) -> bytes:
    """The id of a task, from text or from the id of what it returns.

    Raises:
        ValueError: it is neither.
    """
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) == OBJECT_BYTES:
        return task_of(found)
    if len(found) != TASK_BYTES:
        raise ValueError(
            f"{text[:80]!r} is no task's id, which has {2 * TASK_BYTES} hexadecimal digits; zray "
            "list tasks --filter state=FAILED shows them, and zray replay --list what can be "
            "replayed"
        )
    return found


def fetch(wanted: bytes) -> Fetched:
    """What is kept of a task's last failed attempt.

    Raises:
        RunNotKeptError: nothing is; the message says why, as far as is known.
        ReplayError: this process is a worker.
        HeadSilentError: no node has answered.
    """
    if not hasattr(participant(), "close"):  # a worker's
        raise ReplayError("a task cannot replay others: call zray.replay in a program")
    row = _row(wanted)
    there = _in_order(row.node_id if row is not None else "")
    said, silent = "", []
    for name, node_id in there[:NODES_ASKED_MAX]:
        part = _part(node_id, wanted, 0)
        if part is None:
            silent.append(name)
        elif part.code == RunNotKeptError.code:
            said = said or ("" if "place of" not in part.text else part.text)
        elif not part.code:
            return _rest(node_id, wanted, part)
    if silent and len(silent) == len(there):
        raise HeadSilentError(f"no node has answered within {ANSWER_S:g} s: {', '.join(silent)}")
    raise RunNotKeptError(_why_not(wanted, row, said, silent))


def _in_order(first: str) -> list[tuple[str, bytes]]:
    """The nodes that live; the one where it ran is asked before all others."""
    alive = [node for node in nodes() if node["Alive"]]
    alive.sort(key=lambda node: node["NodeID"] != first)
    return [(node["NodeName"], bytes.fromhex(node["NodeID"])) for node in alive]


def _row(wanted: bytes) -> Any:
    from zray.util.state import list_tasks

    try:
        rows = list_tasks(filters=[("task_id", "=", wanted.hex())], limit=10)
    except ZrayError:
        return None
    failed = [row for row in rows if row.state == "FAILED"]
    return next(iter(failed or rows), None)


def _part(node_id: bytes, wanted: bytes, offset: int) -> m.RunPart | None:
    connected = participant()
    source = connected.client.process_id
    answer = connected.ask(partial(_question, source, node_id, wanted, offset), ANSWER_S)
    if isinstance(answer, m.Answered):  # the head says that it cannot be asked
        return None
    return answer if isinstance(answer, m.RunPart) else None


def _question(source: bytes, node_id: bytes, wanted: bytes, offset: int, number: int) -> m.Message:
    return m.ReadRun(number, source, node_id, wanted, offset)


def _rest(node_id: bytes, wanted: bytes, first: m.RunPart) -> Fetched:
    found = first.data
    while len(found) < first.size:
        part = _part(node_id, wanted, len(found))
        if part is None or not part.data or part.size != first.size:
            raise RunNotKeptError(
                f"the node ended, or failed again to run task {wanted.hex()}, while it was read; "
                "try again"
            )
        found += part.data
    split = first.size - first.function_size
    return _opened(found[:split], found[split:])


def _opened(data: bytes, function: bytes) -> Fetched:
    return Fetched(failed_run.decode(data), function, data)


def _why_not(wanted: bytes, row: Any, said: str, silent: list[str]) -> str:
    who = "no node that answers" if silent else "no node"
    text = f"{who} keeps a failed attempt of task {wanted.hex()}"
    if row is None:
        text += ", and the head does not know the task, or not any more"
    elif row.state == "FAILED":
        why = ": ".join(filter(None, (row.error_type or "an error", row.error_message)))
        text += f"; it failed with {why[:300]}. Kept is what a task was that ran: not what was"
        text += " cancelled, stopped by an argument that had failed, or lost with its node, nor"
        text += f" more than {limits.REPLAY_WORKER_RUNS:,} failures in a row of one worker and"
        text += f" {limits.REPLAY_WORKER_RUNS_PER_S} a second after them"
    else:
        text += f"; it is {row.state}"
    if said:
        text += f" ({said})"
    if silent:
        text += f". Nodes that do not answer, and may keep one: {', '.join(silent)}"
    return text


def listed() -> list[Kept]:
    """What all nodes keep."""
    connected = participant()
    found = []
    for name, node_id in _in_order(""):
        ask = partial(_listing, connected.client.process_id, node_id)
        answer = connected.ask(ask, ANSWER_S)
        if isinstance(answer, m.RunsListed):
            counts = (answer.kept, answer.dropped, answer.bytes, False)
            found.append(Kept(name, answer.runs, *counts))
        else:
            found.append(Kept(name, [], 0, 0, 0, True))
    return found


def _listing(source: bytes, node_id: bytes, number: int) -> m.Message:
    return m.ListRuns(number, source, node_id)


# ---- files -----------------------------------------------------------------------------------


def dump(attempt: Fetched, path: Path) -> None:
    """Write it to a file, which only the user may read: it has the task's arguments."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)  # it may have been there
        file.write(failed_run.to_file(attempt.data, attempt.function))


def load(path: Path) -> Fetched:
    """Read such a file.

    Raises:
        ReplayError: it is none, or damaged.
    """
    return _opened(*failed_run.from_file(path.read_bytes()))
