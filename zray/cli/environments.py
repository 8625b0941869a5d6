"""What ``zray envs`` shows: the runtime environments of all nodes, and what they take there."""

from __future__ import annotations

import re
import sys
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from zray.cli import reporting, state_view
from zray.cli.reporting import Failed
from zray.core.causes import plain
from zray.util.state.environments import EnvironmentReport, RuntimeEnvState, gather

HEADS = ["NODE", "STATE", "TOOK", "SIZE", "WORKERS", "WAITING", "RUNTIME ENV", "WHY"]
NUMBERS = frozenset({"TOOK", "SIZE", "WORKERS", "WAITING"})
_ENDED = re.compile(r"failed \(exit status \d+\)$")
SHOWN = 200  # characters of what an environment says


def show(addresses: list[str], *, as_json: bool) -> int:
    """Ask and print; returns the exit code."""
    try:
        with reporting.operator(addresses, as_json=as_json) as operator:
            report = gather(operator)
            if as_json:
                reporting.show(_for_programs(report))
                return 0
            console = Console(highlight=False, markup=False, emoji=False)
            if not console.is_terminal:
                console.width = state_view.WIDE
            for one in _tables(report, console.width):
                console.print(one)
            sys.stdout.flush()
    except Failed:
        return 1
    return 0


def _tables(report: EnvironmentReport, width: int) -> list[RenderableType]:
    shown: list[RenderableType] = []
    if report.environments:
        rows = [_cells(row) for row in report.environments]
        shown.append(state_view.table(HEADS, rows, width, NUMBERS))
    for one in report.caches:
        sizes = f"{state_view.size(one.used_bytes)} of {state_view.size(one.bytes_max)}"
        text = f"node {plain(one.node)}: {one.environments:,} environments, {sizes} are used"
        shown.append(Text(text, style="dim"))
    shown += [Text(f"{plain(who)} has not answered", style="yellow") for who in report.silent]
    return shown


def _cells(row: RuntimeEnvState) -> list[Text]:
    took = f"{row.creation_time_ms / 1000:.1f} s" if row.creation_time_ms is not None else ""
    said = "; ".join(f"{name} {_in_words(value)}" for name, value in row.runtime_env.items())
    if len(said) > SHOWN:
        said = f"{said[:SHOWN]} ..."
    lines = (row.error or "").strip().splitlines()
    if len(lines) > 1 and _ENDED.search(lines[-1]):
        lines.pop()  # what it said before is why
    why = lines[-1] if lines else ""
    cells = [
        *(row.node, row.state, took, state_view.size(row.size_bytes)),
        *(str(row.workers or ""), str(row.waiting or ""), said, why),
    ]
    return [Text(plain(cell)) for cell in cells]


def _in_words(value: Any) -> str:
    """Of variables their names: values may be secrets."""
    if isinstance(value, dict):
        value = value.get("packages", [*value])
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _for_programs(report: EnvironmentReport) -> dict[str, object]:
    return {
        "environments": [one.asdict() for one in report.environments],
        "nodes": [vars(one) for one in report.caches],
        "silent": report.silent,
    }
