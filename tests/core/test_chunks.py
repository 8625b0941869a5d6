"""Values in pieces: every size arrives whole, with a bound on what is on the way."""

from __future__ import annotations

import pytest

from tests.core.benches import identity, object_of
from zray import limits
from zray.core.chunks import ChunkReceiver, ChunkSender
from zray.protocol import messages as m

CHUNK = limits.CHUNK_BYTES


def outcome(data: bytes, *contained: bytes) -> m.Outcome:
    return m.Outcome(object_of(identity("o")), m.VALUE, len(data), data, list(contained))


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 20 * CHUNK + 7])
def test_a_value_arrives_whole_within_its_window(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    inner = object_of(identity("inner"))
    sender = ChunkSender(3, outcome(data[:size], inner))
    receiver = ChunkReceiver(object_of(identity("o")), None)
    way = sender.ready()
    arrived = None
    while way:
        assert sum(len(chunk.data) for chunk in way) <= limits.CHUNK_WINDOW * CHUNK
        chunk = way.pop(0)
        assert len(chunk.data) <= CHUNK and chunk.total == size
        ack, arrived = receiver.add(chunk)
        if ack is not None:
            assert ack.transfer == 3
            sender.acknowledged(ack.offset)
            way += sender.ready()
    assert arrived == outcome(data[:size], inner)
    assert size == 0 or sender.done()


def test_nothing_more_is_sent_without_acknowledgement() -> None:
    sender = ChunkSender(1, outcome(bytes(100 * CHUNK)))
    assert len(sender.ready()) == limits.CHUNK_WINDOW
    assert sender.ready() == []
    sender.acknowledged(2 * CHUNK)
    assert len(sender.ready()) == 2
    sender.acknowledged(CHUNK)  # late, and of no use
    assert sender.ready() == []


def test_another_source_starts_over_and_the_first_one_s_rest_is_ignored() -> None:
    first, second = outcome(b"a" * 3 * CHUNK), outcome(b"b" * 3 * CHUNK)
    receiver = ChunkReceiver(object_of(identity("o")), None)
    old = ChunkSender(1, first).ready()
    new = ChunkSender(1, second).ready()
    receiver.add(old[0])
    receiver.add(new[0])
    assert receiver.add(old[2]) == (None, None)
    receiver.add(new[1])
    assert receiver.add(new[2]) == (None, second)
