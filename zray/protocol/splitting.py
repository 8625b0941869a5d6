"""How a message that is too large for its receiver becomes several, and these one again.

Owns, for each kind of message, what of it can be cut. Each part means by itself what the whole
means of its items, or says ``more``: then the receiver puts the parts together first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from msgspec.structs import replace

from zray import limits
from zray.errors import ProtocolError
from zray.ids import OBJECT_BYTES, TASK_BYTES
from zray.protocol import messages as m
from zray.protocol.messages import Message


class Rule(NamedTuple):
    """``field`` is a list, or ids of ``width`` bytes each.

    ``acknowledged``: a ``seq`` stands for the whole, so that only the last part has it.
    ``joined``: the whole is more than its parts, which say ``more``.
    """

    field: str
    width: int = 0
    acknowledged: bool = False
    joined: bool = False


RULES: dict[type[Message], Rule] = {
    m.Exported: Rule("function_ids"),
    m.Forget: Rule("function_ids", TASK_BYTES),
    m.Submit: Rule("tasks"),
    m.Begun: Rule("tasks"),
    m.Near: Rule("jobs"),
    m.Publish: Rule("object_ids", OBJECT_BYTES),
    m.Result: Rule("outcomes", acknowledged=True),
    m.Hold: Rule("object_ids", OBJECT_BYTES, joined=True),
    m.Drop: Rule("object_ids", OBJECT_BYTES),
    m.Watch: Rule("object_ids", OBJECT_BYTES),
    m.Promise: Rule("object_ids", OBJECT_BYTES),
    m.Free: Rule("object_ids", OBJECT_BYTES),
    m.Have: Rule("object_ids", OBJECT_BYTES),
    m.Log: Rule("lines"),
    m.KvReply: Rule("keys", joined=True),
    m.Tasks: Rule("tasks"),
    m.Made: Rule("tasks"),
    m.Relay: Rule("words"),
    m.Done: Rule("tasks", acknowledged=True),
    m.Returned: Rule("task_ids", TASK_BYTES),
    m.Discard: Rule("tasks"),
    m.Announce: Rule("objects", joined=True),
    m.ActorWatch: Rule("actor_ids"),
    m.ActorNames: Rule("names", joined=True),
    m.Calls: Rule("calls"),
    m.Replies: Rule("replies"),
    m.Items: Rule("outcomes"),
    m.AskGone: Rule("process_ids", TASK_BYTES, joined=True),
    m.Gone: Rule("process_ids", TASK_BYTES, joined=True),
    m.Query: Rule("object_ids", joined=True),
    m.Reasons: Rule("reasons", joined=True),
    m.Status: Rule("nodes", joined=True),
    m.Sealed: Rule("contained", joined=True),
    m.Placed: Rule("contained", joined=True),
    m.Published: Rule("object_ids", OBJECT_BYTES),
    m.Unview: Rule("object_ids", OBJECT_BYTES),
    m.Unput: Rule("object_ids", OBJECT_BYTES),
    m.FreeRegions: Rule("regions"),
    m.DropSegments: Rule("segments"),
    m.Released: Rule("segments"),
    m.Fetch: Rule("object_ids", OBJECT_BYTES),
    m.Groups: Rule("groups", joined=True),
}
# These have several lists.
LISTS: dict[type[Message], tuple[str, ...]] = {
    m.Announce: ("tasks", "objects", "holds", "jobs", "failed", "actors", "leases", "bundles"),
    m.Status: ("nodes", "jobs", "classes", "notices", "counters", "actors"),
}
# One thing each: what is variable in them is bounded where they are made.
WHOLE: frozenset[type[Message]] = frozenset(
    {
        *(m.Hello, m.Welcome, m.Refused, m.Rejoin, m.Goodbye, m.Rejected),
        *(m.Template, m.Export, m.Put, m.Chunk, m.PullFailed, m.PullFrom, m.Notice, m.Kv),
        *(m.Credit, m.Reclaim, m.Job, m.Shutdown, m.Setup, m.CreateActor, m.ActorCreated),
        *(m.ActorState, m.FindActor, m.ActorFound, m.ListActors, m.StopActor, m.ActorExited),
        *(m.Exiting, m.Granted, m.Here, m.Missing, m.Deadline, m.Trace, m.Traced),
        *(m.ResultAck, m.Cancel, m.Pull, m.ChunkAck, m.Ping, m.Pong, m.Ack, m.CancelTask),
        *(m.JobEnded, m.WorkerDied, m.Recall, m.Blocked, m.Unblocked, m.Exit, m.KillActor),
        *(m.Sync, m.Synced, m.CancelCall, m.Attach, m.Attached, m.Room, m.Take, m.Relieve),
        *(m.Unused, m.Relieved, m.FindDriver, m.DriverEnded),
        *(m.Demand, m.Grant, m.Leased, m.Revoke, m.LeaseEnded, m.Leasing, m.CancelLeased),
        *(m.Runs, m.Reach, m.Reaches, m.RelayRefused, m.Crowded, m.Taken),
        *(m.List, m.Listed, m.Summarize, m.Summary, m.TaskReport),
        *(m.Locate, m.Answered, m.ReadLog, m.LogFiles, m.LogPart, m.Examine, m.Examined),
        *(m.Kill, m.Drain, m.Progress, m.Measure, m.Measured, m.AskHeld, m.Held),
        *(m.Why, m.Explained, m.AskWhy, m.ToldWhy),
        *(m.Scrape, m.Scraped, m.Recorded),
        *(m.KeepRun, m.ReadRun, m.RunPart, m.ListRuns, m.RunsListed),
        *(m.CreateGroup, m.RemoveGroup, m.AskGroups, m.Reserve, m.Reserved),
        *(m.ListEnvironments, m.EnvironmentsListed),
        *(m.SubmitJob, m.EndJob, m.JobAnswered, m.AskJobs, m.JobsTold, m.JobExited),
        *(m.NotLeader, m.HeadsChanged, m.StepDown, m.SteppingDown),
    }
)
_HOLDS_PIECE = 512  # ids: one process's holds are cut into these, to be put in parts


# ---- apart -------------------------------------------------------------------------------------


def items(message: Message) -> int:
    """How many things the message has that its receiver handles one by one."""
    rule = RULES.get(type(message))
    if rule is None:
        return 1
    if type(message) in LISTS:
        return 1 + sum(len(getattr(message, name)) for name in LISTS[type(message)])
    return 1 + len(getattr(message, rule.field)) // (rule.width or 1)


def cut(message: Message, pieces: int) -> list[Message]:
    """The message as about so many parts, in order; empty: it is one thing.

    A part that is cut again gives parts of the whole.
    """
    rule = RULES.get(type(message))
    if rule is None:
        return []
    if type(message) is m.Announce:
        parts = _cut_lists(message, LISTS[m.Announce], pieces, _pieces_of_holds)
    elif type(message) is m.Status:
        parts = _cut_lists(message, LISTS[m.Status], pieces, list)
    else:
        parts = _cut_field(message, rule, pieces)
    for part in parts[:-1]:
        if rule.acknowledged:
            part.seq = 0
        if rule.joined and _is_whole(message):
            part.more = True  # type: ignore[attr-defined]
    return parts


def _is_whole(message: Message) -> bool:
    """Whether its parts are to be put together; of a HOLD, only what is the full state."""
    return not isinstance(message, m.Hold) or message.full


def _cut_field(message: Message, rule: Rule, pieces: int) -> list[Message]:
    found = getattr(message, rule.field)
    width = rule.width or 1
    slices = [found[low * width : high * width] for low, high in _spans(len(found), width, pieces)]
    if len(slices) < 2:
        return []
    parts: list[Message] = [replace(message, **{rule.field: one}) for one in slices]
    if isinstance(message, m.Relay):
        number = message.first
        for part in parts:
            assert isinstance(part, m.Relay)
            part.first = number
            number += len(part.words)
    if isinstance(message, m.Tasks) and message.values:
        by_id = {outcome.object_id: outcome for outcome in message.values}
        for part in parts:
            assert isinstance(part, m.Tasks)
            needed = {oid: None for task in part.tasks for oid in task.spec.dependencies}
            part.values = [by_id[oid] for oid in needed if oid in by_id]
    return parts


def _spans(size: int, width: int, pieces: int) -> list[tuple[int, int]]:
    count = size // width
    step = max(1, -(-count // max(2, pieces)))
    return [(low, min(low + step, count)) for low in range(0, count, step)]


def _cut_lists(
    message: Message, names: tuple[str, ...], pieces: int, prepare: Callable[[Any], list[Any]]
) -> list[Message]:
    """Cut at places of all its lists, one after the other."""
    flat: list[tuple[str, Any]] = []
    for name in names:
        found = getattr(message, name)
        flat += [(name, item) for item in (prepare(found) if name == "holds" else found)]
    parts: list[Message] = []
    for low, high in _spans(len(flat), 1, pieces):
        fields: dict[str, list[Any]] = {name: [] for name in names}
        for name, item in flat[low:high]:
            fields[name].append(item)
        parts.append(replace(message, **fields))
    return parts if len(parts) > 1 else []


def _pieces_of_holds(holds: Iterable[m.Holds]) -> list[m.Holds]:
    found: list[m.Holds] = []
    for one in holds:
        step = _HOLDS_PIECE * OBJECT_BYTES
        if len(one.object_ids) <= step:
            step = max(1, len(one.object_ids) // OBJECT_BYTES // 2) * OBJECT_BYTES
        for low in range(0, max(len(one.object_ids), 1), step):
            found.append(m.Holds(one.holder, one.object_ids[low : low + step]))
    return found


def lightened(message: Message) -> Message | None:
    """The same without what its receiver can ask for; None: there is no such thing in it."""
    if isinstance(message, m.Tasks) and message.values:
        return m.Tasks(message.seq, message.tasks)
    return None


# ---- together ----------------------------------------------------------------------------------

JOINED = frozenset(kind for kind, rule in RULES.items() if rule.joined)


class Joiner:
    """Puts the parts together that one peer sends in one session."""

    def __init__(self) -> None:
        self._parts: dict[type[Message], list[Any]] = {}
        self._items = 0

    def take(self, message: Any) -> Message | None:
        """The whole message that is here with this one; None: more of it is to come.

        Raises:
            ProtocolError: more comes than is ever taken; what has come is forgotten.
        """
        kind = type(message)
        if kind not in JOINED:
            return message  # type: ignore[no-any-return]
        parts = self._parts.get(kind)
        if not message.more:
            if parts is None:
                return message  # type: ignore[no-any-return]
            del self._parts[kind]
            self._items -= sum(map(items, parts))
            return _joined([*parts, message])
        self._items += items(message)
        if self._items > limits.JOINED_ITEMS_MAX:
            self._parts.clear()
            self._items = 0
            raise ProtocolError(
                f"the parts of a {kind.__name__} have more than {limits.JOINED_ITEMS_MAX} items"
            )
        if parts is None:
            self._parts[kind] = [message]
        else:
            parts.append(message)
        return None

    def clear(self) -> None:
        """Another session begins: what is not complete will be told anew."""
        self._parts.clear()
        self._items = 0


def _joined(parts: list[Any]) -> Message:
    kind = type(parts[0])
    fields: dict[str, Any] = {}
    for name in LISTS.get(kind, (RULES[kind].field,)):
        if RULES[kind].width:
            fields[name] = b"".join(getattr(part, name) for part in parts)
        else:
            fields[name] = [item for part in parts for item in getattr(part, name)]
    if kind is m.Announce:
        holds: dict[bytes, list[bytes]] = {}
        for one in fields["holds"]:
            holds.setdefault(one.holder, []).append(one.object_ids)
        fields["holds"] = [m.Holds(holder, b"".join(ids)) for holder, ids in holds.items()]
    joined: Message = replace(parts[-1], **fields)
    return joined
