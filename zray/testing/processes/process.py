"""A simulated process with turns, and what those with a link to the head share. Decides nothing.

Each does what the real shell does: drain what arrived, handle it, settle once, send one batch per
peer. A process can be slow, frozen (SIGSTOP) or dead (SIGKILL).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from zray import limits
from zray.core.incidents import Incidents
from zray.core.known_heads import KnownHeads
from zray.core.machine import NEVER
from zray.protocol import codec
from zray.protocol import messages as m
from zray.testing.processes.attempts import AtOneHead
from zray.testing.processes.participant import Witness
from zray.testing.processes.scout import SimScout
from zray.testing.processes.steps import Library
from zray.testing.world.network import Link, in_words
from zray.testing.world.world import World

VERSIONS = m.Versions("3.11", "0", "3")


class Fatal(Incidents):
    """What a real daemon survives is a bug, and ends the simulation."""

    def record(self, what: str, whom: str, error: BaseException, now: float) -> str:
        """Raises what went wrong."""
        raise error


@dataclass(frozen=True)
class Scene:
    """What all processes of one simulation are given.

    ``turned``: called after each turn. ``obeyed``: called where a peer has taken what a head said,
    with the epoch that it knew, and the head's. ``heads``: the addresses of several; none: there is
    one.
    """

    world: World
    witness: Witness
    library: Library
    turned: Callable[[SimProcess], None]
    heads: tuple[str, ...] = ()
    obeyed: Callable[[str, int, int], None] = lambda *_: None


class SimProcess:
    """A process with turns: it wakes when something arrived or its deadline has come."""

    def __init__(self, scene: Scene, name: str) -> None:
        self.world = scene.world
        self.clock = scene.world.clock
        self.name: str = name
        self._scene = scene
        self.alive = True
        self.frozen_until = 0.0
        self.slowness = 1.0
        self._awake = False
        self._armed = NEVER

    def wake(self) -> None:
        """Have a turn soon."""
        if self.alive and not self._awake:
            self._awake = True
            self.clock.after(self.world.draw(2e-5, 2e-4) * self.slowness, self._run)

    def _run(self) -> None:
        if not self.alive:
            return
        if self.clock.now < self.frozen_until:
            self.clock.at(self.frozen_until, self._run)
            return
        self._awake = False
        self.turn()
        self._scene.turned(self)
        if self.alive:
            self._arm(self.deadline())

    def _arm(self, due: float) -> None:
        due = max(due, self.clock.now + 1e-5)
        if due != self._armed and due < NEVER:
            self._armed = due
            self.clock.at(due, self._ring, due)

    def _ring(self, due: float) -> None:
        if due == self._armed:
            self._armed = NEVER
            self.wake()

    def turn(self) -> None:
        """Do everything there is to do now."""
        raise NotImplementedError

    def deadline(self) -> float:
        """When there will be something to do although nothing arrives."""
        raise NotImplementedError


class SimPeer(SimProcess):
    """What raylet and driver shells share: the link to the head."""

    def __init__(self, scene: Scene, name: str) -> None:
        super().__init__(scene, name)
        self.link: Link | None = None
        self.heard = self.opened = self.clock.now
        self._arrivals: deque[tuple[Link, bytes | None]] = deque()
        self._retry_at = self.clock.now
        self._scout = SimScout(name, self.world, self.wake)

    def received(self, link: Link, payload: bytes) -> None:
        """A payload came in."""
        self._arrivals.append((link, payload))
        self.wake()

    def cut(self, link: Link) -> None:
        """The monitor says that the connection is cut."""
        self._arrivals.append((link, None))
        self.wake()

    def read(self) -> None:
        """Handle what the head sent; a cut ends the session after what came before it."""
        while self._arrivals:
            link, data = self._arrivals.popleft()
            if link is not self.link:
                continue
            if data is None:
                self.hang_up()
                continue
            self.heard = self.clock.now
            payload = codec.decode(data)
            if words := in_words(payload):
                self.clock.tell(f"{self.name} <- head: {words}", data)
            known = self.epoch()
            self.take(payload)
            if not self.refusal():
                self._scene.obeyed(self.name, known, payload.epoch)

    def tend(self) -> None:
        """Open, or give up, the link."""
        now = self.clock.now
        if self.link is None:
            if now >= self._retry_at:
                self.link = self.world.network.connect(self, self.known_heads().begin())
                self.opened = self.heard = now
                if self.link is None:
                    self.hang_up()
                else:
                    self.clock.tell(f"{self.name} connects ({self.link.route[5:].hex()})")
                    self.say_hello()
            return
        silent = self.linked() and now - self.heard > limits.DEAD_S
        silent = silent or self._scout.look(self.known_heads())
        unanswered = not self.linked() and now > self._overdue_at()
        if silent or unanswered or self.refusal():
            self.hang_up(answered=not unanswered)

    def hang_up(self, *, answered: bool = True) -> None:
        """End the session; the next is tried after a back-off."""
        link, self.link = self.link, None
        if link is not None and link.peer_open:
            self.world.network.close(link)
        self.forget_session()
        chance = self.world.draw(0.0, 1.0)
        self._retry_at = self.clock.now + self.known_heads().ended(chance, answered=answered)

    def transmit(self, epoch: int, messages: list[m.Message]) -> None:
        """One batch to the head."""
        if self.link is not None and messages:
            unsent: list[codec.Unsent] = []
            for data in codec.encode(epoch, messages, unsent):
                self.world.network.up(self.link, data)
            if unsent:
                self.too_large(unsent)
                self.wake()

    def link_deadline(self) -> float:
        """When ``tend`` has something to do."""
        if self.link is None:
            return self._retry_at
        if self.linked():
            looks_at = self._scout.deadline(self.known_heads())
            return min(self.heard + limits.DEAD_S + 0.001, looks_at)
        return self._overdue_at() + 0.001

    def _overdue_at(self) -> float:
        reached = self.link is not None and self.link.reached
        return self.opened + (
            limits.CONNECT_TIMEOUT_S if reached else self.known_heads().patience_s()
        )

    def aimed(self, known: KnownHeads) -> KnownHeads:
        """Where it looks for heads first, of what its machine knows."""
        heads = self._scene.heads
        if not heads:
            return AtOneHead()
        known.aim(self.world.random.sample(heads, self.world.random.randint(1, len(heads))))
        return known

    def end_link(self) -> None:
        """The process is dead: its connection with it."""
        self.alive = False
        if self.link is not None and self.link.peer_open:
            self.world.network.close(self.link)

    def take(self, payload: codec.Payload) -> None:
        """Hand a payload to the machine."""
        raise NotImplementedError

    def linked(self) -> bool:
        """Whether the machine has a session."""
        raise NotImplementedError

    def epoch(self) -> int:
        """The latest that the machine knows."""
        raise NotImplementedError

    def known_heads(self) -> KnownHeads:
        """Which the machine knows."""
        raise NotImplementedError

    def refusal(self) -> bool:
        """Whether the machine wants another session."""
        raise NotImplementedError

    def too_large(self, found: list[codec.Unsent]) -> None:
        """Tell the machine what is too large to be sent."""
        raise NotImplementedError

    def say_hello(self) -> None:
        """Send HELLO."""
        raise NotImplementedError

    def forget_session(self) -> None:
        """Tell the machine that the session is over."""
        raise NotImplementedError
