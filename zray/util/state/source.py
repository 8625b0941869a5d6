"""Where the state API asks: by this process's own connection, or by a short one as an observer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from zray.errors import HeadSilentError, StateQueryError, ZrayError
from zray.nodes import contact
from zray.nodes.driver.observer import Observer
from zray.protocol import messages as m
from zray.runtime import session

Answer = TypeVar("Answer", bound=m.Message)


class Source(Protocol):
    """Whoever can ask the head."""

    def ask(self, query: m.Message, kind: type[Answer], timeout_s: float) -> Answer:
        """Its answer, which is a ``kind``."""


class Connected:
    """The participant of this process."""

    def __init__(self, participant: Any) -> None:
        self._participant = participant

    def ask(self, query: m.Message, kind: type[Answer], timeout_s: float) -> Answer:
        """As ``Observer.ask``."""

        def numbered(number: int) -> m.Message:
            query.seq = number
            return query

        try:
            answer = self._participant.ask(numbered, timeout_s)
        except ZrayError as error:
            if error.code == StateQueryError.code:
                raise StateQueryError(error.args[0]) from None
            raise
        if not isinstance(answer, kind):
            raise HeadSilentError(f"the head did not answer within {timeout_s:g} s; see its log")
        return answer


@contextmanager
def source(address: str | None) -> Iterator[Source]:
    """The head at an address; None: that of this process, or else of this machine.

    Raises:
        HeadConnectionError and its kinds: why it cannot be used. ValueError: a malformed address.
    """
    connected = session.current()
    if address in (None, "", "auto") and connected is not None:
        yield Connected(connected)
        return
    if address in (None, "", "auto"):
        info, target = contact.running()
    else:
        info, target = contact.reach(str(address).partition("://")[2] or str(address))
    with Observer(info, target) as observer:
        yield observer


def filters_of(given: Sequence[tuple[str, str, Any]] | None) -> list[m.Filter]:
    """Filters as users write them.

    Raises:
        StateQueryError: a predicate that there is not, or something else than three things.
    """
    found = []
    for one in given or ():
        if len(one) != 3:
            raise StateQueryError(f"a filter is (key, predicate, value), not {one!r}")
        key, predicate, value = one
        if predicate not in ("=", "!="):
            raise StateQueryError(
                f"unsupported filter predicate {predicate!r}; the predicates are: =, !="
            )
        found.append(m.Filter(str(key)[:256], str(value)[:256], predicate == "!="))
    return found
