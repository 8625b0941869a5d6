"""``get_runtime_context``: what a driver or task may know about itself."""

from __future__ import annotations

from typing import Any

from zray import limits
from zray.api import cluster
from zray.api.actor_handles import ActorHandle
from zray.api.session import participant
from zray.ids import object_id
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
        """Of an actor's method with its class, such as "Counter.add"; None outside of a task."""
        info, call = self._actor_info(), self._call()
        if info is not None and call is not None:
            return f"{info.class_name}.{call.method}"
        template = self._template()
        return str(template.name) if template is not None else None

    def get_attempt(self) -> int:
        """1 for the first time that the task runs; 0 outside of a task."""
        assignment = getattr(self._participant, "assignment", None)
        return int(assignment.attempt) if assignment is not None else 0

    def get_assigned_resources(self) -> dict[str, float]:
        """What the running task has taken, or the actor keeps, such as ``{"CPU": 1.0}``."""
        info, template = self._actor_info(), self._template()
        if info is not None:
            pairs = info.held
        else:
            pairs = template.resources if template is not None else []
        return {name: amount / limits.RESOURCE_UNIT for name, amount in pairs}

    def get_actor_id(self) -> str | None:
        """Of the actor that asks; None outside of one."""
        return self._actor_id().hex() or None

    def get_actor_name(self) -> str | None:
        """Of the actor that asks, empty if it has none; None outside of an actor."""
        info = self._actor_info()
        return str(info.name) if info is not None else None

    @property
    def current_actor(self) -> ActorHandle[Any]:
        """A handle of the actor that asks.

        Raises:
            RuntimeError: outside of an actor.
        """
        info = self._actor_info()
        if info is None:
            raise RuntimeError("This method is only available in an actor.")
        return ActorHandle(self._participant.borrow(object_id(self._actor_id())), info)

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether the actor that asks was restarted.

        Raises:
            RuntimeError: outside of an actor.
        """
        if not self._actor_id():
            raise RuntimeError("This method is only available in an actor.")
        return bool(self._participant.actor_restarts > 0)

    def is_canceled(self) -> bool:
        """Whether ``zray.cancel`` was called on the running task or call.

        Raises:
            RuntimeError: in a driver, or in an async actor, whose coroutine is cancelled instead.
        """
        if self._setup() is None:
            raise RuntimeError("This method is only available when the process is a worker.")
        info = self._actor_info()
        if info is not None and info.is_async:
            raise RuntimeError("This method is not supported in an async actor.")
        return bool(self._participant.cancelled())

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

    def _actor_id(self) -> bytes:
        return bytes(getattr(self._participant, "actor_id", b""))

    def _actor_info(self) -> Any:
        return getattr(self._participant, "actor_info", None)

    def _call(self) -> Any:
        current_call = getattr(self._participant, "current_call", None)
        return current_call() if current_call is not None else None

    def _setup(self) -> Any:
        task_inbox = getattr(self._participant, "task_inbox", None)
        return task_inbox.setup if task_inbox is not None else None

    def _template(self) -> Any:
        assignment = getattr(self._participant, "assignment", None)
        if assignment is None:
            return None
        return self._participant.task_inbox.templates[assignment.spec.template_id]


def get_runtime_context() -> RuntimeContext:
    """About this process and the task that runs in it; connects if need be."""
    return RuntimeContext(participant())


def get_gpu_ids() -> list[int | str]:
    """The GPUs that the running task or actor may use, as CUDA_VISIBLE_DEVICES names them."""
    import os

    found = participant()
    if getattr(found, "assignment", None) is None and not getattr(found, "actor_id", b""):
        return []
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return [int(name) if name.isdigit() else name for name in names]
