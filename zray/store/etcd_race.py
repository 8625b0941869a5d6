"""Questions to the members of one etcd for which there is little time: more than one is asked.

A member that sleeps or is cut off answers nothing; one that is not etcd's leader may pass a renewal
on to a leader that sleeps, and hang for seconds though there is a new one. So whoever has not
answered soon is not waited for: the next is asked as well, and the first answer counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any, Final, TypeVar

from zray.store.etcd_address import EtcdAddress
from zray.store.etcd_wire import (
    EtcdError,
    NoSpace,
    Unavailable,
    accepted,
    encoded,
    is_about_token,
)

if TYPE_CHECKING:
    import ssl

_HEDGE_S: Final = 0.3  # until the next is asked, too; an answer takes a few milliseconds
_COPIES_MAX: Final = 8  # of one question that are under way
_PAUSE_S: Final = 0.05  # after all members have refused a connection
_PAUSE_MAX_S: Final = 0.5
_LEFT_S: Final = 10.0  # for an answer that nobody waits for any more
_LEFT_MAX: Final = 32  # of these; a connection that is given up while it begins may stay open

T = TypeVar("T")
Post = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
"""One request to one member: method and fields to the answer's fields."""


class Race:
    """Used in one event loop, which has no other connections, and closed in it.

    Args:
        verify: of ``etcd_gateway.verification``.
    """

    def __init__(self, address: EtcdAddress, verify: ssl.SSLContext | bool) -> None:
        import httpx

        self._address = address
        self._client = httpx.AsyncClient(verify=verify, trust_env=False)
        self._tokens: dict[str, str] = {}  # of each member its own
        self._first = 0  # who has answered last is asked first
        self._left: dict[asyncio.Task[Any], None] = {}  # copies that nobody waits for

    async def close(self) -> None:
        if self._left:
            await asyncio.wait(self._left, timeout=_HEDGE_S)
        left = [*self._left]
        for copy in left:
            copy.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._client.aclose()
        # httpx forgets connections whose beginning was given up, such as in the midst of TLS's.
        begun: Any = getattr(asyncio.get_running_loop(), "_transports", {})
        for transport in [*begun.values()]:
            transport.abort()
        await asyncio.sleep(0)

    def _leave(self, copy: asyncio.Task[Any]) -> None:
        """Let it end by itself."""
        self._left[copy] = None
        copy.add_done_callback(self._has_ended)
        if len(self._left) > _LEFT_MAX:
            next(iter(self._left)).cancel()

    def _has_ended(self, copy: asyncio.Task[Any]) -> None:
        self._left.pop(copy, None)
        if not copy.cancelled():
            copy.exception()  # nobody else looks

    async def ask(self, doing: Callable[[Post], Awaitable[T]], deadline_s: float) -> T:
        """What ``doing`` returns with the first member that answers all that it asks.

        It is called again for each member, and several times for one that is alone.

        Args:
            deadline_s: of the monotonic clock.

        Raises:
            EtcdError: refused. Unavailable: nobody has answered; what was asked may be done.
        """
        next_s = time.monotonic()
        pause_s, tried = _PAUSE_S, 0
        error = Unavailable("it was not asked")
        copies: dict[asyncio.Task[T], int] = {}
        try:
            while not tried or time.monotonic() < deadline_s:
                now, full = time.monotonic(), len(copies) >= _COPIES_MAX
                if now >= next_s and not full:
                    which = (self._first + tried) % len(self._address.endpoints)
                    copies[asyncio.ensure_future(self._try(which, doing))] = which
                    tried += 1
                    next_s = now + _HEDGE_S
                until_s = deadline_s if full else min(next_s, deadline_s)
                for copy in await _ended(copies, max(0.001, until_s - now)):
                    which = copies.pop(copy)
                    try:
                        found = copy.result()
                    except NoSpace:
                        raise
                    except Unavailable as one:
                        error, next_s = one, time.monotonic()
                        if not copies and tried % len(self._address.endpoints) == 0:
                            next_s += pause_s
                            pause_s = min(2 * pause_s, _PAUSE_MAX_S)
                        continue
                    self._first = which
                    return found
        finally:
            for copy in copies:
                self._leave(copy)
        if copies:
            silent = sorted({self._address.endpoints[which] for which in copies.values()})
            raise Unavailable(f"{','.join(silent)} does not answer")
        raise error

    async def _try(self, which: int, doing: Callable[[Post], Awaitable[T]]) -> T:
        endpoint = self._address.endpoints[which]

        async def post(method: str, fields: dict[str, Any]) -> dict[str, Any]:
            return await self._post(endpoint, method, fields)

        if self._address.user and endpoint not in self._tokens:
            await self._enter(endpoint)
        try:
            return await doing(post)
        except EtcdError as error:
            if not self._address.user or not is_about_token(error):
                raise
        await self._enter(endpoint)
        return await doing(post)

    async def _enter(self, endpoint: str) -> None:
        self._tokens.pop(endpoint, None)
        who = {"name": self._address.user, "password": self._address.password}
        found = await self._post(endpoint, "auth/authenticate", who)
        self._tokens[endpoint] = found.get("token", "")

    async def _post(self, endpoint: str, method: str, fields: dict[str, Any]) -> dict[str, Any]:
        import httpx

        url, headers = f"{endpoint}/v3/{method}", self._headers(endpoint)
        try:
            answer = await self._client.post(url, json=fields, headers=headers, timeout=_LEFT_S)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise Unavailable(f"{endpoint} cannot be asked: {reason}") from error
        found: Any = None
        with contextlib.suppress(ValueError):
            found = answer.json()
        return accepted(endpoint, answer.status_code, found)

    def _headers(self, endpoint: str) -> dict[str, str]:
        token = self._tokens.get(endpoint)
        return {"Authorization": token} if token else {}

    async def changes(self, start: bytes, end: bytes, patience_s: float) -> AsyncIterator[None]:
        """Once a watch on these keys is set up, and with each change after that, of one member.

        Ends after ``patience_s`` without a word, and where the watch was cancelled, as one that
        is far behind a compaction: whoever watches on asks again, and looks when that is set up.

        Raises:
            EtcdError: it cannot be watched.
        """
        import httpx

        endpoint = self._address.endpoints[self._first]
        keys = {"key": encoded(start), "range_end": encoded(end)}
        timeout = httpx.Timeout(patience_s)
        try:
            async with self._client.stream(
                "POST",
                f"{endpoint}/v3/watch",
                json={"create_request": keys},
                headers=self._headers(endpoint),
                timeout=timeout,
            ) as answer:
                async for line in answer.aiter_lines():
                    found = accepted(endpoint, answer.status_code, json.loads(line))
                    if found.get("result", {}).get("canceled"):
                        return
                    yield None
        except httpx.ReadTimeout:
            return
        except (httpx.HTTPError, ValueError) as error:
            raise Unavailable(f"{endpoint} cannot be watched: {error!r}") from error


async def _ended(copies: Collection[asyncio.Task[T]], seconds: float) -> set[asyncio.Task[T]]:
    """Those that end first, if any does in that time."""
    if not copies:
        await asyncio.sleep(seconds)
        return set()
    done, _ = await asyncio.wait(copies, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    return done
