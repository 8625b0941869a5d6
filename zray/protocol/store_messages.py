"""The messages between a raylet's object store and the processes of its machine that share memory.

Each is one packet of a unix socket, some with a segment's descriptor. A process writes into its
own segments only; whoever reads maps those of others, which are protected against writing.
"""

from typing import Annotated

from zray.protocol.parts import MANY, Count, Id, Message, ObjId, ObjIds, Outcome, Text

Regions = Annotated[list[tuple[Count, Count, Count]], MANY]  # segment, offset, bytes


class Attach(Message, tag=96):
    """First packet: which process this is. Answered with ATTACHED."""

    process_id: Id


class Attached(Message, tag=97):
    """``keep_bytes``: how much a process may keep in case that it is used."""

    node_id: Id
    keep_bytes: Count


class Room(Message, tag=98):
    """May this process write so many bytes more? Answered with GRANTED, perhaps after a while."""

    size: Count


class Granted(Message, tag=99):
    """``size``: how many it may write; 0: none, ``text`` says why.

    More than it asked for is for its next small objects. Exactly that much is kept for it until
    an object of that size is SEALED, or UNUSED.
    """

    about: Count
    size: Count
    text: Text = ""


class Sealed(Message, tag=100):
    """An object is complete in the sender's segment, whose descriptor comes with its first one.

    It is the sender's alone until it is published: by a PUT or an end of a task by way of this
    raylet, or with PUBLISHED, which comes before the head is told.
    """

    object_id: ObjId
    kind: Count
    segment: Count
    offset: Count
    size: Count
    contained: list[ObjId] = []
    more: bool = False


class Published(Message, tag=101):
    """The cluster has been told of these objects, and will free them."""

    object_ids: ObjIds


class Take(Message, tag=102):
    """Where is this object? Answered with PLACED, HERE or MISSING, once it is on this node."""

    object_id: ObjId


class Placed(Message, tag=103):
    """The object, for one reader; the segment's descriptor comes along the first time.

    A worker gets it unasked for an argument of a task that comes next.

    The region stays as it is until the reader has said UNVIEW as often as it got this.
    """

    object_id: ObjId
    kind: Count
    owner: Id
    segment: Count
    offset: Count
    size: Count
    contained: list[ObjId] = []
    more: bool = False


class Here(Message, tag=104):
    """The object is small: its value itself."""

    outcome: Outcome


class Missing(Message, tag=105):
    """The object cannot be had in this way; ``code`` and ``text`` say why."""

    object_id: ObjId
    code: Text
    text: Text


class Unview(Message, tag=106):
    """Nothing in the sender uses the memory of these objects any more, once for each mention."""

    object_ids: ObjIds


class Unput(Message, tag=107):
    """The sender does not need its own unpublished objects any more."""

    object_ids: ObjIds


class FreeRegions(Message, tag=108):
    """Regions of the receiver's segments that it may use again."""

    regions: Regions


class DropSegments(Message, tag=109):
    """Segments of process ``owner`` that are of no use any more: unmap them."""

    owner: Id
    segments: Annotated[list[Count], MANY]


class Released(Message, tag=110):
    """Empty segments of the sender's that it has closed."""

    segments: Annotated[list[Count], MANY]


class Relieve(Message, tag=111):
    """Memory is short: release what is kept only in case it is used. Answered with RELIEVED."""


class Unused(Message, tag=112):
    """The sender does not write the object for which it was granted so many bytes."""

    size: Count


class Relieved(Message, tag=113):
    """What the sender keeps now is in use: arrays that are in memory there."""


STORE_MESSAGES: tuple[type[Message], ...] = (
    *(Attach, Attached, Room, Granted, Sealed, Published, Take, Placed, Here, Missing),
    *(Unview, Unput, FreeRegions, DropSegments, Released, Relieve),
    Unused,
    Relieved,
)
