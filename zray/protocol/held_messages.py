"""The messages about what holds objects: asked by an observer, of drivers and nodes, by the head.

The head knows which processes, tasks and objects hold what it has heard of. What a process holds
for itself, and where its references were made, the process knows; nodes ask their workers.
"""

from typing import Annotated

from msgspec import Meta, Struct

from zray import limits
from zray.protocol.parts import MANY, Count, Id, Message, ObjId, Seq
from zray.protocol.state_messages import Word
from zray.protocol.usage_messages import StoreUsage

# HeldObject.place
IN_PROCESS = "PROCESS"
IN_STORE = "STORE"

# ListedObject.held
LOCAL_REFERENCE = "LOCAL_REFERENCE"
USED_BY_PENDING_TASK = "USED_BY_PENDING_TASK"
CAPTURED_IN_OBJECT = "CAPTURED_IN_OBJECT"
ACTOR_HANDLE = "ACTOR_HANDLE"
PINNED_IN_MEMORY = "PINNED_IN_MEMORY"
CAPTURED_IN_ACTOR = "CAPTURED_IN_ACTOR"
HELD_OTHERWISE = "UNKNOWN_STATUS"

Site = Annotated[str, Meta(max_length=limits.SITE_CHARS_MAX)]
HeldRows = Meta(max_length=limits.HELD_NODE_ROWS_MAX)


class HeldObject(Struct, array_like=True, frozen=True, gc=False):
    """One object of which a process has references. ``state``: PENDING, READY or ERROR.

    ``place``: PROCESS if the process has the value for itself, STORE if that is in its node's
    shared memory; empty: elsewhere. ``local``: references of the program; ``tasks``: unfinished
    tasks and calls made here that use it; ``contained``: values of the process's own that refer to
    it. ``pinned``: the process has it mapped. ``site``: which of the ``sites``, from 1, made it.
    ``is_handle``: it stands for an actor.
    """

    object_id: ObjId
    size: Count
    state: Word
    place: Word = ""
    local: Count = 0
    tasks: Count = 0
    contained: Count = 0
    pinned: bool = False
    site: Count = 0
    is_handle: bool = False


class HeldBy(Struct, array_like=True, frozen=True):
    """What one process holds: the largest objects. ``left_out``: how many others.

    ``pid`` and ``title`` as the node of a worker knows them; of a driver not said.
    ``records_sites``: whether it notes the lines that make its references.
    """

    process_id: Id
    objects: Annotated[list[HeldObject], HeldRows]
    sites: Annotated[list[Site], Meta(max_length=limits.SITES_MAX)] = []
    left_out: Count = 0
    records_sites: bool = False
    pid: Count = 0
    title: Word = ""


class StoredHere(Struct, array_like=True, frozen=True, gc=False):
    """An object in a node's shared memory, or, ``spilled``, in a file of the node only.

    ``viewers``: processes that have it mapped, some of them.
    """

    object_id: ObjId
    size: Count
    spilled: bool = False
    viewers: Annotated[list[Id], Meta(max_length=limits.HELD_VIEWERS_MAX)] = []


class AskHeld(Message, tag=212):
    """What does the process ``target`` hold: a driver, or a node's store and its workers?

    ``most``: so many objects of each process at most.
    """

    source: Id
    target: Id
    most: Annotated[int, Meta(ge=0, le=limits.HELD_ROWS_MAX)] = limits.HELD_ROWS_MAX


class Held(Message, tag=213):
    """The answer. ``silent``: pids of workers that have not answered their node in time.

    ``stored``: the largest objects of its store; ``store``: all of them, in figures.
    """

    target: Id
    about: Seq
    holders: Annotated[list[HeldBy], MANY]
    stored: Annotated[list[StoredHere], HeldRows] = []
    store: StoreUsage = StoreUsage()
    silent: Annotated[list[Count], MANY] = []


HELD_MESSAGES: tuple[type[Message], ...] = (AskHeld, Held)
