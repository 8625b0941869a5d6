"""What plays etcd: keys with revisions, leases that expire, transactions with terms.

Each request is carried out at one instant, or never. Who asks, and whether the question or its
answer arrives, is `store_link`'s. https://etcd.io/docs/v3.4/learning/api/
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple, TypeAlias

from zray.testing.world.clock import Clock

EXPIRY_LAG_S = 0.6  # etcd looks for leases that have expired twice a second
PARKED_DONE = 0.5  # of what comes while there is no majority, so much is carried out afterwards
LEASE_EXTENDED = 0.7  # outages after which leases have all their time again: as a rule


class Pair(NamedTuple):
    """A key's value, the revision of the store in which the key was made, and its lease, or 0."""

    key: bytes
    value: bytes
    created: int
    lease: int


class Created(NamedTuple):
    """A term: the key was made in that revision; 0: it is not there."""

    key: bytes
    revision: int


class Equals(NamedTuple):
    """A term: that is the key's value."""

    key: bytes
    value: bytes


class Get(NamedTuple):
    """All keys that begin with one of these."""

    prefixes: tuple[bytes, ...]


class Transact(NamedTuple):
    """``puts`` where all ``terms`` hold, None for a value deletes; else the keys ``reads``."""

    terms: tuple[Created | Equals, ...]
    puts: tuple[tuple[bytes, bytes | None], ...]
    reads: tuple[bytes, ...]
    lease: int = 0


class Grant(NamedTuple):
    """Make a lease of that number, unless there is one."""

    lease: int
    ttl_s: float


class KeepAlive(NamedTuple):
    """Renew a lease."""

    lease: int


class Revoke(NamedTuple):
    """End a lease, and with it the keys under it."""

    lease: int


Request: TypeAlias = Get | Transact | Grant | KeepAlive | Revoke


class Answer(NamedTuple):
    """``succeeded``: the terms held; the lease is there. ``refusal``: why it was refused."""

    succeeded: bool
    pairs: tuple[Pair, ...]
    revision: int
    refusal: str = ""


class _Lease:
    def __init__(self, ttl_s: float, now: float) -> None:
        self.ttl_s = ttl_s
        self.expires_at = now + ttl_s
        self.keys: set[bytes] = set()


class SharedStore:
    """``applied``: called for each transaction whose terms held, before it changes anything."""

    def __init__(self, clock: Clock, random: Random) -> None:
        self._clock = clock
        self._random = random
        self.revision = 1
        self.pairs: dict[bytes, Pair] = {}
        self.quorum = True
        self.applied: Callable[[Transact], None] = lambda _: None
        self.gone: Callable[[bytes], None] = lambda _: None  # a key was deleted
        self._leases: dict[int, _Lease] = {}
        self._parked: list[Callable[[], None]] = []
        self._outages = 0

    def get(self, key: bytes) -> Pair | None:
        """As of now, for judges."""
        return self.pairs.get(key)

    # ---- requests --------------------------------------------------------------------------

    def park(self, carry_out: Callable[[], None]) -> None:
        """There is no majority: perhaps it is carried out when there is one again."""
        if self._random.random() < PARKED_DONE:
            self._parked.append(carry_out)

    def execute(self, request: Request) -> Answer:
        """Carry it out now."""
        if isinstance(request, Transact):
            return self._transact(request)
        if isinstance(request, Get):
            return self._answer(True, self._read(request))
        if isinstance(request, Grant):
            self._grant(request)
            return self._answer(True)
        if isinstance(request, KeepAlive):
            return self._answer(self._keep_alive(request.lease))
        self._end_lease(request.lease)
        return self._answer(True)

    def _answer(self, succeeded: bool, pairs: tuple[Pair, ...] = ()) -> Answer:
        return Answer(succeeded, pairs, self.revision)

    def _read(self, request: Get) -> tuple[Pair, ...]:
        keys = sorted(key for key in self.pairs if key.startswith(request.prefixes))
        return tuple(self.pairs[key] for key in keys)

    def _transact(self, request: Transact) -> Answer:
        if not all(map(self._holds, request.terms)):
            found = (self.pairs.get(key) for key in request.reads)
            return self._answer(False, tuple(pair for pair in found if pair is not None))
        if request.lease and request.lease not in self._leases:
            return self._answer(False)._replace(refusal="requested lease not found")
        self.applied(request)
        self.revision += 1
        for key, value in request.puts:
            if value is None:
                self._delete(key)
            else:
                self._put(key, value, request.lease)
        return self._answer(True)

    def _holds(self, term: Created | Equals) -> bool:
        pair = self.pairs.get(term.key)
        if isinstance(term, Created):
            return (pair.created if pair is not None else 0) == term.revision
        return pair is not None and pair.value == term.value

    def _put(self, key: bytes, value: bytes, lease: int) -> None:
        before = self.pairs.get(key)
        self._unbind(before)
        self.pairs[key] = Pair(key, value, before.created if before else self.revision, lease)
        if lease:
            self._leases[lease].keys.add(key)

    def _delete(self, key: bytes) -> None:
        before = self.pairs.pop(key, None)
        self._unbind(before)
        if before is not None:
            self.gone(key)

    def _unbind(self, pair: Pair | None) -> None:
        lease = self._leases.get(pair.lease) if pair is not None else None
        if lease is not None and pair is not None:
            lease.keys.discard(pair.key)

    # ---- leases ----------------------------------------------------------------------------

    def _grant(self, request: Grant) -> None:
        if request.lease not in self._leases:  # else a copy of this request has come before
            lease = self._leases[request.lease] = _Lease(request.ttl_s, self._clock.now)
            self._watch(request.lease, lease)

    def _keep_alive(self, number: int) -> bool:
        lease = self._leases.get(number)
        if lease is None or self._clock.now >= lease.expires_at:
            return False
        lease.expires_at = self._clock.now + lease.ttl_s
        return True

    def _watch(self, number: int, lease: _Lease) -> None:
        lag = self._random.uniform(0.01, EXPIRY_LAG_S)
        self._clock.at(max(lease.expires_at, self._clock.now) + lag, self._look, number, lease)

    def _look(self, number: int, lease: _Lease) -> None:
        if self._leases.get(number) is not lease:
            return
        if self.quorum and self._clock.now >= lease.expires_at:
            self._clock.tell(f"lease {number} has expired")
            self._end_lease(number)
        else:
            self._watch(number, lease)

    def _end_lease(self, number: int) -> None:
        lease = self._leases.pop(number, None)
        if lease is not None:
            self.revision += 1
            for key in sorted(lease.keys):
                self._delete(key)

    # ---- what happens to it ----------------------------------------------------------------

    def lose_key(self, key: bytes) -> None:
        """Somebody deletes a key by hand."""
        self.revision += 1
        self._delete(key)

    def lose_quorum(self, seconds: float) -> None:
        """More than half of the members are away for a while."""
        self.quorum = False
        self._outages += 1
        self._clock.tell(f"the store is without a majority for {seconds:.2f} s")
        self._clock.after(seconds, self._recover, self._outages)

    def _recover(self, outage: int) -> None:
        if outage != self._outages:
            return
        self.quorum = True
        self._clock.tell("the store has a majority again")
        if self._random.random() < LEASE_EXTENDED:  # its new leader knows of no renewal
            for lease in self._leases.values():
                lease.expires_at = self._clock.now + lease.ttl_s
        parked, self._parked = self._parked, []
        self._random.shuffle(parked)
        for carry_out in parked:
            carry_out()
