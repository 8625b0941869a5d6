"""How far ``zray simulate`` is from real runs on this machine: records, simulates, and compares.

``python -m tests.costs.simulation_error`` prints a table. Each workload runs on real clusters of
one and two CPUs, three times unrecorded and once recorded. What was recorded is simulated as it
was, and compared with that run; and for the other number of CPUs, compared with the median there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zray
from zray.errors import StartError
from zray.testing.forecast import Terms, forecast
from zray.testing.workload import read
from zray.util.workload import record_workload

WORK_S = 1.5  # of all tasks of one workload
RUNS = 3
STARTS = 3


def sleeps(seconds: float, *_: Any) -> None:
    """What waits for a disk or a network."""
    time.sleep(seconds)


def computes(seconds: float, *_: Any) -> None:
    """What keeps a CPU busy, for so much time of that CPU."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def flat(task: Any, seconds: float, count: int) -> list[Any]:
    """All at once."""
    return [task.remote(seconds) for _ in range(count)]


def chains(task: Any, seconds: float, count: int) -> list[Any]:
    """Four chains side by side, each task behind the one before."""
    last = [task.remote(seconds) for _ in range(4)]
    made = [*last]
    while len(made) < count:
        last = [task.remote(seconds, one) for one in last]
        made += last
    return made


def layers(task: Any, seconds: float, count: int) -> list[Any]:
    """Layers of ten, each task behind three of the layer before."""
    made: list[Any] = []
    before: list[Any] = []
    while len(made) < count:
        before = [
            task.remote(seconds, *(before[(n + k) % 10] for k in range(3) if before))
            for n in range(10)
        ]
        made += before
    return made


SHAPES: dict[str, Callable[..., list[Any]]] = {"flat": flat, "chains": chains, "layers": layers}


@contextmanager
def cluster(cpus: int) -> Iterator[None]:
    for left in reversed(range(STARTS)):
        try:
            context = zray.init("local", num_cpus=cpus)
            break
        except StartError:  # the machine is busy
            if not left:
                raise
    with context:
        yield


def timed(shape: Callable[..., list[Any]], task: Any, seconds: float, count: int) -> float:
    began = time.perf_counter()
    zray.get(shape(task, seconds, count))
    return time.perf_counter() - began


def measure(
    kind: str, shape: str, milliseconds: float, work_s: float, folder: Path
) -> list[dict[str, Any]]:
    """One workload: real and foretold, for each pair of recorded on and simulated for."""
    seconds = milliseconds / 1e3
    count = max(20, round(work_s / seconds))
    real: dict[int, float] = {}
    same: dict[int, float] = {}
    files: dict[int, Path] = {}
    for cpus in (1, 2):
        with cluster(cpus):
            task = zray.remote({"sleep": sleeps, "cpu": computes}[kind])
            timed(SHAPES[shape], task, seconds, 20)  # workers have started
            files[cpus] = folder / f"{kind}-{shape}-{milliseconds:g}-{cpus}.json"
            runs = [timed(SHAPES[shape], task, seconds, count) for _ in range(RUNS)]
            real[cpus] = statistics.median(runs)
            with record_workload(files[cpus]):
                same[cpus] = timed(SHAPES[shape], task, seconds, count)
    rows = []
    for source in (1, 2):
        recorded = read(files[source])
        if recorded.estimated:
            print(f"{recorded.estimated} of {count} are estimated", file=sys.stderr)
        for target in (1, 2):
            told = forecast(recorded, [{"CPU": float(target)}], Terms()).makespan_s
            truth = same[target] if source == target else real[target]
            rows.append(
                {
                    "kind": kind,
                    "shape": shape,
                    "ms": milliseconds,
                    "tasks": count,
                    "recorded_on": source,
                    "cpus": target,
                    "real_s": round(truth, 4),
                    "simulated_s": round(told, 4),
                    "error": round(told / truth - 1, 4),
                }
            )
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kinds", default="sleep,cpu")
    options.add_argument("--shapes", default="flat,chains,layers")
    options.add_argument("--ms", default="1,10,100")
    options.add_argument("--work", type=float, default=WORK_S, help="seconds, of all tasks")
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs", file=sys.stderr)
    rows: list[dict[str, Any]] = []
    print("kind   shape   ms    tasks  recorded  for    real  simulated   error")
    with tempfile.TemporaryDirectory() as folder:
        for kind in given.kinds.split(","):
            for shape in given.shapes.split(","):
                for milliseconds in map(float, given.ms.split(",")):
                    for row in measure(kind, shape, milliseconds, given.work, Path(folder)):
                        rows.append(row)
                        print(
                            f"{kind:6} {shape:7} {milliseconds:<5g} {row['tasks']:>5} "
                            f"{row['recorded_on']:>6} CPU {row['cpus']:>2} CPU "
                            f"{row['real_s']:>6.2f} s {row['simulated_s']:>7.2f} s "
                            f"{row['error']:>+7.1%}",
                            flush=True,
                        )
    for same in (True, False):
        chosen = [r for r in rows if (r["recorded_on"] == r["cpus"]) is same]
        errors = sorted(abs(row["error"]) for row in chosen)
        which = "recorded on the same number of CPUs" if same else "on the other number"
        print(f"{which}: median {statistics.median(errors):.1%}, worst {errors[-1]:.1%}")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
