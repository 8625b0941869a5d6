"""Keeps signal handlers out of code that must not be left half done. Decides nothing else.

Python runs signal handlers in the main thread between any two instructions, and many raise there:
the usual one of SIGINT KeyboardInterrupt, one of SIGALRM a timeout, one of SIGTERM SystemExit. A
message sent by half, or a lock not taken again, would be worse.
"""

from __future__ import annotations

import _thread
import importlib
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, TypeVar

AGAIN_S = 0.0005  # until then a finalizer is over
T = TypeVar("T")
Handler = Callable[[int, FrameType | None], object]

# The module signal wraps these in conversions to enums, which take twenty times as long.
_functions = importlib.import_module("_signal")
_get_handler: Callable[[int], Any] = _functions.getsignal
_set_handler: Callable[[int, Any], Any] = _functions.signal
_get_ident = threading.get_ident
_INT = int(signal.SIGINT)
_ALRM, _TERM, _HUP = _OTHERS = (int(signal.SIGALRM), int(signal.SIGTERM), int(signal.SIGHUP))


class PutOff:
    """A handler of a signal that waits for the end of a block."""

    __slots__ = ("_interrupts", "handler")

    def __init__(self, interrupts: Interrupts, handler: Handler) -> None:
        self._interrupts = interrupts
        self.handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._interrupts.handle(self.handler, number, frame)


class Interrupts:
    """``with interrupts:`` puts the program's handlers of signals off until the block ends: those
    of SIGINT, SIGALRM, SIGTERM and SIGHUP, which by usage may raise.

    Inside of a block, ``allow`` lets them run. Blocks may be nested. Threads other than the main
    one are never interrupted, so it does nothing there.

    SIGINT has the program's handler again after each block, as asyncio and others look which one
    it has. Those of the others are seldom there and stay wrapped, so that they cost nothing more.
    """

    # A block is entered for each task, and most of its time is Python's: so slots, no helpers and
    # no loop over the signals where it is entered and left.
    __slots__ = (
        "_allowed",
        "_depth",
        "_main",
        "_others",
        "_outer",
        "_pending",
        "_replaced",
        "_sigint",
        "_spared",
    )

    def __init__(self) -> None:
        self._main = threading.main_thread().ident
        self._depth = 0
        self._allowed = False
        self._outer: list[bool] = []  # ``_allowed`` of the surrounding blocks
        self._pending: set[int] = set()
        self._sigint = PutOff(self, signal.default_int_handler)  # takes the place of the program's
        self._replaced = False  # it has it now
        self._spared: set[CodeType] = set()
        self._others: list[Any] = [0] * len(_OTHERS)  # their handlers when last looked at

    # A handler runs after a call at the earliest, so what stands between two calls is not torn.

    def __enter__(self) -> None:
        if _get_ident() != self._main:
            return
        if self._depth:
            self._outer.append(self._allowed)
            self._allowed = False
            self._depth += 1
            return
        alrm, term, hup = self._others
        if not (
            _get_handler(_ALRM) is alrm
            and _get_handler(_TERM) is term
            and _get_handler(_HUP) is hup
        ):
            self._wrap()
        handler = _get_handler(_INT)
        if handler is not self._sigint.handler:
            if type(handler) is PutOff or not callable(handler):
                self._depth = 1
                return
            self._sigint = PutOff(self, handler)
        self._depth = 1
        self._replaced = True
        try:
            _set_handler(_INT, self._sigint)  # runs what is due before
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __exit__(self, _kind: object, _error: object, _traceback: object) -> None:
        if _get_ident() != self._main:
            return
        if self._depth > 1:
            self._depth -= 1
            self._allowed = self._outer.pop()
            if self._pending and self._allowed:
                self._deliver()
            return
        try:
            if self._replaced:
                self._replaced = False
                _set_handler(_INT, self._sigint.handler)
        finally:
            self._depth = 0
            if self._pending:
                self._deliver()

    def install(self, number: int, handler: Handler) -> None:
        """As ``signal.signal``, for a handler that need not be replaced for each block."""
        signal.signal(number, PutOff(self, handler))

    def spare(self, code: CodeType) -> None:
        """A finalizer: what is raised in one Python prints, and forgets. Handlers run after it."""
        self._spared.add(code)

    def allow(self, call: Callable[..., T], *arguments: Any) -> T:
        """Call something that waits or that is the user's, in which handlers may run."""
        if _get_ident() != self._main or not self._depth:
            return call(*arguments)
        try:
            self._allowed = True
            if self._pending:
                self._deliver()
            return call(*arguments)
        finally:
            self._allowed = False

    def handle(self, handler: Handler, number: int, frame: FrameType | None) -> None:
        """Run a handler, now or later."""
        if frame is not None and frame.f_code in self._spared:
            _thread.start_new_thread(self._send_again, (number,))
        elif not self._depth:
            handler(number, frame)
        elif self._allowed:
            self._allowed = False
            handler(number, frame)
            self._allowed = True  # it did not raise
            if self._pending:
                self._deliver()
        else:
            self._pending.add(number)

    def _send_again(self, number: int) -> None:
        time.sleep(AGAIN_S)
        signal.pthread_kill(self._main or 0, number)

    def _wrap(self) -> None:
        for number in _OTHERS:
            handler = _get_handler(number)
            if callable(handler) and type(handler) is not PutOff:
                _set_handler(number, PutOff(self, handler))
        self._others = [_get_handler(number) for number in _OTHERS]

    def _deliver(self) -> None:
        number = self._pending.pop()
        handler = _get_handler(number)
        try:
            if callable(handler):
                handler(number, sys._getframe(1))
        finally:
            if self._pending and (self._allowed or not self._depth):
                self._deliver()


def raised_by_handler(error: BaseException) -> bool:
    """Whether a handler of a signal raised it, so that it is not of what was being done."""
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code is PutOff.__call__.__code__:
            return True
        traceback = traceback.tb_next
    return False


interrupts = Interrupts()  # this process's
