"""Which cluster a program is part of that names none."""

from __future__ import annotations

from typing import Any

import pytest

import zray


def nodes() -> set[str]:
    return {node["NodeName"] for node in zray.nodes()}


def test_a_program_joins_the_cluster_that_runs_here(bare: Any) -> None:
    bare.start_head()
    bare.start_node("mine")
    zray.init()
    assert "mine" in nodes()
    zray.shutdown()

    with pytest.raises(ValueError, match='runs on this machine; address="local"'):
        zray.init(num_cpus=1)
    zray.init("local", num_cpus=1)
    assert "mine" not in nodes()


def test_a_program_does_not_join_the_cluster_of_another_program(bare: Any) -> None:
    zray.init(num_cpus=1, _node_name="its own")
    source = """
        import zray

        zray.init(num_cpus=1)
        print({node["NodeName"] for node in zray.nodes()})
    """
    program = bare.run("other", source, environment={"ZRAY_ADDRESS": ""})
    assert program.wait(20) == 0
    assert "its own" not in program.text()


def test_a_cluster_that_has_ended_is_not_joined(bare: Any) -> None:
    bare.start_head().kill()
    zray.init(num_cpus=1, _node_name="its own")
    assert nodes() == {"its own"}
