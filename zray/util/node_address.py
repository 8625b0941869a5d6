"""Where this process's machine is: its address, and what its cloud calls it.

Semantics: ``ray.util.get_node_ip_address`` and ``get_node_instance_id`` of Ray 2.60.
"""

from __future__ import annotations

import os
import socket

from zray.api import cluster
from zray.runtime import session
from zray.runtime.connection import parse_address

_FAR = ("8.8.8.8", 53)  # an address elsewhere; nothing is sent


def get_node_ip_address(address: str = f"{_FAR[0]}:{_FAR[1]}") -> str:
    """The address under which others of the cluster reach this process's node.

    Where there is none, before ``init`` or in a driver on a machine without a node: the address
    that this machine has on its way to ``address``, which is not contacted.
    """
    if session.current() is not None:
        found = cluster.own_address()
        if found:
            return found
    return _towards(address)


def get_node_instance_id() -> str:
    """What RAY_CLOUD_INSTANCE_ID says, as the launcher of a node has set it; else empty."""
    return os.environ.get("RAY_CLOUD_INSTANCE_ID", "")


def _towards(address: str) -> str:
    try:
        host, port = parse_address(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((host, port))
            return str(probe.getsockname()[0])
    except OSError:
        return "127.0.0.1"  # no way to anywhere
