"""A head among others: what it does while it does not lead, and how it begins to.

Whether it leads the election decides. Loaded where the store is shared only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from zray import limits
from zray.core.head.leadership import State, View
from zray.core.head.standby import Greeting, Leading, Standby, in_words, ordered
from zray.core.head.succession import Succession
from zray.errors import FencedError, StartError, StoreError, ZrayError
from zray.nodes.head.election import Election
from zray.nodes.head.head_port import HeadPort, Served
from zray.nodes.head.head_store import SharedStore
from zray.protocol import messages as m
from zray.protocol.head_messages import HeadInfo
from zray.protocol.versions import mismatch, work_together
from zray.runtime.log import Log
from zray.runtime.loop import Loop
from zray.store.base import Opened, Store

LOOK_S = 0.5  # at the election, though it has no news


class Opening:
    """A store that is opened by ``work`` in a thread of its own; ``done`` is called there then."""

    def __init__(
        self, store: Store, work: Callable[[Store], Opened], done: Callable[[], None]
    ) -> None:
        self.store = store
        self._work = work
        self._done = done
        self._opened: Opened | None = None
        self._error: ZrayError | None = None
        self._thread = threading.Thread(target=self._run, name="zray-opening", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._opened = self._work(self.store)
        except ZrayError as error:
            self._error = error
        except BaseException as error:  # such as no descriptor left: another head may have some
            self._error = StoreError(f"the control store cannot be opened: {error!r}")
        self._done()

    def result(self) -> Opened | None:
        """What it held; None: it is not open yet.

        Raises:
            What ``Store.open`` raises.
        """
        if self._error is not None:
            raise self._error
        return self._opened

    def abandon(self) -> None:
        """It is not needed any more: closed once it is open."""

        def close() -> None:
            self._thread.join()
            self.store.close()

        threading.Thread(target=close, name="zray-closing", daemon=True).start()


class Candidacy:
    """One head's, from its start to its end.

    Args:
        key_id: of its key, whose cluster it is a head of. ``data``: the directory with that key.
        skip: so many epochs more than else, in its first term.
        log: for people.

    Attributes:
        view: of the election, as it was last looked at.
        standby: what is said at the port meanwhile.
    """

    LEADING = State.LEADING

    def __init__(
        self,
        shared: SharedStore,
        data: Path,
        me: HeadInfo,
        key_id: bytes,
        skip: int,
        port: HeadPort,
        loop: Loop,
        log: Log,
    ) -> None:
        self._shared = shared
        self._data = data
        self.me = me
        self._key_id = key_id
        self._skip = skip
        self._port = port
        self._loop = loop
        self._log = log
        self._election = Election(shared.address, shared.name, me, news=loop.wake)
        self.standby = Standby()
        self.view = View(State.STANDBY)
        self._is_checked = False  # that the key is of the stored cluster
        self._told_view: View | None = None
        self._told: list[HeadInfo] = []  # heads, as `has_changed` last had them
        self._opening: Opening | None = None
        self._retired: list[threading.Thread] = []  # which close stores of former terms
        self._began = loop.now()
        self._known_since: float | None = None  # that another leads
        self._said = ""
        self._before: HeadInfo | None = None  # who led last
        self._lead_since = 0.0  # when the store said so
        self._terms = 0
        self._is_stopping = False
        self._failed = ""  # why it could not lead when it was to
        self._pause_s = self._retry_at = 0.0  # until it tries again
        self._former: list[bytes] = []  # connections of a term that this head has given up
        self._cut_at = 0.0
        self._election.start()

    # ---- what is known -----------------------------------------------------------------------

    def look(self) -> View:
        """What the election knows now.

        Raises:
            StartError: this head's key is of another cluster than the stored one, or its version
                is too far from the leader's.
        """
        self.view = view = self._election.view()
        if view.leader is not None and view.leader.head_id != self.me.head_id:
            self._before = view.leader
        if (leader := view.leader) and not work_together(m.PROTOCOL_VERSION, leader.minor):
            who = f"the head that leads ({in_words(leader)})"
            ends = ("this head", who, m.PROTOCOL_VERSION, leader.minor, leader.zray)
            raise StartError(mismatch(*ends))
        if view.revision and not (self._is_checked and view.cluster_id in (b"", self._key_id)):
            self._shared.check(self._data, view.cluster_id or None)
            self._is_checked = True
            self._election.campaign(self._key_id)
        return view

    def has_changed(self) -> bool:
        """Whether other heads are there, or another leads, than when this was last asked."""
        if self.view is self._told_view:
            return False
        self._told_view = self.view
        heads = self.heads()
        before, self._told = self._told, heads
        return heads != before

    def leads(self) -> bool:
        """Whether this head does, by the clock, too."""
        return self.look().state is State.LEADING

    def is_alone(self) -> bool:
        """Whether no other head is there that could lead."""
        return not self.others()

    def heads(self) -> list[HeadInfo]:
        """All that are known, and this one; the leader first."""
        heads = self.view.heads
        if all(one.head_id != self.me.head_id for one in heads):
            heads = (self.me, *heads)
        return ordered(self.leader(), heads)

    def others(self) -> list[HeadInfo]:
        """All but this one; the leader first."""
        return [one for one in self.heads() if one.head_id != self.me.head_id]

    def leader(self) -> HeadInfo | None:
        """Who leads, or did when that was last known. Whoever is fenced does not."""
        view = self.view
        if view.state is State.LEADING:
            return self.me
        is_other = view.leader is not None and view.leader.head_id != self.me.head_id
        return view.leader if is_other else None

    def in_words(self) -> str:
        """Who leads, for people."""
        return self._leading().in_words()

    def is_settled(self) -> bool:
        """Whether it is known for a start that this head stands by: another leads, or none can."""
        now, view = self._loop.now(), self.view
        if view.state is State.LEADING:
            return False
        if self.leader() is None:
            self._known_since = None
            return bool(view.trouble) or now - self._began > limits.STANDBY_SAYS_S
        if self._known_since is None:
            self._known_since = now
        return now - self._known_since > limits.STANDBY_SURE_S  # it may be about to be cleared away

    def _leading(self) -> Leading:
        view = self.view
        heads = tuple(self.heads())
        if view.state is State.LEADING:
            text = f"{in_words(self.me)} takes over, and reads what is stored"
            if self._failed:
                text = f"{in_words(self.me)} cannot: {self._failed}"
            return Leading(None, view.epoch, heads, text)
        return Leading(self.leader(), view.epoch, heads, view.trouble)

    # ---- standing by -------------------------------------------------------------------------

    def stand_by(self) -> None:
        """From now on the port's messages are answered here."""
        self.standby = Standby()
        self.standby.learn(self._leading())
        self._port.serve(Served.standing_by(self.standby))

    def turn(self) -> None:
        """Something may have come, or be known."""
        self._port.drop_cut()
        leading = self._leading()
        if leading != self.standby.known or not self._said:
            self.standby.learn(leading)
            if (said := leading.in_words()) != self._said:
                self._said = said
                self._log(f"stands by: {said}")
        now = self._loop.now()
        if self._former and now >= self._cut_at:
            self._port.cut_off(self._former)
            self._former.clear()
        self.standby.settle(now)
        self._port.send()

    def wait_s(self) -> float:
        """How long there is nothing to do if nothing arrives and the election has no news."""
        due = self.standby.deadline()
        if self._former:
            due = min(due, self._cut_at)
        return min(due - self._loop.now(), LOOK_S)

    # ---- beginning to lead -------------------------------------------------------------------

    def opened(self) -> tuple[Store, Opened] | None:
        """Where this head is to lead: its store, and what that holds; None: not yet.

        Raises:
            FencedError: that is over already. StoreError: what is stored cannot be read.
        """
        if self.view.state is not State.LEADING:
            self._give_up()
            return None
        if self._opening is None and self._loop.now() < self._retry_at:
            return None
        if self._opening is None:
            self._lead_since = self._loop.now()
            term = self._election.term()
            assert term is not None
            store = self._shared.make(term)
            self._opening = Opening(store, self._open, self._loop.wake)
        try:
            found = self._opening.result()
        except BaseException:
            self._opening = None
            raise
        if found is None:
            return None
        store, self._opening, self._skip = self._opening.store, None, 0
        self._failed, self._pause_s = "", 0.0
        self._said = ""
        return store, found

    def _open(self, store: Store) -> Opened:
        """In a thread: it may take as long as the store does not answer."""
        opened = store.open(self._skip)
        try:
            self._shared.check(self._data, opened.cluster_id)
            store.set_cluster_id(self._key_id)
        except BaseException:
            store.close()
            raise
        return opened

    def _give_up(self) -> None:
        if self._opening is not None:
            self._opening.abandon()
            self._opening = None

    def failed(self, error: StoreError) -> None:
        """This head cannot lead, or not any more; where it still could, another may try.

        If that could not either, this one tries again after a while.
        """
        self._log(f"leads no more: {error}")
        if not isinstance(error, FencedError):
            self._failed = str(error)
            longer = max(limits.OPEN_RETRY_FIRST_S, self._pause_s * 2)
            self._pause_s = min(longer, limits.OPEN_RETRY_MAX_S)
            self._retry_at = self._loop.now() + self._pause_s
            self._election.step_down(self._failed)

    def begins(self, succession: Succession, epoch: int) -> None:
        """A term does, of a GCS that is about to serve."""
        self._terms += 1
        succession.terms = self._terms
        succession.took_s = self._loop.now() - self._lead_since
        succession.begins(self.heads(), epoch, self._before)
        self._before = self.me

    def take_waiting(self) -> list[Greeting]:
        """Who has waited for a leader."""
        return self.standby.take_waiting()

    # ---- end ---------------------------------------------------------------------------------

    def retire(self, store: Store) -> threading.Thread:
        """Close the store of a term, which may take long; returns the thread that does."""
        self._retired = [one for one in self._retired if one.is_alive()]
        thread = threading.Thread(target=store.close, name="zray-closing", daemon=True)
        thread.start()
        self._retired.append(thread)
        return thread

    def step_down(self, reason: str) -> None:
        """Let another head lead: the store of this one's term is closed, and all were told.

        Who does not go by himself is cut off soon.
        """
        self._log(f"steps down: {reason}")
        self._election.step_down(reason)
        self.view = self._election.view()  # it does not lead any more, and must not say so
        self._former = self._port.routes()
        self._cut_at = self._loop.now() + limits.STEP_DOWN_CUT_S

    def stop_cluster(self, reason: str) -> None:
        """All heads are to stop."""
        if not self._is_stopping:
            self._is_stopping = True
            self._election.stop_cluster(reason)

    def close(self) -> None:
        """Give back what it has."""
        self._give_up()
        deadline = self._loop.now() + limits.STOP_S / 4
        for thread in self._retired:
            thread.join(max(0.0, deadline - self._loop.now()))
        self._election.end()
