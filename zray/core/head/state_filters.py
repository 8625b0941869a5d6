"""Which rows a list is asked for: the fields that filters may name, and how they compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from zray.errors import StateQueryError
from zray.protocol import messages as m

# Filters by what rows have it; a name of Ray's, then the row's.
IDS = {
    m.TASKS: {
        **{name: name for name in ("task_id", "job_id", "actor_id", "parent_task_id")},
        **{name: name for name in ("node_id", "worker_id")},
    },
    m.ACTORS: {name: name for name in ("actor_id", "job_id", "node_id", "worker_id")},
    m.OBJECTS: {"object_id": "object_id"},
    m.NODES: {"node_id": "node_id"},
    m.WORKERS: {name: name for name in ("worker_id", "node_id", "job_id", "actor_id")},
    m.JOBS: {"job_id": "job_id"},
    m.EVENTS: {"subject": "subject"},
    m.GROUPS: {"placement_group_id": "placement_group_id", "creator_job_id": "job_id"},
}
WORDS = {
    m.TASKS: {
        **{name: name for name in ("name", "state", "type", "error_type", "error_code")},
        "func_or_class_name": "name",
        "attempt_number": "attempt",
        "worker_pid": "pid",
    },
    m.ACTORS: {
        **{name: name for name in ("class_name", "state", "name", "pid")},
        "ray_namespace": "namespace",
        "is_detached": "detached",
    },
    m.OBJECTS: {
        **{name: name for name in ("state", "reference_type", "type", "pid")},
        "object_size": "size",
        "task_status": "task_state",
        "ip": "host",
    },
    m.NODES: {"state": "state", "node_name": "name", "node_ip": "host", "is_head_node": "is_head"},
    m.WORKERS: {
        **{name: name for name in ("exit_type", "pid")},
        "is_alive": "alive",
        "worker_type": "type",
        "ip": "host",
    },
    m.JOBS: {
        **{name: name for name in ("status", "entrypoint", "user", "pid", "submission_id")},
        "state": "status",
    },
    m.EVENTS: {"severity": "severity", "source_type": "source", "label": "label"},
    m.GROUPS: {
        **{name: name for name in ("name", "state", "strategy")},
        "is_detached": "detached",
    },
}
# The field that is the row's own id.
OWN_ID = {
    m.TASKS: "task_id",
    m.ACTORS: "actor_id",
    m.OBJECTS: "object_id",
    m.NODES: "node_id",
    m.WORKERS: "worker_id",
    m.JOBS: "job_id",
    m.EVENTS: "subject",
    m.GROUPS: "placement_group_id",
}

Test = Callable[[Any], bool]


def compiled(kind: int, filters: Sequence[m.Filter]) -> tuple[list[Test], bytes]:
    """What rows have to pass, and bytes that are in every encoded one that does, or none.

    Raises:
        StateQueryError: a filter names no field of such rows.
    """
    tests, needle = [], b""
    for one in filters:
        if (field := IDS[kind].get(one.key)) is not None:
            wanted = _id(one.value)
            tests.append(_test(field, wanted, one.negated))
            if wanted and not one.negated:
                needle = wanted
        elif (field := WORDS[kind].get(one.key)) is not None:
            tests.append(_word_test(field, one.value.casefold(), one.negated))
        else:
            name = next(name for name, number in m.KINDS.items() if number == kind)
            known = ", ".join(sorted([*IDS[kind], *WORDS[kind]]))
            raise StateQueryError(f"{name} cannot be filtered by {one.key!r}; there are: {known}")
    return tests, needle


def _id(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None  # which no row has


def _test(field: str, wanted: bytes | None, negated: bool) -> Test:
    return lambda row: (getattr(row, field) == wanted) is not negated


def _word_test(field: str, wanted: str, negated: bool) -> Test:
    return lambda row: (str(getattr(row, field)).casefold() == wanted) is not negated
