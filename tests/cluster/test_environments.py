"""Environments and ``max_calls`` on every way that a task goes: leased, by the head, near, far."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import Any

import zray

RED = {"env_vars": {"COLOUR": "red"}}


def test_tasks_have_their_environment_on_every_node_and_way(connected: Any) -> None:
    @zray.task
    def colour(_: object = None) -> tuple[str | None, str, int]:
        node = str(zray.get_runtime_context().get_node_name())
        return os.environ.get("COLOUR"), node, os.getpid()

    @zray.task
    def outer() -> list[str | None]:
        blue = colour.options(runtime_env={"env_vars": {"COLOUR": "blue"}})
        refs = [each.remote() for _ in range(5) for each in (colour, blue)]
        return [seen for seen, _, _ in zray.get(refs)]

    red = colour.options(runtime_env=RED)
    for _ in range(5):
        found = zray.get([each.remote() for _ in range(100) for each in (red, colour)], timeout=30)
        assert [seen for seen, _, _ in found] == ["red", None] * 100
    colours = {(node, pid): seen for seen, node, pid in found}
    assert all(colours[node, pid] == seen for seen, node, pid in found)  # no process has both
    large = zray.put(bytes(1_000_000))
    assert {seen for seen, _, _ in zray.get([red.remote(large) for _ in range(20)])} == {"red"}
    assert zray.get(outer.options(runtime_env=RED).remote(), timeout=30) == ["red", "blue"] * 5


def test_a_time_zone_is_that_of_the_whole_process(connected: Any) -> None:
    @zray.task(runtime_env={"env_vars": {"TZ": "XYZ-9"}})
    def zone() -> tuple[int, str]:
        return time.localtime(0).tm_hour, time.tzname[0]

    assert zray.get(zone.remote(), timeout=20) == (9, "XYZ")


def test_no_process_runs_a_function_more_often_than_it_may(connected: Any) -> None:
    @zray.task(max_calls=2)
    def twice(_: object = None) -> tuple[str, int]:
        return str(zray.get_runtime_context().get_node_name()), os.getpid()

    @zray.task(num_cpus=0)
    def outer() -> list[tuple[str, int]]:
        return zray.get([twice.remote() for _ in range(6)])

    def check(found: list[tuple[str, int]]) -> None:
        assert max(Counter(found).values()) <= 2

    check([zray.get(twice.remote(), timeout=20) for _ in range(8)])
    check(zray.get([twice.remote() for _ in range(60)], timeout=50))
    check(zray.get([twice.options(num_cpus=0).remote() for _ in range(12)], timeout=50))
    large = zray.put(bytes(1_000_000))
    check(zray.get([twice.remote(large) for _ in range(12)], timeout=50))
    check(zray.get(outer.remote(), timeout=50))
