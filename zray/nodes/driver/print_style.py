"""How lines of workers look at their driver, as the program's environment says.

``ZRAY_DEDUP_LOGS=0`` shows equal lines of several workers each; ``ZRAY_COLOR_PREFIX=0`` leaves the
prefixes without colours, which only terminals have, and not where ``NO_COLOR`` is set. The names
that Ray has (``RAY_...``) do the same.
"""

from __future__ import annotations

import os
from typing import Any

from zray.protocol import messages as m

COLOURS = (36, 35, 32, 33, 34, 96, 95, 92, 93, 94)  # of ANSI terminals; no red, which is for errors


class PrintStyle:
    """``folds``: equal lines of several workers are shown once."""

    def __init__(self) -> None:
        self.folds = _is_on("DEDUP_LOGS")
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self._colours = _is_on("COLOR_PREFIX") and not plain

    def text(self, message: m.Log, stream: Any) -> str:
        """Its lines as ``stream`` is to show them; each worker's prefix has a colour."""
        name = message.name if message.name.isprintable() else ascii(message.name)[1:-1]
        prefix = f"({name} pid={message.pid}, node={message.node})"
        if self._colours and _is_terminal(stream):
            colour = COLOURS[(message.pid + sum(message.node.encode())) % len(COLOURS)]
            prefix = f"\x1b[{colour}m{prefix}\x1b[0m"
        return "".join(f"{prefix} {line}\n" for line in message.lines)


def _is_terminal(stream: Any) -> bool:
    """A stream of the program's own may be less than a file."""
    return hasattr(stream, "isatty") and bool(stream.isatty())


def _is_on(name: str) -> bool:
    for prefix in ("ZRAY_", "RAY_"):
        if value := os.environ.get(prefix + name):
            return value.lower() not in ("0", "false")
    return True
