"""A simulated worker that has become an actor: the shipped ActorInbox, and programs as methods.

Calls come over direct sockets or by way of the raylet; answers go back the way the last calls came.
Does what the real shell does, and decides nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from zray import limits
from zray.core.client.waiters import Waiter
from zray.core.worker.actor_inbox import ActorInbox, Entry, staying
from zray.ids import object_id, split_tasks
from zray.protocol import messages as m
from zray.testing.processes import steps
from zray.testing.processes.contexts import CallContext
from zray.testing.processes.host import Host
from zray.testing.processes.participant import arguments_of, error_bytes
from zray.testing.processes.pins import Pins
from zray.testing.processes.steps import Program, Ref, Returned, TaskFailed
from zray.testing.processes.yielding import SimStreams, Source
from zray.testing.world.direct import Wire
from zray.testing.world.errors import CANCELLED, RAISED

Route = Wire | None  # None: by the raylet


class CallRun:
    """One call that runs."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.program: Program | None = None
        self.references: list[Ref] = []  # its local variables
        self.waiter: Waiter | None = None
        self.wanted: list[Ref] = []
        self.answer: list[m.Message] | None = None


class SimActor:
    """``state``: what the constructor made."""

    def __init__(
        self,
        worker: Host,
        assignment: m.Assignment,
        state: dict[str, Any],
        streams: SimStreams,
    ) -> None:
        assert assignment.actor is not None
        self.worker = worker
        self._streams = streams
        self.clock = worker.clock
        self.info = assignment.actor
        self.actor_id = assignment.spec.task_id
        self.incarnation = assignment.attempt
        self.state: dict[str, Any] = state
        self.inbox: ActorInbox[Route] = ActorInbox(
            self.actor_id,
            self.incarnation,
            self.info.max_concurrency,
            self._may_serve if self.info.max_restarts else None,
            groups=dict(self.info.groups),
            out_of_order=self.info.out_of_order,
            cancelled=lambda call: error_bytes(CANCELLED, "it was cancelled before it started"),
        )
        self.wires: list[Wire] = []
        self.runs: list[CallRun] = []
        self._handle_known = False  # that it has a handle of its own
        self._looks = False  # whether it may serve again
        self._leaving = ""
        self._leave_by = 0.0
        self.clock.after(limits.ACTOR_CALLERS_CHECK_S, self._check_callers)

    def _look_again(self) -> None:
        self._looks = False
        if self.worker.alive:
            self.worker.something_came()

    def _may_serve(self) -> bool:
        """The raylet's machine stands for memory that both share."""
        return self.clock.now < self.worker.raylet.raylet.session.lease_until

    # ---- in --------------------------------------------------------------------------------

    def read_wires(self) -> None:
        """Take what callers have sent over direct sockets."""
        for wire in [*self.wires]:
            for message in wire.calls():
                if isinstance(message, m.Calls):
                    self.receive(message, wire)
                elif isinstance(message, m.Taken):
                    self.inbox.heard(message.source)
                    self._streams.on_taken(message)
            if not wire.caller_open:
                self.wires.remove(wire)
                wire.hang_up()
                for caller in self.inbox.callers(wire):
                    self.inbox.reroute(caller, None)

    def receive(self, message: m.Calls, route: Route) -> None:
        """Calls have come."""
        for entry in self.inbox.receive(message, route):
            self._get_values(entry)

    def _get_values(self, entry: Entry) -> None:
        for oid in entry.call.dependencies:
            if oid not in entry.values:
                entry.missing += 1
                self.worker.client.fetch(oid, partial(self.inbox.arrived, entry))
        self.inbox.arrived(entry)

    def cancel(self, message: m.CancelCall) -> None:
        """Drop a call; one that runs goes on."""
        self.inbox.cancel(message.caller, message.task_id)
        self.send_replies()

    # ---- out -------------------------------------------------------------------------------

    def send_replies(self) -> None:
        """Send the answers that there are."""
        for route, replies in self.inbox.take_replies():
            if route is not None:
                route.answer([replies])
                continue
            for place, done in enumerate(replies.replies):
                if stay := staying(done.results):
                    replies.replies[place] = self._put_away(replies.caller, done, stay)
            self.worker.out([replies])

    def _send_items(self, items: m.Items) -> None:
        """What a call has yielded, to its caller."""
        route = self.inbox.route_of(items.target)
        if route is None:
            self._streams.forget(items.target)
        elif route[0] is None:
            self.worker.out([items])
        else:
            route[0].answer([items])

    def _put_away(self, caller: bytes, done: m.CallDone, stay: frozenset[bytes]) -> m.CallDone:
        """Large results stay with the raylet; their caller pulls them."""
        client = self.worker.client
        results = []
        pins = []
        for result in done.results:
            if result.object_id not in stay:
                results.append(result)
                continue
            client.references.adopt(result.object_id)
            ref = Ref(self.worker, result.object_id)
            self.worker.references.remove(ref)
            pins.append(ref)
            self.worker.out([m.Put(0, self.worker.worker_id, result)])
            kind = result.kind | m.LOCATED
            results.append(m.Outcome(result.object_id, kind, result.size, b"", result.contained))
        changed = m.CallDone(done.seq, done.task_id, done.status, results)
        self.inbox.keep(caller, changed, Pins(pins))
        return changed

    # ---- running ---------------------------------------------------------------------------

    def step(self) -> None:
        """Go on as far as possible, answer, and end if that is due."""
        progress = True
        while progress and self.worker.alive:
            progress = False
            for run in [*self.runs]:
                if run.waiter is not None and run.waiter.remaining <= 0:
                    self._resume(run)
                    progress = True
            entry = self.inbox.next() if not self._leaving and self.worker.alive else None
            if entry is not None:
                self._start(entry)
                progress = True
        if not self.worker.alive:
            return
        if self.inbox.paused and not self._looks:
            self._looks = True
            self.clock.after(limits.LEASE_LOOK_S, self._look_again)
        if self.worker.world.random.random() < 0.5:  # which of the two is first is not promised
            self.worker.transmit()
        self.send_replies()
        self.worker.transmit()
        if self.worker.sequence.exiting:
            self.inbox.closing = True
        if self._leaving:
            if not self.inbox.owes(None) or self.clock.now >= self._leave_by:
                self.worker.out([m.Exiting(0, self._leaving)])
                self.worker.exit()
        elif self.inbox.closing and self.inbox.idle() and not self.worker.client.owes():
            self.worker.exit()

    def _check_callers(self) -> None:
        """Forget callers that have ended: nobody else tells."""
        if not self.worker.alive:
            return
        silent = self.inbox.silent()
        if silent:
            waiter = Waiter(lambda: self._callers_known(answer))
            answer = self.worker.client.ask(lambda seq: m.AskGone(seq, b"".join(silent)), waiter)
            self.worker.something_came()
        self.clock.after(limits.ACTOR_CALLERS_CHECK_S, self._check_callers)

    def _callers_known(self, answer: list[m.Message]) -> None:
        for message in answer:
            assert isinstance(message, m.Gone)
            for caller in split_tasks(message.process_ids):
                self.inbox.forget(caller)
                self._streams.forget(caller)

    def _start(self, entry: Entry) -> None:
        call = entry.call
        self.worker.witness.calls.started(self.worker, self.incarnation, call)
        run = CallRun(entry)
        self.runs.append(run)
        self.worker.references = run.references
        values = [entry.values[oid] for oid in call.dependencies]
        try:
            arguments, _ = arguments_of(self.worker, call, values)
        except TaskFailed as error:
            self._end(run, self._errors(call, error.code, str(error)))
            return
        context = CallContext(self.worker, self.actor_id, self.state, call)
        run.program = self.worker.library.methods[call.method](context, *arguments)
        if call.yields:
            maker = f"{self.worker.name} {self.incarnation}".encode()
            source = Source(call.task_id, entry.caller, call.unread_max, maker, self._send_items)
            run.program = self._streams.run(source, run.program)
        self._advance(run, None)

    def _resume(self, run: CallRun) -> None:
        run.waiter = None
        self.worker.references = run.references
        answer, run.answer = run.answer, None
        if answer is not None:
            self._advance(run, answer[0] if answer else None)
            return
        wanted, run.wanted = run.wanted, []
        try:
            values = self.worker.values(wanted)
        except TaskFailed as error:
            self._advance(run, None, error)
            return
        self._advance(run, values)

    def _advance(self, run: CallRun, value: Any, error: BaseException | None = None) -> None:
        program, call, worker = run.program, run.entry.call, self.worker
        while program is not None and worker.alive:
            try:
                step = program.send(value) if error is None else program.throw(error)
            except StopIteration as stop:
                self._end(run, *self._results(call, stop.value))
                return
            except TaskFailed as failed:
                self._end(run, self._errors(call, failed.code, str(failed)))
                return
            error = None
            if isinstance(step, steps.Get):
                run.waiter, run.wanted = worker.want(step.refs), step.refs
                break
            if isinstance(step, steps.Ask):
                run.waiter = Waiter()
                run.answer = worker.client.ask(step.make, run.waiter)
                break
            if isinstance(step, steps.Until):
                run.waiter, run.answer = step.waiter, step.answer
                break
            if isinstance(step, steps.Sleep):
                self._compute(run, step.seconds)
                break
            if isinstance(step, steps.Fail):
                if step.covered and call.retry and not run.entry.cancelled:
                    self.worker.witness.calls.failed(call)
                    self._end(run, [], status=m.FAILED)
                else:
                    self._end(run, self._errors(call, RAISED, "the method raised"))
                return
            if isinstance(step, steps.Leave):
                self._leaving = "exit_actor() was called"
                self._leave_by = self.clock.now + limits.ACTOR_LINGER_S
                self.clock.at(self._leave_by, self.worker.go_on)
                break
            assert isinstance(step, steps.Die)
            worker.die("signal 11")
        run.references = worker.references

    def _compute(self, run: CallRun, seconds: float) -> None:
        """A plain actor's one thread does not read meanwhile."""
        self.worker.occupied(self.info.max_concurrency == 1)
        self.clock.after(seconds * self.worker.raylet.slowness, self._computed, run)

    def _computed(self, run: CallRun) -> None:
        if not self.worker.alive:
            return
        if self.clock.now < self.worker.frozen_until:
            self.clock.at(self.worker.frozen_until, self._computed, run)
            return
        self.worker.occupied(False)
        self.worker.references = run.references
        self._advance(run, None)
        self.worker.go_on()

    # ---- the end of a call -----------------------------------------------------------------

    def _errors(self, call: m.Call, code: str, text: str) -> list[m.Outcome]:
        data = error_bytes(code, text)
        return [
            m.Outcome(object_id(call.task_id, index), m.ERROR, len(data), data)
            for index in range(call.num_returns)
        ]

    def _results(self, call: m.Call, result: Any) -> tuple[list[m.Outcome], list[Ref]]:
        results = result if isinstance(result, list) else [result]
        maker = f"{self.worker.name} {self.incarnation}".encode()
        outcomes = []
        pins: list[Ref] = []
        for index, one in enumerate(results[: call.num_returns]):
            returned = one if isinstance(one, Returned) else Returned(one)
            data, contained = self.worker.encode(returned, maker)
            self.worker.client.references.publish(contained)
            pins += [self.worker.borrow(oid) for oid in contained]
            oid = object_id(call.task_id, index)
            outcomes.append(m.Outcome(oid, m.VALUE, len(data), data, contained))
        return outcomes, pins

    def _end(
        self,
        run: CallRun,
        outcomes: list[m.Outcome],
        pins: list[Ref] | None = None,
        status: int = m.FINISHED,
    ) -> None:
        worker, call = self.worker, run.entry.call
        run.program = None
        self.runs.remove(run)
        worker.sweep(pins or [])
        worker.references = []
        kept = Pins(pins) if pins else None
        borrowed = [*call.nested]
        for value in call.values:
            borrowed += value.contained
        handle = object_id(self.actor_id)
        held = handle in worker.client.references
        if held and not self._handle_known:
            borrowed.append(handle)
        self._handle_known = self._handle_known and held
        if run.entry.cancelled and status == m.FINISHED:
            status = m.CANCELLED
            outcomes, kept = self._errors(call, CANCELLED, "the call was cancelled"), None
        if not any(oid in worker.client.references for oid in borrowed):
            self.inbox.ended(run.entry, status, outcomes, kept)
            return

        def known() -> None:
            self._handle_known = held
            self.inbox.ended(run.entry, status, outcomes, kept)

        worker.transmit()
        worker.client.ask(lambda seq: m.Sync(seq), Waiter(known))
        worker.transmit()
