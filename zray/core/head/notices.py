"""What whoever runs the cluster should know of what has happened to it."""

from __future__ import annotations

from zray import limits

TOLD_MAX = 20  # in one status


class Notices:
    """The last of them, as texts."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def add(self, text: str) -> None:
        """Something has happened."""
        self._texts.append(text)
        del self._texts[: -limits.NOTES_MAX]

    def latest(self) -> list[str]:
        """As many as a status tells, the latest last."""
        return self._texts[-TOLD_MAX:]
