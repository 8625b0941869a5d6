"""What a daemon tells whoever watches over it: systemd (sd_notify(3)), or a parent by a pipe.

It never waits, and never fails: a daemon does not depend on who watches it. The variables by which
it finds them leave the environment, which nodes and tasks inherit.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Final

PIPE_VARIABLE: Final = (
    "ZRAY_SUPERVISOR_PIPE"  # descriptor, and seconds of silence that are too long
)
SOCKET_VARIABLE: Final = "NOTIFY_SOCKET"
WATCHDOG_VARIABLES: Final = ("WATCHDOG_USEC", "WATCHDOG_PID")
NEVER: Final = float("inf")
_PARTS: Final = 4  # so many signs of life in the time after which silence is too long


class Watcher:
    """Who is told. ``send`` takes one message, and may lose it; ``watchdog_s``: 0, none."""

    def __init__(self, send: Callable[[bytes], object], watchdog_s: float) -> None:
        self._send = send
        self._every_s = watchdog_s / _PARTS if watchdog_s else NEVER
        self._beat_at = 0.0

    def tell(self, **fields: object) -> None:
        """``READY=1`` and the like; each value on one line."""
        lines = [f"{name}={' '.join(str(value).split())}\n" for name, value in fields.items()]
        with contextlib.suppress(OSError):
            self._send("".join(lines).encode(errors="replace"))

    def beat(self) -> float:
        """A sign of life, if it is time for one; seconds until the next."""
        if self._every_s == NEVER:
            return NEVER
        now = time.monotonic()
        if now >= self._beat_at:
            self._beat_at = now + self._every_s
            self.tell(WATCHDOG=1)
        return self._beat_at - now


declared: Watcher | None = None  # of this process


def declare(environment: MutableMapping[str, str] = os.environ) -> None:
    """Find out who watches over this process, if anybody does."""
    global declared
    pipe = environment.pop(PIPE_VARIABLE, "")
    if pipe:
        fd, silence = pipe.split(":")
        declared = Watcher(lambda message: os.write(int(fd), message), float(silence))
        return
    address = environment.pop(SOCKET_VARIABLE, "")
    watchdog_s = watchdog_of(environment)
    for name in WATCHDOG_VARIABLES:
        environment.pop(name, None)
    if address:
        with contextlib.suppress(OSError):
            declared = Watcher(sender(address), watchdog_s)


def tell(**fields: object) -> None:
    """As ``Watcher.tell``, if there is one."""
    if declared is not None:
        declared.tell(**fields)


def beat() -> float:
    """As ``Watcher.beat``, if there is one."""
    return declared.beat() if declared is not None else NEVER


def watchdog_of(environment: Mapping[str, str]) -> float:
    """After how many seconds of silence systemd kills this very process; 0: never."""
    usec, pid = (environment.get(name, "") for name in WATCHDOG_VARIABLES)
    if not usec.isdecimal() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(usec) / 1e6


def sender(address: str) -> Callable[[bytes], object]:
    """What sends a message to a socket of that name; ``@`` begins an abstract one.

    Raises:
        OSError: no such socket can be made, or the name is none.
    """
    import socket

    name = "\0" + address[1:] if address.startswith("@") else address
    if not name or len(os.fsencode(name)) > 107 or name[0] not in "\0/":
        raise OSError(f"{address!r} is no address of a unix socket")
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    made = socket.socket(socket.AF_UNIX, kind)
    return lambda message: made.sendto(message, name)
