"""A short look at a cluster: connect as an observer, ask, leave. Wiring only.

Takes part in nothing: an observer submits, holds and runs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

import zmq

from zray import limits
from zray.core.known_heads import KnownHeads
from zray.errors import HeadConnectionError, HeadSilentError, StateQueryError
from zray.nodes.driver.search import Search
from zray.protocol import messages as m
from zray.protocol import versions
from zray.protocol.splitting import Joiner
from zray.runtime import identity, sockets
from zray.runtime.connection import ConnectionInfo
from zray.runtime.link import HeadLink

ANSWER_S = 5.0  # a head with a long queue may take a while to count it

# What may be asked twice: a head that is followed by another may have answered, or not.
READS = (
    *(m.Query, m.List, m.Summarize, m.Why, m.Locate, m.ReadLog, m.Trace, m.Measure, m.AskHeld),
    *(m.Scrape, m.Examine, m.AskJobs, m.ListEnvironments),
)

Answer = TypeVar("Answer", bound=m.Message)


class Observer:
    """One session with the head that leads, for the length of a ``with`` block.

    ``address``: host:port of a head, or of several of a cluster, with commas.

    It may stay as long as its process likes: an observer owes the head no sign of life. For one
    thread at a time. After a HeadConnectionError it is of no more use: another one is needed.

    Raises:
        HeadConnectionError and its kinds: on entry, why the head cannot be used.
    """

    def __init__(self, info: ConnectionInfo, address: str) -> None:
        self.info = info
        self._given = address.split(",")
        self._process_id = identity.id_source().process_id()
        self._context = sockets.context()
        self._link = HeadLink(self._context, info, KnownHeads(self._given), self._hello)
        self._epoch = 0
        self._asked = 0

    @property
    def address(self) -> str:
        """host:port of the head that has answered, or was tried last."""
        return self._link.address

    def _hello(self) -> tuple[int, m.Message]:
        mine = identity.versions(pickles=False)
        hello = m.Hello(
            *(0, m.PROTOCOL_VERSION, m.ROLE_OBSERVER, self._process_id, 0, b"", mine),
            minor=m.PROTOCOL_MINOR,
        )
        return 0, hello

    def __enter__(self) -> Self:
        try:
            self._join()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._link.close(time.monotonic())
        self._context.term()

    # ---- questions -------------------------------------------------------------------------

    def status(self) -> m.Status:
        """What there is in the cluster, what runs and what waits.

        Raises:
            HeadConnectionError: the connection was lost; HeadSilentError: no answer in time.
        """
        return self.ask(m.Query(0, m.STATUS), m.Status)

    def why(self, subjects: list[str]) -> list[m.Explanation]:
        """Why each of these is as it is: ids in hex, or names of nodes and actors.

        Raises:
            HeadConnectionError: the connection was lost; HeadSilentError: no answer in time.
        """
        found: list[m.Explanation] = []
        for start in range(0, len(subjects), limits.WHY_SUBJECTS_MAX):
            asked = subjects[start : start + limits.WHY_SUBJECTS_MAX]
            found += self.ask(m.Why(0, asked), m.Explained).answers
        return found

    def page(
        self,
        kind: int,
        filters: Sequence[m.Filter] = (),
        limit: int = 0,
        cursor: bytes = b"",
        only: bytes = b"",
    ) -> m.Listed:
        """Some rows of a kind (``m.TASKS`` and so on), as LIST has it; the next with its cursor.

        Raises:
            As ``ask``; StateQueryError: there is no such filter, or the cursor is too old.
        """
        return self.ask(m.List(0, kind, [*filters], limit, cursor, only), m.Listed)

    def summary(self, kind: int) -> m.Summary:
        """How many things of a kind there are, by name and state.

        Raises:
            As ``ask``; StateQueryError: there is no summary of these.
        """
        return self.ask(m.Summarize(0, kind), m.Summary)

    def shut_down(self, reason: str) -> None:
        """Tell the whole cluster to stop, and wait until the head has hung up.

        Raises:
            HeadSilentError: it has not, within ``limits.STOP_S``.
        """
        self._link.send(self._epoch, [m.Shutdown(0, reason)])
        deadline = time.monotonic() + limits.STOP_S
        while not self._link.lost():
            self._link.receive()
            self._wait(deadline, limits.STOP_S)

    def ask(self, query: m.Message, kind: type[Answer], timeout_s: float = ANSWER_S) -> Answer:
        """Send a question, under a number of its own, and wait for its answer, which is a ``kind``.

        Raises:
            HeadConnectionError: the connection was lost; HeadSilentError: no answer in time.
            StateQueryError: no message can say that.
        """
        try:
            return self._ask_once(query, kind, timeout_s)
        except HeadConnectionError as error:
            if not self._again([query], error):
                raise
        return self._ask_once(query, kind, timeout_s)

    def _ask_once(self, query: m.Message, kind: type[Answer], timeout_s: float) -> Answer:
        self._asked += 1
        query.seq = self._asked
        self._send([query])
        return self._receive(kind, timeout_s)

    def _send(self, questions: Sequence[m.Message]) -> None:
        for unsent in self._link.send(self._epoch, questions):
            raise StateQueryError(f"the question cannot be sent: {unsent.text}")

    # ---- the session -----------------------------------------------------------------------

    def _join(self) -> None:
        """A session with the head that leads."""
        link = self._link
        if link.socket is not None:
            link.close(time.monotonic())
        self._asked = 0
        search = Search(link, limits.AUTH_TIMEOUT_S, limits.CONNECT_TIMEOUT_S)
        while True:
            refused = False
            for message, epoch in self._greeting():
                if isinstance(message, m.Welcome):
                    self._welcomed(message, epoch)
                    return
                if isinstance(message, m.NotLeader):
                    link.heads.not_leader(message)
                refused = refused or isinstance(message, m.NotLeader | m.Rejoin)
            lost = link.socket is not None and link.lost()
            if search.tend(stands_by=refused, lost=lost):
                link.open(time.monotonic())
            self._sleep(search.left_s())

    def _greeting(self) -> Iterator[tuple[m.Message, int]]:
        for payload in self._link.receive():
            for message in payload.messages:
                self._check_refused(message)
                yield message, payload.epoch

    def _welcomed(self, message: m.Welcome, epoch: int) -> None:
        refusal = versions.unfit(message, 0, 0)
        if refusal is not None:
            raise HeadConnectionError(refusal.text, code=refusal.code)
        self._epoch = epoch
        self._link.heads.welcomed(message.heads, epoch)
        self._link.welcomed(message.minor)

    def _check_refused(self, message: m.Message) -> None:
        if isinstance(message, m.Refused):
            text = f"the head at {self.address} refused to answer: {message.text}"
            raise HeadConnectionError(text, code=message.code)
        if isinstance(message, m.Rejected):
            if message.code == StateQueryError.code:
                raise StateQueryError(message.text)
            text = f"the head at {self.address} did not accept it: {message.text}"
            raise HeadConnectionError(text, code=message.code)

    def _receive(self, kind: type[Answer], timeout_s: float) -> Answer:
        deadline = time.monotonic() + timeout_s
        joiner = Joiner()
        while True:
            for payload in self._link.receive():
                for message in payload.messages:
                    self._check_refused(message)
                    self._check_goes_on(message)
                    whole = joiner.take(message)
                    if isinstance(whole, kind) and getattr(whole, "about", 0) == self._asked:
                        self._epoch = payload.epoch
                        return whole
            self._check_link()
            self._wait(deadline, timeout_s)

    def _check_goes_on(self, message: m.Message) -> None:
        gone = isinstance(message, m.SteppingDown) and not message.about
        if gone or isinstance(message, m.NotLeader):
            raise HeadConnectionError(f"the head at {self.address} leads no more; try again")
        if isinstance(message, m.Rejoin):
            raise HeadConnectionError(f"the head at {self.address} has just restarted; try again")

    def _check_link(self) -> None:
        if self._link.lost():
            raise self._link.error or HeadConnectionError(
                f"the head at {self.address} closed the connection; it is stopping, or see its log"
            )

    def _again(self, questions: Sequence[m.Message], error: HeadConnectionError) -> bool:
        """Whether these questions are to be asked anew, as another head may lead by now.

        Raises:
            HeadConnectionError: none does.
        """
        is_lost = type(error) is HeadConnectionError and error.code == HeadConnectionError.code
        if not is_lost or not self._link.heads.others():
            return False
        if not all(isinstance(one, READS) for one in questions):
            return False
        self._join()
        return True

    def _wait(self, deadline: float, timeout_s: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise HeadSilentError(
                f"the head at {self.address} is connected but did not answer within "
                f"{timeout_s:g} s: it is stopped, or overloaded; see its log"
            )
        self._sleep(left)

    def _sleep(self, seconds: float) -> None:
        socket, monitor = self._link.socket, self._link.monitor
        poller = zmq.Poller()
        if socket is not None and monitor is not None:
            poller.register(socket, zmq.POLLIN)
            poller.register(monitor.socket, zmq.POLLIN)
        poller.poll(int(seconds * 1000) + 1)
