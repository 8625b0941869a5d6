"""The ground truth of actors and their calls: who called, what started where, and in which order.

Raises where invariant 4 is broken, or where an actor lives twice. Machines know nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from zray.ids import task_of
from zray.protocol import messages as m
from zray.protocol.errors import ErrorRecord
from zray.testing.judgement.history import History
from zray.testing.processes.participant import Participant
from zray.testing.processes.population import Population
from zray.testing.processes.worker import SimWorker
from zray.testing.world.clock import Clock
from zray.testing.world.errors import ACTOR_UNAVAILABLE, LOSSES, Violation


class Life:
    """One incarnation, from the start of its constructor."""

    def __init__(self, worker: SimWorker, incarnation: int, now: float) -> None:
        self.worker = worker
        self.incarnation = incarnation
        self.began = now
        # Caller and concurrency group -> number of its call that started last.
        self.last: dict[tuple[bytes, str], int] = {}


class ActorDeed:
    """Everything known of one actor."""

    def __init__(self, info: m.ActorInfo, number: int, now: float) -> None:
        self.info = info
        self.number = number
        self.created = now
        self.answer: list[m.Message] = []  # what its creator has heard
        self.asked_again = 0  # heads that started before that
        self.killed = False  # for good
        self.kills = 0  # after which it may start again
        self.lives: list[Life] = []


class CallDeed:
    """Everything known of one call. ``number``: its place among all calls ever made."""

    def __init__(
        self, actor_id: bytes, caller: Participant, method: str, retries: int, n: int
    ) -> None:
        self.actor_id = actor_id
        self.caller = caller
        self.method = method
        self.retries = retries
        self.number = n
        self.starts: list[Life] = []
        self.failures = 0  # starts that ended with an error for which it is made again
        self.cancelled = False
        self.denied = ""  # who was told that it did not run


class CallLedger:
    """Filled in by the processes as they act."""

    def __init__(self, clock: Clock, population: Population, history: History) -> None:
        self._clock = clock
        self._population = population
        self._history = history
        self.actors: dict[bytes, ActorDeed] = {}
        self.calls: dict[bytes, CallDeed] = {}
        self.orphans: set[bytes] = set()  # what actors held that were killed

    def word(self, task_id: bytes) -> str:
        """A short name of a call or an actor; empty: it is neither."""
        call = self.calls.get(task_id)
        if call is not None:
            return f"{self.word(call.actor_id)}.{call.method}#{call.number}"
        actor = self.actors.get(task_id)
        return f"{actor.info.class_name}@{actor.number}" if actor is not None else ""

    def info(self, actor_id: bytes) -> m.ActorInfo:
        """What everybody with a handle knows of an actor."""
        return self.actors[actor_id].info

    # ---- what programs do ------------------------------------------------------------------

    def created(self, who: Participant, spec: m.TaskSpec, info: m.ActorInfo) -> None:
        """A program asks for an actor."""
        now = self._clock.now
        self.actors[spec.task_id] = ActorDeed(info, len(self.actors) + 1, now)
        self._clock.tell(f"{who.name} creates {self.word(spec.task_id)}")

    def asked(self, actor_id: bytes, answer: list[m.Message]) -> None:
        """Where the answer to that will be."""
        self.actors[actor_id].answer = answer

    def called(
        self, who: Participant, actor_id: bytes, task_id: bytes, method: str, retries: int
    ) -> None:
        """A program calls a method."""
        self.calls[task_id] = CallDeed(actor_id, who, method, retries, len(self.calls) + 1)
        self._clock.tell(f"{who.name} calls {self.word(task_id)}")

    def killed(self, actor_id: bytes, *, no_restart: bool) -> None:
        """A program kills an actor."""
        deed = self.actors[actor_id]
        deed.killed = deed.killed or no_restart
        deed.kills += not no_restart
        self._clock.tell(f"{self.word(actor_id)} is killed, for good: {no_restart}")

    def cancelled(self, task_id: bytes) -> None:
        """A program cancels a call."""
        self.calls[task_id].cancelled = True

    def head_started(self) -> None:
        """It knows nothing of actors that have died; who has not heard of his asks for it again."""
        for deed in self.actors.values():
            deed.asked_again += not deed.answer

    # ---- what actors do --------------------------------------------------------------------

    def incarnations(self, actor_id: bytes) -> int:
        """How often its constructor was started."""
        return len(self.actors[actor_id].lives)

    def constructing(self, worker: Participant, assignment: m.Assignment) -> None:
        """A constructor starts: nobody else may be this actor any more."""
        actor_id = assignment.spec.task_id
        deed = self.actors[actor_id]
        life = Life(
            self._population.everywhere.ever[worker.client.process_id],
            assignment.attempt,
            self._clock.now,
        )
        deed.lives.append(life)
        counts = self._history.counts(life.worker)
        for other in deed.lives[:-1]:
            if counts and other.worker.alive and self._history.counts(other.worker):
                raise Violation(
                    f"invariant 4: {self.word(actor_id)} starts as incarnation {life.incarnation} "
                    f"on {worker.name} while incarnation {other.incarnation} lives on "
                    f"{other.worker.name}"
                )
            if counts and other.last and other.incarnation >= life.incarnation:
                raise Violation(
                    f"invariant 5: {self.word(actor_id)} starts as incarnation {life.incarnation} "
                    f"after {other.incarnation}"
                )
        excused = deed.kills + deed.asked_again
        if self._history.nodes_died:
            excused += self._history.restarts_since(deed.created)
        allowed = deed.info.max_restarts
        if 0 <= allowed < len(deed.lives) - 1 - excused:
            raise Violation(
                f"{self.word(actor_id)} starts {len(deed.lives)} times, may {1 + allowed}"
            )

    def started(self, worker: Participant, incarnation: int, call: m.Call) -> None:
        """A call's method starts."""
        deed = self.calls[call.task_id]
        word = self.word(call.task_id)
        self._clock.tell(f"{worker.name} starts {word}, incarnation {incarnation}")
        life = next(
            known
            for known in self.actors[deed.actor_id].lives
            if known.worker is worker and known.incarnation == incarnation
        )
        line = deed.caller.client.process_id, call.group
        before = life.last.get(line, 0)
        # What has failed comes after whatever was on its way by then.
        in_order = not (deed.failures or self.actors[deed.actor_id].info.out_of_order)
        if deed.number <= before and in_order:
            raise Violation(f"invariant 4: {word} starts after #{before} of the same caller")
        life.last[line] = max(before, deed.number)
        deed.starts.append(life)
        if 0 <= deed.retries < len(deed.starts) - 1:
            raise Violation(
                f"invariant 4: {word} starts {len(deed.starts)} times, may {deed.retries + 1}"
            )
        if deed.denied:
            raise Violation(f"invariant 4: {word} starts, and {deed.denied} was told it did not")
        newer = [
            other
            for other in self.actors[deed.actor_id].lives
            if other.incarnation > incarnation and other.worker.alive
        ]
        # A node that was declared dead may not know it, but what may be restarted elsewhere waits.
        restartable = bool(self.actors[deed.actor_id].info.max_restarts)
        if newer and (restartable or self._history.counts(life.worker)):
            raise Violation(
                f"invariant 4: {word} starts in incarnation {incarnation}, and "
                f"{newer[-1].incarnation} lives"
            )

    def failed(self, call: m.Call) -> None:
        """A method has raised what its call is made again for."""
        self.calls[call.task_id].failures += 1

    def ended(self, worker: Participant, *, owed: bool, orderly: bool) -> None:
        """An actor's process ends; ``owed``: it had something to say to its raylet."""
        if owed:
            self._history.excuse(*LOSSES)
        if not orderly:
            self._orphaned(worker.client.references.held)

    def _orphaned(self, object_ids: Iterable[bytes]) -> None:
        """An actor was killed that held these, perhaps for a caller that has yet to say so."""
        head, found = self._population.head, [*object_ids]
        for oid in found:  # grows with what is inside
            record = head.gcs.objects.get(oid) if head is not None else None
            if oid not in self.orphans and record is not None:
                found += record.contained
            self.orphans.add(oid)

    # ---- what callers see ------------------------------------------------------------------

    def observed(self, who: str, oid: bytes, error: ErrorRecord) -> None:
        """A process looked at a call's error."""
        deed = self.calls.get(task_of(oid))
        if deed is None or error.actor_id != deed.actor_id:
            return  # the method has raised what it got itself
        if deed.retries < 0 and error.code == ACTOR_UNAVAILABLE:
            raise Violation(
                f"{who} is told that {self.word(task_of(oid))} may not wait for its actor, "
                "which may be made any number of times"
            )
        if not error.maybe_executed:
            deed.denied = who
            if deed.starts:
                raise Violation(
                    f"invariant 4: {who} is told that {self.word(task_of(oid))} did not run, "
                    f"which started on {deed.starts[-1].worker.name}"
                )
