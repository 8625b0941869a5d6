"""``python -m tests.costs.fleet.nodes ADDRESS COUNT CPUS``: one process that is many nodes.

Shipped raylets, each with a connection of its own; their workers are no processes. Says READY when
all have joined, how many workers it has started when it gets a line, and ends when its input does.
To the head each is on a machine of its own, without a port that others could reach.
"""

from __future__ import annotations

import ctypes
import gc
import heapq
import os
import sys

from tests.costs.fleet.workers import TimedWorker
from zray import limits
from zray.core.incidents import Incidents
from zray.core.machine import NEVER
from zray.core.raylet.effects import KillWorker, StartWorker
from zray.core.raylet.head_session import HEAD
from zray.core.raylet.raylet import Raylet
from zray.protocol import messages as m
from zray.runtime import connection, identity, sockets
from zray.runtime.connection import ConnectionInfo
from zray.runtime.link import HeadLink
from zray.runtime.log import Log, with_traceback
from zray.runtime.loop import Loop, raise_descriptor_limit

CLOCK_BOOTTIME = 7


class Alarm:
    """A descriptor that is readable from a time on: a selector's timeout counts milliseconds."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._libc.timerfd_create(CLOCK_BOOTTIME, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._at = NEVER

    def set(self, when: float) -> None:
        """By the loop's clock."""
        if when != self._at and when < NEVER:
            self._at = when
            whole = int(when)
            spec = (ctypes.c_long * 4)(0, 0, whole, int((when - whole) * 1e9) + 1)
            self._libc.timerfd_settime(self.fd, 1, spec, None)  # 1: an absolute time

    def rang(self) -> None:
        self._at = NEVER
        os.read(self.fd, 8)


class Node:
    """One raylet with its link to the head and its workers."""

    def __init__(self, fleet: Fleet, name: str, cpus: int) -> None:
        self._fleet = fleet
        ids = identity.id_source()
        amounts = [("CPU", cpus * limits.RESOURCE_UNIT)]
        info = m.NodeInfo(name, name, os.getpid(), amounts, [], f"machine-{name}")
        incidents = Incidents(fleet.log, with_traceback)
        who = (ids.process_id(), info, identity.versions(pickles=True), ids, 0)
        self.raylet = Raylet(*who, incidents=incidents)
        self.raylet.session.known_heads.aim(fleet.info.addresses)
        self._link = HeadLink(
            fleet.context,
            fleet.info,
            self.raylet.session.known_heads,
            lambda: (self.raylet.session.epoch, self.raylet.hello()),
        )
        self._workers: dict[bytes, TimedWorker] = {}
        self._link.open(fleet.loop.now())
        assert self._link.socket is not None and self._link.monitor is not None
        fleet.loop.watch_zmq(self._link.socket, self._read_head, rare=True)
        fleet.loop.watch_zmq(self._link.monitor.socket, self._look_at_link, rare=True)

    def _read_head(self) -> None:
        now = self._fleet.loop.now()
        for payload in self._link.receive():
            self.raylet.session.receive(payload, now)
        self._fleet.touched[self] = None

    def _look_at_link(self) -> None:
        if self._link.lost() or self.raylet.session.refused is not None:
            raise SystemExit(f"node {self.raylet.info.name} has lost the head: {self._link.error}")

    def settle(self, now: float) -> float:
        """A turn, as the real node's; returns when the next one is due."""
        raylet = self.raylet
        for worker_id, worker in self._workers.items():
            if worker.ends <= now:
                worker.work(now)
            for message in worker.told:
                raylet.worker_message(worker_id, message, now)
            worker.told.clear()
        raylet.settle(now)
        effects, raylet.effects = raylet.effects, []
        for effect in effects:
            if isinstance(effect, StartWorker):
                self._fleet.workers_started += 1
                self._workers[effect.worker_id] = TimedWorker(effect.worker_id)
                raylet.workers.started(effect.worker_id, os.getpid(), int)
            elif isinstance(effect, KillWorker):
                self._ended(effect.worker_id, "killed by its raylet", now)
        outgoing = raylet.outbox.take()
        if HEAD in outgoing:
            self._link.send(raylet.session.epoch, outgoing.pop(HEAD))
            if self._link.socket is not None:
                self._fleet.loop.look(self._link.socket)  # its signal may have been used up
        for worker_id in [peer for peer in outgoing if peer in self._workers]:
            worker = self._workers[worker_id]
            worker.take(outgoing.pop(worker_id), now)
            if worker.exits():
                self._ended(worker_id, "exit code 0", now)
        if not self._link.flush() or any(worker.told for worker in self._workers.values()):
            return now
        ends = [worker.ends for worker in self._workers.values()]
        return min(raylet.deadline(), *ends) if ends else raylet.deadline()

    def _ended(self, worker_id: bytes, cause: str, now: float) -> None:
        worker = self._workers.pop(worker_id, None)
        if worker is not None:
            self.raylet.worker_exited(worker_id, worker.started, cause, now)

    def close(self) -> None:
        """Leave for good."""
        if self._link.socket is not None:
            self._link.send(self.raylet.session.epoch, [m.Goodbye(0, "it was told to stop")])
            self._fleet.loop.unwatch_zmq(self._link.socket)
            self._link.socket.close(500)
        if self._link.monitor is not None:
            self._fleet.loop.unwatch_zmq(self._link.monitor.socket)
        self._link.close(0.0)


class Fleet:
    """All nodes of this process, and their one loop. ``touched``: those that are to have a turn."""

    def __init__(self, info: ConnectionInfo, count: int, cpus: int) -> None:
        self.info = info
        self.log = Log("fleet")
        self.context = sockets.context()
        self.loop = Loop(self._failed)
        self.touched: dict[Node, None] = {}
        self._due: list[tuple[float, int, Node]] = []
        self._alarm = Alarm()
        self._closed = False
        self.workers_started = 0
        self.nodes = [Node(self, f"node-{index}", cpus) for index in range(count)]
        self._next = dict.fromkeys(self.nodes, NEVER)  # when each is due

    def _failed(self, callback: str, error: Exception) -> None:
        raise error

    def run(self) -> None:
        loop = self.loop
        loop.watch(self._alarm.fd, self._alarm.rang)
        loop.watch(sys.stdin.fileno(), self._input)
        self.touched.update(dict.fromkeys(self.nodes))
        ready = False
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        while not self._closed:
            loop.turn(1.0)
            self._settle(loop.now())
            if not ready and all(node.raylet.session.linked for node in self.nodes):
                ready = True
                print("READY", flush=True)

    def _settle(self, now: float) -> None:
        due = self._due
        while due and due[0][0] <= now:
            when, _, node = heapq.heappop(due)
            if self._next[node] == when:
                self.touched[node] = None
        touched, self.touched = self.touched, {}
        for node in touched:
            when = node.settle(now)
            if when != self._next[node]:
                self._next[node] = when
                if when < NEVER:
                    heapq.heappush(due, (when, id(node), node))
        while due and self._next[due[0][2]] != due[0][0]:
            heapq.heappop(due)
        if due:
            self._alarm.set(due[0][0])

    def _input(self) -> None:
        self._closed = not os.read(sys.stdin.fileno(), 4096)
        print(self.workers_started, flush=True)

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        self.context.term()
        self.loop.close()
        os.close(self._alarm.fd)


def main(address: str, count: str, cpus: str) -> None:
    raise_descriptor_limit()
    fleet = Fleet(connection.ConnectionInfo.load(address), int(count), int(cpus))
    try:
        fleet.run()
    finally:
        fleet.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
