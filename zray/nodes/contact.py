"""How a process finds its head: the address that answers, and the key that opens it.

Portable. Must never open a session: that is the caller's business.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from zray.errors import (
    AuthenticationError,
    HeadConnectionError,
    HeadSilentError,
    NothingListensError,
    UnknownHostError,
)
from zray.runtime import connection, probe
from zray.runtime.connection import ConnectionInfo

CONTACT_S = 4.5  # to find the first head that answers, whatever the number of addresses
RETRY_S = 0.5
FOLLOWED_S = 1.5  # to find one of the heads that were there beside one that was killed
KEY_WAIT_S = 1.5  # a head that comes up listens a moment before it writes its connection file
# What a head that is not up yet looks like; the plain one: none has told of itself here.
_NOT_YET = (HeadConnectionError, NothingListensError, UnknownHostError, HeadSilentError)


class _NoKeyError(AuthenticationError):
    """A head is there, and no connection file of it."""


def reach(address: str, timeout_s: float = probe.DIAGNOSE_S) -> tuple[ConnectionInfo, str]:
    """The key of the cluster whose head is at ``address``, or whose heads are, with commas.

    Returns:
        The numeric address of the first head that answers, within ``timeout_s``; with commas the
        others. Where none of these does, those that the cluster's connection file has.

    Raises:
        ValueError: an address is malformed.
        HeadConnectionError and its kinds, of the first one: nothing listens, not zray, unknown
            host, no key.
        KeyFileError: the connection file is there and cannot be used.
    """
    given = connection.split_addresses(address)
    try:
        info, found = _first(given, timeout_s)
    except _NOT_YET as error:
        known = connection.find(given[0]) if type(error) in _NOT_YET else None
        if known is None or not known.heads:
            raise
        try:
            info, found = _first(known.elsewhere(given), timeout_s)
        except HeadConnectionError:
            raise error from None
        found = [*found, *given]
    return info, ",".join(found)


def reach_one(address: str, timeout_s: float) -> tuple[ConnectionInfo, str]:
    """Those of one head, and its numeric address."""
    host, port = connection.parse_address(address)
    numeric = probe.diagnose(host, port, timeout_s)
    target = connection.format_address(numeric, port)
    info = connection.find(connection.format_address(host, port)) or connection.find(target)
    if info is None:
        raise _NoKeyError(
            f"a zray head answers at {address}, but this user has no key for it here; copy "
            "connection.json from the head's machine and point ZRAY_CONNECTION_FILE at it"
        )
    return info, target


def running() -> tuple[ConnectionInfo, str]:
    """The head that runs on this machine, with commas its other addresses and other heads'.

    Where it was killed, and its cluster has other heads, those.

    Raises:
        HeadConnectionError: there is none.
    """
    info = connection.find(None)
    if info is not None:
        return info, ",".join(info.reachable())
    if (elsewhere := _followed()) is not None:
        return elsewhere
    raise HeadConnectionError(
        'no head runs on this machine for this user; start one with "zray-head", or use '
        "zray.init() without an address for a cluster of this program's own"
    )


def _followed() -> tuple[ConnectionInfo, str] | None:
    """Where a head of this machine was killed: the cluster's other heads, if one answers."""
    info = connection.followed()
    if info is None:
        return None
    addresses = info.reachable()
    for address in addresses:
        with contextlib.suppress(HeadConnectionError):
            probe.diagnose(*connection.parse_address(address), FOLLOWED_S / len(addresses))
            others = [one for one in addresses if one != address]
            return info, ",".join([address, *others])
    return None


def is_running() -> bool:
    """Whether there is a head for ``running``, other than those that programs have for themselves.

    Raises:
        KeyFileError: the file in ``ZRAY_CONNECTION_FILE`` is unusable.
    """
    info = connection.find(None)
    if info is None or info.name.startswith(connection.LOCAL_PREFIX):
        return info is None and _followed() is not None
    return True


def await_head(
    addresses: list[str], wait_s: float, say: Callable[[str], None]
) -> tuple[ConnectionInfo, list[str]]:
    """The key of the first head that answers, and all addresses, that head's first.

    Args:
        addresses: of heads; none: the one that runs on this machine.
        wait_s: for so long it tries again where a head may yet come up.
        say: told for what it waits, once for each reason.

    Raises:
        As ``reach`` and ``running``: when the time is over, or at once where waiting cannot help.
    """
    deadline = time.monotonic() + wait_s
    said = ""
    keyless_until = 0.0
    while True:
        try:
            given = addresses or running()[1].split(",")
            return _first(given, min(CONTACT_S, probe.DIAGNOSE_S * len(given)))
        except _NoKeyError:
            now = time.monotonic()
            keyless_until = keyless_until or min(deadline, now + KEY_WAIT_S)
            if now >= keyless_until:
                raise
            time.sleep(0.05)
            continue
        except HeadConnectionError as error:
            left = deadline - time.monotonic()
            if left <= 0 or type(error) not in _NOT_YET:
                raise
            reason = str(error)
        if reason != said:
            say(f"{reason}\nWaits for the head for up to {left:.0f} s (--wait)")
            said = reason
        time.sleep(min(RETRY_S, left))


def _first(addresses: list[str], timeout_s: float) -> tuple[ConnectionInfo, list[str]]:
    first: HeadConnectionError | None = None
    for address in addresses:
        try:
            info, target = reach_one(address, timeout_s / len(addresses))
        except HeadConnectionError as error:
            first = first or error
            continue
        # libzmq resolves a name anew at each attempt, but to IPv4 only.
        best = target if target.startswith("[") or len(addresses) == 1 else address
        return info, [best, *(other for other in addresses if other != address)]
    assert first is not None
    raise first
