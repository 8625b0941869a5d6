"""The cluster that is attacked: a head with a node of its own, two nodes, one short of descriptors.

It knows which daemons must be alive, and says what is wrong with them.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.real_cluster import Cluster, Program

NODES = ("one", "two")
STORE = ("--object-store-memory", "200MB")
DESCRIPTORS = 400  # of node two
RESIDENT_BYTES_MAX = 600_000_000
SETTLED_S = 90.0


class Besieged:
    def __init__(self, home: Path) -> None:
        self.cluster = Cluster(home)
        self.cluster.prefix["two"] = ["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"]
        self._nodes: dict[str, Program] = {}
        self._lock = threading.RLock()  # one blow replaces at a time
        self.start_head(0)
        for name in NODES:
            self.start_node(name)

    # ---- daemons -------------------------------------------------------------------------------

    def start_head(self, port: int = -1) -> None:
        self.cluster.start_head("--num-cpus", "1", *STORE, port=port)

    def start_node(self, name: str) -> None:
        self._nodes[name] = self.cluster.start_node(name, 1, *STORE)

    def head(self) -> Program:
        assert self.cluster.head is not None
        return self.cluster.head

    def node(self, chance: random.Random) -> Program:
        return self._nodes[chance.choice(NODES)]

    def daemons(self) -> list[Program]:
        return [self.head(), *self._nodes.values()]

    def replace_node(self, chance: random.Random, end: Callable[[Program], object]) -> None:
        name = chance.choice(NODES)
        end(self._nodes[name])
        self.start_node(name)

    def own_node(self) -> list[psutil.Process]:
        """The head's own; none while it is being started."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                command = " ".join(process.cmdline())
                if "raylet.own_main" in command and str(self.cluster.home) in command:
                    found.append(process)
        return found

    def workers(self) -> list[psutil.Process]:
        found = []
        for node in self._nodes.values():
            with contextlib.suppress(psutil.Error):
                for zygote in node.children():
                    found += zygote.children()
        return found

    # ---- what must hold ------------------------------------------------------------------------

    def wrong(self) -> str:
        """What is wrong with the daemons now; empty: nothing."""
        for program in self.daemons():
            if program.process.poll() is not None:
                return f"{program.name} has ended with {program.process.returncode}"
        status = self.cluster.status()
        alive = {node.info.name for node in status.nodes if node.state == "ALIVE"}
        if len(alive) != len(NODES) + 1 or not alive.issuperset(NODES):
            return f"nodes that are ALIVE: {sorted(alive)}"
        for program in self.daemons():
            process = psutil.Process(program.pid)
            if (resident := process.memory_info().rss) > RESIDENT_BYTES_MAX:
                return f"{program.name} has {resident / 1e6:.0f} MB"
            zombies = [p.pid for p in process.children() if p.status() == psutil.STATUS_ZOMBIE]
            if zombies:
                return f"{program.name} has zombies: {zombies}"
        return ""

    def settle(self) -> None:
        """Wait until nothing is wrong any more."""
        found = ""

        def probe() -> bool:
            nonlocal found
            try:
                found = self.wrong()
            except (TimeoutError, psutil.NoSuchProcess) as error:
                found = str(error)
            return not found

        try:
            self.cluster.until(probe, SETTLED_S, "all is well")
        except TimeoutError:
            raise AssertionError(found) from None
