"""The ends of tasks, actors and leases that a raylet tells, kept until the head has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec.structs import replace

from zray import limits
from zray.core import failures
from zray.errors import ProtocolError
from zray.ids import object_id
from zray.protocol.messages import (
    CRASHED,
    ERROR,
    ActorExited,
    Assignment,
    Done,
    HeldActor,
    HeldLease,
    HeldTask,
    LeaseEnded,
    Message,
    Outcome,
    Rejected,
    TaskDone,
)

End = Done | ActorExited | LeaseEnded


class Completions:
    """``tell_head``: as ``HeadSession.tell``. ``numbers``: of all that the head may refuse."""

    def __init__(self, tell_head: Callable[[Message], None], numbers: Iterator[int]) -> None:
        self._tell_head = tell_head
        self._new: list[TaskDone] = []
        self._numbers = numbers
        self.unacked: dict[int, End] = {}
        self._ended: dict[tuple[bytes, int], Assignment] = {}  # what those were ends of
        self._exited: dict[int, HeldActor] = {}  # whose ends are not acknowledged
        self._leases: dict[int, HeldLease] = {}  # the same of leases
        self._failed: dict[bytes, HeldTask] = {}  # remembered for a head that forgets

    def add(self, assignment: Assignment, done: TaskDone) -> None:
        """An attempt has ended: the head is to hear of it."""
        self._ended[done.task_id, done.attempt] = assignment
        self._new.append(done)
        if done.status == CRASHED:
            self._failed[done.task_id] = held_task(assignment, failures=assignment.failures + 1)
            if len(self._failed) > limits.FAILURES_KEPT_MAX:
                del self._failed[next(iter(self._failed))]

    def flush(self) -> None:
        """Tell what has ended since the last call."""
        if self._new:
            self._tell(Done(next(self._numbers), self._new))
            self._new = []

    def _tell(self, end: End) -> None:
        self.unacked[end.seq] = end
        self._tell_head(end)

    def exited(self, actor: HeldActor, *, intended: bool, text: str) -> None:
        """An actor's process is gone."""
        self.flush()
        seq = next(self._numbers)
        self._exited[seq] = actor
        self._tell(ActorExited(seq, actor.actor_id, actor.incarnation, intended, text))

    def lease_ended(
        self,
        lease_id: bytes,
        lease: HeldLease | None = None,
        begun: int = 0,
        text: str = "",
        told: int = 0,
        status: int = CRASHED,
    ) -> None:
        """A lease is over; None: it has not begun. The others are as in LEASE_ENDED."""
        self.flush()
        seq = next(self._numbers)
        if lease is not None:
            self._leases[seq] = lease
        self._tell(LeaseEnded(seq, lease_id, begun, text, told, status))

    def acked(self, upto: int) -> None:
        """The head knows the ends up to this number."""
        while self.unacked and (seq := next(iter(self.unacked))) <= upto:
            end = self.unacked.pop(seq)
            self._exited.pop(seq, None)
            self._leases.pop(seq, None)
            for done in end.tasks if isinstance(end, Done) else ():
                self._ended.pop((done.task_id, done.attempt), None)

    def replace(self, done: TaskDone) -> None:
        """An end could not be told as it was: tell it like this."""
        for end in self.unacked.values():
            for place, told in enumerate(end.tasks if isinstance(end, Done) else ()):
                if (told.task_id, told.attempt) == (done.task_id, done.attempt):
                    assert isinstance(end, Done)
                    end.tasks[place] = done
                    self._tell_head(end)
                    return

    def refused(self, message: Rejected) -> list[HeldTask] | None:
        """The head does not take an end as it was told; None: that is none of these.

        What ended has ended all the same: it is told again, with what was refused in its place.
        Returns those that have made an actor, which the head then takes for dead.
        """
        end = self.unacked.pop(message.about, None)
        if end is None:
            return None
        text = f"how it ended could not be told: {message.text}"[: limits.CAUSE_BYTES_MAX]
        if isinstance(end, ActorExited):
            actor = self._exited.pop(message.about)
            self.exited(actor, intended=end.intended, text=text)
            return []
        if isinstance(end, LeaseEnded):
            lease = self._leases.pop(message.about, None)
            if end.text:
                whose = end.text.partition("\n")[0]
                said = f"{whose}\n{text}"
                self.lease_ended(end.lease_id, lease, end.begun, said, end.told)
            return []
        value = failures.encode(ProtocolError, text)
        self._tell(Done(next(self._numbers), [_in_error(done, value) for done in end.tasks]))
        ended = [self._ended.get((done.task_id, done.attempt)) for done in end.tasks]
        return [held_task(one) for one in ended if one is not None and one.actor is not None]

    def job_ended(self, job_id: bytes) -> None:
        """Nobody wants the ends of its tasks any more."""
        self._failed = {key: held for key, held in self._failed.items() if held.job_id != job_id}

    # ---- a new session ---------------------------------------------------------------------

    def new_session(self) -> None:
        """What has ended until now is told with all else that may not be known."""
        if self._new:
            seq = next(self._numbers)
            self.unacked[seq] = Done(seq, self._new)
            self._new = []

    def held(self) -> list[HeldTask]:
        """The tasks whose ends the head may not know of; of each its last attempt, which counts."""
        ends = [end for end in self.unacked.values() if isinstance(end, Done)]
        ended = {task.task_id: task.attempt for done in ends for task in done.tasks}
        return [held_task(self._ended[key]) for key in ended.items() if key in self._ended]

    def held_actors(self) -> list[HeldActor]:
        """The actors of whose ends the head may not know."""
        return list(self._exited.values())

    def held_leases(self) -> list[HeldLease]:
        """The leases of whose ends the head may not know."""
        return list(self._leases.values())

    def failed(self) -> list[HeldTask]:
        """The tasks that a worker's death ended here, and how often they had failed by then.

        But for those whose ends are told again: each of these counts as it comes.
        """
        failed = self._failed.values()
        return [held for held in failed if (held.task_id, held.attempt) not in self._ended]

    def renew(self, renewed: Callable[[TaskDone], TaskDone]) -> dict[bytes, None]:
        """Bring the ends up to date; returns what they referred to before."""
        in_transit: dict[bytes, None] = {}
        for seq, done in [*self.unacked.items()]:
            if not isinstance(done, Done):
                continue
            for task in done.tasks:
                in_transit.update(dict.fromkeys(task.borrowed))
                for outcome in task.results:
                    in_transit.update(dict.fromkeys(outcome.contained))
            self.unacked[seq] = Done(seq, [renewed(task) for task in done.tasks])
        return in_transit

    def tell_again(self) -> None:
        """Send what is not acknowledged, in a new session."""
        for end in self.unacked.values():
            self._tell_head(end)


def _in_error(done: TaskDone, value: bytes) -> TaskDone:
    """The end with an error for each of its results."""
    ids = [outcome.object_id for outcome in done.results] or [object_id(done.task_id)]
    results = [Outcome(oid, ERROR, len(value), value) for oid in ids]
    return replace(done, results=results)


def held_task(assignment: Assignment, failures: int | None = None) -> HeldTask:
    """The task as a raylet announces it."""
    spec = assignment.spec
    return HeldTask(
        *(spec.task_id, assignment.attempt, assignment.job_id, spec.template_id),
        assignment.failures if failures is None else failures,
        makes_actor=assignment.actor is not None,
    )
