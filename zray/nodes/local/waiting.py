"""How a program in local mode waits: what waits to be asked is run by whoever waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from zray.errors import ClusterShutdownError, GetTimeoutError, ObjectLostError, ReentrantCallError
from zray.ids import origin_of
from zray.nodes.local.actors import LocalActor
from zray.nodes.local.objects import LocalObjects
from zray.nodes.local.streams import LocalStream
from zray.nodes.participant.shared_values import load
from zray.protocol import messages as m
from zray.runtime.references import ObjectRef, counted

if TYPE_CHECKING:
    import concurrent.futures

ERROR_S = 0.1  # so often who waits for several looks whether one is an error
LOOK_S = 0.5  # so often who waits looks whether all is over


class LocalWaiting:
    """Attributes:
    streams: by task or call that yields.
    calls: the actor of each call that has no answer.
    """

    def __init__(self, objects: LocalObjects) -> None:
        self.objects = objects
        self.streams: dict[bytes, LocalStream] = {}
        self.calls: dict[bytes, LocalActor] = {}
        self.closed = False

    def _collect(self) -> None:
        """Let go of what the program has let go of."""

    # ---- what runs because somebody waits ----------------------------------------------------

    def _drive(self, oid: bytes) -> bool:
        """Bring an object nearer, in this thread; False: it comes by itself, or never."""
        task_id = origin_of(oid)
        stream = self.streams.get(task_id)
        if stream is not None and stream.lazy and not stream.ended:
            stream.advance()
            return True
        actor = self.calls.get(task_id)
        ahead = actor.stream if actor is not None else None
        if ahead is not None and not ahead.ended:
            ahead.advance()
            return True
        return False

    def _check(self, missing: list[bytes], most: int) -> None:
        """Raises ReentrantCallError: more than so many of these wait for this very thread."""
        me, calls = (
            threading.get_ident(),
            [(oid, self.calls.get(origin_of(oid))) for oid in missing],
        )
        stuck = [(oid, actor) for oid, actor in calls if actor is not None and actor.thread == me]
        if len(stuck) > most:
            oid, actor = stuck[0]
            raise ReentrantCallError(
                f"a call of {actor.info.class_name} waits for {oid.hex()}, which is a call of the "
                "same actor that can only begin when this one has ended: on a cluster both would "
                "wait for ever. Give the actor max_concurrency, or do not wait in its method"
            )

    def wait_for(self, oids: Sequence[bytes], enough: int, timeout: float | None) -> bool:
        """Wait until so many of these are there; False: not in time.

        Raises:
            ReentrantCallError: they never will be.
            ClusterShutdownError: the same, after ``shutdown``.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        came, looked = threading.Event(), False
        while True:
            missing = self.objects.missing(oids)
            if len(oids) - len(missing) >= enough:
                return True
            if self.closed:
                raise ClusterShutdownError("the value will not come: zray.shutdown() was called")
            late = deadline is not None and time.monotonic() >= deadline
            if late and (timeout or looked):
                return False
            looked = True
            if any(self._drive(oid) for oid in missing):
                continue
            if late:
                return False
            if deadline is None:
                self._check(missing, len(oids) - enough)
            came.clear()
            if self.objects.watch(missing, came.set) == len(missing):
                left = LOOK_S if deadline is None else min(LOOK_S, deadline - time.monotonic())
                came.wait(max(0.0, left))
            self.objects.unwatch(missing, came.set)

    # ---- get and wait ------------------------------------------------------------------------

    def get(self, wanted: Sequence[ObjectRef[Any]], timeout: float | None) -> list[Any]:
        """As ``Participant.get``."""
        self._collect()
        ids = [*dict.fromkeys(ref.id for ref in wanted)]
        deadline = None if timeout is None else time.monotonic() + timeout
        failed = self._error_among(ids)
        for oid in ids if not failed else ():
            while not failed and not self.wait_for([oid], 1, _slice(deadline)):
                failed = self._error_among(ids)
                if failed:
                    break
                missing = self.objects.missing(ids)
                if deadline is None:
                    self._check(missing, 0)
                elif time.monotonic() >= deadline:
                    raise GetTimeoutError(
                        f"after {timeout:g} s {len(missing)} of {len(ids)} values are not ready"
                    )
        if failed:
            self._load(failed)
        return [self._load(ref.id) for ref in wanted]

    def _error_among(self, ids: list[bytes]) -> bytes:
        """The first that is one, or nothing."""
        known = self.objects.outcomes
        return next((oid for oid in ids if oid in known and known[oid].kind & m.ERROR), b"")

    def _load(self, oid: bytes) -> Any:
        outcome = self.objects.outcomes.get(oid)
        if outcome is None:
            raise ObjectLostError(f"nothing in this program refers to {oid.hex()} any more")
        if outcome.kind & m.ERROR:
            self.objects.unasked.asked(outcome)
        return load(outcome)

    def wait(
        self, ids: list[bytes], num_returns: int, timeout: float | None, fetch_local: bool
    ) -> list[int]:
        """As ``Participant.wait``."""
        self._collect()
        self.wait_for(ids, num_returns, timeout)
        ready = [place for place, oid in enumerate(ids) if self.objects.is_ready(oid)]
        self.objects.unasked.seen(ids[place] for place in ready[:num_returns])
        return ready[:num_returns]

    def follow(self, ids: list[bytes], timeout: float | None, label: str) -> None:
        """As ``Following.follow``, but nothing is shown: what runs here can be seen."""
        with contextlib.suppress(ReentrantCallError, ClusterShutdownError):
            self.wait_for(ids, len(ids), timeout)

    def state_of(self, oid: bytes) -> str:
        """As ``Participant.state_of``."""
        outcome = self.objects.outcomes.get(oid)
        if outcome is None:
            return "pending"
        return "failed" if outcome.kind & m.ERROR else "ready"

    # ---- futures ---------------------------------------------------------------------------

    def complete(self, ref: ObjectRef[Any], future: concurrent.futures.Future[Any]) -> None:
        """As ``Participant.complete``."""

        def settle() -> None:
            if future.done() or not (future.running() or future.set_running_or_notify_cancel()):
                return
            try:
                value = self._load(ref.id)
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(value)

        self._when_there(ref.id, settle)

    def complete_in_loop(self, ref: ObjectRef[Any], future: asyncio.Future[Any]) -> None:
        """As ``Participant.complete_in_loop``."""
        loop = future.get_loop()

        def settle() -> None:
            if future.done():
                return
            try:
                future.set_result(self._load(ref.id))
            except Exception as error:
                future.set_exception(error)

        self._when_there(ref.id, partial(self._in_loop, loop, settle), settle)

    @staticmethod
    def _in_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(call)

    def _when_there(
        self, oid: bytes, tell: Callable[[], None], now: Callable[[], None] | None = None
    ) -> None:
        """Call once the object is there; ``now``: instead, if that is already so."""
        while not self.objects.is_ready(oid) and self._drive(oid):
            pass
        if not self.objects.watch([oid], tell):
            (now or tell)()

    # ---- generators ------------------------------------------------------------------------

    def next_item(self, task_id: bytes) -> ObjectRef[Any] | None:
        """As ``ItemStreams.next_item``."""
        stream = self.streams[task_id]
        while (oid := stream.take()) is None:
            if stream.is_over():
                return None
            self.wait_for([stream.next_id()], 1, None)
        return counted(oid)

    async def next_item_in_loop(self, task_id: bytes) -> ObjectRef[Any] | None:
        """As ``ItemStreams.next_item_in_loop``."""
        stream, loop = self.streams[task_id], asyncio.get_running_loop()
        while (oid := stream.take()) is None:
            if stream.is_over():
                return None
            came: asyncio.Future[None] = loop.create_future()
            self._when_there(stream.next_id(), partial(self._in_loop, loop, partial(_come, came)))
            await came
        return counted(oid)

    def has_next_item(self, task_id: bytes) -> bool:
        """As ``ItemStreams.has_next_item``."""
        self._look(task_id)
        return self.streams[task_id].has_next()

    def items_are_over(self, task_id: bytes) -> bool:
        """As ``ItemStreams.items_are_over``."""
        self._look(task_id)
        return self.streams[task_id].is_over()

    def next_item_id(self, task_id: bytes) -> bytes:
        """As ``ItemStreams.next_item_id``."""
        return self.streams[task_id].next_id()

    def _look(self, task_id: bytes) -> None:
        """See whether there is another item, which one that waits to be asked has then made."""
        stream = self.streams[task_id]
        while not (stream.has_next() or stream.is_over()) and self._drive(stream.next_id()):
            pass


def _slice(deadline: float | None) -> float:
    """How long to wait for one of several, as another may be an error."""
    if deadline is None:
        return ERROR_S
    return max(0.0, min(ERROR_S, deadline - time.monotonic()))


def _come(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
