"""A raylet's full state as it tells a new session of the head's: ANNOUNCE, and what goes along."""

from __future__ import annotations

from zray.core.raylet.actors import HostedActors
from zray.core.raylet.bundles import Bundles
from zray.core.raylet.completions import Completions, held_task
from zray.core.raylet.head_session import HeadSession
from zray.core.raylet.leases import HostedLeases
from zray.core.raylet.near_tasks import NearTasks
from zray.core.raylet.objects import LocalObjects
from zray.core.raylet.tasks import LocalTasks
from zray.core.raylet.worker_requests import WorkerRequests
from zray.protocol import messages as m


class Announcement:
    """Of one incarnation of the raylet. ``jobs``: those that it has heard of."""

    def __init__(
        self,
        *,
        node_id: bytes,
        session: HeadSession,
        jobs: dict[bytes, m.JobInfo],
        objects: LocalObjects,
        tasks: LocalTasks,
        near_tasks: NearTasks,
        worker_requests: WorkerRequests,
        completions: Completions,
        actors: HostedActors,
        leases: HostedLeases,
        bundles: Bundles,
    ) -> None:
        self._node_id = node_id
        self._session = session
        self._jobs = jobs
        self._objects = objects
        self._tasks = tasks
        self._near_tasks = near_tasks
        self._worker_requests = worker_requests
        self._completions = completions
        self._actors = actors
        self._leases = leases
        self._bundles = bundles
        self._held_in_transit = False  # this node has held what ends that were told referred to

    def tell(self) -> None:
        """What workers have submitted, then the full state."""
        mine = [task for task in self._tasks.held.values() if task.near is None]
        held = [held_task(task.assignment) for task in mine] + self._completions.held()
        self._worker_requests.resume({task.task_id: task.attempt for task in held})
        self._announce(held)

    def _announce(self, held: list[m.HeldTask]) -> None:
        """``held``: the head's tasks that are here, or have ended and may not be known to have.

        The ends of tasks that the head may not know of follow. Until it has taken those, this node
        holds what they refer to: their workers may have dropped it since.
        """
        completions, near_results = self._completions, self._near_tasks.results
        holds = self._worker_requests.holds()
        in_transit = completions.renew(self._worker_requests.still_borrowed)
        pins: dict[bytes, None] = dict.fromkeys(near_results.pins)
        if in_transit or pins:
            holds.append(m.Holds(self._node_id, b"".join(in_transit | pins)))
        objects, failed = self._objects.announced(), completions.failed()
        actors = self._actors.announced() + completions.held_actors()
        leases = self._leases.announced() + completions.held_leases()
        told = m.Announce(0, held, objects, holds, list(self._jobs), failed, actors, leases=leases)
        told.bundles = self._bundles.announced()
        self._session.tell(told)
        completions.tell_again()
        self._held_in_transit = self._held_in_transit or bool(in_transit)
        if self._held_in_transit or near_results.ever_pinned:  # a former DROP may be lost
            self._session.tell(m.Hold(0, self._node_id, b"".join(pins), True))
