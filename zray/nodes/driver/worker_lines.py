"""How lines of workers look at their driver, and which are shown: as its environment says.

``ZRAY_DEDUP_LOGS=0`` shows equal lines of several workers each, ``ZRAY_DEDUP_LOGS_ALLOW_REGEX``
those in which it is found; ``ZRAY_DEDUP_LOGS_SKIP_REGEX`` leaves lines out. With
``ZRAY_COLOR_PREFIX=0`` prefixes are without colours, which only terminals have, and not where
``NO_COLOR`` is set. The names that Ray has (``RAY_...``) do the same.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import Any

from zray.core.client.print_folding import PrintFolding
from zray.protocol import messages as m

COLOURS = (36, 35, 32, 33, 34, 96, 95, 92, 93, 94)  # of ANSI terminals; no red, which is for errors

KNOWN_MAX = 10_000  # workers whose colours are remembered


class WorkerLines:
    def __init__(self) -> None:
        each, none = (_pattern(f"DEDUP_LOGS_{name}_REGEX") for name in ("ALLOW", "SKIP"))
        self._folding = PrintFolding(each, none)
        self._folds = _is_on("DEDUP_LOGS")
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self._colours = _is_on("COLOR_PREFIX") and not plain
        self._known: dict[tuple[str, int], int] = {}  # which colour each worker has
        self.due = self._folding.due
        self.rest = self._folding.rest

    @property
    def due_at(self) -> float:
        """As of PrintFolding."""
        return self._folding.due_at

    def take(self, message: m.Log, now: float) -> list[m.Log]:
        """What to show now that these lines have come."""
        return self._folding.take(message, now) if self._folds else [message]

    def text(self, message: m.Log, stream: Any) -> str:
        """Its lines as ``stream`` is to show them; each worker's prefix has a colour."""
        prefix = f"({message.name} pid={message.pid}, node={message.node})"
        if not prefix.isprintable():
            prefix = ascii(prefix)[1:-1]
        if self._colours and _is_terminal(stream):
            prefix = f"\x1b[{self._colour(message)}m{prefix}\x1b[0m"
        return "".join(f"{prefix} {line}\n" for line in message.lines)

    def _colour(self, message: m.Log) -> int:
        """The next one for each worker that is new."""
        worker = (message.node, message.pid)
        if worker not in self._known:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[worker] = COLOURS[len(self._known) % len(COLOURS)]
        return self._known[worker]


def _is_terminal(stream: Any) -> bool:
    """A stream of the program's own may be less than a file."""
    return hasattr(stream, "isatty") and bool(stream.isatty())


def _pattern(name: str) -> Callable[[str], object] | None:
    """Whether a line has it; one that is none is said to be, and not used."""
    for variable in (f"ZRAY_{name}", f"RAY_{name}"):
        if text := os.environ.get(variable):
            try:
                return re.compile(text).search
            except re.error as error:
                line = f"zray: warning: {variable}={text!r} is no regular expression: {error}"
                print(f"{line}; it is not used", file=sys.stderr)
    return None


def _is_on(name: str) -> bool:
    for prefix in ("ZRAY_", "RAY_"):
        if value := os.environ.get(prefix + name):
            return value.lower() not in ("0", "false")
    return True
