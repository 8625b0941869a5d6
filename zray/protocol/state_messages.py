"""The messages about the cluster's state: what there is, what has happened, and who asks for it.

A question is about one kind of things. Rows carry what Ray's state API has of such a thing, under
its names; states and types are Ray's words. Times are in seconds since 1970, and 0 where they are
not known.
"""

from typing import Annotated

from msgspec import Meta, Struct

from zray import limits
from zray.protocol.parts import MANY, Amounts, Count, Message, Name, Seq
from zray.protocol.placement_messages import Bundle

# List.kind, Summarize.kind
TASKS = 1
ACTORS = 2
OBJECTS = 3
NODES = 4
WORKERS = 5
JOBS = 6
EVENTS = 7
GROUPS = 8
KINDS = {
    "tasks": TASKS,
    "actors": ACTORS,
    "objects": OBJECTS,
    "nodes": NODES,
    "workers": WORKERS,
    "jobs": JOBS,
    "events": EVENTS,
    "placement_groups": GROUPS,
}

HEAD_NODE = "head"  # name of the node that a head starts

# ListedTask.type
NORMAL_TASK = "NORMAL_TASK"
ACTOR_TASK = "ACTOR_TASK"
ACTOR_CREATION_TASK = "ACTOR_CREATION_TASK"

# ListedTask.state
PENDING_ARGS_AVAIL = "PENDING_ARGS_AVAIL"
PENDING_NODE_ASSIGNMENT = "PENDING_NODE_ASSIGNMENT"
SUBMITTED_TO_WORKER = "SUBMITTED_TO_WORKER"
RUNNING = "RUNNING"
ENDED_WELL = "FINISHED"
ENDED_BADLY = "FAILED"

# ListedTask.error_type, by the error's stable code
ERROR_TYPES = {
    "ZR-3001": "TASK_EXECUTION_EXCEPTION",
    "ZR-3002": "TASK_CANCELLED",
    "ZR-3003": "WORKER_DIED",
    "ZR-3004": "NODE_DIED",
    "ZR-3005": "OBJECT_LOST",
    "ZR-3006": "OWNER_DIED",
    "ZR-3007": "TASK_UNSCHEDULABLE_ERROR",
    "ZR-3009": "TASK_EXECUTION_EXCEPTION",
    "ZR-3012": "RUNTIME_ENV_SETUP_FAILED",
    "ZR-3402": "ACTOR_DIED",
    "ZR-3403": "ACTOR_UNAVAILABLE",
}

Kind = Annotated[int, Meta(ge=1, le=8)]
Word = Annotated[str, Meta(max_length=64)]  # of a fixed set
Brief = Annotated[str, Meta(max_length=limits.BRIEF_TEXT_MAX)]
AnyId = Annotated[bytes, Meta(max_length=20)]  # of a thing of any kind, or empty
Cursor = Annotated[bytes, Meta(max_length=64)]


class ListedTask(Struct, array_like=True, frozen=True, gc=False):
    """One attempt of a task, or a call of an actor. ``actor_id``: whose call it is, or whom it
    makes. ``error_type``: in Ray's words; ``error_code``: the stable code of the error, or empty.
    ``reason``: what it waits for."""

    task_id: AnyId
    attempt: Count
    name: Name
    state: Word
    type: Word = NORMAL_TASK
    job_id: AnyId = b""
    actor_id: AnyId = b""
    parent_task_id: AnyId = b""
    node_id: AnyId = b""
    worker_id: AnyId = b""
    pid: Count = 0
    started_s: float = 0.0
    ended_s: float = 0.0
    error_type: Word = ""
    error_code: Word = ""
    error_message: Brief = ""
    resources: Amounts = []
    reason: Brief = ""


class ListedActor(Struct, array_like=True, frozen=True, gc=False):
    """An actor. ``death_cause``: why it is dead; ``reason``: what it waits for."""

    actor_id: AnyId
    class_name: Name
    state: Word
    job_id: AnyId = b""
    name: Name = ""
    namespace: Name = ""
    node_id: AnyId = b""
    worker_id: AnyId = b""
    pid: Count = 0
    resources: Amounts = []
    detached: bool = False
    restarts: Count = 0
    owner_id: AnyId = b""
    started_s: float = 0.0
    ended_s: float = 0.0
    death_cause: Brief = ""
    reason: Brief = ""


class ListedObject(Struct, array_like=True, frozen=True, gc=False):
    """An object of which the head knows. ``state``: PENDING, READY, ERROR or LOST. ``places``:
    nodes and drivers that have its value. ``holders``: how many processes, tasks and objects hold
    it, of which ``holder_id`` is one; that one is of ``type`` DRIVER or WORKER, if a process, as
    ``pid`` and ``host`` say. ``held``: the first of them: what kind of reference that is, of
    which id, and its name if it has one."""

    object_id: AnyId
    size: Count
    state: Word
    task_state: Word = ""
    reference_type: Word = ""
    places: list[AnyId] = []
    holders: Count = 0
    holder_id: AnyId = b""
    type: Word = ""
    pid: Count = 0
    host: Name = ""
    reason: Brief = ""
    held: list[tuple[Word, AnyId, Name]] = []


class ListedNode(Struct, array_like=True, frozen=True, gc=False):
    """A node. ``state``: ALIVE or DEAD; ``message``: more of it, as that it is SUSPECT or why it is
    dead."""

    node_id: AnyId
    name: Name
    state: Word
    message: Brief = ""
    host: Name = ""
    pid: Count = 0
    is_head: bool = False
    incarnation: Count = 0
    resources: Amounts = []
    available: Amounts = []
    labels: list[tuple[Name, Name]] = []
    running: Count = 0
    queued: Count = 0
    finished: Count = 0
    workers: Count = 0
    silent_s: float = 0.0
    started_s: float = 0.0
    ended_s: float = 0.0


class ListedWorker(Struct, array_like=True, frozen=True, gc=False):
    """A process that runs tasks, or a driver. ``exit_type``: in Ray's words, empty while it lives;
    ``exit_detail``: why it has ended. ``actor_id``: that it is."""

    worker_id: AnyId
    alive: bool
    type: Word = "WORKER"
    node_id: AnyId = b""
    host: Name = ""
    pid: Count = 0
    job_id: AnyId = b""
    actor_id: AnyId = b""
    started_s: float = 0.0
    ended_s: float = 0.0
    exit_type: Word = ""
    exit_detail: Brief = ""


class ListedJob(Struct, array_like=True, frozen=True, gc=False):
    """A driver's job. ``status``: RUNNING, SUCCEEDED, STOPPED or FAILED; of a driver only the last
    says that it was lost. ``unfinished``, ``finished``: tasks. ``submission_id``: of the submitted
    job that the driver is of, or, if ``detached``, whose supervisor this is the job of: that may
    also be PENDING."""

    job_id: AnyId
    status: Word
    entrypoint: Brief = ""
    host: Name = ""
    pid: Count = 0
    user: Name = ""
    connected: bool = False
    detached: bool = False
    unfinished: Count = 0
    finished: Count = 0
    started_s: float = 0.0
    ended_s: float = 0.0
    message: Brief = ""
    submission_id: Name = ""


class ListedEvent(Struct, array_like=True, frozen=True, gc=False):
    """Something that has happened, the ``number``-th since the head's start. ``severity``: INFO,
    WARNING or ERROR. ``source``: NODE, WORKER, ACTOR, TASK, JOB or HEAD; ``subject``: which one."""

    number: Count
    time_s: float
    severity: Word
    source: Word
    label: Word
    message: Brief
    subject: AnyId = b""


class ListedGroup(Struct, array_like=True, frozen=True, gc=False):
    """A placement group. ``nodes``: of each bundle, where it is; empty: nowhere."""

    placement_group_id: AnyId
    name: Name
    state: Word
    strategy: Word
    job_id: AnyId
    detached: bool
    bundles: Annotated[list[Bundle], MANY]
    nodes: Annotated[list[AnyId], MANY]
    rounds: Count = 0
    reason: Brief = ""


class Filter(Struct, array_like=True, frozen=True):
    """Rows whose ``key`` is ``value``, or, ``negated``, is not. ``key``: a field of Ray's state
    API; words are compared without regard to case, ids are hexadecimal."""

    key: Name
    value: Name
    negated: bool = False


class List(Message, tag=160):
    """Which things of a kind are there, that all ``filters`` let pass?

    ``limit``: so many rows at most in the answer; 0: as many as one answer may have. ``cursor``: of
    the answer before; empty: from the beginning. ``only``: those of this id alone.
    """

    kind: Kind
    filters: Annotated[list[Filter], Meta(max_length=limits.FILTERS_MAX)] = []
    limit: Count = 0
    cursor: Cursor = b""
    only: AnyId = b""


class Listed(Message, tag=161):
    """The answer to LIST: rows in the list of its kind. ``cursor`` empty: there are no more.

    ``total``: how many of the kind are known, filters aside. ``dropped``: how many tasks have ended
    of which only the number is known; ``unlisted``: so many unfinished ones are known to their
    submitters and nodes alone.
    """

    about: Seq
    kind: Kind
    total: Count
    cursor: Cursor = b""
    dropped: Count = 0
    unlisted: Count = 0
    tasks: Annotated[list[ListedTask], MANY] = []
    actors: Annotated[list[ListedActor], MANY] = []
    objects: Annotated[list[ListedObject], MANY] = []
    nodes: Annotated[list[ListedNode], MANY] = []
    workers: Annotated[list[ListedWorker], MANY] = []
    jobs: Annotated[list[ListedJob], MANY] = []
    events: Annotated[list[ListedEvent], MANY] = []
    placement_groups: Annotated[list[ListedGroup], MANY] = []


class Summarize(Message, tag=162):
    """How many things of a kind are there, in which state? ``kind``: TASKS, ACTORS or OBJECTS."""

    kind: Kind


class Group(Struct, array_like=True, frozen=True):
    """Things of one name. ``states``: how many are in which. ``bytes``: of objects, in all."""

    name: Name
    type: Word
    states: list[tuple[Word, Count]]
    bytes: Count = 0


class Summary(Message, tag=163):
    """The answer to SUMMARIZE: tasks by name and type, actors by class, objects by reference type.

    Ended tasks count by attempts, since the head's start; those of names beyond
    ``limits.TASK_NAMES_MAX`` go together. ``dropped``, ``unlisted`` as in LISTED.
    """

    about: Seq
    kind: Kind
    total: Count
    groups: Annotated[list[Group], MANY]
    dropped: Count = 0
    unlisted: Count = 0


class Tally(Struct, array_like=True, frozen=True, gc=False):
    """So many more attempts of this name have ended so. ``more`` may be less than 0: what was told
    before was of another name, or state."""

    name: Name
    type: Word
    state: Word
    more: Annotated[int, Meta(gt=-(2**53), lt=2**53)]


class Durations(Struct, array_like=True, frozen=True, gc=False):
    """How long attempts of a type took: how many of them in each of the node's buckets, and
    seconds in all. Of many, some were measured, and stand for the others."""

    type: Word
    counts: Annotated[list[Count], Meta(max_length=limits.BUCKETS_MAX + 1)]
    seconds: float


class TaskReport(Message, tag=164):
    """Worker to raylet, raylet to head: what has ended and what runs.

    ``ended``: some of the attempts that have ended; ``dropped``: how many others have.
    ``heard``: WorkerIDs, concatenated; ``running`` has what has been running there for a while.
    ``tallies``: of attempts of which the head does not hear otherwise. ``workers``: those that have
    started or ended. ``durations``: of what has ended, from a worker.
    """

    ended: Annotated[list[ListedTask], MANY] = []
    running: Annotated[list[ListedTask], MANY] = []
    heard: Annotated[bytes, Meta(max_length=16 * limits.PAYLOAD_ITEMS_MAX)] = b""
    tallies: Annotated[list[Tally], MANY] = []
    dropped: Count = 0
    workers: Annotated[list[ListedWorker], MANY] = []
    durations: Annotated[list[Durations], Meta(max_length=8)] = []


STATE_MESSAGES: tuple[type[Message], ...] = (List, Listed, Summarize, Summary, TaskReport)
