"""Who of a cluster's heads leads: the lease, fencing, and each step of standing by and leading.

Times are seconds of one clock that also runs while the machine or the process sleeps
(CLOCK_BOOTTIME). Fencing by a number that rises with every leader, and why a lease alone is not
enough: https://etcd.io/docs/v3.4/learning/why/ and https://jepsen.io/analyses/etcd-3.4.3
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from msgspec import Struct

from zray import limits
from zray.core.head.head_record import HeadRecord
from zray.protocol.head_messages import HeadInfo


class LeaseTerms(NamedTuple):
    """``fence_s`` < ``ttl_s``: a leader stops before another can follow it.

    etcd does not end a lease before twice its election timeout at least, and up to 0.5 s late.
    """

    ttl_s: int = limits.LEADER_TTL_S
    renew_s: float = limits.LEADER_RENEW_S
    retry_s: float = limits.LEADER_RETRY_S
    fence_s: float = limits.LEADER_FENCE_S


class Leadership:
    """A term as leader, from the request that won it until it is fenced, which is for ever.

    What proves it is an answer of the store; it counts from when the question was *sent*, since
    the store may have answered at any moment after that.

    Args:
        revision: of the store, in which the leader's key was made; no other term has the same.
        sent_s: when the request that made or last renewed the lease was sent.
    """

    def __init__(self, terms: LeaseTerms, revision: int, sent_s: float) -> None:
        self.revision = revision
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
        """The store says that this term is over, or this head gives it back."""
        self._ended = self._ended or reason

    def fenced(self, now: float) -> str:
        """Why it does not lead any more; empty while it does."""
        if not self._ended and now >= self.fence_at():
            self._ended = (
                f"its lease was not renewed for {now - self._proved_s:.1f} s "
                f"(limit {self._terms.fence_s:g} s)"
            )
        return self._ended


# ---- questions to the store, and answers -----------------------------------------------------


class Grant(NamedTuple):
    """Make a lease of that number. Answered by DONE."""

    lease: int
    ttl_s: int


class Register(NamedTuple):
    """Write this head's record under the lease, whatever is there. Answered by a Sight."""

    lease: int


class Campaign(NamedTuple):
    """Make the leader's key under the lease if there is none. Answered by a Sight."""

    lease: int


class Keep(NamedTuple):
    """Renew the lease, and look. Answered by a Sight."""

    lease: int


class Look(Struct, frozen=True):  # an empty tuple would be false
    """Read without changing anything. Answered by a Sight."""


class Clear(NamedTuple):
    """Delete the leader's key if it was made in that revision. Answered by a Sight."""

    revision: int


class Halt(NamedTuple):
    """Tell all heads to stop, if the leader's key was made in that revision. By a Sight."""

    revision: int
    reason: str


class Revoke(NamedTuple):
    """End the lease, and with it what is under it. Answered by DONE, also if it is gone."""

    lease: int


Request: TypeAlias = "Grant | Register | Campaign | Keep | Look | Clear | Halt | Revoke"


class Plain(enum.Enum):
    """An answer that says no more than that."""

    DONE = enum.auto()
    LEASE_GONE = enum.auto()  # to Register, Campaign, Keep: nothing was written or kept


class Holder(NamedTuple):
    """The leader's key.

    Attributes:
        record: None: it is not what a head writes there.
        revision: in which it was made.
        lease: 0: none, so it would stay for ever.
        gone: the process that wrote it ran on this machine, and was seen to have ended.
    """

    record: HeadRecord | None
    revision: int
    lease: int
    gone: bool = False


class Sight(NamedTuple):
    """What is there, of one revision, read so that no later write is missing (linearizable).

    Attributes:
        revision: of the store.
        leader: None: nobody leads.
        own_lease: of this head's own record; 0: it is not there.
        heads: the first ``HEADS_MAX`` that were registered.
        halted: the revision in which all heads were last told to stop; 0: never.
        reason: why.
        cluster_id: empty: no leader has stored it yet.
        skipped: what is added to a revision to make it an epoch.
    """

    revision: int
    leader: Holder | None = None
    own_lease: int = 0
    heads: tuple[HeadRecord, ...] = ()
    halted: int = 0
    reason: str = ""
    cluster_id: bytes = b""
    skipped: int = 0


Answer: TypeAlias = "Plain | Sight"


class State(enum.Enum):
    """FENCED: it led, and is not known to stand by again."""

    STANDBY = enum.auto()
    LEADING = enum.auto()
    FENCED = enum.auto()


class View(NamedTuple):
    """What one head knows of its cluster.

    Attributes:
        epoch: the leader's, or where nobody leads the last one's; 0: none is known.
        leader: None: nobody leads, or it is not known who.
        heads: the oldest first.
        trouble: why it cannot lead or stand by as it should; empty: it can.
        trouble_s: since when; 0: there is none.
        stopped: why the whole cluster is to stop; empty: it is not.
        cluster_id: empty: none is stored.
        revision: of the store when it was last looked at; 0: it was not yet.
    """

    state: State
    epoch: int = 0
    leader: HeadInfo | None = None
    heads: tuple[HeadInfo, ...] = ()
    trouble: str = ""
    trouble_s: float = 0.0
    stopped: str = ""
    cluster_id: bytes = b""
    revision: int = 0


class Contender:
    """One head among those of its cluster: what to ask the store next, what its answers mean.

    ``request`` gives one request at a time; then either ``answered`` or ``failed`` follows. A
    request may be sent in several copies, and a copy may be carried out though nobody hears the
    answer: what is there says what became of it.

    A term is bound to a lease of its own: who was fenced begins with a new one, so nothing that
    was sent before counts for the next term.

    Args:
        draw: numbers of leases, of 62 bits or so, that nobody else draws.
    """

    def __init__(self, me: HeadRecord, terms: LeaseTerms, draw: Callable[[], int]) -> None:
        self.me = me
        self._terms = terms
        self._draw = draw
        self._lease = 0
        self._kept_s = 0.0  # when the request was sent that last made or renewed it
        self._stale_lease = 0  # of a term that was fenced: to be revoked once
        self._registered = False
        self._term: Leadership | None = None
        self._fenced = False
        self._ended = 0  # the last own term's revision
        self._campaigns = False
        self._key_id: bytes | None = None
        self._once = False
        self._rest_until = 0.0
        self._clear = 0  # the revision of a leader's key that nobody needs any more
        self._orphan: tuple[int, float] | None = None  # a key without a lease, and since when
        self._halt = ""
        self._ending = False
        self._pending: Request | None = None
        self._sent_s = 0.0
        self._retry_s = 0.0  # not before that
        self._keeps_between = False  # a renewal that is due goes before what else there is to ask
        self._news_s: float | None = None
        self._seen: Sight | None = None
        self._began = 0  # the revision of the first look: what was said before is not for it
        self._stopped = ""
        self._epoch = 0
        self._failing: tuple[float, str] | None = None

    # ---- what its head wants ---------------------------------------------------------------

    def campaign(self, key_id: bytes | None, *, once: bool = False) -> None:
        """Lead from now on if nobody does, in a cluster of that id, or of none yet.

        Args:
            key_id: None: in whichever.
            once: for one term, and not again after that.
        """
        self._campaigns, self._key_id, self._once = True, key_id, once

    def step_down(self, reason: str, now: float) -> None:
        """Give the lead back; lead again once another did, or after ``limits.STEP_DOWN_S``."""
        if self._term is None:
            return
        self._term.ended(reason)
        self._clear = self._ended = self._term.revision
        self._term = None
        self._rest_until = now + limits.STEP_DOWN_S

    def halt(self, reason: str) -> None:
        """Tell all heads to stop, if this one leads."""
        self._halt = reason

    def end(self) -> None:
        """Give back what it has, and ask nothing after that."""
        self._ending = True

    @property
    def over(self) -> bool:
        """Whether it has ended and has nothing to give back."""
        return self._ending and not (self._lease or self._stale_lease or self._pending)

    # ---- questions -------------------------------------------------------------------------

    def changed(self, now: float) -> None:
        """A watch has seen something: look soon."""
        if self._news_s is None:
            self._news_s = max(now, self._sent_s + limits.LEADER_LOOK_S)

    def due(self) -> float:
        """When ``request`` gives something; ``inf``: not before something else happens."""
        fence = self._term.fence_at() if self._term is not None else float("inf")
        return fence if self._pending is not None else min(fence, self._next()[0])

    def request(self, now: float) -> Request | None:
        """What is to be asked now, if anything; it counts as sent."""
        self._look_at_clock(now)
        if self._pending is not None:
            return None
        due, request = self._next()
        if request is None or due > now:
            return None
        if isinstance(request, Grant):
            request = request._replace(lease=self._draw())
        elif isinstance(request, Revoke) and self._term is not None:
            self._term.ended("this head has ended")
            self._term = None
        self._pending, self._sent_s = request, now
        if not isinstance(request, Grant | Revoke):
            self._news_s = None  # it looks, too
        return request

    def deadline(self) -> float:
        """Until when the pending request's answer is of use."""
        if self._term is None or self._ending:
            return self._sent_s + self._terms.fence_s
        if isinstance(self._pending, Keep | Halt):
            return self._term.fence_at()
        return min(self._term.fence_at(), max(self._term.renew_at(), self._sent_s + 0.1))

    def _next(self) -> tuple[float, Request | None]:
        """The next request and its time, apart from the pending one."""
        soon = self._retry_s
        if self._stale_lease:
            return soon, Revoke(self._stale_lease)
        term = self._term
        if self._ending:
            if self._halt and term is not None:
                return soon, Halt(term.revision, self._halt)
            return (soon, Revoke(self._lease)) if self._lease else (float("inf"), None)
        if not self._lease:
            return soon, Grant(0, self._terms.ttl_s)
        keep_s = term.renew_at() if term is not None else self._kept_s + self._terms.renew_s
        if self._keeps_between and keep_s < soon:
            return soon, Keep(self._lease)
        found: list[tuple[float, Request]] = [(max(keep_s, soon), Keep(self._lease))]
        if not self._registered:
            found.append((soon, Register(self._lease)))
        elif self._clear:
            found.append((soon, Clear(self._clear)))
        elif term is not None and self._halt:
            found.append((soon, Halt(term.revision, self._halt)))
        elif term is None and self._may_campaign():
            found.append((max(soon, self._rest_until), Campaign(self._lease)))
        if self._news_s is not None:
            found.append((max(self._news_s, soon), Look()))
        return min(found, key=lambda one: one[0])

    def _may_campaign(self) -> bool:
        seen = self._seen
        return (
            self._campaigns
            and not (self._once and self._ended)
            and not self._stopped
            and seen is not None
            and seen.leader is None
            and not self._obstacle(seen)
        )

    def _obstacle(self, seen: Sight) -> str:
        """Why this head is not to lead, whoever else does."""
        if self._key_id is not None and seen.cluster_id not in (b"", self._key_id):
            return f"its key is of another cluster than {seen.cluster_id.hex()}, which is stored"
        if all(head.head_id != self.me.head_id for head in seen.heads):
            return f"the cluster has {limits.HEADS_MAX} heads already, which is the most"
        return ""

    # ---- answers ---------------------------------------------------------------------------

    def failed(self, reason: str, now: float) -> None:
        """Nobody has answered the pending request, or it was refused; it may be carried out."""
        request, self._pending = self._pending, None
        self._retry_s = now + self._terms.retry_s
        self._keeps_between = not isinstance(request, Keep)
        if self._term is None or isinstance(request, Keep):
            since = self._failing[0] if self._failing is not None else self._sent_s
            self._failing = (since, reason)
        if isinstance(request, Keep) and self._term is not None:
            self._term.unproved(now)
        if isinstance(request, Revoke) and request.lease == self._stale_lease:
            self._stale_lease = 0  # it ends by itself
        self._look_at_clock(now)

    def dropped(self, now: float) -> None:
        """The pending request was given up for something more urgent; it may be carried out."""
        request, self._pending = self._pending, None
        self._retry_s = now
        if self._news_s is None and not isinstance(request, Grant | Revoke):
            self._news_s = now

    def answered(self, answer: Answer, now: float) -> None:
        """The answer to the pending request."""
        request, self._pending = self._pending, None
        self._retry_s, self._failing = now, None
        # Where answers take long, a lease would end before all is done that needs it.
        self._keeps_between = not isinstance(request, Keep)
        self._look_at_clock(now)
        if isinstance(request, Revoke):
            self._revoked(request.lease)
        elif answer is Plain.LEASE_GONE:
            if self._term is not None:
                self._term.ended("its lease has ended")
                self._look_at_clock(now)
            self._stale_lease = 0
            self._drop_lease()
        elif isinstance(request, Grant):
            self._lease, self._kept_s, self._registered = request.lease, self._sent_s, False
        elif isinstance(answer, Sight):
            if isinstance(request, Keep) and request.lease == self._lease:
                self._kept_s = self._sent_s
            self._see(answer, now)
            if isinstance(request, Keep) and self._term is not None:
                self._term.proved(self._sent_s, now)

    def _revoked(self, lease: int) -> None:
        if lease == self._stale_lease:
            self._stale_lease = 0
        if lease == self._lease:
            self._drop_lease()

    def _drop_lease(self) -> None:
        self._lease, self._registered = 0, False

    def _see(self, seen: Sight, now: float) -> None:
        # A store that was put back to an older copy counts from there again.
        self._began = min(self._began or seen.revision, seen.revision)
        self._seen = seen
        if seen.halted > self._began:
            self._stopped, self._halt = seen.reason or "its heads were told to", ""
        leader, self._registered = seen.leader, bool(self._lease) and seen.own_lease == self._lease
        if leader is None or leader.revision != self._clear:
            self._clear = 0
        if leader is not None:
            self._epoch = leader.revision + seen.skipped
        if leader is not None and leader.lease == self._lease and self._lease:
            self._see_own(leader, now)
            return
        self._fenced = self._fenced and not self._registered
        if self._term is not None:
            self._term.ended(_successor(leader, self._term.revision))
            self._look_at_clock(now)
        if leader is None:
            self._orphan = None
            return
        if leader.revision in (self._clear, self._ended):
            self._clear = leader.revision  # its own, of a term before
            return
        self._rest_until = 0.0
        if leader.gone or self._is_orphaned(leader, now):
            self._clear = leader.revision

    def _see_own(self, leader: Holder, now: float) -> None:
        """The leader's key is this head's."""
        if self._term is not None and self._term.revision == leader.revision:
            return
        if self._term is not None:
            self._term.ended("its key was replaced")
            self._look_at_clock(now)
        elif leader.revision == self._ended or self._stopped or now < self._rest_until:
            self._clear = leader.revision
        else:
            term = Leadership(self._terms, leader.revision, self._kept_s)
            self._term, self._fenced = term, False
            self._look_at_clock(now)  # it took too long, and may be over

    def _is_orphaned(self, leader: Holder, now: float) -> bool:
        """A key without a lease is no head's; what a head had before that has ended by now."""
        if leader.lease:
            self._orphan = None
        elif self._orphan is None or self._orphan[0] != leader.revision:
            self._orphan = (leader.revision, now)
        return self._orphan is not None and now >= self._orphan[1] + self._terms.ttl_s

    def _look_at_clock(self, now: float) -> None:
        if self._term is not None and self._term.fenced(now):
            self._ended = self._term.revision
            self._term, self._fenced = None, True
            self._stale_lease, self._clear = self._lease, 0
            self._drop_lease()

    # ---- what it knows ---------------------------------------------------------------------

    def leadership(self) -> Leadership | None:
        """Of the current term, which may be fenced meanwhile."""
        return self._term

    def view(self, now: float) -> View:
        """Looks at the clock."""
        self._look_at_clock(now)
        state = State.STANDBY
        if self._term is not None:
            state = State.LEADING
        elif self._fenced:
            state = State.FENCED
        trouble, trouble_s = self._trouble()
        seen = self._seen
        if seen is None:
            return View(state, trouble=trouble, trouble_s=trouble_s)
        holder, leader = seen.leader, None
        if holder is not None and holder.record is not None and holder.revision != self._ended:
            leader = holder.record.head(leads=True)
        who = leader.head_id.hex() if leader is not None else ""
        return View(
            state,
            self._epoch,
            leader,
            tuple(head.head(leads=head.head_id == who) for head in seen.heads),
            trouble,
            trouble_s,
            self._stopped,
            seen.cluster_id,
            seen.revision,
        )

    def _trouble(self) -> tuple[str, float]:
        if self._failing is not None:
            return self._failing[1], self._failing[0]
        seen = self._seen
        if seen is None or self._term is not None:
            return "", 0.0
        if self._orphan is not None:
            return "what is stored as the leader is no head's, and is removed", self._orphan[1]
        obstacle = self._obstacle(seen) if self._registered else ""
        return obstacle, self._kept_s if obstacle else 0.0


def _successor(leader: Holder | None, revision: int) -> str:
    """How a term has ended whose key is not there any more."""
    if leader is None:
        return "its key is gone"
    if leader.revision == revision or leader.record is None:
        return "its key was replaced"
    return f"another does: {leader.record.in_words()}"
