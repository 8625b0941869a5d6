"""The ground truth of a simulation: who submitted, ran and saw what. Machines know nothing of it.

Violations that show in a single event (two holders, two outcomes, a wrong value, one run too many)
are raised where they happen.
"""

from __future__ import annotations

import msgspec

from zray.core.machine import NEVER
from zray.ids import is_item, origin_of, task_of
from zray.protocol import messages as m
from zray.protocol.errors import decode_error
from zray.testing.judgement.call_ledger import CallLedger
from zray.testing.judgement.history import History
from zray.testing.processes.participant import Participant
from zray.testing.processes.population import Population
from zray.testing.processes.steps import TaskFailed
from zray.testing.processes.worker import SimWorker
from zray.testing.world.clock import Clock
from zray.testing.world.errors import CRASHED, LOSSES, Violation


class Run:
    """One start of a task."""

    def __init__(self, deed: Deed, worker: SimWorker, attempt: int, now: float) -> None:
        self.deed = deed
        self.worker = worker
        self.attempt = attempt
        self.began = now
        self.ended: float | None = None
        self.status: int | None = None  # None: it died, or still runs
        self.unheard = False  # only a head that was replaced may have heard of it
        self.leased = worker.lease is not None


class Deed:
    """Everything known of one task."""

    def __init__(self, name: str, number: int, spec: m.TaskSpec, template: m.Template) -> None:
        self.name = name
        self.number = number
        self.spec = spec
        self.template = template
        self.job_id = b""
        self.by_driver = False
        self.submitted = 0.0
        self.cancelled = False
        self.submitter: Deed | None = None  # None: a program or an actor's method
        self.runs: list[Run] = []

    def was_cancelled(self) -> bool:
        """Itself, or with what had submitted it."""
        above = self.submitter
        return self.cancelled or (above is not None and above.was_cancelled())


class Ledger:
    """Filled in by the processes as they act."""

    def __init__(self, clock: Clock, population: Population, history: History) -> None:
        self._clock = clock
        self._history = history
        self.tasks: dict[bytes, Deed] = {}
        self.expected: dict[bytes, int] = {}  # object -> its number
        self.seen: dict[bytes, tuple[bytes, Participant]] = {}  # object -> value, who saw it
        self._workers = population.everywhere.ever
        self.running: dict[bytes, Run] = {}  # worker -> its run
        self.calls = CallLedger(clock, population, history)

    def word(self, task_id: bytes) -> str:
        """A short name of a task."""
        deed = self.tasks.get(task_id)
        if deed is not None:
            return f"{deed.name}#{deed.number}"
        return self.calls.word(task_id) or task_id.hex()

    # ---- what happens ----------------------------------------------------------------------

    def submitted(self, who: Participant, spec: m.TaskSpec, template: m.Template) -> None:
        """A program submitted a task."""
        deed = Deed(template.name, len(self.tasks) + 1, spec, template)
        deed.job_id = who.client.job_id
        deed.by_driver = who.client.process_id == who.client.job_id
        deed.submitted = self._clock.now
        if (run := self.running.get(who.client.process_id)) is not None:
            deed.submitter = run.deed
        self.tasks[spec.task_id] = deed
        self._clock.tell(f"{who.name} submits {self.word(spec.task_id)}")

    def made(self, who: Participant, oid: bytes, number: int) -> None:
        """A program put a value."""
        self.expected[oid] = number

    def cancelled(self, task_id: bytes) -> None:
        """A program cancels a task, and with it what that submitted."""
        self.tasks[task_id].cancelled = True

    def runs(self, task_id: bytes) -> int:
        """How often a task was started."""
        return len(self.tasks[task_id].runs)

    def started(self, worker: Participant, assignment: m.Assignment) -> None:
        """User code of a task begins."""
        self._started(self._workers[worker.client.process_id], assignment)

    def _started(self, worker: SimWorker, assignment: m.Assignment) -> None:
        deed = self.tasks[assignment.spec.task_id]
        word = self.word(assignment.spec.task_id)
        counts = self._history.counts(worker)  # a node that was declared dead may not know it yet
        for other in deed.runs:
            if counts and other.ended is None and self._history.counts(other.worker):
                raise Violation(
                    f"invariant 2: {word} starts on {worker.name} while it runs on "
                    f"{other.worker.name}"
                )
        again = assignment.spec.task_id in self._history.rebuilt
        if counts and not again and any(map(self._has_outcome, deed.runs)):
            raise Violation(f"invariant 1: {word} starts on {worker.name} and has its outcome")
        earlier = [
            run for run in deed.runs if self._same_life(run) and self._history.counts(run.worker)
        ]
        alike = [run for run in earlier if run.leased == (worker.lease is not None)]
        if counts and any(run.attempt == assignment.attempt for run in alike):
            raise Violation(f"invariant 2: attempt {assignment.attempt} of {word} starts twice")
        run = Run(deed, worker, assignment.attempt, self._clock.now)
        run.unheard = self._history.divided()
        deed.runs.append(run)
        self.running[worker.worker_id] = run
        self._check_retries(deed, word)

    def _has_outcome(self, run: Run) -> bool:
        """Whether a run has ended well, and where it ended nothing was lost."""
        known = run.worker.alive or run.worker.orderly
        return (
            run.status == m.FINISHED
            and known
            and self._history.counts(run.worker)
            and not run.unheard
        )

    def _check_retries(self, deed: Deed, word: str) -> None:
        """A task runs at most once more than its retries.

        What a head alone knew is lost with it: exceptions that were retried, and deaths of nodes.
        """
        allowed = deed.template.max_retries
        if 0 <= allowed < len(deed.runs) - 1 - self._forgotten(deed):
            raise Violation(f"invariant 2: {word} runs {len(deed.runs)} times, may {allowed + 1}")

    def _forgotten(self, deed: Deed) -> int:
        """How many runs of a task nobody can know of any more, who would count them."""
        raised = [run for run in deed.runs if run.status == m.FAILED and not self._same_life(run)]
        gone = [run for run in deed.runs if run.unheard or not self._history.counts(run.worker)]
        lost = [run for run in gone if not self._same_life(run)]
        lost = [run for run in lost if run not in raised]
        # A restarted head knows of nodes that it misses: the last attempt may have been theirs.
        void = any(run.began > (self._fenced_at(run.worker) or NEVER) for run in deed.runs)
        restarts = self._history.restarts_since
        missed = any(not restarts(self._fenced_at(run.worker)) for run in lost) and not void
        return len(raised) + len(lost) - missed

    def _fenced_at(self, worker: SimWorker) -> float:
        """When the head has declared a worker's node dead; else the beginning of time."""
        key = worker.raylet.raylet.node_id, worker.incarnation
        return self._history.fenced_at.get(key, 0.0)

    def _same_life(self, run: Run) -> bool:
        return not (run.unheard or self._history.restarts_since(run.began))

    def ended(self, worker: Participant, status: int) -> None:
        """User code of a task has ended."""
        run = self.running.pop(worker.client.process_id, None)
        if run is None:
            return  # it was a constructor
        run.ended = self._clock.now
        run.status = status
        run.unheard |= self._history.divided()

    def died(self, worker: Participant) -> None:
        """A worker process ended, perhaps in the middle of a task."""
        run = self.running.pop(worker.client.process_id, None)
        if run is not None:
            run.ended = self._clock.now
            run.unheard |= self._history.divided()

    def driver_ended(self, driver: Participant) -> None:
        """A driver's process ended."""
        self._clock.tell(f"{driver.name} is gone")

    def program_ended(self, driver: Participant, program: str, error: TaskFailed | None) -> None:
        """A driver's program ended; an error must be one that the faults explain."""
        if error is not None and error.code not in self._history.excuses:
            raise Violation(
                f"{program} of {driver.name} ended with {error}, which no fault explains"
            )

    def observed(self, who: Participant, oid: bytes, outcome: m.Outcome) -> None:
        """A process looked at an object's value.

        What a worker saw whose node was declared dead since is void, as all that came of it.
        """
        if outcome.kind & m.ERROR:
            record = decode_error(outcome.value)
            if record.code in LOSSES:
                return
            self.calls.observed(who.name, oid, record)
            self._check_tries(task_of(oid), record.code)
        if self._is_void(who):
            return
        first, witness = self.seen.setdefault(oid, (outcome.value, who))
        if self._is_void(witness):
            self.seen[oid] = outcome.value, who
        elif first != outcome.value and not self._same_again(oid, first, outcome):
            raise Violation(
                f"invariant 1: {who.name} sees another outcome of {self._object(oid)} than "
                f"{witness.name}: {outcome.value[:80]!r} against {first[:80]!r}"
            )
        if not outcome.kind & m.ERROR and oid in self.expected:
            number = _number_in(outcome.value)
            if number != self.expected[oid]:
                raise Violation(f"{self._object(oid)} is {number}, and not {self.expected[oid]}")

    def _check_tries(self, task_id: bytes, code: str) -> None:
        """A task that fails has been tried as often as its retries say, while no node is lost.

        What is cancelled between two tries ends with the last one's failure.
        """
        deed, history = self.tasks.get(task_id), self._history
        if deed is None or not deed.runs or history.nodes_died or history.fenced_at:
            return
        if deed.was_cancelled():
            return
        last = deed.runs[-1].status
        crashed = code == CRASHED and last is None and deed.runs[-1].ended is not None
        allowed = deed.template.max_retries
        if (crashed or last == m.FAILED) and len(deed.runs) <= allowed:
            raise Violation(
                f"{self.word(task_id)} has failed for good ({code}) after {len(deed.runs)} runs, "
                f"and may run {allowed + 1} times"
            )

    def _same_again(self, oid: bytes, first: bytes, outcome: m.Outcome) -> bool:
        """Whether the object was lost and made again, by whomever: then its number is the same."""
        yielded_again = is_item(oid) and bool(self._history.nodes_died)  # by the next attempt
        rebuilt = yielded_again or origin_of(oid) in self._history.rebuilt
        if not rebuilt or outcome.kind & m.ERROR:
            return False
        return _number_in(first) == _number_in(outcome.value)

    def _is_void(self, who: Participant) -> bool:
        worker = self._workers.get(who.client.process_id)
        return worker is not None and not self._history.counts(worker)

    def _object(self, oid: bytes) -> str:
        return f"{self.word(task_of(oid))}[{int.from_bytes(oid[16:], 'big')}]"


def _number_in(value: bytes) -> int:
    number: int = msgspec.msgpack.decode(value)[0]
    return number
