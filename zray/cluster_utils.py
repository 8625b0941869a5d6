"""Several nodes on this machine, as a cluster for tests and for trying things out.

As ``ray.cluster_utils``. Each node is a ``zray-worker`` of its own, the head a ``zray-head``: what
happens to them is what happens to those of several machines. Linux only, as these are.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from zray import limits
from zray.api.cluster import init, shutdown
from zray.errors import HeadConnectionError, StartError
from zray.nodes.options import NodeOptions, units
from zray.protocol import messages as m
from zray.runtime import session

if TYPE_CHECKING:
    import psutil

START_S = 30.0
POLL_S = 0.02
STORE_BYTES = 150 << 20  # of a node of which nothing is said, as in Ray
OWN_NODE = m.HEAD_NODE
_NAME = "[A-Za-z0-9_-][A-Za-z0-9_.:-]{0,127}"
_IGNORED = frozenset(
    {  # accepted because Ray programs pass them; they change nothing here
        *("min_worker_port", "max_worker_port", "dashboard_port", "dashboard_host", "redis_port"),
        *("redis_address", "redis_password", "redis_username", "node_ip_address", "gcs_address"),
        *("node_manager_port", "object_manager_port", "ray_client_server_port", "temp_dir"),
        *("_system_config", "include_log_monitor", "dashboard_agent_listen_port"),
        *("enable_object_reconstruction", "num_redis_shards", "log_to_driver"),
        *("plasma_directory", "metrics_export_port"),
    }
)


class ClusterNode:
    """A node of a cluster on this machine; made by ``Cluster.add_node``.

    Attributes:
        node_name: as ``ray.nodes`` has it.
        is_head: it is the head's own, and stands for the head.
        pid: of its raylet; the head's process where it is the head's.
    """

    def __init__(
        self, name: str, process: subprocess.Popen[bytes], log: Path, is_head: bool
    ) -> None:
        self.node_name = name
        self.is_head = is_head
        self.pid = process.pid
        self._process = process
        self._log = log
        self._node_id = ""
        self._raylet = process.pid

    @property
    def node_id(self) -> str:
        """The id in hexadecimal, as ``ray.nodes`` has it; empty as long as it has not joined."""
        return self._node_id

    unique_id = node_id

    def _look(self, alive: list[m.NodeStatus]) -> None:
        """Learn its id, if it is one of these."""
        for one in alive:
            if one.info.name == OWN_NODE if self.is_head else one.info.pid == self.pid:
                self._node_id, self._raylet = one.node_id.hex(), one.info.pid

    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self._process.poll() is None

    any_processes_alive = remaining_processes_alive = is_alive

    def log(self) -> str:
        """What its process has said."""
        return self._log.read_text(errors="replace")

    def __repr__(self) -> str:
        return f"ClusterNode({self.node_name!r}, {self._node_id or 'not there yet'})"


class Cluster:
    """A head and nodes on this machine, which end with this program, however it ends.

    Attributes:
        head_node: the head's own node; None before the first ``add_node`` and after its removal.
        worker_nodes: the others.
        connected: ``connect`` was called.
    """

    def __init__(
        self,
        initialize_head: bool = False,
        connect: bool = False,
        head_node_args: dict[str, Any] | None = None,
        shutdown_at_exit: bool = True,
    ) -> None:
        """As ``ray.cluster_utils.Cluster``.

        Args:
            initialize_head: start the head with its node, as the first ``add_node`` does.
            connect: and call ``zray.init`` with its address.
            head_node_args: as of ``add_node``.
            shutdown_at_exit: False: what is not shut down outlives this program.

        Raises:
            RuntimeError: ``connect`` without a head.
            As ``add_node``.
        """
        self.head_node: ClusterNode | None = None
        self.worker_nodes: set[ClusterNode] = set()
        self.connected = False
        self._address: str | None = None
        self._ends_with_program = shutdown_at_exit
        self._name = f"cluster-{os.getpid()}-{secrets.token_hex(3)}"
        self._directory: Path | None = None  # of logs
        self._place: Path | None = None  # the head's state and key
        self._reaper: subprocess.Popen[str] | None = None
        self._numbers = 0
        self._pid = os.getpid()
        if connect and not initialize_head:
            raise RuntimeError("Cannot connect to uninitialized cluster.")
        if initialize_head:
            self.add_node(**(head_node_args or {}))
            if connect:
                self.connect()

    @property
    def address(self) -> str | None:
        """``host:port`` of the head, for ``zray.init``; None: there is none."""
        return self._address if self.head_node is not None else None

    gcs_address = address

    def connect(self, namespace: str | None = None) -> None:
        """Connect this program, as ``zray.init`` does.

        Raises:
            RuntimeError: there is no head, or the program is connected.
        """
        if self.address is None or self.connected:
            raise RuntimeError("connect() needs a head, and goes once: see add_node and init")
        init(self.address, namespace=namespace)
        self.connected = True

    # ---- nodes -----------------------------------------------------------------------------

    def add_node(
        self,
        wait: bool = True,
        *,
        num_cpus: float | None = 1,
        num_gpus: float | None = 0,
        memory: int | None = None,
        resources: dict[str, float] | None = None,
        labels: dict[str, str] | None = None,
        object_store_memory: int | None = STORE_BYTES,
        object_spilling_directory: str | os.PathLike[str] | None = None,
        node_name: str = "",
        max_workers: int | None = None,
        include_dashboard: bool = False,
        env_vars: dict[str, str] | None = None,
        **others: Any,
    ) -> ClusterNode:
        """Start a node; the first time, the head with its own.

        Args:
            wait: until it has joined; the head is always waited for.
            num_cpus, num_gpus, memory, resources, labels, object_store_memory,
                object_spilling_directory, max_workers: as of ``zray.init``; None: what is there.
            node_name: None: one of its own.
            include_dashboard: the head has a page for browsers.
            env_vars: of its processes, beside this program's.
            others: Ray's options for daemons that zray does not have are accepted.

        Raises:
            TypeError, ValueError: an unknown option or a bad value.
            StartError: it did not come up; the message says what it said.
        """
        for option in others:
            if option not in _IGNORED:
                raise TypeError(f"add_node() got an unexpected keyword argument {option!r}")
        _check(node_name, resources=resources, labels=labels, env_vars=env_vars)
        name = node_name or f"node-{self._numbers}"
        units(NodeOptions(name, num_cpus, num_gpus, memory, resources or {}, labels or {}), 1, 0, 0)
        given = {
            "--num-cpus": num_cpus,
            "--num-gpus": num_gpus,
            "--memory": memory,
            "--object-store-memory": object_store_memory,
            "--spill-directory": object_spilling_directory,
            "--max-workers": max_workers,
            "--resources": json.dumps(resources) if resources else None,
            "--labels": json.dumps(labels) if labels else None,
        }
        options = [
            text
            for option, value in given.items()
            if value is not None
            for text in (option, _plain(value))
        ]
        if self.head_node is None:
            node = self._start_head(options, include_dashboard, env_vars or {})
            self.head_node = node
        else:
            assert self._address is not None
            node = self._start(name, [*_WORKER, "--name", name, *options], env_vars or {})
            self.worker_nodes.add(node)
        self._numbers += 1
        if wait or node.is_head:
            try:
                self._await(node)
            except BaseException:
                self.remove_node(node, allow_graceful=False)
                raise
        return node

    def remove_node(self, node: ClusterNode, allow_graceful: bool = True) -> None:
        """End a node's processes, and wait until they have ended.

        With the head this program is disconnected. ``allow_graceful=False``: it is killed, and the
        cluster has to find out.
        """
        if node.is_head and self._is_connected():
            shutdown()
            self.connected = False
        process, signals = node._process, [signal.SIGKILL]
        below = _below(node)
        if allow_graceful:
            signals.insert(0, signal.SIGTERM)
        for number in signals:
            if node.is_alive():
                process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(limits.STOP_S + 5.0)
                break
        if node.is_head:
            self._end_raylet(node)
            self.head_node = None
        else:
            self.worker_nodes.discard(node)
        _end(below, limits.STOP_S if allow_graceful else 0.0)
        for pid in {node.pid, node._raylet}:
            self._tell_reaper(f"-{pid}")

    def kill_node(self, node: ClusterNode) -> None:
        """``remove_node`` without grace."""
        self.remove_node(node, allow_graceful=False)

    def list_all_nodes(self) -> list[ClusterNode]:
        """All nodes, the head's first."""
        head = [self.head_node] if self.head_node is not None else []
        return [*head, *self.worker_nodes]

    def remaining_processes_alive(self) -> bool:
        """Whether all nodes that were not removed still run."""
        return all(node.is_alive() for node in self.list_all_nodes())

    def wait_for_nodes(self, timeout: float = START_S) -> None:
        """Wait until as many nodes live as were added and not removed.

        Raises:
            TimeoutError: there are fewer, or more, after so many seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            alive = [node for node in self._nodes() if node.state == "ALIVE"]
            expected = len(self.list_all_nodes())
            if len(alive) == expected:
                for node in self.list_all_nodes():
                    self._look(node, alive)
                return
            if time.monotonic() >= deadline:
                raise TimeoutError(
                    f"after {timeout:g} s {len(alive)} nodes live, and {expected} are to"
                )
            time.sleep(POLL_S)

    # ---- daemons ---------------------------------------------------------------------------

    def _start_head(
        self, options: list[str], dashboard: bool, env_vars: dict[str, str]
    ) -> ClusterNode:
        from zray.runtime import connection

        page = ["--dashboard-port", "0"] if dashboard else ["--no-dashboard"]
        self._place = connection.cluster_directory(self._name)
        command = ["zray.cli.head", "--name", self._name, "--port", "0", *page, *options]
        node = self._start(OWN_NODE, command, env_vars)
        self._tell_reaper(f"={self._place}")
        path = connection.connection_path(self._name)
        text = self._until(node, lambda: path.read_text() if _is_ready(node) else "")
        assert text
        self._address = connection.ConnectionInfo.load(path).addresses[0]
        return node

    def _start(self, name: str, command: list[str], env_vars: dict[str, str]) -> ClusterNode:
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="zray-cluster-"))
            if self._ends_with_program:
                self._begin_reaper()
                atexit.register(self.shutdown)
        log = self._directory / f"{self._numbers}-{name}.log"
        where = ["--address", self._address] if self._address and command[0] == _WORKER[0] else []
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", *command, *map(str, where)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": _import_path(), **env_vars},
                start_new_session=True,  # the terminal's Ctrl-C is for the program
            )
        self._tell_reaper(str(process.pid))
        return ClusterNode(name, process, log, is_head=name == OWN_NODE)

    def _await(self, node: ClusterNode) -> None:
        """Until it has joined."""

        def joined() -> str:
            self._look(node, [one for one in self._nodes() if one.state == "ALIVE"])
            return node.node_id

        self._until(node, joined)

    def _look(self, node: ClusterNode, alive: list[m.NodeStatus]) -> None:
        node._look(alive)
        self._tell_reaper(str(node._raylet))  # the head's outlives a head that is killed

    @staticmethod
    def _until(node: ClusterNode, look: Any) -> str:
        deadline = time.monotonic() + START_S
        while True:
            found: str = look()
            if found:
                return found
            if not node.is_alive():
                raise StartError(f"{node.node_name} did not start: {node.log().strip()}")
            if time.monotonic() > deadline:
                raise StartError(
                    f"{node.node_name} has not joined within {START_S:g} s: {node.log().strip()}"
                )
            time.sleep(POLL_S)

    def _nodes(self) -> list[m.NodeStatus]:
        from zray.nodes.contact import reach
        from zray.nodes.driver.observer import Observer

        if self._address is None:
            return []
        try:
            with Observer(*reach(self._address)) as observer:
                return [*observer.status().nodes]
        except HeadConnectionError:
            return []

    def _is_connected(self) -> bool:
        here = session.current()
        return here is not None and getattr(here, "address", "") == self._address

    def _end_raylet(self, node: ClusterNode) -> None:
        """The head's own node outlives a head that was killed, to wait for the next."""
        if node._raylet == node.pid:
            return
        deadline = time.monotonic() + limits.STOP_S
        number: int = signal.SIGTERM
        with contextlib.suppress(ProcessLookupError):
            while Path(f"/proc/{node._raylet}").exists():
                os.kill(node._raylet, number)
                number = 0 if time.monotonic() < deadline else signal.SIGKILL
                time.sleep(POLL_S)

    # ---- end -------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Disconnect this program, and end all nodes. There is no harm in a second call."""
        if os.getpid() != self._pid:
            return  # a forked child has nothing of it
        if self._is_connected():
            shutdown()
        self.connected = False
        for node in [*self.worker_nodes]:
            node._process.terminate()  # all at once, and then one after the other
        for node in [*self.worker_nodes]:
            self.remove_node(node)
        if self.head_node is not None:
            self.remove_node(self.head_node)
        self._end_reaper()
        if self._directory is not None:
            for folder in filter(None, [self._directory, self._place]):
                shutil.rmtree(folder, ignore_errors=True)
            self._directory = None
            atexit.unregister(self.shutdown)

    def _begin_reaper(self) -> None:
        self._reaper = subprocess.Popen(
            [sys.executable, "-P", "-m", "zray.runtime.linux.reaper", str(self._pid)],
            stdin=subprocess.PIPE,
            text=True,
            errors="surrogateescape",  # as in names of folders
            env={**os.environ, "PYTHONPATH": _import_path()},
            start_new_session=True,
        )
        self._tell_reaper(f"={self._directory}")

    def _tell_reaper(self, line: str) -> None:
        if self._reaper is not None:
            stream = self._reaper.stdin
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):  # somebody has ended it
                stream.write(f"{line}\n")
                stream.flush()

    def _end_reaper(self) -> None:
        """It removes what there is on disk."""
        if self._reaper is not None:
            stream: IO[str] | None = self._reaper.stdin
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()
            self._reaper.wait()
            self._reaper = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()


def _below(node: ClusterNode) -> list[psutil.Process]:
    """Its zygote, workers, and what these have started."""
    import psutil

    found = []
    for pid in {node.pid, node._raylet} if node.is_alive() or node.is_head else ():
        with contextlib.suppress(psutil.Error):
            found += psutil.Process(pid).children(recursive=True)
    return found


def _end(processes: list[psutil.Process], grace_s: float) -> None:
    """They end by themselves when their raylet has; what does not in time is killed."""
    import psutil

    def lives(process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return False

    deadline = time.monotonic() + grace_s
    while left := [one for one in processes if lives(one)]:
        if time.monotonic() >= deadline + limits.STOP_S:
            return  # the kernel does not let go of one
        if time.monotonic() >= deadline:
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
        time.sleep(POLL_S)


def _check(node_name: str, **tables: dict[str, Any] | None) -> None:
    """Raises ValueError, TypeError: that cannot be an option of a node."""
    for option, table in tables.items():
        if not isinstance(table or {}, dict):
            raise TypeError(f"{option} must be a dictionary, got {table!r}")
        pairs = (table or {}).items() if option != "resources" else ()
        texts = [text for pair in pairs for text in pair]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError(f"{option} must have strings as names and values, got {table!r}")
    if node_name and not re.fullmatch(_NAME, node_name):
        raise ValueError(f"node_name must match {_NAME}, got {node_name!r}")


def _plain(value: Any) -> str:
    """As a command's option: whole numbers without a point."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


_WORKER = ["zray.cli.worker", "--wait", f"{START_S:g}"]


def _is_ready(node: ClusterNode) -> bool:
    return re.search(r"\bREADY\b", node.log()) is not None


def _import_path() -> str:
    """PYTHONPATH for a child that shall find the same zray."""
    root = str(Path(__file__).parents[1])
    return os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
