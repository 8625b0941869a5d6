"""Every message of the protocol, each defined once: the single source for validation and docs.

A message is a msgpack array ``[verb, seq, fields...]``. Verbs are never reused; fields are only
appended, with defaults. User values are opaque ``bytes``; there is no free map and no ``Any``.
Integers stay below 2^53 and times are float seconds, so that every language can read them.
``seq`` numbers a sender's messages where an answer or an acknowledgement refers to it, else 0.
"""

from typing import Annotated

from msgspec import Meta

from zray import limits
from zray.protocol.actor_messages import *
from zray.protocol.environment_messages import *
from zray.protocol.head_messages import *
from zray.protocol.held_messages import *
from zray.protocol.job_messages import *
from zray.protocol.lease_messages import *
from zray.protocol.metric_messages import *
from zray.protocol.node_messages import *
from zray.protocol.operation_messages import *
from zray.protocol.parts import *
from zray.protocol.placement_messages import *
from zray.protocol.progress_messages import *
from zray.protocol.replay_messages import *
from zray.protocol.state_messages import *
from zray.protocol.store_messages import *
from zray.protocol.stream_messages import *
from zray.protocol.trace_messages import *
from zray.protocol.usage_messages import *
from zray.protocol.why_messages import *

# ---- session: both directions --------------------------------------------------------------


class Hello(Message, tag=1):
    """First message of every session. ``cluster_id`` empty: not known yet.

    ``head_id``: as the last WELCOME had it. ``minor``: of the protocol that the peer speaks.
    """

    protocol: Count
    role: Count
    process_id: Id
    incarnation: Count
    cluster_id: IdOrNone
    versions: Versions
    features: list[Name] = []
    node: NodeInfo | None = None
    job: JobInfo | None = None
    head_id: IdOrNone = b""
    minor: Count = 0


class Welcome(Message, tag=2):
    """``head_id``: of this start of the head. A HELLO of its epoch that has another knows a head
    that this one's store does not. ``heads``: all of the cluster, where there may be several.
    ``minor``: of the protocol that it speaks; ``zray``: its version."""

    protocol: Count
    cluster_id: Id
    frame_bytes_max: Count
    ping_s: float
    features: list[Name] = []
    head_id: IdOrNone = b""
    heads: Heads = []
    minor: Count = 0
    zray: Name = ""


class Refused(Message, tag=3):
    """The session is not accepted; ``code`` is a stable error code."""

    code: Name
    text: Text


class Rejoin(Message, tag=4):
    """The head does not know this session: open a new one, HELLO first."""

    text: Text


class Ping(Message, tag=5):
    """``trouble``: what goes wrong in the sender, which goes on; empty: nothing."""

    sent_s: float
    trouble: Text = ""


class Pong(Message, tag=6):
    """Answers PING, with its ``sent_s``. ``health``: OK, or what goes wrong in the cluster."""

    sent_s: float
    health: Name


class Goodbye(Message, tag=7):
    """The sender ends now; nothing it holds or runs is left.

    The head's answer to a driver or observer: that is so.
    """

    reason: Text


class Rejected(Message, tag=8):
    """The message ``about`` was not understood or not allowed; it had no effect."""

    about: Seq
    code: Name
    text: Text


# ---- client verbs: driver to head, worker to raylet, raylet to head for its workers ---------


class Template(Message, tag=16):
    """A function with options, sent once per session before the first task that names it.

    ``max_calls``: a worker that has run the function so often ends; 0: never for that. ``labels``:
    selectors of the node, pairs of a label's name and what is wanted of its value; the first that
    selects any node counts. ``environment``: of the worker; ``resources`` then has, with an amount
    of 0, a name that begins with "environment ", equal for equal ones.
    ``timeout_s``: a task that runs longer ends with an error; 0: none does. ``priority``: of the
    ready tasks of one job, submitter's depth and needs, those that have more start first.
    ``events``: whether lists and summaries have its tasks; for an actor, also its calls.
    ``yields``: what becomes of what it yields. ``unread_max``: so many items, of which its consumer
    has used none, are there at most before it goes on; 0: any number. ``captures``: what it submits
    runs in its placement group, too, unless that says otherwise.
    """

    template_id: Id
    function_id: Id
    name: Name
    resources: Amounts
    num_returns: Annotated[int, Meta(ge=0, le=limits.RETURNS_MAX)]
    max_retries: Annotated[int, Meta(ge=-1, lt=2**53)]
    runtime: Name = "python"
    by_name: bool = False  # no EXPORT: ``name`` is one that modules offer on the nodes
    holder: IdOrNone = b""  # the worker that names it, as its node says; else the sender
    max_calls: Count = 0
    labels: Annotated[list[list[tuple[Name, Text]]], MANY] = []
    environment: Environment | None = None
    yields: Yields = RETURNS
    unread_max: Count = 0
    timeout_s: Timeout = 0.0
    priority: Priority = 0
    events: bool = True
    captures: bool = False


class Export(Message, tag=17):
    """A function or class, pickled in ``blob``; EXPORTED says when it is durable.

    ``contained``: as in Outcome; whoever needs the function holds these.
    """

    function_id: Id
    name: Name
    blob: bytes
    contained: list[ObjId] = []
    holder: IdOrNone = b""  # as in TEMPLATE


class SubmitJob(Message, tag=237):
    """Run a shell command on the cluster; answered with JOB_ANSWERED once that is durable.

    ``task`` makes the job's supervisor, the actor ``actor``, by ``template`` of ``function``. The
    same again, with the task's id, is the same job.
    """

    submission_id: SubmissionId
    entrypoint: Text
    metadata: Metadata
    runtime_env: Text  # JSON
    function: Export
    template: Template
    task: TaskSpec
    actor: ActorInfo
    job: JobInfo  # of the supervisor


class Exported(Message, tag=18):
    """The functions are durable. ``about``: the ``seq`` of the EXPORT that this answers."""

    function_ids: Annotated[list[Id], MANY]
    about: Seq = 0


class Forget(Message, tag=76):
    """These functions and their templates are not needed any more: by whoever sends it, or, from
    the head, by anybody. They are sent again before they are named again."""

    function_ids: bytes
    holder: IdOrNone = b""  # as in TEMPLATE


class Submit(Message, tag=19):
    """Tasks of one submitter; resent unchanged until each has its outcome."""

    job_id: Id
    submitter: Id
    tasks: Annotated[list[TaskSpec], MANY]


class Result(Message, tag=20):
    """Outcomes for process ``target``; acknowledged with RESULT_ACK by ``seq``."""

    target: Id
    outcomes: Annotated[list[Outcome], MANY]


class ResultAck(Message, tag=21):
    """``target`` has every RESULT up to that ``seq``; none of them is sent again."""

    target: Id
    upto: Seq


class Cancel(Message, tag=22):
    """Stop a task, wherever it is.

    ``force``: end the worker that runs it. ``recursive``: also the tasks that it has submitted.
    ``index``: of its result by whose reference it is cancelled. A call or a leased task is known to
    its submitter alone: the head passes this on to that, the ``target``.
    """

    task_id: Id
    force: bool
    recursive: bool
    index: Index = 0
    target: IdOrNone = b""


class Hold(Message, tag=23):
    """``holder`` holds these objects; with ``full`` these and no others. ``more``: a part of it.

    What it has promised of these is with the node that made it; with ``full`` no PROMISE stands.
    """

    holder: Id
    object_ids: ObjIds
    full: bool = False
    more: bool = False


class Drop(Message, tag=24):
    """``holder`` does not hold these objects any more, if it did."""

    holder: Id
    object_ids: ObjIds


class Watch(Message, tag=25):
    """Send ``target`` the outcomes of these objects when they have one."""

    target: Id
    object_ids: ObjIds


class Put(Message, tag=26):
    """An object made by ``holder``. No value: it stays with the sender, who serves PULL.

    ``place``: it is with this node instead, on the holder's machine.
    """

    holder: Id
    outcome: Outcome
    place: IdOrNone = b""


class Pull(Message, tag=27):
    """Send the object in CHUNKs under ``transfer``, a number that the asking side made.

    ``direct``: or answer PULL_FROM, for the asking raylet can ask another one itself.
    """

    transfer: Count
    object_id: ObjId
    direct: bool = False


class PullFrom(Message, tag=73):
    """Ask the raylet that serves at ``address`` (host:port); it has the object."""

    transfer: Count
    object_id: ObjId
    address: Name


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
    """``transfer`` has ended: the value is lost, which ``code`` and ``text`` say.

    To the sending side, with ``code`` empty: nobody wants the chunks any more.
    """

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
    lines: Annotated[list[Text], MANY]


class Query(Message, tag=33):
    """``what`` is STATUS, or WHY with the objects asked about."""

    what: Count
    object_ids: Annotated[list[ObjId], MANY] = []
    more: bool = False


class Status(Message, tag=34):
    """The answer to a QUERY for STATUS.

    ``started_s``: of the head, in seconds since 1970. ``health`` as in PONG. ``classes``: of tasks
    that wait. ``objects``: how many there are. ``notices``: the last warnings; ``counters``: what
    has happened how often since the head's start. ``heads``, ``zray`` as in WELCOME. ``groups``:
    placement groups that are not removed; ``groups_waiting``: those of them that lack places.
    """

    about: Seq
    cluster_id: Id
    started_s: float
    health: Text
    nodes: Annotated[list[NodeStatus], MANY]
    jobs: Annotated[list[JobStatus], MANY]
    classes: Annotated[list[ClassStatus], MANY]
    objects: Count
    notices: Annotated[list[Text], MANY]
    counters: Annotated[list[tuple[Name, int]], MANY]
    actors: Annotated[list[ActorStatus], MANY] = []
    more: bool = False
    heads: Heads = []
    zray: Name = ""
    groups: Count = 0
    groups_waiting: Count = 0


class Reasons(Message, tag=35):
    """For each object asked about, what it waits for, in words; empty: it does not wait."""

    about: Seq
    reasons: Annotated[list[Text], MANY]
    more: bool = False


BREAKPOINTS = b"zray/breakpoint/"  # keys, before the id of a task that waits in a debugger


class Kv(Message, tag=36):
    """One operation on the key-value table; ``op``: get, put, delete, keys (``key``: prefix).

    ``add`` is a put that leaves a value as it is where there is one.
    """

    op: Name
    key: Annotated[bytes, Meta(max_length=1024)]
    value: bytes = b""


class KvReply(Message, tag=37):
    """The answer to KV: ``value`` of a get, ``keys`` of keys; ``found``: the key was there."""

    about: Seq
    found: bool
    value: bytes = b""
    keys: Annotated[list[bytes], MANY] = []
    more: bool = False


ALL: tuple[type[Message], ...] = (
    *(Hello, Welcome, Refused, Rejoin, Ping, Pong, Goodbye, Rejected),
    *(Template, Export, SubmitJob, Exported, Forget, Submit, Result, ResultAck, Cancel),
    *(Hold, Drop, Watch, Put),
    *(
        Pull,
        PullFrom,
        Chunk,
        ChunkAck,
        PullFailed,
        Notice,
        Log,
        Query,
        Status,
        Reasons,
        Kv,
        KvReply,
    ),
    *NODE_MESSAGES,
    *ACTOR_MESSAGES,
    *LEASE_MESSAGES,
    *STORE_MESSAGES,
    *STREAM_MESSAGES,
    *TRACE_MESSAGES,
    *STATE_MESSAGES,
    *METRIC_MESSAGES,
    *OPERATION_MESSAGES,
    *PROGRESS_MESSAGES,
    *WHY_MESSAGES,
    *USAGE_MESSAGES,
    *HELD_MESSAGES,
    *REPLAY_MESSAGES,
    *PLACEMENT_MESSAGES,
    *JOB_MESSAGES,
    *ENVIRONMENT_MESSAGES,
    *HEAD_MESSAGES,
)

# What answers a request; ``about`` is the request's ``seq``.
ANSWERS = (
    *(Status, Reasons, KvReply, Synced, ActorCreated, ActorFound, ActorNames, Gone, Traced),
    *(Listed, Summary, Explained, Answered, RunPart, RunsListed, Groups, EnvironmentsListed),
    *(JobAnswered, JobsTold, SteppingDown),
)
