"""What user code does at the planned end of its actor: ``__ray_shutdown__`` and exit handlers.

Nothing of it runs where the process is killed. Its time is bounded, since others wait for the end.
"""

from __future__ import annotations

import atexit
import inspect
import logging  # serialization has loaded it
import os
import sys
import threading
import traceback
from typing import Any

from zray import limits


def _registered() -> int:
    """How many handlers there are: of exits, and of logging, which write then what they kept."""
    return atexit._ncallbacks() + len(logging._handlerList)  # type: ignore[attr-defined]


_BEFORE = _registered()  # of modules that are loaded before there is anything of the user's


def run(instance: Any, code: int) -> None:
    """Run it in this thread; past its time the process ends with ``code``."""
    shutdown = getattr(instance, "__ray_shutdown__", None)
    if shutdown is None and _registered() <= _BEFORE:
        return
    bound = threading.Timer(limits.ACTOR_EXIT_S, _end, (code,))
    bound.daemon = True
    bound.start()
    if shutdown is not None:
        try:
            waits = shutdown()
            if inspect.iscoroutine(waits):
                import asyncio  # takes long, and every worker would have it

                asyncio.run(waits)
        except BaseException:
            traceback.print_exc()
    atexit._run_exitfuncs()
    bound.cancel()


def _end(code: int) -> None:
    text = f"its exit handlers took longer than {limits.ACTOR_EXIT_S:g} s: the actor ends without"
    print(text, file=sys.stderr, flush=True)
    os._exit(code)
