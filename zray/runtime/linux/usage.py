"""What processes and the machine use of CPU and memory, as the kernel counts it: reads /proc."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from zray.protocol.messages import MachineUsage, Usage
from zray.runtime.linux import machine

PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def of_process(pid: int, proc: Path = PROC) -> Usage | None:
    """Of one process; None: it is not there."""
    try:
        fields = (proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        pages = (proc / str(pid) / "statm").read_bytes().split()
        cpu = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
        rss, shared = int(pages[1]) * _PAGE_BYTES, int(pages[2]) * _PAGE_BYTES
        began = _booted_s(proc) + int(fields[19]) / _TICKS_PER_S
        return Usage(pid, cpu, rss, shared, int(fields[17]), fields[0].decode(), began)
    except (OSError, ValueError, IndexError):
        return None


def of_machine(proc: Path = PROC) -> MachineUsage:
    """Of all of it; what cannot be read is 0."""
    busy = 0.0
    try:
        line = (proc / "stat").read_text().partition("\n")[0].split()
        user, nice, system, _, _, *interrupts = map(int, line[1:9])
        busy = (user + nice + system + sum(interrupts)) / _TICKS_PER_S
    except (OSError, ValueError):
        pass
    try:
        load = float((proc / "loadavg").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        load = 0.0
    memory, used = machine.memory(proc)
    return MachineUsage(os.cpu_count() or 1, busy, memory, max(0, used), load)


@cache
def _booted_s(proc: Path) -> float:
    for line in (proc / "stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0
