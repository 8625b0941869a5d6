"""Which heads the cluster has, for the one that leads: who is told, and how its lead may end.

Where the store is not shared there is one head, and nothing here ever happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from zray import limits
from zray.core.head.control_store import ControlStore
from zray.core.head.events import INFO, WARNING, Events
from zray.core.head.journal import Persist
from zray.core.head.members import Member
from zray.core.head.notices import Notices
from zray.core.head.standby import in_words
from zray.core.machine import Outbox
from zray.errors import NoStandbyError
from zray.protocol import messages as m
from zray.protocol.head_messages import HeadInfo, HeadsChanged, StepDown, SteppingDown

PROOF = ("leads", b"", None)  # a row that never is: to delete it is a write as every other

ALONE = (
    "this head keeps its state in a file of its own, so no other can lead. Heads with one --store "
    "etcd:// follow each other: docs/heads.md"
)
NO_OTHER = (
    "no other head stands by. Start one with the same --store and cluster.key, on this machine or "
    "another: docs/heads.md"
)


class Succession:
    """
    Attributes:
        heads: all, this one first. Empty: the store is not shared.
        stepping_down: why an operator wants another head to lead; empty: nobody does.
        terms: how often the process of this head has begun to lead.
        took_s: how long that took the last time.
        members: tells which processes have a session, and hear of changes.
    """

    def __init__(
        self,
        outbox: Outbox[bytes],
        persist: Persist,
        store: ControlStore,
        events: Events,
        notices: Notices,
    ) -> None:
        self._outbox = outbox
        self._persist = persist
        self._store = store
        self._events = events
        self._notices = notices
        self.members: Callable[[], Iterable[bytes]] = tuple
        self.heads: list[HeadInfo] = []
        self.terms, self.took_s = 1, 0.0
        self.stepping_down = ""
        self._asked: tuple[bytes, int] | None = None  # who wants that, and about which message
        self._doubts: dict[bytes, Callable[[float], None]] = {}
        self.handlers: dict[type[m.Message], Callable[[Any, Any, float], None]] = {
            StepDown: self.on_step_down
        }

    # ---- which there are -------------------------------------------------------------------

    def begins(self, heads: Sequence[HeadInfo], epoch: int, before: HeadInfo | None = None) -> None:
        """This head, the first of these, leads from now on; ``before``: who did, if known."""
        self.heads = [*heads]
        me = heads[0]
        text = f"the head {in_words(me)} (pid {me.pid} on {me.host}) leads now, epoch {epoch}"
        if before is not None:
            text += f"; before it {in_words(before)} (pid {before.pid} on {before.host}) did"
            self._notices.add(text)
        self._events.add(INFO, "HEAD", "LEADER_CHANGED", text)

    def changed(self, heads: Sequence[HeadInfo]) -> None:
        """Which there are now; every member is told where it is new."""
        if [*heads] == self.heads:
            return
        before = {head.head_id: head for head in self.heads}
        after = {head.head_id: head for head in heads}
        self.heads = [*heads]
        for head_id in after.keys() - before.keys():
            text = f"the head {in_words(after[head_id])} stands by"
            self._events.add(INFO, "HEAD", "HEAD_JOINED", text)
        for head_id in before.keys() - after.keys():
            text = f"the head {in_words(before[head_id])} stands by no more"
            self._events.add(WARNING, "HEAD", "HEAD_LEFT", text)
        for process_id in self.members():
            self._outbox.send(process_id, HeadsChanged(0, [*heads]))

    # ---- another shall lead ----------------------------------------------------------------

    def on_step_down(self, member: Member, message: StepDown, now: float) -> None:
        """An operator wants another head to lead: the shell sees that, and answers at the end."""
        if len(self.heads) < 2:
            text = NO_OTHER if self.heads else ALONE
            self._outbox.send(
                member.process_id, m.Rejected(0, message.seq, NoStandbyError.code, text)
            )
            return
        self.stepping_down = message.reason or "an operator asked for it"
        self._asked = (member.process_id, message.seq)

    def last_words(self) -> None:
        """All that was acknowledged is stored, and another head may lead: all are told."""
        others = self.heads[1:]
        for process_id in self.members():
            asked = self._asked is not None and self._asked[0] == process_id
            about = self._asked[1] if asked and self._asked is not None else 0
            self._outbox.send(process_id, SteppingDown(0, about, others))

    # ---- whether this head still leads -----------------------------------------------------

    def doubted(self, route: bytes, epoch: int, then: Callable[[float], None]) -> bool:
        """A peer knows ``epoch``. A later one than this head's may be that of another that leads.

        Returns whether that is looked at: a write shows it, and ``then`` is called if this head
        does lead, so that the later epoch was forgotten. Else it says nothing more to anybody.
        """
        if epoch <= self._store.epoch or not self.heads or self._store.trouble:
            return False
        if len(self._doubts) >= limits.STANDBY_GREETINGS_MAX:
            return False
        is_asked = bool(self._doubts)
        self._doubts[route] = then
        if not is_asked:
            self._persist([PROOF], self._proved)
        return True

    def _proved(self, now: float) -> None:
        doubts, self._doubts = self._doubts, {}
        for then in doubts.values():
            then(now)

    def link_lost(self, route: bytes) -> None:
        """A connection is cut."""
        if self._doubts.get(route) is not None:
            self._doubts[route] = lambda now: None
