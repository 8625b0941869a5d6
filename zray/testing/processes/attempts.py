"""Which head a peer of the simulation connects to next, where there is only one."""

from __future__ import annotations

from zray import limits
from zray.core.known_heads import KnownHeads


class AtOneHead(KnownHeads):
    """It has no address here, and may be away for a while."""

    def begin(self) -> str:
        """As ``KnownHeads.begin``."""
        return ""

    def ended(self, chance: float, *, answered: bool = True) -> float:
        """As ``KnownHeads.ended``."""
        if self.linked:
            self.linked = False
            self._wait_s = limits.RECONNECT_FIRST_S
        wait_s, self._wait_s = self._wait_s, min(self._wait_s * 2, limits.RECONNECT_MAX_S)
        return self._jittered(wait_s, chance)

    def patience_s(self) -> float:
        """As ``KnownHeads.patience_s``."""
        return limits.CONNECT_TIMEOUT_S
