"""What a daemon has freed goes back to the system."""

from __future__ import annotations

import subprocess
import sys

HOLES = """
import os
from zray import limits
from zray.runtime.linux.heap import Heap

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

heap = Heap()
heap.tend(1.0)
values = [os.urandom(60_000) for _ in range(3000)]  # 180 MB
kept = values[::50]
full = resident()
del values
holes = resident()
heap.tend(1.0 + limits.HEAP_LOOK_S - 0.1)
early = resident()
heap.tend(1.0 + limits.HEAP_LOOK_S)
after = resident()
print(full // 10**6, holes // 10**6, early // 10**6, after // 10**6, len(kept))
"""


AGAIN = """
heap.tend(2.0 + limits.HEAP_LOOK_S)  # nothing is new
for turn in (2, 3, 4):
    values = [os.urandom(60_000) for _ in range(3000)]
    more = values[::50]
    full = resident()
    del values
    holes = resident()
    heap.tend(turn * 10.0)
    print(full // 10**6, holes // 10**6, resident() // 10**6)
    del more
"""


def test_freed_memory_between_what_stays_goes_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOLES], capture_output=True, text=True, timeout=30, check=True
    )
    full, holes, early, after, _ = map(int, done.stdout.split())
    assert full > 180 and holes > 150 and early > 150  # else there is nothing to be done
    assert after < 60


def test_memory_that_is_used_and_freed_again_goes_back_again() -> None:
    program = [sys.executable, "-c", HOLES + AGAIN]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True)
    for line in done.stdout.splitlines()[1:]:
        full, holes, after = map(int, line.split())
        assert full > 180 and holes > 150
        assert after < 70
