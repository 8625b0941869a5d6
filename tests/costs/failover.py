"""How long a cluster is without a head that leads, by how the leader went: a table for the docs.

    python -m tests.costs.failover [--times 30] [--only PART,...] [--seed N]

Three etcd members, three heads, four nodes and a driver each have a machine of their own
(namespaces), at default settings; in one row the heads share a machine. Two programs, one on a node
and one elsewhere, ask all the time: for a change of control state, for a task's result, for an
answer of an actor. What counts is the first that was asked for after the leader went, in the slower
program: seconds from then until it was there.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.failover.machines import Way, between
from tests.failover.testbed import FAR, MEMBERS, NODES, Testbed
from tests.failover.travellers import WHAT, Travellers
from zray.protocol import messages as m

FOLLOWED_S = 60.0
PAUSE_S = (0.2, 1.5)  # before each: not in step with renewals

Heal = Callable[[], None]
Loss = Callable[[Testbed, str], tuple[float, Heal]]
"""Does it, and returns the moment, and what heals it."""


def killed(bed: Testbed, leader: str) -> tuple[float, Heal]:
    began = time.monotonic()
    bed.kill_head(leader)
    return began, lambda: bed.start_head(leader)


def lost(bed: Testbed, leader: str) -> tuple[float, Heal]:
    began = time.monotonic()
    bed.lose_head(leader)

    def heal() -> None:
        bed.machines.renew(leader)
        bed.start_head(leader)

    return began, heal


def paused(bed: Testbed, leader: str) -> tuple[float, Heal]:
    bed.heads[leader].signal(signal.SIGSTOP)
    return time.monotonic(), lambda: bed.heads[leader].signal(signal.SIGCONT)


def cut_off(bed: Testbed, leader: str) -> tuple[float, Heal]:
    return cut(bed, between(leader, (*MEMBERS, *NODES, FAR, *bed.names)))


def cut_from_etcd(bed: Testbed, leader: str) -> tuple[float, Heal]:
    return cut(bed, between(leader, MEMBERS))


def cut(bed: Testbed, ways: set[Way]) -> tuple[float, Heal]:
    bed.machines.cut(ways)
    return time.monotonic(), lambda: bed.machines.heal(ways)


def stepped_down(bed: Testbed, _leader: str) -> tuple[float, Heal]:
    peer = bed.peer()
    began = time.monotonic()
    peer.send(m.StepDown(1, "measured"))
    peer.close(linger_ms=1000)
    return began, lambda: None


def stopped(bed: Testbed, leader: str) -> tuple[float, Heal]:
    bed.heads[leader].signal(signal.SIGTERM)
    began = time.monotonic()

    def heal() -> None:
        bed.await_end_of_head(leader)
        bed.start_head(leader)

    return began, heal


def member_killed(bed: Testbed, _leader: str) -> tuple[float, Heal]:
    assert bed.etcd is not None
    etcd, number = bed.etcd, bed.etcd.leader()
    began = time.monotonic()
    etcd.kill(number)
    return began, lambda: etcd.start(number)


class Row:
    """``follows``: whether another head leads then."""

    def __init__(self, title: str, loss: Loss, *, together: bool = False, follows: bool = True):
        self.title = title
        self.loss = loss
        self.together = together
        self.follows = follows


ROWS = {
    "step-down": Row("`zray head step-down`", stepped_down),
    "stopped": Row("stopped (SIGTERM)", stopped),
    "killed-here": Row("killed; the others are on its machine", killed, together=True),
    "killed": Row("killed; the others are on other machines", killed),
    "lost": Row("lost with its machine", lost),
    "paused": Row("asleep (SIGSTOP)", paused),
    "cut-off": Row("cut off from all", cut_off),
    "cut-from-etcd": Row("cut off from etcd", cut_from_etcd),
    "member": Row("it stays; etcd's leader is killed", member_killed, follows=False),
}


@contextmanager
def running(*, together: bool) -> Iterator[tuple[Testbed, Travellers]]:
    home = Path(tempfile.mkdtemp(prefix="zt-", dir="/tmp"))
    notes = home / "notes"
    notes.mkdir()
    try:
        bed = Testbed(home, together=together)
        try:
            travellers = Travellers(bed, notes, "clocks")
            travellers.await_start()
            yield bed, travellers
            travellers.stop()
            bed.stop()
        finally:
            bed.close()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def once(bed: Testbed, travellers: Travellers, row: Row) -> list[float]:
    """For each of WHAT the seconds."""
    bed.settle()
    leader = bed.leader()
    began, heal = row.loss(bed, leader)
    found: list[float | None] = []

    def probe() -> str:
        nonlocal found
        travellers.check()
        found = [travellers.next_s(what, began) for what in WHAT]
        if None in found:
            return f"not yet: {found}"
        return "" if not row.follows or bed.leader() not in ("", leader) else "nobody follows"

    bed.await_nothing(probe, FOLLOWED_S)
    heal()
    return [wait for wait in found if wait is not None]


def line(title: str, measured: list[list[float]]) -> str:
    cells = []
    for column in zip(*measured, strict=True):
        cells += [f"{statistics.median(column):.2f}", f"{max(column):.2f}"]
    return f"| {title} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.costs.failover")
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--only", default="", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    given = parser.parse_args()
    chosen = given.only.split(",") if given.only else [*ROWS]
    chance = random.Random(given.seed)
    print(f"seed {given.seed}, {given.times} times each")
    print(
        "| the leader is | change: median | worst | task: median | worst | call: median | worst |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|", flush=True)
    for together in (False, True):
        rows = [ROWS[name] for name in chosen if ROWS[name].together == together]
        if not rows:
            continue
        with running(together=together) as (bed, travellers):
            for row in rows:
                measured = []
                for _ in range(given.times):
                    time.sleep(chance.uniform(*PAUSE_S))
                    measured.append(once(bed, travellers, row))
                print(line(row.title, measured), flush=True)


if __name__ == "__main__":
    main()
