"""A lock in which the garbage collector does not run.

The collector calls finalizers between any two instructions of any thread. One of the user's that
uses the API, as ``__del__`` with ``zray.kill(self.actor)``, would wait there for a lock that its
own thread has. What is due is collected after the lock is released.
"""

from __future__ import annotations

import contextlib
import gc
import os
import weakref
from collections.abc import Callable, Sized
from threading import RLock

from zray.errors import ReentrantCallError

_locks: weakref.WeakSet[QuietLock] = weakref.WeakSet()


class QuietLock:
    """As ``threading.Lock``, but that a second acquisition by its holder is an error.

    ``admit`` is called with the lock before anything else is done with it, if there is something
    ``left`` by then: by others, who did not wait for the lock.
    """

    # Used several times for each task, so as few calls as possible.
    __slots__ = ("__weakref__", "_admit", "_collects", "_give", "_is_owned", "_left", "_take")

    def __init__(self, left: Sized = (), admit: Callable[[], None] | None = None) -> None:
        lock = RLock()  # a signal may come at any place, and there it is known who has it
        self._take = lock.acquire
        self._give = lock.release
        self._is_owned: Callable[[], bool] = lock._is_owned  # type: ignore[attr-defined]
        self._collects = False  # before it was acquired
        self._left = left
        self._admit = admit
        _locks.add(self)

    def __enter__(self) -> None:
        """Raises:
        ReentrantCallError: this thread has it, so it is in a signal handler.
        """
        if self._is_owned():
            raise ReentrantCallError(
                "a signal handler has interrupted zray itself, so it cannot call zray; let it set "
                "a flag or threading.Event, and call zray where that is looked at"
            )
        try:
            self._take()
            if gc.isenabled():
                self._collects = True
                gc.disable()
            if self._left and self._admit is not None:
                self._admit()
        except BaseException:  # a signal handler of the program raises
            if self._is_owned():
                self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        give = self._give
        try:
            if self._collects:
                self._collects = False
                gc.enable()  # and nothing is made before the release
        finally:
            give()

    def let_go(self) -> None:
        """Release it if this thread has it: a signal handler raised where a block was left."""
        if self._is_owned():
            self.__exit__()

    def take_back(self) -> None:
        """Acquire it in any case: what a signal handler raises meanwhile is raised after that."""
        try:
            self.__enter__()
        except BaseException:
            while not self._is_owned():
                with contextlib.suppress(BaseException):
                    self.__enter__()
            raise

    acquire = __enter__
    release = __exit__


def _forked() -> None:
    """A thread that had a lock is not in this child, which would never collect again."""
    if any(lock._collects for lock in _locks):
        gc.enable()


os.register_at_fork(after_in_child=_forked)
