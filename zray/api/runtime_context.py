"""``get_runtime_context``: what a driver or task may know about itself."""

from __future__ import annotations

from typing import Any

from zray import limits
from zray.api import cluster
from zray.api.session import participant
from zray.runtime import session


class RuntimeContext:
    """As ``ray.runtime_context.RuntimeContext``; ids are hexadecimal strings."""

    def __init__(self, participant: Any) -> None:
        self._participant = participant

    @property
    def namespace(self) -> str:
        """The namespace of names, as given to ``init``."""
        return str(self._participant.namespace)

    @property
    def gcs_address(self) -> str:
        """host:port of the head; empty in a worker."""
        return str(self._participant.address)

    def get_job_id(self) -> str:
        """Of the driver that this process serves."""
        return bytes(self._participant.client.job_id).hex()

    def get_worker_id(self) -> str:
        """Of the process that asks."""
        return bytes(self._participant.client.process_id).hex()

    def get_node_id(self) -> str:
        """Of the node whose worker asks; for a driver, of the node on its machine."""
        setup = self._setup()
        return setup.node_id.hex() if setup is not None else cluster.driver_node(self._participant)

    def get_node_name(self) -> str:
        """As given to ``zray-worker --name``; empty in a driver."""
        setup = self._setup()
        return str(setup.node_name) if setup is not None else ""

    def get_task_id(self) -> str | None:
        """None outside of a task."""
        return session.current_task().hex() or None

    def get_task_name(self) -> str | None:
        """None outside of a task."""
        template = self._template()
        return str(template.name) if template is not None else None

    def get_attempt(self) -> int:
        """1 for the first time that the task runs; 0 outside of a task."""
        assignment = getattr(self._participant, "assignment", None)
        return int(assignment.attempt) if assignment is not None else 0

    def get_assigned_resources(self) -> dict[str, float]:
        """What the running task has taken, such as ``{"CPU": 1.0}``."""
        template = self._template()
        pairs = template.resources if template is not None else []
        return {name: amount / limits.RESOURCE_UNIT for name, amount in pairs}

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """The GPUs of the running task, as ``get_gpu_ids``."""
        return {"GPU": [str(one) for one in get_gpu_ids()]}

    def get(self) -> dict[str, str]:
        """Job, node and worker id at once."""
        return {
            "job_id": self.get_job_id(),
            "node_id": self.get_node_id(),
            "worker_id": self.get_worker_id(),
        }

    def _setup(self) -> Any:
        sequence = getattr(self._participant, "sequence", None)
        return sequence.setup if sequence is not None else None

    def _template(self) -> Any:
        assignment = getattr(self._participant, "assignment", None)
        if assignment is None:
            return None
        return self._participant.sequence.templates[assignment.spec.template_id]


def get_runtime_context() -> RuntimeContext:
    """About this process and the task that runs in it; connects if need be."""
    return RuntimeContext(participant())


def get_gpu_ids() -> list[int | str]:
    """The GPUs that the running task may use, as CUDA_VISIBLE_DEVICES names them."""
    import os

    if getattr(participant(), "assignment", None) is None:
        return []
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return [int(name) if name.isdigit() else name for name in names]
