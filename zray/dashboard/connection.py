"""One viewer's connection: uvicorn's, with the bounds that this lacks on time and number."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from zray.dashboard import http_limits


class Connection(H11Protocol):
    """A header has to come in time, and of too many connections the one idle for longest goes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody has connected."""
        self._late: asyncio.TimerHandle | None = None
        self.quiet_s = time.monotonic()  # since when it has no request
        self.app_state = {**self.app_state, "abort": transport.abort}
        if len(self.connections) >= http_limits.CONNECTIONS_MAX and not self._make_room():
            transport.abort()
        super().connection_made(transport)
        self._await_request()

    def _make_room(self) -> bool:
        """End another one, which has no request now; whether there is one."""
        idle = [one for one in self.connections if isinstance(one, Connection) and not one.busy]
        if not idle:
            return False
        oldest = min(idle, key=lambda one: one.quiet_s)
        self.connections.discard(oldest)
        oldest.transport.abort()
        return True

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        cycle: Any = self.cycle  # None before the first
        return cycle is not None and not cycle.response_complete

    def data_received(self, data: bytes) -> None:
        """Something has come."""
        super().data_received(data)
        if self.busy:
            self._forget()
        elif self._late is None and not self.transport.is_closing():
            self._await_request()  # a header has begun

    def on_response_complete(self) -> None:
        """The answer is sent; what has come meanwhile may be the next request."""
        self.quiet_s = time.monotonic()
        super().on_response_complete()
        begun = not self.busy and bool(self.conn.trailing_data[0])
        if begun and self._late is None and not self.transport.is_closing():
            self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended."""
        self._forget()
        super().connection_lost(exc)

    def _await_request(self) -> None:
        self._late = self.loop.call_later(http_limits.HEADER_S, self._too_late)

    def _too_late(self) -> None:
        self._late = None
        if not self.busy:
            self.transport.abort()

    def _forget(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def options() -> dict[str, Any]:
    """Of uvicorn, which only speaks HTTP here: no websockets, no log, no word of itself."""
    return {
        "http": Connection,
        "ws": "none",
        "loop": "asyncio",
        "lifespan": "off",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": int(http_limits.IDLE_S),
        "timeout_graceful_shutdown": 1,
        "h11_max_incomplete_event_size": http_limits.HEADER_BYTES_MAX,
        "backlog": 128,
    }
