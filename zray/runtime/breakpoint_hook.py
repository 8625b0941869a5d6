"""What ``breakpoint()`` does in a worker: it waits for ``zray debug``, which loads the rest."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

_DEBUGGER = "zray.util.rpdb"  # loaded with the first breakpoint
_POST_MORTEM = ("ZRAY_DEBUG_POST_MORTEM", "RAY_DEBUG_POST_MORTEM")  # variables


def hook(*args: Any, **kwargs: Any) -> Any:
    """In the place of ``sys.breakpointhook``; PYTHONBREAKPOINT goes before it, as ever."""
    if os.environ.get("PYTHONBREAKPOINT") is not None:
        return sys.__breakpointhook__(*args, **kwargs)  # noqa: T100
    return importlib.import_module(_DEBUGGER).wait_at(sys._getframe(1))


def wants_post_mortem() -> bool:
    """Whether what fails is to wait where it has raised."""
    return any(os.environ.get(name) == "1" for name in _POST_MORTEM)


def post_mortem(error: Exception) -> None:
    """Wait there."""
    importlib.import_module(_DEBUGGER).post_mortem(error)
