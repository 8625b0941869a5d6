"""Asks the heads that stand by whether another leads, as `runtime.scout` does for real ones."""

from __future__ import annotations

from collections.abc import Callable

from zray import limits
from zray.core.known_heads import KnownHeads
from zray.core.machine import NEVER
from zray.protocol import codec
from zray.protocol import messages as m
from zray.testing.world.network import Link
from zray.testing.world.world import World

LOOK_S = 0.05


class SimScout:
    """For one peer; idle as long as its head answers. ``wake``: there is something to read."""

    def __init__(self, name: str, world: World, wake: Callable[[], None]) -> None:
        self.name = f"scout of {name}"
        self._world = world
        self._wake = wake
        self._own = KnownHeads()
        self._link: Link | None = None
        self._looks = False
        self._opened = self._retry_at = 0.0
        self._answers: list[codec.Payload] = []

    def received(self, link: Link, payload: bytes) -> None:
        """A payload came in."""
        if link is self._link:
            self._answers.append(codec.decode(payload))
            self._wake()

    def cut(self, link: Link) -> None:
        """The connection is cut."""
        if link is self._link:
            self._close()

    def look(self, heads: KnownHeads) -> bool:
        """Whether another head leads, so that the session is to end."""
        now = self._world.clock.now
        if not heads.is_silent(now):
            self._looks = False
            if self._link is not None:
                self._close()
            return False
        if not self._looks:
            self._looks = True
            self._own.aim(heads.others())
            self._retry_at = now
        if self._link is None:
            if now >= self._retry_at:
                self._open(now)
            return False
        payloads, self._answers = self._answers, []
        answers = [(one, payload.epoch) for payload in payloads for one in payload.messages]
        if any(heads.another_leads(one, epoch, self._own.address) for one, epoch in answers):
            self._looks = False
            self._close()
            return True
        if answers or now - self._opened > self._own.patience_s():
            self._close(answered=bool(answers))
        return False

    def deadline(self, heads: KnownHeads) -> float:
        """When it is to be called again."""
        if self._looks:
            return self._world.clock.now + LOOK_S
        return heads._asked + limits.HEAD_SILENT_S + 0.001 if heads.others() else NEVER

    def _open(self, now: float) -> None:
        network = self._world.network
        self._link = network.connect(self, self._own.begin())
        self._opened = now
        if self._link is None:
            self._close()
            return
        me = (m.ROLE_OBSERVER, self._world.random.randbytes(16), 0, b"")
        hello = m.Hello(0, m.PROTOCOL_VERSION, *me, m.Versions("", "", ""), minor=m.PROTOCOL_MINOR)
        network.up(self._link, codec.encode(0, [hello])[0])

    def _close(self, *, answered: bool = True) -> None:
        link, self._link = self._link, None
        self._answers.clear()
        if link is not None and link.peer_open:
            self._world.network.close(link)
        now, chance = self._world.clock.now, self._world.draw(0.0, 1.0)
        self._retry_at = now + self._own.ended(chance, answered=answered)
