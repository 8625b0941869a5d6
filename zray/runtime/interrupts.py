"""Keeps the handler of SIGINT out of code that must not be left half done. Decides nothing else.

Python runs signal handlers in the main thread between any two instructions, and the usual one
raises KeyboardInterrupt there. A message sent by half, or a lock not taken again, would be worse.
"""

from __future__ import annotations

import importlib
import signal
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

# The module signal wraps these in conversions to enums, which take twenty times as long.
_functions = importlib.import_module("_signal")
_get_handler: Callable[[int], Any] = _functions.getsignal
_set_handler: Callable[[int, Any], Any] = _functions.signal
_SIGINT = int(signal.SIGINT)


class Interrupts:
    """``with interrupts:`` puts the handler of SIGINT off until the block ends.

    Inside of a block, ``allow`` lets it run. Blocks may be nested. Threads other than the main one
    are never interrupted, so it does nothing there.
    """

    def __init__(self) -> None:
        self._main = threading.main_thread().ident
        self._handler: Any = None  # the program's own
        self._depth = 0
        self._allowed = False
        self._outer: Any = None  # ``_allowed`` of the surrounding blocks
        self._pending = False

    # An interrupt comes after a call at the earliest, so what stands between calls is not torn.

    def __enter__(self) -> Interrupts:
        if threading.get_ident() != self._main:
            return self
        if not self._depth:
            self._handler = _get_handler(_SIGINT)
            if callable(self._handler):
                _set_handler(_SIGINT, self._handle)
        self._outer = (self._outer, self._allowed)
        self._allowed = False
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        if threading.get_ident() != self._main:
            return
        self._depth -= 1
        self._outer, self._allowed = self._outer
        if not self._depth and callable(self._handler):
            _set_handler(_SIGINT, self._handler)
        if self._pending and (self._allowed or not self._depth):
            self._pending = False
            signal.raise_signal(signal.SIGINT)

    def allow(self, call: Callable[..., T], *arguments: Any) -> T:
        """Call something that waits or that is the user's, in which an interrupt may come."""
        if threading.get_ident() != self._main or not self._depth:
            return call(*arguments)
        try:
            self._allowed = True
            if self._pending:
                self._pending = False
                signal.raise_signal(signal.SIGINT)
            return call(*arguments)
        finally:
            self._allowed = False

    def _handle(self, number: int, frame: Any) -> None:
        if self._allowed:
            self._allowed = False
            self._handler(number, frame)
            self._allowed = True  # it did not raise
        else:
            self._pending = True


interrupts = Interrupts()  # this process's
