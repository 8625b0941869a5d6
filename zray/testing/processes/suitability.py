"""What a worker notices of tasks that are not for it, and how often it may run a function."""

from __future__ import annotations

from collections.abc import Mapping

from zray.core.labels import selects
from zray.protocol import messages as m
from zray.testing.world.errors import Violation


class Suitability:
    """Of one worker process. ``labels``: of its node."""

    def __init__(self, name: str, labels: Mapping[str, str]) -> None:
        self._name = name
        self._labels = labels
        self._ran = False
        self._environment: m.Environment | None = None  # of all tasks that run here
        self._calls: dict[bytes, int] = {}  # of functions that may run only so often here

    def check(self, template: m.Template, *, spent: bool) -> None:
        """That is about to run; ``spent``: nothing is to run here any more.

        Raises:
            Violation: it may not.
        """
        if not self._ran:
            self._ran, self._environment = True, template.environment
        if template.environment != self._environment:
            raise Violation(f"{self._name} gets {template.name} of another environment")
        if len(template.labels) == 1 and not selects(template.labels[0], self._labels):
            raise Violation(f"{template.name} runs on a node that it does not select")
        if spent:
            raise Violation(f"{template.name} runs in {self._name}, which is to end")

    def used_up(self, template: m.Template) -> bool:
        """That has run: whether it has as often as it may."""
        if not template.max_calls:
            return False
        calls = self._calls[template.function_id] = self._calls.get(template.function_id, 0) + 1
        return calls >= template.max_calls
