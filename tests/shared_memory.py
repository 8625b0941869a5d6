"""What is in shared memory: segments that processes have mapped or open, and the kernel's count.

Reads /proc only; must never import zray.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

SEGMENT = "/memfd:zray-segment"
TOLERANCE_BYTES = 32 << 20  # others use shared memory too
SETTLE_S = 10.0
_ADDRESSES = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4})")


def shmem_bytes() -> int:
    """Shared memory in use on this machine."""
    with open("/proc/meminfo") as lines:
        found = [line.split()[1] for line in lines if line.startswith("Shmem:")]
    return int(found[0]) * 1024


def mappings(pid: int) -> list[tuple[int, int, str]]:
    """Begin, end and permissions of each segment that a process has mapped."""
    found = []
    with suppress(OSError), open(f"/proc/{pid}/maps") as lines:
        for line in lines:
            match = _ADDRESSES.match(line)
            if SEGMENT in line and match is not None:
                found.append((int(match[1], 16), int(match[2], 16), match[3]))
    return found


def descriptors(pid: int) -> list[int]:
    """The descriptors of segments that a process has open."""
    found = []
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{name}").startswith(SEGMENT):
                    found.append(int(name))
    return found


def users() -> dict[int, int]:
    """Processes with segments, and how many mappings and descriptors of them each has."""
    found = {pid: len(mappings(pid)) + len(descriptors(pid)) for pid in psutil.pids()}
    return {pid: count for pid, count in found.items() if count}


def maps(address: int) -> str:
    """The permissions of this process's segment that has the address; empty: none has."""
    for begin, end, permissions in mappings(os.getpid()):
        if begin <= address < end:
            return permissions
    return ""


@contextmanager
def unchanged() -> Iterator[None]:
    """Fails unless no process has more segments after the block, nor the kernel more memory."""
    before, memory = users(), shmem_bytes()
    yield
    deadline = time.monotonic() + SETTLE_S
    while True:
        left = {pid: count for pid, count in users().items() if count > before.get(pid, 0)}
        more = shmem_bytes() - memory
        if not left and more <= TOLERANCE_BYTES:
            return
        assert time.monotonic() < deadline, f"segments are left in {left}, {more} bytes more"
        time.sleep(0.05)
