"""Who asks why something is as it is: what answers is loaded when the first question comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zray.core.head.events import Events
from zray.core.head.members import Member, Members
from zray.core.machine import NEVER, Outbox
from zray.protocol import messages as m

if TYPE_CHECKING:
    from zray.core.head.causes import HeadCauses
    from zray.core.head.why import WhyQueries


class Questions:
    """``causes``: of what the head knows itself."""

    def __init__(
        self,
        outbox: Outbox[bytes],
        members: Members,
        causes: Callable[[], HeadCauses],
        events: Events,
    ) -> None:
        self._outbox = outbox
        self._members = members
        self._causes = causes
        self._events = events
        self.queries: WhyQueries | None = None  # once somebody has asked
        self.handlers: dict[type[m.Message], Callable[[Any, Any, float], None]] = {
            m.Why: self.on_why,
            m.ToldWhy: self.on_told,
        }

    def on_why(self, member: Member, message: m.Why, now: float) -> None:
        """Somebody asks."""
        if self.queries is None:
            from zray.core.head.why import WhyQueries

            self.queries = WhyQueries(*(self._outbox, self._members, self._causes(), self._events))
        self.queries.on_why(member, message, now)

    def on_told(self, member: Member, message: m.ToldWhy, now: float) -> None:
        """Somebody who was asked says what it knows."""
        if self.queries is not None:
            self.queries.on_told(member, message, now)

    def step(self, now: float) -> None:
        """Answer those that have waited for others for long enough."""
        if self.queries is not None:
            self.queries.step(now)

    def deadline(self) -> float:
        """When that is."""
        return self.queries.deadline() if self.queries is not None else NEVER
