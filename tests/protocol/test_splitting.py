"""Every message that can be too large: at, below and above each bound, from outbox to receiver."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from random import Random
from typing import Any

import msgspec
import pytest

from zray import limits
from zray.core.machine import Outbox
from zray.errors import ProtocolError
from zray.ids import OBJECT_BYTES, TASK_BYTES
from zray.protocol import codec, splitting
from zray.protocol import messages as m

FRAME, SOFT, ITEMS = 4096, 2048, 24
CUT = sorted(splitting.RULES, key=lambda kind: kind.__name__)


@pytest.fixture(autouse=True)
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FRAME_BYTES_MAX", FRAME)
    monkeypatch.setattr(limits, "PAYLOAD_BYTES_SOFT", SOFT)
    monkeypatch.setattr(limits, "PAYLOAD_ITEMS_MAX", ITEMS)


# ---- messages of any kind and size -----------------------------------------------------------


def any_value(kind: msgspec.inspect.Type, random: Random) -> Any:
    match kind:
        case msgspec.inspect.BytesType(min_length=least, max_length=most):
            size = least if least is not None else random.randint(0, min(most or 40, 40))
            return random.randbytes(size)
        case msgspec.inspect.StrType():
            return "\u00e9" * random.randint(0, 6)
        case msgspec.inspect.IntType(ge=least, lt=beyond, le=last):
            top = beyond - 1 if beyond is not None else 1000 if last is None else last
            return random.randint(least or 0, top)
        case msgspec.inspect.BoolType():
            return random.random() < 0.5
        case msgspec.inspect.FloatType():
            return random.random()
        case msgspec.inspect.ListType(item_type=item):
            return [any_value(item, random) for _ in range(random.randint(0, 2))]
        case msgspec.inspect.TupleType(item_types=items):
            return tuple(any_value(item, random) for item in items)
        case msgspec.inspect.UnionType(types=kinds):
            return any_value(random.choice(kinds), random)
        case msgspec.inspect.NoneType():
            return None
        case msgspec.inspect.StructType(cls=part):
            return any_part(part, random)
    raise AssertionError(f"no example for {kind}")


def any_part(kind: type[Any], random: Random) -> Any:
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    return kind(*[any_value(field.type, random) for field in info.fields])


def lists(kind: type[m.Message]) -> tuple[str, ...]:
    return splitting.LISTS.get(kind, (splitting.RULES[kind].field,))


def message(kind: type[m.Message], count: int, random: Random) -> Any:
    """One with so many items, in each of its lists."""
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    made = any_part(kind, random)
    made.seq = random.randint(1, 1000)
    width = splitting.RULES[kind].width
    for field in info.fields:
        if field.name == "more":
            made.more = False
        elif field.name not in lists(kind):
            continue
        elif width:
            setattr(made, field.name, random.randbytes(width * count))
        else:
            assert isinstance(field.type, msgspec.inspect.ListType)
            items = [any_value(field.type.item_type, random) for _ in range(count)]
            setattr(made, field.name, items)
    return in_order(made, random)


def in_order(made: Any, random: Random) -> Any:
    """What the sender of such a message sees to."""
    if isinstance(made, m.Tasks):
        needed = {oid: None for task in made.tasks for oid in task.spec.dependencies}
        made.values = [m.Outcome(oid, m.VALUE, 9, random.randbytes(9)) for oid in needed]
    elif isinstance(made, m.Announce):
        holds = [m.Holds(one.holder, random.randbytes(OBJECT_BYTES * 7)) for one in made.holds]
        made.holds = [*holds, m.Holds(random.randbytes(16), b"")]
    elif isinstance(made, m.Hold):
        made.full = random.random() < 0.5
    return made


# ---- the way ---------------------------------------------------------------------------------


def parts_of(messages: list[m.Message]) -> Iterator[m.Message]:
    """What arrives of them, part by part; no payload is larger than its receiver takes."""
    outbox: Outbox[str] = Outbox()
    for one in messages:
        outbox.send("peer", one)
    unsent: list[codec.Unsent] = []
    for data in codec.encode(7, outbox.take()["peer"], unsent):
        payload = codec.decode(data)
        assert payload.epoch == 7
        assert not payload.refused, payload.refused
        assert len(data) <= FRAME
        if len(data) > SOFT or sum(map(splitting.items, payload.messages)) > ITEMS:
            assert len(payload.messages) == 1
            assert not splitting.cut(payload.messages[0], 2)
        yield from payload.messages
    assert not unsent


def received(messages: list[m.Message]) -> list[m.Message]:
    """The same, put together as a receiver does it."""
    joiner = splitting.Joiner()
    whole = [joiner.take(part) for part in parts_of(messages)]
    return [one for one in whole if one is not None]


def united(parts: list[Any]) -> Any:
    """What parts mean that are not put together."""
    fields: dict[str, Any] = {}
    for name in lists(type(parts[0])):
        values = [getattr(part, name) for part in parts]
        joined: Any = b"" if isinstance(values[0], bytes) else []
        for value in values:
            joined += value
        fields[name] = joined
    if isinstance(parts[0], m.Tasks):
        for part in parts:
            needed = {oid for task in part.tasks for oid in task.spec.dependencies}
            assert {value.object_id for value in part.values} == needed
        values = {value.object_id: value for part in parts for value in part.values}
        fields["values"] = list(values.values())
    if isinstance(parts[0], m.Relay):
        fields["first"] = number = parts[0].first
        for part in parts:
            assert part.first == number
            number += len(part.words)
    return msgspec.structs.replace(parts[-1], **fields)


COUNTS = (0, 1, 2, ITEMS - 2, ITEMS - 1, ITEMS, ITEMS + 1, 2 * ITEMS, 150)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", CUT, ids=lambda kind: kind.__name__)
def test_what_is_cut_means_the_same(kind: type[m.Message], count: int) -> None:
    sent = message(kind, count, Random(count))
    parts = received([sent])
    if splitting.RULES[kind].joined and getattr(sent, "full", True):
        assert parts == [sent]
        return
    assert united(parts) == sent
    if count > ITEMS:
        assert len(parts) > 1
    seqs = {part.seq for part in parts[:-1]}
    if splitting.RULES[kind].acknowledged:
        assert seqs <= {0}
    else:
        assert seqs <= {sent.seq}
    assert parts[-1].seq == sent.seq


@pytest.mark.parametrize("extra", [-1, 0, 1])
@pytest.mark.parametrize("bound", [SOFT, FRAME])
@pytest.mark.parametrize("kind", CUT, ids=lambda kind: kind.__name__)
def test_bytes_at_each_bound(kind: type[m.Message], bound: int, extra: int) -> None:
    """Exactly as long as the bound, one less and one more, by items of the right length."""
    sent = message(kind, 6, Random(3))
    field = lists(kind)[0]
    for name in lists(kind):
        if isinstance(getattr(sent, name), list):
            del getattr(sent, name)[6:]
    padded = pad(sent, field, bound + extra - len(codec.encode_local([sent], 1 << 30)[0]))
    parts = received([padded])
    joined = splitting.RULES[kind].joined and getattr(sent, "full", True)
    assert (parts[0] if joined else united(parts)) == padded


def pad(sent: Any, field: str, room: int) -> Any:
    """Longer by about ``room`` bytes in all, spread over the items where they have any length."""
    width = splitting.RULES[type(sent)].width
    if width:
        more = bytes(max(0, room) // width * width)
        return msgspec.structs.replace(sent, **{field: getattr(sent, field) + more})
    items = list(getattr(sent, field))
    while room > 0 and items:
        items.append(items[len(items) % 6])
        room -= max(1, len(msgspec.msgpack.encode(items[-1])))
    if isinstance(sent, m.Tasks):
        return in_order(msgspec.structs.replace(sent, tasks=items), Random(5))
    return msgspec.structs.replace(sent, **{field: items})


@pytest.mark.parametrize("seed", range(20))
def test_a_turn_of_everything_arrives_in_order(seed: int) -> None:
    random = Random(seed)
    kinds = random.choices(CUT, k=30)
    sent = [message(kind, random.choice(COUNTS), random) for kind in kinds]
    for one in sent:
        if isinstance(one, m.Hold):
            one.full = True
    arrived = received(sent)
    assert runs([type(one) for one in arrived]) == runs(kinds)
    assert [one for one in arrived if type(one) in splitting.JOINED] == [
        one for one in sent if type(one) in splitting.JOINED
    ]


def runs(kinds: list[type[m.Message]]) -> list[type[m.Message]]:
    """Without those that follow one of the same kind."""
    return [one for place, one in enumerate(kinds) if not place or kinds[place - 1] is not one]


def test_each_message_of_the_protocol_can_be_cut_or_is_one_thing() -> None:
    """Whoever adds a message has to say in ``splitting`` what of it is cut."""
    assert not splitting.RULES.keys() & splitting.WHOLE
    assert {*splitting.RULES} | splitting.WHOLE == set(m.ALL)


def test_each_list_is_cut_or_bounded_where_it_is_made() -> None:
    """Lists and ids of one thing, which cannot be cut, are these and no others."""
    bounded = {
        *("Hello.features", "Welcome.features", "Template.resources", "Export.contained"),
        "Template.labels",
        *("Chunk.contained", "Tasks.values", "Credit.released", "Credit.floors"),
        *("Reclaim.resources", "Setup.imports", "Setup.python_path"),
        *("EnvironmentsListed.environments", "Demand.resources", "Grant.resources"),
        "Leasing.resources",
        *(
            "Demand.served",
            "Reach.nodes",
            "Near.classes",
            *("Traced.workers", "Traced.fetched"),
            "LogFiles.files",
        ),
        "Progress.bars",
        *(f"Listed.{name}" for name in m.KINDS),
        *("List.filters", "Summary.groups"),
        *(f"TaskReport.{name}" for name in ("ended", "running", "tallies", "workers")),
        *("Why.subjects", "Explained.answers", "ToldWhy.causes", "ToldWhy.needs"),
        *("Measured.processes", "Held.holders", "Held.stored", "Held.silent"),
        "Recorded.programs",
        "Scraped.figures",
        "Scraped.programs",
        "TaskReport.durations",
        "RunsListed.runs",
        *("CreateGroup.bundles", "Reserve.bundles"),
        *("SubmitJob.metadata", "JobsTold.jobs"),
        *(f"{kind}.heads" for kind in ("Welcome", "Status", "NotLeader", "HeadsChanged")),
        "SteppingDown.heads",
    }
    found = {
        f"{kind.__name__}.{field.name}"
        for kind in m.ALL
        for field in msgspec.inspect.type_info(kind).fields  # type: ignore[union-attr]
        if isinstance(field.type, msgspec.inspect.ListType)
    }
    cut = {f"{kind.__name__}.{name}" for kind in splitting.RULES for name in lists(kind)}
    assert found - cut == bounded


# ---- what does not fit -----------------------------------------------------------------------


def task(size: int, number: int = 0) -> m.TaskSpec:
    return m.TaskSpec(bytes([number]) * 16, bytes(16), bytes(size))


def test_one_thing_that_does_not_fit_is_left_out_alone() -> None:
    tasks = [task(10, 1), task(FRAME, 2), task(10, 3)]
    sent = [m.Ping(0, 1.0), m.Submit(0, bytes(16), bytes(16), tasks), m.Ping(0, 2.0)]
    unsent: list[codec.Unsent] = []
    payloads = codec.encode(1, sent, unsent)
    arrived = [one for data in payloads for one in codec.decode(data).messages]
    told = [spec for one in arrived if isinstance(one, m.Submit) for spec in one.tasks]
    assert told == [tasks[0], tasks[2]]
    assert [one.sent_s for one in arrived if isinstance(one, m.Ping)] == [1.0, 2.0]
    [(message, text)] = unsent
    assert isinstance(message, m.Submit)
    assert message.tasks == [tasks[1]]
    assert "does not fit" in text


def test_without_a_place_for_what_does_not_fit_it_is_an_error() -> None:
    with pytest.raises(ProtocolError, match=r"Submit message.*was not sent"):
        codec.encode(1, [m.Submit(0, bytes(16), bytes(16), [task(FRAME)])])


def test_values_that_do_not_fit_are_left_to_be_asked_for() -> None:
    spec = m.TaskSpec(bytes(16), bytes(16), b"", [b"%020d" % number for number in range(3)])
    values = [m.Outcome(oid, m.VALUE, FRAME, bytes(FRAME)) for oid in spec.dependencies]
    assignment = m.Assignment(1, bytes(16), spec)
    [arrived] = received([m.Tasks(0, [assignment], values)])
    assert arrived == m.Tasks(0, [assignment])


@pytest.mark.parametrize(
    "bad",
    [
        m.Log(0, bytes(16), "f", 1, "n", False, ["fine", "half a character: \ud800"]),
        m.Ack(0, 1 << 70),
    ],
    ids=["text", "integer"],
)
def test_what_cannot_be_written_does_not_hold_up_the_rest(bad: m.Message) -> None:
    unsent: list[codec.Unsent] = []
    payloads = codec.encode(1, [m.Ping(0, 1.0), bad, m.Ping(0, 2.0)], unsent)
    arrived = [one for data in payloads for one in codec.decode(data).messages]
    assert [one.sent_s for one in arrived if isinstance(one, m.Ping)] == [1.0, 2.0]
    assert len(unsent) == 1
    assert type(unsent[0].message) is type(bad)


def test_on_one_machine_one_thing_may_have_any_size() -> None:
    sent = m.Submit(0, bytes(16), bytes(16), [task(10, 1), task(4 * FRAME, 2), task(10, 3)])
    payloads = codec.encode_local([sent])
    assert len(payloads) == 3
    parts = [one for data in payloads for one in codec.decode(data).messages]
    assert united(parts) == sent


# ---- what a receiver does not take -----------------------------------------------------------


def test_too_many_messages_are_refused_before_any_is_made() -> None:
    ping = msgspec.msgpack.encode(m.Ping(0, 1.0))
    count = 2_000_000
    data = b"\x92\x01\xdd" + count.to_bytes(4, "big") + ping * count
    tracemalloc.start()
    with pytest.raises(ProtocolError, match=f"{count} messages"):
        codec.decode(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_too_many_items_are_refused_with_the_message_alone() -> None:
    ids = [bytes(16)] * (codec._PAYLOAD_ITEMS_MAX + 1)
    data = msgspec.msgpack.encode((1, [m.Exported(5, ids), m.Ping(6, 1.0)]))
    payload = codec.decode(data)
    assert payload.messages == [m.Ping(6, 1.0)]
    assert [bad.seq for bad in payload.refused] == [5]


@pytest.mark.parametrize("epoch", [0, 200, 60_000, 1 << 20, 1 << 40])
def test_as_many_messages_as_are_taken(epoch: int) -> None:
    data = msgspec.msgpack.encode((epoch, [m.Recall(0)] * codec._PAYLOAD_ITEMS_MAX))
    assert len(codec.decode(data).messages) == codec._PAYLOAD_ITEMS_MAX
    data = msgspec.msgpack.encode((epoch, [m.Recall(0)] * (codec._PAYLOAD_ITEMS_MAX + 1)))
    with pytest.raises(ProtocolError):
        codec.decode(data)


def test_parts_without_an_end_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JOINED_ITEMS_MAX", 100)
    joiner = splitting.Joiner()
    part = m.Hold(0, bytes(16), bytes(OBJECT_BYTES * 60), full=True, more=True)
    assert joiner.take(part) is None
    with pytest.raises(ProtocolError, match="100 items"):
        joiner.take(part)
    last = m.Hold(0, bytes(16), bytes(OBJECT_BYTES), full=True)
    assert joiner.take(last) == last


def test_a_new_session_begins_without_parts_of_the_last() -> None:
    joiner = splitting.Joiner()
    assert joiner.take(m.Gone(0, 1, bytes(TASK_BYTES), more=True)) is None
    joiner.clear()
    last = m.Gone(0, 1, bytes(TASK_BYTES))
    assert joiner.take(last) == last
