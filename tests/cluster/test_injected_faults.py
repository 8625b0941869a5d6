"""A system call fails once in each daemon, wherever it is made: in Python, sqlite, libzmq or C.

The kernel's answer is replaced from outside (strace), with errors that the call really may have.
The daemons live, and the work that follows is right; what was under way may fail with an error.

Left out: errors after which a head must not go on (of the disk of its store, which
tests/store and test_one_bad_thing.py are about) and those for which libzmq aborts.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import zray
from zray.errors import ZrayError

FULL = ("EMFILE", "ENFILE")
DISK = ("ENOSPC", "EIO")
FAULTS: dict[str, tuple[str, ...]] = {
    "openat": (*FULL, "ENOSPC"),
    "accept4": FULL,
    "socket": FULL,
    "socketpair": FULL,
    "pipe2": FULL,
    "memfd_create": FULL,
    "pidfd_open": FULL,
    "clone,clone3,fork,vfork": ("EAGAIN", "ENOMEM"),
    "fsync": DISK,
    "unlink": ("EIO",),
    "mkdir": ("ENOSPC",),
    "sendmsg": ("EPIPE", "ENOBUFS", "ENOMEM"),
    "sendto": ("ECONNRESET", "EPIPE"),
    "recvfrom": ("ECONNRESET",),
    "recvmsg": ("ECONNRESET", "ENOMEM"),
    "connect": ("EAGAIN",),
}
OF_NODES: dict[str, tuple[str, ...]] = {
    "ftruncate": DISK,
    "pwrite64": DISK,
    "pread64": ("EIO",),
    "fdatasync": DISK,
}


@zray.task(max_retries=10)
def work(number: int, size: int) -> Any:
    print("working", number)  # which passes a pipe
    return np.full(size, number)


@zray.actor(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self, value: Any) -> int:
        self.count += 1
        return self.count


def some_work(count: int) -> None:
    """Tasks with small and large results, which are spilled, and an actor."""
    counter = Counter.remote()
    refs = [work.remote(number, 10 if number % 2 else 400_000) for number in range(count)]
    added = [counter.add.remote(ref) for ref in refs]
    for number, ref in enumerate(refs):
        assert int(zray.get(ref, timeout=30)[-1]) == number
    assert zray.get(added[-1], timeout=30) >= 1


@contextlib.contextmanager
def failing(cluster: Any, pids: list[int], call: str, fault: str) -> Iterator[None]:
    """Inside, the first such call of each thread of these processes fails."""
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:error={fault}:when=1"]
    processes = [word for pid in pids for word in ("-p", str(pid))]
    said = cluster.home / "strace"
    with said.open("wb") as file:
        command = ["strace", "-f", "-o", "/dev/null", *inject, *processes]
        tracer = subprocess.Popen(command, stderr=file)
    try:
        cluster.until(lambda: said.read_text().count("attached") >= len(pids), 20, "it traces")
        yield
    finally:
        tracer.kill()  # who was traced goes on
        tracer.wait(20)


def trouble(cluster: Any, call: str, fault: str, *, head: bool) -> str:
    """What is wrong after this fault; empty: nothing."""
    node = cluster.programs[1]
    pids = [node.pid, *(process.pid for process in node.children())]
    traced = failing(cluster, [cluster.head.pid, *pids] if head else pids, call, fault)
    with traced, contextlib.suppress(ZrayError, OSError):  # it may have been what failed
        some_work(4)
    ended = [program.name for program in cluster.programs if program.process.poll() is not None]
    if ended:
        return f"ended: {ended}"
    try:
        some_work(3)
    except Exception as error:
        return f"work that follows fails: {error}"
    return ""


@pytest.mark.system
@pytest.mark.slow_limit(600)
def test_each_system_call_fails_once_wherever_it_is_made(bare: Any) -> None:
    """With one error here, of which each comes by turns; ZRAY_TEST_ALL_FAULTS=1: with each."""
    store = ("--object-store-memory", "40MB")
    bare.start_head("--num-cpus", "1", *store)
    bare.start_node("one", 1, *store)
    bare.connect()
    some_work(2)
    found = {}
    for faults, head in ((FAULTS, True), (OF_NODES, False)):
        for place, (call, errors) in enumerate(faults.items()):
            turn = errors[place % len(errors)]
            for fault in errors if os.environ.get("ZRAY_TEST_ALL_FAULTS") else [turn]:
                if wrong := trouble(bare, call, fault, head=head):
                    found[call, fault] = wrong
                    assert "ended" not in wrong, found
    assert not found
