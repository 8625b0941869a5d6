"""Which head a peer connects to next, and when."""

from __future__ import annotations

from typing import Protocol

from zray import limits
from zray.protocol.codec import Payload


class Attempts(Protocol):
    """What a peer's shell asks of whoever decides."""

    def begin(self) -> str:
        """An attempt begins: the address of a head; empty: there is only one."""

    def heard(self, payload: Payload) -> None:
        """A head has said this."""

    def succeeded(self) -> None:
        """There is a session."""

    def ended(self, chance: float, *, answered: bool = True) -> float:
        """It is over, or there was none: seconds until the next attempt."""

    def patience_s(self) -> float:
        """How long a head may take to answer."""


class AtOneHead:
    """There is one head, or soon will be."""

    def __init__(self) -> None:
        self._wait_s = limits.RECONNECT_FIRST_S

    def begin(self) -> str:
        """As ``Attempts.begin``."""
        return ""

    def heard(self, payload: Payload) -> None:
        """As ``Attempts.heard``."""

    def succeeded(self) -> None:
        """As ``Attempts.succeeded``."""
        self._wait_s = limits.RECONNECT_FIRST_S

    def ended(self, chance: float, *, answered: bool = True) -> float:
        """As ``Attempts.ended``."""
        wait_s, self._wait_s = self._wait_s, min(self._wait_s * 2, limits.RECONNECT_MAX_S)
        return wait_s * (0.5 + 0.5 * chance)

    def patience_s(self) -> float:
        """As ``Attempts.patience_s``."""
        return limits.CONNECT_TIMEOUT_S
