"""What went wrong in a daemon and harmed one item only: recorded here, so that the rest goes on.

A shell or a machine that catches an exception hands it over with what was being done and for whom.
Health is derived from it: degraded for ``limits.INCIDENT_S`` after the last of its kind.
"""

from __future__ import annotations

from collections.abc import Callable

from zray import limits


class Incident:
    """All that went wrong in one way. Times are monotonic seconds."""

    __slots__ = ("count", "error", "first", "last", "what", "whom")

    def __init__(self, what: str, error: str, now: float) -> None:
        self.what = what
        self.error = error
        self.whom = ""  # the last one whom it harmed
        self.count = 0
        self.first = self.last = now

    def in_words(self, now: float) -> str:
        """One line: what, whom, why, how often, and for how long."""
        whom = f" ({self.whom})" if self.whom else ""
        times = f", {self.count} times in {self.last - self.first:.0f} s" if self.count > 1 else ""
        return f"{self.what}{whom}: {self.error}{times}; last {now - self.last:.0f} s ago"


class FreshStart:
    """How often a session may begin anew because a message of a kind could not be handled."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def allowed(self, kind: str, now: float) -> bool:
        """Not again soon: what is told anew may be what cannot be handled."""
        last = self._last.get(kind)
        self._last[kind] = now
        return last is None or now - last > limits.FRESH_START_S


class Incidents:
    """``log`` gets a text for each new kind of incident; ``describe`` words an exception for it,
    with its traceback where the shell can tell."""

    def __init__(
        self,
        log: Callable[[str], None] = lambda text: None,
        describe: Callable[[BaseException], str] = repr,
    ) -> None:
        self.log = log
        self.describe = describe
        self.total = 0
        self._kinds: dict[tuple[str, str], Incident] = {}

    def record(self, what: str, whom: str, error: BaseException, now: float) -> str:
        """Something failed. ``what`` was being done for ``whom``; returns the error in words."""
        text = f"{type(error).__name__}: {error}"[: limits.INCIDENT_TEXT_MAX]
        key = (what, type(error).__name__)
        incident = self._kinds.pop(key, None)
        if incident is None or now - incident.last > limits.INCIDENT_S:
            incident = Incident(what, text, now)
            self.log(f"{what} ({whom}) failed, the rest goes on: {self.describe(error)}")
        self._kinds[key] = incident  # the latest comes last
        incident.error = text
        incident.whom = whom
        incident.count += 1
        incident.last = now
        self.total += 1
        if len(self._kinds) > limits.INCIDENTS_MAX:
            del self._kinds[next(iter(self._kinds))]
        return text

    def recent(self, now: float) -> list[Incident]:
        """Those that count towards the health, the latest first."""
        for key in [k for k, one in self._kinds.items() if now - one.last > limits.INCIDENT_S]:
            del self._kinds[key]
        return [*reversed(self._kinds.values())]

    def trouble(self, now: float) -> str:
        """Why this process is degraded, and since when; empty: it is not."""
        recent = self.recent(now)
        if not recent:
            return ""
        more = f" (and {len(recent) - 1} more kinds; see its log)" if len(recent) > 1 else ""
        return recent[0].in_words(now) + more
