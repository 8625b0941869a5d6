"""Where a head is reached, and what it says of that to people once it serves or stands by."""

from __future__ import annotations

import socket

from zray import limits
from zray.runtime import connection
from zray.runtime.connection import ConnectionInfo
from zray.runtime.linux import machine

WILDCARDS = ("0.0.0.0", "::")  # hosts that mean every network of this machine


def own_addresses(host: str, port: int) -> list[str]:
    """Where a head that listens there is reached, the best first."""
    if host not in WILDCARDS:
        return [connection.format_address(host, port)]
    hosts = [*machine.detect().addresses, "127.0.0.1"]
    return [connection.format_address(one, port) for one in dict.fromkeys(hosts)]


def own_node_name() -> str:
    """Of the node of a head among others."""
    return f"head-{socket.gethostname()}"[: limits.NAME_MAX]


def reachable(addresses: list[str]) -> list[str]:
    """Of a head's addresses those that mean it on other machines, too, if there are such."""
    found = [one for one in addresses if not one.startswith(("127.", "[::1]"))]
    return (found or addresses)[: limits.HEAD_ADDRESSES_MAX]


def ready_text(info: ConnectionInfo, host: str) -> str:
    """What a head that listens on ``host`` says once it serves: how to join and use it."""
    address = info.addresses[0]
    exposed = (
        "  listens on ALL networks of this machine; all traffic is encrypted, and nobody gets in\n"
        "    without the cluster's key\n"
    )
    return (
        f"zray head READY at {address} (cluster {info.name}, pid {info.pid})\n"
        f"{exposed if host in WILDCARDS else ''}"
        f"  add a worker node:   zray-worker --address {address}\n"
        f"    (on another machine: copy {connection.connection_path(info.name)} there first and\n"
        f"     point ZRAY_CONNECTION_FILE at the copy; it holds the cluster's key)\n"
        f'  use it from Python:  zray.init("{address}")\n'
        f"  look at it:          zray status      stop it: zray stop"
        + (
            f"\n  in a browser:        zray dashboard   ({info.dashboard})"
            if info.dashboard
            else ""
        )
    )


def standby_text(info: ConnectionInfo, leads: str) -> str:
    """What a head says that stands by; ``leads``: who does, in words."""
    return (
        f"zray head STANDBY at {info.addresses[0]} (cluster {info.name}, pid {info.pid}); {leads}"
    )
