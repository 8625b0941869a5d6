"""Asks the heads that stand by whether another leads, while the one of the session says nothing.

The session goes on meanwhile: a head that was only slow, or out of reach for a moment, is followed
as before. Only a leader of a later epoch ends that.
"""

from __future__ import annotations

import zmq

from zray.core.known_heads import KnownHeads
from zray.protocol import messages as m
from zray.runtime import identity, sockets
from zray.runtime.connection import ConnectionInfo
from zray.runtime.link import HeadLink

LOOK_S = 0.05  # how often somebody who looks reads the answers


class Scout:
    """For one process; idle, and without a socket, as long as its head answers.

    ``heads``: those of the process, which hear of the new leader.
    """

    def __init__(self, context: sockets.Context, info: ConnectionInfo, heads: KnownHeads) -> None:
        self._heads = heads
        self._own = KnownHeads()
        self._process_id = b""
        self._link = HeadLink(context, info, self._own, self._hello, heartbeats=False)

    def _hello(self) -> tuple[int, m.Message]:
        me = (m.ROLE_OBSERVER, self._process_id, 0, b"", identity.versions(pickles=False))
        return 0, m.Hello(0, m.PROTOCOL_VERSION, *me, minor=m.PROTOCOL_MINOR)

    @property
    def looks(self) -> bool:
        """Whether it is to be called again in ``LOOK_S``."""
        return bool(self._process_id)

    def look(self, now: float) -> bool:
        """Whether another head leads, so that the session is to end; never waits."""
        if not self._heads.is_silent(now):
            self.close(now)
            return False
        link = self._link
        if not self._process_id:
            self._process_id = identity.id_source().process_id()
            self._own.aim(self._heads.others())
            self._own.heads = [head for head in self._heads.heads if not head.leads]
            link.retry_at = now
        if link.socket is None:
            if now >= link.retry_at:
                try:
                    link.open(now)
                except zmq.ZMQError:  # no descriptor is left
                    return False
            return False
        answers = [(one, payload.epoch) for payload in link.receive() for one in payload.messages]
        if any(self._heads.another_leads(one, epoch, link.address) for one, epoch in answers):
            self.close(now)
            return True
        if answers or link.lost() or link.overdue(now):
            if answers:
                self._own.not_leader(m.NotLeader(0, 0, [], ""))  # it is there, and no more
            link.close(now)
        return False

    def close(self, now: float) -> None:
        """It looks no more."""
        self._process_id = b""
        if self._link.socket is not None:
            self._link.close(now)
