"""What a head knows, and what leaves it: its tables use each other, and no machine above them."""

from __future__ import annotations

from zray.core.head import stored_version
from zray.core.head.actor_records import TABLE as ACTORS
from zray.core.head.actor_table import ActorTable
from zray.core.head.catalog import Catalog
from zray.core.head.control_store import ControlStore
from zray.core.head.events import Events
from zray.core.head.identity import HeadIdentity
from zray.core.head.job_table import TABLE as JOBS
from zray.core.head.job_table import JobTable
from zray.core.head.journal import Journal
from zray.core.head.lease_table import LeaseTable
from zray.core.head.members import Members
from zray.core.head.near_tasks import NearTasks
from zray.core.head.notices import Notices
from zray.core.head.object_table import ObjectTable
from zray.core.head.placement_table import PlacementTable
from zray.core.head.processes import Processes
from zray.core.head.recovery import Recovery
from zray.core.head.succession import Succession
from zray.core.head.task_scheduler import TaskScheduler
from zray.core.machine import Outbox
from zray.core.offers import Offers
from zray.core.prints import Prints


class Tables:
    """``rows``: of the store, by table."""

    def __init__(
        self, identity: HeadIdentity, rows: dict[str, dict[bytes, bytes]], now: float
    ) -> None:
        self.epoch = identity.epoch
        self.outbox: Outbox[bytes] = Outbox()  # by process id
        self.routed: Outbox[bytes] = Outbox()  # by route
        self.journal = Journal()
        stored_version.note(rows, self.journal)
        self.store = ControlStore(identity.epoch)
        self.notices = Notices()
        self.prints = Prints()
        self.offers = Offers()
        self.members = Members(rows, now)
        self.catalog = Catalog(rows, self.journal.persist, self.outbox)
        self.scheduler = TaskScheduler()
        self.objects = ObjectTable()
        self.actor_table = ActorTable()
        self.lease_table = LeaseTable()
        self.placement = PlacementTable()
        self.job_table = JobTable(rows.get(JOBS, {}))
        counted = ("finished", "retried", "stale", "lost", "rebuilt", "reclaimed")
        self.counters = dict.fromkeys((*counted, "submitted", "resubmitted"), 0)
        self.events = Events(identity.started_s, now, self.notices)
        self.succession = Succession(
            *(self.outbox, self.journal.persist, self.store, self.events, self.notices),
        )
        self.near_tasks = NearTasks(
            *(self.outbox, self.counters, self.members, self.scheduler, self.lease_table)
        )
        restarted = bool(rows.get(ACTORS))
        self.recovery = Recovery(self.objects, self.members, restarted=restarted)
        self.processes = Processes(self.members, self.outbox, self.recovery)
