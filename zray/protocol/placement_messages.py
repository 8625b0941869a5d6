"""The messages of placement groups: clients ask for them, and raylets reserve their bundles."""

from typing import Annotated

from msgspec import Meta, Struct

from zray import limits
from zray.protocol.parts import (
    MANY,
    Amounts,
    Count,
    Id,
    IdOrNone,
    Message,
    Name,
    Seq,
    Text,
)

BUNDLES = "bundles"  # Hello.features of a node that takes RESERVE

# GroupStatus.state
GROUP_PENDING = 1  # it has no places yet
GROUP_CREATED = 2
GROUP_RESCHEDULING = 3  # it had them all, and some have gone with their nodes
GROUP_REMOVED = 4
GROUP_STATES = {1: "PENDING", 2: "CREATED", 3: "RESCHEDULING", 4: "REMOVED"}

# Reserve.step
PREPARE = 0
COMMIT = 1
RELEASE = 2

# Reserved.outcome
PREPARED = 0
UNPREPARED = 1
RELEASED = 2

BundleIndex = Annotated[int, Meta(ge=0, lt=limits.BUNDLES_MAX)]
Strategy = Annotated[int, Meta(ge=0, le=3)]


class Bundle(Struct, array_like=True, frozen=True, gc=False):
    """Resources that are reserved together on one node. ``labels``: what a node has to have, as one
    selector of TEMPLATE; empty: any will do."""

    resources: Amounts
    labels: list[tuple[Name, Text]] = []


Bundles = Annotated[list[Bundle], Meta(min_length=1, max_length=limits.BUNDLES_MAX)]


class PlacedBundle(Struct, array_like=True, frozen=True, gc=False):
    """One bundle on a node, or that is to be there."""

    index: BundleIndex
    resources: Amounts


class HeldBundle(Struct, array_like=True, frozen=True, gc=False):
    """A bundle that a raylet has reserved. ``round``: of the PREPARE that it follows."""

    group_id: Id
    index: BundleIndex
    resources: Amounts
    round: Count
    committed: bool


class GroupStatus(Struct, array_like=True, frozen=True, gc=False):
    """A placement group. ``nodes``: of each bundle, where it is; empty: nowhere yet.

    ``strategy``: PACK, SPREAD, STRICT_PACK or STRICT_SPREAD, from 0. ``reason``: what it waits for.
    ``rounds``: how often nodes were asked to reserve bundles of it.
    """

    group_id: Id
    name: Name
    namespace: Name
    strategy: Strategy
    detached: bool
    job_id: Id
    state: Count
    bundles: Annotated[list[Bundle], MANY]
    nodes: Annotated[list[IdOrNone], MANY]
    reason: Text = ""
    rounds: Count = 0


class CreateGroup(Message, tag=225):
    """Reserve these bundles, all or none; answered with GROUPS, which has it, once that is durable.

    An answer without a group, and a ``code``: there is one of that name in the namespace.
    ``detached``: it outlives its job.
    """

    group_id: Id
    job_id: Id
    strategy: Strategy
    bundles: Bundles
    name: Name = ""
    namespace: Name = ""
    detached: bool = False


class RemoveGroup(Message, tag=226):
    """What runs in the group ends, and its nodes have the resources back; answered with SYNCED."""

    group_id: Id


class AskGroups(Message, tag=227):
    """Answered with GROUPS: the one of that id, or of that name in the namespace, or all.

    ``placed``: once it has a place for each bundle, or is no more.
    """

    group_id: IdOrNone = b""
    name: Name = ""
    namespace: Name = ""
    placed: bool = False


class Groups(Message, tag=228):
    """``code``, ``text``: why there is no such group."""

    about: Seq
    groups: Annotated[list[GroupStatus], MANY]
    more: bool = False
    code: Name = ""
    text: Text = ""


class Reserve(Message, tag=229):
    """Head to raylet: a step for bundles of a group, all of those that are named or none.

    PREPARE takes what they need of the node, COMMIT makes resources of its own of each, and RELEASE
    gives back what they have taken, after what runs in them has ended. ``round``: rises with each
    PREPARE of the group. Answered with RESERVED, but for COMMIT.
    """

    group_id: Id
    round: Count
    step: Annotated[int, Meta(ge=0, le=2)]
    bundles: Annotated[list[PlacedBundle], MANY]


class Reserved(Message, tag=230):
    """Raylet to head: how a step has ended. ``text``: what the node lacks; UNPREPARED: it has none
    of what was asked for."""

    group_id: Id
    round: Count
    outcome: Annotated[int, Meta(ge=0, le=2)]
    text: Text = ""


PLACEMENT_MESSAGES: tuple[type[Message], ...] = (
    *(CreateGroup, RemoveGroup, AskGroups, Groups, Reserve, Reserved),
)
