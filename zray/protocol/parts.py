"""What messages are made of: constants, checked field types and the records inside messages.

Each is defined once, here; `messages` and `actor_messages` have the messages themselves. User
values are opaque ``bytes``; there is no free map and no ``Any``. Fields are only appended, with
defaults.
"""

from typing import Annotated

from msgspec import Meta, Struct

from zray import limits

PROTOCOL_VERSION = 1
PROTOCOL_MINOR = 1  # what it has had since, in what order: see `versions`
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
# Also of Rejected and RelayRefused: that is not for the peer to say
FORBIDDEN = "ZR-1410"

# Template.yields, Call.yields
RETURNS = 0
ITEMS = 1  # what it yields goes to its submitter as it comes; what it returns is nothing
REFERENCES = 2  # what it yields are objects of the worker's; it returns references to them

# Query.what
STATUS = 1
WHY = 2

# ActorState.state
ACTOR_PENDING = 1  # its constructor has not ended yet
ACTOR_ALIVE = 2
ACTOR_RESTARTING = 3
ACTOR_DEAD = 4
ACTOR_STATES = {1: "PENDING", 2: "ALIVE", 3: "RESTARTING", 4: "DEAD"}

# EnvironmentPart.kind
WORKING_DIR = 1
PY_MODULE = 2
PIP = 3
UV = 4
PY_EXECUTABLE = 5

RETRY_AS_DECLARED = b"-"  # Call.retry

Id = Annotated[bytes, Meta(min_length=16, max_length=16)]
ObjId = Annotated[bytes, Meta(min_length=20, max_length=20)]
IdOrNone = Annotated[bytes, Meta(max_length=16)]
Count = Annotated[int, Meta(ge=0, lt=2**53)]
Index = Annotated[int, Meta(ge=0, lt=2**32)]  # of an object among those of its task
Floor = Annotated[int, Meta(ge=-1, lt=2**53)]
Seq = Annotated[int, Meta(ge=0, lt=2**53)]
Seconds = Annotated[float, Meta(ge=0, le=limits.DRIVER_LOST_MAX_S)]
Timeout = Annotated[float, Meta(ge=0, le=limits.TIMEOUT_MAX_S)]
Priority = Annotated[int, Meta(ge=-limits.PRIORITY_MAX, le=limits.PRIORITY_MAX)]
EndStatus = Annotated[int, Meta(ge=0, le=3)]
Yields = Annotated[int, Meta(ge=0, le=2)]
Name = Annotated[str, Meta(max_length=limits.NAME_MAX)]
Text = Annotated[str, Meta(max_length=limits.TEXT_MAX)]
MANY = Meta(max_length=limits.PAYLOAD_ITEMS_MAX)  # a list that is sent in parts beyond this
ObjIds = Annotated[bytes, Meta(max_length=limits.PAYLOAD_ITEMS_MAX * 20)]  # concatenated
Ids = Annotated[bytes, Meta(max_length=limits.PAYLOAD_ITEMS_MAX * 16)]
Amounts = list[tuple[Name, int]]  # resource name and amount in units of 1/10000


class Versions(Struct, array_like=True, frozen=True):
    """What must fit between two Python processes: ``python`` is ``major.minor``."""

    python: Name
    zray: Name
    cloudpickle: Name


class NodeInfo(Struct, array_like=True, frozen=True):
    """A raylet's account of itself.

    ``liveness`` is host:port of a port that it keeps open; there it serves PULL to other raylets,
    and RELAY to submitters that have workers of it leased.
    ``offers``: names of functions and actor classes that can be asked for by name there.
    """

    name: Name
    host: Name
    pid: Count
    resources: Amounts
    labels: list[tuple[Name, Name]]
    machine: Name
    liveness: Name = ""
    offers: list[Name] = []


class LogSettings(Struct, array_like=True, frozen=True):
    """How Python's logging is written by a job's tasks: in ``encoding`` (JSON or TEXT), from
    ``level`` on, with those of a record's ``attributes``."""

    encoding: Name
    level: Annotated[int, Meta(ge=0, lt=2**31)]
    attributes: Annotated[list[Name], Meta(max_length=64)]


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
    namespace: Name = ""  # of the names of its actors
    lost_after_s: Seconds = (
        0.0  # without a connection for so long, the job ends; 0: as the head says
    )
    logging: LogSettings | None = None  # of its workers that run Python; None: as they are
    records_sites: bool = False  # workers note which line made a reference
    submission_id: Name = ""  # of the submitted job whose command has started the driver


class EnvironmentPart(Struct, array_like=True, frozen=True):
    """What a node builds once for all environments that have it.

    ``kind``: WORKING_DIR and what follows there. ``source``: of files, the URI; of PY_EXECUTABLE,
    the command. ``content``: the digest of a package's bytes, which are those of the object; or
    what the file looked like to whoever named it. ``lines``: requirements of PIP and UV, with
    ``options`` for their ``version`` and the variables that they read; ``checks``: what is
    installed has to fit together.
    """

    kind: Annotated[int, Meta(ge=1, le=5)]
    source: Text = ""
    content: Name = ""
    object_id: Annotated[bytes, Meta(max_length=20)] = b""
    lines: Annotated[list[Text], Meta(max_length=limits.REQUIREMENTS_MAX)] = []
    options: Annotated[list[Text], Meta(max_length=limits.REQUIREMENTS_MAX)] = []
    version: Name = ""
    checks: bool = False
    variables: Annotated[list[tuple[Name, Text]], MANY] = []


class Environment(Struct, array_like=True, frozen=True):
    """What the process of a task has beside its job. ``env_vars``: variables and their values.

    ``hook``: the pickle of what runs first in it, or empty: what ``hook_name`` names.
    ``timeout_s``: how long building may take on a node; -1: as long as it takes.
    """

    env_vars: Annotated[list[tuple[Name, Text]], MANY] = []
    parts: Annotated[list[EnvironmentPart], Meta(max_length=limits.PARTS_MAX)] = []
    hook: Annotated[bytes, Meta(max_length=limits.SETUP_HOOK_BYTES_MAX)] = b""
    hook_name: Text = ""
    timeout_s: Annotated[float, Meta(ge=-1, le=limits.TIMEOUT_MAX_S)] = limits.SETUP_TIMEOUT_S


class TaskSpec(Struct, array_like=True, frozen=True, gc=False):
    """One task as its submitter made it.

    ``dependencies``: ObjectIDs whose values replace top-level references in the arguments, in
    order. ``nested``: ObjectIDs that the arguments contain and that stay references. ``boxed``:
    the arguments are the value of the first dependency, and ``arguments`` is empty. ``failures``:
    attempts that a failure has ended before it was submitted. ``depth``: how many tasks above it
    run, where a raylet knows more than the head does. ``consumer``: the process that gets what the
    task yields, which is its submitter; empty: nobody does, and of its items those with the numbers
    in ``wanted`` are put, as they were lost.
    """

    task_id: Id
    template_id: Id
    arguments: bytes
    dependencies: list[ObjId] = []
    nested: list[ObjId] = []
    parent: IdOrNone = b""
    boxed: bool = False
    failures: Count = 0
    depth: Count = 0
    consumer: IdOrNone = b""
    wanted: Annotated[list[Index], MANY] = []


class Outcome(Struct, array_like=True, frozen=True, gc=False):
    """What became of one object. ``contained``: ObjectIDs of references inside the value."""

    object_id: ObjId
    kind: Annotated[int, Meta(ge=0, le=3)]
    size: Count
    value: bytes = b""
    contained: list[ObjId] = []


class ActorInfo(Struct, array_like=True, frozen=True):
    """What everybody with a handle knows of an actor; made by its creator, and never changed.

    ``methods``: name and number of returns of each. ``held``: the resources that it keeps while
    it lives; what it takes to be placed is in its template. -1 is "no limit" for ``max_restarts``,
    ``max_task_retries`` and ``max_pending_calls``. ``by_name``: of a class that a node offers under
    its template's name: results are portable values, and ``methods`` need not have all.
    ``retries``: the ``max_task_retries`` of methods that have their own. ``groups``: how many calls
    of each concurrency group run at once; of all others, ``max_concurrency``. ``out_of_order``: a
    call that waits for its arguments does not hold up those behind it. ``unread_max``: so many
    items of all its generators that run may be unused by their consumers; 0: any number.
    """

    class_name: Name
    function_id: Id  # of the class
    methods: list[tuple[Name, int]]
    name: Name = ""
    namespace: Name = ""
    detached: bool = False
    max_restarts: Annotated[int, Meta(ge=-1, lt=2**53)] = 0
    max_task_retries: Annotated[int, Meta(ge=-1, lt=2**53)] = 0
    max_pending_calls: Annotated[int, Meta(ge=-1, lt=2**53)] = -1
    max_concurrency: Annotated[int, Meta(ge=1, lt=2**31)] = 1
    is_async: bool = False
    held: Amounts = []
    by_name: bool = False
    retries: list[tuple[Name, Annotated[int, Meta(ge=-1, lt=2**53)]]] = []
    groups: list[tuple[Name, Annotated[int, Meta(ge=1, lt=2**31)]]] = []
    out_of_order: bool = False
    unread_max: Annotated[int, Meta(ge=0, lt=2**31)] = 0


class Assignment(Struct, array_like=True, frozen=True, gc=False):
    """``failures``: attempts before this one that a failure ended.

    ``actor``: the task makes this actor; its attempt is then the actor's incarnation. ``depth``:
    how many tasks above it run, its submitter first; the deepest start first.
    """

    attempt: Count
    job_id: Id
    spec: TaskSpec
    failures: Count = 0
    actor: ActorInfo | None = None
    depth: Count = 0


class TaskDone(Struct, array_like=True, frozen=True, gc=False):
    """One attempt's end. ``borrowed``: references from its arguments that the worker keeps.

    ``printed``: what it has printed reaches its submitter by another way, and should come first.
    """

    task_id: Id
    attempt: Count
    status: Annotated[int, Meta(ge=0, le=3)]
    results: list[Outcome]
    seconds: float = 0.0
    borrowed: list[ObjId] = []
    worker_id: IdOrNone = b""
    printed: bool = False


class CallDone(Struct, array_like=True, frozen=True, gc=False):
    """One call's end; ``status`` is FINISHED, CANCELLED or, only where its ``retry`` covers what it
    raised, FAILED: its caller makes it again, under another number."""

    seq: Seq
    task_id: Id
    status: Annotated[int, Meta(ge=0, le=3)]
    results: list[Outcome]


class HeldTask(Struct, array_like=True, frozen=True):
    """A task that a raylet runs, or whose end the head has not acknowledged."""

    task_id: Id
    attempt: Count
    job_id: Id
    template_id: Id
    failures: Count = 0
    makes_actor: bool = False


class BegunTask(Struct, array_like=True, frozen=True, gc=False):
    """A task that a raylet has, of which the head has not heard. ``attempt``: that is there."""

    spec: TaskSpec
    attempt: Count


class JobFloors(Struct, array_like=True, frozen=True, gc=False):
    """Of a job a node only starts tasks that are deeper than ``floor``; -1: any.

    ``free_floor``: the same of tasks that take no CPU. ``job_id``: empty of all that are not named.
    """

    job_id: IdOrNone
    floor: Floor
    free_floor: Floor


class NearJob(Struct, array_like=True, frozen=True, gc=False):
    """A job's near tasks on one node.

    ``finished``, ``retried``: tasks, and attempts beyond the first of each, since the node joined.
    """

    job_id: Id
    unfinished: Count
    finished: Count
    retried: Count


class NearClass(Struct, array_like=True, frozen=True, gc=False):
    """Near tasks that wait for the same resources. ``name``: of one of them."""

    resources: Amounts
    job_id: Id
    waiting: Count
    name: Name


class HeldActor(Struct, array_like=True, frozen=True):
    """An actor that lives in a worker of a node."""

    actor_id: Id
    incarnation: Count
    worker_id: Id


class HeldLease(Struct, array_like=True, frozen=True):
    """A worker of a node that serves one submitter; ``resources``: what the lease holds."""

    lease_id: Id
    job_id: Id
    submitter: Id
    resources: Amounts
    worker_id: Id


class Call(Struct, array_like=True, frozen=True, gc=False):
    """One call of an actor's method.

    ``seq``: its number among its caller's calls of this incarnation, from 0: they start in this
    order, whatever path they take. ``dependencies``, ``nested``, ``boxed`` as in TaskSpec;
    ``values`` has those dependencies that the caller has at hand. ``yields``, ``unread_max`` as in
    TEMPLATE. ``group``: the concurrency group that it runs in; empty: its method's. ``retry``: for
    which errors it is made again, as the caller's language says it; RETRY_AS_DECLARED: as its
    method says; empty: for none. ``given_up``: the caller has given the call up; if it has not come
    before, it does not run, and is answered with CANCELLED and no results. ``quiet``: nobody is to
    be told of it.
    """

    seq: Seq
    task_id: Id
    method: Name
    num_returns: Annotated[int, Meta(ge=0, le=limits.RETURNS_MAX)]
    arguments: bytes
    dependencies: list[ObjId] = []
    nested: list[ObjId] = []
    values: list[Outcome] = []
    parent: IdOrNone = b""
    boxed: bool = False
    yields: Yields = RETURNS
    unread_max: Count = 0
    group: Name = ""
    retry: bytes = b""
    given_up: bool = False
    quiet: bool = False


class Holds(Struct, array_like=True, frozen=True):
    """All that one process holds; ``holder`` is its ProcessID."""

    holder: Id
    object_ids: bytes  # ObjectIDs, concatenated


class NodeStatus(Struct, array_like=True, frozen=True):
    """One node, in an answer to a QUERY.

    ``state``: in a word, as the head counts it. ``available``: what tasks may still have of it, as
    the head reckons. ``running``, ``queued``: tasks there, with resources and sent ahead;
    ``finished``: since it joined. ``silent_s``: seconds since it was last heard of. ``remark``: why
    it is in that state, and what it waits for. ``zray``: its version.
    """

    node_id: Id
    incarnation: Count
    state: Name
    info: NodeInfo
    available: Amounts
    running: Count
    queued: Count
    finished: Count
    silent_s: float
    remark: Text = ""
    zray: Name = ""


class ClassStatus(Struct, array_like=True, frozen=True):
    """One scheduling class that has waiting tasks, and why they wait."""

    resources: Amounts
    job_id: Id
    waiting: Count
    reason: Text
    example: Name


class ActorStatus(Struct, array_like=True, frozen=True):
    """One actor that is not dead. ``reason``: what it waits for; empty while it is alive."""

    actor_id: Id
    job_id: Id
    info: ActorInfo
    state: Count
    node: Name
    restarts: Count
    reason: Text


class JobStatus(Struct, array_like=True, frozen=True):
    """``detached``: its program may have ended; it is that of a detached actor, which lives.

    ``zray``: its program's version; empty: not known.
    """

    job_id: Id
    info: JobInfo
    unfinished: Count
    finished: Count
    connected: bool
    detached: bool = False
    zray: Name = ""


class Message(Struct, array_like=True):
    """Base of all messages; ``seq`` is always the first field after the verb."""

    seq: Seq
