"""The messages about submitted jobs: shell commands that a cluster runs, whoever submitted them.

SUBMIT_JOB is in `messages`. An observer submits, stops, deletes and asks, and the head answers. The
command is a child of the job's supervisor, a detached actor, whose worker tells how it has ended.
"""

from typing import Annotated

from msgspec import Meta, Struct

from zray import limits
from zray.protocol.parts import Count, Id, IdOrNone, Message, Name, Seq, Text

# SubmittedJob.status
JOB_PENDING = "PENDING"
JOB_RUNNING = "RUNNING"
JOB_STOPPED = "STOPPED"
JOB_SUCCEEDED = "SUCCEEDED"
JOB_FAILED = "FAILED"
JOB_ENDS = frozenset({JOB_STOPPED, JOB_SUCCEEDED, JOB_FAILED})

NO_EXIT_CODE = -1000  # of a command that has not ended, or whose end nobody has seen

SubmissionId = Annotated[str, Meta(min_length=1, max_length=limits.SUBMISSION_ID_MAX)]
Metadata = Annotated[list[tuple[Name, Text]], Meta(max_length=limits.JOB_METADATA_MAX)]
ExitCode = Annotated[int, Meta(ge=NO_EXIT_CODE, le=255)]  # below 0: of a signal


class SubmittedJob(Struct, array_like=True, frozen=True):
    """One submitted job. Times in milliseconds since 1970; 0: not yet.

    ``actor_id``: of its supervisor; ``node_id``, ``worker_id``: where that is or was, empty while
    it is nowhere. ``error``: of Ray's error types, or empty. ``driver_id``: the job of the last
    driver that its command has connected, with its host and pid. ``runtime_env``: JSON.
    ``stopping``: somebody wants it to end.
    """

    submission_id: SubmissionId
    status: Name
    entrypoint: Text
    actor_id: Id
    message: Text = ""
    error: Name = ""
    started_ms: Count = 0
    ended_ms: Count = 0
    metadata: Metadata = []
    runtime_env: Text = ""
    node_id: IdOrNone = b""
    worker_id: IdOrNone = b""
    exit_code: ExitCode = NO_EXIT_CODE
    driver_id: IdOrNone = b""
    driver_host: Name = ""
    driver_pid: Count = 0
    stopping: bool = False


class EndJob(Message, tag=238):
    """Stop a job, or with ``delete`` forget one that has ended. ``word``: as in ASK_JOBS."""

    word: Name
    delete: bool = False


class JobAnswered(Message, tag=239):
    """The answer to SUBMIT_JOB and END_JOB, once it is durable. ``code``: of an error.

    ``done``: the job was submitted, was running and is stopped, or is deleted.
    """

    about: Seq
    done: bool
    code: Name = ""
    text: Text = ""


class AskJobs(Message, tag=240):
    """Which jobs are there? Answered with JOBS_TOLD.

    ``word``: a submission id, or the id of the job of one's driver in hex digits; empty: all, in
    the order in which they were submitted, those behind ``after`` (0: the first).
    """

    word: Name = ""
    after: Count = 0


class JobsTold(Message, tag=241):
    """Some jobs. ``after``: what to ask with for those that follow; 0: these were the last."""

    about: Seq
    jobs: Annotated[list[SubmittedJob], Meta(max_length=limits.JOBS_TOLD_MAX)]
    after: Count = 0


class JobExited(Message, tag=242):
    """Supervisor's worker to head: its command has ended; once durable, answered with SYNCED.

    ``exit_code`` NO_EXIT_CODE: it could not be started, as ``text`` says. ``text`` is else the end
    of what it has printed, if it has failed.
    """

    actor_id: Id
    worker_id: Id
    exit_code: ExitCode
    text: Text = ""


JOB_MESSAGES: tuple[type[Message], ...] = (EndJob, JobAnswered, AskJobs, JobsTold, JobExited)
