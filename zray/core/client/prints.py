"""What workers have printed, and what the head warns of, until a driver has shown it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zray import limits
from zray.protocol import messages as m

Shown = m.Log | m.Notice | m.Progress
_BAR_CHARACTERS = 64  # as the head counts them


class ClientPrints:
    """``characters``: printed since this process last said something because of them."""

    def __init__(self) -> None:
        self.characters = 0
        self._waiting: list[Shown] = []
        self.handlers: dict[type[m.Message], Callable[[Any], None]] = {
            m.Log: self.on_log,
            m.Notice: self.on_notice,
            m.Progress: self.on_progress,
        }

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def on_log(self, message: m.Log) -> None:
        """Lines of a worker."""
        self._waiting.append(message)
        self.characters += sum(map(len, message.lines))

    def on_progress(self, message: m.Progress) -> None:
        """How far a worker's tasks are."""
        self._waiting.append(message)
        self.characters += sum(len(bar.label) + _BAR_CHARACTERS for bar in message.bars)

    def on_notice(self, message: m.Notice) -> None:
        """A warning of the head's."""
        self._waiting.append(message)

    def warn(self, code: str, text: str) -> None:
        """A warning of this process's own."""
        self._waiting.append(m.Notice(0, code, text[: limits.TEXT_MAX]))

    def say(self, text: str) -> None:
        """The same in words that need no code."""
        self.warn("", text)

    def take(self) -> list[Shown]:
        """All that waits, in order; it is the caller's to show."""
        taken, self._waiting = self._waiting, []
        return taken
