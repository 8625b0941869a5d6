"""What the state API tells of each kind of things, with Ray's names; made of the head's rows.

Records are like Ray's: fields are attributes and items, and those of ``detail`` are None where that
was not asked for. What zray does not have is None; what Ray does not have comes last: ``reason``,
which says what a thing waits for, and others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from zray import limits
from zray.core import bundles
from zray.protocol import messages as m

CALL_SITE = "disabled"  # what Ray says where it is not recorded


@dataclass
class StateRecord:
    """What all have. ``DETAILS``: fields that are told with ``detail`` alone."""

    DETAILS: ClassVar[tuple[str, ...]] = ()

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self, name)
        except AttributeError:
            raise KeyError(name) from None

    def get(self, name: str, default: Any = None) -> Any:
        """A field, as of a dict."""
        return getattr(self, name, default)

    def asdict(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)

    @classmethod
    def columns(cls, *, detail: bool) -> list[str]:
        """The fields, in order."""
        names = [field.name for field in fields(cls)]
        return [name for name in names if detail or name not in cls.DETAILS]

    def brief(self) -> Any:
        """The same without its details."""
        for name in self.DETAILS:
            setattr(self, name, None)
        return self


@dataclass
class TaskState(StateRecord):
    """An attempt of a task, or a call of an actor."""

    task_id: str
    attempt_number: int
    name: str
    state: str
    job_id: str
    actor_id: str | None
    type: str
    func_or_class_name: str
    parent_task_id: str
    node_id: str | None
    worker_id: str | None
    worker_pid: int | None
    error_type: str | None
    language: str | None = None
    required_resources: dict[str, float] | None = None
    runtime_env_info: dict[str, Any] | None = None
    placement_group_id: str | None = None
    events: list[dict[str, Any]] | None = None
    profiling_data: dict[str, Any] | None = None
    creation_time_ms: int | None = None
    start_time_ms: int | None = None
    end_time_ms: int | None = None
    task_log_info: dict[str, Any] | None = None
    error_message: str | None = None
    is_debugger_paused: bool | None = None
    call_site: str | None = None
    label_selector: dict[str, str] | None = None
    fallback_strategy: dict[str, Any] | None = None
    reason: str | None = None
    error_code: str | None = None

    DETAILS = (
        *("language", "required_resources", "runtime_env_info", "placement_group_id", "events"),
        *("profiling_data", "creation_time_ms", "start_time_ms", "end_time_ms", "task_log_info"),
        *("error_message", "is_debugger_paused", "call_site", "label_selector"),
        *("fallback_strategy", "error_code"),
    )

    @classmethod
    def of(cls, row: m.ListedTask) -> TaskState:
        """The record of a row."""
        return cls(
            task_id=row.task_id.hex(),
            attempt_number=row.attempt,
            name=row.name,
            state=row.state,
            job_id=row.job_id.hex(),
            actor_id=_id(row.actor_id),
            type=row.type,
            func_or_class_name=row.name,
            parent_task_id=row.parent_task_id.hex(),
            node_id=_id(row.node_id),
            worker_id=_id(row.worker_id),
            worker_pid=row.pid or None,
            error_type=row.error_type or None,
            language="PYTHON",
            required_resources=_amounts(bundles.plain(row.resources)),
            placement_group_id=_id(bundles.group_of(row.resources)),
            events=_task_events(row),
            start_time_ms=_ms(row.started_s),
            end_time_ms=_ms(row.ended_s),
            error_message=row.error_message or None,
            is_debugger_paused=row.reason.startswith("BREAKPOINT"),
            reason=row.reason or None,
            error_code=row.error_code or None,
        )


@dataclass
class ActorState(StateRecord):
    """An actor."""

    actor_id: str
    class_name: str
    state: str
    job_id: str
    name: str | None
    node_id: str | None
    pid: int | None
    ray_namespace: str | None
    serialized_runtime_env: str | None = None
    required_resources: dict[str, float] | None = None
    death_cause: dict[str, Any] | None = None
    is_detached: bool | None = None
    placement_group_id: str | None = None
    repr_name: str | None = None
    num_restarts: int | None = None
    num_restarts_due_to_lineage_reconstruction: int | None = None
    num_restarts_due_to_node_preemption: int | None = None
    call_site: str | None = None
    label_selector: dict[str, str] | None = None
    fallback_strategy: dict[str, Any] | None = None
    reason: str | None = None
    worker_id: str | None = None
    start_time_ms: int | None = None
    end_time_ms: int | None = None

    DETAILS = (
        *("serialized_runtime_env", "required_resources", "death_cause", "is_detached"),
        *("placement_group_id", "repr_name", "num_restarts"),
        "num_restarts_due_to_lineage_reconstruction",
        "num_restarts_due_to_node_preemption",
        *("call_site", "label_selector", "fallback_strategy", "worker_id", "start_time_ms"),
        "end_time_ms",
    )

    @classmethod
    def of(cls, row: m.ListedActor) -> ActorState:
        """The record of a row."""
        cause = {"error_message": row.death_cause} if row.death_cause else None
        return cls(
            actor_id=row.actor_id.hex(),
            class_name=row.class_name,
            state=row.state,
            job_id=row.job_id.hex(),
            name=row.name,
            node_id=_id(row.node_id),
            pid=row.pid,
            ray_namespace=row.namespace,
            required_resources=_amounts(bundles.plain(row.resources)),
            placement_group_id=_id(bundles.group_of(row.resources)),
            death_cause=cause,
            is_detached=row.detached,
            repr_name="",
            num_restarts=row.restarts,
            num_restarts_due_to_lineage_reconstruction=0,
            num_restarts_due_to_node_preemption=0,
            reason=row.reason or None,
            worker_id=_id(row.worker_id),
            start_time_ms=_ms(row.started_s),
            end_time_ms=_ms(row.ended_s),
        )


@dataclass
class ObjectState(StateRecord):
    """An object, and one of those that hold it; ``references``: all, as ``memory`` has them."""

    object_id: str
    object_size: int
    task_status: str
    attempt_number: int
    reference_type: str
    call_site: str
    type: str
    pid: int
    ip: str
    state: str = ""
    node_ids: list[str] | None = None
    num_holders: int = 0
    holder_id: str | None = None
    references: list[dict[str, Any]] | None = None

    @classmethod
    def of(cls, row: m.ListedObject) -> ObjectState:
        """The record of a row."""
        return cls(
            object_id=row.object_id.hex(),
            object_size=row.size if row.state != "PENDING" else -1,
            task_status=row.task_state,
            attempt_number=1,
            reference_type=row.reference_type,
            call_site=CALL_SITE,
            type=row.type,
            pid=row.pid,
            ip=row.host,
            state=row.state,
            node_ids=[place.hex() for place in row.places],
            num_holders=row.holders,
            holder_id=_id(row.holder_id),
        )


@dataclass
class NodeState(StateRecord):
    """A node."""

    node_id: str
    node_ip: str
    is_head_node: bool
    state: str
    state_message: str | None
    node_name: str
    resources_total: dict[str, float]
    labels: dict[str, str]
    start_time_ms: int | None = None
    end_time_ms: int | None = None
    resources_available: dict[str, float] | None = None
    num_workers: int | None = None
    tasks_running: int | None = None
    tasks_queued: int | None = None
    tasks_finished: int | None = None
    pid: int | None = None

    DETAILS = (
        *("start_time_ms", "end_time_ms", "resources_available", "num_workers"),
        *("tasks_running", "tasks_queued", "tasks_finished", "pid"),
    )

    @classmethod
    def of(cls, row: m.ListedNode) -> NodeState:
        """The record of a row."""
        return cls(
            node_id=row.node_id.hex(),
            node_ip=row.host,
            is_head_node=row.is_head,
            state=row.state,
            state_message=row.message or None,
            node_name=row.name,
            resources_total=_amounts(row.resources),
            labels=dict(row.labels),
            start_time_ms=_ms(row.started_s),
            end_time_ms=_ms(row.ended_s),
            resources_available=_amounts(row.available),
            num_workers=row.workers,
            tasks_running=row.running,
            tasks_queued=row.queued,
            tasks_finished=row.finished,
            pid=row.pid,
        )


@dataclass
class WorkerState(StateRecord):
    """A worker process, or a driver."""

    worker_id: str
    is_alive: bool
    worker_type: str
    exit_type: str | None
    node_id: str
    ip: str
    pid: int
    exit_detail: str | None = None
    worker_launch_time_ms: int | None = None
    worker_launched_time_ms: int | None = None
    start_time_ms: int | None = None
    end_time_ms: int | None = None
    debugger_port: int | None = None
    num_paused_threads: int | None = None
    job_id: str | None = None
    actor_id: str | None = None

    DETAILS = (
        *("exit_detail", "worker_launch_time_ms", "worker_launched_time_ms", "start_time_ms"),
        *("end_time_ms", "debugger_port", "num_paused_threads", "job_id", "actor_id"),
    )

    @classmethod
    def of(cls, row: m.ListedWorker) -> WorkerState:
        """The record of a row."""
        return cls(
            worker_id=row.worker_id.hex(),
            is_alive=row.alive,
            worker_type=row.type,
            exit_type=row.exit_type or None,
            node_id=row.node_id.hex(),
            ip=row.host,
            pid=row.pid,
            exit_detail=row.exit_detail or None,
            start_time_ms=_ms(row.started_s),
            end_time_ms=_ms(row.ended_s),
            job_id=_id(row.job_id),
            actor_id=_id(row.actor_id),
        )


@dataclass
class JobState(StateRecord):
    """The job of a driver, or a submitted job, which is that of its supervisor."""

    job_id: str
    submission_id: str | None
    entrypoint: str
    type: str
    status: str
    message: str | None
    error_type: str | None
    driver_info: dict[str, Any] | None
    start_time: int | None = None
    end_time: int | None = None
    metadata: dict[str, str] | None = None
    runtime_env: dict[str, Any] | None = None
    driver_agent_http_address: str | None = None
    driver_node_id: str | None = None
    driver_exit_code: int | None = None
    user: str | None = None
    is_connected: bool | None = None
    is_detached: bool | None = None
    tasks_unfinished: int | None = None
    tasks_finished: int | None = None

    DETAILS = (
        *("start_time", "end_time", "metadata", "runtime_env", "driver_agent_http_address"),
        *("driver_node_id", "driver_exit_code", "user", "is_connected", "is_detached"),
        *("tasks_unfinished", "tasks_finished"),
    )

    @classmethod
    def of(cls, row: m.ListedJob) -> JobState:
        """The record of a row."""
        driver = {"id": row.job_id.hex(), "node_ip_address": row.host, "pid": str(row.pid)}
        return cls(
            job_id=row.job_id.hex(),
            submission_id=row.submission_id or None,
            entrypoint=row.entrypoint,
            type="SUBMISSION" if row.detached and row.submission_id else "DRIVER",
            status=row.status,
            message=row.message or None,
            error_type=None,
            driver_info=driver,
            start_time=_ms(row.started_s),
            end_time=_ms(row.ended_s),
            user=row.user,
            is_connected=row.connected,
            is_detached=row.detached,
            tasks_unfinished=row.unfinished,
            tasks_finished=row.finished,
        )


@dataclass
class ClusterEventState(StateRecord):
    """Something that has happened; ``time`` is in seconds since 1970."""

    severity: str
    time: str
    source_type: str
    message: str
    event_id: str
    custom_fields: dict[str, Any] | None = None

    DETAILS = ("custom_fields",)

    @classmethod
    def of(cls, row: m.ListedEvent) -> ClusterEventState:
        """The record of a row."""
        return cls(
            severity=row.severity,
            time=f"{row.time_s:.6f}",
            source_type=row.source,
            message=row.message,
            event_id=str(row.number),
            custom_fields={"label": row.label, "subject": row.subject.hex()},
        )


def summary_of(answer: m.Summary) -> dict[str, Any]:
    """A summary as Ray has it, of the whole cluster."""
    groups = answer.groups
    found: dict[str, Any] = {"summary": {}, "summary_by": "func_name"}
    if answer.kind == m.TASKS:
        totals = dict.fromkeys((m.NORMAL_TASK, m.ACTOR_TASK, m.ACTOR_CREATION_TASK), 0)
        for group in groups:
            totals[group.type] = totals.get(group.type, 0) + sum(n for _, n in group.states)
            entry = {"func_or_class_name": group.name, "type": group.type}
            key = group.name
            if key in found["summary"]:  # a task and a method may be called the same
                key = f"{group.name} ({group.type})"
            found["summary"][key] = {**entry, "state_counts": dict(group.states)}
        found["total_tasks"] = totals[m.NORMAL_TASK]
        found["total_actor_tasks"] = totals[m.ACTOR_TASK]
        found["total_actor_scheduled"] = totals[m.ACTOR_CREATION_TASK]
        found["total_unlisted"] = answer.unlisted
    elif answer.kind == m.ACTORS:
        found["summary_by"] = "class"
        for group in groups:
            found["summary"][group.name] = {
                "class_name": group.name,
                "state_counts": dict(group.states),
            }
        found["total_actors"] = sum(n for group in groups for _, n in group.states)
    else:
        found["summary_by"] = "reference_type"
        for group in groups:
            found["summary"][group.name] = {
                "total_objects": sum(n for _, n in group.states),
                "total_size_mb": group.bytes / 2**20,
                "state_counts": dict(group.states),
            }
        found["total_objects"] = answer.total
        found["total_size_mb"] = sum(group.bytes for group in groups) / 2**20
        found["callsite_enabled"] = False
    return {"cluster": found}


def _id(data: bytes) -> str | None:
    return data.hex() or None


def _ms(seconds: float) -> int | None:
    return round(seconds * 1000) if seconds else None


def _amounts(pairs: Iterable[tuple[str, int]]) -> dict[str, float]:
    return {name: amount / limits.RESOURCE_UNIT for name, amount in pairs}


def _task_events(row: m.ListedTask) -> list[dict[str, Any]]:
    found = []
    if row.started_s:
        found.append({"state": m.RUNNING, "created_ms": _ms(row.started_s)})
    if row.ended_s:
        found.append({"state": row.state, "created_ms": _ms(row.ended_s)})
    return found
