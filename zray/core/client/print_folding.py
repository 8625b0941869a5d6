"""Equal lines of several workers are shown once, and then how many there were.

Owns what was shown in the last seconds. A line that another worker has printed within ``FOLD_S``
is counted instead of shown; when that time is over, one line tells how many were. What one worker
alone prints is shown as it comes, however often.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable

from msgspec.structs import replace

from zray import limits
from zray.core.machine import NEVER
from zray.protocol import messages as m

HINT = "; ZRAY_DEDUP_LOGS=0 shows each"


class _Recent:
    __slots__ = ("count", "last", "since", "source")

    def __init__(self, since: float, source: tuple[str, int]) -> None:
        self.since = since
        self.source: tuple[str, int] | None = source  # None: several
        self.count = 0  # of lines that were not shown
        self.last: m.Log | None = None  # with which one of them came


class PrintFolding:
    """``each``: whether a line is shown each time; ``none``: whether it is never shown.

    ``due_at``: when there is something to be shown although nothing has come.
    """

    def __init__(
        self,
        each: Callable[[str], object] | None = None,
        none: Callable[[str], object] | None = None,
    ) -> None:
        self._each = each
        self._none = none
        self.due_at = NEVER
        self._recent: OrderedDict[tuple[bool, str], _Recent] = OrderedDict()  # the oldest first
        self._characters = 0
        self._counting = 0  # lines with a count
        self._hint = HINT

    def take(self, message: m.Log, now: float) -> list[m.Log]:
        """What to show now that these lines have come, in order."""
        shown = self.due(now)
        source = (message.node, message.pid)
        recent, lines = self._recent, []
        each, none = self._each, self._none
        for line in message.lines:
            if each is not None and each(line):
                lines.append(line)
                continue
            if none is not None and none(line):
                continue
            key = (message.is_error, line)
            known = recent.get(key)
            if known is None:
                if line and not line.isspace():
                    recent[key] = _Recent(now, source)
                    self._characters += len(line)
                lines.append(line)
            elif known.source == source:
                lines.append(line)
            else:
                known.source, known.last = None, message
                self._counting += not known.count
                known.count += 1
                self.due_at = min(self.due_at, known.since + limits.FOLD_S)
        while self._characters > limits.FOLD_CHARACTERS or len(recent) > limits.FOLD_LINES:
            shown += self._over(next(iter(recent)))
        if len(lines) == len(message.lines):
            shown.append(message)
        elif lines:
            shown.append(replace(message, lines=lines))
        return shown

    def due(self, now: float) -> list[m.Log]:
        """The counts whose time is over. Lines that were counted are counted on."""
        shown: list[m.Log] = []
        for key, known in [
            *itertools.takewhile(lambda one: _is_over(one[1], now), self._recent.items())
        ]:
            many = known.count > 0
            shown += self._over(key)
            if many:
                again = self._recent[key] = _Recent(now, ("", 0))
                again.source = None
                self._characters += len(key[1])
        oldest = next(iter(self._recent.values()), None)
        self.due_at = NEVER
        if self._counting and oldest is not None:
            self.due_at = oldest.since + limits.FOLD_S
        return shown

    def rest(self) -> list[m.Log]:
        """All counts: nothing more is shown."""
        return [log for key in [*self._recent] for log in self._over(key)]

    def _over(self, key: tuple[bool, str]) -> list[m.Log]:
        known = self._recent.pop(key)
        self._characters -= len(key[1])
        if known.last is None:
            return []
        self._counting -= 1
        text = f"{key[1]} [repeated {known.count}x across cluster{self._hint}]"
        self._hint = ""
        return [replace(known.last, lines=[text])]


def _is_over(known: _Recent, now: float) -> bool:
    return now >= known.since + limits.FOLD_S
