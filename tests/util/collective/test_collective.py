"""Collective calls between real processes: all kinds of tensors, members that do not play along."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zray
from tests.api.conftest import eventually
from zray.errors import CollectiveError
from zray.util import collective, kv
from zray.util.collective import ReduceOp

pytestmark = pytest.mark.usefixtures("cluster")


@zray.remote(num_cpus=0)
class Member:
    def join(self, world_size: int, rank: int, name: str, timeout_ms: int = 20_000) -> None:
        collective.init_collective_group(world_size, rank, "gloo", name, timeout_ms)

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)

    def pid(self) -> int:
        return os.getpid()

    def destroy(self, name: str) -> None:
        collective.destroy_collective_group(name)


def made(world_size: int, name: str) -> list[Any]:
    members = [Member.remote() for _ in range(world_size)]
    zray.get([one.join.remote(world_size, rank, name) for rank, one in enumerate(members)])
    return members


def call(members: list[Any], function: Callable[..., Any], *args: Any) -> list[Any]:
    refs = [one.run.remote(function, rank, *args) for rank, one in enumerate(members)]
    return zray.get(refs, timeout=60)


def test_all_kinds_of_arrays() -> None:
    def work(rank: int) -> list[Any]:
        found: list[Any] = []
        for dtype in ("bool", "int8", "uint16", "int64", "float16", "float64", "complex64", ">i4"):
            array = np.ones(3, dtype)
            collective.allreduce(array, "kinds")
            found.append(array.real.astype(int).tolist())
        matrix = np.zeros((6, 4), np.int64)
        collective.allreduce(part := np.ones((6, 4), np.int64).T[::2], "kinds")
        matrix.T[::2] += part
        found.append(int(matrix.sum()))
        scalar = np.array(rank + 1)
        collective.allreduce(scalar, "kinds")
        empty = np.zeros((0, 3))
        for one in (
            lambda: collective.allreduce(empty, "kinds"),
            lambda: collective.broadcast(empty, 0, "kinds"),
            lambda: collective.reduce(empty, 0, "kinds"),
            lambda: collective.allgather([empty, empty], empty, "kinds"),
        ):
            one()
        return [*found, int(scalar)]

    expected = [[1] * 3] + [[2] * 3] * 7 + [24, 3]
    assert call(made(2, "kinds"), work) == [expected] * 2


def test_large_tensors_of_odd_sizes_among_five() -> None:
    def work(rank: int) -> bool:
        rng = np.random.default_rng(rank)
        mine = rng.integers(0, 1000, 1_234_567)
        all_of = [np.random.default_rng(n).integers(0, 1000, 1_234_567) for n in range(5)]
        total = sum(all_of)
        reduced = mine.copy()
        collective.allreduce(reduced, "odd")
        good = bool(np.array_equal(reduced, total))
        collective.reduce(other := mine.copy(), 3, "odd")
        good &= bool(np.array_equal(other, total if rank == 3 else mine))
        collective.broadcast(other := mine.copy(), 4, "odd")
        good &= bool(np.array_equal(other, all_of[4]))
        outputs = [np.empty_like(mine) for _ in range(5)]
        collective.allgather(outputs, mine, "odd")
        good &= all(np.array_equal(one, two) for one, two in zip(outputs, all_of, strict=True))
        collective.reducescatter(
            part := np.empty_like(mine), [mine + n for n in range(5)], "odd", ReduceOp.MAX
        )
        return good and bool(np.array_equal(part, np.max(all_of, axis=0) + rank))

    assert call(made(5, "odd"), work) == [True] * 5


def test_tasks_are_members_too_and_one_alone_is_a_group() -> None:
    @zray.remote(num_cpus=0)
    def task(rank: int, world_size: int, name: str) -> float:
        collective.init_collective_group(world_size, rank, "gloo", name)
        array = np.full(4, rank + 1.0)
        collective.allreduce(array, name)
        collective.barrier(name)
        collective.destroy_collective_group(name)
        return float(array[0])

    assert zray.get([task.remote(rank, 3, "tasks") for rank in range(3)], timeout=60) == [6.0] * 3
    assert zray.get(task.remote(0, 1, "alone"), timeout=60) == 1.0
    assert not kv.keys(b"zray/collective/")


def test_a_member_that_dies_ends_the_calls_of_all(tmp_path: Path) -> None:
    members = made(4, "dies")
    pids = zray.get([one.pid.remote() for one in members])

    def work(rank: int) -> str:
        array = np.ones(1 << 20)
        try:
            for _ in range(10_000):
                collective.allreduce(array, "dies")
                (tmp_path / str(rank)).touch()
        except CollectiveError as error:
            try:
                collective.barrier("dies")
            except CollectiveError as again:
                return f"{error} | {again}"
        return "no error"

    refs = [one.run.remote(work, rank) for rank, one in enumerate(members)]
    eventually(lambda: len([*tmp_path.iterdir()]) == 4)
    os.kill(pids[2], signal.SIGKILL)
    told = zray.get([refs[0], refs[1], refs[3]], timeout=20)
    for text in told:
        assert "ZR-3511" in text and "has closed its connection during allreduce" in text
        assert "cannot be used any more" in text and "no error" not in text


def test_a_member_that_has_ended_before_it_was_needed() -> None:
    members = made(4, "before")  # 0 and 3 have had no reason to connect so far, or 1 and 2
    zray.kill(members[2])

    def work(rank: int) -> str:
        try:
            if rank == 1:
                collective.recv(np.ones(1), 2, "before")
            else:
                collective.send(np.ones(1), 2, "before")
                collective.recv(np.ones(1), 2, "before")
        except CollectiveError as error:
            return str(error)
        return "no error"

    for text in zray.get([members[n].run.remote(work, n) for n in (0, 1, 3)], timeout=20):
        assert "rank 2 of the group 'before' has closed its connection" in text


def test_members_that_make_different_calls() -> None:
    def work(rank: int) -> str:
        try:
            if rank:
                collective.allreduce(np.ones(3), "differ")
            else:
                collective.allreduce(np.ones(3, np.float32), "differ")
        except CollectiveError as error:
            return str(error)
        return "no error"

    told = call(made(2, "differ"), work)
    assert any("12 bytes of <f4" in text and "24 bytes of <f8" in text for text in told)
    assert all("no error" not in text for text in told)


def test_members_that_reduce_differently_are_told() -> None:
    def work(rank: int) -> str:
        try:
            collective.allreduce(np.ones(4), "ways", ReduceOp.MAX if rank else ReduceOp.SUM)
        except CollectiveError as error:
            return str(error)
        return ""

    said = call(made(2, "ways"), work)
    assert all(said)
    assert any("allreduce MAX" in one for one in said)


def test_kinds_of_elements_with_long_names() -> None:
    def work(rank: int) -> Any:
        array = np.full(3, rank, "m8[250us]")
        collective.broadcast(array, 1, "long")
        return array.astype(int).tolist()

    assert call(made(2, "long"), work) == [[1] * 3] * 2


def test_groups_are_joined_in_any_order() -> None:
    members = [Member.options(max_concurrency=2).remote() for _ in range(2)]
    zray.get([one.pid.remote() for one in members])
    first = [members[0].join.remote(2, 0, "left"), members[1].join.remote(2, 0, "right")]
    zray.wait(first, num_returns=2, timeout=0.5)  # each waits for the other
    second = [members[0].join.remote(2, 1, "right"), members[1].join.remote(2, 1, "left")]
    zray.get(first + second, timeout=15)


def test_a_member_that_does_not_come_is_named() -> None:
    member = Member.remote()
    began = time.monotonic()
    with pytest.raises(CollectiveError, match="rank 1 of the group 'late' has not come in time"):
        zray.get(member.join.remote(2, 0, "late", 500))
    assert time.monotonic() - began < 10
    assert not kv.keys(b"zray/collective/")
    other = Member.remote()  # and it can be tried again
    zray.get([member.join.remote(2, 0, "late"), other.join.remote(2, 1, "late")], timeout=30)


def test_members_that_do_not_agree_on_the_size() -> None:
    first, second = Member.remote(), Member.remote()
    refs = [first.join.remote(3, 0, "sizes", 2000), second.join.remote(2, 1, "sizes", 2000)]
    with pytest.raises(CollectiveError, match=r"with 2 members|with 3|has not come"):
        zray.get(refs, timeout=30)


def test_a_group_made_again_after_a_crash_finds_no_old_member() -> None:
    members = made(2, "again")
    zray.kill(members[1])
    zray.get(members[0].destroy.remote("again"))
    kept, new = members[0], Member.remote()
    zray.get([kept.join.remote(2, 0, "again"), new.join.remote(2, 1, "again")], timeout=30)

    def work(rank: int) -> float:
        collective.allreduce(array := np.ones(1), "again")
        return float(array[0])

    assert call([kept, new], work) == [2.0, 2.0]


def test_arrays_of_the_object_store_are_refused_as_targets() -> None:
    def work(rank: int, array: Any) -> str:
        try:
            collective.allreduce(array, "readonly")
        except ValueError as error:
            return str(error)
        return "no error"

    told = call(made(2, "readonly"), work, zray.put(np.ones(100_000)))
    assert told == [text for text in told if "read-only" in text]


def test_what_cannot_be_reduced_or_sent() -> None:
    def work(rank: int) -> list[str]:
        found = []
        for array in (np.array(["a"]), np.array([object()])):
            try:
                collective.allreduce(array, "no-numbers")
            except TypeError as error:
                found.append(str(error))
        collective.broadcast(text := np.array(["ab" if rank == 0 else "cd"]), 0, "no-numbers")
        return [*found, str(text[0])]

    for texts in call(made(2, "no-numbers"), work):
        assert "cannot be reduced" in texts[0] and "no numbers" in texts[1] and texts[2] == "ab"
