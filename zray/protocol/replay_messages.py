"""The messages of replays: what it takes to make a failed attempt again, kept by its node.

Whoever runs an attempt, or sees how it has failed, has its node keep that. A driver that makes it
again reads it from there, part by part, as logs are read: nothing is pushed.
"""

from typing import Annotated

from msgspec import Meta, Struct

from zray import limits
from zray.protocol.parts import Count, Id, IdOrNone, Message, Name, Text

Brief = Annotated[str, Meta(max_length=limits.BRIEF_TEXT_MAX)]
RunBytes = Annotated[bytes, Meta(max_length=limits.REPLAY_RUN_BYTES_MAX)]
FunctionBytes = Annotated[bytes, Meta(max_length=limits.FUNCTION_INLINE_BYTES_MAX)]


class KeptRun(Struct, array_like=True, frozen=True, gc=False):
    """One failed attempt that can be made again.

    ``failed_s``: since 1970. ``error``: in short. ``size``: bytes in all. ``is_call``: of an
    actor's method.
    """

    task_id: Id
    attempt: Count
    name: Name
    job_id: IdOrNone
    failed_s: float
    error: Brief
    size: Count = 0
    is_call: bool = False


class KeepRun(Message, tag=220):
    """An attempt has failed: keep what it takes to make it again.

    From a worker to its node, and from a driver for a worker that died; the head passes that on to
    a node. ``data``: of the attempt, in a form that only Python reads; ``function``: pickled, and
    kept once however many attempts are of it.
    """

    run: KeptRun
    function_id: Id
    function: FunctionBytes
    data: RunBytes
    node_id: IdOrNone = b""


class ReadRun(Message, tag=221):
    """A part of what the node ``target`` keeps of a task's last failed attempt, from ``offset``."""

    source: Id
    target: Id
    task_id: Id
    offset: Count = 0


class RunPart(Message, tag=222):
    """Bytes of that: its data, and behind that the function, ``function_size`` bytes of ``size``.

    ``code``: there is no such attempt here, which ``text`` says.
    """

    target: Id
    about: Count
    size: Count = 0
    function_size: Count = 0
    data: Annotated[bytes, Meta(max_length=limits.REPLAY_PART_BYTES_MAX)] = b""
    code: Name = ""
    text: Text = ""


class ListRuns(Message, tag=223):
    """Which failed attempts does the node ``target`` keep?"""

    source: Id
    target: Id


class RunsListed(Message, tag=224):
    """The latest of them first. ``kept``: how many there are; ``dropped``: were, before these."""

    target: Id
    about: Count
    runs: Annotated[list[KeptRun], Meta(max_length=limits.REPLAY_LISTED_MAX)]
    kept: Count
    dropped: Count
    bytes: Count


REPLAY_MESSAGES: tuple[type[Message], ...] = (KeepRun, ReadRun, RunPart, ListRuns, RunsListed)
