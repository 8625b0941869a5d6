"""What a process holds, for whoever asks: of each object how it is referred to, and by which line.

Loaded when the first question comes. Reads only; costs what it tells, and a look at so many
references (``limits.HELD_LOOKED_AT_MAX``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from heapq import nlargest
from itertools import islice

from zray import limits
from zray.core.client.actor_caller import PendingCall
from zray.core.client.call_results import CallResults
from zray.core.client.lease import PendingTask
from zray.ids import object_id, origin_of
from zray.protocol import messages as m


class HeldQueries:
    """Args:
    counts: of the process's references.
    own: objects of which only this process knows.
    near: of these, those with the node's store.
    outcomes: those known here.
    results: of what this process waits for by itself.
    actors: of which it has handles.
    unresolved: its tasks without an outcome. unsubmitted: of these, those that have not left.
    sites: the lines that made references, where that is noted.
    """

    def __init__(
        self,
        process_id: bytes,
        counts: Mapping[bytes, int],
        own: Iterable[bytes],
        near: Mapping[bytes, None],
        outcomes: Mapping[bytes, m.Outcome],
        results: CallResults,
        actors: Container[bytes],
        unresolved: Mapping[bytes, m.TaskSpec],
        unsubmitted: Container[bytes],
        sites: Mapping[bytes, str] | None,
    ) -> None:
        self._process_id = process_id
        self._counts = counts
        self._own = own
        self._near = near
        self._outcomes = outcomes
        self._results = results
        self._actors = actors
        self._unresolved = unresolved
        self._unsubmitted = unsubmitted
        self._sites = sites
        self._names: dict[str, int] = {}  # of the sites that are told: their numbers

    def answer(self, message: m.AskHeld) -> m.Held:
        """All of it, or the largest."""
        looked_at = islice(self._counts, limits.HELD_LOOKED_AT_MAX)
        if len(self._counts) <= message.most:
            chosen = dict.fromkeys(looked_at)
        else:
            chosen = dict.fromkeys(nlargest(message.most, looked_at, key=self._size))
        own_uses, head_uses = self._uses(chosen)
        inside = self._contained(chosen)
        rows = [self._row(oid, own_uses[oid], head_uses[oid], inside[oid]) for oid in chosen]
        held = m.HeldBy(
            process_id=self._process_id,
            objects=rows,
            sites=[*self._names],
            left_out=len(self._counts) - len(rows),
            records_sites=self._sites is not None,
        )
        return m.Held(0, message.source, message.seq, [held])

    def _size(self, oid: bytes) -> int:
        outcome = self._outcomes.get(oid)
        return outcome.size if outcome is not None else 0

    def _uses(self, chosen: Mapping[bytes, None]) -> tuple[Counter[bytes], Counter[bytes]]:
        """Unfinished tasks and calls that use them: those for which they are counted here, and
        those of which the head knows."""
        mine: Counter[bytes] = Counter()
        others: Counter[bytes] = Counter()
        seen: set[bytes] = set()  # one may have several returns
        for pending in islice(self._results.awaited.values(), limits.HELD_LOOKED_AT_MAX):
            if not isinstance(pending, PendingTask | PendingCall):
                continue
            used = pending.spec if isinstance(pending, PendingTask) else pending
            if used.task_id in seen:
                continue
            seen.add(used.task_id)
            mine.update(oid for oid in (*used.dependencies, *used.nested) if oid in chosen)
            if isinstance(pending, PendingCall) and pending.box in chosen:
                mine[pending.box] += 1
        for spec in islice(self._unresolved.values(), limits.HELD_LOOKED_AT_MAX):
            uses = mine if spec.task_id in self._unsubmitted else others
            uses.update(oid for oid in (*spec.dependencies, *spec.nested) if oid in chosen)
        return mine, others

    def _contained(self, chosen: Mapping[bytes, None]) -> Counter[bytes]:
        found: Counter[bytes] = Counter()
        for oid in islice(self._own, limits.HELD_LOOKED_AT_MAX):
            if (outcome := self._outcomes.get(oid)) is not None:
                found.update(inner for inner in outcome.contained if inner in chosen)
        return found

    def _row(self, oid: bytes, own_uses: int, head_uses: int, contained: int) -> m.HeldObject:
        outcome = self._outcomes.get(oid)
        state, place, pinned = "PENDING", "", False
        if outcome is not None:
            state = "ERROR" if outcome.kind & m.ERROR else "READY"
            pinned = type(outcome.value) is not bytes
            if pinned or oid in self._near:
                place = m.IN_STORE
            elif not outcome.kind & m.LOCATED:
                place = m.IN_PROCESS
        local = max(0, self._counts[oid] - own_uses - contained)
        uses = own_uses + head_uses
        size = outcome.size if outcome is not None else 0
        where = (size, state, place, local, uses, contained, pinned)
        return m.HeldObject(oid, *where, self._site(oid), oid[:16] in self._actors)

    def _site(self, oid: bytes) -> int:
        if not self._sites:
            return 0
        site = self._sites.get(oid) or self._sites.get(object_id(origin_of(oid)))
        if site is None:
            return 0
        number = self._names.get(site)
        if number is None and len(self._names) < limits.SITES_MAX:
            number = self._names[site] = len(self._names) + 1
        return number or 0
