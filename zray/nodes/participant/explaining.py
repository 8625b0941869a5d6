"""How a driver or worker finds out why something is as it is, and says so where nothing moves.

A part of Participant. What this process knows comes first, the head's word completes it; where the
head does not answer, that is said, with the last that was heard of it.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable

from zray import limits
from zray.core.client.waiters import Waiter
from zray.errors import ZrayError
from zray.nodes.participant.item_streams import ItemStreams
from zray.protocol import messages as m
from zray.runtime.interrupts import interrupts

EXPLAIN_S = 1.5 * limits.WHY_ASK_S  # how long the head's word is waited for
WHY_S = 0.5  # the same where a timeout is to be explained


class Asked:
    """A question that the head may answer. ``known``: what stands before its answer."""

    __slots__ = ("answer", "known", "number", "subject", "waiter")

    def __init__(self, subject: str, known: list[m.Cause]) -> None:
        self.subject = subject
        self.known = known
        self.number = 0  # none: nobody was asked
        self.waiter = Waiter()
        self.answer: list[m.Message] = []


class Explaining(ItemStreams):
    address = ""  # of the head, as far as this process knows it
    _said_why = float("-inf")  # when some thread last said what it waits for

    def _head_word(self) -> str:
        """Of a head that is not heard of, since when, and its last word; empty: it is there."""
        return ""

    def why(self, thing: bytes | str, timeout_s: float) -> m.Explanation:
        """Why the thing with this id, or of this name, is as it is.

        Raises:
            ZrayError: the head refuses to say.
        """
        with interrupts, self._lock:
            asked = self._ask_why(thing, min(limits.WHY_ASK_S, timeout_s / 2))
            return self._explanation(asked, timeout_s)

    # ---- with the lock held ------------------------------------------------------------------

    def _ask_why(self, thing: bytes | str, patience_s: float) -> Asked:
        """Ask the head for what is not known here."""
        client = self.client
        subject = thing if isinstance(thing, str) else thing.hex()
        known = client.causes.of(thing) if isinstance(thing, bytes) else None
        asked = Asked(subject, [])
        if known is not None and known.causes:
            asked.known = known.causes
            if not (known.next or known.needs or known.lease_id):
                return asked
            if known.next:
                subject = known.next.hex()
            else:  # the head asks this process as well, and goes on from there
                asked.known = []
        if client.linked:
            client.leases.account()
            subjects = [subject[: limits.NAME_MAX]]

            def make(number: int) -> m.Message:
                asked.number = number
                return m.Why(number, subjects, patience_s)

            asked.answer = client.ask(make, asked.waiter)
        return asked

    def _explanation(self, asked: Asked, timeout_s: float) -> m.Explanation:
        """The answer, or what is known without it."""
        if asked.number:
            self._await(asked.waiter, timeout_s)
        return m.Explanation(asked.subject, self._causes(asked, timeout_s))

    @staticmethod
    def _in_one_sentence(answer: m.Explanation) -> str:
        from zray.core import causes

        return causes.chained(answer.causes)

    def _causes(self, asked: Asked, timeout_s: float) -> list[m.Cause]:
        from zray.core import causes  # loaded when somebody asks

        answer = asked.answer[0] if asked.answer else None
        if isinstance(answer, m.Rejected):
            raise ZrayError(answer.text, code=answer.code)
        if isinstance(answer, m.Explained) and answer.answers:
            return [*asked.known, *answer.answers[0].causes]
        if self.client.linked and not asked.number:
            return asked.known
        if asked.number:
            self.client.requests.take(asked.number)  # nobody waits for it any more
        found = asked.known
        with contextlib.suppress(ValueError):
            if not found:
                found = self.client.causes.of(bytes.fromhex(asked.subject), all_known=True).causes
        word = self._head_word() or f"the head has not answered this within {timeout_s:g} s"
        advice = "see whether its process runs, and its log; zray status"
        unheard = causes.cause("head", b"", self.address, causes.NO_ANSWER, word, advice=advice)
        return [*found, unheard]

    # ---- where nothing moves -----------------------------------------------------------------

    def _wait_aloud(self, waiter: Waiter, deadline: float, missing: Callable[[], bytes]) -> bool:
        started = time.monotonic()
        pause_s = limits.STUCK_S
        while True:
            before = waiter.remaining
            until = time.monotonic() + pause_s
            if self._wait(waiter, min(until, deadline)):
                return True
            if until >= deadline:
                return False
            if waiter.remaining < before:
                pause_s = limits.STUCK_S
            else:
                said = self._say_why(waiter, deadline, missing(), time.monotonic() - started)
                pause_s = limits.STUCK_AGAIN_S if said else limits.STUCK_S

    def _say_why(self, waiter: Waiter, deadline: float, missing: bytes, waited_s: float) -> bool:
        """Say what is waited for. The answer holds nobody up for whom the wait is over.

        False: another thread has just said something, and this one is to look again.
        """
        now = time.monotonic()
        if not missing:
            return True
        if now - self._said_why < limits.STUCK_S / 2:
            return False
        self._said_why = now
        asked = self._ask_why(missing, limits.WHY_ASK_S)
        self._flush()
        until = min(deadline, time.monotonic() + EXPLAIN_S)
        while asked.waiter.remaining > 0 and time.monotonic() < until:
            if self._wait(waiter, min(until, time.monotonic() + 0.1)):
                break
        if waiter.remaining <= 0 or self.client.stopped:
            self.client.requests.take(asked.number)
            return True
        try:
            found = self._causes(asked, EXPLAIN_S)
        except ZrayError:
            return True  # the head does not say
        from zray.core import causes

        several = waiter.remaining > 1
        count = f"{waiter.remaining:,} values are" if several else "a value is"
        first = "the first" if several else "it"
        text = (
            f"zray: nothing has come for {causes.age(waited_s)}: {count} waited for; {first} is "
            f"object {missing.hex()}"
        )
        told = "\n".join([text, *(f"  {one}" for one in causes.lines(found))])
        self._unlocked(_say, told)
        return True


def _say(text: str) -> None:
    with contextlib.suppress(Exception):  # None, closed, or a stream of the program's own
        print(text, file=sys.stderr, flush=True)
