"""Keeps the program's signal handlers out of code that must not be left half done.

Python runs them in the main thread between any two instructions. The usual one of SIGINT raises
KeyboardInterrupt there, one of SIGALRM a timeout, one of SIGTERM perhaps SystemExit. A message sent
by half, or a lock not taken again, would be worse. Decides nothing else.
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
# Those that programs use themselves. None of them is handled by default.
_OTHERS = tuple(
    int(number)
    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
)


class Interrupts:
    """``with interrupts:`` puts the handlers of signals off until the block ends.

    Inside of a block, ``allow`` lets them run. Blocks may be nested. Threads other than the main
    one are never interrupted, so it does nothing there.
    """

    def __init__(self) -> None:
        self._main = threading.main_thread().ident
        self._handlers: dict[int, Any] = {}  # the program's own
        self._depth = 0
        self._allowed = False
        self._outer: Any = None  # ``_allowed`` of the surrounding blocks
        self._pending: list[int] = []

    # An interrupt comes after a call at the earliest, so what stands between calls is not torn.

    def __enter__(self) -> Interrupts:
        if threading.get_ident() != self._main:
            return self
        if not self._depth:
            if callable(handler := _get_handler(_SIGINT)):
                self._handlers[_SIGINT] = handler
                _set_handler(_SIGINT, self._handle)
            for number in _OTHERS:
                if callable(handler := _get_handler(number)):
                    self._handlers[number] = handler
                    _set_handler(number, self._handle)
        self._outer = (self._outer, self._allowed)
        self._allowed = False
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        if threading.get_ident() != self._main:
            return
        self._depth -= 1
        self._outer, self._allowed = self._outer
        if not self._depth:
            for number, handler in self._handlers.items():
                if _get_handler(number) == self._handle:  # else the program has set another one
                    _set_handler(number, handler)
            self._handlers.clear()
        if self._pending and (self._allowed or not self._depth):
            self._deliver()

    def allow(self, call: Callable[..., T], *arguments: Any) -> T:
        """Call something that waits or that is the user's, in which an interrupt may come."""
        if threading.get_ident() != self._main or not self._depth:
            return call(*arguments)
        try:
            self._allowed = True
            if self._pending:
                self._deliver()
            return call(*arguments)
        finally:
            self._allowed = False

    def _deliver(self) -> None:
        while self._pending:
            signal.raise_signal(self._pending.pop(0))

    def _handle(self, number: int, frame: Any) -> None:
        if self._allowed:
            self._allowed = False
            self._handlers[number](number, frame)
            self._allowed = True  # it did not raise
        elif number not in self._pending:
            self._pending.append(number)


interrupts = Interrupts()  # this process's
