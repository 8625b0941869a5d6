"""Errors of tasks and calls that nobody has asked for when their last reference goes.

Owns which errors were asked for, of those whose references are left. Must never unpickle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from zray.errors import NodeDiedError, WorkerCrashedError
from zray.protocol import messages as m
from zray.protocol.errors import TASK_RAISED, decode_error, error_text

# Who cancels a task or kills an actor does not want to hear of that.
_CODES = (TASK_RAISED, WorkerCrashedError.code, NodeDiedError.code)
_HOW = "Unhandled error (suppress with 'RAY_IGNORE_UNHANDLED_ERRORS=1'):"


class UnaskedErrors:
    """``warn`` says them to the user; None: nobody does, as in workers. ``outcomes``: those known
    here.

    Attributes:
        passed: what others have as well, and is to come.
    """

    def __init__(
        self, warn: Callable[[str], None] | None, outcomes: Mapping[bytes, m.Outcome]
    ) -> None:
        self.warn = warn
        self._outcomes = outcomes
        self._asked: dict[bytes, None] = {}
        self.passed: dict[bytes, None] = {}

    def asked(self, outcome: m.Outcome) -> None:
        """Somebody gets the error."""
        if self.warn is not None:
            self._asked[outcome.object_id] = None

    def passed_on(self, oid: bytes, *, awaited: bool) -> None:
        """Others have it as well, and may ask for it where this process does not see that.

        ``awaited``: it will come here, if it has not.
        """
        outcome = self._outcomes.get(oid)
        if outcome is None:
            if awaited:
                self.passed[oid] = None
        elif outcome.kind & m.ERROR:
            self._asked[oid] = None

    def seen(self, object_ids: Iterable[bytes]) -> None:
        """Somebody has waited for these until they were ready."""
        if self.warn is not None:
            for oid in object_ids:
                outcome = self._outcomes.get(oid)
                if outcome is not None and outcome.kind & m.ERROR:
                    self._asked[oid] = None

    def dropped(self, outcome: m.Outcome) -> None:
        """There is no reference to an outcome any more, which may be none of these."""
        oid = outcome.object_id
        silent = self._asked.pop(oid, self) is None
        if self.passed:
            silent = self.passed.pop(oid, self) is None or silent
        if silent or self.warn is None or outcome.kind != m.ERROR:
            return
        try:
            record = decode_error(outcome.value)
        except (msgspec.DecodeError, TypeError):
            return
        if record.code in _CODES:
            self.warn(f"{_HOW} {error_text(record)}")
