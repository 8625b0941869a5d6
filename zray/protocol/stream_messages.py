"""The messages between the worker that runs a generator and the process that consumes its items.

They go the way that the task or call came: over the socket of the lease or of the actor, or by way
of raylets and the head, which look only at ``target``. Both ends keep what they have said until it
is answered, so whatever is lost on the way is said again.
"""

from typing import Annotated

from zray.protocol.parts import MANY, Count, Id, Message, Outcome


class Items(Message, tag=140):
    """Worker to consumer: what a task or call has yielded, in order; kept until TAKEN.

    The index in an item's ObjectID is its number, from 1; the rest is the task's id, but for the
    highest bit of its ninth byte. None: ``target`` is asked how far it is.
    """

    source: Id
    target: Id
    task_id: Id
    outcomes: Annotated[list[Outcome], MANY]


class Taken(Message, tag=141):
    """Consumer to worker: it has, and holds, all items up to that number, and has used ``used``.

    ``closed``: it wants no more of them.
    """

    source: Id
    target: Id
    task_id: Id
    upto: Count
    used: Count
    closed: bool = False


STREAM_MESSAGES: tuple[type[Message], ...] = (Items, Taken)
