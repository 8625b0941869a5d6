"""Methods of an actor whose calls are not to be told of: ``zray.method(enable_task_events=False)``.

An actor that has none pays nothing: only where there are some, it begins and ends calls otherwise.
"""

from __future__ import annotations

import time
from typing import Any

from zray.runtime.actor_class import quiet_methods


def hush(actor: Any) -> None:
    """Have an actor's server note nothing of calls of such methods of its class."""
    quiet = quiet_methods(type(actor.instance))
    if not quiet:
        return
    begins, ran = actor.begins, actor.ran

    def quiet_begins(entry: Any) -> float:
        return time.perf_counter() if entry.call.method in quiet else float(begins(entry))

    def quiet_ran(entry: Any, began: float) -> float:
        if entry.call.method in quiet:
            return time.perf_counter() - began
        return float(ran(entry, began))

    actor.begins, actor.ran = quiet_begins, quiet_ran
