"""What a turn of the head consists of, and when the next one is due although nothing arrives.

A shell hands in all that has come, and then has a turn: what is to be done is done once for all of
it. Each step is on its own: one that fails is recorded, and the rest goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from zray.core.head.acknowledgements import Acknowledgements
from zray.core.head.actor_directory import ActorDirectory
from zray.core.head.definitions import Definitions
from zray.core.head.departures import Departures
from zray.core.head.dispatch import Dispatch
from zray.core.head.drains import Drains
from zray.core.head.garbage_collector import GarbageCollector
from zray.core.head.holders import Holders
from zray.core.head.incarnations import Incarnations
from zray.core.head.jobs import Jobs
from zray.core.head.journal import Journal
from zray.core.head.leases import Leases
from zray.core.head.listings import Listings
from zray.core.head.membership import Membership
from zray.core.head.near_tasks import NearTasks
from zray.core.head.placement_groups import PlacementGroups
from zray.core.head.questions import Questions
from zray.core.head.results import Results
from zray.core.head.resumption import Resumption
from zray.core.head.sessions import Sessions
from zray.core.head.task_scheduler import TaskScheduler
from zray.core.incidents import Incidents

T = TypeVar("T")
CHECK_S = 1.0


class Turn:
    """``now``: when the head starts."""

    def __init__(
        self,
        *,
        journal: Journal,
        incidents: Incidents,
        sessions: Sessions,
        membership: Membership,
        drains: Drains,
        departures: Departures,
        resumption: Resumption,
        holders: Holders,
        incarnations: Incarnations,
        directory: ActorDirectory,
        scheduler: TaskScheduler,
        dispatch: Dispatch,
        leases: Leases,
        placement_groups: PlacementGroups,
        near_tasks: NearTasks,
        results: Results,
        garbage: GarbageCollector,
        definitions: Definitions,
        acknowledgements: Acknowledgements,
        listings: Listings,
        questions: Questions,
        jobs: Jobs,
        now: float,
    ) -> None:
        self._journal = journal
        self._incidents = incidents
        self._sessions = sessions
        self._membership = membership
        self._placement_groups = placement_groups
        self._departures = departures
        self._incarnations = incarnations
        self.now, self._next_check = now, now + CHECK_S  # the former of the last turn
        self._steps: tuple[tuple[str, Callable[[float], None]], ...] = (
            ("recovering", resumption.step),
            ("forgetting unknown objects", holders.forget_unknown),
            ("starting actors", incarnations.step),
            ("telling of actors that nobody made", directory.step),
            ("ending supervisors of jobs", jobs.step),
            ("emptying nodes", drains.step),
            ("taking turns", leases.take_turns),
            ("placing groups", placement_groups.step),
            ("scheduling", dispatch.assign),
            ("granting leases", leases.step),
            ("looking who waits for near tasks", near_tasks.step),
            ("reclaiming tasks", dispatch.reclaim),
            ("telling outcomes", results.flush),
            ("freeing objects", garbage.collect),
            ("forgetting functions", definitions.settle),
            ("listing", listings.step),
            ("answering why", questions.step),
            ("acknowledging", acknowledgements.send),
        )
        self._deadlines: tuple[Callable[[], float], ...] = (
            *(scheduler.steal_deadline, placement_groups.deadline, jobs.deadline, drains.deadline),
            *(holders.deadline, directory.deadline, leases.deadline, acknowledgements.deadline),
            *(near_tasks.deadline, listings.deadline, questions.deadline, incarnations.deadline),
        )

    def committed(self, number: int, now: float) -> None:
        """An entry of the journal is durable."""
        then = self._journal.stored(number)
        self.attempt("going on after a commit", "", lambda: then(now))

    def attempt(self, what: str, whom: str, action: Callable[[], T]) -> T | None:
        """Do a part of the work of many; if it fails, that is recorded, and the rest goes on."""
        try:
            return action()
        except Exception as error:
            self._incidents.record(what, whom, error, self.now)
            return None

    def settle(self, now: float) -> None:
        """Decide everything, then hand messages over from process to route."""
        self.now = now
        if now >= self._next_check:
            self._next_check = now + CHECK_S
            self.attempt("looking who is alive", "", partial(self._membership.check, now))
            self.attempt("looking at groups", "", self._placement_groups.check)
            self.attempt("ending dead sessions", "", self._sessions.drop_dead)
        if now >= self._membership.look_at:
            look = partial(self._membership.look_for_drivers, now)
            self.attempt("looking for drivers", "", look)
        for what, step in self._steps:
            try:
                step(now)
            except Exception as error:
                self._incidents.record(what, "", error, now)
        while self._incarnations.jobs_over:
            job_id = self._incarnations.jobs_over.pop()
            end = partial(self._departures.detached_ended, job_id)
            self.attempt("ending a job", f"job {job_id.hex()}", end)
        self._sessions.hand_over()

    def deadline(self) -> float:
        """When ``settle`` has something to do although nothing arrives."""
        soonest = min([deadline() for deadline in self._deadlines])
        return min(soonest, self._next_check, self._membership.look_at)
