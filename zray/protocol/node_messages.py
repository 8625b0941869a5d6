"""The messages of nodes: between a raylet and the head, and between a raylet and its workers."""

from typing import Annotated

from msgspec import Meta

from zray import limits
from zray.protocol.parts import (
    MANY,
    Amounts,
    Assignment,
    BegunTask,
    Count,
    HeldActor,
    HeldLease,
    HeldTask,
    Holds,
    Id,
    Ids,
    JobFloors,
    JobInfo,
    Message,
    Name,
    NearClass,
    NearJob,
    ObjIds,
    Outcome,
    Seq,
    TaskDone,
    Text,
    Timeout,
)

# ---- node verbs: raylet and head ------------------------------------------------------------


class Credit(Message, tag=48):
    """``granted``: tasks the head may have sent in this session, in all.

    ``released``: what tasks that are blocked, or wait long for arguments, let others have, in all,
    less what near tasks have.
    ``floors``: the node has as many workers as it may, and of these jobs only starts what is deep.
    ``ending``: so much of its CPUs have tasks that run long and should end soon.
    """

    granted: Count
    released: Amounts = []
    floors: Annotated[list[JobFloors], Meta(max_length=limits.JOB_FLOORS_MAX)] = []
    ending: Count = 0


class Tasks(Message, tag=49):
    """Tasks to run, and the values of those dependencies that the sender has at hand.

    One task may have any number of these, in one message.
    """

    tasks: Annotated[list[Assignment], MANY]
    values: list[Outcome] = []


class Done(Message, tag=50):
    """Ends of attempts; kept by the raylet and resent until ACK names its ``seq``."""

    tasks: Annotated[list[TaskDone], MANY]


class Ack(Message, tag=51):
    """The head has every DONE up to that ``seq``; none of them is sent again."""

    upto: Seq


class Reclaim(Message, tag=52):
    """Return up to ``count`` tasks of a scheduling class that have not started."""

    resources: Amounts
    count: Count


class Returned(Message, tag=53):
    """Tasks that did not start and that the sender no longer holds (may be none)."""

    task_ids: Ids


class CancelTask(Message, tag=54):
    """Stop this attempt if it is here; ``force``: end the worker that runs it.

    ``recursive``: also the calls of actors that it has made. ``timed_out``: since it has run longer
    than its timeout.
    """

    task_id: Id
    attempt: Count
    force: bool
    recursive: bool = False
    timed_out: bool = False


class Deadline(Message, tag=134):
    """Worker to raylet: the attempt that it begins now is to end within ``timeout_s``.

    ``begun``: how many tasks the worker has begun in its life, with this one. ``retried``: the
    task's retry_exceptions covers that it did not end in time.
    """

    task_id: Id
    attempt: Count
    timeout_s: Timeout
    begun: Count
    retried: bool = False


class Free(Message, tag=55):
    """Nobody holds these objects any more: whoever keeps their values lets them go."""

    object_ids: ObjIds


class Job(Message, tag=56):
    """A job whose tasks may come next; sent once per session before the first of them."""

    job_id: Id
    info: JobInfo


class JobEnded(Message, tag=57):
    """Stop all of the job and end its workers."""

    job_id: Id


class WorkerDied(Message, tag=58):
    """Raylet to head: the worker has ended, and holds nothing any more."""

    worker_id: Id


class Announce(Message, tag=59):
    """A raylet's full state in a new session: what it runs, has and holds, and its jobs.

    Before it come the specs its workers have submitted, after it the ends of tasks that the head
    has not acknowledged. ``holds`` lists every living worker; ``failed`` tasks whose worker
    crashed here, so that a new head knows how many retries are left. ``more``: a part of it.
    """

    tasks: Annotated[list[HeldTask], MANY]
    objects: Annotated[list[Outcome], MANY]
    holds: Annotated[list[Holds], MANY]
    jobs: Annotated[list[Id], MANY] = []
    failed: Annotated[list[HeldTask], MANY] = []
    actors: Annotated[list[HeldActor], MANY] = []
    more: bool = False
    leases: Annotated[list[HeldLease], MANY] = []


class Discard(Message, tag=60):
    """Answer to ANNOUNCE: tasks that are no longer the raylet's; stop or forget them."""

    tasks: Annotated[list[HeldTask], MANY]


class Have(Message, tag=61):
    """The raylet now has a copy of these objects."""

    object_ids: ObjIds


class Shutdown(Message, tag=62):
    """The whole cluster stops."""

    reason: Text


class FindDriver(Message, tag=63):
    """Does the driver's process still run, on the machine of this raylet? If not: DRIVER_ENDED."""

    job_id: Id
    pid: Count


class DriverEnded(Message, tag=77):
    """The process of the driver of this job has ended."""

    job_id: Id


# ---- near tasks: submitted by a worker and run on its node without the head --------------------


class Begun(Message, tag=130):
    """Near tasks that run, and are near no more: others may hear of their results.

    As SUBMIT, and the sender has them.
    """

    job_id: Id
    submitter: Id
    tasks: Annotated[list[BegunTask], MANY]


class Near(Message, tag=131):
    """What near tasks a node has: ``jobs`` whose figures have changed, all ``classes`` that wait.

    In absolute figures.
    """

    jobs: Annotated[list[NearJob], MANY]
    classes: list[NearClass] = []


class Crowded(Message, tag=132):
    """Head to raylet: whether tasks of other jobs wait for what near tasks have.

    If so, what workers submit goes to the head.
    """

    others_wait: bool


class Publish(Message, tag=133):
    """Worker to raylet: references to these results of its tasks leave the process."""

    object_ids: ObjIds


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
    *(
        Announce,
        Discard,
        Have,
        Shutdown,
        FindDriver,
        DriverEnded,
        Setup,
        Recall,
        Blocked,
        Unblocked,
        Deadline,
        Exit,
    ),
    *(Begun, Near, Crowded, Publish),
)
