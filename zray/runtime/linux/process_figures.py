"""What processes use of this machine, as the kernel says: memory and CPU. Never raises for one that
has just ended."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from zray.protocol.messages import Figure

PAGE = os.sysconf("SC_PAGE_SIZE")
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_UTIME, _CUTIME = 11, 13  # proc(5), stat: of the fields behind the name


class Usage(NamedTuple):
    """Bytes and seconds. ``reaped_s``: CPU of children that have ended and were waited for."""

    resident: int = 0
    proportional: int = 0
    cpu_s: float = 0.0
    reaped_s: float = 0.0


def usage(pid: int) -> Usage | None:
    """Of one process; None: there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        with open(f"/proc/{pid}/statm", "rb") as file:
            resident = int(file.read().split()[1]) * PAGE
    except (OSError, IndexError):
        return None
    cpu_s = (int(fields[_UTIME]) + int(fields[_UTIME + 1])) * TICK_S
    reaped_s = (int(fields[_CUTIME]) + int(fields[_CUTIME + 1])) * TICK_S
    return Usage(resident, _proportional(pid), cpu_s, reaped_s)


def _proportional(pid: int) -> int:
    """Its share of the memory that several have; 0: the kernel does not say."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except (OSError, IndexError):
        pass
    return 0


def processes(node: str, what: str, pids: Iterable[int], reaped_s: float = 0.0) -> list[Figure]:
    """Figures of processes of one kind, all together. ``reaped_s``: CPU of those before them."""
    found = [one for pid in pids if (one := usage(pid)) is not None]
    labels = [node, what]
    cpu_s = sum(one.cpu_s for one in found) + reaped_s
    return [
        Figure("zray_processes", len(found), labels),
        Figure("zray_resident_memory_bytes", sum(one.resident for one in found), labels),
        Figure("zray_proportional_memory_bytes", sum(one.proportional for one in found), labels),
        Figure("zray_cpu_seconds_total", cpu_s, labels),
    ]
