"""A simulated driver process: the shipped Client machine, its link, and programs as threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any, TypeAlias

from zray import limits
from zray.core.client.client import Client
from zray.core.client.waiters import SomeOf, Waiter
from zray.core.identity import Identity
from zray.core.known_heads import KnownHeads
from zray.core.machine import NEVER
from zray.ids import IdSource
from zray.protocol import codec
from zray.protocol import messages as m
from zray.testing.processes.caller import Caller
from zray.testing.processes.far_links import FarLinks
from zray.testing.processes.lease_links import LeaseLinks
from zray.testing.processes.process import VERSIONS, Scene, SimPeer
from zray.testing.processes.steps import Ask, Get, Program, Ref, Sleep, TaskFailed, Until, Wait


class Thread:
    """One program of a driver; ``error`` is what ended it early."""

    def __init__(self, name: str, program: Program) -> None:
        self.name = name
        self.program = program
        self.waiter: Waiter | None = None
        self.wanted: list[Ref] = []
        self.references: list[Ref] = []  # its local variables
        self.answer: list[m.Message] | None = None
        self.until = NEVER
        self.done = False
        self.error: TaskFailed | None = None


EAGER_TASKS = 8  # in flight up to which each task is handed over by itself


class SimDriver(SimPeer, Caller):
    """One driver process. ``eager``: it does not collect the first tasks of a burst."""

    def __init__(self, scene: Scene, name: str, machine: str, eager: bool) -> None:
        SimPeer.__init__(self, scene, name)
        world = scene.world
        ids = IdSource(world.random.randbytes(8))
        process_id = ids.process_id()
        client = Client(Identity(process_id, process_id, ids), remote=True)
        client.known_heads = self.aimed(client.known_heads)
        Caller.__init__(self, client, world, scene.witness)
        self.leased = LeaseLinks(self)
        self.far = FarLinks(self)
        self.process_id = process_id
        self.threads: list[Thread] = []
        self.leaving = False
        self._ping_at = 0.0
        pid = world.next_pid()
        self.info = m.JobInfo("program.py", "/", [], machine, "host-" + name, pid)
        self.machine = machine
        self._eager = eager
        world.drivers.add(process_id)
        self.wake()

    def run(self, workload: Workload, seed: int) -> Thread:
        """Start a program as one more thread."""
        thread = Thread(workload.__name__, workload(self, Random(seed)))
        self.threads.append(thread)
        self.clock.tell(f"{self.name} runs {thread.name}")
        self.wake()
        return thread

    def submit(self, function: str, arguments: Iterable[Any] = (), **options: Any) -> list[Ref]:
        """Submit a task; its references, in order."""
        refs = super().submit(function, arguments, **options)
        if self._eager and self.client.in_flight() + self.client.fresh() <= EAGER_TASKS:
            self.client.flush()
        return refs

    def idle(self) -> bool:
        """Whether every program has ended."""
        return all(thread.done for thread in self.threads)

    # ---- turn ------------------------------------------------------------------------------

    def turn(self) -> None:
        """Read, run the threads that can go on, send."""
        self.read()
        self.read_wires()
        self.leased.read()
        self.far.read()
        self.tend()
        for thread in self.threads:
            self._try(thread)
        now = self.clock.now
        self.client.leases.look(now)
        self.client.flush()
        self.tend_calls()
        self.leased.tend()
        self.far.tend()
        self.leased.look_again()
        if self.linked():
            if now >= self._ping_at:
                self._ping_at = now + limits.PING_S
                self.client.outbox.append(m.Ping(0, now))
                self.client.known_heads.asked(now)
                self.client.leases.account()
            outbox = self.client.take_outbox()
            self.transmit(self.client.epoch, outbox)
        self.client.prints.take()
        if self.leaving and self.linked():
            self.transmit(self.client.epoch, [m.Goodbye(0, "the driver shut down")])
            self.clock.tell(f"{self.name} says goodbye")
            self.clock.after(0.1, self.die)
            self.frozen_until = NEVER

    def _try(self, thread: Thread) -> None:
        if thread.done:
            return
        self.references = thread.references
        if thread.waiter is not None:
            if thread.waiter.remaining > 0 and self.clock.now < thread.until:
                return
            self._woken(thread)
        elif self.clock.now >= thread.until or thread.until == NEVER:
            self._advance(thread, None)

    def _woken(self, thread: Thread) -> None:
        waiter, wanted = thread.waiter, thread.wanted
        assert waiter is not None
        answer, thread.answer = thread.answer, None
        thread.waiter, thread.wanted, thread.until = None, [], NEVER
        if answer is not None:
            if answer:
                self._advance(thread, answer[0])
            else:
                self._advance(thread, None, TaskFailed("stopped", self.client.stopped))
            return
        if isinstance(waiter, SomeOf):
            self.client.forget_some(waiter)
            known = sum(1 for ref in wanted if ref.oid in self.client.outcomes)
            self._advance(thread, known)
            return
        try:
            values = self.values(wanted)
        except TaskFailed as error:
            self._advance(thread, None, error)
            return
        self._advance(thread, values)

    def _advance(self, thread: Thread, value: Any, error: BaseException | None = None) -> None:
        thread.until = NEVER
        while True:
            try:
                step = thread.program.send(value) if error is None else thread.program.throw(error)
            except StopIteration:
                self._ended(thread, None)
                return
            except TaskFailed as failed:
                self._ended(thread, failed)
                return
            error = None
            if isinstance(step, Sleep):
                thread.until = self.clock.now + step.seconds
                return
            if isinstance(step, Ask):
                thread.waiter = Waiter()
                thread.answer = self.client.ask(step.make, thread.waiter)
                return
            if isinstance(step, Until):
                thread.waiter, thread.answer = step.waiter, step.answer
                if thread.waiter.remaining > 0:
                    return
                thread.waiter, thread.answer = None, None
                value = step.answer[0] if step.answer else None
                continue
            assert isinstance(step, Get | Wait)
            if isinstance(step, Wait):
                thread.until = self.clock.now + step.seconds
                oids = [ref.oid for ref in step.refs]
                thread.waiter = self.client.want_some(oids, len(oids), whole=step.whole)
            else:
                thread.waiter = self.want(step.refs)
            thread.wanted = step.refs
            if thread.waiter.remaining > 0:
                return
            waiter, thread.waiter = thread.waiter, None
            thread.until = NEVER
            if isinstance(waiter, SomeOf):
                self.client.forget_some(waiter)
                value = len(step.refs)
                continue
            try:
                value = self.values(step.refs)
            except TaskFailed as failed:
                error = failed

    def _ended(self, thread: Thread, error: TaskFailed | None) -> None:
        thread.done = True
        thread.error = error
        self.sweep()
        self.clock.tell(f"{self.name} ends {thread.name}{f': {error}' if error else ''}")
        self.witness.program_ended(self, thread.name, error)

    def ask_again(self) -> None:
        """Resend what has no outcome yet, unchanged."""
        client = self.client
        waiting = {spec.task_id for spec in client.tasks.backlog}
        again = [spec for spec in client.unresolved.values() if spec.task_id not in waiting]
        messages: list[m.Message] = [*client.definitions.templates.values()]
        messages.append(m.Submit(0, client.job_id, client.process_id, again))
        if client.waiters.watched:
            messages.append(m.Watch(0, client.process_id, b"".join(client.waiters.watched)))
        for actor in client.calls.actors.values():
            if actor.sent and actor.ended is None:
                for message in actor.calls_again(client.calls._message_of):
                    client.calls._send(actor, message)  # never by two ways at once
        messages = client.take_outbox() + messages
        self.transmit(client.epoch, [*messages, *client.tasks._cancels.values()])

    def deadline(self) -> float:
        """The link's, the next PING, and sleeping threads."""
        due = min((t.until for t in self.threads if not t.done), default=NEVER)
        due = min(due, self.link_deadline())
        return min(due, self._ping_at) if self.linked() else due

    def die(self) -> None:
        """SIGKILL."""
        self.end_link()
        self.end_wires()
        self.leased.end()
        self.far.end()
        self.world.drivers.discard(self.process_id)
        self.witness.driver_ended(self)

    def something_came(self) -> None:
        """A direct socket has something to read, or its end."""
        self.wake()

    # ---- SimPeer ---------------------------------------------------------------------------

    def take(self, payload: codec.Payload) -> None:
        """Hand a payload to the machine."""
        self.client.known_heads.heard()
        self.client.receive(payload, self.clock.now)

    def linked(self) -> bool:
        """Whether the machine has a session."""
        return self.client.linked

    def epoch(self) -> int:
        """The latest that the machine knows."""
        return self.client.epoch

    def known_heads(self) -> KnownHeads:
        """Which the machine knows."""
        return self.client.known_heads

    def refusal(self) -> bool:
        """Whether the machine wants another session."""
        return self.client.refused is not None or self.client.known_heads.parting

    def too_large(self, found: list[codec.Unsent]) -> None:
        """Tell the machine what is too large to be sent."""
        self.client.too_large(found)

    def say_hello(self) -> None:
        """Send HELLO."""
        client = self.client
        hello = m.Hello(
            *(0, m.PROTOCOL_VERSION, m.ROLE_DRIVER, self.process_id, 0, client.cluster_id),
            *(VERSIONS, ["tasks"], None, self.info),
            minor=m.PROTOCOL_MINOR,
        )
        self.transmit(client.epoch, [hello])

    def forget_session(self) -> None:
        """Tell the machine that the session is over."""
        self.client.disconnected()
        self.client.refused = None


Workload: TypeAlias = Callable[[SimDriver, Random], Program]  # what a driver runs
