"""Which heads a process knows, and which of their addresses it tries next.

For whoever has sessions with a head: raylets, drivers, observers. A head that does not lead says
which one does (docs/PROTOCOL.md, "Several heads"). It may know too little, or lie: so what it says
moves others up in a round, a few times, and every address has its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from zray import limits
from zray.core.machine import NEVER
from zray.protocol.head_messages import HeadInfo, HeadsChanged, NotLeader, SteppingDown
from zray.protocol.messages import Message, Refused, Welcome

_HINTS_MAX = 3  # times in a round that heads which do not lead say who is next
_SKIPPED_MAX = 16  # rounds, of which a head that does not answer has one
_OTHERS_EACH = 4  # rounds: an address of a head of which no address answers
_KNOWN_MAX = limits.HEADS_MAX * limits.HEAD_ADDRESSES_MAX


class KnownHeads:
    """The order of attempts, in rounds. ``chance``: from 0 to 1, drawn by the caller.

    Args:
        given: host:port of heads, or of several networks of one, the best first.

    Attributes:
        address: of the session, or of the last attempt at one.
        heads: as the leader has said last; empty: its store allows for one only.
        epoch: of the session that was there last.
        linked: that session goes on.
        parting: the head of the session stands by from now on: the session is to end.
        stands_by: what a head that does not lead has said last, since there was a session;
            ``said_by``: where it is.
    """

    def __init__(self, given: Iterable[str] = ()) -> None:
        self._given = [*dict.fromkeys(given)][:_KNOWN_MAX]
        self.address = self._given[0] if self._given else ""
        self.heads: list[HeadInfo] = []
        self.epoch = 0
        self.stands_by: NotLeader | None = None
        self.said_by = ""
        self._hinted: dict[bytes, HeadInfo] = {}  # what heads that do not lead know
        self._good: dict[str, None] = {}  # where heads have answered
        self._leader: list[str] = []  # where one leads, by the best that is known
        self.linked = self.parting = False
        self._left: list[str] = []  # of this round, in order
        self._tried: set[str] = set()  # in this round
        self._hints = self._answers = 0  # in this round
        self._hint_epoch = 0  # the largest that was followed in this round
        self._at_once = False
        self._spoke = False  # a head has answered in this attempt
        self._rounds = 0  # since there was a session
        self._wait_s = limits.RECONNECT_FIRST_S
        # How often without an answer, and the epoch of the leader that was looked for there.
        self._unanswered: dict[str, tuple[int, int]] = {}
        self._asked = NEVER  # since when the head owes a word
        self.handlers: dict[type[Message], Callable[[Any], None]] = {
            HeadsChanged: lambda message: self.changed(message.heads),
            SteppingDown: self.steps_down,
        }

    def aim(self, given: Sequence[str]) -> None:
        """A head is at these addresses from now on; none: as before."""
        wanted = [*dict.fromkeys(given)][:_KNOWN_MAX]
        if wanted and wanted != self._given:
            self._given = wanted
            self._left = []

    def all(self) -> list[str]:
        """Every address, in the order of a round."""
        told = _best_first(self._told())
        return [*dict.fromkeys([*self._leader, *self._given, *told])]

    def _told(self) -> list[HeadInfo]:
        return [*self.heads, *self._hinted.values()]

    def others(self) -> list[str]:
        """Those heads that stand by, as the leader has said last: an address of each."""
        standing = [head for head in self.heads if head.addresses and not head.leads]
        return [*dict.fromkeys(map(self._best, standing))]

    def _best(self, head: HeadInfo) -> str:
        """Where a head is from here: where it has answered, or where somebody has said it is."""
        known = [one for one in head.addresses if one in self._good]
        known += [one for one in head.addresses if one in self._given]
        return known[0] if known else head.addresses[0]

    def in_short(self) -> str:
        """For another process that looks for a head: one address of each, with commas."""
        return ",".join(dict.fromkeys([self.address, *self.others()]))

    # ---- a leader that says nothing --------------------------------------------------------

    def asked(self, now: float) -> None:
        """The head was asked for a sign of life."""
        self._asked = min(self._asked, now)

    def heard(self) -> None:
        """There is one."""
        self._asked = NEVER

    def is_silent(self, now: float) -> bool:
        """Whether the others are to be asked, while the session goes on, if another leads."""
        return self.linked and now - self._asked > limits.HEAD_SILENT_S and bool(self.others())

    def another_leads(self, message: Message, epoch: int, address: str) -> bool:
        """What the head at another address has answered: whether a later one leads than this
        session's, which is followed then."""
        if isinstance(message, Welcome) and epoch > self.epoch:
            self._leader = [address]
            return True
        if isinstance(message, NotLeader) and message.epoch > self.epoch:
            self._hear(message, address)
            return any(head.leads for head in message.heads)
        return False

    # ---- attempts --------------------------------------------------------------------------

    def begin(self) -> str:
        """An attempt begins: at which address."""
        if not self._left:
            self._begin_round()
        self._at_once = self._spoke = False
        self.address = self._left.pop(0)
        self._tried.add(self.address)
        return self.address

    def _begin_round(self) -> None:
        self._rounds += 1
        addresses = self.all()
        self._unanswered = {
            address: seen for address, seen in self._unanswered.items() if address in addresses
        }
        if self._answers:
            addresses = self._spared(addresses)
        self._left = [address for address in addresses if self._is_due(address)] or addresses
        self._tried.clear()
        self._hints = self._answers = 0
        self._hint_epoch = self.epoch

    def _spared(self, addresses: Sequence[str]) -> list[str]:
        """As long as heads answer: each where it is best reached.

        Other addresses may be of networks that do not come here: of heads that are not reached at
        all, one now and then.
        """
        heads = [head for head in self._told() if head.addresses]
        kept = {*self._leader, *self._given, *map(self._best, heads)}
        away = [head for head in heads if not any(one in self._good for one in head.addresses)]
        others = [address for address in _best_first(away) if address not in kept]
        turn, rest = divmod(self._rounds, _OTHERS_EACH)
        if others and not rest:
            kept.add(others[turn % len(others)])
        return [address for address in addresses if address in kept]

    def _is_due(self, address: str) -> bool:
        times, _ = self._unanswered.get(address, (0, 0))
        return address in self._leader or self._rounds % min(_SKIPPED_MAX, 1 << times) == 0

    def is_last(self) -> bool:
        """Whether every address has been tried by now, in this round."""
        return not self._left

    def patience_s(self) -> float:
        """For so long this attempt may go without a sign that somebody is there."""
        if len(self.all()) < 2:
            return limits.CONNECT_TIMEOUT_S
        times, _ = self._unanswered.get(self.address, (0, 0))
        if self._answers and self.address not in self._leader:
            times = 0
        return min(limits.HEAD_PATIENCE_S * (1 << times), limits.CONNECT_TIMEOUT_S)

    def ended(self, chance: float, *, answered: bool = True) -> float:
        """The session, or the attempt at one, is over: seconds until the next attempt.

        ``answered``: not, if nobody was there for as long as ``patience_s``.
        """
        if not self._spoke:
            self._good.pop(self.address, None)
        if self.linked:
            self.linked = self.parting = False
            self._left = []
            return self._jittered(limits.RECONNECT_FIRST_S, chance)
        if not answered:
            times, _ = self._unanswered.get(self.address, (0, 0))
            self._unanswered[self.address] = min(times + 1, 8), max(self._hint_epoch, self.epoch)
        if self._left:
            return 0.0 if self._at_once else self._jittered(limits.RECONNECT_FIRST_S, chance)
        waits_s = self._wait_s
        soon = len(self.all()) > 1 and self._rounds < limits.HEAD_ROUNDS_SOON
        most_s = limits.HEAD_ROUND_S if soon else limits.RECONNECT_MAX_S
        self._wait_s = min(self._wait_s * 2, most_s)
        return self._jittered(waits_s, chance)

    @staticmethod
    def _jittered(seconds: float, chance: float) -> float:
        return seconds * (0.5 + 0.5 * chance)

    # ---- what heads say --------------------------------------------------------------------

    def welcomed(self, heads: Sequence[HeadInfo], epoch: int) -> None:
        """The head at ``address`` leads: there is a session with it."""
        self.heads = [*heads]
        self.epoch = epoch
        self._leader = [self.address]
        self._answered_at(self.address)
        self.stands_by = None
        self._hinted.clear()
        self._unanswered.clear()
        self._left = []
        self._rounds = self._answers = 0
        self._wait_s = limits.RECONNECT_FIRST_S
        self._asked = NEVER
        self.linked = True

    def changed(self, heads: Sequence[HeadInfo]) -> None:
        """The leader tells of heads; it may say that another leads from now on."""
        before = {head.head_id for head in self.heads if head.leads}
        self.heads = [*heads]
        for head in heads:
            if head.leads and before and head.head_id not in before:
                self._leader = [*head.addresses]

    def steps_down(self, message: SteppingDown) -> None:
        """The head of the session is not the leader any more."""
        self.changed(message.heads)
        if all(not head.leads for head in message.heads):  # one of these will
            self._leader = self.others()
        self.parting = True

    def not_leader(self, message: NotLeader) -> Refused:
        """A head says that it does not lead, and which one does as far as it knows.

        Returns what that is in a session: its end.
        """
        self._answers += 1
        self._answered_at(self.address)
        self._hear(message, self.address)
        self._left = self._spared(self._left)
        return Refused(0, "", message.text)

    def _answered_at(self, address: str) -> None:
        self._spoke = True
        self._good[address] = None
        while len(self._good) > _KNOWN_MAX:
            self._good.pop(next(iter(self._good)))

    def _hear(self, message: NotLeader, address: str) -> None:
        self.stands_by, self.said_by = message, address
        for head in message.heads:
            self._hinted.pop(head.head_id, None)
            self._hinted[head.head_id] = head
        while len(self._hinted) > limits.HEADS_MAX:
            self._hinted.pop(next(iter(self._hinted)))
        found = next(
            (one for one in message.heads if one.leads and address not in one.addresses), None
        )
        if found is None:
            self._leader = [] if not self.linked else self._leader
        elif message.epoch >= self.epoch and self._hints < _HINTS_MAX:
            known = [one for one in found.addresses if one in self._good]
            self._follow(known or found.addresses, message.epoch)

    def _follow(self, addresses: Sequence[str], epoch: int) -> None:
        is_news = epoch > self._hint_epoch
        wanted = []
        for address in addresses:
            _, looked_for = self._unanswered.get(address, (0, -1))
            if (is_news or address not in self._tried) and looked_for < epoch:
                wanted.append(address)
        if not wanted:
            return
        self._hints += 1
        self._hint_epoch = epoch
        self._leader = [*addresses]
        self._left = [*wanted, *(one for one in self._left if one not in wanted)]
        self._at_once = True


def _best_first(heads: Sequence[HeadInfo]) -> list[str]:
    """One address of each, then the next ones: not all of them can be reached from everywhere."""
    most = max((len(head.addresses) for head in heads), default=0)
    rows = [[*head.addresses, *[""] * (most - len(head.addresses))] for head in heads]
    return [address for column in zip(*rows, strict=True) for address in column if address]
