"""Real clusters: heads and raylets as daemons, drivers as programs, and a peer that talks by hand.

Who makes one owns what it starts and ends all of it; must never decide whether a test has passed,
but for deadlines.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

import zray
from tests.killed_heads import end_nodes
from zray.ids import IdSource
from zray.protocol import codec
from zray.protocol import messages as m
from zray.runtime import identity, sockets
from zray.runtime.connection import ConnectionInfo, parse_address

T = TypeVar("T")

START_S = 20.0
STOP_S = 15.0
POLL_S = 0.02
ANSWER_S = 5.0
READY = re.compile(r"\bREADY\b.*?([\w.\[\]:-]+:\d+)")


def until(probe: Callable[[], T | None], timeout_s: float, what: str) -> T:
    """Poll until ``probe`` returns something true, and return that."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}")
        time.sleep(POLL_S)


class Program:
    """A daemon or driver as a process of its own; its output is in a file."""

    def __init__(
        self, name: str, log: Path, command: list[str], environment: dict[str, str]
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
                start_new_session=True,
            )
        self.pid = self.process.pid

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def says(self, text: str, timeout_s: float = START_S) -> str:
        """Wait for a line with the text, and return it."""

        def probe() -> str | None:
            found = [line for line in self.text().splitlines() if text in line]
            if not found and self.process.poll() is not None:
                raise AssertionError(f"{self.name} ended before it said {text!r}:\n{self.text()}")
            return found[0] if found else None

        return until(probe, timeout_s, f"{self.name} says {text!r}; it says:\n{self.text()}")

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """``kill -9`` of this process alone, and wait until it is gone."""
        self.process.kill()
        self.process.wait(STOP_S)

    def wait(self, timeout_s: float) -> int:
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"{self.name} has not ended within {timeout_s} s:\n{self.text()}"
            ) from None

    def stop(self, timeout_s: float = STOP_S) -> int:
        """SIGTERM, and the exit status."""
        self.process.terminate()
        return self.wait(timeout_s)

    def children(self) -> list[psutil.Process]:
        """Of a node: its zygote, whose children are its workers."""
        return psutil.Process(self.pid).children()

    def below(self) -> list[psutil.Process]:
        """Every process that descends from this one."""
        return psutil.Process(self.pid).children(recursive=True)


class Peer:
    """A process that speaks the protocol by hand, message by message."""

    def __init__(self, info: ConnectionInfo, *, role: int = m.ROLE_OBSERVER, hello: bool = True):
        self.context = sockets.context()
        self.socket = sockets.dealer(self.context, info)
        self.ids = IdSource(os.urandom(8))
        self.process_id = self.ids.process_id()
        self.epoch = 0
        self.received: list[m.Message] = []
        sockets.connect(self.socket, *parse_address(info.addresses[0]))
        if hello:
            try:
                self.send(self.hello(role))
                self.receive(m.Welcome)
            except BaseException:
                self.close()
                raise

    def hello(self, role: int) -> m.Hello:
        job = m.JobInfo("peer", "/", [], "", "", os.getpid()) if role == m.ROLE_DRIVER else None
        node = m.NodeInfo("peer", "", os.getpid(), [], [], "") if role == m.ROLE_NODE else None
        versions = identity.versions(pickles=False)
        return m.Hello(
            *(0, m.PROTOCOL_VERSION, role, self.process_id, 1, b"", versions, [], node, job),
            minor=m.PROTOCOL_MINOR,
        )

    def send(self, *messages: m.Message, epoch: int | None = None) -> None:
        payloads = codec.encode(self.epoch if epoch is None else epoch, messages)
        for payload in payloads:
            self.frames(m.KIND, payload)

    def frames(self, *frames: bytes) -> None:
        self.socket.send_multipart(frames)

    def receive(self, kind: type[T], timeout_s: float = ANSWER_S) -> T:
        """The next message of that kind; others are kept in ``received``."""
        deadline = time.monotonic() + timeout_s
        while True:
            for message in self.received:
                if isinstance(message, kind):
                    self.received.remove(message)
                    return message
            left = deadline - time.monotonic()
            if left <= 0 or not self.socket.poll(left * 1000):
                raise TimeoutError(f"no {kind.__name__} within {timeout_s:g} s: {self.received}")
            payload = codec.decode(self.socket.recv_multipart()[1])
            self.epoch = payload.epoch
            self.received += payload.messages

    def close(self, linger_ms: int = 0) -> None:
        """Leave; ``linger_ms``: for so long, what was sent may still go out."""
        self.context.destroy(linger_ms)


class Cluster:
    """A head without CPUs of its own, and nodes by name."""

    until = staticmethod(until)

    def __init__(self, home: Path) -> None:
        self.home = home
        self.programs: list[Program] = []
        self.head: Program | None = None
        self.address = ""
        self.prefix: dict[str, list[str]] = {}  # command before a daemon's own, by name

    # ---- daemons ---------------------------------------------------------------------------

    def start(
        self, name: str, module: str, *options: str, environment: dict[str, str] | None = None
    ) -> Program:
        command = [*self.prefix.get(name, []), sys.executable, "-m", module, *options]
        log = self.home / f"{name}.out"
        program = Program(name, log, command, environment or {})
        self.programs.append(program)
        return program

    def start_head(
        self, *options: str, port: int = 0, environment: dict[str, str] | None = None
    ) -> Program:
        """Start a head and wait until it is READY; on the old port with ``port=-1``."""
        if port < 0:
            port = parse_address(self.address)[1]
        begin = len(self.head.text()) if self.head is not None else 0
        fixed = ("--num-cpus", "0", "--port", str(port))
        head = self.start("head", "zray.cli.head", *fixed, *options, environment=environment)

        def ready() -> str | None:
            if head.process.poll() is not None:
                raise AssertionError(f"the head ended: {head.text()[begin:]}")
            found = READY.search(head.text(), begin)
            return found[1] if found else None

        self.address = until(ready, START_S, "the head is READY")
        self.head = head
        return head

    def start_node(
        self,
        name: str,
        cpus: int = 1,
        *options: str,
        wait: bool = True,
        environment: dict[str, str] | None = None,
    ) -> Program:
        """Start a raylet and, with ``wait``, wait until the head has it."""
        fixed = ("--address", self.address, "--num-cpus", str(cpus), "--name", name)
        node = self.start(name, "zray.cli.worker", *fixed, *options, environment=environment)
        if wait:
            self.await_node(name, pid=node.pid)
        return node

    def await_node(self, name: str, timeout_s: float = START_S, pid: int = 0) -> m.NodeStatus:
        def probe() -> m.NodeStatus | None:
            node = self.node(name)
            alive = node is not None and node.state == "ALIVE"
            return node if alive and (not pid or node.info.pid == pid) else None

        return until(probe, timeout_s, f"node {name} has joined")

    # ---- drivers ---------------------------------------------------------------------------

    def connect(self) -> zray.Context:
        """This process as a driver."""
        return zray.init(self.address)

    def run(
        self, name: str, source: str, *arguments: str, environment: dict[str, str] | None = None
    ) -> Program:
        """A driver program; it finds the cluster by ``ZRAY_ADDRESS``."""
        path = self.home / f"{name}.py"
        path.write_text(textwrap.dedent(source))
        log = self.home / f"{name}.out"
        command = [*self.prefix.get(name, []), sys.executable, str(path), *arguments]
        given = {"ZRAY_ADDRESS": self.address, **(environment or {})}
        program = Program(name, log, command, given)
        self.programs.append(program)
        return program

    # ---- observing -------------------------------------------------------------------------

    def info(self) -> ConnectionInfo:
        return ConnectionInfo.load(self.home / "clusters" / "default" / "connection.json")

    def peer(self, role: int = m.ROLE_OBSERVER, *, hello: bool = True) -> Peer:
        return Peer(self.info(), role=role, hello=hello)

    def status(self) -> m.Status:
        observer = self.peer()
        try:
            observer.send(m.Query(1, m.STATUS))
            return observer.receive(m.Status)
        finally:
            observer.close()

    def epoch(self) -> int:
        observer = self.peer()
        observer.close()
        return observer.epoch

    def node(self, name: str) -> m.NodeStatus | None:
        found = [node for node in self.status().nodes if node.info.name == name]
        return found[0] if found else None

    def at_rest(self) -> bool:
        """Whether no task is left, and every node has all of its resources."""
        status = self.status()
        full = all(dict(node.info.resources) == dict(node.available) for node in status.nodes)
        return full and not status.classes and not any(job.unfinished for job in status.jobs)

    # ---- end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop all, the newest first; what does not stop in time is killed."""
        for program in reversed(self.programs):
            if program.process.poll() is None:
                program.process.send_signal(signal.SIGCONT)
                program.process.terminate()
                try:
                    program.process.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    program.kill()
        end_nodes(self.home, STOP_S)
