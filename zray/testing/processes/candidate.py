"""One head of several, from its start to its death: it stands by, leads, and stands by again.

The shell around `Standby`, `Contender` and the GCS; decides nothing but in which order they come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from zray import limits
from zray.core.head.head_record import HeadRecord
from zray.core.head.leadership import State
from zray.core.head.standby import Leading, Standby, ordered
from zray.protocol import codec
from zray.protocol.head_messages import HeadInfo
from zray.store.base import Rows
from zray.store.etcd_layout import Layout
from zray.testing.processes.election import SimElection, SimTerm
from zray.testing.processes.head import USER, SimHead
from zray.testing.processes.process import Scene
from zray.testing.processes.term_store import Judge, TermStore
from zray.testing.world.network import Link
from zray.testing.world.shared_store import SharedStore
from zray.testing.world.store_link import StoreLink, Weather


class Realm(NamedTuple):
    """What the heads of one cluster share. ``leads``, ``ends``: called as a term does. ``ended``:
    ids of head processes that have."""

    shared: SharedStore
    weather: Weather
    layout: Layout
    terms: Judge
    leads: Callable[[SimCandidate], None]
    ends: Callable[[SimCandidate], None]
    ended: set[bytes]


class SimCandidate(SimHead):
    """``rate``: of its clock for leases, where 1 is simulated time. ``wall_s``: how wrong its wall
    clock is."""

    def __init__(self, scene: Scene, realm: Realm, name: str, address: str, rate: float) -> None:
        super().__init__(scene, name)
        self.address = address
        self.wall_s = 0.0
        self.head_id = self.world.random.randbytes(16)
        self._realm = realm
        random = self.world.random
        self.store_link = StoreLink(self, self.clock, random, realm.shared, realm.weather)
        self.leads = False
        self._term: SimTerm | None = None
        self._store: TermStore | None = None
        self._stepping = ""
        self._standby = Standby()
        since_s = self.clock.now + self.wall_s
        me = HeadInfo(self.head_id, [address], name, self.world.next_pid(), "0", since_s)
        self.world.network.listeners[address] = self
        self.clock.tell(f"{name} starts")
        self.election = SimElection(
            *(self.clock, random, self.store_link, realm.layout, me),
            *(rate, self._is_gone, self.wake),
        )

    def _is_gone(self, head: HeadRecord) -> bool:
        """Each head is on a machine of its own, as is whatever is started in its place."""
        return head.host == self.name and bytes.fromhex(head.head_id) in self._realm.ended

    # ---- turn ------------------------------------------------------------------------------

    def turn(self) -> None:
        """Look whether it leads, before it says anything; then serve, or stand by."""
        if self._term is not None and (reason := self._term.fenced()):
            self._end_term(reason)
            self.world.network.hang_up(self)
            self._inbox.clear()
        view = self.election.view()
        if self._term is None and view.state is State.LEADING:
            self._begin_term()
        if self._store is not None and self._store.opened is not None and not self.leads:
            self._lead()
        if not self.leads:
            self._stand_by()
            return
        self.gcs.succession.changed(ordered(view.leader, view.heads))
        if self._stepping:
            self._settle_and_step_down()
            return
        super().turn()
        if self.gcs.succession.stepping_down:
            self._stepping = self.gcs.succession.stepping_down
            self.wake()

    def has_won(self) -> bool:
        """Whether it leads, or is about to."""
        return self.alive and self._term is not None

    def _begin_term(self) -> None:
        self._term = self.election.term()
        self.clock.tell(f"{self.name} has won, epoch {self._term.revision}")
        realm = self._realm
        self._store = TermStore(
            *(self.clock, realm.shared, self.store_link, realm.layout),
            *(self._term, realm.terms, self.wake),
        )

    def _lead(self) -> None:
        assert self._store is not None and self._store.opened is not None
        opened, view = self._store.opened, self.election.view()
        self.leads = True
        started_s = self.clock.now + self.wall_s
        self.serve(opened.epoch, opened.rows, started_s, self.head_id)
        self.gcs.succession.begins(ordered(view.leader, view.heads), opened.epoch)
        self._realm.leads(self)
        for greeting in self._standby.take_waiting():
            self.gcs.controller.receive(
                greeting.route, greeting.user, greeting.payload, self.clock.now
            )

    def _end_term(self, reason: str) -> None:
        self.clock.tell(f"{self.name} leads no more: {reason}")
        led, self.leads = self.leads, False
        self._term = self._store = None
        self._stepping = ""
        if led:
            self._realm.ends(self)
            del self.gcs
            self._standby = Standby()

    def _stand_by(self) -> None:
        now, standby, view = self.clock.now, self._standby, self.election.view()
        # Who waits for a leader is served by this head as soon as it has read everything.
        leader = view.leader if view.state is not State.LEADING else None
        standby.learn(Leading(leader, view.epoch, view.heads, view.trouble))
        while self._inbox:
            route, data = self._inbox.popleft()
            if data is None:
                standby.link_lost(route, now)
            else:
                standby.receive(route, USER, self._read(route, data), now)
        standby.settle(now)
        for route, messages in standby.routed.take().items():
            for payload in codec.encode(standby.epoch, messages):
                if not self.world.network.down(route, payload):
                    standby.link_lost(route, now)

    # ---- the store -------------------------------------------------------------------------

    def _persist(self) -> bool:
        assert self._store is not None
        for token, rows in self.gcs.journal.take():
            self._store.submit(token, rows)
        self.gcs.sessions.store_stalls(self._store.stall)
        completed = self._store.completed()
        for token in completed:
            self.gcs.turn.committed(token, self.clock.now)
        return bool(completed)

    def durable(self) -> Rows:
        """As ``SimHead.durable``."""
        return self._store.durable() if self._store is not None else {}

    def serving(self) -> int:
        """As ``SimHead.serving``."""
        return super().serving() if self.leads else 0

    def _send(self) -> None:
        if self.gcs.routed:
            self._realm.terms.speaks(self.name, self.gcs.epoch)
        super()._send()

    # ---- the end of a term -----------------------------------------------------------------

    def _settle_and_step_down(self) -> None:
        """It takes nothing in any more; what it has acknowledged is stored and told, then it
        gives its lead back."""
        assert self._store is not None
        gcs, now = self.gcs, self.clock.now
        self._persist()
        gcs.turn.settle(now)
        while gcs.journal and self._persist():
            gcs.turn.settle(now)
        idle = not gcs.journal and self._store.idle()
        if idle:
            gcs.succession.last_words()
            gcs.turn.settle(now)
        self._send()
        if idle:
            reason = self._stepping
            self._end_term(reason)
            self.election.step_down(reason)
            self.wake()  # whoever still speaks to it is told who leads
            links = [link for link in self.world.network.links.values() if link.head is self]
            self.clock.after(limits.STEP_DOWN_CUT_S, self._cut_off, links)

    def _cut_off(self, links: list[Link]) -> None:
        """Whoever has not left a head that stepped down does now."""
        for link in links:
            if self.alive and not link.broken:
                self.world.network.sever(link)

    def die(self) -> None:
        """As ``SimHead.die``."""
        led, self.leads = self.leads, False
        if led:
            self._realm.ends(self)
        self._realm.ended.add(self.head_id)
        super().die()

    def deadline(self) -> float:
        """As ``SimHead.deadline``."""
        return super().deadline() if self.leads else self._standby.deadline()
