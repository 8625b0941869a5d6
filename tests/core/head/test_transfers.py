"""Who is told to ask whom for a large value, so that many copies spread from node to node."""

from __future__ import annotations

from typing import Any

from tests.core.benches import identity, object_of, value
from tests.core.head.tables import Tables
from zray import limits
from zray.errors import ObjectLostError
from zray.protocol import messages as m

BIG = object_of(identity("big"))
SIZE = 50 << 20


class Bench(Tables):
    """Nodes n1, n2 ... whose ports are reachable, and a driver; the first node has the object."""

    def __init__(self, nodes: int, awaited: str = "") -> None:
        super().__init__(awaited)
        self.driver("d")
        for number in range(1, nodes + 1):
            self.node(f"n{number}", liveness=f"host{number}:1")
        outcome = m.Outcome(BIG, m.VALUE | m.LOCATED, SIZE)
        self.objects.settle(outcome, (identity("n1"),))
        self.box: dict[bytes, list[m.Message]] = {}

    def say(self, name: str, message: m.Message) -> None:
        member = self.members.member(identity(name))
        handlers: dict[type[m.Message], Any] = {
            m.Chunk: self.transfers.on_chunk,
            m.ChunkAck: self.transfers.on_chunk_ack,
            m.PullFailed: self.transfers.on_pull_failed,
        }
        handlers[type(message)](member, message, 0.0)

    def pull(self, name: str, transfer: int = 1, *, direct: bool = True) -> None:
        self.transfers.pull(identity(name), m.Pull(0, transfer, BIG, direct))

    def got(self, name: str, kind: type[m.Message]) -> list[Any]:
        """What of a kind a process was sent since the last look at it."""
        for process, messages in self.outbox.take().items():
            self.box.setdefault(process, []).extend(messages)
        return [one for one in self.box.pop(identity(name), []) if isinstance(one, kind)]

    def asks(self, name: str) -> list[str]:
        """Whom the node was told to ask since the last time."""
        return [told.address for told in self.got(name, m.PullFrom)]


def test_copies_spread_from_node_to_node() -> None:
    bench = Bench(8)
    for number in range(2, 9):
        bench.pull(f"n{number}")
    told = [number for number in range(2, 9) if bench.asks(f"n{number}") == ["host1:1"]]
    assert told == [2, 3] and limits.PEER_PULLS_MAX == 2
    arrived(bench, "n2")
    asked = {number: bench.asks(f"n{number}") for number in range(4, 9)}
    assert sorted(asked.values()) == [[], [], ["host1:1"], ["host2:1"], ["host2:1"]]
    busy = [number for number, whom in asked.items() if whom]
    for number in (3, *busy):
        arrived(bench, f"n{number}")
    left = [bench.asks(f"n{number}") for number in range(4, 9) if number not in busy]
    assert all(len(whom) == 1 for whom in left)


def arrived(bench: Bench, name: str) -> None:
    record = bench.objects.get(BIG)
    assert record is not None
    bench.objects.add_location(record, identity(name))
    bench.transfers.arrived(identity(name), BIG)


def test_one_that_waits_is_served_when_the_other_gives_up() -> None:
    bench = Bench(4)
    for number in (2, 3, 4):
        bench.pull(f"n{number}")
    assert bench.asks("n4") == []
    bench.transfers.session_lost(identity("n2"))
    assert bench.asks("n4") == ["host1:1"]


def test_a_node_that_could_not_reach_the_other_gets_it_through_the_head() -> None:
    bench = Bench(2)
    bench.pull("n2")
    assert bench.asks("n2") == ["host1:1"]
    bench.pull("n2", 2, direct=False)
    (relayed,) = bench.got("n1", m.Pull)
    bench.say("n1", m.Chunk(0, relayed.transfer, 0, 0, SIZE, b"data"))
    (chunk,) = bench.got("n2", m.Chunk)
    assert (chunk.transfer, chunk.data) == (2, b"data")
    bench.say("n2", m.ChunkAck(0, 2, 0))
    (taken,) = bench.got("n1", m.ChunkAck)
    assert (taken.transfer, taken.offset) == (relayed.transfer, 0)
    assert bench.transfers.relayed_bytes == 4


def test_only_the_source_s_chunks_are_passed_on() -> None:
    bench = Bench(3)
    bench.pull("d")
    (relayed,) = bench.got("n1", m.Pull)
    bench.say("n3", m.Chunk(0, relayed.transfer, 0, 0, SIZE, b"forged"))
    assert not bench.got("d", m.Chunk) and not bench.transfers.relayed_bytes


def test_a_source_that_fails_is_replaced_by_another_from_the_start() -> None:
    bench = Bench(2)
    arrived(bench, "n2")
    bench.pull("d")
    (first,) = bench.got("n1", m.Pull)
    bench.say("n1", m.PullFailed(0, first.transfer, "", "it is gone"))
    (second,) = bench.got("n2", m.Pull)
    assert second.object_id == BIG and not bench.got("d", m.PullFailed)
    bench.transfers.session_lost(identity("n2"))
    assert not bench.got("d", m.PullFailed)  # it may come back


def test_who_asks_and_leaves_has_its_source_stop() -> None:
    bench = Bench(1)
    bench.pull("d")
    (asked,) = bench.got("n1", m.Pull)
    bench.transfers.session_lost(identity("d"))
    assert [failed.transfer for failed in bench.got("n1", m.PullFailed)] == [asked.transfer]


def test_what_has_no_copy_left_is_made_again_or_its_loss_told() -> None:
    bench = Bench(1)
    bench.objects.forget_place(identity("n1"))
    bench.pull("d")
    assert bench.lost == [BIG] and not bench.got("d", m.PullFailed)
    bench.trouble = "it was put"
    bench.transfers.retry()
    (failed,) = bench.got("d", m.PullFailed)
    assert failed.code == ObjectLostError.code and failed.text.endswith("; it was put")
    bench.transfers.retry()
    assert not bench.got("d", m.PullFailed)


def test_a_head_that_recovers_gives_nothing_up() -> None:
    bench = Bench(1, awaited="n2")
    bench.objects.forget_place(identity("n1"))
    bench.pull("d")
    bench.transfers.pull(identity("d"), m.Pull(0, 2, object_of(identity("unheard of"))))
    assert not bench.lost and not bench.got("d", m.PullFailed)
    arrived(bench, "n1")
    assert bench.got("n1", m.Pull)


def test_what_the_head_has_it_sends_itself() -> None:
    bench = Bench(1)
    small = value(identity("small"), contained=[BIG])
    bench.objects.settle(small, ())
    bench.transfers.pull(identity("d"), m.Pull(0, 7, small.object_id))
    (chunk,) = bench.got("d", m.Chunk)
    assert (chunk.transfer, chunk.data, chunk.total) == (7, b"value", 5)
    assert chunk.contained == [BIG]
