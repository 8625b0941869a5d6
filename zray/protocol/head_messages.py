"""Messages about the heads of one cluster: which there are, which one leads, and that it changes.

Where the store is shared, any number of heads make one cluster. One leads; the others stand by,
and answer every HELLO with NOT_LEADER.
"""

from typing import Annotated

from msgspec import Meta, Struct

from zray import limits
from zray.protocol.parts import Count, Id, Message, Name, Text

Addresses = Annotated[list[Name], Meta(max_length=limits.HEAD_ADDRESSES_MAX)]


class HeadInfo(Struct, array_like=True, frozen=True):
    """One head's account of itself: ``head_id`` is of its process, not of a term as leader.

    ``addresses``: host:port where it listens, the best first. ``since_s``: when it started, wall
    clock. ``leads``: as far as whoever says this knows. ``minor``: of the protocol that it speaks.
    """

    head_id: Id
    addresses: Addresses
    host: Name
    pid: Count
    zray: Name
    since_s: float
    leads: bool = False
    minor: Count = 0


Heads = Annotated[list[HeadInfo], Meta(max_length=limits.HEADS_MAX)]


class NotLeader(Message, tag=243):
    """The answer to a HELLO of a head that does not lead; it closes the connection then.

    ``epoch``: of the leader, the largest that this head knows; 0: it knows none. ``heads``: all
    that it knows, without one that leads where there is none now. ``text``: for people.
    """

    epoch: Count
    heads: Heads
    text: Text


class HeadsChanged(Message, tag=244):
    """The leader tells its members which heads there are from now on; as WELCOME's ``heads``."""

    heads: Heads


class StepDown(Message, tag=245):
    """An operator asks the leader to stand by, so that another head leads.

    Answered by STEPPING_DOWN, or by REJECTED where no other head is there to lead.
    """

    reason: Text


class SteppingDown(Message, tag=246):
    """The leader's last word: what was acknowledged is stored, and it gives its lead back now."""

    about: Count
    heads: Heads


HEAD_MESSAGES: tuple[type[Message], ...] = (NotLeader, HeadsChanged, StepDown, SteppingDown)
