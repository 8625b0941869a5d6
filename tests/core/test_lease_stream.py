"""What two processes say to each other of a lease, though the links between them are cut."""

from __future__ import annotations

from random import Random

import pytest

from tests.core.benches import identity
from zray import limits
from zray.core.lease_stream import LeaseStream, Word
from zray.errors import ProtocolError
from zray.protocol import messages as m

LEASE, ME, OTHER = identity("l"), identity("me"), identity("other")


def taken(stream: LeaseStream) -> m.Relay:
    return stream.take(ME, OTHER, LEASE, 1)


def test_words_arrive_once_and_in_order_whatever_is_lost() -> None:
    """Each way loses all that comes after some message; both ends begin the next one anew."""
    for seed in range(30):
        random = Random(seed)
        ends = LeaseStream(1 << 20), LeaseStream(1 << 20)
        said: tuple[list[Word], list[Word]] = ([], [])
        heard: tuple[list[Word], list[Word]] = ([], [])
        cut = False
        for _ in range(300):
            for here, there in ((0, 1), (1, 0)):
                for _ in range(random.choice([0, 0, 1, 3])):
                    word = (random.randrange(5), random.randbytes(3))
                    said[here].append(word)
                    ends[here].say(*word)
                cut = cut or random.random() < 0.1
                if ends[here].due():
                    message = taken(ends[here])
                    if not cut:
                        heard[there].extend(ends[there].hear(message))
            if cut and random.random() < 0.5:
                cut = False
                ends[0].again()
                ends[1].again()
        ends[0].again()
        ends[1].again()
        heard[1].extend(ends[1].hear(taken(ends[0])))
        heard[0].extend(ends[0].hear(taken(ends[1])))
        assert heard == (said[1], said[0])
        ends[1].hear(taken(ends[0]))
        assert ends[1].unheard == ends[1].unheard_bytes == 0


def test_long_words_go_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEASE_WORD_BYTES_MAX", 10)
    here, there = LeaseStream(25), LeaseStream(25)
    words = [(1, bytes(25)), (2, b""), (3, bytes(10)), (4, bytes(11))]
    for word in words:
        here.say(*word)
    message = taken(here)
    assert [len(word.data) for word in message.words] == [10, 10, 5, 0, 10, 10, 1]
    assert here.last == 7 and there.hear(message) == words
    here.say(5, bytes(26))
    with pytest.raises(ProtocolError, match="more than 25 bytes"):
        there.hear(taken(here))


def test_what_has_come_is_acknowledged_along_with_words_or_once_it_is_much() -> None:
    here, there = LeaseStream(1 << 20), LeaseStream(1 << 20)
    here.say(1)
    there.hear(taken(here))
    assert there.owes() and not there.due()
    there.say(2)
    here.hear(taken(there))
    assert not there.owes() and not here.unheard
    for _ in range(limits.LEASE_ACK_WORDS):
        here.say(1)
    there.hear(taken(here))
    assert there.due()
    here.hear(taken(there))
    assert not there.due() and not here.unheard
    here.say(1, bytes(limits.LEASE_ACK_BYTES))
    there.hear(taken(here))
    assert there.due()
    taken(there)
    here.say(1)
    there.hear(taken(here))
    there.answer()
    assert there.due()


def test_a_liar_is_found_out() -> None:
    stream = LeaseStream(100)
    stream.say(1)
    with pytest.raises(ProtocolError, match="acknowledged"):
        stream.hear(m.Relay(0, OTHER, ME, LEASE, 1, 1, 2))
    with pytest.raises(ProtocolError, match="came after"):
        stream.hear(m.Relay(0, OTHER, ME, LEASE, 1, 5, 0, [m.LeaseWord(1)]))
    assert stream.hear(m.Relay(0, OTHER, ME, LEASE, 1, 0, 1)) == []
