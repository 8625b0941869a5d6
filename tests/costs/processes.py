"""What the processes of one cluster have used so far: CPU time and context switches, all threads.

Linux only: reads /proc. A thread that ends takes its share along, so the threads that matter must
live for as long as is measured.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import psutil

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
ROLES = ("driver", "head", "raylet", "zygote", "workers")  # the order in which they are shown


class Use(NamedTuple):
    """``system_s``: of the CPU time, what was spent in the kernel; in ticks, so for long runs only.

    ``waits``: switches where the thread slept, rather than was put off the CPU.
    """

    cpu_s: float = 0.0
    system_s: float = 0.0
    switches: float = 0.0
    waits: float = 0.0

    def plus(self, other: Use) -> Use:
        return Use(*(mine + others for mine, others in zip(self, other, strict=True)))

    def since(self, earlier: Use, count: int) -> Use:
        """What was added, for each of so many."""
        return Use(*((now - then) / count for now, then in zip(self, earlier, strict=True)))


def of_cluster() -> dict[str, list[int]]:
    """Process ids by role: this process is the driver, and has started the others."""
    found: dict[str, list[int]] = {role: [] for role in ROLES}
    found["driver"].append(os.getpid())
    for process in psutil.Process().children(recursive=True):
        found[_role(process)].append(process.pid)
    return found


def _role(process: psutil.Process) -> str:
    words = " ".join(process.cmdline())
    if "zray.nodes.head" in words:
        return "head"
    if "zray.nodes.raylet" in words:
        return "raylet"
    parent = process.parent()
    forked = parent is not None and "zygote" in " ".join(parent.cmdline())
    return "workers" if forked else "zygote"


def use_of(pids: list[int]) -> Use:
    """Of these processes together."""
    total = Use()
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total = total.plus(_use_of_thread(task))
    return total


def _use_of_thread(task: Path) -> Use:
    try:
        on_cpu_ns = int((task / "schedstat").read_text().split()[0])
        system_ticks = int((task / "stat").read_text().rpartition(")")[2].split()[12])
        counts: Counter[str] = Counter()
        for line in (task / "status").read_text().splitlines():
            if "ctxt_switches" in line:
                name, _, number = line.partition(":")
                counts[name] = int(number)
    except OSError:  # it has ended
        return Use()
    waits = counts["voluntary_ctxt_switches"]
    return Use(on_cpu_ns / 1e9, system_ticks / TICKS_PER_S, counts.total(), waits)
