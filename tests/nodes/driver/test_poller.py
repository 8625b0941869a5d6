"""What a driver sleeps on: told to the kernel once, and again when it has changed."""

from __future__ import annotations

import select
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from zray.nodes.driver.poller import Poller


class Sockets:
    """Pairs of sockets, of which the first ends are polled."""

    def __init__(self) -> None:
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        self.asked = 0
        self.writes = False
        self.poller = Poller(self.watched)

    def add(self) -> tuple[socket.socket, socket.socket]:
        self.pairs.append(socket.socketpair())
        return self.pairs[-1]

    def watched(self) -> list[tuple[int, int]]:
        self.asked += 1
        flags = select.POLLIN | (select.POLLOUT if self.writes else 0)
        return [(ours.fileno(), flags) for ours, _ in self.pairs]


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    made = Sockets()
    yield made
    for pair in made.pairs:
        for end in pair:
            end.close()


def test_what_is_polled_is_asked_for_once(sockets: Sockets) -> None:
    ours, theirs = sockets.add()
    for _ in range(3):
        theirs.send(b"x")
        assert sockets.poller.poll(5.0) == [ours.fileno()]
        ours.recv(1)
    assert sockets.asked == 1
    assert sockets.poller.poll(0.0) == []


def test_what_has_come_and_gone_since_is_known_once_it_is_stale(sockets: Sockets) -> None:
    first, _ = sockets.add()
    assert sockets.poller.poll(0.0) == []
    ours, theirs = sockets.add()
    first.close()
    sockets.pairs.pop(0)[1].close()
    sockets.poller.stale()
    theirs.send(b"x")
    assert sockets.poller.poll(5.0) == [ours.fileno()]


def test_what_could_be_written_is_asked_for_again(sockets: Sockets) -> None:
    """Else a socket of which nothing is pending any more would end every sleep at once."""
    ours, _ = sockets.add()
    sockets.writes = True
    assert sockets.poller.poll(5.0) == [ours.fileno()]
    sockets.writes = False
    assert sockets.poller.poll(0.0) == []


def test_a_signal_handler_polls_while_it_interrupts_a_sleep(sockets: Sockets) -> None:
    ours, theirs = sockets.add()
    found: list[list[int]] = []

    def handler(*_: object) -> None:
        found.append(sockets.poller.poll(0.0))
        theirs.send(b"x")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        assert sockets.poller.poll(0.0) == []
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        deadline = time.monotonic() + 5
        ready: list[int] = []
        while not ready and time.monotonic() < deadline:
            ready = sockets.poller.poll(1.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (found, ready) == ([[]], [ours.fileno()])
