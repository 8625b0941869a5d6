"""What the judges of several heads are worth: leaders that are broken on purpose are found out.

``first``: the seed to begin with, somewhat before one in which it is.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from zray.core.client.client import Client
from zray.core.head.leadership import Contender, Leadership, LeaseTerms
from zray.core.raylet.head_session import HeadSession
from zray.testing import simulate
from zray.testing.processes import election
from zray.testing.processes.candidate import SimCandidate
from zray.testing.processes.term_store import TermStore
from zray.testing.world.shared_store import Created, Transact

SEEDS = 150
SPEAKS = r"speaks as epoch \d+, and (\d+|nobody) leads"

ANSWERED = Contender.answered
HEARS = HeadSession.receive
LISTENS = Client.receive
TRANSACTION = TermStore._transaction


def never_over(self: Leadership) -> float:
    return self._proved_s + 1e6


def counted_from_the_answer(self: Contender, answer: Any, now: float) -> None:
    self._sent_s = now
    ANSWERED(self, answer, now)


def any_epoch(self: HeadSession, payload: Any, now: float) -> None:
    HEARS(self, payload._replace(epoch=max(payload.epoch, self.epoch)), now)


def any_epoch_at_drivers(self: Client, payload: Any, now: float) -> None:
    LISTENS(self, payload._replace(epoch=max(payload.epoch, self.epoch)), now)


def whoever_leads(self: TermStore, operations: Any) -> Transact:
    """It trusts its mark alone."""
    request = TRANSACTION(self, operations)
    terms = [one for one in request.terms if not isinstance(one, Created)]
    return request._replace(terms=tuple(terms))


def from_memory(self: TermStore, pairs: Any) -> None:
    """What the leader before has found is taken for what there is."""
    found = MEMORY.setdefault(id(self._shared), pairs)
    READ(self, found)


def gives_up_first(self: SimCandidate) -> None:
    """The lead is given back, and then it says what is left to say."""
    reason, self._stepping = self._stepping, ""
    self.gcs.succession.stepping_down = ""
    self.election.step_down(reason)
    self.wake()


def is_not_over(self: Contender, reason: str, now: float) -> None:
    assert self._term is not None
    self._clear = self._ended = self._term.revision
    self._term, self._rest_until = None, now + 5.0


READ = TermStore._rows_read
MEMORY: dict[int, Any] = {}

Breaks = tuple[tuple[Any, str, Any], ...]


@pytest.mark.parametrize(
    ("breaks", "verdict", "first"),
    [
        (((Leadership, "fence_at", never_over),), SPEAKS, 0),
        (((Contender, "answered", counted_from_the_answer),), SPEAKS, 10),
        (((election, "LeaseTerms", lambda: LeaseTerms(fence_s=4.5)),), SPEAKS, 0),
        (((HeadSession, "receive", any_epoch),), r"follows a word of epoch \d+, and knows of", 30),
        (((Client, "receive", any_epoch_at_drivers),), r"follows a word of epoch \d+", 70),
        (
            ((TermStore, "_transaction", whoever_leads),),
            r"a write of epoch \d+ is applied, and",
            80,
        ),
        (((TermStore, "_rows_read", from_memory),), r"does not find what epoch \d+ has stored", 0),
        (
            (
                (SimCandidate, "_settle_and_step_down", gives_up_first),
                (Contender, "step_down", is_not_over),
            ),
            SPEAKS,
            10,
        ),
    ],
    ids=[
        "fencing-off",
        "renewal-counted-from-its-answer",
        "fence-later-than-the-lease",
        "epoch-not-compared-by-nodes",
        "epoch-not-compared-by-drivers",
        "write-without-the-leader-as-its-term",
        "take-over-without-reading",
        "words-after-stepping-down",
    ],
)
def test_a_broken_leader_is_found_out(
    breaks: Breaks, verdict: str, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    MEMORY.clear()
    monkeypatch.setattr("zray.testing.cluster.EVENTS_MAX", 100_000)
    for owner, name, broken in breaks:
        monkeypatch.setattr(owner, name, broken)
    failures = (simulate.try_seed(seed, heads=3) for seed in range(first, first + SEEDS))
    failure = next((one for one in failures if one is not None), None)
    assert failure is not None
    assert re.search(verdict, str(failure.error)), failure.text
