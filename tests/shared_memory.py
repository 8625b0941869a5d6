"""What is in shared memory: segments of processes that these tests have started, and their bytes.

Others may use shared memory meanwhile. Reads /proc only; must never import zray.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

SEGMENT = "/memfd:zray-segment"
MARK_NAME = "ZRAY_SESSION_TEST"  # in the environment of what these tests start
SETTLE_S = 10.0
_ADDRESSES = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4})")


def processes() -> list[int]:
    """This process, and all that these tests have started."""
    mark = f"{MARK_NAME}={os.environ.get(MARK_NAME, '')}".encode()
    found = [os.getpid()]
    for pid in psutil.pids():
        with suppress(OSError), open(f"/proc/{pid}/environ", "rb") as environment:
            if pid != found[0] and mark in environment.read().split(b"\0"):
                found.append(pid)
    return found


def segment_bytes() -> int:
    """Memory that their segments take, each counted once."""
    sizes: dict[int, int] = {}
    for pid in processes():
        paths = [f"/proc/{pid}/fd/{number}" for number in descriptors(pid)]
        paths += [f"/proc/{pid}/map_files/{low:x}-{high:x}" for low, high, _ in mappings(pid)]
        for path in paths:
            with suppress(OSError):
                found = os.stat(path)
                sizes[found.st_ino] = found.st_blocks * 512
    return sum(sizes.values())


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
    found = {pid: len(mappings(pid)) + len(descriptors(pid)) for pid in processes()}
    return {pid: count for pid, count in found.items() if count}


def maps(address: int) -> str:
    """The permissions of this process's segment that has the address; empty: none has."""
    for begin, end, permissions in mappings(os.getpid()):
        if begin <= address < end:
            return permissions
    return ""


@contextmanager
def unchanged() -> Iterator[None]:
    """Fails unless no process of these tests has more segments after the block."""
    before = users()
    yield
    deadline = time.monotonic() + SETTLE_S
    while left := {pid: count for pid, count in users().items() if count > before.get(pid, 0)}:
        assert time.monotonic() < deadline, f"segments are left in {left}"
        time.sleep(0.05)
