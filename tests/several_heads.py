"""Several real heads of one cluster on this machine, each with a home of its own, as on several."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from tests.killed_heads import end_nodes
from tests.real_cluster import START_S, STOP_S, Cluster, Program, until
from zray.protocol import messages as m
from zray.runtime.connection import ConnectionInfo

SAYS = re.compile(r"zray head (READY|STANDBY) at (\S+)")


class Heads:
    """Numbered from 1. ``cluster`` is whose head the first is; it also closes all."""

    def __init__(self, cluster: Cluster, store: str, directory: Path) -> None:
        self.cluster = cluster
        self._store = store
        self._directory = directory
        self.programs: dict[int, Program] = {}
        self.addresses: dict[int, str] = {}

    def home(self, number: int) -> Path:
        return self.cluster.home if number == 1 else self._directory / f"home{number}"

    def data(self, number: int) -> Path:
        return self.home(number) / "clusters" / "default"

    def start(self, number: int, *options: str, key: bool = True) -> str:
        """Start it and wait; returns whether it is READY or on STANDBY."""
        data = self.data(number)
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        if key and number != 1 and not (data / "cluster.key").exists():
            shutil.copy(self.data(1) / "cluster.key", data)
        port = self.addresses.get(number, ":0").rpartition(":")[2]
        before = self.programs.get(number)
        begin = len(before.text()) if before is not None else 0
        fixed = ("--num-cpus", "0", "--port", port, "--store", self._store)
        environment = {"ZRAY_HOME": str(self.home(number))}
        head = self.cluster.start(
            f"head{number}", "zray.cli.head", *fixed, *options, environment=environment
        )

        def said() -> Any:
            if head.process.poll() is not None:
                raise AssertionError(f"head {number} ended: {head.text()[begin:]}")
            return SAYS.search(head.text(), begin)

        found = until(said, START_S, f"head {number} is READY or on STANDBY: {head.text()}")
        self.programs[number], self.addresses[number] = head, found[2]
        self.cluster.address = ",".join(self.addresses.values())
        return str(found[1])

    def info(self, number: int) -> ConnectionInfo:
        return ConnectionInfo.load(self.data(number) / "connection.json")

    def status(self) -> m.Status:
        """From whichever leads."""
        return until(self._status, START_S, "a head leads")

    def _status(self) -> m.Status | None:
        from zray.errors import ZrayError
        from zray.nodes.driver.observer import Observer

        alive = [n for n, one in self.programs.items() if one.process.poll() is None]
        info = self.info(alive[0])
        try:
            with Observer(info, ",".join(self.addresses[n] for n in alive)) as observer:
                return observer.status()
        except ZrayError:
            return None

    def leader(self) -> int:
        """The number of the head that leads."""
        leader = next(head for head in self.status().heads if head.leads)
        return next(n for n, address in self.addresses.items() if address in leader.addresses)

    def close(self) -> None:
        """Their nodes, of those that were killed."""
        for number in self.programs:
            if number != 1:
                end_nodes(self.home(number), STOP_S)
