"""What a worker's log records say of the task that runs, and of the process."""

from __future__ import annotations

from zray.nodes.worker.introspection import Introspection
from zray.protocol import messages as m
from zray.runtime import log_records


class LogContext:
    """Ids are hexadecimal. What is empty has no place in a record."""

    def __init__(self, worker: Introspection, setup: m.Setup) -> None:
        self._worker = worker
        self._process = {
            "job_id": setup.job_id.hex(),
            "worker_id": worker.client.process_id.hex(),
            "node_id": setup.node_id.hex(),
        }

    def __call__(self) -> dict[str, str]:
        worker = self._worker
        found = {**self._process, "task_id": worker.running_task().hex()}
        info, call = worker.actor_info, worker.current_call()
        if info is not None:
            found["actor_id"], found["actor_name"] = worker.actor_id.hex(), info.name
        if info is not None and call is not None:
            found["task_name"] = found["task_func_name"] = f"{info.class_name}.{call.method}"
        elif found["task_id"]:
            found["task_name"], found["task_func_name"] = worker.task_names()
        return found


def configure(worker: Introspection, setup: m.Setup, settings: m.LogSettings) -> None:
    """As ``init(logging_config=...)`` asks for it."""
    context = LogContext(worker, setup)
    log_records.configure(settings.encoding, settings.level, settings.attributes, context)
