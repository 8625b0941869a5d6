"""Ray's public names: where zray has each of them, or what a program can use instead.

A table only; ``zray.compat.finder`` makes modules of it. What is neither here nor below one of
``ABSENT_MODULES`` is unknown, and importing it is an ImportError.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from zray._version import RAY_VERSION


class Home(NamedTuple):
    """Where zray has what Ray calls by another path."""

    module: str
    name: str

    def load(self) -> Any:
        """The thing itself."""
        return getattr(importlib.import_module(self.module), self.name)


class Module(NamedTuple):
    """A module of zray's that Ray has by another path."""

    module: str

    def load(self) -> Any:
        """The thing itself."""
        return importlib.import_module(self.module)


class Instead(NamedTuple):
    """Ray has the name and zray has not; what to use instead, as a clause."""

    text: str


def _homes(module: str, *names: str) -> dict[str, Home]:
    return {name: Home(module, name) for name in names}


def _instead(text: str, *names: str) -> dict[str, Instead]:
    return {name: Instead(text) for name in names}


_CROSS_LANGUAGE = (
    "code in other languages runs by name, see zray.task_by_name and zray.actor_class_by_name"
)
_CLIENT = "a driver on any machine is a full one: zray.init('host:port')"
_LATER = "it is not there yet"
_STATE = "call the functions of ray.util.state; each takes address="
_TRANSPORT = "arrays are shared on each node without a copy; there is no transport to choose"

MODULES: dict[str, dict[str, Any]] = {
    "ray": {
        "__version__": RAY_VERSION,
        "SCRIPT_MODE": 0,
        "WORKER_MODE": 1,
        **_homes(
            "zray.api.cluster",
            *("available_resources", "cluster_resources", "init", "is_initialized", "nodes"),
            "shutdown",
        ),
        **_homes("zray.api.objects", "cancel", "get", "put", "wait"),
        **_homes("zray.api.functions", "remote"),
        **_homes("zray.api.actors", "get_actor", "kill", "method"),
        **_homes("zray.api.runtime_context", "get_gpu_ids", "get_runtime_context"),
        **_homes("zray.api.timeline", "timeline"),
        **_homes("zray.runtime.references", "ObjectRef"),
        **_homes("zray.runtime.generators", "DynamicObjectRefGenerator", "ObjectRefGenerator"),
        **_homes(
            "zray.runtime.id_types",
            *("ActorClassID", "ActorID", "FunctionID", "JobID", "NodeID", "PlacementGroupID"),
            *("TaskID", "UniqueID", "WorkerID"),
        ),
        "ObjectID": Home("zray.runtime.references", "ObjectRef"),
        **_instead(_CROSS_LANGUAGE, "cpp_function", "java_actor_class", "java_function"),
        **_instead(_CROSS_LANGUAGE, "Language"),
        **_instead(_CLIENT, "client", "ClientBuilder"),
        **_homes("zray.api.logging_config", "LoggingConfig"),
    },
    "ray.actor": _homes(
        "zray.api.actors", "ActorClass", "ActorClassInheritanceException", "exit_actor", "method"
    )
    | _homes("zray.api.actor_handles", "ActorHandle", "ActorMethod"),
    "ray.remote_function": _homes("zray.api.functions", "RemoteFunction"),
    "ray.runtime_context": _homes(
        "zray.api.runtime_context", "RuntimeContext", "get_runtime_context"
    ),
    "ray.types": _homes("zray.runtime.references", "ObjectRef"),
    "ray.cross_language": _instead(
        _CROSS_LANGUAGE, "cpp_actor_class", "cpp_function", "java_actor_class", "java_function"
    ),
    "ray.util": {
        **_homes(
            "zray.util",
            *("deregister_serializer", "inspect_serializability", "list_named_actors"),
            "register_serializer",
        ),
        **_homes(
            "zray.util",
            *("ActorPool", "as_completed", "disable_log_once_globally"),
            *("enable_periodic_logging", "get_node_instance_id", "get_node_ip_address"),
            *("log_once", "map_unordered"),
        ),
        "pdb": Module("zray.util.rpdb"),
        **_instead("breakpoint() waits for `zray debug`, with pdb's commands", "ray_debugpy"),
        **_instead(_LATER, "accelerators"),
        **_homes(
            "zray.util.placement_group",
            *("placement_group", "placement_group_table", "get_placement_group"),
            *("get_current_placement_group", "remove_placement_group"),
        ),
        **_instead(_CLIENT, "connect", "disconnect"),
    },
    "ray.util.placement_group": _homes(
        "zray.util.placement_group",
        *("PlacementGroup", "get_current_placement_group", "get_placement_group"),
        *("placement_group", "placement_group_table", "remove_placement_group"),
    ),
    "ray.util.scheduling_strategies": _homes(
        "zray.util.scheduling_strategies",
        *("NodeAffinitySchedulingStrategy", "NodeLabelSchedulingStrategy"),
        *("PlacementGroupSchedulingStrategy", "In", "NotIn", "Exists", "DoesNotExist"),
    ),
    "ray.util.state": {
        **_homes(
            "zray.util.state",
            *("get_actor", "get_job", "get_node", "get_objects", "get_task", "get_worker"),
            *("list_actors", "list_cluster_events", "list_jobs", "list_nodes", "list_objects"),
            *("list_tasks", "list_workers", "list_runtime_envs", "summarize_actors"),
            *("summarize_objects", "summarize_tasks", "get_log", "list_logs"),
            *("get_placement_group", "list_placement_groups"),
        ),
        **_instead(_STATE, "StateApiClient"),
    },
    "ray.util.state.common": _homes(
        "zray.util.state.records",
        *("ActorState", "ClusterEventState", "JobState", "NodeState", "ObjectState", "TaskState"),
        "WorkerState",
    )
    | _homes("zray.util.state.kinds", "PlacementGroupState"),
    "ray.util.state.exception": _homes("zray.errors", "RayStateApiException"),
    "ray.util.actor_pool": _homes("zray.util.actor_pool", "ActorPool"),
    "ray.util.actor_group": _homes("zray.util.actor_group", "ActorGroup"),
    "ray.util.iter": {
        **_homes(
            "zray.util.iter",
            *("ParallelIterator", "ParallelIteratorWorker", "from_actors", "from_items"),
            *("from_iterators", "from_range"),
        ),
        **_homes("zray.util.local_iterator", "LocalIterator"),
    },
    "ray.util.iter_metrics": _homes("zray.util.local_iterator", "MetricsContext", "SharedMetrics"),
    "ray.util.queue": _homes("zray.util.queue", "Empty", "Full", "Queue"),
    "ray.util.debug": _homes(
        "zray.util.debug",
        *("disable_log_once_globally", "enable_periodic_logging", "log_once", "reset_log_once"),
    ),
    "ray.util.multiprocessing": _homes(
        "zray.util.multiprocessing", "JoinableQueue", "Pool", "TimeoutError"
    ),
    "ray.util.dask": {
        **_homes(
            "zray.util.dask",
            *("disable_dask_on_ray", "enable_dask_on_ray", "ray_dask_get", "ray_dask_get_sync"),
            "ray_dask_persist",
        ),
        **_instead(
            "tasks of graphs are named after their keys: `zray list tasks` and the page show them",
            *("ProgressBarCallback", "RayDaskCallback", "local_ray_callbacks"),
            "unpack_ray_callbacks",
        ),
        **_instead("Dask optimizes frames itself", "dataframe_optimize"),
    },
    "ray.util.joblib": _homes("zray.util.joblib", "register_ray"),
    "ray.util.helpers": _homes("zray.util.completion", "as_completed", "map_unordered"),
    "ray.util.collective": {
        **_homes(
            "zray.util.collective",
            *("allgather", "allreduce", "barrier", "broadcast", "create_collective_group"),
            *("destroy_collective_group", "get_collective_group_size", "get_group_handle"),
            *("get_rank", "gloo_available", "init_collective_group", "is_backend_available"),
            *("is_group_initialized", "nccl_available", "recv", "reduce", "reducescatter", "send"),
        ),
        **_instead(
            "zray's groups carry host memory; use torch.distributed for that of GPUs",
            *("allgather_multigpu", "allreduce_multigpu", "broadcast_multigpu", "recv_multigpu"),
            *("reduce_multigpu", "reducescatter_multigpu", "send_multigpu"),
            "register_collective_backend",
        ),
    },
    "ray.util.collective.types": _homes("zray.util.collective.types", "Backend", "ReduceOp"),
    "ray.util.metrics": _homes("zray.util.metrics", "Counter", "Gauge", "Histogram"),
    "ray.util.rpdb": _homes("zray.util.rpdb", "post_mortem", "set_trace"),
    "ray.util.serialization": _homes(
        "zray.util.serialization", "deregister_serializer", "register_serializer"
    ),
    "ray.util.check_serialize": _homes(
        "zray.util.check_serialize", "FailureTuple", "inspect_serializability"
    ),
    "ray.runtime_env": {
        **_homes("zray.api.runtime_env", "RuntimeEnv", "RuntimeEnvConfig"),
    },
    "ray.job_config": _homes("zray.api.job_options", "JobConfig"),
    "ray.job_submission": _homes(
        "zray.job_submission",
        *("DriverInfo", "JobDetails", "JobErrorType", "JobInfo", "JobStatus"),
        *("JobSubmissionClient", "JobType"),
    ),
    "ray.cluster_utils": {
        **_homes("zray.cluster_utils", "Cluster"),
        **_instead("start zray-head and zray-worker", "AutoscalingCluster"),
    },
    "ray.experimental": _instead(
        _TRANSPORT,
        *("register_nixl_memory", "deregister_nixl_memory", "register_nixl_memory_pool"),
        *("register_tensor_transport", "set_nixl_cuda_stream", "set_target_for_ref"),
        *("set_target_device_for_ref", "wait_tensor_freed"),
    )
    | _instead(
        "`zray why OBJECT_ID` says where a value is",
        *("get_local_object_locations", "get_object_locations"),
    )
    | _instead("a node's resources are those it was started with", "set_resource"),
    "ray.experimental.internal_kv": _homes(
        "zray.experimental.internal_kv",
        *("_internal_kv_del", "_internal_kv_exists", "_internal_kv_get", "_internal_kv_list"),
        *("_internal_kv_initialized", "_internal_kv_put", "_internal_kv_reset"),
    ),
    "ray.experimental.tqdm_ray": _homes("zray.experimental.tqdm_ray", "safe_print", "tqdm"),
    "ray.autoscaler": {},
    "ray.autoscaler.sdk": _instead(
        "start nodes with zray-worker; they join at any time",
        *("bootstrap_config", "configure_logging", "create_or_update_cluster"),
        *("fillout_defaults", "get_docker_host_mount_location", "get_head_node_ip"),
        *("get_worker_node_ips", "register_callback_handler", "request_resources", "rsync"),
        *("run_on_cluster", "teardown_cluster"),
    ),
}

# Another module stands in the place of these.
ALIASES = {
    "ray.cloudpickle": "cloudpickle",
    "ray.exceptions": "zray.exceptions",
}

# What zray leaves out as a whole, with all that is below.
ABSENT_MODULES = {
    "ray.air": "the libraries on top of Ray Core are out of its scope",
    "ray.client_builder": _CLIENT,
    "ray.dag": "compiled graphs are out of its scope; call actors' methods with references",
    "ray.data": "use pandas, polars or Dask for data, and tasks to spread their work",
    "ray.internal": "it is not public in Ray either",
    "ray.llm": "the libraries on top of Ray Core are out of its scope",
    "ray.rllib": "use a library for reinforcement learning, and actors for its environments",
    "ray.serve": "use a web server such as Uvicorn, with actors behind it",
    "ray.train": "use PyTorch's own launcher, or one actor for each process of the training",
    "ray.tune": "use Optuna or scikit-learn, with tasks for the trials",
    "ray.util.client": _CLIENT,
    "ray.util.spark": "start zray-head and zray-worker where Spark runs",
    "ray.widgets": "it is not public in Ray either",
    "ray.workflow": "Ray itself has removed it; keep what is done in files or a database",
}
