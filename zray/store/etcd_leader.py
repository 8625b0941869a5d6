"""The key of the head that leads, in etcd: won, renewed by a thread of its own, given back."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

from zray import limits
from zray.errors import FencedError
from zray.store import etcd_errors
from zray.store.etcd_address import EtcdAddress
from zray.store.etcd_gateway import EtcdError, Gateway, created
from zray.store.etcd_layout import Delete, Layout
from zray.store.leadership import Candidate, Leadership, LeaseTerms

_END_S = 1.0  # for giving the key back; else it goes with its lease


class LeaderKey:
    """``Leadership`` in practice. ``won`` once, then ``fenced`` from any thread, ``end`` once.

    Args:
        where: the store's name in messages.
        wait_s: for another leader to end, and for etcd to answer; ``inf``: a standby.
        news: called by the thread once it is fenced.
    """

    def __init__(
        self,
        address: EtcdAddress,
        layout: Layout,
        where: str,
        *,
        terms: LeaseTerms,
        wait_s: float,
        news: Callable[[], None],
    ) -> None:
        self._gateway = Gateway(address)
        self._layout = layout
        self._where = where
        self._terms = terms
        self._wait_s = wait_s
        self._news = news
        self._lease = 0
        self._revision = 0
        self._guard = threading.Lock()  # of the leadership
        self._leadership = Leadership(terms, 0.0)
        self._error: FencedError | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._unanswered_s: float | None = None
        self._compacted_s = time.monotonic()
        self._compact_to = 0

    # ---- winning ---------------------------------------------------------------------------

    def win(self) -> int:
        """Wait until this head leads; return the revision in which it began to.

        Raises:
            DataDirectoryLockedError: another still leads after ``wait_s``.
            StoreError: etcd does not answer, or refuses.
        """
        begun = time.monotonic()
        deadline = begun + self._wait_s
        me = _candidate()
        try:
            while not self._revision:
                pair, revision = self._gateway.get(self._layout.leader, deadline)
                if pair is None:
                    self._campaign(me, deadline)
                    continue
                holder = Candidate.decode(pair.value)
                if holder is not None and holder.shares_machine_with(me) and _is_gone(holder):
                    terms = [created(self._layout.leader, pair.created)]
                    key = Delete(self._layout.leader)
                    self._gateway.transact(terms, [key], [], deadline)
                    continue
                left = deadline - time.monotonic()
                if left <= 0:
                    raise etcd_errors.led_by(self._where, holder, time.monotonic() - begun)
                watched_s = min(left, self._terms.ttl_s / 4)
                self._gateway.deleted_since(self._layout.leader, revision + 1, watched_s)
        except EtcdError as error:
            raise etcd_errors.cannot_open(self._where, error) from error
        self._thread = threading.Thread(target=self._run, name="zray-leader", daemon=True)
        self._thread.start()
        return self._revision

    def _campaign(self, me: Candidate, deadline: float) -> None:
        """Try to make the key; of several heads one succeeds."""
        key = self._layout.leader
        lease = secrets.randbits(62) | 1
        sent_s = now_s()
        self._gateway.grant(lease, self._terms.ttl_s, deadline)
        answer = self._gateway.transact(
            [created(key, 0)], [(key, me.encode())], [key], deadline, lease=lease
        )
        if answer.succeeded:
            revision = answer.revision
        elif answer.pairs and answer.pairs[0].value == me.encode():
            revision = answer.pairs[0].created  # the answer to an earlier copy was lost
        else:
            self._gateway.revoke(lease, deadline)
            return
        leadership = Leadership(self._terms, sent_s)
        if leadership.fenced(now_s()):  # it took too long, and may be over
            self._gateway.revoke(lease, deadline)
            return
        self._lease, self._revision, self._leadership = lease, revision, leadership

    # ---- leading ---------------------------------------------------------------------------

    def fenced(self) -> FencedError | None:
        """Why this head does not lead any more; never reset."""
        if self._error is None:
            with self._guard:
                reason = self._leadership.fenced(now_s())
            if reason:
                self._error = etcd_errors.fenced(self._where, reason)
        return self._error

    def unanswered_s(self) -> float:
        """How long etcd has not answered to a renewal."""
        since = self._unanswered_s
        return time.monotonic() - since if since is not None else 0.0

    def lost(self, reason: str) -> None:
        """A write has shown that another leads."""
        with self._guard:
            self._leadership.ended(reason)

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._guard:
                due = min(self._leadership.renew_at(), self._leadership.fence_at())
            if self._stop.wait(max(0.0, due - now_s())):
                return
            if self.fenced() is None:
                self._renew()
            if self.fenced() is not None:
                self._news()
                return

    def _renew(self) -> None:
        sent_s = now_s()
        if self._unanswered_s is None:
            self._unanswered_s = time.monotonic()
        with self._guard:
            deadline = time.monotonic() + max(0.05, self._leadership.fence_at() - sent_s)
        try:
            kept = self._gateway.keep_alive(self._lease, deadline)
            # A member that has lost its etcd's leader still renews; this read it cannot answer.
            pair, revision = self._gateway.get(self._layout.leader, deadline)
        except EtcdError:
            with self._guard:
                self._leadership.unproved(now_s())
            return
        self._unanswered_s = None
        with self._guard:
            if pair is None or pair.created != self._revision:
                self._leadership.ended(_ending(pair.value if pair is not None else None))
            elif not kept:
                self._leadership.ended("its lease has ended")
            else:
                self._leadership.proved(sent_s, now_s())
        self._compact(revision)

    def _compact(self, revision: int) -> None:
        """What was changed long ago fills etcd's database, where nothing else is set up for it."""
        if time.monotonic() - self._compacted_s < limits.LEADER_COMPACT_S:
            return
        self._compacted_s = time.monotonic()
        if self._compact_to:
            with contextlib.suppress(EtcdError):
                self._gateway.compact(self._compact_to, time.monotonic() + _END_S)
        self._compact_to = revision

    def end(self) -> None:
        """Lead no more, and let others follow at once. Idempotent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_END_S)
            if self._thread.is_alive():
                return  # it holds the gateway; the lease ends by itself
        if self._lease:
            with contextlib.suppress(EtcdError):
                self._gateway.revoke(self._lease, time.monotonic() + _END_S)
        self._gateway.close()


def now_s() -> float:
    """A clock that runs while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _ending(value: bytes | None) -> str:
    holder = Candidate.decode(value) if value is not None else None
    if value is None:
        return "its key is gone"
    return f"another does: {holder.in_words()}" if holder is not None else "its key was replaced"


def _candidate() -> Candidate:
    boot = namespace = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    return Candidate(
        nonce=secrets.token_hex(16),
        host=os.uname().nodename,
        boot=boot,
        namespace=namespace,
        pid=os.getpid(),
        born=_born(os.getpid()) or "",
        since=time.strftime("%Y-%m-%d %H:%M:%S %z"),
    )


def _is_gone(holder: Candidate) -> bool:
    """Whether that process of this machine has ended; False where it cannot be told."""
    if holder.pid <= 0 or not holder.born:
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return _born(holder.pid) not in (holder.born, None)


def _born(pid: int) -> str | None:
    """When the process began; empty: it has ended, and its parent does not know yet."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "" if fields[0] in "ZX" else fields[19]
