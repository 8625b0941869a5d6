"""The journal, and the acknowledgements that wait for it."""

from __future__ import annotations

from tests.core.benches import identity
from zray import limits
from zray.core.head.acknowledgements import Acknowledgements
from zray.core.head.journal import Journal
from zray.core.head.members import NodeMember
from zray.core.machine import NEVER, Outbox
from zray.protocol import messages as m


def node(name: str) -> NodeMember:
    info = m.NodeInfo(name, "host", 1, [("CPU", 1)], [], "machine")
    versions = m.Versions("3.11", "0", "3")
    hello = m.Hello(0, 1, m.ROLE_NODE, identity(name), 1, b"", versions, ["tasks"], info)
    return NodeMember(hello, info, 0.0)


def store(journal: Journal) -> None:
    for number, _ in journal.take():
        journal.stored(number)(1.0)


def test_entries_leave_in_order_and_what_follows_runs_when_they_are_stored() -> None:
    journal, done = Journal(), []
    for key in (b"a", b"b"):
        journal.persist([("t", key, b"v")], lambda now, key=key: done.append((key, now)))
    assert journal and journal.numbered == 2 and journal.waits()
    entries = journal.take()
    assert [rows[0][1] for _, rows in entries] == [b"a", b"b"]
    assert not journal and not journal.take() and not done
    for number, _ in entries:
        journal.stored(number)(2.0)
    assert done == [(b"a", 2.0), (b"b", 2.0)] and not journal.waits()


def test_an_end_is_acknowledged_when_it_and_those_before_it_are_durable() -> None:
    journal, outbox = Journal(), Outbox[bytes]()
    acks, sender = Acknowledgements(outbox, journal.persist), node("n1")
    acks.acknowledge(sender, 1, 0.0, durable=False)
    acks.acknowledge(sender, 2, 0.0, durable=True)
    acks.send(limits.ACK_DELAY_S)
    assert [ack.upto for ack in outbox.take()[identity("n1")]] == [0]  # type: ignore[attr-defined]
    store(journal)
    acks.send(10.0)
    assert [ack.upto for ack in outbox.take()[identity("n1")]] == [2]  # type: ignore[attr-defined]


def test_an_acknowledgement_goes_with_other_messages_or_soon() -> None:
    outbox = Outbox[bytes]()
    acks = Acknowledgements(outbox, Journal().persist)
    acks.acknowledge(node("n1"), 1, 0.0, durable=True)
    acks.acknowledge(node("n2"), 5, 0.0, durable=True)
    acks.send(0.0)
    assert not outbox and acks.deadline() == limits.ACK_DELAY_S
    outbox.send(identity("n2"), m.Pong(0, 0.0, "OK"))
    acks.send(0.0)
    assert [type(message) for message in outbox.take()[identity("n2")]] == [m.Pong, m.Ack]
    acks.send(limits.ACK_DELAY_S)
    assert list(outbox.take()) == [identity("n1")]
    assert acks.deadline() == NEVER
