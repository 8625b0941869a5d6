"""Every message of the protocol, each defined once: the single source for validation and docs.

A message is a msgpack array ``[verb, seq, fields...]``. Verbs are never reused; fields are only
appended, with defaults. User values are opaque ``bytes``; there is no free map and no ``Any``.
Integers stay below 2^53 and times are float seconds, so that every language can read them.
``seq`` numbers a sender's messages where an answer or an acknowledgement refers to it, else 0.
"""

from typing import Annotated

from msgspec import Meta, Struct

from zray import limits

PROTOCOL_VERSION = 1
KIND = b"zray1"  # the first frame of every multipart message

ROLE_DRIVER = 1
ROLE_NODE = 2
ROLE_OBSERVER = 3

# Outcome.kind
VALUE = 0
ERROR = 1  # the value is an encoded protocol.errors.ErrorRecord
LOCATED = 2  # flag: the value is elsewhere; ask for it with PULL

# TaskDone.status
FINISHED = 0  # results are final, an application error included
FAILED = 1  # an application error that the task's retry_exceptions covers
CRASHED = 2  # the worker died; results say how
CANCELLED = 3

# Refused.code: the peer's incarnation was declared dead, or its job has ended
FENCED = "ZR-2012"

# Query.what
STATUS = 1
WHY = 2

Id = Annotated[bytes, Meta(min_length=16, max_length=16)]
ObjId = Annotated[bytes, Meta(min_length=20, max_length=20)]
IdOrNone = Annotated[bytes, Meta(max_length=16)]
Count = Annotated[int, Meta(ge=0, lt=2**53)]
Seq = Annotated[int, Meta(ge=0, lt=2**53)]
Name = Annotated[str, Meta(max_length=256)]
Text = Annotated[str, Meta(max_length=65536)]
Amounts = list[tuple[Name, int]]  # resource name and amount in units of 1/10000


class Versions(Struct, array_like=True, frozen=True):
    """What must fit between two Python processes: ``python`` is ``major.minor``."""

    python: Name
    zray: Name
    cloudpickle: Name


class NodeInfo(Struct, array_like=True, frozen=True):
    """A raylet's account of itself. ``liveness`` is host:port of a port it keeps open."""

    name: Name
    host: Name
    pid: Count
    resources: Amounts
    labels: list[tuple[Name, Name]]
    machine: Name
    liveness: Name = ""


class JobInfo(Struct, array_like=True, frozen=True):
    """A driver's account of itself; workers on the same ``machine`` get its directory and path."""

    entrypoint: Text
    directory: Text
    python_path: list[Text]
    machine: Name
    host: Name
    pid: Count
    user: Name = ""
    wants_logs: bool = True


class TaskSpec(Struct, array_like=True, frozen=True, gc=False):
    """One task as its submitter made it.

    ``dependencies``: ObjectIDs whose values replace top-level references in the arguments, in
    order. ``nested``: ObjectIDs that the arguments contain and that stay references. ``boxed``:
    the arguments are the value of the first dependency, and ``arguments`` is empty.
    """

    task_id: Id
    template_id: Id
    arguments: bytes
    dependencies: list[ObjId] = []
    nested: list[ObjId] = []
    parent: IdOrNone = b""
    boxed: bool = False


class Assignment(Struct, array_like=True, frozen=True, gc=False):
    """``failures``: attempts before this one that a failure ended."""

    attempt: Count
    job_id: Id
    spec: TaskSpec
    failures: Count = 0


class Outcome(Struct, array_like=True, frozen=True, gc=False):
    """What became of one object. ``contained``: ObjectIDs of references inside the value."""

    object_id: ObjId
    kind: Annotated[int, Meta(ge=0, le=3)]
    size: Count
    value: bytes = b""
    contained: list[ObjId] = []


class TaskDone(Struct, array_like=True, frozen=True, gc=False):
    """One attempt's end. ``borrowed``: references from its arguments that the worker keeps."""

    task_id: Id
    attempt: Count
    status: Annotated[int, Meta(ge=0, le=3)]
    results: list[Outcome]
    seconds: float = 0.0
    borrowed: list[ObjId] = []
    worker_id: IdOrNone = b""


class HeldTask(Struct, array_like=True, frozen=True):
    """A task that a raylet runs, or whose end the head has not acknowledged."""

    task_id: Id
    attempt: Count
    job_id: Id
    template_id: Id
    failures: Count = 0


class Holds(Struct, array_like=True, frozen=True):
    holder: Id
    object_ids: bytes  # ObjectIDs, concatenated


class NodeStatus(Struct, array_like=True, frozen=True):
    node_id: Id
    incarnation: Count
    state: Name
    info: NodeInfo
    available: Amounts
    running: Count
    queued: Count
    finished: Count
    silent_s: float


class ClassStatus(Struct, array_like=True, frozen=True):
    """One scheduling class that has waiting tasks, and why they wait."""

    resources: Amounts
    job_id: Id
    waiting: Count
    reason: Text
    example: Name


class JobStatus(Struct, array_like=True, frozen=True):
    job_id: Id
    info: JobInfo
    unfinished: Count
    finished: Count
    connected: bool


class Message(Struct, array_like=True):
    """Base of all messages; ``seq`` is always the first field after the verb."""

    seq: Seq


# ---- session: both directions --------------------------------------------------------------


class Hello(Message, tag=1):
    """First message of every session. ``cluster_id`` empty: not known yet."""

    protocol: Count
    role: Count
    process_id: Id
    incarnation: Count
    cluster_id: IdOrNone
    versions: Versions
    features: list[Name] = []
    node: NodeInfo | None = None
    job: JobInfo | None = None


class Welcome(Message, tag=2):
    protocol: Count
    cluster_id: Id
    frame_bytes_max: Count
    ping_s: float
    features: list[Name] = []


class Refused(Message, tag=3):
    """The session is not accepted; ``code`` is a stable error code."""

    code: Name
    text: Text


class Rejoin(Message, tag=4):
    """The head does not know this session: open a new one, HELLO first."""

    text: Text


class Ping(Message, tag=5):
    sent_s: float


class Pong(Message, tag=6):
    sent_s: float
    health: Name


class Goodbye(Message, tag=7):
    """The sender ends now; nothing it holds or runs is left."""

    reason: Text


class Rejected(Message, tag=8):
    """The message ``about`` was not understood or not allowed; it had no effect."""

    about: Seq
    code: Name
    text: Text


# ---- client verbs: driver to head, worker to raylet, raylet to head for its workers ---------


class Template(Message, tag=16):
    """A function with options, sent once per session before the first task that names it."""

    template_id: Id
    function_id: Id
    name: Name
    resources: Amounts
    num_returns: Annotated[int, Meta(ge=0, le=limits.RETURNS_MAX)]
    max_retries: Annotated[int, Meta(ge=-1, lt=2**53)]
    runtime: Name = "python"


class Export(Message, tag=17):
    function_id: Id
    name: Name
    blob: bytes
    contained: list[ObjId] = []


class Exported(Message, tag=18):
    """The functions are durable."""

    function_ids: list[Id]


class Submit(Message, tag=19):
    """Tasks of one submitter; resent unchanged until each has its outcome."""

    job_id: Id
    submitter: Id
    tasks: list[TaskSpec]


class Result(Message, tag=20):
    """Outcomes for process ``target``; acknowledged with RESULT_ACK by ``seq``."""

    target: Id
    outcomes: list[Outcome]


class ResultAck(Message, tag=21):
    target: Id
    upto: Seq


class Cancel(Message, tag=22):
    task_id: Id
    force: bool
    recursive: bool


class Hold(Message, tag=23):
    """``holder`` holds these objects; with ``full`` these and no others."""

    holder: Id
    object_ids: bytes
    full: bool = False


class Drop(Message, tag=24):
    holder: Id
    object_ids: bytes


class Watch(Message, tag=25):
    """Send ``target`` the outcomes of these objects when they have one."""

    target: Id
    object_ids: bytes


class Put(Message, tag=26):
    """An object made by ``holder``. No value: it stays with the sender, who serves PULL."""

    holder: Id
    outcome: Outcome


class Pull(Message, tag=27):
    """Send the object in CHUNKs under ``transfer``, a number that the asking side made."""

    transfer: Count
    object_id: ObjId


class Chunk(Message, tag=28):
    """``kind`` as in Outcome; ``total`` bytes in all; chunks of one transfer come in order.

    ``contained`` as in Outcome, with the first chunk.
    """

    transfer: Count
    kind: Count
    offset: Count
    total: Count
    data: bytes
    contained: list[ObjId] = []


class ChunkAck(Message, tag=29):
    """All bytes before ``offset`` have arrived."""

    transfer: Count
    offset: Count


class PullFailed(Message, tag=30):
    transfer: Count
    code: Name
    text: Text


class Notice(Message, tag=31):
    """A warning for the user of a job."""

    code: Name
    text: Text


class Log(Message, tag=32):
    """Lines that a worker printed, for its job's driver."""

    job_id: Id
    name: Name
    pid: Count
    node: Name
    is_error: bool
    lines: list[Text]


class Query(Message, tag=33):
    """``what`` is STATUS, or WHY with the objects asked about."""

    what: Count
    object_ids: list[ObjId] = []


class Status(Message, tag=34):
    about: Seq
    cluster_id: Id
    started_s: float
    health: Name
    nodes: list[NodeStatus]
    jobs: list[JobStatus]
    classes: list[ClassStatus]
    objects: Count
    notices: list[Text]
    counters: list[tuple[Name, int]]


class Reasons(Message, tag=35):
    """For each object asked about, what it waits for, in words; empty: it does not wait."""

    about: Seq
    reasons: list[Text]


class Kv(Message, tag=36):
    """One operation on the key-value table; ``op``: get, put, delete, keys (``key``: prefix)."""

    op: Name
    key: Annotated[bytes, Meta(max_length=1024)]
    value: bytes = b""


class KvReply(Message, tag=37):
    about: Seq
    found: bool
    value: bytes = b""
    keys: list[bytes] = []


# ---- node verbs: raylet and head ------------------------------------------------------------


class Credit(Message, tag=48):
    """``granted``: tasks the head may have sent in this session, in all.

    ``released``: resources that blocked tasks have given back for now, in all.
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


class Recall(Message, tag=81):
    """Give back every task that has not started, with RETURNED."""


class Blocked(Message, tag=82):
    """The running task waits for objects; its CPU may be used by others."""


class Unblocked(Message, tag=83):
    """The running task goes on."""


class Exit(Message, tag=84):
    """End when the running task has ended."""


ALL: tuple[type[Message], ...] = (
    *(Hello, Welcome, Refused, Rejoin, Ping, Pong, Goodbye, Rejected),
    *(Template, Export, Exported, Submit, Result, ResultAck, Cancel, Hold, Drop, Watch, Put),
    *(Pull, Chunk, ChunkAck, PullFailed, Notice, Log, Query, Status, Reasons, Kv, KvReply),
    *(Credit, Tasks, Done, Ack, Reclaim, Returned, CancelTask, Free, Job, JobEnded, WorkerDied),
    *(Announce, Discard, Have, Shutdown, Setup, Recall, Blocked, Unblocked, Exit),
)
