"""The messages about actors. Calls belong to their caller: it numbers them, keeps each until it is
answered, and decides about retries; the head only passes them on where there is no direct way.
"""

from typing import Annotated

from msgspec import Meta

from zray.protocol.parts import (
    MANY,
    ActorInfo,
    Call,
    CallDone,
    Count,
    Id,
    IdOrNone,
    Ids,
    Message,
    Name,
    ObjIds,
    Seq,
    TaskSpec,
    Text,
)


class CreateActor(Message, tag=38):
    """Make an actor; answered with ACTOR_CREATED once it is durable.

    ``task`` runs its constructor, under the template that it names; its id is the actor's. The
    actor ends with ``owner``, unless it is detached.
    """

    job_id: Id
    owner: Id
    task: TaskSpec
    info: ActorInfo
    get_if_exists: bool = False


class ActorCreated(Message, tag=39):
    """``code`` empty: there is the actor ``actor_id``, which may be an existing one."""

    about: Seq
    actor_id: Id
    info: ActorInfo
    code: Name = ""
    text: Text = ""


class ActorWatch(Message, tag=40):
    """Tell ``watcher`` the state of these actors now and whenever it changes."""

    watcher: Id
    actor_ids: Annotated[list[Id], MANY]


class ActorState(Message, tag=41):
    """For process ``target``. ``incarnation``: the present one, or the last one that lived.

    ``link`` changes when calls passed on by the head may have been lost: whatever is unanswered is
    to be sent again. ``machine`` as in NodeInfo. ``error``: of a dead actor, the encoded
    ErrorRecord that its calls get. ``away``: it is ALIVE, but the head does not reach its node, as
    ``text`` says; another ACTOR_STATE tells when that is over.
    """

    target: Id
    actor_id: Id
    state: Annotated[int, Meta(ge=1, le=4)]
    incarnation: Count
    link: Count
    node_id: IdOrNone = b""
    worker_id: IdOrNone = b""
    machine: Name = ""
    text: Text = ""
    error: bytes = b""
    away: bool = False


class KillActor(Message, tag=42):
    """End an actor now; answered with SYNCED. With ``no_restart`` False it may start again."""

    actor_id: Id
    no_restart: bool


class FindActor(Message, tag=43):
    """Look an actor up by name; ``holder`` then has a handle."""

    holder: Id
    namespace: Name
    name: Name


class ActorFound(Message, tag=44):
    """``info`` is None where there is no such actor."""

    about: Seq
    actor_id: IdOrNone = b""
    info: ActorInfo | None = None


class ListActors(Message, tag=45):
    """The names of living actors: of one namespace, or of all."""

    namespace: Name
    all_namespaces: bool


class ActorNames(Message, tag=46):
    """The answer to LIST_ACTORS."""

    about: Seq
    names: Annotated[list[tuple[Name, Name]], MANY]  # namespace, name
    more: bool = False


class Promise(Message, tag=47):
    """``holder`` will PUT these objects, which others have heard of: they are results of calls."""

    holder: Id
    object_ids: ObjIds


class Sync(Message, tag=64):
    """Answered with SYNCED: everything that was sent before has been applied."""


class Synced(Message, tag=65):
    """The answer to SYNC and KILL_ACTOR: what was sent until then has been applied."""

    about: Seq


class Calls(Message, tag=66):
    """Calls of one actor by one process, in order; may be none.

    ``upto``: the caller has all replies to calls with a lower number, and needs none of them again.
    """

    actor_id: Id
    incarnation: Count
    caller: Id
    upto: Seq
    calls: Annotated[list[Call], MANY]


class Replies(Message, tag=67):
    """Ends of calls, for ``caller``; kept by the actor until the caller's ``upto`` passes them."""

    actor_id: Id
    incarnation: Count
    caller: Id
    replies: Annotated[list[CallDone], MANY]


class CancelCall(Message, tag=68):
    """Drop a call that has not started; ask a running one to stop.

    ``recursive``: also the calls that it has made.
    """

    actor_id: Id
    incarnation: Count
    caller: Id
    task_id: Id
    recursive: bool = False


class StopActor(Message, tag=69):
    """Head to raylet: end this incarnation; ``graceful``: after the calls that it has."""

    actor_id: Id
    incarnation: Count
    graceful: bool
    reason: Text


class ActorExited(Message, tag=70):
    """Raylet to head: the actor's worker has ended. ``intended``: by the actor's own wish."""

    actor_id: Id
    incarnation: Count
    intended: bool
    text: Text


class AskGone(Message, tag=71):
    """Which of these processes (ProcessIDs, concatenated) have ended? Answered with GONE."""

    process_ids: Ids
    more: bool = False


class Gone(Message, tag=72):
    """``process_ids``: those that will never be heard of again."""

    about: Seq
    process_ids: Ids
    more: bool = False


class Exiting(Message, tag=85):
    """Worker to raylet: this actor ends now because it wants to.

    One that is no actor, and gives no reason: nothing more starts in it; EXIT ends it.
    """

    reason: Text


ACTOR_MESSAGES: tuple[type[Message], ...] = (
    *(CreateActor, ActorCreated, ActorWatch, ActorState, KillActor, FindActor, ActorFound),
    *(ListActors, ActorNames, Promise, Sync, Synced, Calls, Replies, CancelCall),
    *(StopActor, ActorExited, Exiting, AskGone, Gone),
)
