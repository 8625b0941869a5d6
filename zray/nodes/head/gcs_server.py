"""The GCS with its store behind the head's port, for as long as this head leads.

Owns one term: from the opened store to its end. What outlasts a term is the head's.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from zray import limits
from zray.core.head.identity import HeadIdentity
from zray.core.head.members import Suspect
from zray.core.incidents import Incidents
from zray.nodes.head.head_port import HeadPort, Served
from zray.nodes.head.head_store import make_gcs
from zray.nodes.head.liveness import LivenessProbes
from zray.protocol.histogram import Histogram
from zray.protocol.messages import Figure
from zray.runtime.loop import Loop
from zray.store.base import Opened, Store

PROBE_S = 0.05


class GcsServer:
    """Serves from ``begin`` to ``rest`` or ``close``.

    Args:
        store: opened; the server's from now on. ``where``: that, for people.
        turns: how long each turn of the process took.

    Raises:
        StoreError: this version cannot go on with what is stored; the store is not closed.
    """

    def __init__(
        self,
        identity: HeadIdentity,
        store: Store,
        opened: Opened,
        where: str,
        port: HeadPort,
        loop: Loop,
        incidents: Incidents,
        turns: Histogram,
    ) -> None:
        self.identity = identity
        self.store = store
        self._port = port
        self._loop = loop
        self._turns = turns
        self.gcs = make_gcs(identity, opened.rows, loop.now(), incidents, where)
        self.gcs.inspection.figures = self._figures
        self._stalled_since = ""  # when the store has begun to take nothing
        self._look_at = 0.0  # at connections of drivers that say nothing
        self._probe_at = 0.0  # nodes that may have ended
        self._suspects: list[Suspect] | None = None  # those; None: they were not looked for
        self._probes = LivenessProbes(lambda *answer: self.gcs.members.probed(*answer))
        self._all_figures: Callable[[float], list[Figure]] | None = None  # once somebody asks

    def begin(self) -> None:
        """From now on the port's messages come here."""
        self._port.serve(Served.leading(self.gcs))
        fd = self.store.fileno()
        if fd is not None:
            self._loop.watch(fd, lambda: None)

    # ---- turn ------------------------------------------------------------------------------

    def wait_s(self) -> float:
        """How long there is nothing to do if nothing arrives."""
        due = self.gcs.turn.deadline()
        if self._probes or self._suspects:
            due = min(due, self._loop.now() + 0.25)
        elif self._suspects is None:
            due = min(due, self._probe_at)
        return min(due - self._loop.now(), 1.0)

    def turn(self) -> None:
        """Something may have come: decide, store, send.

        Raises:
            StoreError: it may say nothing more.
        """
        turn = self.gcs.turn
        turn.attempt("ending lost connections", "", self._port.drop_cut)
        self.settle()
        turn.attempt("looking at suspects' ports", "", self._probe_suspects)
        turn.attempt("looking at drivers", "", self._look_at_drivers)

    def check_store(self) -> None:
        """Before anything is said: a head that slept may have been followed by another.

        Raises:
            StoreError: it may say nothing more.
        """
        failure = self.store.failure()
        if failure is not None:
            raise failure

    def settle(self) -> None:
        """Decide all, store it, and send what may be said.

        Raises:
            StoreError: as ``turn``.
        """
        gcs, now = self.gcs, self._loop.now()
        self.check_store()
        self._persist(now)
        gcs.sessions.store_stalls(self._trouble())
        gcs.turn.settle(now)
        while gcs.journal:
            if not self._persist(now):
                break
            gcs.turn.settle(now)
        self.check_store()
        self._port.send()

    def _trouble(self) -> str:
        """Why nothing becomes durable just now, and since when."""
        stall = self.store.stall()
        if stall is None:
            self._stalled_since = ""
            return ""
        self._stalled_since = self._stalled_since or time.strftime("%Y-%m-%d %H:%M:%S %z")
        return f"{stall.args[0]} (since {self._stalled_since})"

    def _persist(self, now: float) -> bool:
        """Hand new rows to the store and take what has become durable; whether there was any."""
        for token, rows in self.gcs.journal.take():
            self.store.submit(token, rows)
        return self._take_completed(now)

    def _take_completed(self, now: float) -> bool:
        completed = self.store.completed()
        for token in completed:
            self.gcs.turn.committed(token, now)
        return bool(completed)

    def _figures(self, now: float) -> list[Figure]:
        if self._all_figures is None:
            from zray.nodes.head.vitals import Vitals

            which = (self.identity, self.gcs, self._port, self.store, self._turns)
            self._all_figures = Vitals(*which).all
        return self._all_figures(now)

    # ---- proof of death --------------------------------------------------------------------

    def _probe_suspects(self) -> None:
        """Not in each turn, for that would look at all nodes."""
        now = self._loop.now()
        if now < self._probe_at and not self._probes:
            self._suspects = None  # there may be some by now
            return
        self._probe_at = now + PROBE_S
        self._suspects = suspects = self.gcs.members.suspects()
        if suspects or self._probes:
            wanted = {suspect.process_id: suspect.liveness for suspect in suspects}
            self._probes.look(wanted, now)

    def _look_at_drivers(self) -> None:
        """One that says nothing is slow, unless its machine does not even acknowledge."""
        now = self._loop.now()
        if now < self._look_at:
            return
        self._look_at = now + 1.0
        for job in self.gcs.members.jobs.values():
            if job.connected and now - job.heard > limits.TRANSPORT_SILENT_S:
                self._port.drop_unreachable(self.gcs.sessions.routes[job.process_id])

    # ---- end -------------------------------------------------------------------------------

    def rest(self) -> None:
        """Read and send nothing more; the store may be closed then, in any thread."""
        fd = self.store.fileno()
        if fd is not None:
            self._loop.unwatch(fd)
        self._port.rest()
        self._probes.close()

    def step_down(self) -> None:
        """The store is closed: say what became durable while it was, and that this head leaves."""
        now = self._loop.now()
        self._take_completed(now)
        self.gcs.turn.settle(now)
        self.gcs.succession.last_words()
        self.gcs.sessions.hand_over()
        if self.store.failure() is None:
            self._port.send()

    def close(self) -> None:
        """The head ends: what is left to say is said, and the store closed."""
        if self.store.failure() is None:
            self._port.send()
        self._probes.close()
