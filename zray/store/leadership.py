"""Whether a head leads, and what answers of a shared store say about that. Decides, does no I/O.

Times are seconds of one clock that also runs while the machine or the process sleeps
(CLOCK_BOOTTIME). Fencing by a number that rises with every leader, and why a lease alone is not
enough: https://etcd.io/docs/v3.4/learning/why/ and https://jepsen.io/analyses/etcd-3.4.3
"""

from __future__ import annotations

import enum
import json
from typing import Any, NamedTuple

from zray import limits


class LeaseTerms(NamedTuple):
    """``fence_s`` < ``ttl_s``: a leader stops before another can follow it."""

    ttl_s: int = limits.LEADER_TTL_S
    renew_s: float = limits.LEADER_RENEW_S
    retry_s: float = limits.LEADER_RETRY_S
    fence_s: float = limits.LEADER_FENCE_S


class Leadership:
    """A term as leader, from the request that won it until it is fenced, which is for ever.

    What proves it is an answer of the store; it counts from when the question was *sent*, since
    the store may have answered at any moment after that.

    Args:
        sent_s: when the request that made the lease was sent.
    """

    def __init__(self, terms: LeaseTerms, sent_s: float) -> None:
        self._terms = terms
        self._proved_s = sent_s
        self._next_s = sent_s + terms.renew_s
        self._ended = ""

    def renew_at(self) -> float:
        """When the next renewal is to be sent."""
        return self._next_s

    def fence_at(self) -> float:
        """When it ends, unless a renewal that is sent before succeeds before."""
        return self._proved_s + self._terms.fence_s

    def proved(self, sent_s: float, now: float) -> None:
        """A renewal that was sent then has succeeded. Too late, it changes nothing."""
        if not self.fenced(now) and sent_s > self._proved_s:
            self._proved_s = sent_s
            self._next_s = sent_s + self._terms.renew_s

    def unproved(self, now: float) -> None:
        """A renewal has failed, for a reason that says nothing about who leads."""
        self._next_s = now + self._terms.retry_s

    def ended(self, reason: str) -> None:
        """The store says that this term is over."""
        self._ended = self._ended or reason

    def fenced(self, now: float) -> str:
        """Why it does not lead any more; empty while it does."""
        if not self._ended and now >= self.fence_at():
            self._ended = (
                f"its lease was not renewed for {now - self._proved_s:.1f} s "
                f"(limit {self._terms.fence_s:g} s)"
            )
        return self._ended


class Verdict(enum.Enum):
    """What the answer to a write says."""

    APPLIED = enum.auto()
    FENCED = enum.auto()  # another leads, or nobody
    OVERTAKEN = enum.auto()  # somebody has written in this leader's name


class WriteSequence:
    """Numbers one leader's transactions, so that each is applied once, in order, or never.

    Transaction n writes mark n, and the store applies it only where this leader leads and mark
    n - 1 is stored. A request whose answer was lost is sent again as it was: then it finds mark n,
    or is applied now. And a first copy that arrives late finds a later mark.

    Args:
        revision: of the leader's key; no other leader's is the same.
        stored: the mark that an earlier leader has left; None: there is none.
    """

    def __init__(self, revision: int, stored: bytes | None) -> None:
        self.revision = revision
        self._stored = stored
        self._number = 0

    def mark(self) -> bytes:
        """Of the transaction that is to be applied, or whose answer is awaited."""
        return b"%d:%d" % (self.revision, self._number)

    def previous(self) -> bytes | None:
        """Which the store must have before; None: none at all."""
        return self._stored

    def advance(self) -> None:
        """The transaction was applied; the next has another mark."""
        self._stored = self.mark()
        self._number += 1

    def judge(self, succeeded: bool, leader_revision: int, stored: bytes) -> Verdict:
        """``leader_revision``: 0 where nobody leads. ``stored``: the mark that is there."""
        if succeeded:
            return Verdict.APPLIED
        if leader_revision != self.revision:
            return Verdict.FENCED
        return Verdict.APPLIED if stored == self.mark() else Verdict.OVERTAKEN


class Candidate(NamedTuple):
    """Who leads or wants to, as it is stored in the leader's key.

    ``boot`` and ``namespace`` say on which machine, since it was started, and in which set of
    process ids ``pid`` is meant; ``born`` tells it from a later process with the same id.
    """

    nonce: str
    host: str
    boot: str
    namespace: str
    pid: int
    born: str
    since: str  # for people

    def encode(self) -> bytes:
        return json.dumps(self._asdict()).encode()

    @classmethod
    def decode(cls, content: bytes) -> Candidate | None:
        """None where it is not one."""
        try:
            found: Any = json.loads(content)
            candidate = cls(**found)
        except (ValueError, TypeError):
            return None
        fields = zip(candidate, (str, str, str, str, int, str, str), strict=True)
        return candidate if all(type(value) is kind for value, kind in fields) else None

    def shares_machine_with(self, other: Candidate) -> bool:
        """Whether the ids of its processes mean the same to both."""
        own, others = self[1:4], other[1:4]
        return own == others and all(own)

    def in_words(self) -> str:
        return f"pid {self.pid} on host {self.host}, which leads since {self.since}"
