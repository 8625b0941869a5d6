"""What all routes share: who asks the head for them, a bounded number at a time, and who looks on.

Questions run in threads, each with a session of its own with the head, so that none holds up the
event loop. A session in which something went wrong is closed, and the next question makes another.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from zray.dashboard import http_limits
from zray.errors import BusyError, HeadConnectionError, KeyFileError
from zray.nodes.driver.operator import Operator
from zray.protocol import messages as m
from zray.runtime.connection import ConnectionInfo
from zray.runtime.web_keys import WebKeys

T = TypeVar("T")


class Askers:
    """Threads with sessions, as many as ``at_once``; for one kind of questions."""

    def __init__(self, info: Callable[[], ConnectionInfo], at_once: int) -> None:
        self._info = info
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="zray-asker")
        self._free = asyncio.Semaphore(at_once)
        self._waiting = 0
        self._lock = threading.Lock()
        self._idle: list[Operator] = []

    async def ask(self, question: Callable[[Operator], T]) -> T:
        """What ``question`` finds out in a thread, with an Operator of its own.

        Raises:
            BusyError: too many others ask. ZrayError, ValueError: as the question.
        """
        if self._waiting >= http_limits.QUESTIONS_WAITING_MAX:
            raise BusyError("too many questions wait for the head already; ask again later")
        self._waiting += 1
        try:
            async with asyncio.timeout(http_limits.QUESTION_WAIT_S):
                await self._free.acquire()
        except TimeoutError:
            raise BusyError("others' questions to the head take long; ask again later") from None
        finally:
            self._waiting -= 1
        # The slot is free when the thread is, though whoever asked may have gone by then.
        future = asyncio.get_running_loop().run_in_executor(self._pool, self._run, question)
        future.add_done_callback(self._done)
        return await asyncio.shield(future)

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._free.release()
        if not future.cancelled():
            future.exception()  # whoever asked may not be there to hear it

    def _run(self, question: Callable[[Operator], T]) -> T:
        with self._lock:
            operator = self._idle.pop() if self._idle else None
        if operator is not None:
            try:
                return self._tried(operator, question)
            except HeadConnectionError as error:
                if type(error) is not HeadConnectionError:
                    raise
                # An old session's end says nothing about the head now.
        info = self._info()
        operator = Operator(info, ",".join(info.reachable()))
        operator.__enter__()
        return self._tried(operator, question)

    def _tried(self, operator: Operator, question: Callable[[Operator], T]) -> T:
        try:
            found = question(operator)
        except BaseException as error:
            if isinstance(error, HeadConnectionError) or not isinstance(error, Exception):
                operator.__exit__(None, None, None)
            else:
                self._keep(operator)
            raise
        self._keep(operator)
        return found

    def _keep(self, operator: Operator) -> None:
        with self._lock:
            self._idle.append(operator)


class Places:
    """How many viewers of a kind there may be, and are."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0


class Service:
    """Of one process. ``codes_after_s``: older login codes may have been used before it began.

    ``file``: where the head writes which heads there are, as that changes; None: nowhere.
    """

    def __init__(
        self,
        info: ConnectionInfo,
        hosts: frozenset[str],
        codes_after_s: float,
        file: Path | None = None,
    ) -> None:
        self._file = file
        self.info = info
        self.hosts = hosts
        self.codes_after_s = codes_after_s
        self.keys = WebKeys.of(info)
        self.cookie = f"zray-{info.cluster_id[:12]}"  # browsers send it to all ports of a host
        self.viewers = Places(http_limits.STREAMS_MAX)  # that are told as things change
        self.followers = Places(http_limits.LOG_STREAMS_MAX)  # of logs
        self.ending = asyncio.Event()
        self.used_s = time.monotonic()  # when somebody asked last
        self.answered_s = 0.0  # when the head or a node has answered last; 0: never
        self.away: Callable[[], Exception | None] = lambda: None  # why asking is of no use now
        self._short = Askers(self._latest, http_limits.QUESTIONS_AT_ONCE)
        self._long = Askers(self._latest, http_limits.LOOKS_AT_ONCE)
        self._own = Askers(self._latest, 1)
        self._health = Askers(self._latest, 1)

    def _latest(self) -> ConnectionInfo:
        """As the head has last written it; it ends before this process."""
        if self._file is not None:
            with contextlib.suppress(KeyFileError):
                return ConnectionInfo.load(self._file)
        return self.info

    def stands_by(self, status: m.Status) -> bool:
        """Whether another head has told this than the one that has started this process."""
        mine = (self.info.host, self.info.pid)
        return any(head.leads and (head.host, head.pid) != mine for head in status.heads)

    @property
    def address(self) -> str:
        """Of the head."""
        return self.info.addresses[0]

    async def ask(self, question: Callable[[Operator], T]) -> T:
        """As ``Askers.ask``: of the head and its nodes, what takes some seconds at most."""
        return await self._asked(self._short, question)

    async def look(self, question: Callable[[Operator], T]) -> T:
        """The same, of what takes long."""
        return await self._asked(self._long, question)

    async def check(self, question: Callable[[Operator], T]) -> T:
        """The same for who watches over it: that others ask much says nothing of the head."""
        return await self._asked(self._health, question)

    async def sample(self, question: Callable[[Operator], T]) -> T:
        """The same for the sampler, which waits behind no others, and tries however it is."""
        found = await self._own.ask(question)
        self.answered_s = time.monotonic()
        return found

    async def _asked(self, askers: Askers, question: Callable[[Operator], T]) -> T:
        away = self.away()
        if away is not None:
            raise away
        found = await askers.ask(question)
        self.answered_s = time.monotonic()
        return found

    def age_s(self) -> float | None:
        """How old the last answer is; None: there was none."""
        return round(time.monotonic() - self.answered_s, 3) if self.answered_s else None

    def idle_s(self) -> float:
        """For how long nobody has asked or looked on."""
        looks_on = self.viewers.taken or self.followers.taken
        return 0.0 if looks_on else time.monotonic() - self.used_s
