"""``get_runtime_context``: what a driver or task may know about itself."""

from __future__ import annotations

import json
import tempfile
from typing import Any

from zray import limits
from zray.api import cluster, placement
from zray.api.actor_handles import ActorHandle
from zray.api.runtime_env import RuntimeEnv
from zray.api.session import participant
from zray.core import bundles
from zray.core.environments import described
from zray.ids import object_id
from zray.runtime import id_types, session


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

    def get_session_name(self) -> str:
        """Of the cluster, which has another one after each start that has no store."""
        return f"session_{cluster.cluster_id(self._participant).hex()}"

    def get_temp_dir(self) -> str:
        """The folder for temporary files of this process."""
        return tempfile.gettempdir()

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

    def get_node_labels(self) -> dict[str, str]:
        """Of the node whose worker asks, as given to it at its start; for a driver as above."""
        node_id = self.get_node_id()
        found = [node["Labels"] for node in cluster.nodes() if node["NodeID"] == node_id]
        return dict(found[0]) if found else {}

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

    def get_task_function_name(self) -> str | None:
        """Of the function itself, whatever ``name`` the task has; None outside of a task."""
        template = self._template()
        if template is None or self._actor_info() is not None:
            return self.get_task_name()
        function = self._participant.task_inbox.functions.get(template.function_id)
        return str(function.name) if function is not None else str(template.name)

    @property
    def runtime_env(self) -> RuntimeEnv:
        """The runtime environment of the running task or actor; of a driver, that of its job."""
        return RuntimeEnv.of(described(self._participant.environment))

    def get_runtime_env_string(self) -> str:
        """The same as JSON."""
        return json.dumps(self.runtime_env, sort_keys=True)

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
        pairs = bundles.plain(pairs)
        return {name: amount / limits.RESOURCE_UNIT for name, amount in pairs if amount}

    @property
    def job_id(self) -> id_types.JobID:
        """As ``get_job_id``, as an object."""
        return id_types.JobID.from_hex(self.get_job_id())

    @property
    def node_id(self) -> id_types.NodeID:
        """As ``get_node_id``, as an object."""
        return id_types.NodeID.from_hex(self.get_node_id())

    @property
    def task_id(self) -> id_types.TaskID | None:
        """As ``get_task_id``, as an object."""
        found = self.get_task_id()
        return id_types.TaskID.from_hex(found) if found else None

    @property
    def actor_id(self) -> id_types.ActorID | None:
        """As ``get_actor_id``, as an object."""
        found = self.get_actor_id()
        return id_types.ActorID.from_hex(found) if found else None

    @property
    def worker_id(self) -> id_types.WorkerID:
        """As ``get_worker_id``, as an object."""
        return id_types.WorkerID.from_hex(self.get_worker_id())

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

    @property
    def current_placement_group_id(self) -> id_types.PlacementGroupID:
        """As ``get_placement_group_id``, as an object; the nil id: in none."""
        where = placement.current(self._participant)
        if where is None:
            return id_types.PlacementGroupID.nil()
        return id_types.PlacementGroupID(where.group_id)

    def get_placement_group_id(self) -> str | None:
        """Of the group in which the task or actor runs; None: in none."""
        where = placement.current(self._participant)
        return where.group_id.hex() if where is not None else None

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        """Whether what the task or actor submits runs in its group, too."""
        where = placement.current(self._participant)
        return where is not None and bool(where.captures)

    def get_resource_ids(self) -> dict[str, list[str]]:
        """As ``get_accelerator_ids``; Ray has both names."""
        return self.get_accelerator_ids()

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """The GPUs of the running task, as ``get_gpu_ids``."""
        return {"GPU": [str(one) for one in get_gpu_ids()]}

    def get(self) -> dict[str, Any]:
        """``job_id``, ``node_id`` and ``namespace`` at once; in tasks ``task_id``, too, and in
        actors ``actor_id``."""
        found = {"job_id": self.job_id, "node_id": self.node_id, "namespace": self.namespace}
        ids = {"task_id": self.task_id, "actor_id": self.actor_id}
        return {**found, **{name: one for name, one in ids.items() if one is not None}}

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
    """The GPUs that the running task or actor may use, as CUDA_VISIBLE_DEVICES names them; AMD's as
    HIP_VISIBLE_DEVICES does. Instances of MIG have UUIDs."""
    import os

    if not get_runtime_context().get_assigned_resources().get("GPU"):
        return []
    told = os.environ.get("CUDA_VISIBLE_DEVICES") or os.environ.get("HIP_VISIBLE_DEVICES") or ""
    names = [name for name in told.split(",") if name]
    return [int(name) if name.isdigit() else name for name in names]
