"""What a driver's user is told of its head: that it is gone, refuses, or is another one now."""

from __future__ import annotations

import time

from zray import limits
from zray.core.client.client import Client
from zray.nodes.driver.printing import say
from zray.nodes.driver.search import no_leader
from zray.protocol import messages as m

GONE_WARNING_S = 10.0


class HeadWords:
    """``address``: where heads are looked for first."""

    def __init__(self, client: Client, address: str) -> None:
        self._client = client
        self._heads = client.known_heads
        self._followed = address.partition(",")[0]  # the last session's head
        self._epoch = 0
        self._refusal = ""  # as it was said last
        self._lost_at = 0.0
        self._warned = False

    def linked(self, now: float) -> str:
        """There is a session; the address of its head. Called whenever something has come."""
        heads = self._heads
        if heads.epoch != self._epoch:
            before, old_epoch = self._followed, self._epoch
            self._followed, self._epoch = heads.address, heads.epoch
            if old_epoch and before != heads.address:
                count = len(self._client.references.counts)
                say(
                    f"zray: head changed {before} -> {heads.address} (epoch {old_epoch} -> "
                    f"{heads.epoch}), {count:,} references told again, {now - self._lost_at:.1f} s"
                )
        return heads.address

    def lost(self, refusal: m.Refused | None, since: float) -> None:
        """The session, or the attempt at one, has ended; before the client hears of it.

        ``since``: when that began, where the head only says nothing.
        """
        if self._client.linked:
            self._lost_at = since
            self._warned = False
        if refusal is None or refusal.code in ("", m.FENCED) or refusal.text == self._refusal:
            return
        self._refusal = refusal.text
        say(f"zray: the head at {self._heads.address} refuses this driver: {refusal.text}")

    def away(self, now: float) -> None:
        """There is no session."""
        if not self._warned and now - self._lost_at > GONE_WARNING_S:
            self._warned = True
            say(f"zray: {self._gone()} Submitted tasks are kept.")

    def _gone(self) -> str:
        heads, followed = self._heads, self._followed
        gone = f"no connection to the head at {followed} for {GONE_WARNING_S:.0f} s"
        if heads.stands_by is not None:
            return f"{gone}: {no_leader(heads, time.time())}"
        others = [one for one in heads.all() if one != followed]
        if not others:
            return f"{gone}; waiting for it to return."
        from zray.core.causes import plain

        return plain(f"{gone}; tries it again, and the cluster's others: {', '.join(others)}.")

    def silent(self, now: float, heard: float) -> str:
        """That the head has not answered since it was ``heard``; empty: it has."""
        from zray.core.causes import age  # loaded when somebody asks

        client = self._client
        silent_s = now - heard
        if client.linked and silent_s < limits.SILENT_S:
            return ""
        text = f"the head at {self._followed} has not answered for {age(silent_s)}"
        if self._heads.stands_by is not None and not client.linked:
            text = f"{text}; {no_leader(self._heads, time.time()).removesuffix('.')}"
        word = client.last_word
        if word is None:
            return f"{text}; it has not said yet how the cluster is"
        return f"{text}; its last word, {age(now - word.sent_s)} ago: {word.health}"
