"""The event loop of the daemons: what fails is reported and paused, the rest goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
import zmq

from zray import limits
from zray.runtime.loop import Loop


class Reports:
    def __init__(self) -> None:
        self.failures: list[tuple[str, str]] = []
        self.loop = Loop(lambda callback, error: self.failures.append((callback, str(error))))


@pytest.fixture
def reports() -> Iterator[Reports]:
    found = Reports()
    yield found
    found.loop.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe2(os.O_NONBLOCK)
    yield read, write
    os.close(read)
    os.close(write)


Pair = tuple["zmq.Socket[bytes]", "zmq.Socket[bytes]"]


@pytest.fixture
def pair() -> Iterator[Pair]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    ours, theirs = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    ours.bind("inproc://here")
    theirs.connect("inproc://here")
    yield ours, theirs
    context.destroy(0)


def test_a_callback_that_fails_is_paused_and_others_are_called(
    reports: Reports, pipe: tuple[int, int]
) -> None:
    read, write = pipe
    loop = reports.loop
    os.write(write, b"x")
    other_read, other_write = os.pipe2(os.O_NONBLOCK)
    called = 0

    def fail() -> None:
        raise ValueError("on purpose")

    def work() -> None:
        nonlocal called
        called += 1

    loop.watch(read, fail)
    loop.watch(other_read, work)
    os.write(other_write, b"x")
    deadline = time.monotonic() + 5 * limits.CALLBACK_PAUSE_S
    while time.monotonic() < deadline:
        loop.turn(0.01)
    assert called > 20
    assert 2 <= len(reports.failures) <= 6  # what it failed on is still there, so it is tried again
    assert reports.failures[0][0].endswith("fail") and reports.failures[0][1] == "on purpose"
    loop.unwatch(read)
    loop.unwatch(other_read)
    os.close(other_read)
    os.close(other_write)


def test_the_pause_keeps_an_idle_loop_from_spinning(
    reports: Reports, pipe: tuple[int, int]
) -> None:
    read, write = pipe
    os.write(write, b"x")

    def fail() -> None:
        raise OSError("again")

    reports.loop.watch(read, fail)
    turns = 0
    deadline = time.monotonic() + 3 * limits.CALLBACK_PAUSE_S
    while time.monotonic() < deadline:
        reports.loop.turn(1.0)
        turns += 1
    assert turns < 20
    reports.loop.unwatch(read)


def test_who_stops_watching_during_a_pause_is_not_watched_again(
    reports: Reports, pipe: tuple[int, int]
) -> None:
    read, write = pipe
    os.write(write, b"x")
    calls = 0

    def fail() -> None:
        nonlocal calls
        calls += 1
        raise OSError("again")

    reports.loop.watch(read, fail)
    reports.loop.turn(0.0)
    reports.loop.unwatch(read)
    deadline = time.monotonic() + 2 * limits.CALLBACK_PAUSE_S
    while time.monotonic() < deadline:
        reports.loop.turn(0.01)
    assert calls == 1


@pytest.mark.parametrize("rare", [True, False])
def test_a_zmq_socket_whose_reader_failed_is_read_after_the_pause(
    reports: Reports, pair: Pair, rare: bool
) -> None:
    ours, theirs = pair
    got: list[bytes] = []

    def read() -> None:
        if not reports.failures:
            raise ValueError("the first time")
        while ours.poll(0):
            got.append(ours.recv())

    reports.loop.watch_zmq(ours, read, rare=rare)
    theirs.send(b"one")
    deadline = time.monotonic() + 10
    while not got and time.monotonic() < deadline:
        reports.loop.turn(0.5)
    assert got == [b"one"] and len(reports.failures) == 1
    reports.loop.unwatch_zmq(ours)


@pytest.mark.parametrize("rare", [True, False])
def test_a_reader_that_takes_a_part_is_called_for_the_rest(
    reports: Reports, pair: Pair, rare: bool
) -> None:
    ours, theirs = pair
    got: list[bytes] = []
    reports.loop.watch_zmq(ours, lambda: got.append(ours.recv()), rare=rare)
    for turn in range(3):
        for number in range(20):
            theirs.send(b"%d" % number)
        deadline = time.monotonic() + 0.9  # less than a turn's longest sleep
        while len(got) < 20 * (turn + 1) and time.monotonic() < deadline:
            reports.loop.turn(1.0)
        assert len(got) == 20 * (turn + 1)
    reports.loop.unwatch_zmq(ours)


def test_a_rare_socket_that_was_used_elsewhere_is_looked_at_when_asked(
    reports: Reports, pair: Pair
) -> None:
    """Sending takes the signal of what came in the meantime."""
    ours, theirs = pair
    got: list[bytes] = []
    reports.loop.watch_zmq(ours, lambda: got.append(ours.recv()), rare=True)
    reports.loop.turn(0.0)
    for number in range(50):
        theirs.send(b"%d" % number)
        assert ours.getsockopt(zmq.EVENTS)  # as a send does
        reports.loop.look(ours)
        began = time.monotonic()
        reports.loop.turn(1.0)
        assert len(got) == number + 1 and time.monotonic() - began < 0.9
    reports.loop.unwatch_zmq(ours)
