"""The two ways of tasks to leased workers: near, on the driver's machine, and far, elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from tests.sim.stories import Story, burst, lessees
from zray.testing.cluster import SimCluster
from zray.testing.processes.steps import Get, Program, Sleep
from zray.testing.world.ports import PortLink


def near(seed: int, **options: Any) -> SimCluster:
    """All is on one machine. Its nodes may have 4 workers or more."""
    return _eager(seed, {"machines": 1, **options})


def far(seed: int, **options: Any) -> SimCluster:
    """Each node and each driver is on a machine of its own, but for the first of both."""
    return _eager(seed, {"machines": 0, **options})


def _eager(seed: int, options: dict[str, Any]) -> SimCluster:
    chosen = {"nodes": [{"CPU": 2}], "eager": True, **options}
    return SimCluster(4 * seed + (len(chosen["nodes"]) > 1) * 3, **chosen)


def warm(driver: Any, seconds: float, name: str = "add") -> Program:
    """Tasks until there are leases, and one knows how long the function takes."""
    for _ in range(10):
        yield Get(driver.submit(name, [seconds, 0], max_retries=0))


def reach(driver: Any, seconds: float, name: str = "add") -> Program:
    """Tasks until there are leases elsewhere, which takes a moment."""
    yield from warm(driver, seconds, name)
    yield Sleep(0.2)
    yield from warm(driver, seconds, name)


@dataclass(frozen=True)
class Way:
    """How there are such leases: in which cluster, and after which tasks, so many of them."""

    cluster: Callable[..., SimCluster]
    warm: Callable[..., Program]
    warmed: int


NEAR = Way(near, warm, 10)
FAR = Way(far, reach, 20)


def both_ways(*, near: int, far: int) -> pytest.MarkDecorator:
    """The scenario holds for both ways, each of which has a seed of its own."""
    told = [pytest.param(NEAR, near, id="near"), pytest.param(FAR, far, id="far")]
    return pytest.mark.parametrize(("way", "seed"), told)


each_way = pytest.mark.parametrize("way", [NEAR, FAR], ids=["near", "far"])


def one_burst(way: Way, seconds: float, count: int, max_retries: int = 0) -> Story:
    """So many tasks at once, by leases, each of which has its value."""

    def story(driver: Any, random: Random) -> Program:
        yield from way.warm(driver, seconds)
        values = yield Get(burst(driver, seconds, count, max_retries=max_retries))
        assert [value.number for value in values] == list(range(count))

    return story


def linked(cluster: SimCluster) -> list[PortLink]:
    """The connections to nodes' own ports that work, as far as is known."""
    return [link for link in cluster.world.far_ports.links.values() if link.open]


def kill_in_a_task(cluster: SimCluster) -> None:
    """Kill a leased worker as it runs a task."""
    cluster.run_until(lambda: any(w.delivered for w in lessees(cluster)), 1.0)
    cluster.kill_worker(next(w for w in lessees(cluster) if w.delivered is not None))
