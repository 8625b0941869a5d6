"""Members on different machines: encrypted connections, and who is let in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import zmq

from zray.errors import CollectiveError
from zray.util import far_channels, kv
from zray.util.channels import PeerGoneError
from zray.util.collective import membership
from zray.util.collective.membership import Membership
from zray.util.collective.types import ReduceOp
from zray.util.far_channels import FarDoor

pytestmark = pytest.mark.usefixtures("cluster")
PREFIX = b"zray/collective/test/"


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each member takes itself for alone on its machine, which is reached at 127.0.0.1."""
    machines = iter(range(100))
    monkeypatch.setattr(membership, "own_machine", lambda: f"machine {next(machines)}")
    monkeypatch.setattr(far_channels, "is_loopback", lambda host: False)


def together(world_size: int, work: Callable[[Membership], Any]) -> list[Any]:
    """What each of the members returns, each in a thread of its own."""
    members = [Membership(PREFIX, "far", rank, world_size) for rank in range(world_size)]
    results: list[Any] = [None] * world_size

    def run(rank: int) -> None:
        try:
            members[rank].meet(20)
            results[rank] = work(members[rank])
        except Exception as error:
            results[rank] = error
        finally:
            members[rank].close()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_the_same_results_as_on_one_machine() -> None:
    def work(member: Membership) -> float:
        group = member.group
        group.allreduce(large := np.full(600_001, group.rank + 1.0), ReduceOp.SUM)
        group.broadcast(large, 1)
        group.barrier()
        group.allreduce(small := np.ones(3), ReduceOp.SUM)
        return float(large[-1] + small[0])

    assert together(3, work) == [9.0] * 3
    assert not kv.keys(PREFIX)


def test_one_that_leaves_ends_the_calls_of_the_others() -> None:
    def work(member: Membership) -> str:
        group = member.group
        array = np.ones(1 << 20)
        group.allreduce(array, ReduceOp.SUM)
        if group.rank == 1:
            group.destroy()
            return "left"
        with pytest.raises(CollectiveError, match="has closed its connection"):
            for _ in range(3):
                group.allreduce(array, ReduceOp.SUM)
        return "told"

    assert together(3, work) == ["told", "left", "told"]


@pytest.fixture
def doors() -> Iterator[list[FarDoor]]:
    """Of who listens, and of who calls."""
    made = [FarDoor(PREFIX, b"l" * 16, 0, "127.0.0.1"), FarDoor(PREFIX, b"c" * 16, 1, "127.0.0.1")]
    yield made
    for door in made:
        door.close()
    for key in kv.keys(PREFIX):
        kv.delete(key)


def test_only_the_callers_key_is_let_in(doors: list[FarDoor]) -> None:
    listening, caller = doors
    caller.connect(b"l" * 16, listening.public, "127.0.0.1")
    listening.admit()
    stranger = FarDoor(PREFIX, b"c" * 16, 1, "127.0.0.1")  # it knows port and server's key
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        assert stranger.connect(b"l" * 16, listening.public, "127.0.0.1") is None
        assert listening.admit() == []
        time.sleep(0.01)
    stranger.close()
    ((rank, channel),) = connected(listening, caller)[0]
    assert rank == 1
    channel.close()


def test_without_encryption_nobody_is_heard(doors: list[FarDoor]) -> None:
    listening, caller = doors
    caller.connect(b"l" * 16, listening.public, "127.0.0.1")
    listening.admit()
    (port,) = [kv.get(key) for key in kv.keys(PREFIX) if key.endswith(b"port")]
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    plain = context.socket(zmq.DEALER)
    plain.connect(f"tcp://127.0.0.1:{int(port or b'0')}")
    plain.send(far_channels.HELLO)
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        assert listening.admit() == []
        time.sleep(0.01)
    context.destroy(0)


def connected(listening: FarDoor, caller: FarDoor) -> tuple[list[Any], Any]:
    """What comes in at one, and what the other has."""
    accepted: list[Any] = []
    channel = None
    while not accepted or channel is None:
        accepted = accepted or listening.admit()
        channel = channel or caller.connect(b"l" * 16, listening.public, "127.0.0.1")
        time.sleep(0.005)
    channel.close()
    return accepted, channel


def test_a_channel_tells_that_the_other_end_is_gone(doors: list[FarDoor]) -> None:
    ((_, channel),) = connected(*doors)[0]
    assert not kv.keys(PREFIX)
    with pytest.raises(PeerGoneError):
        for _ in range(500):
            channel.receive(memoryview(bytearray(1)))
            time.sleep(0.01)
    channel.close()
