"""``python -m tests.costs``: CPU time and context switches of each process, for each task or call.

    python -m tests.costs                       # every load, and what none can cost less than
    python -m tests.costs --load sync,actor     # some loads only
    python -m tests.costs --json now.json       # keep the figures
    python -m tests.costs --beside before.json  # tables of both, as in docs/performance.md
    python -m tests.costs --keep sync           # one load for a minute, to look at with a profiler

Starts a cluster of two CPUs of its own. Other load on the machine makes the figures larger.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import zray
from tests.costs import processes
from tests.costs.floors import all_floors
from tests.costs.loads import Load, all_loads
from tests.costs.processes import ROLES, Use

KEEP_S = 60.0
CPUS = 2
LEAST_US = 0.05  # a process that uses less is not shown

# Of one load: wall_us, own_us, and by role what is in `Use`, in microseconds.
Figures = dict[str, Any]


def measured(load: Load, rounds: int) -> Figures:
    """Medians of the rounds, for one task or call."""
    load.run(min(load.count, 500))  # warm
    pids = processes.of_cluster()
    walls: list[float] = []
    uses: dict[str, list[Use]] = {role: [] for role in ROLES}
    for _ in range(rounds):
        before = {role: processes.use_of(pids[role]) for role in reversed(ROLES)}
        began = time.perf_counter()
        load.run(load.count)
        walls.append((time.perf_counter() - began) / load.count)
        pids = processes.of_cluster()  # with workers that were started meanwhile
        for role in ROLES:
            uses[role].append(processes.use_of(pids[role]).since(before[role], load.count))
    found: Figures = {"wall_us": statistics.median(walls) * 1e6, "own_us": load.own_s * 1e6}
    for role in ROLES:
        middle = Use(*(statistics.median(values) for values in zip(*uses[role], strict=True)))
        found[role] = {
            "cpu_us": middle.cpu_s * 1e6,
            "system_us": middle.system_s * 1e6,
            "transport_us": middle.transport_s * 1e6,
            "queued_us": middle.queued_s * 1e6,
            "switches": middle.switches,
        }
    return found


def table(title: str, now: Figures, before: Figures | None) -> list[str]:
    """Markdown: a row for each process, and what they come to."""
    sides = [now] if before is None else [before, now]
    names = ["now"] if before is None else ["before", "now"]
    head = ["process"]
    for name in names:
        head += [f"{name}: CPU us", "in ZeroMQ's threads", "queued us", "switches"]
    lines = [f"**{title}**", "", _row(head), _row(["---"] + ["---:"] * (len(head) - 1))]
    for role in ROLES:
        if any(side[role]["cpu_us"] >= LEAST_US for side in sides):
            lines.append(_row([role, *(cell for side in sides for cell in _cells(side[role]))]))
    totals = [
        {key: sum(side[role][key] for role in ROLES) for key in side["head"]} for side in sides
    ]
    lines.append(_row(["all", *(cell for total in totals for cell in _cells(total))]))
    lines.append("")
    lines += [f"{name}: {_sentence(side)}" for name, side in zip(names, sides, strict=True)]
    return [*lines, ""]


def _cells(of: dict[str, float]) -> list[str]:
    share = of["transport_us"] / (of["cpu_us"] or 1.0)
    cells = [f"{of['cpu_us']:,.1f}", f"{share:.0%}", f"{of['queued_us']:,.1f}"]
    return [*cells, f"{of['switches']:.2f}"]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _sentence(side: Figures) -> str:
    cpu = sum(side[role]["cpu_us"] for role in ROLES)
    system = sum(side[role]["system_us"] for role in ROLES)
    own, wall = side["own_us"], side["wall_us"]
    text = f"one each {wall:,.1f} us, {1e6 / wall:,.0f} a second; {system / cpu:.0%} in the kernel"
    if own:
        text += (
            f"; efficiency {own / CPUS / wall:.0%}, CPU beside the tasks' own {cpu - own:,.0f} us"
        )
    return text


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.costs")
    parser.add_argument("--load", default="", help="which, separated by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--beside", type=Path, help="show the figures of that file, too")
    parser.add_argument("--keep", default="", help="run that load for a minute")
    given = parser.parse_args()
    with zray.init(num_cpus=CPUS):
        loads = all_loads()
        if given.keep:
            keep(loads[given.keep])
            return
        before = json.loads(given.beside.read_text()) if given.beside else {}
        found: dict[str, Any] = {}
        for name in given.load.split(",") if given.load else loads:
            found[name] = measured(loads[name], given.rounds)
            print("\n".join(table(loads[name].title, found[name], before.get(name))), flush=True)
    if not given.load:
        found["floors"] = []
        print(_row(["bare cost", "us", "CPU us of all processes"]))
        for floor in all_floors():
            found["floors"].append(floor)
            cpu = floor.wall_s if floor.cpu_s is None else floor.cpu_s
            print(
                _row([floor.title, f"{floor.wall_s * 1e6:,.1f}", f"{cpu * 1e6:,.1f}"]), flush=True
            )
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


def keep(load: Load) -> None:
    load.run(min(load.count, 500))
    for role, pids in processes.of_cluster().items():
        print(role, *pids, flush=True)
    end = time.monotonic() + KEEP_S
    while time.monotonic() < end:
        load.run(load.count)


if __name__ == "__main__":
    main()
