"""Figures of a moment are made of the head's status and of the moment before; nothing is asked."""

from __future__ import annotations

import json
from typing import Any

from zray import limits
from zray.dashboard import figures
from zray.dashboard.events import server_event, to_json
from zray.protocol import messages as m

UNIT = limits.RESOURCE_UNIT
NOW_S = 1_800_000_000.0


def status(finished: int = 0, failed: int = 0, **fields: Any) -> m.Status:
    counters = [("events", 3), ("failed", failed), ("finished", finished)]
    found = m.Status(0, 1, b"c" * 16, NOW_S, "OK", [], [], [], 0, [], counters)
    for name, value in fields.items():
        setattr(found, name, value)
    return found


def node(name: str, cpus: int, free: int, state: str = "ALIVE", **more: int) -> m.NodeStatus:
    total = [("CPU", cpus * UNIT), ("node:1", UNIT), *((key, more[key] * UNIT) for key in more)]
    info = m.NodeInfo(name, "host", 1, total, [], "")
    return m.NodeStatus(
        name.encode().ljust(16), 1, state, info, [("CPU", free * UNIT)], 2, 1, 9, 0.0
    )


def test_rates_are_of_the_time_between_two_samples() -> None:
    first = figures.sample_of(status(100, 1), NOW_S, None)
    assert first["tasks"]["finished_per_s"] == 0.0 and first["tasks"]["finished"] == 100
    later = figures.sample_of(status(300, 5), NOW_S + 2, first)
    assert later["tasks"]["finished_per_s"] == 100.0 and later["tasks"]["failed_per_s"] == 2.0
    restarted = figures.sample_of(status(7), NOW_S + 3, later)
    assert restarted["tasks"]["finished_per_s"] == 0.0
    after_a_gap = figures.sample_of(status(900), NOW_S + 100, restarted)
    assert after_a_gap["tasks"]["finished_per_s"] == 0.0


def test_nodes_and_resources_are_summed() -> None:
    nodes = [node("a", 4, 1), node("b", 2, 2, "SUSPECT"), node("c", 1, 0, "JOINING")]
    sample = figures.sample_of(status(nodes=nodes), NOW_S, None)
    assert sample["nodes"] == {"alive": 1, "suspect": 1, "draining": 0, "other": 1}
    assert sample["resources"] == {"CPU": [4.0, 7.0]}
    assert sample["tasks"]["running"] == 6 and sample["tasks"]["queued"] == 3


def test_thousands_of_resources_and_nodes_are_cut() -> None:
    many = {f"custom{number}": 1 for number in range(5000)}
    nodes = [node(f"n{number}", 1, 1, **many) for number in range(2)]
    nodes += [node(f"m{number}", 1, 1) for number in range(500)]
    sample = figures.sample_of(status(nodes=nodes), NOW_S, None)
    assert len(sample["resources"]) == figures.RESOURCES_TOLD_MAX and "CPU" in sample["resources"]
    details = figures.details_of(status(nodes=nodes))
    assert len(details["node_figures"]) == figures.NODES_TOLD_MAX
    assert len(details["node_figures"][0]["resources"]) == figures.RESOURCES_TOLD_MAX
    assert "node:1" not in details["node_figures"][2]["resources"]


def test_what_has_changed_is_named_once() -> None:
    kinds, seen = figures.changed(status(1), {})
    kinds_of_things = {"tasks", "actors", "objects", "nodes", "workers", "jobs", "events"}
    assert {*kinds} == kinds_of_things | {"placement_groups"}
    assert figures.changed(status(1), seen)[0] == []
    assert figures.changed(status(2), seen)[0] == ["tasks"]
    assert figures.changed(status(1, objects=5), seen)[0] == ["objects"]


def test_an_event_is_one_line_whatever_is_in_it() -> None:
    data = {"text": "two\nlines\r\n\u2028 <script>\x1b"}
    lines = server_event("text", data).decode("ascii").split("\n")
    assert lines[0] == "event: text" and json.loads(lines[1].removeprefix("data: ")) == data
    assert lines[2:] == ["", ""]
    for shared in ({}, {"a": 1}):
        text = server_event("x", to_json(shared), {"b": [2]}).split(b"data: ")[1]
        assert json.loads(text) == {**shared, "b": [2]}
