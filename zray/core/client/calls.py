"""The part of the Client that calls actors: references of results, promises, and who is asked.

Results of calls belong to the process that called, like its own puts: the cluster hears of them
only when a reference leaves. One that leaves before the answer is there is a promise.
"""

from __future__ import annotations

from zray.core import failures
from zray.core.client.actor_caller import (
    DIRECT,
    HANDLE_INDEX,
    RELAYED,
    UNDECIDED,
    ActorCaller,
    ActorCallers,
    PendingCall,
)
from zray.core.client.call_errors import named, obituary, record
from zray.core.client.call_messages import CallMessages
from zray.core.client.call_results import CallResults
from zray.core.client.creations import ClientCreations
from zray.core.client.references import ClientReferences
from zray.core.client.requests import Requests
from zray.core.client.waiters import Waiter
from zray.core.identity import Identity
from zray.core.machine import Outbox
from zray.errors import TaskCancelledError
from zray.ids import object_id
from zray.protocol import messages as m


class ClientCalls:
    """Args:
    outcomes: those known here.
    results: those of calls without an answer.
    actors: that are called from here, or of which there is a handle.
    """

    def __init__(
        self,
        *,
        me: Identity,
        outbox: list[m.Message],
        outcomes: dict[bytes, m.Outcome],
        results: CallResults,
        actors: ActorCallers,
        references: ClientReferences,
        creations: ClientCreations,
        requests: Requests,
    ) -> None:
        self._me = me
        self._outbox = outbox
        self._outcomes = outcomes
        self._results = results
        self.actors = actors
        self._references = references
        self._creations = creations
        self._requests = requests
        self._message_of = CallMessages(references, outcomes).made
        self._by_task: dict[bytes, PendingCall] = {}
        self._busy: dict[bytes, None] = {}  # actors that may have calls to send
        self._delayed: dict[bytes, None] = {}  # actors whose next call needs a task of the backlog
        self._answered: dict[bytes, None] = {}  # actors that may have answers to acknowledge
        # Effects for the shell:
        self.direct: Outbox[bytes] = Outbox()  # by worker, over sockets of this process
        self.connects: list[ActorCaller] = []  # try to reach their workers; tell ``connected``
        self.drains: list[ActorCaller] = []  # read their sockets to the end; tell ``drained``
        self.closes: list[bytes] = []  # workers whose sockets are of no use any more

    # ---- calls -----------------------------------------------------------------------------

    def call(
        self,
        actor_id: bytes,
        info: m.ActorInfo,
        method: str,
        num_returns: int,
        retries: int,
        given: tuple[bytes, list[bytes], list[bytes], bytes, bytes],
        group: str = "",
        retry: bytes = m.RETRY_AS_DECLARED,
        yields: int = m.RETURNS,
        unread_max: int = 0,
        quiet: bool = False,
    ) -> list[bytes]:
        """Queue a call; the ids of its returns, for each of which the caller makes a reference.

        ``given``: arguments, dependencies, nested references, the task that calls, and the box: an
        own object, counted for the call, that holds the arguments; empty if there is none.
        ``group``, ``retry``, ``quiet``: as in CALL. ``yields``, ``unread_max``: as in TEMPLATE.
        """
        actor = self.actors.of(actor_id)
        actor.info = info
        if not actor.kept_alive:
            handle = object_id(actor_id, HANDLE_INDEX)
            actor.kept_alive = handle in self._references  # else that, too, keeps nothing
            if actor.kept_alive:
                self._references.add(handle)  # it lives until it answers
        task_id = self._me.new_task()
        arguments, dependencies, nested, parent, box = given
        call = PendingCall(
            actor,
            task_id,
            method,
            num_returns,
            retries,
            arguments,
            dependencies,
            nested,
            parent,
            box,
            group,
            retry,
            yields,
            unread_max,
            quiet,
        )
        if dependencies or nested:
            for oid in (*dependencies, *nested):
                self._references.add(oid)
            self._references.passed_on((*dependencies, *nested))
        actor.waiting.append(call)
        self._by_task[task_id] = call
        returns = [object_id(task_id, index) for index in range(num_returns)]
        for oid in returns:
            self._results.awaited[oid] = call
            self._references.count(oid)
        if actor.state == m.ACTOR_ALIVE and not actor.away:
            pass  # as nearly always
        elif actor.state == m.ACTOR_DEAD and actor.ended is None:
            self._fail(actor.refused())
        elif self._is_unavailable(actor) and not retries:
            self._fail(actor.unavailable())
        elif not actor.state and actor_id not in self._creations.waiting:
            self._watch(actor)
        self._busy[actor_id] = None
        return returns

    @staticmethod
    def _is_unavailable(actor: ActorCaller) -> bool:
        """Whether it cannot be called now, which is to change."""
        restarting = actor.state == m.ACTOR_RESTARTING
        return actor.ended is None and (restarting or actor.out_of_reach())

    def _watch(self, actor: ActorCaller) -> None:
        actor.state = m.ACTOR_PENDING
        self._outbox.append(m.ActorWatch(0, self._me.process_id, [actor.actor_id]))

    def unanswered(self, actor_id: bytes) -> int:
        """How many calls of the actor by this process wait for their answers."""
        actor = self.actors.get(actor_id)
        return actor.open_calls() if actor is not None else 0

    def flush(self) -> None:
        """Send what can be sent to actors."""
        if self._creations.waiting:
            self._creations.ask_some()
        if not (self._busy or self._answered or self._delayed):
            return
        busy, self._busy = self._answered | self._delayed | self._busy, {}
        self._delayed.clear()
        self._answered.clear()
        for actor_id in busy:
            actor = self.actors.get(actor_id)
            if actor is None:
                continue
            made, may_leave = self._message_of, self._call_may_leave
            while (message := actor.take_calls(made, may_leave)) is not None:
                self._send(actor, message)
                if not actor.waiting:
                    break
            if actor.waiting and not self._call_may_leave(actor.waiting[0]):
                self._delayed[actor_id] = None
                first = actor.waiting[0]
                self._creations.hurry((*first.dependencies, *first.nested))

    def _call_may_leave(self, call: PendingCall) -> bool:
        needed = bool(call.dependencies or call.nested)
        return not needed or self._creations.may_leave((*call.dependencies, *call.nested))

    def _send(self, actor: ActorCaller, message: m.Message) -> None:
        if actor.path == DIRECT:
            self.direct.send(actor.worker_id, message)
        else:
            self._outbox.append(message)

    def has_promised(self) -> bool:
        """Whether somebody else has heard of a result that is not there yet."""
        return bool(self._results.promised)

    def is_open(self, task_id: bytes) -> bool:
        """Whether that is a call without an answer."""
        return task_id in self._by_task

    def cancel(self, task_id: bytes, recursive: bool) -> bool:
        """Cancel a call; False: there is none with that id."""
        call = self._by_task.get(task_id)
        if call is None:
            return False
        call.cancelled = True
        call.recursive = recursive
        if call.actor.withdraw(call):
            value = record(TaskCancelledError, "the call was cancelled before it was sent", call)
            self._resolve_error(call, value)
            return True
        if recursive:  # of the call itself the head knows nothing
            self._outbox.append(m.Cancel(0, task_id, False, recursive))
        self._outbox.append(self._cancellation(call))
        return True

    def goes_direct(self, task_id: bytes, worker_id: bytes) -> bool:
        """Whether the call is with that worker, over a socket of this process."""
        call = self._by_task.get(task_id)
        if call is None or call.actor.path != DIRECT:
            return False
        return call.actor.worker_id == worker_id

    def cancel_below(self, task_id: bytes) -> bool:
        """Cancel the calls that a task or call of this process has made; False: there are none."""
        below = [call.task_id for call in self._by_task.values() if call.parent == task_id]
        for one in below:
            self.cancel(one, recursive=True)
        return bool(below)

    def _cancellation(self, call: PendingCall) -> m.CancelCall:
        actor = call.actor
        ids = (actor.actor_id, actor.incarnation, actor.caller, call.task_id)
        return m.CancelCall(0, *ids, call.recursive)

    # ---- in --------------------------------------------------------------------------------

    def on_replies(self, message: m.Replies) -> None:
        """Answers of an actor, perhaps sent before: each counts once."""
        actor = self.actors.get(message.actor_id)
        if actor is None:
            return
        failed = []
        for done in message.replies:
            call = actor.answered(done, message.incarnation)
            if call is None:
                continue
            if call.given_up:
                self._end(call)
            elif done.status != m.FAILED:
                self._resolve(call, done.results, done.seq)
            elif call.cancelled:
                self._resolve_error(
                    call, record(TaskCancelledError, "the call was cancelled", call)
                )
            else:
                failed.append(call)
        if failed:
            actor.again(failed)
        self._answered[actor.actor_id] = None
        if actor.waiting:
            self._busy[actor.actor_id] = None

    def on_state(self, state: m.ActorState) -> None:
        """What has become of an actor."""
        actor = self.actors.get(state.actor_id)
        if actor is None:
            return
        if actor.ended is None and actor.path == DIRECT and actor.ends_incarnation(state):
            self.drains.append(actor)  # what it answered before it ended counts
        if actor.ended is not None or actor in self.drains:
            actor.ended = state
        else:
            self._apply(actor, state)

    def drained(self, actor: ActorCaller) -> None:
        """Everything that the ended incarnation answered over its socket has been read."""
        state, actor.ended = actor.ended, None
        if state is not None:
            self._apply(actor, state)

    def _apply(self, actor: ActorCaller, state: m.ActorState) -> None:
        ends = actor.ends_incarnation(state)
        if ends and actor.worker_id:
            self.closes.append(actor.worker_id)
        lived = actor.state == m.ACTOR_ALIVE
        again = actor.news(state)
        if ends:
            self._fail(actor.interrupted())
        if state.state == m.ACTOR_RESTARTING and lived:  # else they wait for its first life
            self._fail(actor.unavailable())
        if state.state == m.ACTOR_DEAD:
            self._fail(actor.refused())
            self._forget_dead(actor)
        elif actor.out_of_reach():
            self._cut_off(actor)
        elif again:
            for message in actor.calls_again(self._message_of):
                self._outbox.append(message)
            self._cancel_again(actor)
            self._busy[actor.actor_id] = None  # what has waited for this
        elif actor.relinked and actor.path == DIRECT:
            self._cancel_again(actor)  # those alone do not go with the calls
        elif state.state == m.ACTOR_ALIVE and actor.path == UNDECIDED:
            self.connects.append(actor)

    def _cancel_again(self, actor: ActorCaller) -> None:
        for call in actor.sent.values():
            if call.cancelled:
                self._outbox.append(self._cancellation(call))

    def connected(self, actor: ActorCaller, *, direct: bool) -> None:
        """Which way calls take from now on."""
        if actor.state != m.ACTOR_ALIVE:
            return
        actor.path = DIRECT if direct else RELAYED
        broken, actor.broken = actor.broken, False
        if broken and direct:  # the process lives, whatever has become of its socket
            self._give_up(actor)
        if actor.out_of_reach():
            self._cut_off(actor)
        elif actor.sent:
            for message in actor.calls_again(self._message_of):
                self._send(actor, message)
            self._cancel_again(actor)
        self._busy[actor.actor_id] = None

    def link_lost(self, actor: ActorCaller) -> None:
        """The socket to the actor's worker was closed: the head will know what that means."""
        if actor.path == DIRECT and actor.ended is None:
            actor.path = UNDECIDED
            actor.broken = True
            self._outbox.append(m.ActorWatch(0, self._me.process_id, [actor.actor_id]))

    def creation_asked(self, actor_id: bytes) -> None:
        """The request for an actor has left only now: what becomes of it can be watched."""
        actor = self.actors.get(actor_id)
        if actor is not None and actor.unanswered():
            self._watch(actor)

    def refuse(self, actor: ActorCaller, text: str) -> None:
        """The actor will not be made: its calls fail."""
        actor.state = m.ACTOR_DEAD
        actor.text = text
        self._fail(actor.refused())

    def resume(self) -> None:
        """A new session: what the head must know of calls and promises."""
        if self._results.promised:
            promised = b"".join(self._results.promised)
            self._outbox.append(m.Promise(0, self._me.process_id, promised))
        living = (m.ACTOR_PENDING, m.ACTOR_ALIVE, m.ACTOR_RESTARTING)
        watched = [actor.actor_id for actor in self.actors.values() if actor.state in living]
        if watched:
            self._outbox.append(m.ActorWatch(0, self._me.process_id, watched))

    def unacknowledged(self) -> bool:
        """Whether actors keep answers that this process has."""
        return bool(self._answered)

    def due(self) -> bool:
        """Whether ``flush`` has anything to look at."""
        looked_at = self._busy or self._answered or self._delayed
        return bool(looked_at or self._creations.waiting)

    def waiting(self) -> bool:
        """Whether there are calls that cannot leave before this process hears something."""
        return any(actor.waiting for actor in self.actors.values())

    def unsent(self) -> bool:
        """Whether ``flush`` may have calls to send."""
        return bool(self._busy)

    def handle_dropped(self, actor_id: bytes) -> None:
        """This process has no handle of the actor any more."""
        actor = self.actors.get(actor_id)
        if actor is not None:
            self._forget_dead(actor)

    def _forget_dead(self, actor: ActorCaller) -> None:
        """A living actor goes on counting this process's calls, so that it must, too."""
        handle = object_id(actor.actor_id, HANDLE_INDEX)
        over = actor.state in (0, m.ACTOR_DEAD) and not (actor.ended or actor.unanswered())
        if over and handle not in self._references:
            self.actors.pop(actor.actor_id, None)

    # ---- results ---------------------------------------------------------------------------

    def _resolve(self, call: PendingCall, outcomes: list[m.Outcome], seq: int) -> None:
        if self._take_results(outcomes):
            self._settle_later(call.actor, seq)
        self._end(call)

    def _take_results(self, outcomes: list[m.Outcome]) -> bool:
        """Whether the actor has to keep something for this process until its holds are known."""
        elsewhere = False
        for outcome in outcomes:
            oid = outcome.object_id
            if self._results.awaited.pop(oid, None) is None:
                continue
            promised = self._results.take_promise(oid)
            if outcome.kind & m.LOCATED:
                self._references.take_located(outcome, promised=promised)
                elsewhere = True
            else:
                self._references.take_result(outcome, promised=promised)
                elsewhere = elsewhere or bool(outcome.contained)
        return elsewhere

    def _settle_later(self, actor: ActorCaller, seq: int) -> None:
        """The actor holds what its answer refers to until this process's own holds are known."""
        actor.unsettled[seq] = None
        incarnation = actor.incarnation

        def settled() -> None:
            if actor.incarnation == incarnation:
                actor.unsettled.pop(seq, None)
                actor.acknowledge = True
                self._answered[actor.actor_id] = None

        self._references.flush_holds()
        self._requests.ask(lambda number: m.Sync(number), Waiter(settled))

    def _end(self, call: PendingCall) -> None:
        actor = call.actor
        self._by_task.pop(call.task_id, None)
        for oid in (*call.dependencies, *call.nested):
            self._references.remove(oid)
        if call.box:
            self._references.remove(call.box)
        if actor.kept_alive and not actor.unanswered():
            actor.kept_alive = False
            self._references.remove(object_id(actor.actor_id, HANDLE_INDEX))

    def _fail(self, calls: list[PendingCall]) -> None:
        for call in calls:
            if call.given_up:
                self._end(call)
            else:
                self._resolve_error(call, obituary(call))

    def _cut_off(self, actor: ActorCaller) -> None:
        """Nothing reaches the actor now: what may not wait for it does not."""
        self._give_up(actor)
        self._fail(actor.unavailable())

    def _give_up(self, actor: ActorCaller) -> None:
        """What was sent and may not be made again has its error before its answer, if any comes."""
        for call in actor.give_up():
            self._by_task.pop(call.task_id, None)
            self._take_results(_errors(call, obituary(call)))

    def _resolve_error(self, call: PendingCall, value: bytes) -> None:
        self._resolve(call, _errors(call, value), -1)

    # ---- reasons ---------------------------------------------------------------------------

    def reason(self, oid: bytes) -> tuple[str, bytes]:
        """What a call waits for, as far as this process knows, and the actor to ask about."""
        call = self._results.awaited.get(oid)
        if not isinstance(call, PendingCall):
            return "", b""
        actor = call.actor
        name = named(call)
        if call.seq >= 0:
            before = sum(1 for other in actor.sent.values() if other.seq < call.seq)
            what = f"is with the actor, {before} calls of this process before it"
            if actor.out_of_reach():
                what = f"was sent to the actor, which is out of reach: {actor.text}"
        elif actor.out_of_reach():
            what = f"waits here for the actor, which is out of reach: {actor.text}"
        else:
            state = m.ACTOR_STATES.get(actor.state, "UNKNOWN")
            what = f"waits here for the actor, which is {state}"
        return f"WAIT_ACTOR: {name} {what}", object_id(actor.actor_id, HANDLE_INDEX)


def _errors(call: PendingCall, value: bytes) -> list[m.Outcome]:
    return failures.outcomes(call.task_id, call.num_returns, value)
