"""The ends of tasks that a raylet tells the head, kept until the head has acknowledged them."""

from __future__ import annotations

from collections.abc import Callable

from zray import limits
from zray.protocol.messages import CRASHED, Assignment, Done, HeldTask, Message, TaskDone


class Ends:
    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send  # to the head, if there is a session
        self._new: list[TaskDone] = []
        self._seq = 0
        self.unacked: dict[int, Done] = {}
        self._ended: dict[tuple[bytes, int], Assignment] = {}  # what those were ends of
        self._failed: dict[bytes, HeldTask] = {}  # remembered for a head that forgets

    def add(self, assignment: Assignment, done: TaskDone) -> None:
        self._ended[done.task_id, done.attempt] = assignment
        self._new.append(done)
        if done.status == CRASHED:
            self._failed[done.task_id] = held_task(assignment, failures=assignment.failures + 1)
            if len(self._failed) > limits.FAILURES_KEPT_MAX:
                del self._failed[next(iter(self._failed))]

    def flush(self) -> None:
        """Tell what has ended since the last call."""
        if self._new:
            self._seq += 1
            done = Done(self._seq, self._new)
            self._new = []
            self.unacked[self._seq] = done
            self._send(done)

    def acked(self, upto: int) -> None:
        for seq in [seq for seq in self.unacked if seq <= upto]:
            for done in self.unacked.pop(seq).tasks:
                self._ended.pop((done.task_id, done.attempt), None)

    def job_ended(self, job_id: bytes) -> None:
        self._failed = {key: held for key, held in self._failed.items() if held.job_id != job_id}

    # ---- a new session ---------------------------------------------------------------------

    def held(self) -> list[HeldTask]:
        """The tasks whose ends the head may not know of."""
        ended = [(t.task_id, t.attempt) for done in self.unacked.values() for t in done.tasks]
        return [held_task(self._ended[key]) for key in ended if key in self._ended]

    def failed(self) -> list[HeldTask]:
        """The tasks that a worker's death ended here, and how often they had failed by then."""
        return list(self._failed.values())

    def renew(self, renewed: Callable[[TaskDone], TaskDone]) -> dict[bytes, None]:
        """Bring the ends up to date; returns what they referred to before."""
        in_transit: dict[bytes, None] = {}
        for seq, done in [*self.unacked.items()]:
            for task in done.tasks:
                in_transit.update(dict.fromkeys(task.borrowed))
                for outcome in task.results:
                    in_transit.update(dict.fromkeys(outcome.contained))
            self.unacked[seq] = Done(seq, [renewed(task) for task in done.tasks])
        return in_transit

    def tell_again(self) -> None:
        for done in self.unacked.values():
            self._send(done)


def held_task(assignment: Assignment, failures: int | None = None) -> HeldTask:
    """The task as a raylet announces it."""
    spec = assignment.spec
    return HeldTask(
        *(spec.task_id, assignment.attempt, assignment.job_id, spec.template_id),
        assignment.failures if failures is None else failures,
    )
