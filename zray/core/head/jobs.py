"""Submitted jobs: a shell command each, run by a supervisor, which is a detached actor.

What becomes of a job is what becomes of its supervisor, and what that tells of the command; so no
job is RUNNING whose supervisor is dead. Whoever submitted it is not needed for anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from zray import limits
from zray.core import failures
from zray.core.deadlines import Deadlines
from zray.core.head.actor_records import ActorRecord
from zray.core.head.actors import Actors
from zray.core.head.definitions import Definitions
from zray.core.head.departures import Departures
from zray.core.head.incarnations import Incarnations
from zray.core.head.job_table import TABLE, JobRecord
from zray.core.head.members import JobMember, Member, NodeMember
from zray.core.head.membership import Membership
from zray.core.head.tables import Tables
from zray.errors import (
    BusyError,
    JobExistsError,
    JobNotFoundError,
    JobSubmissionError,
    RuntimeEnvSetupError,
    ZrayError,
)
from zray.protocol import messages as m

# As Ray names what has gone wrong.
ENVIRONMENT_FAILED = "RUNTIME_ENV_SETUP_FAILURE"
NOT_STARTED = "JOB_SUPERVISOR_ACTOR_START_FAILURE"
SUPERVISOR_DIED = "JOB_SUPERVISOR_ACTOR_DIED"
COMMAND_NOT_STARTED = "JOB_ENTRYPOINT_COMMAND_START_ERROR"
COMMAND_FAILED = "JOB_ENTRYPOINT_COMMAND_ERROR"

STOPPED = "Job was intentionally stopped."
WAITS_FOR_IT = "the job was stopped"


class Jobs:
    """Of a head, which has made its actors. ``incarnations``, ``membership`` and ``departures``
    tell it what becomes of supervisors and drivers.

    Attributes:
        why_pending: what a supervisor waits for that does not live yet.
    """

    def __init__(
        self,
        tables: Tables,
        definitions: Definitions,
        actors: Actors,
        incarnations: Incarnations,
        membership: Membership,
        departures: Departures,
        now: float,
    ) -> None:
        self._outbox = tables.outbox
        self._persist = tables.journal.persist
        self._events = tables.events
        self._table = tables.job_table
        self._records = tables.actor_table
        self._definitions = definitions
        self._actors = actors
        self._incarnations = incarnations
        incarnations.lives, incarnations.died = self.supervisor_lives, self.supervisor_died
        membership.driver_joined = self.driver_joined
        departures.how_ended = self.how_ended
        self.why_pending: Callable[[bytes], str] = lambda actor_id: ""
        self._ends = Deadlines()  # supervisors that are to have ended by then
        self.handlers: dict[type[m.Message], Callable[[Any, Any, float], None]] = {
            m.SubmitJob: self.on_submit,
            m.EndJob: self.on_end,
            m.AskJobs: self.on_ask,
            m.JobExited: self.on_exited,
        }
        for record in self._table.unfinished():
            self._resume(record, now)

    def _resume(self, record: JobRecord, now: float) -> None:
        """Its supervisor has been there before the head's restart, or was about to be made."""
        actor = self._records.get(record.row.actor_id)
        if actor is None:
            text = "the head was restarted, and the supervisor of the job is not there any more"
            self._fail(record, SUPERVISOR_DIED, text)
        elif record.row.stopping:
            self._end_supervisor(record, now)

    # ---- submission ------------------------------------------------------------------------

    def on_submit(self, sender: Member, message: m.SubmitJob, now: float) -> None:
        """Make a job and its supervisor; the same again is answered as it was."""
        known = self._table.get(message.submission_id)
        if known is not None and known.row.actor_id == message.task.task_id:
            self._when_told(known, sender, m.JobAnswered(0, message.seq, True))
            return
        objection = self._objection(message, known)
        if objection is not None:
            self._refuse(sender, message, objection)
            return
        row = m.SubmittedJob(
            *(message.submission_id, m.JOB_PENDING, message.entrypoint, message.task.task_id),
            started_ms=int(self._events.day_time(now) * 1000),
            metadata=message.metadata,
            runtime_env=message.runtime_env,
        )
        record = self._table.add(row)
        self._when_told(record, sender, m.JobAnswered(0, message.seq, True))
        self._store(record)
        self._definitions.on_export(sender, message.function, now)
        template = self._definitions.take(message.template)
        replace = msgspec.structs.replace
        info = replace(message.actor, name="", detached=True, max_restarts=0)
        job = replace(
            message.job, submission_id=message.submission_id, entrypoint=message.entrypoint
        )
        self._actors.make_unowned(message.task, info, template, job, now)

    def _objection(self, message: m.SubmitJob, known: JobRecord | None) -> ZrayError | None:
        if known is not None:
            return JobExistsError(
                f"Job with submission_id {message.submission_id} already exists. Please use a "
                "different submission_id."
            )
        if self._table.living >= limits.JOBS_LIVE_MAX:
            return BusyError(
                f"{limits.JOBS_LIVE_MAX:,} submitted jobs have not ended; submit more as they end, "
                "or stop some: see zray job list"
            )
        chars = sum(len(name) + len(value) for name, value in message.metadata)
        if chars > limits.JOB_METADATA_CHARS_MAX:
            return JobSubmissionError(
                f"the metadata of a job has at most {limits.JOB_METADATA_CHARS_MAX:,} characters, "
                f"got {chars:,}"
            )
        if len(message.entrypoint) > limits.JOB_ENTRYPOINT_MAX:
            return JobSubmissionError(
                f"the entrypoint has at most {limits.JOB_ENTRYPOINT_MAX:,} characters, got "
                f"{len(message.entrypoint):,}; put it into a script"
            )
        names = (message.template.template_id, message.template.function_id)
        if names != (message.task.template_id, message.function.function_id):
            return JobSubmissionError("the job's supervisor is not made of what is sent with it")
        if not self._actors.is_free(message.task.task_id):
            return JobSubmissionError("the job's id is that of a task, an actor or a process")
        return None

    def _refuse(self, sender: Member, message: m.Message, error: ZrayError) -> None:
        answer = m.JobAnswered(0, message.seq, False, error.code, str(error))
        self._outbox.send(sender.process_id, answer)

    def _when_told(self, record: JobRecord, sender: Member, answer: m.JobAnswered) -> None:
        """Nobody hears of a job before it is durable."""

        def send() -> None:
            self._outbox.send(sender.process_id, answer)

        if record.told is not None:
            send()
        else:
            record.until_told.append(send)

    def _store(self, record: JobRecord, then: Callable[[], None] = lambda: None) -> None:
        row = record.row

        def durable(_now: float) -> None:
            record.told = row
            waiting, record.until_told = record.until_told, []
            for answer in waiting:
                answer()
            then()

        self._persist([record.encoded()], durable)

    def _change(self, record: JobRecord, **fields: Any) -> None:
        record.row = msgspec.structs.replace(record.row, **fields)

    # ---- what becomes of one ---------------------------------------------------------------

    def supervisor_lives(self, actor: ActorRecord) -> None:
        """Its constructor has returned: the command runs, or has ended already."""
        record = self._table.of_actor(actor.actor_id)
        if record is None or record.row.worker_id == actor.worker_id:
            return
        self._change(record, node_id=actor.node_id, worker_id=actor.worker_id)
        if record.row.status == m.JOB_PENDING:
            self._change(record, status=m.JOB_RUNNING)
        self._store(record)

    def supervisor_died(self, actor: ActorRecord, why: str) -> None:
        """That is the end of its job, if the job has not ended before."""
        self._ends.drop(actor.actor_id)
        record = self._table.of_actor(actor.actor_id)
        if record is None or record.ended:
            return
        if record.row.stopping:
            self._finish(record, m.JOB_STOPPED, message=STOPPED)
            return
        if record.row.status == m.JOB_RUNNING:
            self._fail(record, SUPERVISOR_DIED, f"the supervisor of the job has ended: {why}")
            return
        error = NOT_STARTED
        if actor.error:
            raised = failures.read(actor.error)
            why = raised.traceback or raised.message
            if raised.code == RuntimeEnvSetupError.code:
                error = ENVIRONMENT_FAILED
        self._fail(record, error, f"the job could not be started: {why}")

    def on_exited(self, node: NodeMember, message: m.JobExited, now: float) -> None:
        """A command has ended, and what it has started with it."""
        record = self._table.of_actor(message.actor_id)
        actor = self._records.get(message.actor_id)
        elsewhere = actor is not None and actor.node_id not in (b"", node.process_id)
        if record is not None and not record.ended and not elsewhere:
            self._change(record, node_id=node.process_id, worker_id=message.worker_id)
            self._command_ended(record, message.exit_code, message.text)
        synced = m.Synced(0, message.seq)
        self._persist([], lambda _now: self._outbox.send(node.process_id, synced))

    def _command_ended(self, record: JobRecord, code: int, text: str) -> None:
        if code == m.NO_EXIT_CODE:
            self._fail(record, COMMAND_NOT_STARTED, text)
            return
        self._change(record, exit_code=code)
        if record.row.stopping:
            self._finish(record, m.JOB_STOPPED, message=STOPPED)
        elif code == 0:
            self._finish(record, m.JOB_SUCCEEDED, message="Job finished successfully.")
        else:
            said = f"Job entrypoint command failed with exit code {code}"
            last = f"{said}, last available logs (truncated to 20,000 chars):\n{text}"
            self._fail(record, COMMAND_FAILED, last if text else f"{said}. No logs available.")

    def _fail(self, record: JobRecord, error: str, text: str) -> None:
        self._finish(record, m.JOB_FAILED, error=error, message=text[: limits.TEXT_MAX])

    def _finish(self, record: JobRecord, status: str, **fields: Any) -> None:
        ended_ms = int(self._events.now_s() * 1000)
        ended_ms = max(record.row.started_ms, ended_ms)
        self._change(record, status=status, ended_ms=ended_ms, **fields)
        self._store(record)
        self._table.note_end(record)
        for one in self._table.surplus():
            self._forget(one)

    def _forget(self, record: JobRecord) -> None:
        self._persist(
            [(TABLE, record.submission_id.encode(), None)],
            lambda _now: None,
        )
        self._table.remove(record)

    def driver_joined(self, driver: JobMember) -> None:
        """A program has connected, perhaps one that a job's command has started."""
        info = driver.info
        record = self._table.get(info.submission_id) if info.submission_id else None
        if record is None or record.ended:
            return
        told = {"driver_host": info.host, "driver_pid": info.pid}
        self._change(record, driver_id=driver.process_id, **told)
        self._table.note_driver(record)
        self._store(record)

    # ---- ends ------------------------------------------------------------------------------

    def on_end(self, sender: Member, message: m.EndJob, now: float) -> None:
        """Stop a job, or forget one that has ended."""
        record = self._table.find(message.word)
        if record is None or record.told is None:
            text = f"Job {message.word} does not exist; zray job list shows which there are"
            self._refuse(sender, message, JobNotFoundError(text))
        elif message.delete:
            self._delete(sender, message, record)
        else:
            self._stop(sender, message, record, now)

    def _delete(self, sender: Member, message: m.EndJob, record: JobRecord) -> None:
        if not record.ended:
            text = (
                f"Attempted to delete job '{record.submission_id}', but it is in a non-terminal "
                f"state {record.row.status}; stop it first"
            )
            self._refuse(sender, message, JobSubmissionError(text))
            return

        def durable(_now: float) -> None:
            self._table.remove(record)
            self._outbox.send(sender.process_id, m.JobAnswered(0, message.seq, True))

        self._persist([(TABLE, record.submission_id.encode(), None)], durable)

    def _stop(self, sender: Member, message: m.EndJob, record: JobRecord, now: float) -> None:
        answer = m.JobAnswered(0, message.seq, not record.ended)
        if record.ended or record.row.stopping:
            self._persist([], lambda _now: self._outbox.send(sender.process_id, answer))
            return
        self._change(record, stopping=True)

        def durable() -> None:
            self._outbox.send(sender.process_id, answer)
            if not record.ended:
                self._end_supervisor(record, now)

        self._store(record, durable)

    def _end_supervisor(self, record: JobRecord, now: float) -> None:
        """One that lives ends its command first, which takes a moment."""
        actor = self._records.get(record.row.actor_id)
        if actor is None:
            return
        if actor.state != m.ACTOR_ALIVE:
            self._incarnations.end(actor, WAITS_FOR_IT)
            return
        actor.kill_text, actor.kill_gracefully = WAITS_FOR_IT, True
        self._incarnations.end_process(actor)
        self._ends.put(actor.actor_id, now + limits.JOB_STOP_MAX_S)

    # ---- questions -------------------------------------------------------------------------

    def on_ask(self, sender: Member, message: m.AskJobs, now: float) -> None:
        """Which jobs there are, a bounded part of them at a time."""
        if message.word:
            record = self._table.find(message.word)
            rows, after = [*self._one(record)], 0
        else:
            rows, after = self._table.page(message.after)
        self._outbox.send(sender.process_id, m.JobsTold(0, message.seq, rows, after))

    def _one(self, record: JobRecord | None) -> Iterator[m.SubmittedJob]:
        """With what it waits for, which only those are told who ask for this one."""
        if record is None or record.told is None:
            return
        row = record.told
        waits = row.status == m.JOB_PENDING and self.why_pending(row.actor_id)
        yield msgspec.structs.replace(row, message=waits) if waits else row

    def how_ended(self, job: JobMember) -> tuple[str, str]:
        """Status and reason of a job that is over: a driver's, or that of a supervisor."""
        record = self._table.of_actor(job.process_id)
        if record is None:
            return ("SUCCEEDED", "")
        return (record.row.status, record.row.message)

    # ---- turn ------------------------------------------------------------------------------

    def step(self, now: float) -> None:
        """Supervisors that do not end by themselves are killed."""
        for actor_id in self._ends.due(now):
            actor = self._records.get(actor_id)
            if actor is not None and actor.state == m.ACTOR_ALIVE:
                actor.kill_gracefully = False
                self._incarnations.end_process(actor)

    def deadline(self) -> float:
        """When ``step`` has something to do."""
        return self._ends.soonest()
