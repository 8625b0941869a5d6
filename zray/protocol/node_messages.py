"""The messages of nodes: between a raylet and the head, and between a raylet and its workers."""

from zray.protocol.parts import (
    Amounts,
    Assignment,
    Count,
    HeldActor,
    HeldTask,
    Holds,
    Id,
    JobInfo,
    Message,
    Name,
    Outcome,
    Seq,
    TaskDone,
    Text,
)

# ---- node verbs: raylet and head ------------------------------------------------------------


class Credit(Message, tag=48):
    """``granted``: tasks the head may have sent in this session, in all.

    ``released``: what tasks that are blocked, or wait long for arguments, let others have, in all.
    """

    granted: Count
    released: Amounts = []


class Tasks(Message, tag=49):
    """Tasks to run, and the values of those dependencies that the sender has at hand."""

    tasks: list[Assignment]
    values: list[Outcome] = []


class Done(Message, tag=50):
    """Ends of attempts; kept by the raylet and resent until ACK names its ``seq``."""

    tasks: list[TaskDone]


class Ack(Message, tag=51):
    upto: Seq


class Reclaim(Message, tag=52):
    """Return up to ``count`` tasks of a scheduling class that have not started."""

    resources: Amounts
    count: Count


class Returned(Message, tag=53):
    """Tasks that did not start and that the sender no longer holds (may be none)."""

    task_ids: bytes


class CancelTask(Message, tag=54):
    task_id: Id
    attempt: Count
    force: bool


class Free(Message, tag=55):
    """Nobody holds these objects any more: whoever keeps their values lets them go."""

    object_ids: bytes


class Job(Message, tag=56):
    job_id: Id
    info: JobInfo


class JobEnded(Message, tag=57):
    job_id: Id


class WorkerDied(Message, tag=58):
    worker_id: Id


class Announce(Message, tag=59):
    """A raylet's full state in a new session: what it runs, has and holds, and its jobs.

    Before it come the specs its workers have submitted, after it the ends of tasks that the head
    has not acknowledged. ``holds`` lists every living worker; ``failed`` tasks whose worker
    crashed here, so that a new head knows how many retries are left.
    """

    tasks: list[HeldTask]
    objects: list[Outcome]
    holds: list[Holds]
    jobs: list[Id] = []
    failed: list[HeldTask] = []
    actors: list[HeldActor] = []


class Discard(Message, tag=60):
    """Answer to ANNOUNCE: tasks that are no longer the raylet's; stop or forget them."""

    tasks: list[HeldTask]


class Have(Message, tag=61):
    """The raylet now has a copy of these objects."""

    object_ids: bytes


class Shutdown(Message, tag=62):
    """The whole cluster stops."""

    reason: Text


# ---- worker verbs: raylet and worker on one machine ------------------------------------------


class Setup(Message, tag=80):
    """First message to a worker: the job it serves from now on."""

    job_id: Id
    job: JobInfo
    node_id: Id
    node_name: Name
    local: bool  # the driver's files are on this machine
    machine: Name = ""  # the node's, as in NodeInfo
    imports: list[Name] = []  # modules that offer functions and classes by name
    import_directory: Text = ""  # where they are looked for first; empty: nowhere else


class Recall(Message, tag=81):
    """Give back every task that has not started, with RETURNED."""


class Blocked(Message, tag=82):
    """The running task waits for objects; its CPU may be used by others."""


class Unblocked(Message, tag=83):
    """The running task goes on."""


class Exit(Message, tag=84):
    """End when the running task has ended."""


NODE_MESSAGES: tuple[type[Message], ...] = (
    *(Credit, Tasks, Done, Ack, Reclaim, Returned, CancelTask, Free, Job, JobEnded, WorkerDied),
    *(Announce, Discard, Have, Shutdown, Setup, Recall, Blocked, Unblocked, Exit),
)
