"""Server-sent events: how one is written, and the answer that tells them as long as somebody reads.

A viewer is sent what there is when it has taken what was sent before, so one that is slow, or has
stopped, costs what the system keeps for its connection and no more.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from typing import Any

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from zray.dashboard.service import Places, Service
from zray.errors import BusyError

RETRY_MS = 2000  # after which a browser connects again
QUIET_S = 15.0  # then a comment goes out, which tells whether anybody is there
BYE = {"text": "the dashboard ends here; connect again"}


def to_json(data: dict[str, Any]) -> bytes:
    """In one line, whatever there is in it."""
    return json.dumps(data, ensure_ascii=True, separators=(",", ":")).encode()


def server_event(
    name: str, data: dict[str, Any] | bytes, more: dict[str, Any] | None = None
) -> bytes:
    """One event. ``data``: an object, or one that is JSON by now, with ``more`` fields."""
    text = data if isinstance(data, bytes) else to_json(data)
    if more is not None:
        text = b"%s%s%s" % (text[:-1], b"," if len(text) > 2 else b"", to_json(more)[1:])
    return b"event: %s\ndata: %s\n\n" % (name.encode(), text)


class EventStream(StreamingResponse):
    """The answer. ``events``: empty bytes are no event, but a moment at which to look around."""

    def __init__(
        self, service: Service, events: AsyncGenerator[bytes, None], places: Places
    ) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        self._events = _told(service, events)
        self._service = service
        self._places = places
        super().__init__(self._events, 200, headers, "text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell them.

        Raises:
            BusyError: there are as many viewers as there may be.
        """
        if scope["method"] == "HEAD":
            await Response(None, 200, self.headers)(scope, receive, send)
            return
        places = self._places
        if places.taken >= places.most:
            raise BusyError("as many look on as may; close another page, or log, first")
        places.taken += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            places.taken -= 1
            self._service.used_s = time.monotonic()
            await self._events.aclose()


async def _told(
    service: Service, events: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    yield f"retry: {RETRY_MS}\n\n".encode()
    said_s = time.monotonic()
    ending = asyncio.create_task(service.ending.wait())
    coming: asyncio.Future[bytes] | None = None
    try:
        while True:
            coming = asyncio.ensure_future(anext(events))
            await asyncio.wait((coming, ending), return_when=asyncio.FIRST_COMPLETED)
            if service.ending.is_set():
                yield server_event("bye", BYE)
                return
            try:
                data = coming.result()
            except StopAsyncIteration:
                return
            if not data and time.monotonic() - said_s < QUIET_S:
                continue
            said_s = time.monotonic()
            yield data or b":\n\n"
    finally:
        ending.cancel()
        if coming is not None and not coming.done():
            coming.cancel()
            await asyncio.wait((coming,))
        await events.aclose()
