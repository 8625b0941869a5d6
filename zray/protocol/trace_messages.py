"""The messages of a timeline: which tasks have run where, and when, as their workers remember."""

from typing import Annotated

from msgspec import Struct

from zray.protocol.parts import MANY, Id, Message, Name, Seq


class Span(Struct, array_like=True, frozen=True, gc=False):
    """A task that has ended. ``began_s``: in seconds since 1970. ``is_call``: of an actor."""

    name: Name
    task_id: Id
    began_s: float
    seconds: float
    is_call: bool = False


class WorkerSpans(Struct, array_like=True, frozen=True):
    """The last tasks of one worker, in the order in which they have ended."""

    node_id: Id
    worker_id: Id
    spans: Annotated[list[Span], MANY]


class Trace(Message, tag=150):
    """What has run at ``target``? A driver or worker asks a node, and a node its workers.

    ``echo``: nothing is asked; the node answers once it has told what its workers have printed.
    """

    source: Id
    target: Id
    echo: bool = False


class Traced(Message, tag=151):
    """The answer: the last tasks that have ended there. ``about``: the ``seq`` of the TRACE.

    From a worker that ends, with ``about`` 0: what it would have answered later.
    """

    source: Id
    target: Id
    about: Seq
    workers: Annotated[list[WorkerSpans], MANY] = []


TRACE_MESSAGES: tuple[type[Message], ...] = (Trace, Traced)
