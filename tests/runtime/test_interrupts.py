"""Putting SIGINT's handler off: nothing is torn, nothing is lost, other handlers are kept."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator

import pytest

from zray.runtime.interrupts import Interrupts


def strike() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    before = signal.getsignal(signal.SIGINT)
    yield Interrupts()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_block_is_finished_first(interrupts: Interrupts) -> None:
    done = []
    with pytest.raises(KeyboardInterrupt):
        with interrupts:
            strike()
            done.append(1)
        done.append(2)
    assert done == [1]


def test_nested_blocks_end_with_the_outermost(interrupts: Interrupts) -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts:
        with interrupts:
            strike()
        done.append(1)
    assert done == [1]


def test_what_is_allowed_is_interrupted(interrupts: Interrupts) -> None:
    done: list[int] = []
    with interrupts:
        with pytest.raises(KeyboardInterrupt):
            interrupts.allow(strike)
        strike()
        with pytest.raises(KeyboardInterrupt):
            interrupts.allow(done.append, 1)  # what came before it, too
        with pytest.raises(KeyboardInterrupt), interrupts:
            interrupts.allow(strike)
    assert done == []


def test_a_block_inside_what_is_allowed(interrupts: Interrupts) -> None:
    done = []

    def call() -> None:
        with interrupts:
            strike()
            done.append(1)
        done.append(2)

    with interrupts:
        with pytest.raises(KeyboardInterrupt):
            interrupts.allow(call)
        done.append(3)
    assert done == [1, 3]


def test_an_exception_leaves_all_as_it_was(interrupts: Interrupts) -> None:
    for _ in range(2):
        with pytest.raises(ValueError), interrupts:
            interrupts.allow(int, "x")


def test_a_handler_that_does_not_raise(interrupts: Interrupts) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    try:
        with interrupts:
            strike()
            assert seen == []
            interrupts.allow(strike)
            assert len(seen) == 2
            interrupts.allow(strike)
        assert seen == [signal.SIGINT] * 3
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_ignored_signal_stays_ignored(interrupts: Interrupts) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts:
            strike()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_take_no_part(interrupts: Interrupts) -> None:
    def work() -> None:
        with interrupts:
            interrupts.allow(lambda: None)

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before


def test_asyncio_cancels_its_main_task(interrupts: Interrupts) -> None:
    tidied = []

    async def main() -> None:
        try:
            with interrupts:
                strike()
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            tidied.append(1)
            raise

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert tidied == [1]
