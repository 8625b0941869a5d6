"""The connection that the API works through; made by ``zray.init()`` on first use, as Ray does."""

from __future__ import annotations

from typing import Any

from zray.runtime import session


def participant() -> Any:
    """The process's Driver or Worker; ``zray.init()`` is called if there is none."""
    found = session.current()
    if found is None:
        from zray.api import cluster

        with session.lock:
            found = session.current()
            if found is None:
                cluster.init()
                found = session.current()
    return found
