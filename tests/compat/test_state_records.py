"""Records of the state API have Ray's fields, and tell with ``detail`` what Ray tells so."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from zray.protocol import messages as m
from zray.util.state import kinds, records

# Ray 2.60: fields of each, those of ``detail`` behind the bar.
FIELDS = {
    records.TaskState: (
        "task_id attempt_number name state job_id actor_id type func_or_class_name parent_task_id "
        "node_id worker_id worker_pid error_type | language required_resources runtime_env_info "
        "placement_group_id events profiling_data creation_time_ms start_time_ms end_time_ms "
        "task_log_info error_message is_debugger_paused call_site label_selector fallback_strategy"
    ),
    records.ActorState: (
        "actor_id class_name state job_id name node_id pid ray_namespace | serialized_runtime_env "
        "required_resources death_cause is_detached placement_group_id repr_name num_restarts "
        "num_restarts_due_to_lineage_reconstruction num_restarts_due_to_node_preemption call_site "
        "label_selector fallback_strategy"
    ),
    records.ObjectState: (
        "object_id object_size task_status attempt_number reference_type call_site type pid ip |"
    ),
    records.NodeState: (
        "node_id node_ip is_head_node state state_message node_name resources_total labels | "
        "start_time_ms end_time_ms"
    ),
    records.WorkerState: (
        "worker_id is_alive worker_type exit_type node_id ip pid | exit_detail "
        "worker_launch_time_ms worker_launched_time_ms start_time_ms end_time_ms debugger_port "
        "num_paused_threads"
    ),
    records.JobState: (
        "job_id submission_id entrypoint type status message error_type driver_info | start_time "
        "end_time metadata runtime_env driver_agent_http_address driver_node_id driver_exit_code"
    ),
    records.ClusterEventState: "severity time source_type message event_id | custom_fields",
    kinds.PlacementGroupState: (
        "placement_group_id name creator_job_id state | bundles is_detached stats"
    ),
}
ROWS: dict[Any, Any] = {
    records.TaskState: m.ListedTask(bytes(16), 0, "f", m.ENDED_WELL, started_s=1.5, ended_s=2.0),
    records.ActorState: m.ListedActor(bytes(16), "Counter", "ALIVE"),
    records.ObjectState: m.ListedObject(bytes(20), 7, "READY"),
    records.NodeState: m.ListedNode(bytes(16), "one", "ALIVE"),
    records.WorkerState: m.ListedWorker(bytes(16), True),
    records.JobState: m.ListedJob(bytes(16), "RUNNING"),
    records.ClusterEventState: m.ListedEvent(1, 1.5, "INFO", "NODE", "NODE_JOINED", "joined"),
    kinds.PlacementGroupState: m.ListedGroup(
        *(bytes(16), "", "CREATED", "PACK", bytes(16), False),
        [m.Bundle([("CPU", 10_000)])],
        [bytes(16)],
    ),
}


@pytest.mark.parametrize("record", FIELDS, ids=lambda one: one.__name__)
def test_fields_are_rays_in_rays_order(record: Any) -> None:
    base, detail = (part.split() for part in FIELDS[record].split("|"))
    names = [field.name for field in dataclasses.fields(record)]
    assert names[: len(base) + len(detail)] == [*base, *detail]
    assert set(detail) <= set(record.DETAILS)
    assert not set(base) & set(record.DETAILS)


@pytest.mark.parametrize("record", FIELDS, ids=lambda one: one.__name__)
def test_a_record_is_made_of_a_row_and_can_be_read_as_a_dict(record: Any) -> None:
    made = record.of(ROWS[record])
    name = next(iter(made.asdict()))
    assert made[name] == made.get(name) == getattr(made, name) == made.asdict()[name]
    assert made.get("no such field", 7) == 7
    with pytest.raises(KeyError):
        made["no such field"]
    brief = record.of(ROWS[record]).brief()
    assert all(brief[name] is None for name in record.DETAILS)


def test_times_are_in_milliseconds_and_amounts_in_ordinary_units() -> None:
    made = records.TaskState.of(ROWS[records.TaskState])
    assert (made.start_time_ms, made.end_time_ms) == (1500, 2000)
    node = records.NodeState.of(
        m.ListedNode(bytes(16), "one", "ALIVE", resources=[("CPU", 25_000)])
    )
    assert node.resources_total == {"CPU": 2.5}


def test_a_summary_has_rays_keys() -> None:
    groups = [
        m.Group("f", m.NORMAL_TASK, [("FINISHED", 3), ("FAILED", 1)]),
        m.Group("f", m.ACTOR_TASK, [("RUNNING", 2)]),
    ]
    found = records.summary_of(m.Summary(0, 1, m.TASKS, 6, groups))["cluster"]
    assert (found["total_tasks"], found["total_actor_tasks"]) == (4, 2)
    assert found["total_actor_scheduled"] == 0 and found["summary_by"] == "func_name"
    assert found["summary"]["f"] == {
        "func_or_class_name": "f",
        "type": m.NORMAL_TASK,
        "state_counts": {"FINISHED": 3, "FAILED": 1},
    }
    assert len(found["summary"]) == 2
