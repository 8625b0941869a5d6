"""Many actors one after the other: nothing grows but what remembers, for a while, how they died."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import psutil
import pytest

import zray
from zray.errors import ActorDiedError

WARM_UP, ACTORS = 300, 1700
HEAD_BYTES_PER_ACTOR = 3_000  # what the head may keep of a dead one
NODE_BYTES_PER_ACTOR = 1_000
SOME_DESCRIPTORS = 4  # a process that is just ending may still have its pipes


@pytest.mark.slow_limit(120)
def test_two_thousand_actors_leave_nothing_behind(connected: Any) -> None:
    @zray.actor(num_cpus=0)
    class Short:
        def __init__(self, start: int) -> None:
            self.n = start

        def add(self, n: int) -> int:
            return self.n + n

    last: Any = None

    def run(count: int) -> None:
        nonlocal last
        for number in range(count):
            actor = Short.remote(number)
            assert zray.get(actor.add.remote(1), timeout=20) == number + 1
            if number % 2:
                zray.kill(actor)
                last = actor
            del actor  # the others end because nobody has their handle any more

    def settled() -> bool:
        workers = [w for node in nodes for zygote in node.children() for w in zygote.children()]
        return len(workers) <= 4 and connected.at_rest()

    nodes = connected.programs[1:3]
    daemons = {program.name: psutil.Process(program.pid) for program in connected.programs[:3]}
    run(WARM_UP)
    connected.until(settled, 10, "the first ones have ended")
    gc.collect()
    before = {name: _usage(process) for name, process in daemons.items()}
    here = _usage(psutil.Process())
    files = _files(connected.home)

    run(ACTORS)
    connected.until(settled, 10, "all have ended")
    with pytest.raises(ActorDiedError, match="kill"):  # that is remembered
        zray.get(last.add.remote(1), timeout=20)
    last = None
    gc.collect()
    connected.until(lambda: connected.status().objects == 0, 10, "all handles are free")
    for name, process in daemons.items():
        memory, descriptors = _usage(process)
        allowed = HEAD_BYTES_PER_ACTOR if name == "head" else NODE_BYTES_PER_ACTOR
        assert descriptors <= before[name][1] + SOME_DESCRIPTORS, name
        assert memory - before[name][0] < allowed * ACTORS, name
    memory, descriptors = _usage(psutil.Process())
    assert descriptors <= here[1] + SOME_DESCRIPTORS
    assert memory - here[0] < NODE_BYTES_PER_ACTOR * ACTORS
    assert _files(connected.home) <= files + SOME_DESCRIPTORS


def _usage(process: psutil.Process) -> tuple[int, int]:
    """Resident bytes and open descriptors."""
    return process.memory_info().rss, process.num_fds()


def _files(home: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(home))
