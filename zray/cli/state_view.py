"""What ``zray list``, ``get`` and ``summary`` show: tables for people, JSON for programs.

Names come from anywhere: what is not printable is escaped, and nothing of them is markup.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from zray.cli.entry import INTERRUPTED
from zray.cli.status import duration, locate
from zray.core.causes import plain
from zray.errors import HeadConnectionError, StateQueryError, ZrayError
from zray.nodes.driver.observer import Observer
from zray.protocol import messages as m
from zray.util.state.api import DEFAULT_RPC_TIMEOUT, StateList, listed
from zray.util.state.kinds import RECORDS
from zray.util.state.records import summary_of
from zray.util.state.source import Source

OK, UNKNOWN, UNREACHABLE = 0, 1, 2
WIDE = 100_000  # columns, where nobody looks: a program that reads it wants all of it
RETRY_S = 1.0

GOOD = {"RUNNING", "ALIVE", "READY", "SUCCEEDED", "CREATED"}
BAD = {"FAILED", "DEAD", "ERROR", "LOST", "SYSTEM_ERROR", "USER_ERROR"}
WAITS = {
    "RESTARTING",
    "RESCHEDULING",
    "WARNING",
    "PENDING",
    "DEPENDENCIES_UNREADY",
    "PENDING_CREATION",
}


class View(Protocol):
    """One answer, asked for and shown."""

    code: int

    def ask(self, asked: Source) -> None:
        """Have the head's answer."""

    def as_json(self) -> Any:
        """It, for programs."""

    def tables(self, width: int) -> list[RenderableType]:
        """It, for people."""


def show(view: View, addresses: list[str], *, as_json: bool, watch_s: float | None) -> int:
    """Ask and print, once or again and again; returns the exit code."""
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = WIDE
    while True:
        try:
            info, target = locate(addresses)
            with Observer(info, target) as observer:
                while True:
                    view.ask(observer)
                    _print(view, console, as_json=as_json, again=watch_s is not None)
                    if watch_s is None:
                        return view.code
                    time.sleep(watch_s)
        except KeyboardInterrupt:
            return INTERRUPTED
        except HeadConnectionError as error:
            if watch_s is None:
                return _failed(error, as_json=as_json)
            print(f"zray: {plain(str(error))}", file=sys.stderr)  # it may come again
            time.sleep(RETRY_S)
        except (ZrayError, OSError, ValueError) as error:
            return _failed(error, as_json=as_json)


def _failed(error: Exception, *, as_json: bool) -> int:
    if as_json:
        found = {"code": getattr(error, "code", ""), "message": str(error)}
        print(json.dumps({"error": found}, indent=2))
    else:
        print(f"zray: {plain(str(error))}", file=sys.stderr)
    return UNREACHABLE


def _print(view: View, console: Console, *, as_json: bool, again: bool) -> None:
    if as_json:
        print(json.dumps(view.as_json(), indent=None if again else 2), flush=True)
        return
    if again and console.is_terminal:
        console.clear()
    console.print(Group(*view.tables(console.width)))
    if again and not console.is_terminal:
        print(flush=True)


# ---- lists -------------------------------------------------------------------------------------

# Columns: heading, and the field or what makes it of the record.
COLUMNS: dict[str, list[tuple[str, str]]] = {
    "tasks": [
        *(("TASK ID", "task_id"), ("NAME", "name"), ("STATE", "state"), ("NODE", "node")),
        *(("PID", "worker_pid"), ("AGE", "age"), ("RAN", "ran"), ("WHY", "why")),
    ],
    "actors": [
        *(("ACTOR ID", "actor_id"), ("CLASS", "class_name"), ("NAME", "name")),
        *(("STATE", "state"), ("NODE", "node"), ("PID", "pid"), ("RESTARTS", "num_restarts")),
        *(("AGE", "age"), ("WHY", "why")),
    ],
    "objects": [
        *(("OBJECT ID", "object_id"), ("SIZE", "size"), ("STATE", "state")),
        *(("REFERENCE", "reference_type"), ("HOLDER", "holder"), ("HOLDERS", "num_holders")),
        ("NODES", "places"),
    ],
    "nodes": [
        *(("NODE ID", "node_id"), ("NAME", "node_name"), ("STATE", "state"), ("IP", "node_ip")),
        *(("CPU", "cpu"), ("GPU", "gpu"), ("WORKERS", "num_workers")),
        *(("RUNNING", "tasks_running"), ("QUEUED", "tasks_queued")),
        *(("FINISHED", "tasks_finished"), ("AGE", "age"), ("MESSAGE", "state_message")),
    ],
    "workers": [
        *(("WORKER ID", "worker_id"), ("TYPE", "worker_type"), ("ALIVE", "is_alive")),
        *(("NODE", "node"), ("IP", "ip"), ("PID", "pid"), ("AGE", "age")),
        *(("EXIT", "exit_type"), ("DETAIL", "exit_detail")),
    ],
    "jobs": [
        *(("JOB ID", "job_id"), ("SUBMISSION", "submission_id"), ("STATUS", "status")),
        ("ENTRYPOINT", "entrypoint"),
        *(("HOST", "host"), ("PID", "driver_pid"), ("USER", "user")),
        *(("UNFINISHED", "tasks_unfinished"), ("FINISHED", "tasks_finished")),
        *(("AGE", "age"), ("MESSAGE", "message")),
    ],
    "placement_groups": [
        *(("GROUP ID", "placement_group_id"), ("NAME", "name"), ("STATE", "state")),
        *(("STRATEGY", "strategy"), ("BUNDLES", "num_bundles"), ("NODES", "homes")),
        ("WHY", "why"),
    ],
    "events": [
        *(("TIME", "clock"), ("SEVERITY", "severity"), ("SOURCE", "source_type")),
        *(("EVENT", "label"), ("MESSAGE", "message")),
    ],
}
NUMBERS = frozenset(
    {
        *("PID", "RESTARTS", "SIZE", "HOLDERS", "WORKERS", "RUNNING", "QUEUED", "FINISHED"),
        *("UNFINISHED", "AGE", "RAN", "BYTES"),
    }
)
EXPLAINS = {"WHY", "MESSAGE", "DETAIL", "CALL SITE"}
GAP = 3  # columns between two
# What may be cut, and how much of it is shown at least.
LEAST = {"STATE": 12, "STATUS": 9, "CLASS": 12, "ENTRYPOINT": 16, "NODES": 8, "HOLDER": 12}
LEAST |= {"NAME": 12, "OBJECT": 16, "REFERENCE TYPE": 16, "HELD BY": 12, "WHERE": 8}
LEAST |= dict.fromkeys(EXPLAINS, 24)
# What is left out first where there is no room.
SPARE = (
    "USER",
    "IP",
    "HOST",
    "AGE",
    "PID",
    "RAN",
    "NODE",
    "SOURCE",
    "FINISHED",
    "QUEUED",
    "WORKERS",
)


class ListView:
    """Things of a kind that pass filters."""

    def __init__(
        self, kind: str, filters: list[tuple[str, str, str]], limit: int, *, detail: bool
    ) -> None:
        self.code = OK
        self._kind = kind
        self._filters = filters
        self._limit = limit
        self._detail = detail
        self._found = StateList()
        self._nodes: dict[str, str] = {}  # names by id

    def ask(self, asked: Source) -> None:
        what = (self._kind, self._filters, self._limit, DEFAULT_RPC_TIMEOUT)
        self._found = listed(asked, *what, detail=True)
        self._nodes = _node_names(asked)

    def as_json(self) -> Any:
        found = self._found
        names = RECORDS[self._kind].columns(detail=self._detail)
        return {
            "kind": self._kind,
            "total": found.total,
            "truncated": found.truncated,
            "dropped": found.dropped,
            "unlisted": found.unlisted,
            "rows": [{name: one[name] for name in names} for one in found],
        }

    def tables(self, width: int) -> list[RenderableType]:
        if self._detail:
            shown: list[RenderableType] = [_details(one, self._nodes) for one in self._found]
        else:
            rows = [_cells(one, self._kind, self._nodes) for one in self._found]
            heads = [heading for heading, _ in COLUMNS[self._kind]]
            shown = [table(heads, rows, width)] if rows else []
        return [*shown, Text(self._footer(), style="dim")]

    def _footer(self) -> str:
        found, kind = self._found, self._kind.replace("_", " ")
        what = kind if len(found) != 1 else kind[:-1]
        parts = [f"{len(found):,} {what}" if found else f"no {kind}"]
        if self._filters:
            parts[0] += f" of {found.total:,}, by the filters"
        if found.truncated:
            parts[0] += f" (of {found.total:,})" if not self._filters else ""
            parts.append("there are more: see --limit")
        if found.unlisted:
            parts.append(f"{found.unlisted:,} unfinished tasks wait at their programs or nodes")
        if found.dropped:
            parts.append(f"of {found.dropped:,} that have ended only the number is known")
        return "; ".join(parts)


class GetView:
    """One thing, by its id."""

    def __init__(self, kind: str, name: str) -> None:
        self.code = OK
        self._kind = kind
        self._name = name
        self._found = StateList()
        self._nodes: dict[str, str] = {}

    def ask(self, asked: Source) -> None:
        try:
            only = bytes.fromhex(self._name)
        except ValueError:
            only = b""
        if len(only) not in (16, 20):
            raise StateQueryError(
                f"{self._name!r} is no id; `zray list {self._kind}` shows them (32 hexadecimal "
                "digits, 40 of an object)"
            )
        self._found = listed(asked, self._kind, None, 100, DEFAULT_RPC_TIMEOUT, True, only)
        self._nodes = _node_names(asked)
        self.code = OK if self._found else UNKNOWN

    def as_json(self) -> Any:
        return [one.asdict() for one in self._found]

    def tables(self, width: int) -> list[RenderableType]:
        if not self._found:
            what = self._kind[:-1].replace("_", " ")
            text = f"{what} {self._name} is not known: it never was, or is forgotten"
            return [Text(text)]
        return [_details(one, self._nodes) for one in self._found]


class SummaryView:
    """How many there are, by name and state."""

    def __init__(self, kind: str) -> None:
        self.code = OK
        self._kind = kind
        self._answer: m.Summary | None = None

    def ask(self, asked: Source) -> None:
        question = m.Summarize(0, m.KINDS[self._kind])
        self._answer = asked.ask(question, m.Summary, DEFAULT_RPC_TIMEOUT)

    def as_json(self) -> Any:
        assert self._answer is not None
        return summary_of(self._answer)["cluster"]

    def tables(self, width: int) -> list[RenderableType]:
        answer = self._answer
        assert answer is not None
        states = [*dict.fromkeys(state for group in answer.groups for state, _ in group.states)]
        rows = []
        for group in sorted(answer.groups, key=lambda one: (one.type, one.name)):
            counts = dict(group.states)
            cells = [_plain(group.name), _plain(group.type)]
            cells += [Text(f"{counts[one]:,}" if one in counts else "") for one in states]
            if self._kind == "objects":
                cells.append(Text(size(group.bytes)))
            rows.append(cells)
        heads = ["NAME", "TYPE", *states, *(["BYTES"] if self._kind == "objects" else [])]
        total = f"{answer.total:,} {self._kind}"
        if answer.unlisted:
            total += f"; {answer.unlisted:,} unfinished ones wait at their programs or nodes"
        shown = [table(heads, rows, width, frozenset({*states, "BYTES"}))] if rows else []
        return [*shown, Text(total, style="dim")]


# ---- cells -------------------------------------------------------------------------------------


def _node_names(asked: Source) -> dict[str, str]:
    found = asked.ask(m.List(0, m.NODES), m.Listed, DEFAULT_RPC_TIMEOUT)
    return {row.node_id.hex(): row.name for row in found.nodes}


def table(
    heads: list[str],
    rows: list[list[Text]],
    width: int,
    numbers: frozenset[str] = NUMBERS,
    spare: Sequence[str] = SPARE,
) -> Table:
    """A table that fits. Columns without content are left out, and ``spare`` ones for want of room.

    Texts have what is left of the width; those that explain go on in further lines.
    """
    wanted = {
        at: max(len(heads[at]), *(row[at].cell_len for row in rows))
        for at in range(len(heads))
        if any(row[at].plain for row in rows)
    }
    least = {at: min(LEAST.get(heads[at], one), one) for at, one in wanted.items()}
    for name in spare:
        if sum(least.values()) + GAP * len(least) > width:
            least = {at: one for at, one in least.items() if heads[at] != name}
    left = width - sum(least.values()) - GAP * len(least)
    for at in least:
        if left < 0 and heads[at] in EXPLAINS:
            cut = min(-left, least[at] // 2)
            least[at] -= cut
            left += cut
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for at, one in least.items():
        more = max(0, min(left, wanted[at] - one))
        left -= more
        made.add_column(
            heads[at],
            justify="right" if heads[at] in numbers else "left",
            no_wrap=heads[at] not in EXPLAINS,
            overflow="fold" if heads[at] in EXPLAINS else "ellipsis",
            width=one + more,
        )
    for row in rows:
        made.add_row(*(row[at] for at in least))
    return made


def _cells(record: Any, kind: str, nodes: dict[str, str]) -> list[Text]:
    return [_plain(_cell(record, field, nodes)) for _, field in COLUMNS[kind]]


def _cell(record: Any, field: str, nodes: dict[str, str]) -> Any:
    made = _MADE.get(field)
    if made is not None:
        return made(record)
    if field == "node":
        return nodes.get(record.node_id or "", record.node_id)
    if field == "places":
        return " ".join(nodes.get(one, one[:8]) for one in record.node_ids or ())
    if field == "homes":
        homes = dict.fromkeys(one["node_id"] for one in record.bundles or () if one["node_id"])
        return " ".join(nodes.get(one, one[:8]) for one in homes)
    return record[field]


def _plain(value: Any) -> Text:
    if value is None or (value == 0 and value is not False):
        return Text("")
    text = plain(f"{value:,}" if type(value) is int and value > 99_999_999 else str(value))
    style = "green" if text in GOOD else "red" if text in BAD else ""
    if text in WAITS or text.startswith("PENDING_"):
        style = "yellow"
    return Text(text, style=style)


def size(count: int) -> str:
    """A number of bytes, for people."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def _age(record: Any) -> str:
    began = record.get("start_time_ms") or record.get("start_time")
    return duration(time.time() - began / 1000) if began else ""


def _ran(record: Any) -> str:
    began, ended = record.start_time_ms, record.end_time_ms
    if not began:
        return ""
    seconds = (ended / 1000 if ended else time.time()) - began / 1000
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)


def _why(record: Any) -> str:
    cause = record.get("death_cause") or {}
    message = record.get("error_message") or cause.get("error_message") or ""
    kind = record.get("error_type") or ""
    return record.reason or ": ".join(filter(None, (kind, message)))


def _used(name: str) -> Any:
    def used(record: Any) -> str:
        total = record.resources_total.get(name)
        if total is None:
            return ""
        free = (record.resources_available or {}).get(name, 0.0)
        return f"{total - free if record.state == 'ALIVE' else 0:g}/{total:g}"

    return used


def _holder(record: Any) -> str:
    return f"{record.type} {record.pid}" if record.type else record.holder_id or ""


def _clock(record: Any) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(record.time)))


_MADE: dict[str, Any] = {
    "age": _age,
    "ran": _ran,
    "why": _why,
    "cpu": _used("CPU"),
    "gpu": _used("GPU"),
    "size": lambda record: size(record.object_size) if record.object_size >= 0 else "",
    "holder": _holder,
    "host": lambda record: (record.driver_info or {}).get("node_ip_address"),
    "driver_pid": lambda record: (record.driver_info or {}).get("pid"),
    "clock": _clock,
    "label": lambda record: (record.custom_fields or {}).get("label"),
    "num_bundles": lambda record: len(record.bundles or ()),
}


def _details(record: Any, nodes: dict[str, str]) -> RenderableType:
    """All fields that have a value, a line each."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in record.asdict().items():
        if value in (None, "", [], {}):
            continue
        if name.endswith(("_time_ms", "start_time", "end_time")):
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value / 1000))
            text = Text(f"{stamp}.{value % 1000:03d}")
        elif name == "node_id" and value in nodes:
            text = Text(f"{value} ({plain(nodes[value])})")
        elif isinstance(value, dict | list):
            text = Text(plain(json.dumps(value, ensure_ascii=False)))
        else:
            text = _plain(value) if value not in (0, False) else Text(str(value))
        table.add_row(name, text)
    table.add_row("", "")
    return table
