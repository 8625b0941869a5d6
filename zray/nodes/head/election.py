"""This head among the heads of its cluster, on etcd: stands by, leads, is fenced, gives back.

A thread asks what the machine ``Contender`` wants to know. Whoever loses etcd for a while waits,
and leads or stands by again when it has returned; nothing here ends because of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from zray import limits
from zray.core.head.leadership import (
    Contender,
    Leadership,
    LeaseTerms,
    Request,
    Revoke,
    State,
    View,
)
from zray.nodes.head import predecessor
from zray.nodes.head.leader_keys import LeaderKeys
from zray.protocol.head_messages import HeadInfo
from zray.store import etcd_errors
from zray.store.etcd_address import EtcdAddress
from zray.store.etcd_gateway import verification
from zray.store.etcd_layout import Layout
from zray.store.etcd_race import Race
from zray.store.etcd_wire import EtcdError, Unavailable

_END_S: Final = 2.0  # for giving back what it has; else that goes with its lease
_WATCH_S: Final = 10.0  # without a word, until the watch is set up anew, at whoever answers then
_WATCH_RETRY_S: Final = 0.5


class LeaderTerm:
    """The time for which this head leads: ``zray.store.fencing.Term``."""

    def __init__(
        self, leadership: Leadership, guard: threading.Lock, news: Callable[[], None]
    ) -> None:
        self._leadership = leadership
        self._guard = guard
        self._news = news
        self.revision = leadership.revision

    def fenced(self) -> str:
        """As ``Term.fenced``."""
        with self._guard:
            return self._leadership.fenced(now_s())

    def lost(self, reason: str) -> None:
        """As ``Term.lost``."""
        with self._guard:
            self._leadership.ended(reason)
        self._news()


class Election:
    """``start`` once, ``end`` once; all else from any thread in between, and cheap.

    It stands by and says who leads from the start on, and leads only after ``campaign``. Its lease
    has the key ``heads/<id>`` for as long as it lives, and ``leader`` while it leads.

    Args:
        name: the cluster's.
        news: called by the election's thread, or by whoever calls ``LeaderTerm.lost``, when
            ``view`` has changed.
    """

    def __init__(
        self,
        address: EtcdAddress,
        name: str,
        me: HeadInfo,
        *,
        terms: LeaseTerms = LeaseTerms(),  # noqa: B008 - a tuple
        news: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Raises:
            StoreError: httpx is not installed, or a file of certificates cannot be used.
        """
        self.where = address.where(name)
        self._address = address
        self._layout = Layout(name)
        self._verify = verification(address)
        self._me = predecessor.record(me)
        self._contender = Contender(self._me, terms, lambda: secrets.randbits(62) | 1)
        self._guard = threading.Lock()  # of the contender and its terms
        self._changed = threading.Condition()  # the view
        self._news = news
        self._view = View(State.STANDBY)
        self._term: LeaderTerm | None = None
        self._refused: EtcdError | None = None  # or unanswered: the last question
        self._since = (0.0, 0.0)  # of the trouble: by this clock, and by the wall's
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._due: asyncio.Event | None = None
        self._asking: asyncio.Task[Any] | None = None
        self._end_s = float("inf")
        self._compact = (time.monotonic(), 0)  # when that was looked at, and the revision then

    # ---- the head's ------------------------------------------------------------------------

    def start(self) -> None:
        """Stand by from now on."""
        self._thread = threading.Thread(target=self._main, name="zray-election", daemon=True)
        self._thread.start()

    def campaign(self, key_id: bytes | None = None, *, once: bool = False) -> None:
        """As ``Contender.campaign``."""
        with self._guard:
            self._contender.campaign(key_id, once=once)
        self._wake()

    def view(self) -> View:
        """What is known; ``trouble`` is in words, ``trouble_s`` since when, by the wall clock.

        Looks at the clock: a head that slept is told so before it hears from etcd.
        """
        view, term = self._view, self._term
        if view.state is State.LEADING and term is not None and term.fenced():
            self._tell()
            view = self._view
        return view

    def term(self) -> LeaderTerm | None:
        """The term for which it leads, or has led last; None: it never has."""
        return self._term

    def lead(self, wait_s: float) -> LeaderTerm:
        """Wait until it leads.

        Raises:
            DataDirectoryLockedError: another still leads after ``wait_s``.
            StoreError: etcd does not answer, or refuses.
        """
        began = time.monotonic()
        with self._changed:
            self._changed.wait_for(self._is_decided, min(wait_s, threading.TIMEOUT_MAX))
            term, view, refused = self._term, self._view, self._refused
        if view.state is State.LEADING and term is not None:
            return term
        if refused is not None:
            raise etcd_errors.cannot_open(self.where, refused)
        if not view.revision:
            waited = Unavailable(f"no answer for {wait_s:.1f} s")
            raise etcd_errors.cannot_open(self.where, waited)
        leader = view.leader
        who = f"pid {leader.pid} on host {leader.host}" if leader is not None else view.trouble
        raise etcd_errors.led_by(self.where, who, time.monotonic() - began)

    def step_down(self, reason: str) -> None:
        """Give the lead back at once; to be called when nothing more is written.

        It leads again after another did, or, if nobody does, after ``limits.STEP_DOWN_S``.
        """
        with self._guard:
            self._contender.step_down(reason, now_s())
        self._interrupt()

    def stop_cluster(self, reason: str) -> None:
        """Tell all heads of the cluster to stop; heads that start later are not meant.

        Only a leader can; ``end`` after this waits until it is written.
        """
        with self._guard:
            self._contender.halt(reason)
        self._interrupt()

    def end(self) -> None:
        """Give back what it has, so that another follows at once, and stop. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._end_s = time.monotonic() + _END_S
        with self._guard:
            self._contender.end()
        self._interrupt()
        thread.join(_END_S + 1.0)

    def _is_decided(self) -> bool:
        refused = self._refused
        return self._view.state is State.LEADING or (
            refused is not None and not isinstance(refused, Unavailable)
        )

    # ---- its thread ------------------------------------------------------------------------

    def _main(self) -> None:
        while time.monotonic() < self._end_s:
            try:
                return asyncio.run(self._run())
            except Exception as error:  # without this thread the head would never lead again
                with self._guard:
                    self._contender.failed(f"a fault of this head: {error!r}", now_s())
                with contextlib.suppress(Exception):
                    self._tell()
                time.sleep(_WATCH_RETRY_S)
        return None

    async def _run(self) -> None:
        self._due = asyncio.Event()
        self._loop = asyncio.get_running_loop()  # from now on it can be woken
        race = Race(self._address, self._verify)
        keys = LeaderKeys(race, self._layout, self._me)
        tasks: list[asyncio.Future[None]] = [asyncio.ensure_future(self._watch(race))]
        try:
            while time.monotonic() < self._end_s:
                self._due.clear()
                with self._guard:
                    request = self._contender.request(now_s())
                    due, over = self._contender.due(), self._contender.over
                self._tell()
                if over:
                    return
                if request is not None:
                    await self._ask(keys, request)
                    self._tend(keys, tasks)
                    continue
                wait_s = min(due - now_s(), self._end_s - time.monotonic())
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._due.wait(), max(0.0, wait_s))
        finally:
            self._loop = None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await race.close()

    async def _ask(self, keys: LeaderKeys, request: Request) -> None:
        with self._guard:
            left_s = self._contender.deadline() - now_s()
        deadline_s = min(time.monotonic() + left_s, self._end_s)
        self._asking = asyncio.ensure_future(keys.ask(request, deadline_s))
        try:
            answer = await self._asking
        except asyncio.CancelledError:
            with self._guard:
                self._contender.dropped(now_s())
        except Exception as error:  # whatever it is, it must not keep this head from returning
            told = error if isinstance(error, EtcdError) else Unavailable(repr(error))
            with self._guard:
                self._contender.failed(str(told), now_s())
            if not isinstance(request, Revoke):
                self._refused = told
        else:
            with self._guard:
                self._contender.answered(answer, now_s())
            self._refused = None
        finally:
            self._asking = None

    async def _watch(self, race: Race) -> None:
        """Look when something has changed. Without it changes are seen with the next renewal."""
        while True:
            began = time.monotonic()
            with contextlib.suppress(Exception):
                async for _ in race.changes(*self._layout.election, _WATCH_S):
                    with self._guard:
                        self._contender.changed(now_s())
                    self._wake()
            await asyncio.sleep(max(0.0, began + _WATCH_RETRY_S - time.monotonic()))

    def _tend(self, keys: LeaderKeys, tasks: list[asyncio.Future[None]]) -> None:
        """Remove what would stay for ever, one thing at a time."""
        if len(tasks) > 1:
            return
        deadline_s = time.monotonic() + _END_S
        if keys.strays:
            work = _in_vain(keys.sweep, deadline_s)
        elif revision := self._old_revision():
            work = _in_vain(keys.compact, revision, deadline_s)
        else:
            return
        tasks.append(asyncio.ensure_future(work))
        tasks[-1].add_done_callback(tasks.remove)

    def _old_revision(self) -> int:
        """What was changed before that fills etcd's database, where nothing else tends it.

        0: nothing now.
        """
        looked_s, revision = self._compact
        if self._view.state is not State.LEADING:
            return 0
        if time.monotonic() - looked_s < limits.LEADER_COMPACT_S:
            return 0
        self._compact = (time.monotonic(), self._view.revision)
        return revision

    # ---- what is told ----------------------------------------------------------------------

    def _tell(self) -> None:
        """Make the view anew, and tell if it is another."""
        with self._guard:
            view = self._contender.view(now_s())
            leadership = self._contender.leadership()
            term = self._term
            if leadership is not None and (term is None or term.revision != leadership.revision):
                term = LeaderTerm(leadership, self._guard, self._lost)
            view = self._in_words(view)
            before, self._view, self._term = self._view, view, term
        if before._replace(revision=bool(before.revision)) != view._replace(
            revision=bool(view.revision)
        ):
            with self._changed:
                self._changed.notify_all()
            self._news()

    def _in_words(self, view: View) -> View:
        if not view.trouble:
            return view
        if self._since[0] != view.trouble_s:
            self._since = (view.trouble_s, time.time() - (now_s() - view.trouble_s))
        wall_s = self._since[1]
        since = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(wall_s))
        trouble = f"{self.where}: {view.trouble} (since {since})"
        return view._replace(trouble=trouble, trouble_s=wall_s)

    def _lost(self) -> None:
        self._tell()
        self._wake()

    def _wake(self) -> None:
        self._call(lambda: self._due.set() if self._due is not None else None)

    def _interrupt(self) -> None:
        """Something is more urgent than the question that is open."""
        self._call(self._drop)

    def _drop(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
        if self._due is not None:
            self._due.set()

    def _call(self, callback: Callable[[], None]) -> None:
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it has just ended
                loop.call_soon_threadsafe(callback)


async def _in_vain(work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
    """It may fail: whoever looks next does it again."""
    with contextlib.suppress(Exception):
        await work(*arguments)


def now_s() -> float:
    """A clock that runs while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
