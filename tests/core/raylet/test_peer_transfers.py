"""Values between raylets, where one of the two cannot read or keep what it should."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.benches import identity, object_of
from zray import limits
from zray.core.raylet.objects import LocalObjects
from zray.core.raylet.peer_transfers import PeerTransfers
from zray.protocol import messages as m

OID = object_of(identity("o"))
LARGE = 2 * limits.INLINE_BYTES_MAX
OTHER = "10.0.0.2:1"


class Memory:
    """Shared memory of which as many uses fail as are asked for."""

    def __init__(self) -> None:
        self.failing = 0
        self.incoming: dict[bytes, bytes] = {}

    def _use(self) -> None:
        if self.failing:
            self.failing -= 1
            raise OSError(28, "No space left on device")

    def begin(self, oid: bytes, size: int, kind: int, contained: list[bytes]) -> None:
        self.incoming[oid] = b""

    def write(self, oid: bytes, offset: int, data: bytes) -> None:
        self._use()
        self.incoming[oid] += data

    def complete(self, oid: bytes) -> m.Outcome:
        data = self.incoming.pop(oid)
        return m.Outcome(oid, m.VALUE | m.LOCATED, len(data), b"")

    def abandon(self, oid: bytes) -> None:
        del self.incoming[oid]

    def read(self, oid: bytes) -> memoryview:
        self._use()
        return memoryview(bytes(LARGE))


class Node:
    def __init__(self) -> None:
        self.to_head: list[m.Message] = []
        self.objects = LocalObjects(self.to_head.append)
        self.memory: Any = Memory()
        self.objects.attach(self.memory)
        self.objects.puller.direct = True
        self.peer_transfers = PeerTransfers(self.objects)
        self.arrived: list[tuple[m.Outcome | None, str]] = []

    def asked(self) -> m.Pull:
        """What the head was asked for, for the last time."""
        return [message for message in self.to_head if isinstance(message, m.Pull)][-1]


def chunk(transfer: int) -> m.Chunk:
    return m.Chunk(0, transfer, m.VALUE, 0, LARGE, bytes(LARGE), [])


def fetching() -> Node:
    node = Node()
    node.objects.fetch(OID, lambda outcome, text: node.arrived.append((outcome, text)))
    transfer = node.asked().transfer
    node.peer_transfers.on_pull_from(m.PullFrom(0, transfer, OID, OTHER), 0.0)
    node.memory.failing = 1
    with pytest.raises(OSError, match="No space"):
        node.peer_transfers.on_chunk(OTHER, chunk(transfer))
    return node


def test_a_value_that_could_not_be_kept_is_asked_for_once_more() -> None:
    node = fetching()
    assert not node.memory.incoming and not node.arrived
    again = node.asked()
    assert (again.object_id, again.direct) == (OID, False)
    node.objects.on_chunk(chunk(again.transfer))
    assert [outcome is not None for outcome, _ in node.arrived] == [True]


def test_one_that_cannot_be_kept_at_all_is_an_error_with_the_reason() -> None:
    node = fetching()
    node.memory.failing = 1
    with pytest.raises(OSError, match="No space"):
        node.objects.on_chunk(chunk(node.asked().transfer))
    ((outcome, text),) = node.arrived
    assert outcome is None and "No space left on device" in text
    node.objects.fetch(OID, lambda outcome, text: node.arrived.append((outcome, text)))
    node.objects.on_chunk(chunk(node.asked().transfer))  # the next one may succeed
    assert node.arrived[-1][0] is not None


def test_who_asks_for_what_cannot_be_read_has_an_answer() -> None:
    node = Node()
    node.objects.stored[OID] = m.Outcome(OID, m.VALUE | m.LOCATED, LARGE, b"")
    node.memory.failing = 1
    with pytest.raises(OSError, match="No space"):
        node.peer_transfers.on_pull("route", m.Pull(0, 7, OID))
    (answer,) = node.peer_transfers.outbox.take()["route"]
    assert isinstance(answer, m.PullFailed) and answer.transfer == 7
