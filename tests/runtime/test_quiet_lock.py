"""A lock whose holder takes care of what others have left, and that keeps the collector out."""

from __future__ import annotations

import gc
import threading
from collections import deque

import pytest

from zray.errors import ReentrantCallError
from zray.runtime.quiet_lock import QuietLock


class Counter:
    """Adds up what is left for it."""

    def __init__(self) -> None:
        self.left: deque[int] = deque()
        self.lock = QuietLock(self.left, self.admit)
        self.total = 0

    def admit(self) -> None:
        assert not gc.isenabled()
        while self.left:
            self.total += self.left.popleft()


def test_what_was_left_is_admitted_before_anything_else() -> None:
    counter = Counter()
    counter.left.extend([1, 2, 3])
    with counter.lock:
        assert counter.total == 6
        counter.left.append(4)
        counter.lock.release()
        counter.lock.take_back()
        assert counter.total == 10
    assert gc.isenabled()


def test_nothing_that_threads_leave_is_lost() -> None:
    counter = Counter()

    def leave() -> None:
        for number in range(20_000):
            counter.left.append(1)
            if number % 32 == 0:
                with counter.lock:
                    pass

    threads = [threading.Thread(target=leave) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with counter.lock:
        assert counter.total == 80_000


def test_it_is_free_again_after_an_admission_that_fails() -> None:
    left = deque([1])

    def refuse() -> None:
        left.clear()
        raise MemoryError

    lock = QuietLock(left, refuse)
    with pytest.raises(MemoryError):
        lock.acquire()
    with lock:
        assert not gc.isenabled()
    assert gc.isenabled()


def test_its_holder_cannot_acquire_it_again() -> None:
    lock = QuietLock()
    with lock, pytest.raises(ReentrantCallError):
        lock.acquire()
    with lock:
        pass
