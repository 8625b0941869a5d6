"""A first session: heads are tried until one leads, or it is clear that there will be none.

For drivers and observers, which wait for it. Whoever had a session before goes on looking for ever.
"""

from __future__ import annotations

import time

from zray.core.known_heads import KnownHeads
from zray.errors import HeadConnectionError, HeadSilentError, NoLeaderError
from zray.protocol import messages as m
from zray.runtime.link import HeadLink

HEADS_SHOWN = 8


class Search:
    """Through a link that is not open yet.

    Args:
        welcome_s: for so long a head that is there may take to say WELCOME.
        leader_s: for so long heads that stand by may take until one of them leads.
    """

    def __init__(self, link: HeadLink, welcome_s: float, leader_s: float) -> None:
        self._link = link
        self._welcome_s = welcome_s
        self._leader_s = leader_s
        self._began = time.monotonic()
        self._first: HeadConnectionError | None = None

    def left_s(self) -> float:
        """How long to sleep at most, until there is something to do."""
        now = time.monotonic()
        due = self._ends_at() if self._link.socket is not None else self._link.retry_at
        return max(0.0, min(due - now, 0.1))

    def _ends_at(self) -> float:
        heads = self._link.heads
        several = heads.stands_by is not None or len(heads.all()) > 1
        return self._began + max(self._welcome_s, self._leader_s if several else 0.0)

    def tend(self, *, stands_by: bool, lost: bool) -> bool:
        """Whether the next attempt is to be opened now.

        Args:
            stands_by: the head has answered that it does not lead.
            lost: the connection has ended.

        Raises:
            HeadConnectionError and its kinds: there will be no session.
        """
        link, now = self._link, time.monotonic()
        if link.socket is not None:
            overdue = len(link.heads.all()) > 1 and link.overdue(now, self._welcome_s)
            if stands_by or lost or overdue:
                self._over(None if stands_by else self._why(lost=lost), now)
            elif now >= self._ends_at():
                raise self._no_leader() or self._first or self._why(lost=False)
        elif now >= self._ends_at():
            raise self._no_leader() or self._first or self._why(lost=True)
        return link.socket is None and now >= link.retry_at

    def _over(self, error: HeadConnectionError | None, now: float) -> None:
        heads = self._link.heads
        self._first = self._first or error
        all_tried = heads.is_last()
        self._link.close(now)
        if heads.stands_by is None and all_tried and self._first is not None:
            raise self._first

    def _why(self, *, lost: bool) -> HeadConnectionError:
        address = self._link.address
        if lost:
            return self._link.error or HeadConnectionError(
                f"the head at {address} closed the connection; it is stopping, or see its log"
            )
        return HeadSilentError(
            f"the head at {address} accepted the connection but did not answer within "
            f"{self._welcome_s:g} s: it is stopped, or overloaded; see zray status and its log"
        )

    def _no_leader(self) -> NoLeaderError | None:
        heads = self._link.heads
        if heads.stands_by is None:
            return None
        text = no_leader(heads, time.time())
        return NoLeaderError(
            f"{text} Waited {time.monotonic() - self._began:.0f} s; try again, or see their logs: "
            "as soon as their store answers, one of them leads"
        )


def no_leader(heads: KnownHeads, clock: float) -> str:
    """What is known where heads stand by and no session comes; ``clock``: unix time."""
    from zray.core.causes import age, plain  # rarely wanted

    message = heads.stands_by
    assert message is not None
    known = sorted(message.heads, key=lambda head: not head.leads)[:HEADS_SHOWN]
    leader = next(
        (head for head in known if head.leads and heads.said_by not in head.addresses), None
    )
    if leader is not None:
        where = _place(leader)
        first = f"the head at {where} leads (epoch {message.epoch}), and does not answer from here"
    else:
        first = "no head of this cluster leads"
    waiting = [
        f"{_place(head)} for {age(max(0.0, clock - head.since_s))}"
        for head in known
        if not head.leads
    ]
    others = f"; standing by: {', '.join(waiting)}" if waiting else ""
    said = f". {heads.said_by} says: {message.text}" if message.text else ""
    return plain(f"{first}{others}{said}.")


def _place(head: m.HeadInfo) -> str:
    where = head.addresses[0] if head.addresses else head.host
    return f"{where} (pid {head.pid} on {head.host})"
