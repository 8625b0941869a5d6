"""Messages about runtime environments: which there are on a node, asked for by people."""

from typing import Annotated

from msgspec import Meta, Struct

from zray import limits
from zray.protocol.parts import Count, Id, Message, Name, Text


class ListedEnvironment(Struct, array_like=True, frozen=True):
    """An environment of a job on a node.

    ``name``: as in a task's resources. ``shown``: the ``runtime_env``, as JSON. ``state``: READY,
    FAILED, or of the part that is being worked on: QUEUED, FETCHING, BUILDING. ``seconds``: that
    building took, or has taken. ``bytes``: of its parts on disk, which others may have as well.
    ``workers``: that have it; ``waiting``: tasks that wait for it. ``error``: why it failed.
    """

    job_id: Id
    name: Name
    shown: Text
    state: Name
    seconds: Annotated[float, Meta(ge=0)]
    bytes: Count
    workers: Count
    waiting: Count
    error: Text = ""


class ListEnvironments(Message, tag=231):
    """Which environments does the node ``target`` have?"""

    source: Id
    target: Id


class EnvironmentsListed(Message, tag=232):
    """Those that were named last first. ``known``: how many there are; ``bytes``: of all that is
    built there, which is let go of beyond ``bytes_max`` where nobody uses it."""

    target: Id
    about: Count
    environments: Annotated[
        list[ListedEnvironment], Meta(max_length=limits.ENVIRONMENTS_LISTED_MAX)
    ]
    known: Count
    bytes: Count
    bytes_max: Count


ENVIRONMENT_MESSAGES: tuple[type[Message], ...] = (ListEnvironments, EnvironmentsListed)
