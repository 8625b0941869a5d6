"""A driver's own thread, which leads while no thread of the program does.

A part of Driver. It receives, sends what nobody has sent, calls what is due, and gives the lead to
a thread that blocks.
"""

from __future__ import annotations

import sys
import threading
import time

from zray import limits
from zray.core.client.client import Client
from zray.core.client.waiters import Waiter
from zray.nodes.driver.advising import Advising
from zray.nodes.participant.leader_follower import NAP_MIN_S
from zray.nodes.participant.participant import COALESCE_S

LEAD_BACK_S = 0.005  # the pump takes the lead back when nobody has had it for so long


class Pump(Advising):
    _leaves = True

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        # It is no follower: see _pump.
        self._pump_turn = threading.Condition(self._lock)  # type: ignore[arg-type]
        self._pump_leads = False
        self._pump_brief = False  # its present sleep ends within COALESCE_S
        self._fed = False  # somebody has read and sent, not as leader, since the pump looked
        self._unsent_since = 0.0  # when the pump first saw what is still unsent; 0: nothing is
        self._users = 0
        self._lead_free = 0.0  # when somebody last gave the lead back
        self._closing = False
        self._tend_at = 0.0  # when all is to be looked at, not only what somebody waits for
        self._thread = threading.Thread(target=self._pump, name="zray-pump", daemon=True)

    def _attend(self) -> None:
        """The pump shall look: with the lock held. It does so by itself after a brief sleep."""
        if not self._pump_leads:
            self._pump_turn.notify()
        elif self._completions or not self._pump_brief:
            self._wake()

    def _leave_off(self) -> bool:
        """It may be long before somebody has the lock again: nobody shall leave anything for them.

        Whether somebody has just done so.
        """
        self._attended = False
        if not self._left:
            return False
        self._admit()
        return True

    def _feed(self) -> None:
        super()._feed()
        self._fed = True

    def _is_fed(self) -> bool:
        """Whether somebody reads and sends as well, and nobody needs more than that now."""
        fed, self._fed = self._fed, False
        if self._completions or self.client.has_callbacks():
            return False
        return fed and time.monotonic() < self._tend_at

    def _nap_s(self, waiter: Waiter | None) -> float:
        if self._completions or self.client.has_callbacks():
            return 0.0
        wanted = limits.REFERENCES_MAX if waiter is None else waiter.remaining
        return self.client.leases.nap_s(wanted)

    def _before_blocking(self) -> None:
        super()._before_blocking()
        self._users += 1
        if self._pump_leads:
            self._wake()

    def _after_blocking(self) -> None:
        self._users -= 1
        self._lead_free = time.monotonic()

    def _pump(self) -> None:
        """Lead while nobody else does. Waking it for each ``get`` would cost as much as the task,
        so it looks by itself now and then, unless something needs it."""
        with self._lock:
            while not self._closing:
                recently = time.monotonic() - self._lead_free < LEAD_BACK_S
                if self._leading or self._users or recently:
                    if not self._leave_off():
                        self._pump_turn.wait(LEAD_BACK_S if recently and not self._users else 0.05)
                    if self.client.unsent():
                        self._flush()
                    continue
                self._pump_leads = True
                self._pump_brief = self.client.unsent()
                try:
                    nap_s = 0.0 if self._pump_brief else self._nap_s(None)
                    if self._is_fed():
                        self._unlocked(self._nap, COALESCE_S)
                    elif nap_s < NAP_MIN_S:
                        self._lead_once(self._lead_s())
                    elif not self._leave_off():
                        self._unlocked(self._nap, nap_s)
                        if not self._leading:
                            self._lead_once(0.0)
                except BaseException:  # of a callback: the others still need the pump
                    threading.excepthook(
                        threading.ExceptHookArgs([*sys.exc_info(), threading.current_thread()])
                    )
                finally:
                    self._pump_leads = False
                self._flush_what_waited()

    def _flush_what_waited(self) -> None:
        """Send what nobody has sent for COALESCE_S: more has come meanwhile, and goes along."""
        now = time.monotonic()
        if not self.client.unsent():
            self._unsent_since = 0.0
        elif not self._unsent_since:
            self._unsent_since = now
        elif now - self._unsent_since >= COALESCE_S:
            self._unsent_since = 0.0
            self._flush()
