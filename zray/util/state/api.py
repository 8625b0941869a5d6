"""The functions of ``ray.util.state``: what there is in the cluster, and what has become of it.

Each asks the head, which filters; that costs the cluster nothing while nobody asks. What they give
is described in `records`. ``address``: of a head, ``host:port``; None: this program's cluster, or
else this machine's. All of them raise StateQueryError for what cannot be asked so, and
HeadConnectionError or HeadSilentError where there is no answer. ``_explain`` changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zray import limits
from zray.protocol import messages as m
from zray.util.state.kinds import RECORDS, PlacementGroupState
from zray.util.state.records import (
    ActorState,
    ClusterEventState,
    JobState,
    NodeState,
    ObjectState,
    TaskState,
    WorkerState,
    summary_of,
)
from zray.util.state.source import Source, filters_of, source

DEFAULT_LIMIT = 100
DEFAULT_RPC_TIMEOUT = 30

Filters = Sequence[tuple[str, str, Any]] | None


class StateList(list[Any]):
    """Rows, and what is to be known of them.

    Attributes:
        total: how many of the kind the head knows, whatever the filters.
        truncated: there may be more of them than ``limit``.
        dropped: ended tasks of which only the number is known.
        unlisted: unfinished tasks that only their submitters and nodes know.
    """

    total = 0
    truncated = False
    dropped = 0
    unlisted = 0


def listed(
    asked: Source,
    kind: str,
    filters: Filters,
    limit: int,
    timeout: float,
    detail: bool,
    only: bytes = b"",
) -> StateList:
    """Rows of a kind, as records: page after page, until there are ``limit`` of them."""
    if type(limit) is not int or limit < 0:
        raise ValueError(f"limit must be a whole number from 0, got {limit!r}")
    record, wanted, cursor = RECORDS[kind], filters_of(filters), b""
    found = StateList()
    while True:
        count = min(max(limit - len(found), 1), limits.LISTED_ROWS_MAX)
        question = m.List(0, m.KINDS[kind], wanted, count, cursor, only)
        page = asked.ask(question, m.Listed, timeout)
        found += [record.of(row) for row in getattr(page, kind)]
        found.total, found.dropped, found.unlisted = page.total, page.dropped, page.unlisted
        cursor = page.cursor
        if not cursor or len(found) >= limit:
            found.truncated = bool(cursor)
            break
    del found[limit:]
    if not detail:
        for one in found:
            one.brief()
    return found


def _list(
    kind: str, address: str | None, filters: Filters, limit: int, timeout: float, detail: bool
) -> StateList:
    with source(address) as asked:
        return listed(asked, kind, filters, limit, timeout, detail)


def _get(kind: str, name: str, address: str | None, timeout: float) -> StateList:
    try:
        only = bytes.fromhex(name)
    except (ValueError, TypeError):
        return StateList()
    if not 0 < len(only) <= 20:
        return StateList()
    with source(address) as asked:
        return listed(asked, kind, None, limits.LISTED_ROWS_MAX, timeout, True, only)


# ---- lists -------------------------------------------------------------------------------------


def list_tasks(
    address: str | None = None,
    filters: Filters = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[TaskState]:
    """Tasks and actors' calls, an entry for each attempt: what is unfinished, then what has failed,
    then what has finished, the latest first.

    The head knows unfinished tasks that went by way of it, and others once they run for 0.1 s. Of
    ended ones it keeps the last; see ``StateList.dropped``. That never raises.
    """
    return _list("tasks", address, filters, limit, timeout, detail)


def list_actors(
    address: str | None = None,
    filters: Filters = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[ActorState]:
    """The actors that there are, then those that are dead, the latest first."""
    return _list("actors", address, filters, limit, timeout, detail)


def list_objects(
    address: str | None = None,
    filters: Filters = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[ObjectState]:
    """The objects that there are, one entry each, with all that hold them (``references``).

    Those that the head knows of come first, then those that only drivers and workers know, which
    are asked (see ``memory``). In a task it is the head's word alone.
    """
    found = _list("objects", address, filters, limit, timeout, detail)
    return _with_references(found, address, filters_of(filters), limit)


def list_nodes(
    address: str | None = None,
    filters: Filters = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[NodeState]:
    """The nodes that there are, then those that are dead, the latest first."""
    return _list("nodes", address, filters, limit, timeout, detail)


def list_workers(
    address: str | None = None,
    filters: Filters = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[WorkerState]:
    """Drivers and worker processes, then those that have ended, the latest first."""
    return _list("workers", address, filters, limit, timeout, detail)


def list_jobs(
    address: str | None = None,
    filters: Filters = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[JobState]:
    """Submitted jobs and those of drivers: what is there, then what is over, the latest first."""
    return _list("jobs", address, filters, limit, timeout, detail)


def list_placement_groups(
    address: str | None = None,
    filters: Filters = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[PlacementGroupState]:
    """The placement groups that there are, and the last ones that were removed."""
    return _list("placement_groups", address, filters, limit, timeout, detail)


def list_cluster_events(
    address: str | None = None,
    filters: Filters = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[ClusterEventState]:
    """What has happened to nodes, workers, actors and jobs, the latest first."""
    return _list("events", address, filters, limit, timeout, detail)


# ---- one thing ---------------------------------------------------------------------------------


def get_task(
    id: Any,
    address: str | None = None,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    _explain: bool = False,
) -> TaskState | list[TaskState] | None:
    """A task by its id, in hexadecimal, or by a reference to its result; None: it is not known.

    A list of its attempts, if there are several.
    """
    name = id if isinstance(id, str) else id.task_id().hex()
    found = _get("tasks", name, address, timeout)
    return found if len(found) > 1 else _first(found)


def get_actor(
    id: str,
    address: str | None = None,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    _explain: bool = False,
) -> ActorState | None:
    """An actor by its id; None: it is not known."""
    found: ActorState | None = _first(_get("actors", id, address, timeout))
    return found


def get_node(
    id: str,
    address: str | None = None,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    _explain: bool = False,
) -> NodeState | None:
    """A node by its id; None: it is not known."""
    found: NodeState | None = _first(_get("nodes", id, address, timeout))
    return found


def get_worker(
    id: str,
    address: str | None = None,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    _explain: bool = False,
) -> WorkerState | None:
    """A worker or driver by its id; None: it is not known."""
    found: WorkerState | None = _first(_get("workers", id, address, timeout))
    return found


def get_job(
    id: str,
    address: str | None = None,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    _explain: bool = False,
) -> JobState | None:
    """A job by its id, or a submitted one by its submission id; None: it is not known."""
    found: JobState | None = _first(_get("jobs", id, address, timeout))
    if found is None:
        wanted: Filters = [("submission_id", "=", id)]
        several = _list("jobs", address, wanted, limits.LISTED_ROWS_MAX, timeout, True)
        found = next((one for one in several if one.type == "SUBMISSION"), None)
    return found


def get_placement_group(
    id: str,
    address: str | None = None,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    _explain: bool = False,
) -> PlacementGroupState | None:
    """A placement group by its id; None: it is not known."""
    found: PlacementGroupState | None = _first(_get("placement_groups", id, address, timeout))
    return found


def get_objects(
    id: str,
    address: str | None = None,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    _explain: bool = False,
) -> list[ObjectState]:
    """An object by its id, as a list of one, or of none where nobody knows it."""
    found = _get("objects", id, address, timeout)
    return _with_references(found, address, [m.Filter("object_id", id)], limits.LISTED_ROWS_MAX)


def _with_references(
    found: StateList, address: str | None, filters: list[m.Filter], limit: int
) -> StateList:
    """The same, with what the processes know of who holds each, and what only they know."""
    from zray.util.state import memory  # rarely wanted

    operator = memory.operator(address)
    if operator is not None:  # it is no task that asks
        with operator as asked:
            memory.complete(found, memory.gather(asked), filters, limit)
    return found


def _first(found: StateList) -> Any | None:
    return found[0] if found else None


# ---- summaries ---------------------------------------------------------------------------------


def summarize_tasks(
    address: str | None = None,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> dict[str, Any]:
    """How many tasks and calls there are and were since the head's start, by name and state.

    All attempts count, those of which there is no entry in ``list_tasks`` as well.
    """
    return _summarize(m.TASKS, address, timeout)


def summarize_actors(
    address: str | None = None,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> dict[str, Any]:
    """How many actors there are, by class and state; of dead ones those that are remembered."""
    return _summarize(m.ACTORS, address, timeout)


def summarize_objects(
    address: str | None = None,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> dict[str, Any]:
    """How many objects the head knows of and how large they are, by what holds them."""
    return _summarize(m.OBJECTS, address, timeout)


def _summarize(kind: int, address: str | None, timeout: float) -> dict[str, Any]:
    with source(address) as asked:
        return summary_of(asked.ask(m.Summarize(0, kind), m.Summary, timeout))
