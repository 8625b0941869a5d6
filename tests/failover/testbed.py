"""What is attacked: an etcd of three, three heads and four nodes, each on a machine of its own.

It knows which processes must be alive, who leads, and says what is wrong with them.
"""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psutil

from tests.etcd_cluster import Etcd, Place, encoded
from tests.failover.machines import Machines
from tests.real_cluster import Peer, Program, until
from zray.protocol import messages as m
from zray.runtime.connection import ConnectionInfo

ROOT = Path(__file__).resolve().parents[2]
MEMBERS, HEADS, NODES = ("e0", "e1", "e2"), ("h0", "h1", "h2"), ("n0", "n1", "n2", "n3")
FAR = "p0"  # a machine with nothing but a program
KEPT = ("n0", "n1")  # nodes that are never killed
PORT = 10001
STORE = ("--object-store-memory", "100MB")
START_S = 60.0
SETTLED_S = 90.0
ANSWER_S = 5.0
RESIDENT_BYTES_MAX = 400_000_000
ROOM = 1.0  # CPUs of each node
PREFIX = b"/zray/default/"


class Event(NamedTuple):
    """Something that was done; ``at_s`` by the clock that never goes back."""

    at_s: float
    what: str
    of_leader: bool


class Stored(NamedTuple):
    """A value in etcd, and the revision in which its key was made."""

    created: int
    value: bytes


class Daemon(Program):
    """On one of the machines. ``pid``: its own, also where another process has started it."""

    def __init__(self, name: str, log: Path, command: list[str], environment: dict[str, str]):
        super().__init__(name, log, command, environment)
        if command[0] == "nsenter":
            self.pid = until(self._child, START_S, f"{name} has a process")

    def _child(self) -> int:
        found = psutil.Process(self.process.pid).children()
        return found[0].pid if found else 0

    def runs(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)
        if number == signal.SIGCONT:  # whoever waits for it has stopped with it
            self.process.send_signal(number)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait(START_S)


class Testbed:
    """``heads``: how many, each on a machine of its own; or ``together``: all on one."""

    def __init__(self, home: Path, heads: int = 3, *, together: bool = False) -> None:
        self.home = home
        self.names = HEADS[:heads]
        self._where = {name: self.names[0] if together else name for name in self.names}
        whole = [*dict.fromkeys(self._where.values())]
        self.machines = Machines([*MEMBERS, *NODES, FAR], whole)
        self.heads: dict[str, Daemon] = {}
        self.nodes: dict[str, Daemon] = {}
        self.programs: list[Daemon] = []
        self.events: list[Event] = []
        self._own: dict[str, int] = {}  # of heads: the process of the node that each has started
        self.nodes_killed = 0
        self._held: set[str] = set()  # that somebody does something to
        self._lock = threading.Lock()
        self.etcd: Etcd | None = None
        try:
            places = [Place(self.address(name), self.machines.inside(name)) for name in MEMBERS]
            self.etcd = Etcd(home / "etcd", len(MEMBERS), places=places)
            for name in self.names:
                self.start_head(name)
            for name in NODES:
                self.start_node(name)
            self.settle()
        except BaseException:
            self.close()
            raise

    # ---- processes -----------------------------------------------------------------------------

    def address(self, name: str) -> str:
        return self.machines.address(self._where.get(name, name))

    def addresses(self) -> str:
        """Of all heads, as ``--address`` takes them."""
        return ",".join(f"{self.address(name)}:{self._port(name)}" for name in self.names)

    def _port(self, name: str) -> int:
        """Heads of one machine have one each."""
        same = [other for other in self.names if self._where[other] == self._where[name]]
        return PORT + same.index(name)

    def folder(self, name: str) -> Path:
        folder = self.home / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def _run(self, where: str, name: str, home: Path, *command: str, **given: str) -> Daemon:
        environment = {"ZRAY_HOME": str(home), "PYTHONPATH": str(ROOT), **given}
        inside = self.machines.inside(where)
        return Daemon(name, self.home / f"{name}.out", [*inside, *command], environment)

    def start_head(self, name: str) -> None:
        """And wait until it serves, as leader or standby."""
        assert self.etcd is not None
        data = self.folder(name) / "clusters" / "default"
        key = self.folder(self.names[0]) / "clusters" / "default" / "cluster.key"
        if key.exists() and not (data / "cluster.key").exists():
            data.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.copy(key, data)  # with its mode
        fixed = ["--host", self.address(name), "--port", str(self._port(name)), "--num-cpus", "0"]
        fixed += ["--no-dashboard", "--store", self.etcd.url, *STORE]
        command = (sys.executable, "-m", "zray.cli.head", *fixed)
        before = self._latest(name)
        head = self._run(self._where[name], name, self.folder(name), *command)
        self.heads[name] = head

        def serves() -> bool:
            assert head.runs(), f"{name} has ended:\n{head.text()[-3000:]}"
            return self._latest(name) not in ("", before)

        until(serves, START_S, f"{name} serves")

    def _latest(self, name: str) -> str:
        """The id of that head which has registered last; empty: none is there."""
        found = [one["head_id"] for one in self.registered() if one["name"] == name]
        return found[-1] if found else ""

    def start_node(self, name: str) -> None:
        own = ("--resources", json.dumps({"kept" if name in KEPT else "lost": 100}))
        fixed = ("--address", self.addresses(), "--num-cpus", f"{ROOM:g}", "--name", name)
        command = (sys.executable, "-m", "zray.cli.worker", *fixed, *own, *STORE)
        self.nodes[name] = self._run(name, name, self.folder(name), *command, **self.key())

    def start_program(self, name: str, where: str, module: str, *arguments: str) -> Daemon:
        """A driver on that machine; it shares its home with the node there."""
        given = {"ZRAY_ADDRESS": self.addresses(), **self.key()}
        command = (sys.executable, "-m", module, *arguments)
        program = self._run(where, name, self.folder(where), *command, **given)
        self.programs.append(program)
        return program

    def key(self) -> dict[str, str]:
        """What opens the cluster elsewhere: a connection file that was copied once."""
        copy = self.home / "connection.json"
        if not copy.exists():
            original = self.folder(self.names[0]) / "clusters" / "default" / "connection.json"
            until(original.exists, START_S, f"{original} is there")
            shutil.copy(original, copy)
        return {"ZRAY_CONNECTION_FILE": str(copy)}

    # ---- who leads -----------------------------------------------------------------------------

    def stored(self, prefix: bytes) -> dict[bytes, Stored]:
        """What lies in etcd below the prefix, as the member knows it that knows the latest."""
        assert self.etcd is not None
        end = encoded(prefix + b"\xff")
        body = {"key": encoded(prefix), "range_end": end, "serializable": True}
        best: tuple[int, dict[bytes, Stored]] = (-1, {})
        for number in range(len(MEMBERS)):
            try:
                found = self.etcd.ask("kv/range", body, number, timeout_s=0.5)
            except OSError:
                continue
            rows = {
                base64.b64decode(row["key"]): Stored(
                    int(row["create_revision"]), base64.b64decode(row.get("value", ""))
                )
                for row in found.get("kvs", ())
            }
            best = max(best, (int(found["header"]["revision"]), rows), key=lambda one: one[0])
        return best[1]

    def registered(self) -> list[dict[str, Any]]:
        """What each head says of itself in etcd, the oldest first; ``name`` is ours."""
        rows = sorted(self.stored(PREFIX + b"heads/").values())
        records = [json.loads(row.value) for row in rows]
        return [{**record, "name": self._name(record)} for record in records]

    def _name(self, record: dict[str, Any]) -> str:
        for name in self.names:
            if f"{self.address(name)}:{self._port(name)}" in record["addresses"]:
                return name
        raise AssertionError(f"not a head of this testbed: {record}")

    def leader(self) -> str:
        """The name of the head that has the lead by etcd's account; empty: none that runs."""
        found = self.stored(PREFIX + b"leader").get(PREFIX + b"leader")
        if found is None:
            return ""
        leader = json.loads(found.value)["head_id"]
        latest = {record["name"]: record["head_id"] for record in self.registered()}
        return next((name for name, head_id in latest.items() if head_id == leader), "")

    # ---- what is done --------------------------------------------------------------------------

    @contextmanager
    def held(self, candidates: Iterable[str], chance: random.Random) -> Iterator[str]:
        """One of these, which nobody else does anything to meanwhile."""
        while True:
            with self._lock:
                free = sorted({*candidates} - self._held)
                if free:
                    name = chance.choice(free)
                    self._held.add(name)
                    break
            time.sleep(0.1)
        try:
            yield name
        finally:
            with self._lock:
                self._held.discard(name)

    def calm(self, name: str = "") -> bool:
        """Whether nobody does anything to it; without a name: to anything."""
        with self._lock:
            return name not in self._held if name else not self._held

    def kill_head(self, name: str) -> None:
        self.heads.pop(name).kill()

    def await_end_of_head(self, name: str) -> None:
        """It has been told to stop: a second signal would end it at once."""
        self._own.pop(name, None)
        head = self.heads.pop(name)
        status = head.wait(START_S)
        assert status == 0, f"{name} ended with {status}:\n{head.text()[-3000:]}"

    def lose_head(self, name: str) -> None:
        """With its machine."""
        self._own.pop(name, None)
        head = self.heads.pop(name)
        self.machines.lose(name)
        head.process.wait(START_S)

    def kill_node(self, name: str) -> None:
        self.nodes_killed += 1
        self.nodes.pop(name).kill()

    def note(self, what: str, *, of_leader: bool = False) -> Event:
        event = Event(time.monotonic(), what, of_leader)
        self.events.append(event)
        return event

    def command(self, *words: str, where: str = FAR, timeout_s: float = 60.0) -> tuple[int, str]:
        """Run ``zray ...`` there; its exit status and what it said."""
        command = [*self.machines.inside(where), sys.executable, "-m", "zray", *words]
        given = {"ZRAY_ADDRESS": self.addresses(), "ZRAY_HOME": str(self.folder(where))}
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **given, **self.key()}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=timeout_s
        )
        return done.returncode, done.stdout + done.stderr

    # ---- what must hold ------------------------------------------------------------------------

    def peer(self) -> Peer:
        """An observer of the head that leads.

        Raises:
            TimeoutError: nobody leads, or it does not answer.
        """
        leader = self.leader()
        if not leader:
            raise TimeoutError("nobody leads")
        info = ConnectionInfo.load(self.home / "connection.json")
        address = f"{self.address(leader)}:{self._port(leader)}"
        return Peer(msgspec.structs.replace(info, addresses=[address]))

    def status(self) -> m.Status:
        """By the head that leads; raises what ``peer`` does."""
        observer = self.peer()
        try:
            observer.send(m.Query(1, m.STATUS))
            return observer.receive(m.Status, ANSWER_S)
        finally:
            observer.close()

    def daemons(self) -> list[Daemon]:
        return [*self.heads.values(), *self.nodes.values()]

    def ended(self) -> str:
        """Which process has ended that nobody has ended; empty: none."""
        for daemon in self.daemons():
            if not daemon.runs():
                return (
                    f"{daemon.name} has ended with {daemon.process.returncode}:\n"
                    f"{daemon.text()[-3000:]}"
                )
        return self._wrong_own()

    def _wrong_own(self) -> str:
        """Nodes of heads outlive these, but where they are stopped or lost with their machine."""
        for name in self.heads if len({*self._where.values()}) == len(self.names) else ():
            found = [one.pid for one in self.machines.processes(name) if is_own_node(one)]
            if len(found) != 1:
                return f"{name} has nodes of its own: {found}"
            if found[0] != self._own.setdefault(name, found[0]):
                return f"the node of {name} was {self._own[name]} and is {found[0]} now"
        return ""

    def wrong(self) -> str:
        """What is wrong now; empty: nothing."""
        if ended := self.ended():
            return ended
        registered = self.registered()
        if len(registered) != len(self.names):
            return f"heads by etcd's account: {[one['name'] for one in registered]}"
        if not self.leader():
            return "nobody leads"
        status = self.status()
        alive = {node.info.name for node in status.nodes if node.state == "ALIVE"}
        if not alive.issuperset(NODES):
            return f"nodes that are ALIVE: {sorted(alive)}"
        count = sum(node.state == "ALIVE" for node in status.nodes)
        if count != len(NODES) + len(self.names):
            return f"{count} nodes are ALIVE: {sorted(alive)}"
        if status.health != "OK":
            return f"health: {status.health}"
        for daemon in self.daemons():
            process = psutil.Process(daemon.pid)
            if (resident := process.memory_info().rss) > RESIDENT_BYTES_MAX:
                return f"{daemon.name} has {resident / 1e6:.0f} MB"
            zombies = [p.pid for p in process.children() if p.status() == psutil.STATUS_ZOMBIE]
            if zombies:
                return f"{daemon.name} has zombies: {zombies}"
        return ""

    def settle(self, timeout_s: float = SETTLED_S) -> None:
        """Wait until nothing is wrong any more."""
        self.await_nothing(self.wrong, timeout_s)

    def unrest(self) -> str:
        """What is left of work that is over; empty: every node has all of its resources."""
        status = self.status()
        for node in status.nodes:
            total, available = dict(node.info.resources), dict(node.available)
            if total != available:
                missing = {name: (available.get(name), total[name]) for name in total}
                return f"{node.info.name} has not all of its resources: {missing}"
        if status.classes:
            return f"tasks wait: {status.classes}"
        if left := [job for job in status.jobs if job.unfinished]:
            return f"jobs are unfinished: {left}"
        return f"actors are alive: {status.actors}" if status.actors else ""

    @staticmethod
    def await_nothing(probe: Callable[[], str], timeout_s: float) -> None:
        """Wait until the probe finds nothing; raises AssertionError with its last finding."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                found = probe()
            except (TimeoutError, psutil.NoSuchProcess, OSError) as error:
                found = f"{type(error).__name__}: {error}"
            if not found:
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout_s:g} s: {found}")
            time.sleep(0.1)

    # ---- end -----------------------------------------------------------------------------------

    def stop(self) -> None:
        """Stop all daemons, as an operator does; raises AssertionError for what is left then."""
        for daemon in self.daemons():
            os.kill(daemon.pid, signal.SIGTERM)
        for daemon in self.daemons():
            status = daemon.wait(START_S)
            assert status == 0, f"{daemon.name} ended with {status}:\n{daemon.text()[-3000:]}"
        self.await_nothing(self._left, 10)

    def _left(self) -> str:
        found = [f"{one.pid}: {' '.join(one.cmdline())}" for one in self._processes()]
        paths = [path for path in self.home.rglob("*") if path.is_socket() or path.is_fifo()]
        return f"left behind: {found} {paths}" if found or paths else ""

    def _processes(self) -> Iterator[psutil.Process]:
        """Of the cluster, whoever has started them."""
        for process in psutil.process_iter():
            try:
                if process.environ().get("ZRAY_HOME", "").startswith(f"{self.home}/"):
                    yield process
            except psutil.Error:
                continue

    def close(self) -> None:
        """End what still runs of all that was started here."""
        for process in [*self._processes()]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for daemon in [*self.programs, *self.nodes.values(), *self.heads.values()]:
            daemon.process.send_signal(signal.SIGCONT)
            daemon.process.wait(START_S)
        if self.etcd is not None:
            self.etcd.close()
        self.machines.close()


def is_own_node(process: psutil.Process) -> bool:
    try:
        return "raylet.own_main" in " ".join(process.cmdline())
    except psutil.Error:
        return False
