"""Real etcds of the distribution, on free ports and in a folder of the test's.

Who makes one owns its processes and ends all of them.
"""

from __future__ import annotations

import base64
import json
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

START_S = 30.0


class Place(NamedTuple):
    """Where a member runs."""

    host: str = "127.0.0.1"
    inside: Sequence[str] = ()


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


class Etcd:
    """``count`` members on this machine; ``options`` go to each.

    ``places``: for each member its host, and the words before its command.
    """

    def __init__(
        self,
        directory: Path,
        count: int = 1,
        *options: str,
        scheme: str = "http",
        places: Sequence[Place] = (),
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        places = places or [Place()] * count
        self.hosts, self._inside = zip(*places, strict=True)
        self._directory = directory
        self._options = options
        self._scheme = scheme
        ports = free_ports(2 * count)
        self.ports, self._peers = ports[:count], ports[count:]
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * count
        self._tracers: list[subprocess.Popen[bytes]] = []
        try:
            for number in range(count):
                self.start(number, wait=False)
            for number in range(count):
                self.await_member(number)
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """As ``zray-head --store`` takes it."""
        name = {"http": "etcd", "https": "etcds"}[self._scheme]
        return f"{name}://{','.join(self._ends(self.ports))}"

    def _ends(self, ports: list[int]) -> list[str]:
        return [f"{host}:{port}" for host, port in zip(self.hosts, ports, strict=True)]

    # ---- members ---------------------------------------------------------------------------

    def start(self, number: int, *, wait: bool = True) -> None:
        """Start a member, again after its end."""
        client = f"{self._scheme}://{self._ends(self.ports)[number]}"
        peers = [f"http://{end}" for end in self._ends(self._peers)]
        names = [f"m{one}={url}" for one, url in enumerate(peers)]
        command = [
            *self._inside[number],
            *("etcd", "--name", f"m{number}", "--data-dir", str(self._directory / f"m{number}")),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peers[number], "--initial-advertise-peer-urls", peers[number]),
            *("--initial-cluster", ",".join(names), "--initial-cluster-state", "new"),
            *("--logger", "zap", *self._options),
        ]
        with (self._directory / f"m{number}.log").open("ab") as log:
            self._processes[number] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        if wait:
            self.await_member(number)

    def await_member(self, number: int) -> None:
        """Until it serves, which it does once it has a leader."""
        deadline = time.monotonic() + START_S
        while not self.serves(number):
            process = self._processes[number]
            assert process is not None and process.poll() is None, self.log(number)
            assert time.monotonic() < deadline, self.log(number)
            time.sleep(0.05)

    def serves(self, number: int) -> bool:
        if self._scheme == "https":  # its certificates are the test's own
            return "serving client traffic securely" in self.log(number)
        try:
            self.ask("kv/range", {"key": encoded(b"x")}, number, timeout_s=1.0)
        except urllib.error.HTTPError as error:
            return error.code in (400, 401, 403)  # it wants to know who asks
        except OSError:
            return False
        return True

    def log(self, number: int) -> str:
        return (self._directory / f"m{number}.log").read_text(errors="replace")

    def kill(self, number: int) -> None:
        """``kill -9``, and wait until it is gone."""
        process = self._processes[number]
        assert process is not None
        process.kill()
        process.wait()
        self._processes[number] = None

    def slow(self, seconds: float) -> None:
        """Each fsync of each member that runs takes so much longer, until ``fast``."""
        for process in self._processes:
            if process is not None:
                self._tracers.append(_slowed(process.pid, seconds))

    def fast(self) -> None:
        for tracer in self._tracers:
            tracer.terminate()
            tracer.wait()
        self._tracers = []

    def signal(self, number: int, which: signal.Signals) -> None:
        process = self._processes[number]
        assert process is not None
        process.send_signal(which)

    def leader(self) -> int:
        """The number of the member that leads."""
        deadline = time.monotonic() + START_S
        while True:
            for number in range(len(self.ports)):
                try:
                    found = self.ask("maintenance/status", {}, number, timeout_s=1.0)
                except OSError:
                    continue
                if found.get("leader") == found["header"]["member_id"]:
                    return number
            assert time.monotonic() < deadline, "no member leads"
            time.sleep(0.05)

    def close(self) -> None:
        self.fast()
        for process in self._processes:
            if process is not None:
                process.kill()
                process.wait()
        self._processes = [None] * len(self._processes)

    # ---- what is stored --------------------------------------------------------------------

    def ask(
        self, method: str, body: dict[str, Any], number: int = 0, timeout_s: float = 10.0
    ) -> dict[str, Any]:
        """One request to one member's gateway."""
        url = f"http://{self._ends(self.ports)[number]}/v3/{method}"
        request = urllib.request.Request(url, json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            found: dict[str, Any] = json.loads(answer.read())
        return found

    def put(self, key: bytes, value: bytes) -> None:
        self.ask("kv/put", {"key": encoded(key), "value": encoded(value)})

    def delete(self, key: bytes) -> None:
        self.ask("kv/deleterange", {"key": encoded(key)})

    def keys(self, prefix: bytes) -> list[bytes]:
        end = prefix[:-1] + bytes([prefix[-1] + 1])
        body = {"key": encoded(prefix), "range_end": encoded(end), "keys_only": True}
        found = self.ask("kv/range", body).get("kvs", ())
        return [base64.b64decode(one["key"]) for one in found]

    def make_room(self, prefix: bytes) -> None:
        """In the first member, which was full, by what begins with ``prefix``."""
        end = prefix[:-1] + bytes([prefix[-1] + 1])
        self.ask("kv/deleterange", {"key": encoded(prefix), "range_end": encoded(end)})
        self.ask("kv/compaction", {"revision": str(self.revision()), "physical": True})
        self.ask("maintenance/defragment", {})
        for alarm in self.ask("maintenance/alarm", {"action": "GET"})["alarms"]:
            self.ask("maintenance/alarm", {"action": "DEACTIVATE", **alarm})

    def revision(self) -> int:
        return int(self.ask("kv/range", {"key": encoded(b"x")})["header"]["revision"])


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _slowed(pid: int, seconds: float) -> subprocess.Popen[bytes]:
    calls = "fsync,fdatasync"
    delay = f"inject={calls}:delay_exit={round(seconds * 1e6)}"
    tracer = subprocess.Popen(
        ["strace", "-qq", "-f", "-p", str(pid), "-e", f"trace={calls}", "-e", delay],
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + START_S
    while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
        assert tracer.poll() is None and time.monotonic() < deadline, "strace cannot trace etcd"
        time.sleep(0.01)
    return tracer
