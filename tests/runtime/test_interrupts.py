"""Putting handlers of signals off: nothing is torn, nothing is lost, all are kept."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from zray.runtime.interrupts import Interrupts

OTHERS = [signal.SIGALRM, signal.SIGTERM, signal.SIGHUP]


def strike(number: int = signal.SIGINT) -> None:
    signal.raise_signal(number)


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    before = signal.getsignal(signal.SIGINT)
    others = [signal.getsignal(number) for number in OTHERS]
    yield Interrupts()
    assert signal.getsignal(signal.SIGINT) is before
    for number, handler in zip(OTHERS, others, strict=True):
        signal.signal(number, handler)


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


class Struck(Exception):
    pass


def fail(number: int, _: object) -> None:
    raise Struck(number)


@pytest.mark.parametrize("number", OTHERS)
def test_other_signals_wait_as_well(interrupts: Interrupts, number: int) -> None:
    signal.signal(number, fail)
    done = []
    for _ in range(2):  # with a handler that was just set, and with one that is known
        with pytest.raises(Struck), interrupts:
            strike(number)
            done.append(1)
        with interrupts:
            with pytest.raises(Struck):
                interrupts.allow(strike, number)
            done.append(2)
        with pytest.raises(Struck):
            strike(number)
    assert done == [1, 2, 1, 2]


def test_a_handler_that_is_taken_away_for_a_while(interrupts: Interrupts) -> None:
    """As timeouts do that can be nested: each puts back what it has found."""
    signal.signal(signal.SIGALRM, fail)
    with interrupts:
        pass
    seen: list[int] = []
    found = signal.signal(signal.SIGALRM, lambda number, _: seen.append(number))
    with interrupts:
        strike(signal.SIGALRM)
        assert seen == []
    assert seen == [signal.SIGALRM]
    signal.signal(signal.SIGALRM, found)
    with pytest.raises(Struck), interrupts:
        strike(signal.SIGALRM)
        seen.clear()
    assert seen == []


def test_each_of_several_runs_though_the_others_raise(interrupts: Interrupts) -> None:
    seen: list[int] = []

    def note(number: int, _: object) -> None:
        seen.append(number)
        raise Struck(number)

    everything = [signal.SIGINT, *OTHERS]
    before = [signal.signal(number, note) for number in everything]
    try:
        for allowed in False, True:
            seen.clear()
            with pytest.raises(Struck), interrupts:
                for number in everything * 2:
                    strike(number)
                assert seen == []
                if allowed:
                    interrupts.allow(lambda: seen.append(0))
            assert sorted(seen) == sorted(everything)
    finally:
        for number, handler in zip(everything, before, strict=True):
            signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGALRM])
def test_a_signal_that_comes_where_a_block_begins_or_ends(
    interrupts: Interrupts, number: int
) -> None:
    """At any place: SIGINT has its own handler afterwards, and the next block holds."""
    armed: list[int] = []
    over = threading.Event()
    main = threading.get_ident()
    torn = 0

    def fail_once(number: int, frame: object) -> None:
        if armed:
            armed.clear()
            fail(number, frame)

    def bother() -> None:
        while not over.wait(0.0001):
            signal.pthread_kill(main, number)

    before = signal.signal(number, fail_once)
    handler = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=bother)
    thread.start()
    try:
        for _ in range(500):
            with pytest.raises(Struck):
                armed.append(1)
                while True:
                    with interrupts:
                        torn += 1
                        sorted("a block does something")
                        torn -= 1
            assert signal.getsignal(signal.SIGINT) is handler
    finally:
        over.set()
        thread.join()
        signal.signal(number, before)
    assert not torn
    with pytest.raises(KeyboardInterrupt), interrupts:
        strike()


def test_a_handler_does_not_raise_in_a_finalizer_where_nobody_would_hear(
    interrupts: Interrupts,
) -> None:
    class Told(Exception):
        pass

    def handler(*_: object) -> None:
        raise Told

    class Thing:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, handler)
    interrupts.spare(Thing.__del__.__code__)
    with interrupts:
        pass
    with pytest.raises(Told):
        thing = Thing()
        del thing
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            pass
