"""The costs of one load can be measured, and the bare ones; figures are for people to judge."""

from __future__ import annotations

from pathlib import Path

import zray
from tests.costs import commits, floors, processes
from tests.costs.__main__ import measured, table
from tests.costs.loads import all_loads
from zray.store.sqlite import SqliteStore


def test_costs_of_calls_and_tasks_are_accounted_to_processes() -> None:
    with zray.init(num_cpus=2):
        loads = all_loads()
        sync = measured(loads["sync"]._replace(count=50), rounds=2)
        spins = measured(loads["1ms"]._replace(count=50), rounds=1)
        pids = processes.of_cluster()
    assert [len(pids[role]) for role in ("driver", "head", "raylet", "zygote")] == [1] * 4
    assert pids["workers"]
    for role in ("driver", "workers"):  # the others are not asked
        assert sync[role]["cpu_us"] > 1 and sync[role]["switches"] > 0
    assert spins["workers"]["cpu_us"] > 1000 and spins["wall_us"] > 500
    text = "\n".join(table("a load", spins, sync))
    assert text.count("| workers |") == 1 and "before" in text and "efficiency" in text


def test_costs_of_commits(tmp_path: Path) -> None:
    alone, many = commits.measure(SqliteStore(tmp_path / "data"), 100, 300)
    assert alone > 0 and many > 0


def test_bare_costs() -> None:
    found = [*floors.all_floors()]
    assert len(found) == 8 and all(floor.wall_s > 0 for floor in found)
    one, chain = found[0].cpu_s, found[3].cpu_s
    assert one is not None and chain is not None and chain > one
