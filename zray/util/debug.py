"""Log lines that a process says once: ``log_once`` and what governs it.

Semantics: ``ray.util.debug`` of Ray 2.60. Of this process; what other processes have said does not
count.
"""

from __future__ import annotations

import time

AGAIN_S = 60.0  # with enable_periodic_logging

_said: set[str] = set()
_disabled = False
_periodic = False
_last = 0.0  # when a key was said for the first time


def log_once(key: str) -> bool:
    """True the first time that this process asks with ``key``: ``if log_once("slow"): log(...)``.

    After ``enable_periodic_logging``, a call that finds nothing said for a minute makes all keys
    new again, for the calls after it.
    """
    global _last
    if _disabled:
        return False
    if key not in _said:
        _said.add(key)
        _last = time.monotonic()
        return True
    if _periodic and time.monotonic() - _last > AGAIN_S:
        _said.clear()
        _last = time.monotonic()
    return False


def disable_log_once_globally() -> None:
    """From now on ``log_once`` is False in this process."""
    global _disabled
    _disabled = True


def enable_periodic_logging() -> None:
    """From now on ``log_once`` is True again now and then in this process."""
    global _periodic
    _periodic = True


def reset_log_once(key: str | None = None) -> None:
    """Make a key new again, or all of them."""
    if key is None:
        _said.clear()
    else:
        _said.discard(key)
