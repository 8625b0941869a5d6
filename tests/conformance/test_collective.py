"""Contracts of collective calls over host memory, between actors."""

from __future__ import annotations

import numpy as np
import pytest
import ray
from ray.util import collective
from ray.util.collective.types import Backend, ReduceOp

pytestmark = pytest.mark.usefixtures("cluster")


@ray.remote(num_cpus=0)
class Member:
    def join(self, world_size, rank, group_name="default"):
        collective.init_collective_group(world_size, rank, "gloo", group_name)
        return rank

    def about(self, group_name="default"):
        return (
            collective.is_group_initialized(group_name),
            collective.get_rank(group_name),
            collective.get_collective_group_size(group_name),
        )

    def destroy(self, group_name="default"):
        collective.destroy_collective_group(group_name)

    def run(self, function, *args):
        return function(*args)


def call(members, function, *args):
    """What each returns of ``function(rank, *args)``."""
    refs = [one.run.remote(function, rank, *args) for rank, one in enumerate(members)]
    return ray.get(refs, timeout=60)


def made(world_size, group_name="default"):
    members = [Member.remote() for _ in range(world_size)]
    ray.get([one.join.remote(world_size, n, group_name) for n, one in enumerate(members)])
    return members


def test_members_know_their_group() -> None:
    """Before, while and after they are members."""
    first, second = Member.remote(), Member.remote()
    assert ray.get(first.about.remote()) == (False, -1, -1)
    ray.get([first.join.remote(2, 0), second.join.remote(2, 1)])
    assert ray.get(first.about.remote()) == (True, 0, 2)
    assert ray.get(second.about.remote()) == (True, 1, 2)
    ray.get([first.destroy.remote(), second.destroy.remote()])
    assert ray.get(first.about.remote()) == (False, -1, -1)


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("size", [1, 10, 100_003])
def test_allreduce(world_size, size) -> None:
    """Every tensor becomes the sum of all."""

    def work(rank, size):
        tensor = np.arange(size, dtype=np.float64) + rank
        collective.allreduce(tensor)
        return tensor

    results = call(made(world_size), work, size)
    expected = world_size * np.arange(size) + sum(range(world_size))
    assert all(np.array_equal(one, expected) for one in results)


@pytest.mark.parametrize(("op", "expected"), [("SUM", 6), ("PRODUCT", 6), ("MIN", 1), ("MAX", 3)])
def test_ways_to_reduce(op, expected) -> None:
    """Element by element."""

    def work(rank, op):
        tensor = np.full(4, rank + 1, dtype=np.float32)
        collective.allreduce(tensor, op=getattr(ReduceOp, op))
        return tensor.tolist()

    assert call(made(3), work, op) == [[expected] * 4] * 3


@pytest.mark.parametrize("root", [0, 2])
@pytest.mark.parametrize("size", [5, 100_003])
def test_reduce(root, size) -> None:
    """The root's tensor becomes the sum; the others' stay."""

    def work(rank, root, size):
        tensor = np.full(size, rank + 1.0)
        collective.reduce(tensor, dst_rank=root)
        return tensor[0], tensor[-1]

    results = call(made(3), work, root, size)
    assert results == [(6.0, 6.0) if n == root else (n + 1.0, n + 1.0) for n in range(3)]


@pytest.mark.parametrize("root", [0, 1])
@pytest.mark.parametrize("size", [5, 300_001])
def test_broadcast(root, size) -> None:
    """Every tensor becomes the root's."""

    def work(rank, root, size):
        tensor = np.arange(size, dtype=np.int64) * (rank + 1)
        collective.broadcast(tensor, src_rank=root)
        return tensor[-1]

    assert call(made(3), work, root, size) == [(size - 1) * (root + 1)] * 3


def test_allgather() -> None:
    """The list becomes the members' tensors, by rank."""

    def work(rank):
        tensors = [np.zeros((2, 3), dtype=np.float32) for _ in range(3)]
        collective.allgather(tensors, np.full((2, 3), rank, dtype=np.float32))
        return [one.tolist() for one in tensors]

    expected = [np.full((2, 3), n).tolist() for n in range(3)]
    assert call(made(3), work) == [expected] * 3


def test_reducescatter() -> None:
    """Each gets the sum of what all have in its place."""

    def work(rank):
        parts = [np.full(4, 10.0 * place + rank) for place in range(3)]
        tensor = np.zeros(4)
        collective.reducescatter(tensor, parts)
        return tensor.tolist()

    assert call(made(3), work) == [[30.0 * place + 3] * 4 for place in range(3)]


def test_send_and_recv() -> None:
    """From one member to another."""

    def work(rank):
        tensor = np.arange(1000, dtype=np.float32) if rank == 0 else np.zeros(1000, np.float32)
        if rank == 0:
            collective.send(tensor, dst_rank=1)
        else:
            collective.recv(tensor, src_rank=0)
        return float(tensor.sum())

    assert call(made(2), work) == [499500.0] * 2


def test_barrier() -> None:
    """Nobody goes on before all have come."""

    def work(rank, file):
        import os
        import time

        time.sleep(0.5 * rank)
        os.close(os.open(f"{file}{rank}", os.O_CREAT))
        collective.barrier()
        return os.path.exists(f"{file}0") and os.path.exists(f"{file}1")

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        assert call(made(2), work, f"{folder}/came") == [True, True]


def test_declared_groups() -> None:
    """The driver says who is who; members join with their first call."""
    members = [Member.remote() for _ in range(2)]
    collective.create_collective_group(members, 2, [1, 0], backend="gloo", group_name="declared")
    with pytest.raises(RuntimeError, match="twice"):
        collective.create_collective_group(
            members, 2, [1, 0], backend="gloo", group_name="declared"
        )

    def work(_place):
        tensor = np.ones(3)
        collective.allreduce(tensor, "declared")
        return tensor.tolist(), collective.get_rank("declared")

    assert call(members, work) == [([2.0] * 3, 1), ([2.0] * 3, 0)]
    ray.get([one.destroy.remote("declared") for one in members])


@pytest.mark.parametrize("ranks", [[0], [0, 2], [0, 0]])
def test_wrong_ranks_of_a_declaration(ranks) -> None:
    """One for each actor, from 0 on, all different."""
    members = [Member.remote() for _ in range(2)]
    with pytest.raises(RuntimeError):
        collective.create_collective_group(members, 2, ranks, backend="gloo", group_name="wrong")


def test_calls_in_a_driver_or_without_a_group() -> None:
    """They are RuntimeErrors."""
    with pytest.raises(RuntimeError):
        collective.init_collective_group(1, 0, "gloo")
    with pytest.raises(RuntimeError):
        collective.allreduce(np.ones(1))
    (result,) = call([Member.remote()], _refused)
    assert result == "RuntimeError"


def _refused(rank):
    try:
        collective.allreduce(np.ones(1), "of-nobody")
    except Exception as error:
        return type(error).__name__
    return "none"


def test_wrong_arguments() -> None:
    """What is no tensor, a list of the wrong length, a rank that is not there, oneself."""

    def work(rank):
        found = []
        for wrong in (
            lambda: collective.allreduce([1, 2]),
            lambda: collective.allgather([np.ones(1)] * 3, np.ones(1)),
            lambda: collective.allgather(np.ones((2, 1)), np.ones(1)),
            lambda: collective.broadcast(np.ones(1), 2),
            lambda: collective.broadcast(np.ones(1), -1),
            lambda: collective.send(np.ones(1), rank),
        ):
            try:
                wrong()
            except (RuntimeError, ValueError) as error:
                found.append(type(error).__name__)
        return found

    expected = ["RuntimeError"] * 3 + ["ValueError"] * 2 + ["RuntimeError"]
    assert call(made(2), work) == [expected] * 2


def test_a_member_joins_once() -> None:
    """A second time is a RuntimeError."""
    members = made(2)
    with pytest.raises(RuntimeError, match="second time"):
        ray.get(members[0].join.remote(2, 0))


def test_backends() -> None:
    """Which there are by name."""
    assert collective.is_backend_available("gloo")
    assert Backend("gloo") == Backend("torch_gloo") == Backend.GLOO
    with pytest.raises(ValueError, match="Unrecognized"):
        Backend("smoke signals")
