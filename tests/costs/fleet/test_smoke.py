"""A head with simulated nodes gives every driver its results; figures are for people to judge."""

from __future__ import annotations

import os
from pathlib import Path

from tests.costs.fleet.__main__ import heading, rows
from tests.costs.fleet.alone import cpu_us
from tests.costs.fleet.measuring import ROLES, Case, fleet


def test_what_a_head_with_many_nodes_costs_is_accounted_to_processes() -> None:
    case = Case(nodes=4, task_s=0.002, drivers=2, seconds=0.5)
    with fleet(Path(os.environ["ZRAY_HOME"]), case.nodes) as one:
        nodes = one.status().nodes
        found = one.measure(case)
        finished = [node.finished for node in one.status().nodes if node.info.name != "head"]
    assert sum(dict(node.info.resources).get("CPU", 0) for node in nodes) == 16 * 10_000
    assert found["tasks"] >= case.drivers * case.in_flight()
    assert found["wrong"] == found["again"] == 0
    assert sum(count > 0 for count in finished) == case.nodes
    assert 0 < found["least"] <= 1 <= found["most"] and 0 < found["efficiency"] < 1
    for role in ROLES:
        assert found[role]["cpu_us"] > 1 and found[role]["switches"] > 0
    assert cpu_us(nodes=4, drivers=2, turns=2, in_flight=200) > 1
    text = "\n".join([*heading(), *rows(case, found, found)])
    assert text.count("\n") == 3 and "| before |" in text and "| 2 ms |" in text
