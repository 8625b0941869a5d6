"""How often something may be done: so many times a second, and that many at once."""

from __future__ import annotations


class Pace:
    """``per_s``: times in a second, and at once after a rest."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._room = per_s
        self._at = 0.0

    def allows(self, now: float) -> bool:
        """Whether it may be done now; then it counts as done."""
        self._room = min(self._per_s, self._room + (now - self._at) * self._per_s)
        self._at = now
        if self._room < 1.0:
            return False
        self._room -= 1.0
        return True
