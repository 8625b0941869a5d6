"""The Raylet machine: pulls tasks from the head, runs them in workers, keeps their results.

The composition: what is made with what, which message goes to which machine (`_head_table`,
`_worker_table`), what a new session is told, and what a turn consists of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from zray import limits
from zray.core.incidents import Incidents
from zray.core.machine import Outbox
from zray.core.raylet.actors import PASSED_ON, HostedActors
from zray.core.raylet.announcement import Announcement
from zray.core.raylet.behind import Behind
from zray.core.raylet.bundles import Bundles
from zray.core.raylet.completions import Completions
from zray.core.raylet.credit import Credit
from zray.core.raylet.dispatch import Dispatch
from zray.core.raylet.draining import Draining
from zray.core.raylet.effects import Effect, FindProcess
from zray.core.raylet.environments import Environments
from zray.core.raylet.failed_runs import FailedRuns
from zray.core.raylet.head_session import HeadHandlers, HeadSession
from zray.core.raylet.inspection import Inspection
from zray.core.raylet.lease_relays import LeaseRelays
from zray.core.raylet.leases import HostedLeases
from zray.core.raylet.lending import Lending
from zray.core.raylet.local_records import PoolKey, WorkerSlot
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.core.raylet.near_tasks import NearTasks
from zray.core.raylet.objects import LocalObjects
from zray.core.raylet.peer_messages import PeerMessages
from zray.core.raylet.peer_transfers import PeerTransfers
from zray.core.raylet.task_reports import TaskReports
from zray.core.raylet.tasks import LocalTasks
from zray.core.raylet.worker_output import WorkerOutput
from zray.core.raylet.worker_requests import REQUESTS, WorkerRequests
from zray.core.raylet.workers import Workers
from zray.errors import ProtocolError
from zray.ids import IdSource
from zray.protocol import messages as m
from zray.protocol.codec import Bad
from zray.protocol.errors import cut_text
from zray.protocol.splitting import JOINED

WorkerHandlers = dict[type[m.Message], Callable[[Any, Any, float], None]]


class Raylet:
    """``incarnation``: 1 at first, one more after each time that it was declared dead."""

    def __init__(
        self,
        node_id: bytes,
        info: m.NodeInfo,
        versions: m.Versions,
        ids: IdSource,
        gpu_count: int,
        incarnation: int = 1,
        imports: Sequence[str] = (),
        import_directory: str = "",
        max_workers: int | None = None,
        incidents: Incidents | None = None,
    ) -> None:
        """``imports``, ``import_directory``: as in SETUP, for its workers. ``incidents``: where
        faults are recorded."""
        self.node_id = node_id
        self.incarnation = incarnation
        self.info = info
        self.versions = versions
        self.stopping = ""
        self.outbox: Outbox[bytes] = Outbox()
        self.effects: list[Effect] = []
        self.take_back: Callable[[bytes], list[m.Tasks]] = lambda worker_id: []  # by the shell
        self._ids = ids
        self._gpu_count = gpu_count
        self._max_workers = max_workers
        self._imports = (list(imports), import_directory)
        self.incidents = incidents or Incidents()
        self.session = HeadSession(self.outbox, self.incidents, self._welcomed, self._start_over)
        self.failed_runs = FailedRuns(info.name, versions, self.session.tell)
        self._reset()

    def _reset(self) -> None:
        """The state of a new incarnation: no task, no object, no worker."""
        tell_head = self.session.tell
        self.objects = LocalObjects(tell_head)
        numbers = count(1)  # of what the head may refuse
        self.worker_requests = WorkerRequests(self.outbox, self.objects, tell_head, numbers)
        total = dict(self.info.resources)
        self.scheduler = LocalScheduler(total, self._gpu_count, self._max_workers)
        self.completions = Completions(tell_head, numbers)
        self.task_reports = TaskReports(
            self.node_id, self.info, lambda: self.session.linked, tell_head
        )
        self.workers = Workers(
            node=self.info.name,
            ids=self._ids,
            outbox=self.outbox,
            scheduler=self.scheduler,
            worker_requests=self.worker_requests,
            effect=self._want,
            setup=self._setup,
            tell_head=tell_head,
            reports=self.task_reports,
        )
        self.output = WorkerOutput(self.info.name, self.session, self.scheduler)
        self.jobs: dict[bytes, m.JobInfo] = {}
        self._make_leases()
        kill = self.workers.kill
        self.actors = HostedActors(self.outbox, self.scheduler, self.completions, tell_head, kill)
        self.peer_transfers = PeerTransfers(self.objects)
        self._lending = self.workers.tracing.lending = Lending()
        self.environments = Environments(
            *(self.info.name, self.objects, self.scheduler, self._lending, self._want, tell_head),
        )
        self.behind = Behind(self.scheduler, self.outbox, lambda one: self.take_back(one))
        self._make_tasks(tell_head)
        self._credit = Credit(
            self.session, self.scheduler, self.behind, self.tasks, self._lending, self.near_tasks
        )
        dispatch = Dispatch(
            *(self.outbox, self.scheduler, self.behind, self.workers),
            *(self.worker_requests, self.worker_failed),
        )
        self.worker_handlers = self._worker_table()
        self.peer_messages = PeerMessages(self.peer_transfers, self.lease_relays)
        self.session.start_over(self._head_table())
        self._steps: tuple[tuple[str, Callable[[float], None]], ...] = (
            ("looking after workers", self.workers.tend),
            ("answering operators", self.inspection.step),
            ("giving back what is not to start", self.draining.step),
            ("building environments", self.environments.step),
            ("starting tasks", dispatch.start),
            ("handing near tasks up", self.near_tasks.step),
            ("telling ends", lambda now: self.completions.flush()),
            ("giving bundles back", self.bundles.step),
            ("relaying what is said under leases", self.lease_relays.step),
            ("lending resources", self._lending.step),
            ("reporting", self._credit.report),
            ("reporting what has ended", self.task_reports.step),
            ("pinging the head", self.session.ping),
        )

    def _make_tasks(self, tell_head: Callable[[m.Message], None]) -> None:
        self.tasks = LocalTasks(
            node=self.info.name,
            outbox=self.outbox,
            incidents=self.incidents,
            objects=self.objects,
            scheduler=self.scheduler,
            behind=self.behind,
            completions=self.completions,
            lending=self._lending,
            environments=self.environments,
            worker_requests=self.worker_requests,
            actors=self.actors,
            tell_head=tell_head,
            kill=self.workers.kill,
            let_go=self.workers.let_go,
            near_ended=lambda task, done, maker: self.near_tasks.ended(task, done, maker),
            near_returned=lambda tasks: self.near_tasks.hand_up(tasks),
            near_withdrawn=lambda task: self.near_tasks.withdrawn(task),
            crashed=lambda task, pid, error: self.failed_runs.crashed(task, pid, error, self.jobs),
            has_group=lambda group_id: self.bundles.has(group_id),
        )
        self.bundles = Bundles(self.scheduler, self.workers.kill, self.tasks.give_back, tell_head)
        self.near_tasks = NearTasks(
            *(self.outbox, self.objects, self.scheduler, self.tasks, self.worker_requests),
            *(self.node_id, tell_head, self.leases.is_of_another, self.task_reports),
            *(self.environments.is_ready,),
        )
        self._announcement = Announcement(
            node_id=self.node_id,
            session=self.session,
            jobs=self.jobs,
            objects=self.objects,
            tasks=self.tasks,
            near_tasks=self.near_tasks,
            worker_requests=self.worker_requests,
            completions=self.completions,
            actors=self.actors,
            leases=self.leases,
            bundles=self.bundles,
        )
        self.draining = Draining(
            *(self.outbox, self.scheduler, self.behind, self.tasks, self.near_tasks),
            *(self.objects, tell_head),
        )
        self.inspection = Inspection(
            *(self.node_id, self.info, self.outbox, self.scheduler, self.tasks.held, self.objects),
            *(self.actors.slot, self._want, self.tasks.on_cancel, self.workers.kill, tell_head),
            self.failed_runs,
        )

    def _want(self, effect: Effect) -> None:
        self.effects.append(effect)

    def _make_leases(self) -> None:
        self.lease_relays = LeaseRelays(
            self.node_id,
            lambda: self.session.cluster_id,
            lambda lease_id: self.leases.held(lease_id),
            self.session.tell,
        )
        self.leases = HostedLeases(
            *(self.node_id, self.info, self.outbox, self.scheduler, self.workers),
            *(self.completions, self.session.tell, self.jobs, self.lease_relays.conclude),
            *(self.task_reports, lambda job_id, name: self.environments.is_ready(job_id, name)),
        )

    # ---- which message goes to which machine -----------------------------------------------

    def _head_table(self) -> HeadHandlers:
        """What the head says within a session; what begins or ends one is the session's."""
        actors, leases, requests = self.actors, self.leases, self.worker_requests
        return {
            **self.tasks.handlers,
            m.Job: lambda msg, now: self.jobs.update({msg.job_id: msg.info}),
            m.JobEnded: self._on_job_ended,
            m.Ack: lambda msg, now: self.completions.acked(msg.upto),
            m.Cancel: self.near_tasks.on_cancel_below,
            m.Crowded: lambda msg, now: self.near_tasks.on_crowded(msg),
            **self.objects.handlers,
            m.PullFrom: self.peer_transfers.on_pull_from,
            m.Result: lambda msg, now: requests.on_result(msg),
            m.Exported: lambda msg, now: requests.definitions.on_exported(msg),
            **dict.fromkeys(m.ANSWERS, lambda msg, now: requests.on_answer(msg)),
            m.ActorState: lambda msg, now: requests.on_actor_state(msg),
            **dict.fromkeys((m.Calls, m.CancelCall), lambda msg, now: actors.on_calls(msg)),
            **dict.fromkeys(PASSED_ON, lambda msg, now: actors.deliver(msg)),
            m.Grant: leases.on_grant,
            m.Revoke: lambda msg, now: leases.on_revoke(msg),
            m.CancelLeased: leases.on_cancel,
            m.Relay: lambda msg, now: self.lease_relays.on_relay_by_head(msg),
            m.Rejected: self._on_rejected,
            m.Pong: self.session.on_pong,
            m.Trace: self.workers.tracing.on_trace,
            **self.inspection.head_handlers,
            m.ListEnvironments: self.environments.on_list,
            **self.draining.handlers,
            m.AskWhy: self._on_ask_why,
            m.Reserve: self.bundles.on_reserve,
            m.Shutdown: self._on_shutdown,
            m.FindDriver: lambda msg, now: self.effects.append(FindProcess(msg.job_id, msg.pid)),
        }

    def _worker_table(self) -> WorkerHandlers:
        """What workers say; as clients of the head they have their raylet speak for them."""
        requests, near = self.worker_requests, self.near_tasks
        definitions = requests.definitions

        def client(method: Callable[[bytes, Any], None]) -> Callable[[Any, Any, float], None]:
            return lambda slot, message, now: method(slot.worker_id, message)

        return {
            m.Done: self.tasks.on_worker_done,
            m.Returned: self.tasks.on_worker_returned,
            m.Blocked: lambda slot, msg, now: self.tasks.on_worker_blocked(slot),
            m.Unblocked: lambda slot, msg, now: self.scheduler.unblock(slot),
            m.Template: self._on_worker_template,
            m.Export: self._on_worker_export,
            m.Forget: client(definitions.on_forget),
            m.Submit: near.on_submit,
            m.Publish: lambda slot, msg, now: near.on_publish(msg),
            m.Hold: client(requests.on_hold),
            m.Drop: self._on_worker_drop,
            m.Watch: client(requests.on_watch),
            m.Put: client(near.on_put),
            m.Pull: client(requests.on_pull),
            m.Cancel: near.on_cancel,
            m.Promise: client(requests.on_promise),
            m.CreateActor: client(requests.on_create_actor),
            m.ActorWatch: client(requests.on_actor_watch),
            **dict.fromkeys(REQUESTS, client(requests.on_request)),
            m.Query: lambda slot, msg, now: near.on_query(slot, msg),
            m.Calls: lambda slot, msg, now: self.actors.on_worker_calls(msg),
            m.CancelCall: lambda slot, msg, now: self.actors.on_worker_calls(msg),
            **dict.fromkeys(PASSED_ON, lambda slot, msg, now: self.actors.pass_on(msg)),
            m.Leased: lambda slot, msg, now: self.leases.on_leased(slot, msg),
            m.Runs: self.leases.on_runs,
            m.LeaseEnded: self.leases.on_ended,
            m.Progress: self.output.on_progress,
            **self.workers.handlers,
            **self.inspection.worker_handlers,
        }

    # ---- the head --------------------------------------------------------------------------

    def hello(self) -> m.Hello:
        """The first message of a new session."""
        return m.Hello(
            *(0, m.PROTOCOL_VERSION, m.ROLE_NODE, self.node_id, self.incarnation),
            *(self.session.cluster_id, self.versions, ["tasks", m.BUNDLES], self.info, None),
            head_id=self.session.head_id,
            minor=m.PROTOCOL_MINOR,
        )

    def _welcomed(self) -> None:
        """A new session is told everything."""
        self.completions.new_session()
        self.tasks.new_session()
        self.near_tasks.new_session()
        self.task_reports.new_session()
        self._credit.new_session()
        for template in self.tasks.templates.values():
            self.session.tell(template.message)
        self._announcement.tell()
        self.worker_requests.resume_requests()
        self.lease_relays.new_session()
        self.objects.new_session()

    def _start_over(self) -> None:
        """This incarnation was declared dead: nothing of it may live on."""
        self.workers.kill_all()
        self.incarnation += 1
        self._reset()

    def _on_rejected(self, message: m.Rejected, now: float) -> None:
        """The head refused what this node, or a worker of it, has said."""
        unwanted = self.completions.refused(message)
        for held in unwanted or ():
            self.actors.discard(held)
        if unwanted is None and not self.worker_requests.refused(message):
            refusal = ProtocolError(f"{message.text} (message {message.about})")
            self.incidents.record("telling the head something", "", refusal, now)

    def _on_ask_why(self, message: m.AskWhy, now: float) -> None:
        from zray.core.raylet.causes import LocalCauses  # loaded when somebody asks

        LocalCauses(
            *(self.info.name, self.tasks, self.near_tasks, self.scheduler, self.actors),
            *(self.leases.worker_of, self.environments, self.session.tell),
        ).on_ask(message, now)

    def _on_shutdown(self, message: m.Shutdown, now: float) -> None:
        self.stopping = message.reason

    def driver_ended(self, job_id: bytes) -> None:
        """The process of that driver has ended, on this machine."""
        self.session.tell(m.DriverEnded(0, job_id))

    def _on_job_ended(self, message: m.JobEnded, now: float) -> None:
        self.jobs.pop(message.job_id, None)
        self.completions.job_ended(message.job_id)
        self.tasks.job_ended(message.job_id)
        self.environments.job_ended(message.job_id)
        self.lease_relays.job_ended(message.job_id)
        self.near_tasks.report.job_ended(message.job_id)
        self.workers.end_job(message.job_id, now)

    # ---- workers ---------------------------------------------------------------------------

    def worker_message(self, worker_id: bytes, message: m.Message, now: float) -> None:
        """One message from a worker; a fault in handling it ends the worker."""
        slot = self.scheduler.workers.get(worker_id)
        handler = self.worker_handlers.get(type(message))
        if slot is not None and handler is not None and not slot.broken:
            try:
                whole = slot.joiner.take(message) if type(message) in JOINED else message
                if whole is not None:
                    handler(slot, whole, now)
            except Exception as error:
                what = f"handling a worker's {type(message).__name__} message"
                self.worker_failed(worker_id, what, error, now)

    def worker_refused(self, worker_id: bytes, refused: Sequence[Bad], now: float) -> None:
        """A worker said what cannot be read: it is told, or ends where nobody could tell whom."""
        for bad in refused:
            error = ProtocolError(bad.text)
            if bad.seq:
                self.incidents.record(
                    "reading a worker's message", self.named(worker_id), error, now
                )
                answer = m.Rejected(0, bad.seq, error.code, bad.text[: limits.TEXT_MAX])
                self.outbox.send(worker_id, answer)
            else:
                self.worker_failed(worker_id, "reading a worker's message", error, now)

    def worker_failed(self, worker_id: bytes, what: str, error: Exception, now: float) -> None:
        """What a worker said could not be dealt with: it ends, and with it whoever waits for it."""
        slot = self.scheduler.workers.get(worker_id)
        said = self.incidents.record(what, self.named(worker_id), error, now)
        if slot is not None:
            slot.broken = True
            self.workers.kill(slot, f"its node failed while {what} ({said})")

    def _on_worker_drop(self, slot: WorkerSlot, message: m.Drop, now: float) -> None:
        known = self.near_tasks.on_drop(slot, message)
        if known:
            self.completions.flush()  # an end that hands the reference on comes first
            self.worker_requests.on_drop(slot.worker_id, m.Drop(0, slot.worker_id, known))

    def _on_worker_export(self, slot: WorkerSlot, message: m.Export, now: float) -> None:
        self.tasks.on_export(m.Export(0, message.function_id, message.name, message.blob))
        self.worker_requests.definitions.on_export(slot.worker_id, message)

    def _on_worker_template(self, slot: WorkerSlot, message: m.Template, now: float) -> None:
        self.tasks.on_template(message)
        self.worker_requests.definitions.on_template(slot.worker_id, message)

    def _setup(self, key: PoolKey) -> m.Setup:
        job = self.jobs[key[0]]
        place = (self.node_id, self.info.name, job.machine == self.info.machine, self.info.machine)
        prepared = self.environments.prepared(key)
        started = (prepared.directory, prepared.paths) if prepared is not None else ()
        return m.Setup(0, key[0], job, *place, *self._imports, *started)

    def worker_exited(self, worker_id: bytes, started: int, cause: str, now: float) -> None:
        """A worker is gone. ``started``: how many tasks it has begun in its life, as its shared
        counter says; ``cause``: exit code or signal, and its last words."""
        self.outbox.discard(worker_id)
        slot = self.scheduler.workers.get(worker_id)
        if slot is None:
            return
        self.output.exited(slot)
        cause = cut_text(cause, limits.CAUSE_BYTES_MAX)
        begun = max(0, started - slot.finished)
        late = self.workers.timeouts.exited(slot)
        self.inspection.exited(slot)
        left = self.scheduler.remove_worker(slot)
        principal = self.worker_requests.principals[worker_id]
        self.worker_requests.dismiss(worker_id)
        self.completions.flush()  # what it handed on comes first
        self.near_tasks.dismissed(principal, now)
        why = self.workers.exited(slot, started, cause, now)
        self.task_reports.exited(slot, begun, cause, why)
        died = f"its worker (pid {slot.pid}, node {self.info.name}) died: {cause}"
        self.actors.exited(slot, f"{died}{why and ': '}{why}")
        self.leases.exited(slot, begun, f"{cause}{why and ': '}{why}", late)
        self.session.tell(m.WorkerDied(0, worker_id))
        self.tasks.worker_died(slot, left, begun, f"{cause}{why and ': '}{why}", late)
        if not (started or why or slot.exiting):
            self.tasks.hopeless(slot.key, self.workers.hopeless(slot.key))

    def named(self, process_id: bytes) -> str:
        """A process of this node's machine, for people."""
        return self.workers.named(process_id, ("a driver", "this node")[process_id == self.node_id])

    def is_leased(self, worker_id: bytes) -> bool:
        """Whether the worker says by itself of what its prints are."""
        slot = self.scheduler.workers.get(worker_id)
        return slot is not None and slot.lease is not None

    # ---- turn ------------------------------------------------------------------------------

    def settle(self, now: float) -> None:
        """End of a turn: start what can start, report what ended, ask for more."""
        for what, step in self._steps:
            try:
                step(now)
            except Exception as error:
                self.incidents.record(what, "", error, now)

    def deadline(self) -> float:
        """When ``settle`` has something to do although nothing arrives."""
        parts = (self.session, self.workers, self._lending, self.behind, self.near_tasks)
        others = (self.inspection, self._credit, self.task_reports, self.environments)
        due = min([part.deadline() for part in (*parts, *others)])
        return min(due, self.scheduler.overrun_deadline(), self.scheduler.bound.lift_deadline())
