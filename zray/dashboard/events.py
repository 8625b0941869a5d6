"""Server-sent events: how one is written, and the answer that tells them as long as somebody reads.

A viewer is sent what there is when it has taken what was sent before, so one that is slow, or has
stopped, costs what the system keeps for its connection and no more.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import StreamingResponse

from zray.dashboard.service import Service

RETRY_MS = 2000  # after which a browser connects again
QUIET_S = 15.0  # then a comment goes out, which tells whether anybody is there
BYE = {"text": "the dashboard ends here; connect again"}


def server_event(name: str, data: Any) -> bytes:
    """One event; its data is JSON, in one line."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return f"event: {name}\ndata: {text}\n\n".encode()


def event_stream(service: Service, events: AsyncIterator[bytes]) -> StreamingResponse:
    """The answer. ``events``: empty bytes are no event, but a moment at which to look around."""
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_told(service, events), 200, headers, "text/event-stream")


async def _told(service: Service, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
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
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()
