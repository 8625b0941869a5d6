"""Values on their way to a process and from it, without the client."""

from __future__ import annotations

from typing import Any

from tests.core.benches import identity, object_of, value
from zray.core import failures
from zray.core.client.values import ClientValues, without_value
from zray.errors import ObjectLostError
from zray.protocol import messages as m

A = identity("a")
OID = object_of(A)
ME = identity("d1")


class Store:
    """The node's: has what it is said to have."""

    def __init__(self, *has: bytes) -> None:
        self.has = has
        self.own: list[m.Outcome] = []

    def take(self, oid: bytes) -> bool:
        return oid in self.has

    def published(self, oid: bytes) -> bytes:
        return identity("n1")

    def unput(self, oid: bytes) -> None:
        raise AssertionError("nothing of the process's own is there")

    def told(self) -> tuple[list[m.Outcome], bytes]:
        return self.own, identity("n1")


class Bench:
    def __init__(self) -> None:
        self.outbox: list[Any] = []
        self.arrived: list[m.Outcome] = []
        self.values = ClientValues(self.outbox.append, self.arrived.append)

    def taken(self) -> list[Any]:
        taken = [*self.outbox]
        self.outbox.clear()
        return taken

    def lost(self) -> bool:
        """The only value that came is the error of a lost one."""
        (outcome,) = self.arrived
        return outcome.kind == m.ERROR and failures.read(outcome.value).code == ObjectLostError.code


def test_a_value_is_asked_of_the_node_first_and_comes_in_chunks_where_that_does_not_do() -> None:
    bench = Bench()
    bench.values.near = Store(OID)
    bench.values.pull(OID)
    assert not bench.taken()
    bench.values.missing_near(OID, "", "ask the head")
    (pull,) = bench.taken()
    assert (pull.object_id, pull.direct) == (OID, False)
    bench.values.on_chunk(m.Chunk(0, pull.transfer, m.VALUE, 0, 5, b"va"))
    assert not bench.arrived
    bench.values.on_chunk(m.Chunk(0, pull.transfer, m.VALUE, 2, 5, b"lue"))
    assert bench.arrived == [value(A)]


def test_a_value_that_is_lost_there_arrives_as_an_error() -> None:
    bench = Bench()
    bench.values.near = Store(OID)
    bench.values.pull(OID)
    bench.values.missing_near(OID, ObjectLostError.code, "gone with its node")
    assert bench.lost() and OID in bench.values.lost and not bench.taken()


def test_a_failed_transfer_is_a_loss_and_the_end_of_one_s_own_sending_is_none() -> None:
    bench = Bench()
    bench.values.pull(OID)
    (pull,) = bench.taken()
    bench.values.on_failed(m.PullFailed(0, pull.transfer, "", "cancelled"))
    assert not bench.arrived
    bench.values.on_failed(m.PullFailed(0, pull.transfer, ObjectLostError.code, "gone"))
    assert bench.lost()


def test_a_new_session_asks_again_for_what_had_not_come_and_ignores_the_old_transfer() -> None:
    bench = Bench()
    bench.values.pull(OID)
    (pull,) = bench.taken()
    bench.values.resume()
    (again,) = bench.taken()
    assert again.object_id == OID and again.transfer != pull.transfer
    bench.values.on_chunk(m.Chunk(0, pull.transfer, m.VALUE, 0, 5, b"older"))
    assert not bench.arrived


def test_a_new_session_is_told_what_is_served_but_not_sent_it() -> None:
    bench, store, near = Bench(), Store(), m.Outcome(object_of(identity("b")), m.LOCATED, 9)
    store.own.append(near)
    bench.values.near = store
    bench.values.served[OID] = value(A)
    bench.values.announce(ME)
    assert bench.taken() == [
        m.Put(0, ME, near, identity("n1")),
        m.Put(0, ME, without_value(value(A))),
    ]


def test_what_was_freed_or_is_only_a_view_of_the_node_s_memory_is_not_served() -> None:
    bench = Bench()
    bench.values.served[OID] = value(A)
    bench.values.on_pull(m.Pull(0, 1, OID), None)
    (chunk,) = bench.taken()
    assert chunk.data == b"value"
    bench.values.freed(OID)
    view: Any = memoryview(b"value")
    bench.values.on_pull(m.Pull(0, 2, OID), m.Outcome(OID, m.VALUE, 5, view))
    (failed,) = bench.taken()
    assert (failed.transfer, failed.code) == (2, ObjectLostError.code)
