"""A simulated worker process: the shipped TaskInbox and Client, and a program as user code.

Two threads as in the real one: the main thread reads only when it is idle or blocked; the control
thread answers RECALL and CANCEL_TASK at any time. Decides nothing about the cluster.
"""

from __future__ import annotations

from typing import Any

from zray.core import failures
from zray.core.client.waiters import Waiter
from zray.core.raylet.local_records import PoolKey
from zray.core.worker.task_inbox import Delivered
from zray.ids import object_id
from zray.protocol import codec
from zray.protocol import messages as m
from zray.testing.processes.actor import SimActor
from zray.testing.processes.contexts import TaskContext
from zray.testing.processes.host import Host, Parent
from zray.testing.processes.leased import Lease, SimLeases
from zray.testing.processes.participant import Witness, arguments_of, error_bytes
from zray.testing.processes.steps import (
    Ask,
    Die,
    Fail,
    Get,
    Interrupted,
    Library,
    Program,
    Ref,
    Returned,
    Sleep,
    TaskFailed,
    Until,
)
from zray.testing.processes.suitability import Suitability
from zray.testing.processes.workers import Workers
from zray.testing.processes.yielding import SimStreams, Source
from zray.testing.world.direct import End, Wire
from zray.testing.world.errors import CANCELLED, RAISED, TIMED_OUT
from zray.testing.world.world import World

IDLE, COMPUTING, BLOCKED, DRAINING = range(4)


class SimWorker(Host):
    """``state``: what the main thread does."""

    def __init__(
        self,
        world: World,
        witness: Witness,
        library: Library,
        workers: Workers[SimWorker],
        raylet: Parent,
        worker_id: bytes,
        key: PoolKey,
    ) -> None:
        super().__init__(world, witness, library, raylet, worker_id, key)
        self._workers = workers
        self.state = IDLE
        self._program: Program | None = None
        self._waiter: Waiter | None = None
        self._wanted: list[Ref] = []
        self._answer: list[m.Message] | None = None
        self._round = 0  # of the running computation, to tell a stale timer
        self._ending: tuple[int, list[m.Outcome], float] | None = None
        self._result_refs: list[Ref] = []
        self._began = 0.0
        self._timed_out = False  # what was cancelled last, since it has run too long
        self._suitability = Suitability(self.name, self.raylet.labels)
        self.delivered: Delivered | None = None
        self.actor: SimActor | None = None  # what it has become
        self.streams = SimStreams(self)
        self.leases = SimLeases(self, self.streams)
        workers.living[worker_id] = workers.ever[worker_id] = self
        world.names[worker_id] = self.name

    @property
    def lease(self) -> Lease | None:
        """What it serves, and whom."""
        return self.leases.lease

    # ---- the control thread ----------------------------------------------------------------

    def control(self, message: m.Message) -> None:
        """The raylet asks for something while user code runs."""
        self._read()  # what was delivered before counts as delivered
        if isinstance(message, m.Recall):
            self._send_done(wait=False)
            self.out([self.sequence.recall()])
        elif isinstance(message, m.CancelTask):
            self._cancel(message)
        elif isinstance(message, m.Revoke):
            self.leases.on_revoke(message)
            self.something_came()
        elif isinstance(message, m.Trace):
            self.out([m.Traced(0, self.worker_id, message.source, message.seq)])
        elif isinstance(message, m.CancelCall) and self.actor is not None:
            self.actor.cancel(message)
        elif isinstance(message, m.Cancel):
            self.client.message(message)
            self.something_came()

    def _cancel(self, message: m.CancelTask) -> None:
        if self.lease is not None:
            runs = self.leases.on_cancel(message)
        elif (answer := self.sequence.cancel(message)) is not None:
            self.out([answer])
            return
        else:
            runs = self.sequence.runs(message)
        self._timed_out = message.timed_out
        if runs and self._program is not None and self.world.random.random() < 0.8:
            self._interrupt()  # else the task swallows it

    # ---- the main thread -------------------------------------------------------------------

    def _read(self) -> None:
        self.read_wires()
        if self.actor is not None:
            self.actor.read_wires()
        self.leases.read()
        while self.unread:
            for message in codec.decode(self.unread.popleft()).messages:
                if (handler := self.sequence.handlers.get(type(message))) is not None:
                    handler(message)
                elif self.actor is not None and isinstance(message, m.Calls):
                    self.actor.receive(message, None)
                elif isinstance(message, m.Grant):
                    self.leases.on_grant(message)
                elif isinstance(message, m.Taken):
                    self.streams.on_taken(message)
                else:
                    self.client.message(message)

    def _tell(self, messages: list[m.Message]) -> None:
        """To whoever gave this worker its tasks, or to the raylet."""
        if self.lease is None:
            self.out(messages)
        else:
            self.leases.tell(messages)

    def go_on(self) -> None:
        """Something arrived, or a computation ended."""
        if not self.alive or not self.born:
            return
        if self.clock.now < self.frozen_until:
            self.clock.at(self.frozen_until, self.go_on)
            return
        if self.state == COMPUTING:
            return
        self._read()
        self.transmit()
        if self.actor is not None:
            self.actor.step()
        elif self.state == IDLE:
            self._next()
        elif self.state == DRAINING:
            self._drained()
        elif self._waiter is not None and self._waiter.remaining <= 0:
            self._unblock()
            self._advance_with_values()
            self._next()

    def _next(self) -> None:
        while self.alive and self.state == IDLE and self.actor is None:
            if self.sequence.spent and self.lease is None:
                self.give_back(self.sequence.recall())
            delivered = self._take() if self.lease is None else self.leases.next()
            if delivered is None:
                self._send_done(wait=True)
                self.transmit()
                if self.lease is not None and not self.leases.rests():
                    continue
                if self.sequence.exiting:
                    self.exit()
                return
            self.started += 1
            if self.lease is None:
                self.give_back(self.sequence.untake())
            self._execute(delivered)

    def _take(self) -> Delivered | None:
        """The next task, out of the inbox or the queue; None: there is none."""
        if self.sequence.takes() and self.packets:
            (tasks,) = codec.decode(self.packets.popleft()).messages
            assert isinstance(tasks, m.Tasks)
            self.sequence.on_packet(tasks)
            self._read()
        return self.sequence.next()

    def _execute(self, delivered: Delivered) -> None:
        self.delivered = delivered
        spec = delivered.assignment.spec
        template = self.sequence.templates[spec.template_id]
        assert self.sequence.functions[template.function_id].blob.decode() == template.name
        self._suitability.check(template, spent=self.sequence.spent)
        if delivered.assignment.actor is None:
            self.witness.started(self, delivered.assignment)
        self.clock.tell(f"{self.name} starts {self.witness.word(spec.task_id)}")
        self._began = self.clock.now
        self.client.references.begin_task(spec.nested)
        if self.lease is not None:
            self.leases.begin(delivered)
        if template.timeout_s:
            attempt = delivered.assignment.attempt
            deadline = (spec.task_id, attempt, template.timeout_s, self.started)
            self.out([m.Deadline(0, *deadline)])
        functions = self.library.functions
        if delivered.assignment.actor is not None:
            self.witness.calls.constructing(self, delivered.assignment)
            functions = self.library.constructors
        try:
            arguments, _ = arguments_of(self, spec, delivered.values)
        except TaskFailed as error:
            self._end(m.FINISHED, self._error(error.code, str(error)))
            return
        context = TaskContext(self, spec.task_id, template)
        self._program = functions[template.name](context, *arguments)
        if template.yields:
            maker = f"{self.name} {delivered.assignment.attempt}".encode()
            told = (lambda items: self._tell([items]), frozenset(spec.wanted))
            source = Source(spec.task_id, spec.consumer, template.unread_max, maker, *told)
            self._program = self.streams.run(source, self._program)
        self._advance(None)

    def _advance_with_values(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            self._advance(answer[0] if answer else None)
            return
        wanted, self._wanted = self._wanted, []
        try:
            values = self.values(wanted)
        except TaskFailed as error:
            self._advance(None, error)
            return
        self._advance(values)

    def _advance(self, value: Any, error: BaseException | None = None) -> None:
        """Run user code until it computes, blocks or ends."""
        program = self._program
        while program is not None and self.alive:
            try:
                step = program.send(value) if error is None else program.throw(error)
            except StopIteration as stop:
                self._end(m.FINISHED, self._results(stop.value))
                return
            except Interrupted:
                if self._timed_out:
                    self._end(m.FINISHED, self._error(TIMED_OUT, "the task ran too long"))
                    return
                self._end(m.CANCELLED, self._error(CANCELLED, "the task was cancelled"))
                return
            except TaskFailed as failed:
                self._end(m.FINISHED, self._error(failed.code, str(failed)))
                return
            error = None
            if isinstance(step, Get):
                if self.missing(step.refs) and not self._block(step.refs):
                    return
                try:
                    value = self.values(step.refs)
                except TaskFailed as failed:
                    error = failed
            elif isinstance(step, Ask):
                waiter = Waiter()
                self._answer = self.client.ask(step.make, waiter)
                self._wait(waiter, [])
                return
            elif isinstance(step, Until):
                self._answer = step.answer
                self._wait(step.waiter, [])
                return
            elif isinstance(step, Sleep):
                self._compute(step.seconds)
                return
            elif isinstance(step, Fail):
                status = m.FAILED if step.covered else m.FINISHED
                self._end(status, self._error(RAISED, "the task raised"))
                return
            elif isinstance(step, Die):
                self.die("signal 11")
                return

    def _compute(self, seconds: float) -> None:
        self.state = COMPUTING
        self._round += 1
        self.clock.after(seconds * self.raylet.slowness, self._computed, self._round)

    def _computed(self, number: int) -> None:
        if not self.alive or number != self._round or self.state != COMPUTING:
            return
        if self.clock.now < self.frozen_until:
            self.clock.at(self.frozen_until, self._computed, number)
            return
        self.state = IDLE
        self._advance(None)
        self.go_on()

    def _interrupt(self) -> None:
        if self.state == BLOCKED:
            assert self._waiter is not None
            self.client.forget_waiter([ref.oid for ref in self._wanted], self._waiter)
            self._answer = None
            self._unblock()
        elif self.state != COMPUTING:
            return
        self.state = IDLE
        self._advance(None, Interrupted())
        self.go_on()

    # ---- blocking --------------------------------------------------------------------------

    def _block(self, refs: list[Ref]) -> bool:
        """Wait for values; True: they came while it was about to wait."""
        waiter = self.want(refs)
        if waiter.remaining <= 0:
            return True
        self._wait(waiter, refs)
        return False

    def _wait(self, waiter: Waiter, refs: list[Ref]) -> None:
        self.transmit()
        self.state = BLOCKED
        self._waiter = waiter
        self._wanted = refs
        self._say_blocked()

    def _say_blocked(self) -> None:
        self._send_done(wait=False)
        self._tell([self.sequence.recall(), m.Blocked(0)])

    def _unblock(self) -> None:
        self._waiter, self.state = None, IDLE
        self.out([m.Unblocked(0)])

    def transmit(self) -> None:
        """What the client has to say."""
        self.client.flush()
        self.tend_calls()
        self.out(self.client.take_outbox())

    def _send_done(self, *, wait: bool) -> None:
        done = self.sequence.take_done(self.clock.now, next_is_short=wait)
        if done is not None:
            self._tell([done])

    # ---- the end of a task -----------------------------------------------------------------

    def _error(self, code: str, text: str) -> list[m.Outcome]:
        assert self.delivered is not None
        spec = self.delivered.assignment.spec
        template = self.sequence.templates[spec.template_id]
        return failures.outcomes(spec.task_id, template.num_returns, error_bytes(code, text))

    def _results(self, result: Any) -> list[m.Outcome]:
        assert self.delivered is not None
        spec, attempt = self.delivered.assignment.spec, self.delivered.assignment.attempt
        if self.delivered.assignment.actor is not None:
            self.actor = SimActor(self, self.delivered.assignment, result, self.streams)
            self.world.direct.listeners[self.worker_id] = self.accept
            return [m.Outcome(object_id(spec.task_id), m.VALUE, 0)]
        results = (result if isinstance(result, list) else [result]) or [Returned(0)]
        maker = f"{self.name} {attempt}".encode()
        outcomes = []
        for index, one in enumerate(results):
            returned = one if isinstance(one, Returned) else Returned(one)
            data, contained = self.encode(returned, maker)
            self._result_refs += returned.refs
            oid = object_id(spec.task_id, index)
            outcomes.append(m.Outcome(oid, m.VALUE, len(data), data, contained))
        return outcomes

    def _end(self, status: int, outcomes: list[m.Outcome]) -> None:
        self._program = None
        self.witness.ended(self, status)
        self.sweep(self._result_refs)
        self._ending = status, outcomes, self.clock.now - self._began
        for outcome in outcomes:
            self.client.references.publish(outcome.contained)
        self.transmit()
        if self.client.tasks.backlog:  # submitted tasks reach the head before what may name them
            self.state = DRAINING
            self._say_blocked()
            return
        self._report()

    def _drained(self) -> None:
        self.transmit()
        if not self.client.tasks.backlog:
            self._unblock()
            self._report()
            self._next()

    def _report(self) -> None:
        assert self._ending is not None
        status, outcomes, seconds = self._ending
        self._ending = None
        borrowed = self.client.references.end_task()
        if self.lease is None:
            self.sequence.finished(status, outcomes, seconds, borrowed, self.clock.now)
        else:
            self.leases.finished(status, outcomes, seconds, borrowed)
        assert self.delivered is not None
        template = self.sequence.templates[self.delivered.assignment.spec.template_id]
        if self._suitability.used_up(template) and not self.sequence.spent:
            self.sequence.spent = True
            self.out([m.Exiting(0, "")])
            if self.lease is not None:
                self.leases.leave()
        self.state = IDLE
        self.delivered = None
        self._send_done(wait=True)
        self._result_refs = []
        self.sweep()

    def let_go(self) -> None:
        """Global variables are cleared, between two tasks."""
        if self.born and self.state == IDLE and self.kept:
            for ref in self.kept:
                ref.drop()
            self.kept = []
            self.transmit()

    def read_aside(self) -> None:
        """Read what has come, from another thread than the main one."""
        self._read()
        if self.state != COMPUTING:
            self.something_came()

    def reads(self) -> bool:
        """Whether the main thread looks at its socket."""
        return self.state != COMPUTING

    # ---- for the actor that it is ------------------------------------------------------------

    def occupied(self, computes: bool) -> None:
        """Whether the one thread of a plain actor computes: it reads nothing meanwhile."""
        self.state = COMPUTING if computes else IDLE

    def accept(self, caller: End) -> Wire:
        """A caller on this machine connects to the actor."""
        assert self.actor is not None
        wire = Wire(caller, self)
        self.actor.wires.append(wire)
        return wire

    # ---- the end of the process ------------------------------------------------------------

    def vanish(self) -> None:
        """It ends together with its raylet."""
        # For a submitter that has yet to hold it:
        keeps = self.leases.keep_something() or self.streams.keep_something()
        self.alive = False
        self._program = None
        self.end_wires()
        if keeps:
            self.witness.calls.ended(self, owed=False, orderly=False)
        self.leases.vanish()
        if self.actor is not None:
            orderly = self.orderly and not self.actor.inbox.owes(None)
            self.witness.calls.ended(self, owed=self.client.owes(), orderly=orderly)
            for wire in self.actor.wires:
                wire.hang_up()
        self.witness.died(self)
        self.world.direct.listeners.pop(self.worker_id, None)
        self._workers.living.pop(self.worker_id, None)
