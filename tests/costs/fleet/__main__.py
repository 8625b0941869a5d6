"""``python -m tests.costs.fleet``: what a head costs that has many nodes and many drivers.

    python -m tests.costs.fleet                        # 16, 64 nodes; 1, 10 ms; 1, 4, 16 drivers
    python -m tests.costs.fleet --nodes 64 --task-ms 1 --drivers 16 --seconds 60
    python -m tests.costs.fleet --json now.json        # keep the figures
    python -m tests.costs.fleet --beside before.json   # of each case a row before, and one now
    python -m tests.costs.fleet --alone                # the head's machine alone, without processes

A real head, real drivers, real connections; the nodes are simulated. Each has four CPUs, and a task
takes clock time, but no CPU time of this machine. *taken back* and *workers started* are of 1,000
tasks. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

from tests.costs.fleet.alone import cpu_us
from tests.costs.fleet.measuring import ROLES, Case, Figures, fleet

COLUMNS = (
    *("nodes", "task", "drivers", "", "tasks/s", "efficiency"),
    *("head: CPU us", "in ZeroMQ's threads", "switches", "busy"),
    *("drivers: CPU us", "nodes: CPU us", "drivers' shares", "taken back", "workers started"),
    "status ms",
)


def name_of(case: Case) -> str:
    return f"{case.nodes} nodes, {case.task_s * 1000:g} ms, {case.drivers} drivers"


def heading() -> list[str]:
    return [_row(COLUMNS), _row(["---:" for _ in COLUMNS])]


def rows(case: Case, now: Figures, before: Figures | None) -> list[str]:
    """Markdown: what a case costs, and above it what it cost before."""
    sides = [("now", now)] if before is None else [("before", before), ("now", now)]
    found = []
    for name, side in sides:
        head, drivers, nodes = (side[role] for role in ROLES)
        cells = [f"{case.nodes}", f"{case.task_s * 1000:g} ms", f"{case.drivers}", name]
        cells += [f"{side['per_s']:,.0f}", f"{side['efficiency']:.0%}"]
        share = head["transport_us"] / (head["cpu_us"] or 1.0)
        cells += [f"{head['cpu_us']:.1f}", f"{share:.0%}", f"{head['switches']:.2f}"]
        cells += [f"{head['busy']:.2f}", f"{drivers['cpu_us']:.1f}", f"{nodes['cpu_us']:.1f}"]
        cells += [f"{side['least']:.2f}-{side['most']:.2f}", f"{side['reclaimed']:.1f}"]
        found.append(_row([*cells, f"{side['workers']:.1f}", f"{side['status_ms']:.0f}"]))
    return found


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def alone() -> None:
    print("\n".join((_row(("nodes", "drivers", "CPU us")), _row(["---:"] * 3))), flush=True)
    for nodes, drivers in ((16, 1), (16, 16), (64, 1), (64, 16), (512, 1), (512, 16)):
        print(_row([f"{nodes}", f"{drivers}", f"{cpu_us(nodes, drivers):.1f}"]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.costs.fleet")
    parser.add_argument("--nodes", type=_numbers, default=[16, 64])
    parser.add_argument("--task-ms", type=_numbers, default=[1, 10])
    parser.add_argument("--drivers", type=_numbers, default=[1, 4, 16])
    parser.add_argument("--seconds", type=float, default=4.0, help="how long tasks are submitted")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--beside", type=Path, help="show the figures of that file, too")
    parser.add_argument("--alone", action="store_true", help="only the head's machine")
    given = parser.parse_args()
    if given.alone:
        alone()
        return
    before = json.loads(given.beside.read_text()) if given.beside else {}
    found: dict[str, Figures] = {}
    print("\n".join(heading()), flush=True)
    for nodes in given.nodes:
        with tempfile.TemporaryDirectory() as home:
            os.environ["ZRAY_HOME"] = home
            with fleet(Path(home), nodes) as one:
                for task_ms in given.task_ms:
                    for drivers in given.drivers:
                        case = Case(nodes, task_ms / 1000, drivers, given.seconds)
                        name = name_of(case)
                        found[name] = one.measure(case)
                        print("\n".join(rows(case, found[name], before.get(name))), flush=True)
                        assert not found[name]["wrong"], "results are not those of their tasks"
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
