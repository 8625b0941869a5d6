"""How ``zray top`` looks: lines of text for a terminal of any size. Owns no connection."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from zray.cli import state_view
from zray.cli.status import duration
from zray.cli.top_figures import Figures, NameFigures, NodeFigures, ProcessFigures
from zray.core.causes import plain
from zray.protocol import messages as m

NODE_HEADS = ["NODE", "STATE", "CPU%", "SLOTS", "MEMORY", "STORE", "WORKERS", "RUNNING", "QUEUED"]
NAME_HEADS = ["TASK", "TYPE", "PER S", "RUNNING", "WAITING", "FINISHED", "FAILED"]
PROCESS_HEADS = ["PID", "NODE", "WHAT", "CPU%", "RSS", "TIME+", "THR", "S", "RUNS"]
NUMBERS = frozenset(
    {
        *("CPU%", "SLOTS", "MEMORY", "STORE", "WORKERS", "RUNNING", "QUEUED", "PER S", "WAITING"),
        *("FINISHED", "FAILED", "PID", "RSS", "TIME+", "THR", "RUNS"),
    }
)
# What is left out first where there is no room.
NODE_SPARE = ("STORE", "WORKERS", "QUEUED", "SLOTS", "RUNNING", "MEMORY", "STATE")
NAME_SPARE = ("TYPE", "FINISHED", "FAILED", "WAITING", "RUNNING")
PROCESS_SPARE = ("THR", "S", "TIME+", "NODE", "RUNS", "RSS")
TYPES = {m.NORMAL_TASK: "task", m.ACTOR_TASK: "call", m.ACTOR_CREATION_TASK: "actor"}
KEYS = "q quits; P CPU, M memory, T time, N name sort"
TABLE_LINES = 2  # of a table's heading


class Screen:
    """``cluster``: its name and head, in words. ``sort``: as of ``figures``."""

    def __init__(self, cluster: str, sort: str) -> None:
        self._cluster = cluster
        self.sort = sort

    def render(
        self, shown: Figures | None, trouble: str, width: int, height: int, *, keys: bool
    ) -> RenderableType:
        """All of it, in so many lines at most; 0: as many as there are."""
        parts: list[RenderableType] = [self._title(shown, width)]
        if trouble:
            parts.append(_line(trouble, width, "bold red"))
        if shown is None:
            return Group(*parts)
        parts.append(self._sums(shown, width))
        left = height - len(parts) - int(keys) if height else 0
        lines = _shares(left, [len(shown.nodes), len(shown.names), len(shown.processes)])
        for heads, spare, rows in (
            (NODE_HEADS, NODE_SPARE, [_node(one) for one in shown.nodes[: lines[0]]]),
            (NAME_HEADS, NAME_SPARE, [_name(one) for one in shown.names[: lines[1]]]),
            (PROCESS_HEADS, PROCESS_SPARE, [_process(one) for one in shown.processes[: lines[2]]]),
        ):
            if rows:
                parts += [Text(""), state_view.table(heads, rows, width, NUMBERS, spare)]
        if keys:
            parts.append(_line(f"{KEYS} (now {self.sort})", width, "dim"))
        return Group(*parts)

    def _title(self, shown: Figures | None, width: int) -> Text:
        if shown is None:
            return _line(f"zray top: {self._cluster}", width, "bold")
        clock = time.strftime("%H:%M:%S", time.localtime(shown.time))
        return _line(f"zray top {clock}: {self._cluster}; {shown.health}", width, "bold")

    @staticmethod
    def _sums(shown: Figures, width: int) -> Text:
        rate = f"{shown.per_s:,.1f} tasks/s" if shown.per_s is not None else "tasks/s not known yet"
        counts = {"actor": shown.actors, "object": shown.objects, "job": shown.jobs}
        parts = [rate, f"{shown.running:,} running", f"{shown.waiting:,} waiting"]
        parts += [f"{count:,} {name}{'s' * (count != 1)}" for name, count in counts.items()]
        return _line(", ".join(parts), width, "")


def _line(text: str, width: int, style: str) -> Text:
    found = Text(plain(text), style=style, no_wrap=True, overflow="ellipsis")
    found.truncate(width, overflow="ellipsis")
    return found


def _shares(left: int, wanted: Sequence[int]) -> list[int]:
    """How many rows each of three tables has: what the first ones leave is the last one's."""
    if left <= 0:
        return [one if left == 0 else 0 for one in wanted]
    shares = []
    for place, one in enumerate(wanted):
        most = left if place == len(wanted) - 1 else max(2, left // (5 - place))
        room = max(0, min(left, most + TABLE_LINES + 1) - TABLE_LINES - 1)
        share = min(one, room)
        shares.append(share)
        if share:
            left -= share + TABLE_LINES + 1
    return shares


# ---- rows --------------------------------------------------------------------------------------


def _cells(*values: str) -> list[Text]:
    return [Text(plain(value)) for value in values]


def _of(used: int, total: int) -> str:
    return f"{state_view.size(used)}/{state_view.size(total)}" if total else ""


def _node(one: NodeFigures) -> list[Text]:
    cpu = f"{one.cpu_percent:.0f}" if one.cpu_percent is not None else ""
    store = _of(one.store_used_bytes, one.store_bytes)
    if one.spilled_bytes:
        store += f" +{state_view.size(one.spilled_bytes)} on disk"
    cells = _cells(
        *(one.name, one.state, cpu, f"{one.cpus_used:g}/{one.cpus:g}"),
        *(_of(one.memory_used_bytes, one.memory_bytes), store),
        *(f"{one.workers:,}", f"{one.running:,}", f"{one.queued:,}"),
    )
    cells[1].stylize("green" if one.state == "ALIVE" else "yellow")
    return cells


def _name(one: NameFigures) -> list[Text]:
    rate = f"{one.per_s:,.1f}" if one.per_s is not None else ""
    counts = (one.running, one.waiting, one.finished, one.failed)
    cells = _cells(
        one.name, TYPES.get(one.type, one.type), rate, *(f"{count:,}" for count in counts)
    )
    if one.failed:
        cells[-1].stylize("red")
    return cells


def _process(one: ProcessFigures) -> list[Text]:
    runs = ""
    if one.runs_s is not None:
        runs = f"{one.runs_s:.1f} s" if one.runs_s < 60 else duration(one.runs_s)
    minutes, seconds = divmod(one.cpu_s, 60)
    what = f"actor {one.title}" if one.actor_id else one.title or "idle"
    cells = _cells(
        *(str(one.pid), one.node, what, f"{one.cpu_percent:.1f}", state_view.size(one.rss_bytes)),
        *(f"{minutes:.0f}:{seconds:05.2f}", str(one.threads), one.state, runs),
    )
    if not one.title:
        cells[2].stylize("dim")
    return cells
