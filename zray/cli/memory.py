"""What ``zray memory`` shows: each object with who holds it, groups, totals and stores."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from zray.cli import reporting, state_view
from zray.cli.reporting import Failed
from zray.core.causes import plain
from zray.util.state.memory import MemoryReport, NodeMemory, ReferenceState, gather

UNITS = {"B": 0, "KB": 10, "MB": 20, "GB": 30}
SORTS: dict[str, Callable[[ReferenceState], Any]] = {
    "size": lambda row: (-row.object_size, row.object_id),
    "pid": lambda row: (row.pid, -row.object_size, row.object_id),
    "reference_type": lambda row: (row.reference_type, -row.object_size, row.object_id),
}
GROUPS: dict[str, Callable[[ReferenceState], str]] = {
    "node": lambda row: row.node or "no process",
    "call_site": lambda row: row.call_site or "not known",
}
HEADS = [
    *("OBJECT", "SIZE", "STATE", "REFERENCE TYPE", "HELD BY", "PID", "NODE", "WHERE"),
    "CALL SITE",
]
NUMBERS = frozenset({"SIZE", "PID"})
SHORT = {"shared memory of ": "", "spilled at ": "disk of "}


class MemoryView:
    """``units``: of sizes; empty: such as fits. ``most``: so many lines."""

    def __init__(self, group_by: str, sort_by: str, units: str, most: int) -> None:
        self._group_by = group_by
        self._sort_by = sort_by
        self._units = units
        self._most = most

    def tables(self, report: MemoryReport, width: int, *, only_stats: bool) -> list[RenderableType]:
        """All of it, for people."""
        shown: list[RenderableType] = []
        rows = sorted(report.references, key=SORTS[self._sort_by])
        if not only_stats:
            groups: dict[str, list[ReferenceState]] = {"": rows}
            if self._group_by:
                groups = {}
                for row in rows:
                    groups.setdefault(GROUPS[self._group_by](row), []).append(row)
            for name, members in groups.items():
                if name:
                    shown.append(Text(f"{plain(name)}: {self._sum(members)}", style="bold"))
                if members:
                    cells = [self._cells(row) for row in members[: self._most]]
                    shown.append(state_view.table(HEADS, cells, width, NUMBERS))
                if len(members) > self._most:
                    text = f"{len(members) - self._most:,} smaller ones are not shown: see -n"
                    shown.append(Text(text, style="dim"))
        return [*shown, *self._footer(report)]

    def _footer(self, report: MemoryReport) -> list[RenderableType]:
        lines = [self._sum(report.references)]
        counts = Counter(row.reference_type for row in report.references)
        if counts:
            lines.append(", ".join(f"{count:,} {kind}" for kind, count in counts.most_common()))
        lines += [f"node {plain(one.name)}: {self._store(one)}" for one in report.nodes]
        if report.left_out:
            lines.append(f"processes hold {report.left_out:,} others, which are smaller")
        if report.unlisted:
            lines.append(f"{report.unlisted:,} more objects of the cluster were not looked at")
        if not report.records_sites and report.references:
            lines.append(
                "which line made a reference is not recorded: ZRAY_RECORD_CALL_SITE=1 in the "
                "program's environment"
            )
        texts: list[RenderableType] = [Text(line, style="dim") for line in lines]
        for who in report.silent:
            texts.append(Text(f"{plain(who)} has not answered", style="yellow"))
        return texts

    def _sum(self, rows: list[ReferenceState]) -> str:
        sizes = {row.object_id: row.object_size for row in rows}
        what = f"{len(sizes):,} object{'s' * (len(sizes) != 1)}"
        refs = f"{len(rows):,} reference{'s' * (len(rows) != 1)}"
        return f"{what}, {self._size(sum(sizes.values()))}, by {refs}"

    def _store(self, one: NodeMemory) -> str:
        share = 100 * one.used_bytes / one.capacity_bytes if one.capacity_bytes else 0.0
        spilled = f", {self._size(one.spilled_bytes)} spilled" if one.spilled_bytes else ""
        return (
            f"{self._size(one.used_bytes)} of {self._size(one.capacity_bytes)} of shared memory "
            f"({share:.0f}%), {one.objects:,} objects{spilled}"
        )

    def _size(self, count: int) -> str:
        if not self._units:
            return state_view.size(count)
        amount = count / (1 << UNITS[self._units])
        return f"{amount:,.0f} B" if self._units == "B" else f"{amount:,.2f} {self._units}"

    def _cells(self, row: ReferenceState) -> list[Text]:
        others = [f"{kind} {count}" for kind, count in [*row.references.items()][1:]]
        first = row.references.get(row.reference_type, 1)
        kinds = row.reference_type + (f" {first}" if first > 1 else "")
        holder = f"{row.type} {row.holder_name}" if row.holder_name else row.type
        if row.type in ("TASK", "OBJECT", "ACTOR"):
            holder += f" {row.holder_id}"
        where = ", ".join(row.places)
        for long, short in SHORT.items():
            where = where.replace(long, short)
        cells = [
            *(row.object_id, self._size(row.object_size), row.state, ", ".join([kinds, *others])),
            *(holder, str(row.pid or ""), row.node, where, row.call_site.replace("disabled", "")),
        ]
        return [Text(plain(cell)) for cell in cells]


def show(
    addresses: list[str],
    view: MemoryView,
    *,
    only_stats: bool,
    as_json: bool,
) -> int:
    """Ask and print; returns the exit code."""
    try:
        with reporting.operator(addresses, as_json=as_json) as operator:
            report = gather(operator)
            if as_json:
                reporting.show(report.described(references=not only_stats))
                return 0
            console = Console(highlight=False, markup=False, emoji=False)
            if not console.is_terminal:
                console.width = state_view.WIDE
            console.print(Group(*view.tables(report, console.width, only_stats=only_stats)))
            sys.stdout.flush()
    except Failed:
        return 1
    return 0
