"""When a head that has ended is started again, and when one that does nothing is ended.

The judgement of `zray-head --supervise`; its process has pipes, signals and children.
"""

from __future__ import annotations

from typing import NamedTuple

from zray import limits

DONE = 0
USAGE = 2  # as click ends a command that was given wrongly
FINAL = 3  # what has ended the head is the same at each start: a damaged store, a missing key
NEVER = float("inf")
_ASKED = (1, 2, 15)  # SIGHUP, SIGINT, SIGTERM: whoever sends these to the head wants its end


class Again(NamedTuple):
    """Start it again, after a pause; ``text`` says of the last end what is worth saying."""

    pause_s: float
    text: str


class End(NamedTuple):
    """It is over, with that exit status. ``text``: why, where the head has not said so itself."""

    status: int
    text: str = ""


class Supervision:
    """The lives of one head, as seen from its parent. ``now`` in seconds of one clock.

    As systemd's StartLimit it gives up on a head that cannot serve, but not sooner than the nodes
    do, which wait for the next head with what they run.

    Args:
        watchdog_s: a head that serves and says nothing for so long is to be killed.
    """

    def __init__(self, watchdog_s: float) -> None:
        self._watchdog_s = watchdog_s
        self._begun = 0.0
        self._heard = 0.0
        self._serves = False
        self._served = -1.0  # when one has served last; below 0: none has
        self._failures = 0  # in a row
        self._stop_by = NEVER
        self._killed = ""  # why by its parent
        self.restarts = 0

    # ---- while it runs ---------------------------------------------------------------------

    def begun(self, now: float) -> None:
        """Its process is there."""
        self.restarts += bool(self._begun)
        self._begun = self._heard = now
        self._serves = False
        self._killed = ""

    def ready(self, now: float) -> None:
        """It serves."""
        self._serves = True
        self._heard = self._served = now

    def heard(self, now: float) -> None:
        """Its loop turns."""
        self._heard = now
        if self._serves:
            self._served = now

    def slept(self, for_s: float) -> None:
        """The parent itself stood still, so the head's silence in that time proves nothing."""
        self._heard += for_s
        self._begun += for_s

    def stop(self, now: float) -> None:
        """It was told to end."""
        self._stop_by = min(self._stop_by, now + limits.SUPERVISED_STOP_S)

    @property
    def stopping(self) -> bool:
        """Whether it was told to end."""
        return self._stop_by < NEVER

    def deadline(self) -> float:
        """When it is to be killed unless something is heard before."""
        if self._killed:
            return NEVER
        quiet = self._heard + self._watchdog_s
        if not self._serves:  # its store may be large, or it stands by
            quiet = max(quiet, self._begun + limits.HEAD_START_S)
        return min(self._stop_by, quiet)

    def overdue(self, now: float) -> str:
        """Why it is to be killed now; empty: it is not."""
        if now < self.deadline():
            return ""
        if now >= self._stop_by:
            self._killed = f"it has not stopped within {limits.SUPERVISED_STOP_S:g} s"
        elif self._serves:
            self._killed = f"it has done nothing for {self._watchdog_s:g} s"
        else:
            self._killed = f"it does not serve {limits.HEAD_START_S:g} s after its start"
        return self._killed

    # ---- after its end ---------------------------------------------------------------------

    def ended(self, status: int, how: str, now: float) -> Again | End:
        """What follows an end with that status, negative for a signal; ``how`` it was, in words."""
        code = status if status >= 0 else 128 - status
        if status == DONE or -status in _ASKED:
            return End(DONE)  # killed by such a signal is one that was only about to begin
        if self.stopping:
            return End(code)
        if status in (USAGE, FINAL) or (status > 0 and self._served < 0):
            return End(status)
        how = f"{how}, because {self._killed}" if self._killed else how
        if self._serves and now - self._begun >= limits.SUPERVISED_STEADY_S:
            self._failures = 0
        self._failures += 1
        if self._failures >= limits.SUPERVISED_FAILURES and self._served < 0:
            return End(code, f"{how}. It was tried {self._failures} times and never served")
        waited_s = now - self._served
        if self._served >= 0 and waited_s >= limits.HEAD_LOST_GRACE_S:
            text = f"{how}. It has not served for {waited_s:.0f} s, and nodes wait no longer"
            return End(code, text)
        pause_s = self._pause_s()
        when = f"in {pause_s:g} s" if pause_s else "at once"
        again = f"{how}. It is started again {when}"
        if self._failures >= limits.SUPERVISED_FAILURES:
            again += f", for the {self._failures}th time in a row without lasting"
        return Again(pause_s, again)

    def _pause_s(self) -> float:
        if self._failures <= 1:
            return 0.0
        longer = limits.SUPERVISED_PAUSE_S * 2.0 ** (self._failures - 2)
        return min(longer, limits.SUPERVISED_PAUSE_MAX_S)
