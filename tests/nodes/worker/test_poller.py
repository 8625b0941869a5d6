"""What a worker sleeps on: real sockets, and never for long."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from zray.nodes.worker.poller import Poller

SOON_S = 10.0  # a test that needs as much has failed


@pytest.fixture
def poller() -> Iterator[Poller]:
    made = Poller()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_it_wakes_up_for_what_can_be_read_until_it_is_told_to_forget_it(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    poller.watch(ours)
    assert poller.poll(0) == []
    theirs.send(b"x")
    assert poller.poll(SOON_S) == [ours.fileno()]
    poller.forget(ours)
    assert poller.poll(0) == []
    poller.forget(ours)  # once more does no harm


def test_it_wakes_up_for_what_can_be_written_only_while_somebody_wants_to(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, _ = pair
    poller.watch(ours, writes=True)
    assert poller.poll(SOON_S) == [ours.fileno()]
    poller.watch(ours)
    assert poller.poll(0) == []


def test_a_wake_ends_one_sleep_and_no_more(poller: Poller) -> None:
    poller.wake()
    assert poller.poll(SOON_S)
    assert poller.poll(0) == []
