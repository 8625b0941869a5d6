"""Large values between nodes on machines of their own: directly, by the head, and lost ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import zray

pytestmark = pytest.mark.system

ONE, TWO = ({"resources": {name: 1}, "num_cpus": 0} for name in ("one", "two"))
BYTES = 20_000_000


@zray.task
def make(number: int) -> Any:
    return np.full(BYTES, number, np.uint8)


@zray.task
def total(values: Any) -> tuple[int, bool]:
    return int(values.sum()), bool(values.flags.writeable)


def relayed(cluster: Any) -> int:
    return int(dict(cluster.status().counters)["relayed_bytes"])


def test_nodes_that_reach_each_other_pass_values_directly(apart: Any) -> None:
    cluster, network = apart
    network.join()
    made = make.options(**ONE).remote(3)
    for _ in range(2):
        sums = [total.options(**TWO).remote(made) for _ in range(8)]
        assert zray.get(sums, timeout=30) == [(3 * BYTES, False)] * 8
    assert relayed(cluster) == 0
    values = zray.get(made, timeout=30)  # this program is on no node's machine
    assert values.nbytes == BYTES and int(values[-1]) == 3
    assert relayed(cluster) >= BYTES


def test_where_they_do_not_the_head_passes_them_on_once(apart: Any) -> None:
    cluster, _ = apart
    made = make.options(**ONE).remote(5)
    sums = [total.options(**TWO).remote(made) for _ in range(8)]
    assert zray.get(sums, timeout=40) == [(5 * BYTES, False)] * 8
    assert BYTES <= relayed(cluster) < 1.5 * BYTES  # however many tasks waited for it


def test_a_put_of_a_distant_program_reaches_every_node(apart: Any) -> None:
    _, network = apart
    network.join()
    ref = zray.put(np.full(BYTES, 7, np.uint8))
    sums = [total.options(**where).remote(ref) for where in (ONE, TWO, ONE, TWO)]
    assert zray.get(sums, timeout=30) == [(7 * BYTES, False)] * 4


def test_a_task_runs_where_its_large_argument_is(apart: Any) -> None:
    _, network = apart
    network.join()

    @zray.task
    def where(_values: Any) -> str:
        return str(zray.get_runtime_context().get_node_name())

    for name, at in (("one", ONE), ("two", TWO)):
        made = make.options(**at).remote(1)
        zray.wait([made], fetch_local=False, timeout=30)
        assert [zray.get(where.remote(made), timeout=30) for _ in range(4)] == [name] * 4


@zray.task
def make_here() -> tuple[str, Any]:
    return zray.get_runtime_context().get_node_name(), np.full(BYTES, 2, np.uint8)


@zray.task
def double(made: tuple[str, Any]) -> Any:
    return made[1] * 2


def kill(cluster: Any, name: str) -> None:
    """The node is gone, and the head knows."""
    for program in cluster.programs:
        if program.name == name:
            program.kill()
    cluster.until(lambda: cluster.node(name) is None, 35, f"node {name} is dead")


def test_what_a_dead_node_had_is_made_again(apart: Any) -> None:
    cluster, network = apart
    network.join()
    first = make_here.remote()
    second = double.remote(first)
    zray.wait([second], fetch_local=False, timeout=30)
    name, _ = zray.get(first, timeout=30)
    kill(cluster, name)
    assert int(zray.get(second, timeout=40)[-1]) == 4
    assert dict(cluster.status().counters)["rebuilt"] == 2


def test_what_cannot_be_made_again_is_lost_and_says_why(apart: Any) -> None:
    cluster, _ = apart
    made = make.options(**ONE, max_retries=0).remote(2)
    zray.wait([made], fetch_local=False, timeout=30)
    kill(cluster, "one")
    with pytest.raises(zray.errors.ObjectLostError, match="a task without retries"):
        zray.get(made, timeout=60)
