"""The messages of why something waits, failed or ended: asked of the head, which asks who knows."""

from typing import Annotated

from msgspec import Meta, Struct

from zray import limits
from zray.protocol.parts import Amounts, Count, IdOrNone, Message, Name, Seq, Text

AnyId = Annotated[bytes, Meta(max_length=20)]  # of an object, or of anything else


class Detail(Struct, array_like=True, frozen=True):
    """One of several things that a cause is about: a node and what is missing there, say."""

    name: Name
    text: Text


class Cause(Struct, array_like=True, frozen=True):
    """What is true of one thing, and why.

    ``kind``: task, call, attempt, object, actor, node, job, worker, driver or function. ``code``:
    stable. ``since_s``: for so many seconds it has been so; below 0: nobody knows. ``more``: so
    many details are left out. ``advice``: what would help; empty: nothing has to.
    """

    kind: Name
    id: AnyId
    name: Name
    code: Name
    text: Text
    since_s: float = -1.0
    details: Annotated[list[Detail], Meta(max_length=limits.WHY_DETAILS_MAX)] = []
    more: Count = 0
    advice: Text = ""


Causes = Annotated[list[Cause], Meta(max_length=limits.WHY_CHAIN_MAX)]


class Explanation(Struct, array_like=True, frozen=True):
    """The answer about one ``subject``, as it was asked for.

    ``causes``: of the subject itself first; each other is what the one before waits for.
    """

    subject: Name
    causes: Causes


class Why(Message, tag=170):
    """Why are these as they are? Each is an id in hex, or the name of a node or an actor.

    ``patience_s``: others who know are waited for no longer than this.
    """

    subjects: Annotated[list[Name], Meta(max_length=limits.WHY_SUBJECTS_MAX)]
    patience_s: Annotated[float, Meta(ge=0, le=limits.WHY_ASK_S)] = limits.WHY_ASK_S


class Explained(Message, tag=171):
    """The answer to WHY, in the order of its subjects."""

    about: Seq
    answers: Annotated[list[Explanation], Meta(max_length=limits.WHY_SUBJECTS_MAX)]


class AskWhy(Message, tag=172):
    """Head to driver or raylet: what do you know of this id? Answered with TOLD_WHY.

    ``lease_id``: it is of a task of that ``name``, which the worker of this lease runs.
    """

    id: AnyId
    lease_id: IdOrNone = b""
    name: Name = ""


class ToldWhy(Message, tag=173):
    """The answer to ASK_WHY. ``causes`` empty: nothing. ``next``: an id on which that depends.

    ``needs``: resources of which the last of them waits for some to be free. ``lease_id``: the
    worker of this lease runs it.
    """

    about: Seq
    causes: Causes
    next: AnyId = b""
    needs: Amounts = []
    lease_id: IdOrNone = b""


WHY_MESSAGES: tuple[type[Message], ...] = (Why, Explained, AskWhy, ToldWhy)
