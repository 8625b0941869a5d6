"""A simulated process that a raylet has started: its channel to the raylet, and its end.

A worker runs tasks in it, and an actor is what it may become. Decides nothing about the cluster.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from zray.core.client.client import Client
from zray.core.identity import Identity
from zray.core.raylet.local_records import PoolKey
from zray.core.raylet.raylet import Raylet
from zray.core.worker.task_inbox import TaskInbox
from zray.ids import IdSource
from zray.protocol import codec
from zray.protocol import messages as m
from zray.testing.processes.caller import Caller
from zray.testing.processes.participant import Witness
from zray.testing.processes.steps import Library
from zray.testing.world.world import World

CONTROL = (m.Recall, m.Cancel, m.CancelTask, m.CancelCall, m.Revoke, m.Trace)


class Parent(Protocol):
    """A worker's raylet. ``slowness``: how many times as long everything takes on its node.

    ``labels``: of that.
    """

    name: str
    alive: bool
    slowness: float
    raylet: Raylet
    labels: dict[str, str]

    def from_worker(self, worker_id: bytes, data: bytes) -> None:
        """A batch of a worker came in."""

    def exited(self, worker_id: bytes, started: int, cause: str) -> None:
        """The zygote reaped a worker."""


class Host(Caller):
    """A process that a raylet has started, and that may become an actor."""

    def __init__(
        self,
        world: World,
        witness: Witness,
        library: Library,
        raylet: Parent,
        worker_id: bytes,
        key: PoolKey,
    ) -> None:
        ids = IdSource(world.random.randbytes(8))
        me = Identity(worker_id, key[0], ids)
        super().__init__(Client(me, remote=False), world, witness)
        self.library = library
        self.raylet = raylet
        self.machine = raylet.raylet.info.machine
        self.worker_id = worker_id
        self.key = key
        self.incarnation = raylet.raylet.incarnation
        self.pid = world.next_pid()
        self.name = f"{raylet.name}/w{self.pid}"
        self.sequence = TaskInbox(me)
        self.alive = True
        self.started = 0  # the counter that the raylet shares
        self.frozen_until = 0.0
        self.orderly = False  # it ends by its own wish
        self.told = 0  # how often the raylet was told something
        self.born = False  # the process runs
        self.unread: deque[bytes] = deque()  # of the task socket
        self.packets: deque[bytes] = deque()  # of tasks; the raylet can take them back
        self._out_at = self._task_at = self._control_at = 0.0  # when the last batch arrives

    # ---- its channels ----------------------------------------------------------------------

    def send(self, messages: list[m.Message]) -> None:
        """A batch of the raylet: some messages go to the control thread."""
        urgent = [msg for msg in messages if isinstance(msg, CONTROL)]
        rest = [msg for msg in messages if not isinstance(msg, CONTROL)]
        delay = self.world.draw(1e-5, 1e-4)
        if rest:
            self._task_at = max(self._task_at, self.clock.now + delay)
            for data in codec.encode_local(rest):
                self.clock.at(self._task_at, self._task_arrived, data)
        if urgent:
            self._control_at = max(self._control_at, self.clock.now + delay)
            self.clock.at(self._control_at, self._control_arrived, urgent)

    def queue(self, payload: bytes) -> bool:
        """Queue a packet of tasks, whether the process lives or not; False: the queue is full."""
        if len(self.packets) >= self.world.direct.packets_max:
            return False
        self.packets.append(payload)
        self.something_came()
        return True

    def _task_arrived(self, data: bytes) -> None:
        self.unread.append(data)
        if self.born and self.reads():
            self.go_on()

    def _control_arrived(self, messages: list[m.Message]) -> None:
        if not self.alive:
            return
        if not self.born or self.clock.now < self.frozen_until:
            later = max(self.frozen_until, self.clock.now + 0.0005)
            self.clock.at(later, self._control_arrived, messages)
            return
        for message in messages:
            self.control(message)

    def begin(self) -> None:
        """The process runs."""
        self.born = True
        self.go_on()

    def out(self, messages: list[m.Message]) -> None:
        """To the raylet."""
        if self.alive and messages:
            self.told += 1
            self._out_at = max(self._out_at, self.clock.now + self.world.draw(1e-5, 1e-4))
            for data in codec.encode_local(messages):
                self.clock.at(self._out_at, self.raylet.from_worker, self.worker_id, data)

    def give_back(self, returned: m.Returned | None) -> None:
        """Tasks that this process does not start, if there are any."""
        if returned is not None and returned.task_ids:
            self.out([returned])

    def something_came(self) -> None:
        """A direct socket has something to read, or its end."""
        if self.alive:
            self.clock.after(self.world.draw(1e-5, 1e-4), self.go_on)

    # ---- its end ---------------------------------------------------------------------------

    def exit(self) -> None:
        """Nothing is left to do."""
        self.orderly = True
        self.die("exit code 0")

    def die(self, cause: str) -> None:
        """The process ends; what it had sent still arrives, then the raylet is told."""
        if self.alive:
            self.vanish()
            when = max(self._out_at, self.clock.now) + self.world.draw(0.0001, 0.002)
            args = (self.worker_id, self.started, cause)
            self.clock.at(when, self.raylet.exited, *args)

    # ---- of the worker that it is ----------------------------------------------------------

    def vanish(self) -> None:
        """It ends together with its raylet."""
        raise NotImplementedError

    def control(self, message: m.Message) -> None:
        """The raylet asks for something while user code runs."""
        raise NotImplementedError

    def read_aside(self) -> None:
        """Read what has come, from another thread than the main one."""
        raise NotImplementedError

    def reads(self) -> bool:
        """Whether the main thread looks at its socket."""
        raise NotImplementedError

    def transmit(self) -> None:
        """What the client has to say."""
        raise NotImplementedError

    def go_on(self) -> None:
        """Something arrived, or a computation ended."""
        raise NotImplementedError

    def occupied(self, computes: bool) -> None:
        """Whether the one thread of a plain actor computes: it reads nothing meanwhile."""
        raise NotImplementedError
