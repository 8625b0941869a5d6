"""Network namespaces with links of their own: machines apart, as far as sockets can tell.

Owns what it makes and removes it; must never know of a cluster. Needs the right to make network
namespaces (root); where that is missing it fails and says so.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import time


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=10)
    text = f"ip {' '.join(words)}: {done.stderr}; it takes root, and see the top of {__file__}"
    assert done.returncode == 0, text


_numbers = itertools.count()
TURN = "\0zray-test-network"  # bound by who has a network
TURN_S = 50.0


class Network:
    """A namespace ``head`` that is linked with the test's own and with one for each node.

    Link n has the network 10.231.n.0/24 and the head's end .1; nobody routes between them.
    """

    def __init__(self, *nodes: str) -> None:
        # A name of its own: the kernel takes its time to remove what was deleted.
        self._mark = f"z{os.getpid() % 10_000}{chr(97 + next(_numbers) % 26)}"
        self.nodes = nodes
        self._made: list[str] = []
        self._turn = socket.socket(socket.AF_UNIX)
        try:
            self._await_turn()
            self._space("head")
            self._link(0, "")
            for number, name in enumerate(nodes, 1):
                self._space(name)
                self._link(number, name)
        except BaseException:
            self.close()
            raise

    def _await_turn(self) -> None:
        """Another run of the tests on this machine has the same addresses."""
        deadline = time.monotonic() + TURN_S
        while True:
            try:
                return self._turn.bind(TURN)
            except OSError:
                assert time.monotonic() < deadline, "other tests keep the networks of these"
                time.sleep(0.05)

    def space(self, name: str) -> str:
        return f"{self._mark}-{name}"

    def _space(self, name: str) -> None:
        ip("netns", "add", self.space(name))
        self._made.append(self.space(name))
        ip("-n", self.space(name), "link", "set", "lo", "up")

    def _link(self, number: int, name: str) -> None:
        near, far = f"{self._mark}h{number}", f"{self._mark}n{number}"
        ip("link", "add", near, "type", "veth", "peer", "name", far)
        ip("link", "set", near, "netns", self.space("head"))
        inside = ["-n", self.space(name)] if name else []
        if name:
            ip("link", "set", far, "netns", self.space(name))
        for where, device, host in ((["-n", self.space("head")], near, 1), (inside, far, 2)):
            ip(*where, "address", "add", f"10.231.{number}.{host}/24", "dev", device)
            ip(*where, "link", "set", device, "up")

    def inside(self, name: str) -> list[str]:
        """The words before a command that shall run in the namespace."""
        return ["ip", "netns", "exec", self.space(name)]

    def set(self, name: str, state: str) -> None:
        """``up`` or ``down``: the link between the head and a node."""
        number = self.nodes.index(name) + 1
        ip("-n", self.space("head"), "link", "set", f"{self._mark}h{number}", state)

    def join(self) -> None:
        """From now on the nodes reach each other, by way of the head's machine."""
        ip("netns", "exec", self.space("head"), "sysctl", "-qw", "net.ipv4.ip_forward=1")
        for number, name in enumerate(self.nodes, 1):
            ip("-n", self.space(name), "route", "add", "default", "via", f"10.231.{number}.1")

    def join_own(self) -> None:
        """The same between the nodes and the test's own namespace; gone with the network."""
        self.join()
        ip("route", "add", "10.231.0.0/16", "via", "10.231.0.1")

    def close(self) -> None:
        # At once: the next network has the same addresses.
        subprocess.run(["ip", "link", "delete", f"{self._mark}n0"], capture_output=True, timeout=10)
        for name in self._made:  # its links go with it
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, timeout=10)
        self._turn.close()
