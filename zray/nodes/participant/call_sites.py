"""Which line of the program made a reference: noted where that is asked for, else without cost.

A participant that records has other methods in place of some of its own; nothing looks at a switch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import CodeType
from typing import Any

from zray import limits
from zray.core.client.references import ClientReferences

# In Ray's words. Methods of a participant that make references.
KINDS = {
    "put": "(put object)",
    "submit": "(task call)",
    "call_actor": "(actor call)",
    "create_actor": "(actor creation)",
}
RECENT = 10_000  # the last references, which may not be counted yet
WORDED_MAX = 10_000  # lines whose text is kept
_OWN = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep


class CallSites:
    """The sites of one participant's references."""

    def __init__(self, references: ClientReferences) -> None:
        self._counts = references.counts
        self._sites: dict[bytes, str] = {}
        references.sites = self._sites
        self._prune_at = 4 * RECENT
        self._worded: dict[tuple[CodeType, int, str], str] = {}

    def note(self, made: Any, kind: str) -> None:
        """A reference, several, or a tuple that begins with one, were made just now."""
        site = self._site(kind)
        for ref in made if isinstance(made, list) else [made[0] if type(made) is tuple else made]:
            self._sites[ref.id] = site
        if len(self._sites) >= self._prune_at:
            self._prune()

    def _site(self, kind: str) -> str:
        frame = sys._getframe(3)
        while frame.f_back is not None and frame.f_code.co_filename.startswith(_OWN):
            frame = frame.f_back
        key = (frame.f_code, frame.f_lineno, kind)
        text = self._worded.get(key)
        if text is None:
            if len(self._worded) >= WORDED_MAX:
                self._worded.clear()
            file, _, name = frame.f_code.co_filename.rpartition(os.sep)
            where = f"{file}{_}{name}:{frame.f_code.co_name}:{frame.f_lineno}"
            most = limits.SITE_CHARS_MAX - len(kind) - 3
            text = self._worded[key] = f"{kind} | {where[-most:]}"
        return text

    def _prune(self) -> None:
        """Those of collected references go."""
        for oid in [*self._sites][:-RECENT]:
            if oid not in self._counts:
                self._sites.pop(oid, None)
        self._prune_at = 2 * len(self._sites) + 2 * RECENT


def record(participant: Any) -> None:
    """Have it note the line that makes each reference from now on."""
    sites = CallSites(participant.client.references)
    for name, kind in KINDS.items():
        setattr(participant, name, _recording(getattr(participant, name), sites, kind))


def _recording(method: Callable[..., Any], sites: CallSites, kind: str) -> Callable[..., Any]:
    def recorded(*args: Any, **options: Any) -> Any:
        made = method(*args, **options)
        sites.note(made, kind)
        return made

    return recorded
