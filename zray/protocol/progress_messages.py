"""The message with which tasks show their job's driver how far they are."""

from typing import Annotated

from msgspec import Meta, Struct

from zray import limits
from zray.protocol.parts import Count, Id, Message, Name


class Bar(Struct, array_like=True, frozen=True, gc=False):
    """``number``: which of the process's bars. ``total`` 0: it is not known how much there is.

    ``ended``: nothing more will be said of it. ``unit``: what is counted; empty: not said.
    """

    number: Count
    label: Name
    done: Count
    total: Count
    ended: bool = False
    unit: Name = ""


class Progress(Message, tag=175):
    """How far a worker's tasks are with what they count: worker to raylet to head to driver.

    The state, not what has changed: each replaces the one before, so any may be left out. It is
    said again now and then for as long as it holds; who is silent about a bar has none any more.
    ``job_id``, ``name``, ``pid``, ``node`` as in LOG; their raylet fills them in.
    """

    job_id: Id
    name: Name
    pid: Count
    node: Name
    bars: Annotated[list[Bar], Meta(max_length=limits.BARS_MAX)]


PROGRESS_MESSAGES: tuple[type[Message], ...] = (Progress,)
