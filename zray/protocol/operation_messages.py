"""The messages of operators: which process is meant, its log, its stack, and its end; drains.

An observer asks. The head answers, or passes the question on to the ``target``, a node, whose
answer goes back to the ``target`` of that. Nothing is pushed: each answer is bounded, and whoever
reads a log asks for its next part.
"""

from typing import Annotated

from msgspec import Meta, Struct

from zray import limits
from zray.protocol.parts import Count, Id, IdOrNone, Message, Name, ObjIds, Seconds, Seq, Text

# Answered.kind, and what a LOCATE may be restricted to
SOMETHING = 0
A_NODE = 1
A_WORKER = 2
AN_ACTOR = 3
A_TASK = 4
THE_HEAD = 5

Kind = Annotated[int, Meta(ge=0, le=THE_HEAD)]


class Locate(Message, tag=180):
    """What is it, and where? ``word`` is an id in hexadecimal digits, a name or a pid.

    Without ``target`` the head answers. A node is asked for its workers and what these run; it asks
    the workers in turn for a task that it has not given to them itself. ``running``: a task that
    has ended, and is known for what it has printed, is not meant.
    """

    source: Id
    word: Name
    kind: Kind = SOMETHING
    target: IdOrNone = b""
    running: bool = False


class Answered(Message, tag=181):
    """The answer to LOCATE, KILL and DRAIN. ``about``: their ``seq``. ``code``: of an error.

    ``subject``: the id of what was asked for; ``title``: of what it is made, or its name.
    ``worker_id``: of the process, where it is in one; empty: not known here, or it is a daemon.
    ``pid`` of a process; with a ``code``, not 0: it may be there all the same.
    """

    target: Id
    about: Seq
    code: Name = ""
    text: Text = ""
    kind: Kind = SOMETHING
    subject: IdOrNone = b""
    title: Name = ""
    node_id: IdOrNone = b""
    node: Name = ""
    worker_id: IdOrNone = b""
    pid: Count = 0


class LogFile(Struct, array_like=True, frozen=True):
    """One log on a node. ``file_id``: changes when another file takes its name.

    ``worker_id`` empty: of the node's daemon, or the head's. ``pid`` 0: not known any more.
    ``modified_s``: since 1970.
    """

    name: Name
    file_id: Count
    size: Count
    modified_s: float
    worker_id: IdOrNone = b""
    pid: Count = 0
    job_id: IdOrNone = b""
    title: Name = ""
    alive: bool = False


class ReadLog(Message, tag=182):
    """A part of a log of the node ``target``, from ``offset``; without ``name``: which are there.

    ``file_id``: the file that is meant, though it may have been renamed since; 0: the one that has
    the name now. ``head_pid``: set by the head, for its own node: whose log is there too.
    ``task_id``: only what that task has printed, one piece after the other, as if it was a file.
    """

    source: Id
    target: Id
    name: Name = ""
    file_id: Count = 0
    offset: Count = 0
    size: Annotated[int, Meta(ge=0, le=limits.LOG_PART_BYTES_MAX)] = limits.LOG_PART_BYTES_MAX
    head_pid: Count = 0
    task_id: IdOrNone = b""


class LogFiles(Message, tag=183):
    """The logs of a node, the newest last. ``left_out``: how many older ones there are."""

    target: Id
    about: Seq
    files: Annotated[list[LogFile], Meta(max_length=limits.LOG_FILES_TOLD_MAX)]
    left_out: Count = 0


class LogPart(Message, tag=184):
    """Bytes of a log from ``offset``; none: nothing follows as yet.

    ``size``: of the whole file. ``rotated``: another file has its name by now, and nothing follows;
    then ``next_id`` is the one that does. ``text`` without ``code``: a remark.
    """

    target: Id
    about: Seq
    file_id: Count = 0
    offset: Count = 0
    size: Count = 0
    data: Annotated[bytes, Meta(max_length=limits.LOG_PART_BYTES_MAX)] = b""
    rotated: bool = False
    code: Name = ""
    text: Text = ""
    next_id: Count = 0


class Examine(Message, tag=185):
    """Where is a process now (``seconds`` 0), or where does it spend its time?

    ``worker_id`` empty: the node's daemon, or the head if ``head_pid`` is set, by the head.
    A node asks its worker the same, where it cannot look by itself.
    """

    source: Id
    target: Id
    worker_id: IdOrNone = b""
    seconds: Annotated[float, Meta(ge=0, le=limits.PROFILE_S_MAX)] = 0.0
    of_head: bool = False
    head_pid: Count = 0


class Examined(Message, tag=186):
    """``data``: the stacks as text, or a flame graph as SVG. ``text`` with it: a remark."""

    target: Id
    about: Seq
    data: Annotated[bytes, Meta(max_length=limits.EXAMINED_BYTES_MAX)] = b""
    code: Name = ""
    text: Text = ""


class Kill(Message, tag=187):
    """End a task, with force, an actor for good, or a worker's process with what it runs.

    ``target``: the node of a worker; else the head sees to it.
    """

    source: Id
    kind: Kind
    subject: Id
    target: IdOrNone = b""


class Drain(Message, tag=188):
    """The node is to take no more work, and to leave when what it has has ended or moved.

    ``deadline_s``: then at the latest; 0: whenever that is. The head tells the node the same: it
    gives back what has not started.
    """

    source: Id
    node_id: Id
    reason: Text = ""
    deadline_s: Seconds = 0.0


class Fetch(Message, tag=189):
    """The raylet is to get copies of these objects, and to say HAVE."""

    object_ids: ObjIds


OPERATION_MESSAGES: tuple[type[Message], ...] = (
    *(Locate, Answered, ReadLog, LogFiles, LogPart, Examine, Examined, Kill, Drain, Fetch),
)
