"""Machines, as far as sockets, processes and host names can tell: apart, cut off, lost, renewed.

Owns the namespaces that it makes and removes them; must never know of a cluster. Every machine has
a link to a router, which drops what is cut off without a word, in one direction if so asked. Needs
the right to make namespaces (root).
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

import psutil

from tests.cluster.network import ip

START_S = 20.0
ROUTER, OWN = 254, 200  # last numbers of addresses: the router's, and the test's own
# Reaps what is orphaned, as a machine's first process has to.
INIT = "hostname {}; trap : TERM INT; while :; do sleep 1000 & wait $!; done"
APART = ["unshare", "--pid", "--uts", "--mount", "--mount-proc", "--fork", "--kill-child"]

_numbers = itertools.count()

Way = tuple[str, str]
"""From one machine to another."""


class Machines:
    """``linked``: have a network of their own; ``whole``: processes and a host name, too.

    The test's own network reaches all of them, and is never cut off.
    """

    def __init__(self, linked: Sequence[str], whole: Sequence[str] = ()) -> None:
        # A name of its own: the kernel takes its time to remove what was deleted.
        self._mark = f"z{os.getpid() % 100_000}{chr(97 + next(_numbers) % 26)}"
        self.names = (*linked, *whole)
        self._whole = whole
        self._cuts: set[Way] = set()
        self._lost: set[str] = set()
        self._inits: dict[str, subprocess.Popen[bytes]] = {}
        self._turn, self._subnet = free_subnet()
        try:
            ip("netns", "add", self.space("router"))
            self._in_router("sysctl", "-qw", "net.ipv4.ip_forward=1")
            ip("link", "add", f"{self._mark}o", "type", "veth", *self._peer("own"))
            self._join([], f"{self._mark}o", OWN)
            ip("-n", self.space("router"), "link", "set", "own", "up")
            self._to_router("own", OWN)
            ip("route", "add", f"{self._subnet}.0/24", "via", f"{self._subnet}.{ROUTER}")
            for name in self.names:
                self._make(name)
        except BaseException:
            self.close()
            raise

    # ---- making --------------------------------------------------------------------------------

    def space(self, name: str) -> str:
        return f"{self._mark}-{name}"

    def _peer(self, name: str) -> list[str]:
        return ["peer", "name", name, "netns", self.space("router")]

    def _in_router(self, *command: str) -> None:
        ip("netns", "exec", self.space("router"), *command)

    def _join(self, where: list[str], device: str, number: int) -> None:
        address, router = f"{self._subnet}.{number}", f"{self._subnet}.{ROUTER}"
        ip(*where, "address", "add", address, "peer", router, "dev", device)
        ip(*where, "link", "set", device, "up")

    def _to_router(self, device: str, number: int) -> None:
        address, router = f"{self._subnet}.{number}", f"{self._subnet}.{ROUTER}"
        where = ("-n", self.space("router"))
        ip(*where, "address", "add", router, "peer", address, "dev", device)
        ip(*where, "link", "set", device, "up")

    def _make(self, name: str) -> None:
        space, number = self.space(name), self.names.index(name) + 1
        ip("netns", "add", space)
        ip("-n", space, "link", "set", "lo", "up")
        ip("-n", space, "link", "add", "eth0", "type", "veth", *self._peer(name))
        self._join(["-n", space], "eth0", number)
        ip("-n", space, "route", "add", "default", "via", f"{self._subnet}.{ROUTER}")
        self._to_router(name, number)
        if name in self._whole:
            command = ["ip", "netns", "exec", space, *APART, "sh", "-c", INIT.format(name)]
            null = subprocess.DEVNULL
            self._inits[name] = subprocess.Popen(command, stdin=null, stderr=null)
            self._first(name)

    def _first(self, name: str) -> int:
        """The process id of a whole machine's first process, once it is what it shall be."""
        deadline = time.monotonic() + START_S
        while True:
            for child in psutil.Process(self._inits[name].pid).children():
                if child.name() == "sh" and host_name(child.pid) == name:
                    return child.pid
            assert time.monotonic() < deadline, f"machine {name} has not started"
            time.sleep(0.01)

    # ---- what is there -------------------------------------------------------------------------

    def address(self, name: str) -> str:
        return f"{self._subnet}.{self.names.index(name) + 1}"

    def inside(self, name: str) -> list[str]:
        """The words before a command that shall run there; on a whole machine as a child."""
        if name not in self._whole:
            return ["ip", "netns", "exec", self.space(name)]
        entry = ["nsenter", f"--target={self._first(name)}", "--net", "--pid", "--uts", "--mount"]
        return [*entry, "--"]

    def processes(self, name: str) -> Iterator[psutil.Process]:
        """All of a whole machine."""
        here = os.readlink(f"/proc/{self._first(name)}/ns/pid")
        for process in psutil.process_iter():
            with suppress(OSError):
                if os.readlink(f"/proc/{process.pid}/ns/pid") == here:
                    yield process

    # ---- harm ----------------------------------------------------------------------------------

    def cut(self, ways: Iterable[Way]) -> None:
        """From now on nothing comes through these ways."""
        for one, other in {*ways} - self._cuts:
            self._rule("add", one, other)
            self._cuts.add((one, other))

    def heal(self, ways: Iterable[Way]) -> None:
        for one, other in {*ways} & self._cuts:
            self._rule("del", one, other)
            self._cuts.discard((one, other))

    def _rule(self, what: str, one: str, other: str) -> None:
        ways = ("from", self.address(one), "to", self.address(other))
        ip("-n", self.space("router"), "rule", what, *ways, "blackhole")

    def lose(self, name: str) -> None:
        """As if its power had failed: no process is left, and nobody hears of that."""
        everything = ("-n", self.space("router"), "rule", "add")
        ip(*everything, "from", self.address(name), "blackhole")
        ip(*everything, "to", self.address(name), "blackhole")
        self._lost.add(name)
        os.kill(self._first(name), signal.SIGKILL)
        self._inits[name].wait(START_S)

    def renew(self, name: str) -> None:
        """Switch a lost machine on again, with no process."""
        ip("-n", self.space("router"), "link", "delete", name)  # at once: the next has its name
        ip("netns", "delete", self.space(name))
        self._make(name)
        everything = ("-n", self.space("router"), "rule", "del")
        ip(*everything, "from", self.address(name), "blackhole")
        ip(*everything, "to", self.address(name), "blackhole")
        self._lost.discard(name)

    # ---- end -----------------------------------------------------------------------------------

    def close(self) -> None:
        for init in self._inits.values():
            if init.poll() is None:
                for child in psutil.Process(init.pid).children():
                    child.kill()
                init.wait(START_S)
        # At once: its routes go with it.
        subprocess.run(["ip", "link", "delete", f"{self._mark}o"], capture_output=True, timeout=10)
        for name in (*self.names, "router"):
            subprocess.run(
                ["ip", "netns", "delete", self.space(name)], capture_output=True, timeout=10
            )
        self._turn.close()


def host_name(pid: int) -> str:
    """Of the machine on which a process runs, by the name that it shows there."""
    found = subprocess.run(
        ["nsenter", f"--target={pid}", "--uts", "hostname"], capture_output=True, text=True
    )
    return found.stdout.strip()


def free_subnet() -> tuple[socket.socket, str]:
    """One that no other run of these tests has, for as long as the socket is open."""
    for number in range(250):
        turn = socket.socket(socket.AF_UNIX)
        try:
            turn.bind(f"\0zray-test-machines-{number}")
        except OSError:
            turn.close()
            continue
        return turn, f"10.232.{number}"
    raise AssertionError("all networks of these tests are in use")


def between(one: str, others: Iterable[str]) -> set[Way]:
    """Both directions between one machine and the others."""
    return {way for other in others if other != one for way in ((one, other), (other, one))}
