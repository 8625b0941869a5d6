"""Causes of what waits, failed or ended: how each is made and bounded, and lines for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from msgspec.structs import replace

from zray import limits
from zray.core import failures
from zray.protocol import messages as m
from zray.protocol.errors import TASK_RAISED

UNKNOWN = "UNKNOWN"
FAILED = "FAILED"
READY = "READY"
NO_ANSWER = "NO_ANSWER"
BLOCKED = "BLOCKED"  # in get or wait
WAIT_DEPS = "WAIT_DEPS"
ALIKE_MAX = 3  # tasks in a row that wait for arguments, each for the next, are told one by one
DETAIL_CHARS_MAX = 300


class Link(NamedTuple):
    """A cause, and how the chain goes on.

    ``next``: the id of what it depends on; empty: nothing else. ``asks``: processes that know more
    of the same, one of which may. Where one does, a cause with the code UNKNOWN is not told.
    """

    cause: m.Cause
    next: bytes = b""
    asks: tuple[bytes, ...] = ()


def cause(
    kind: str,
    thing_id: bytes,
    name: str,
    code: str,
    text: str,
    *,
    since_s: float = -1.0,
    details: Iterable[tuple[str, str]] = (),
    more: int = 0,
    advice: str = "",
) -> m.Cause:
    """A cause within the bounds of messages; details beyond those are counted as ``more``."""
    found = [*details]
    more += max(0, len(found) - limits.WHY_DETAILS_MAX)
    told = [
        m.Detail(_cut(who, limits.NAME_MAX), _cut(what, DETAIL_CHARS_MAX))
        for who, what in found[: limits.WHY_DETAILS_MAX]
    ]
    return m.Cause(
        *(kind, thing_id[:20], _cut(name, limits.NAME_MAX), code[: limits.NAME_MAX]),
        *(_cut(text, limits.WHY_CHARS_MAX), since_s, told, more),
        _cut(advice, DETAIL_CHARS_MAX),
    )


def pass_over(
    found: list[m.Cause], thing_id: bytes, after: Callable[[bytes], bytes], most: int
) -> tuple[bytes, int]:
    """Where a chain goes on that is at a thing, and how many are left out: of very many tasks that
    wait for each other's results the first are told, and the last. The last of ``found`` says so.

    ``after``: the task for which that one waits, if both wait for arguments; empty: not so.
    ``most``: so many are passed over at most.
    """
    if len(found) < ALIKE_MAX or any(one.code != WAIT_DEPS for one in found[-ALIKE_MAX:]):
        return thing_id, 0
    count = 0
    while count < most and (then := after(thing_id)):
        thing_id, count = then, count + 1
    if count:
        last = found[-1]
        text = f"{last.text}; {count:,} more wait like that, each for the next; then"
        found[-1] = replace(last, text=_cut(text, limits.WHY_CHARS_MAX))
    return thing_id, count


def bounded(one: m.Cause) -> m.Cause:
    """A cause that somebody else has made, within the same bounds."""
    return cause(
        *(one.kind, one.id, one.name, one.code, one.text),
        since_s=one.since_s,
        details=[(detail.name, detail.text) for detail in one.details],
        more=one.more,
        advice=one.advice,
    )


def _cut(text: str, chars_max: int) -> str:
    return text if len(text) <= chars_max else f"{text[: chars_max - 3]}..."


def failed(kind: str, thing_id: bytes, name: str, error: bytes) -> m.Cause:
    """Of what ended with this error, as it was stored; nothing is unpickled."""
    record = failures.read(error)
    name = record.function_name or name
    if record.code == TASK_RAISED:
        raised = ": ".join(filter(None, (record.type_name, record.message)))
        text = f"{name or 'the task'} raised {raised}"
    else:
        text = record.message
    where = f"{record.node}, pid {record.pid}" if record.node and record.pid else record.node
    details = [("code", record.code)] if record.code else []
    details += [("ran on", where)] if where else []
    details += [("so it could not run", stopped) for stopped in reversed(record.stopped)]
    advice = "zray.get of it raises the error with its traceback" if record.traceback else ""
    return cause(kind, thing_id, name, FAILED, text, details=details, advice=advice)


def line(one: m.Cause) -> str:
    """A cause in one line, with its code."""
    return plain(f"{one.code}: {one.text}")


def chained(causes: Iterable[m.Cause]) -> str:
    """Causes in one sentence, the first one first."""
    return "; ".join(map(line, causes))


def lines(causes: Iterable[m.Cause]) -> list[str]:
    """All that is known, for a terminal: a line for each cause, and indented what belongs to it."""
    told: list[str] = []
    for place, one in enumerate(causes):
        since = f" (for {age(one.since_s)})" if one.since_s >= 0 else ""
        before = f"<- {_title(one)}: " if place else ""
        told.append(f"{before}{line(one)}{since}")
        told += [plain(f"    {detail.name}: {detail.text}") for detail in one.details]
        if one.more:
            told.append(f"    and {one.more:,} more")
        if one.advice:
            told.append(plain(f"    what would help: {one.advice}"))
    return told


def _title(one: m.Cause) -> str:
    short = one.id.hex() if len(one.id) > 16 else one.id[:16].hex()
    kind = "tasks that need" if one.kind == "class" else one.kind
    return plain(f"{kind} {one.name or short}")


def described(answer: m.Explanation) -> dict[str, Any]:
    """An answer as plain data; times in seconds, ids in hex."""
    return {
        "subject": answer.subject,
        "causes": [
            {
                "kind": one.kind,
                "id": one.id.hex(),
                "name": one.name,
                "code": one.code,
                "text": one.text,
                "since_s": round(one.since_s, 3) if one.since_s >= 0 else None,
                "details": [{"name": part.name, "text": part.text} for part in one.details],
                "more": one.more,
                "advice": one.advice,
            }
            for one in answer.causes
        ],
    }


def age(seconds: float) -> str:
    """A time span in words, as exact as it is short."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"


def plain(text: str) -> str:
    """Names come from anywhere: what is not printable is escaped, never sent to a terminal."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )
