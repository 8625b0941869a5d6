"""The messages of a timeline: which tasks have run where, and when, as their workers remember."""

from typing import Annotated

from msgspec import Meta, Struct

from zray import limits
from zray.protocol.parts import MANY, Id, IdOrNone, Message, Name, Seq


class Span(Struct, array_like=True, frozen=True, gc=False):
    """A task that has ended. ``began_s``: in seconds since 1970. ``is_call``: of an actor.

    ``parent``: the task that has submitted it. ``loaded_s``: of its seconds, so many until function
    and arguments were there; 0: that was not noted.
    """

    name: Name
    task_id: Id
    began_s: float
    seconds: float
    is_call: bool = False
    parent: IdOrNone = b""
    loaded_s: float = 0.0


class Submitted(Struct, array_like=True, frozen=True, gc=False):
    """A task or call that a process has submitted while that was noted. ``at_s``: since 1970.

    ``seconds``: that this took its program. ``parent``: the task in which that was; ``uses``: those
    whose results are its arguments, some of them.
    """

    task_id: Id
    name: Name
    at_s: float
    seconds: float
    parent: IdOrNone = b""
    uses: Annotated[list[Id], Meta(max_length=limits.USES_TOLD_MAX)] = []
    is_call: bool = False


class Fetched(Struct, array_like=True, frozen=True, gc=False):
    """A task's arguments that its node has fetched; ``began_s``: of the clock of MEASURED."""

    task_id: Id
    began_s: float
    seconds: float


class WorkerSpans(Struct, array_like=True, frozen=True):
    """The last tasks of one worker, in the order in which they have ended.

    ``submits``: what it has submitted, or, without spans, what the driver ``worker_id`` has.
    """

    node_id: Id
    worker_id: Id
    spans: Annotated[list[Span], MANY]
    submits: Annotated[list[Submitted], MANY] = []


class Trace(Message, tag=150):
    """What has run at ``target``? A driver or worker asks a node, and a node its workers; an
    observer a driver as well.

    ``echo``: nothing is asked; the node answers once it has told what its workers have printed.
    ``record_s``: for so long is to be noted what is submitted and fetched there.
    """

    source: Id
    target: Id
    echo: bool = False
    record_s: Annotated[float, Meta(ge=0, le=limits.RECORD_S_MAX)] = 0.0


class Traced(Message, tag=151):
    """The answer: the last tasks that have ended there. ``about``: the ``seq`` of the TRACE.

    From a worker that ends, with ``about`` 0: what it would have answered later. ``clock_s``: of a
    driver, when it answered, since 1970. ``fetched``: by the node.
    """

    source: Id
    target: Id
    about: Seq
    workers: Annotated[list[WorkerSpans], MANY] = []
    clock_s: float = 0.0
    fetched: Annotated[list[Fetched], MANY] = []


TRACE_MESSAGES: tuple[type[Message], ...] = (Trace, Traced)
