"""``init``, ``shutdown`` and what a program may ask about its cluster."""

from __future__ import annotations

import atexit
import functools
import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from zray import limits
from zray._version import RAY_VERSION, __version__
from zray.api import job_options
from zray.api.driver_account import job_info, own_machine
from zray.api.environments import environment_of
from zray.api.options import namespace as checked_namespace
from zray.api.runtime_env import Declared
from zray.errors import HeadSilentError, NotInitializedError
from zray.nodes.options import DashboardOptions, HeadOptions, NodeOptions, units
from zray.protocol import messages as m
from zray.runtime import references, session, tracing
from zray.runtime.connection import parse_address
from zray.runtime.interrupts import interrupts

if TYPE_CHECKING:
    from zray.api.logging_config import LoggingConfig

SHOW_S = 1.0  # how long what is shown waits for the head
_IGNORED = frozenset(
    {  # accepted because Ray programs pass them; they change nothing here
        *("job_config", "configure_logging", "logging_level", "logging_format"),
        *("enable_resource_isolation", "cgroup_path", "system_reserved_cpu"),
        *("system_reserved_memory", "proxy_server_url"),
    }
)


class Context(Mapping[str, Any]):
    """What ``init`` returns: facts about the cluster; leaving it (``with``) shuts down."""

    def __init__(self, participant: Any) -> None:
        self._participant = participant
        info = getattr(participant, "info", None)  # of a driver
        self.dashboard_url = _bare(info.dashboard) if info is not None else ""
        self.python_version = "{}.{}.{}".format(*sys.version_info[:3])
        self.ray_version = RAY_VERSION

    @functools.cached_property
    def address_info(self) -> dict[str, str]:
        """``address`` of the head, for other programs' ``init``; ``node_id`` of this machine."""
        address = self._participant.address
        node_id = driver_node(self._participant)
        found = {"address": address, "gcs_address": address, "node_id": node_id}
        return {**found, "webui_url": self.dashboard_url}

    def __getitem__(self, key: str) -> Any:
        return self.address_info[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.address_info)

    def __len__(self) -> int:
        return len(self.address_info)

    def __enter__(self) -> Context:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        shutdown()

    def disconnect(self) -> None:
        """As ``zray.shutdown()``."""
        shutdown()

    def __repr__(self) -> str:
        return f"zray.Context(address={self._participant.address!r})"

    def _repr_html_(self) -> str:
        from zray.runtime.html_card import card

        rows = [("Address", self._participant.address), ("Namespace", self._participant.namespace)]
        rows += [("Python", self.python_version), ("zray", __version__)]
        return card("zray cluster", [*rows, *self._now()])

    def _now(self) -> list[tuple[str, str]]:
        """What the head says within a moment; a page is not to wait for one that is away."""
        here = self._participant
        if session.current() is not here or not here.client.linked:
            return [("State", "not connected")]
        answer = here.ask(lambda seq: m.Query(seq, m.STATUS), SHOW_S)
        if not isinstance(answer, m.Status):
            return [("State", f"the head did not answer within {SHOW_S:g} s")]
        alive = [node for node in answer.nodes if node.state == "ALIVE"]
        found = _sum([_amounts(node.info.resources) for node in alive])
        memory = found.get("memory", 0.0) / (1 << 30)
        amounts = f"{found.get('CPU', 0):g} CPUs, {found.get('GPU', 0):g} GPUs, {memory:.1f} GiB"
        return [("State", answer.health), ("Nodes", str(len(alive))), ("In all", amounts)]


def init(
    address: str | None = None,
    *,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    resources: dict[str, float] | None = None,
    labels: dict[str, str] | None = None,
    ignore_reinit_error: bool = False,
    log_to_driver: bool | None = None,
    namespace: str | None = None,
    object_store_memory: int | None = None,
    object_spilling_directory: str | os.PathLike[str] | None = None,
    max_workers: int | None = None,
    driver_lost_after_s: float | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    logging_config: LoggingConfig | None = None,
    include_dashboard: bool | None = None,
    dashboard_host: str = "127.0.0.1",
    dashboard_port: int | None = None,
    local_mode: bool | None = None,
    **others: Any,
) -> Context:
    """Connect this program to a cluster, or start one on this machine that ends with it.

    Args:
        address: ``host:port``, ``zray://host:port`` (or ``ray://``) of a head; ``"auto"``: the one
            that runs on this machine; ``"local"``: always start one; None: ``ZRAY_ADDRESS`` or
            ``RAY_ADDRESS`` if one is set, else the one that runs on this machine for this user, if
            there is one (not those that programs have started for themselves), else start one.
        num_cpus, num_gpus, resources, labels: of the started cluster; by default what is there.
        ignore_reinit_error: a second call does nothing instead of raising.
        log_to_driver: print here what workers print; None: unless ``ZRAY_LOG_TO_DRIVER`` or
            ``RAY_LOG_TO_DRIVER`` is 0.
        namespace: in which actors' names are unique; None: ``ZRAY_NAMESPACE``, ``RAY_NAMESPACE``,
            or one of this program's own.
        object_store_memory: bytes for large values on the started cluster's node; None: a share
            of the machine's. What does not fit goes to disk.
        object_spilling_directory: where that goes; None: below the folder for temporary files.
        max_workers: processes of the started cluster's node that may have tasks at a time, those
            that wait for others among them; None: four for each CPU, at least 16.
        driver_lost_after_s: how long the cluster keeps what this program has in it when its
            connection is gone, in seconds; None: as the head says (20 s). A program that is killed
            where that can be proved is not waited for, one that is slow or stopped is.
        runtime_env: what the processes of all tasks and actors of this program have: variables,
            files, packages; see docs/runtime-environments.md. They may have others beside.
        logging_config: how this program and its tasks write what they log (``LoggingConfig``).
        include_dashboard: False: the started cluster has no page for browsers. It costs nothing
            until somebody looks at it.
        dashboard_host, dashboard_port: where it is; None: 8265, or the next port that is free.
        local_mode: run everything in this process, where it is called, for a debugger: no cluster,
            see docs/local-mode.md. None: if ``ZRAY_LOCAL_MODE`` is 1, whatever the address is.
        others: ``job_config``: a ``JobConfig``, whose environment and namespace count where none is
            given here; ``_tracing_startup_hook``: ``"module:function"``, see docs/tracing.md; other
            options of ``ray.init`` that have no meaning here are accepted.

    Returns:
        A mapping of facts that is also a context manager.

    Raises:
        RuntimeError: called twice.
        ValueError, TypeError: a bad address, amount or option.
        OSError: a file of the ``runtime_env`` cannot be read.
        HeadConnectionError: the head cannot be used; NothingListensError, NotZrayError,
            UnknownHostError and AuthenticationError say why.
    """
    node = _check_options(address, num_cpus, num_gpus, resources, labels, namespace, others)
    store = (object_store_memory, object_spilling_directory)
    node = _with_workers(_with_store(node, *store), max_workers)
    lost_after_s = _checked_lost_after(driver_lost_after_s)
    dashboard = _checked_dashboard(include_dashboard, dashboard_host, dashboard_port)
    logging = _log_settings(logging_config)
    wanted, namespace = job_options.chosen(others.pop("job_config", None), runtime_env, namespace)
    with session.lock:
        existing = session.current()
        if existing is not None and existing.lost():
            shutdown()  # nothing of it works any more: this starts afresh
            existing = None
        if existing is not None:
            if ignore_reinit_error:
                return Context(existing)
            raise RuntimeError(
                "Maybe you called zray.init twice by accident? This error can be suppressed by "
                "passing in 'ignore_reinit_error=True' or by calling 'zray.shutdown()' prior to "
                "'zray.init()'."
            )
        tracing.switch_on(others.pop("_tracing_startup_hook", "") or _environment("TRACING"))
        here = _wants_local_mode(local_mode, address)
        chosen = "" if here else address or _environment("ADDRESS") or _running_or_local()
        if not here and chosen != "local":
            _check_no_node(node, address, chosen)
        with interrupts:  # half a cluster is of no use to anybody
            what = node, namespace or _own_namespace(), logging
            connect = (chosen, dashboard, _wants_prints(log_to_driver), lost_after_s)
            driver = _in_local_mode(*what) if here else _connect(*connect, *what)
            _quieten(driver)
            session.set_participant(driver)
            references.connect(driver)
            atexit.register(shutdown)
        _send_environment(driver, wanted)
        context = Context(driver)
        if logging_config is not None:
            logging_config.configure(_log_context(driver, context))
        return context


def _send_environment(driver: Any, wanted: Declared) -> None:
    """What all that the program makes will have."""
    try:
        driver.environment = environment_of(driver, wanted)
    except BaseException:  # a folder cannot be read, or has too much in it
        shutdown()
        raise


def _own_namespace() -> str:
    """What the environment says, or one of this program's own, as in Ray."""
    return _environment("NAMESPACE") or secrets.token_hex(16)


def _wants_local_mode(wanted: Any, address: str | None) -> bool:
    if wanted is None:
        return _environment("LOCAL_MODE").lower() in ("1", "true")
    if not isinstance(wanted, bool):
        raise TypeError(f"local_mode must be True, False or None, got {wanted!r}")
    if wanted and address not in (None, "local"):
        raise ValueError(
            f"local_mode=True runs all in this process, and address={address!r} says a cluster: "
            "give one of them"
        )
    return wanted


def _in_local_mode(node: NodeOptions, namespace: str, logging: m.LogSettings | None) -> Any:
    from zray.nodes.local.local_participant import LocalParticipant

    return LocalParticipant(job_info(False, namespace, 0.0, logging), node)


def _quieten(driver: Any) -> None:
    """It says only what the environment lets it say."""
    if hasattr(driver, "advice"):
        driver.advice.silent = _environment("ADVICE").lower() in ("0", "false")
    if _environment("IGNORE_UNHANDLED_ERRORS"):
        driver.client.unasked.warn = None


def _log_settings(logging_config: Any) -> m.LogSettings | None:
    if logging_config is None:
        return None
    from zray.api.logging_config import LoggingConfig  # which loads logging

    if not isinstance(logging_config, LoggingConfig):
        raise TypeError(f"logging_config must be a zray.LoggingConfig, got {logging_config!r}")
    return logging_config.settings()


def _log_context(driver: Any, context: Context) -> dict[str, str]:
    """What this program's records say of the process."""
    client = driver.client
    ids = {"job_id": client.job_id.hex(), "worker_id": client.process_id.hex()}
    return {**ids, "node_id": context.address_info["node_id"]}


def _running_or_local() -> str:
    from zray.nodes.contact import is_running

    return "auto" if is_running() else "local"


def _check_no_node(node: NodeOptions, address: str | None, chosen: str) -> None:
    if node._replace(name="") != NodeOptions():
        raise ValueError(
            "When connecting to an existing cluster, num_cpus, num_gpus, resources, labels, "
            "object_store_memory, object_spilling_directory and max_workers must not be "
            "provided: its nodes say what they have. The cluster is " + _who_says(address, chosen)
        )


def _who_says(address: str | None, chosen: str) -> str:
    if address:
        return f"{chosen}."
    if _environment("ADDRESS"):
        return f"{chosen}, as ZRAY_ADDRESS or RAY_ADDRESS says."
    return 'the one that runs on this machine; address="local" starts one of this program\'s own.'


def _environment(name: str) -> str:
    """What the environment says in place of an argument of ``init``, under either prefix."""
    return os.environ.get(f"ZRAY_{name}") or os.environ.get(f"RAY_{name}") or ""


def _wants_prints(log_to_driver: bool | None) -> bool:
    if log_to_driver is None:
        return _environment("LOG_TO_DRIVER").lower() not in ("0", "false")
    return log_to_driver


def _check_options(
    address: Any,
    num_cpus: Any,
    num_gpus: Any,
    resources: Any,
    labels: Any,
    namespace: Any,
    others: dict[str, Any],
) -> NodeOptions:
    """A bad option is an error here, not in a daemon; returns the started cluster's node."""
    texts = {"address": address, "namespace": namespace, "_node_name": others.get("_node_name")}
    for option, value in texts.items():
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{option} must be a string, got {value!r}")
    for option, value in {"resources": resources, "labels": labels}.items():
        if value is not None and not isinstance(value, dict):
            raise TypeError(f"{option} must be a dict, got {value!r}")
        if any(not isinstance(name, str) for name in value or ()):
            raise TypeError(f"the names in {option} must be strings, got {value!r}")
    if any(not isinstance(value, str) for value in (labels or {}).values()):
        raise TypeError(f"the values of labels must be strings, got {labels!r}")
    if namespace is not None:
        checked_namespace("namespace", namespace)
    for resource, option in (("CPU", "num_cpus"), ("GPU", "num_gpus"), ("memory", "_memory")):
        if resource in (resources or {}):
            raise ValueError(f"Use the {option!r} option instead of {resource!r} in 'resources'")
    _check_others(others)
    name, memory = others.get("_node_name") or "", others.get("_memory")
    node = NodeOptions(name, num_cpus, num_gpus, memory, resources or {}, labels or {})
    units(node, 1, 0, 0)
    return node


def _with_store(
    node: NodeOptions, memory: Any, directory: str | os.PathLike[str] | None
) -> NodeOptions:
    """The node with its object store's options, checked."""
    if memory is not None:
        if isinstance(memory, bool) or not isinstance(memory, int):
            raise TypeError(f"object_store_memory must be a whole number of bytes, got {memory!r}")
        if memory < limits.STORE_BYTES_MIN:
            raise ValueError(
                f"object_store_memory must be at least {limits.STORE_BYTES_MIN} bytes "
                f"({limits.STORE_BYTES_MIN >> 20} MiB), got {memory}"
            )
    path = None if directory is None else Path(os.fspath(directory)).absolute()
    return node._replace(object_store_bytes=memory, spill_directory=path)


def _with_workers(node: NodeOptions, most: Any) -> NodeOptions:
    if most is not None:
        if isinstance(most, bool) or not isinstance(most, int):
            raise TypeError(f"max_workers must be a whole number, got {most!r}")
        if not 1 <= most <= limits.WORKERS_MAX:
            raise ValueError(f"max_workers must be from 1 to {limits.WORKERS_MAX}, got {most}")
    return node._replace(max_workers=most)


def _checked_dashboard(wanted: Any, host: Any, port: Any) -> DashboardOptions:
    if wanted is not None and not isinstance(wanted, bool):
        raise TypeError(f"include_dashboard must be True, False or None, got {wanted!r}")
    if not isinstance(host, str):
        raise TypeError(f"dashboard_host must be a string, got {host!r}")
    if port is not None and (isinstance(port, bool) or not isinstance(port, int)):
        raise TypeError(f"dashboard_port must be a whole number, got {port!r}")
    if port is not None and not 0 <= port < 65536:
        raise ValueError(f"dashboard_port must be from 0 (any free one) to 65535, got {port}")
    host = "127.0.0.1" if host == "localhost" else host
    return DashboardOptions(wanted is not False, host, port)


def _bare(url: str) -> str:
    """As Ray says it: without what begins a web address."""
    return str(url).partition("://")[2]


def _checked_lost_after(seconds: Any) -> float:
    """0: as the head says."""
    if seconds is None:
        return 0.0
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"driver_lost_after_s must be a number of seconds, got {seconds!r}")
    least, most = limits.DRIVER_LOST_MIN_S, limits.DRIVER_LOST_MAX_S
    if not least <= seconds <= most:
        raise ValueError(
            f"driver_lost_after_s must be from {least:g} to {most:.0f} seconds, got {seconds}"
        )
    return float(seconds)


def _check_others(others: dict[str, Any]) -> None:
    for option in others:
        if option not in _IGNORED and not option.startswith("_"):
            import difflib

            valid = ["address", "num_cpus", "num_gpus", "resources", "labels", "namespace"]
            valid += ["ignore_reinit_error", "log_to_driver", "object_store_memory"]
            valid += ["object_spilling_directory", "max_workers", "runtime_env"]
            valid += ["logging_config", "local_mode", *sorted(_IGNORED)]
            near = difflib.get_close_matches(option, valid, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"init() got an unexpected keyword argument {option!r}{hint}")


def _connect(
    address: str,
    dashboard: DashboardOptions,
    wants_logs: bool,
    lost_after_s: float,
    node: NodeOptions,
    namespace: str,
    logging: m.LogSettings | None,
) -> Any:
    from zray.nodes.driver.local_cluster import LocalCluster

    # First of all, since its processes get their imports done beside this one.
    local = None
    if address == "local":
        local = LocalCluster(HeadOptions(node=node, dashboard=dashboard))
    try:
        from zray.nodes.contact import reach, running
        from zray.nodes.driver.driver import Driver

        if local is not None:
            info = local.wait()
            target = info.addresses[0]
        elif address == "auto":
            info, target = running()
        else:
            info, target = interrupts.allow(reach, address)
        job = job_info(wants_logs, namespace, lost_after_s, logging)
        driver = Driver(info, target, job, namespace, local)
    except BaseException:
        if local is not None:
            local.close()
        raise
    try:
        driver.connect()
    except BaseException:
        driver.close()
        raise
    if job.records_sites:
        from zray.nodes.participant import call_sites

        call_sites.record(driver)
    return driver


def shutdown(*, wait_for_processes: bool = False) -> None:
    """Leave the cluster; one that ``init`` started ends. Does nothing if there is none.

    Args:
        wait_for_processes: accepted as in Ray; the processes are always waited for.
    """
    with interrupts:
        with session.lock:
            participant = session.current()
            if participant is None or not hasattr(participant, "close") or session.current_task():
                return  # a task leaves its cluster by ending
            session.set_participant(None)
            references.connect(None)
            atexit.unregister(shutdown)
        participant.close()


def is_initialized() -> bool:
    """Whether this process takes part in a cluster."""
    return session.current() is not None


def _status() -> m.Status:
    participant = session.current()
    if participant is None:
        raise NotInitializedError(
            "zray has not been started in this program; call zray.init() first"
        )
    return _status_from(participant)


def _status_from(participant: Any) -> m.Status:
    """What the head says; of a cluster of this driver's own, once its node has joined."""
    deadline = time.monotonic() + limits.CONNECT_TIMEOUT_S
    while True:
        left = deadline - time.monotonic()
        answer = participant.ask(lambda seq: m.Query(seq, m.STATUS), max(left, 0.1))
        if not isinstance(answer, m.Status):
            raise HeadSilentError("the head did not answer a question about the cluster in time")
        joined = any(node.state == "ALIVE" for node in answer.nodes)
        if joined or getattr(participant, "local", None) is None or left <= 0:
            return answer
        time.sleep(0.005)


def cluster_id(participant: Any) -> bytes:
    """The id of the cluster that a process is part of."""
    return bytes(_status_from(participant).cluster_id)


def driver_node(participant: Any) -> str:
    """The id of the node on a driver's machine, else of the cluster's first; "" if unknown."""
    try:
        found = _status_from(participant).nodes
    except HeadSilentError:
        return ""
    here = own_machine()
    near = [node for node in found if node.info.machine == here]
    return (near or found)[0].node_id.hex() if found else ""


def own_address() -> str:
    """Where others reach the nodes of this process's machine, without a port; "" if it has none.

    Raises:
        NotInitializedError: before ``init``.
    """
    here = own_machine()
    ports = [node.info.liveness for node in _status().nodes if node.info.machine == here]
    return parse_address(ports[0])[0] if ports and ports[0] else ""


def _amounts(pairs: list[tuple[str, int]]) -> dict[str, float]:
    return {name: amount / limits.RESOURCE_UNIT for name, amount in pairs}


def nodes() -> list[dict[str, Any]]:
    """The cluster's nodes, as ``ray.nodes()``; also TasksFinished, State and Available.

    Raises:
        NotInitializedError: before ``init``.
    """
    return [
        {
            "NodeID": node.node_id.hex(),
            "Alive": node.state == "ALIVE",
            "State": node.state,
            "NodeManagerAddress": node.info.host,
            "NodeManagerHostname": node.info.host,
            "NodeName": node.info.name,
            "Resources": _amounts(node.info.resources),
            "Available": _amounts(node.available),
            "Labels": dict(node.info.labels),
            "TasksFinished": node.finished,
        }
        for node in _status().nodes
    ]


def _sum(amounts: list[dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for one in amounts:
        for name, amount in one.items():
            total[name] = total.get(name, 0.0) + amount
    return {name: amount for name, amount in total.items() if amount}


def cluster_resources() -> dict[str, float]:
    """All resources of all nodes: name to amount; memory in bytes.

    Raises:
        NotInitializedError: before ``init``.
    """
    return _sum([node["Resources"] for node in nodes()])


def available_resources() -> dict[str, float]:
    """What of that is not in use now.

    Raises:
        NotInitializedError: before ``init``.
    """
    return _sum([node["Available"] for node in nodes()])
