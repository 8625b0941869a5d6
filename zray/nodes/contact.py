"""How a process finds its head: the address that answers, and the key that opens it.

Portable. Must never open a session: that is the caller's business.
"""

from __future__ import annotations

from zray.errors import AuthenticationError, HeadConnectionError
from zray.runtime import connection, probe
from zray.runtime.connection import ConnectionInfo


def reach(address: str, timeout_s: float = probe.DIAGNOSE_S) -> tuple[ConnectionInfo, str]:
    """The key and the numeric address of the head at ``address``, within ``timeout_s``.

    Raises:
        ValueError: the address is malformed.
        HeadConnectionError and its kinds: nothing listens, not zray, unknown host, no key.
        KeyFileError: the connection file is there and cannot be used.
    """
    host, port = connection.parse_address(address)
    numeric = probe.diagnose(host, port, timeout_s)
    target = connection.format_address(numeric, port)
    info = connection.find(connection.format_address(host, port)) or connection.find(target)
    if info is None:
        raise AuthenticationError(
            f"a zray head answers at {address}, but this user has no key for it here; copy "
            "connection.json from the head's machine and point ZRAY_CONNECTION_FILE at it"
        )
    return info, target


def running() -> tuple[ConnectionInfo, str]:
    """The head that runs on this machine.

    Raises:
        HeadConnectionError: there is none.
    """
    info = connection.find(None)
    if info is None:
        raise HeadConnectionError(
            'no head runs on this machine for this user; start one with "zray-head", or use '
            "zray.init() without an address for a cluster of this program's own"
        )
    return info, info.addresses[0]
