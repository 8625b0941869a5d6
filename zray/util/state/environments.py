"""The runtime environments of all nodes: which are there, being built or failed, and their cache.

Nodes are asked one after the other; who does not answer in time is named.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from zray import limits
from zray.errors import HeadSilentError, StateQueryError, ZrayError
from zray.nodes.driver.operator import Operator
from zray.protocol import messages as m
from zray.util.state.memory import operator
from zray.util.state.records import StateRecord
from zray.util.state.source import filters_of

TIMEOUT_S = limits.HELD_WAIT_S + 1.0


@dataclass
class RuntimeEnvState(StateRecord):
    """An environment of a job on a node.

    Ray's fields come first; ``success`` is None while it is being built, ``ref_cnt`` counts workers
    and waiting tasks.
    """

    runtime_env: dict[str, Any]
    success: bool | None
    creation_time_ms: float | None
    node_id: str
    ref_cnt: int
    error: str | None
    job_id: str
    node: str
    state: str
    size_bytes: int
    workers: int
    waiting: int


@dataclass
class EnvironmentCache:
    """What all that is built on a node takes there, and may if nobody uses it."""

    node: str
    used_bytes: int
    bytes_max: int
    environments: int


@dataclass
class EnvironmentReport:
    """``silent``: nodes that have not answered."""

    environments: list[RuntimeEnvState] = field(default_factory=list)
    caches: list[EnvironmentCache] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)


def gather(asked: Operator, timeout: float = TIMEOUT_S) -> EnvironmentReport:
    """What all nodes have.

    Raises:
        HeadConnectionError: the connection was lost; HeadSilentError: the head does not answer.
    """
    report = EnvironmentReport()
    for node in asked.page(m.NODES).nodes:
        if node.state != "ALIVE":
            continue
        answer = None
        with contextlib.suppress(HeadSilentError, StateQueryError):
            question = m.ListEnvironments(0, bytes(16), node.node_id)
            answer = asked.ask(question, m.EnvironmentsListed, timeout)
        if answer is None:
            report.silent.append(node.name)
            continue
        report.environments += [_of(row, node) for row in answer.environments]
        sizes = (answer.bytes, answer.bytes_max, answer.known)
        report.caches.append(EnvironmentCache(node.name, *sizes))
    return report


def _of(row: m.ListedEnvironment, node: Any) -> RuntimeEnvState:
    done = row.state in ("READY", "FAILED")
    return RuntimeEnvState(
        runtime_env=json.loads(row.shown),
        success=row.state == "READY" if done else None,
        creation_time_ms=round(row.seconds * 1000, 1) if done else None,
        node_id=node.node_id.hex(),
        ref_cnt=row.workers + row.waiting,
        error=row.error or None,
        job_id=row.job_id.hex(),
        node=node.name,
        state=row.state,
        size_bytes=row.bytes,
        workers=row.workers,
        waiting=row.waiting,
    )


def list_runtime_envs(
    address: str | None = None,
    filters: Sequence[tuple[str, str, Any]] | None = None,
    limit: int = 100,
    timeout: float = TIMEOUT_S,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[RuntimeEnvState]:
    """The environments of all nodes that had to be built, or are being, those named last first.

    Raises:
        HeadConnectionError: the head cannot be reached. ZrayError: this process is a task, or
        ``raise_on_missing_output`` is set and a node has not answered.
    """
    wanted = [(one.key, "!=" if one.negated else "=", one.value) for one in filters_of(filters)]
    asker = operator(address)
    if asker is None:
        raise ZrayError(
            "a task cannot ask nodes for environments, nor are there nodes in local mode"
        )
    with asker as asked:
        report = gather(asked, timeout)
    if report.silent and raise_on_missing_output:
        raise HeadSilentError(f"nodes have not answered: {', '.join(report.silent)}")
    return passing(report.environments, wanted)[:limit]


def passing(
    rows: list[RuntimeEnvState], filters: Sequence[tuple[str, str, str]]
) -> list[RuntimeEnvState]:
    """Those for which all of ``(field, "=" or "!=", value)`` hold."""
    for key, predicate, value in filters:
        rows = [row for row in rows if (str(row.get(key)) == value) is (predicate == "=")]
    return rows
