"""What the processes of one cluster have used so far: CPU time and context switches, all threads.

Linux only: reads /proc. A thread or process that ends takes its share along, so those that matter
must live for as long as is measured.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

import psutil

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
ROLES = ("driver", "head", "raylet", "zygote", "workers")  # the order in which they are shown


class Use(NamedTuple):
    """CPU time and context switches.

    Attributes:
        system_s: of the CPU time, what was spent in the kernel; in ticks, so for long runs only.
        transport_s: of the CPU time, what ZeroMQ's own threads have used.
        queued_s: for how long threads could have run, and others had the CPUs.
    """

    cpu_s: float = 0.0
    system_s: float = 0.0
    transport_s: float = 0.0
    queued_s: float = 0.0
    switches: float = 0.0

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
        with contextlib.suppress(OSError):  # it has ended
            for task in Path(f"/proc/{pid}/task").iterdir():
                total = total.plus(_use_of_thread(task))
    return total


def _use_of_thread(task: Path) -> Use:
    try:
        in_transport = (task / "comm").read_text().startswith("ZMQ")
        on_cpu_ns, queued_ns = map(int, (task / "schedstat").read_text().split()[:2])
        system_ticks = int((task / "stat").read_text().rpartition(")")[2].split()[12])
        switches = sum(
            int(line.split()[1])
            for line in (task / "status").read_text().splitlines()
            if "ctxt_switches" in line
        )
    except OSError:  # it has ended
        return Use()
    on_cpu_s = on_cpu_ns / 1e9
    transport_s = on_cpu_s if in_transport else 0.0
    return Use(on_cpu_s, system_ticks / TICKS_PER_S, transport_s, queued_ns / 1e9, switches)
