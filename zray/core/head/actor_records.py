"""What the head knows of one actor, and what the store keeps of it; `incarnations` changes them."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from zray.core import resources
from zray.core.head.task_records import TemplateRecord
from zray.core.machine import NEVER
from zray.core.resources import Needs
from zray.ids import object_id
from zray.protocol import messages as m

TABLE = "actors"  # of the store
DETACHED = b"detached"  # holds the handles of detached actors


class ActorRow(msgspec.Struct, array_like=True, frozen=True):
    """What the store keeps of a living actor. ``job``: of a detached one, which is its own job.

    ``packages``: of a detached one, the objects that its environment is made of, where nobody else
    has them once their sender has gone.
    """

    info: m.ActorInfo
    spec: m.TaskSpec
    template: m.Template
    job_id: bytes
    owner: bytes
    state: int
    incarnation: int
    restarts: int
    node_id: bytes
    worker_id: bytes
    job: m.JobInfo | None
    packages: list[tuple[bytes, bytes]] = []


class ActorRecord:
    """An actor that is not dead, durably."""

    def __init__(
        self,
        info: m.ActorInfo,
        spec: m.TaskSpec,
        template: TemplateRecord,
        job_id: bytes,
        owner: bytes,
    ) -> None:
        self.info = info
        self.spec = spec
        self.template = template
        self.job_id = job_id
        self.owner = owner
        self.held: Needs = resources.needs(info.held)
        self.state = m.ACTOR_PENDING
        self.incarnation = 0
        self.restarts = 0
        self.since = -1.0  # when its state was stored, which is ``stored_state``; below 0: unknown
        self.stored_state = -1
        self.node_id = b""
        self.worker_id = b""
        self.text = ""  # why it is not alive
        self.error = b""  # what its constructor raised
        self.made = 0.0  # when this head heard of it first
        self.link = 0  # sessions of its node since it lives there
        self.launch_at = NEVER
        self.unconfirmed = False  # of before the head's restart; nobody has told of it since
        self.unstored = 0  # changes that are not durable yet
        self.kill_text = ""  # why its process is being ended, after which it may start again
        self.kill_gracefully = False  # it may say goodbye then
        self.until_stored: list[Callable[[], None]] | None = []  # None: its first row is durable
        self.farewells: list[tuple[bytes, m.StopActor]] = []  # for nodes, once its end is durable
        self.watchers: dict[bytes, None] = {}
        self.packages: list[tuple[bytes, bytes]] = []  # as in its row

    @property
    def actor_id(self) -> bytes:
        """Its id: that of the task which makes it."""
        return self.spec.task_id

    @property
    def handle(self) -> bytes:
        """The object whose holders are those who have a handle."""
        return object_id(self.spec.task_id)

    def arguments(self) -> list[bytes]:
        """The objects that the constructor's arguments refer to."""
        return [*self.spec.dependencies, *self.spec.nested]

    def settled(self) -> bool:
        """Whether the constructor has run and never will again."""
        has_owner = self.owner != self.actor_id  # else what it was made with is for its own use
        return self.state == m.ACTOR_ALIVE and not self.info.max_restarts and has_owner

    def lives(self, incarnation: int) -> bool:
        """Whether that incarnation can be called."""
        alive = self.state == m.ACTOR_ALIVE and not self.unconfirmed
        return alive and self.incarnation == incarnation

    def named(self) -> str:
        """What it is, for people."""
        return f"actor {self.info.class_name} ({self.spec.task_id.hex()})"

    def when_stored(self, answer: Callable[[], None]) -> None:
        """Nobody hears of an actor before it is durable."""
        if self.until_stored is None:
            answer()
        else:
            self.until_stored.append(answer)

    def part(self, node_id: bytes, incarnation: int, text: str, *, graceful: bool = False) -> None:
        """Have the node end that incarnation as soon as the actor's end is durable."""
        stop = m.StopActor(0, self.actor_id, incarnation, graceful, text)
        self.farewells.append((node_id, stop))

    def may_be_told(self, *, away: bool = False) -> bool:
        """Whether the state is durable, and true; watchers are told as soon as it is.

        ``away``: its node is out of reach. Then the last that was known is true enough.
        """
        if self.unstored or self.state == m.ACTOR_DEAD:
            return False
        return not self.unconfirmed or (away and self.state == m.ACTOR_ALIVE)

    def reason(self, now: float) -> str:
        """Why the actor is not alive, but for what its creation's task says."""
        if self.unconfirmed:
            return f"HEAD_RECOVERING: {self.named()} is looked for on its node"
        if self.launch_at != NEVER:
            left = max(0.0, self.launch_at - now)
            return f"WAIT_RESTART: {self.text}; it starts again in {left:.1f} s"
        return self.text
