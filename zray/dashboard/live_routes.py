"""The route of what changes: the last minutes, then each second what is new, to each viewer."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from zray.dashboard import http_limits, parameters
from zray.dashboard.events import EventStream, server_event
from zray.dashboard.sampler import Sampler
from zray.dashboard.service import Service

WAIT_S = 5.0  # for a sample, before it is looked whether the viewer is there


class LiveRoutes:
    """Of one service."""

    def __init__(self, service: Service, sampler: Sampler) -> None:
        self._service = service
        self._sampler = sampler

    def routes(self) -> list[Route]:
        """In the order in which they are tried."""
        return [Route("/api/v1/stream", self.stream)]

    async def stream(self, request: Request) -> Response:
        """What a page shows, as it changes."""
        parameters.known(request)
        return EventStream(self._service, self._samples(), self._service.viewers)

    async def _samples(self) -> AsyncGenerator[bytes, None]:
        sampler = self._sampler
        number, event_number = sampler.number, 0
        sampler.wake()
        history = {"interval_s": http_limits.LIVE_S, "samples": [*sampler.history]}
        yield server_event("history", history)
        while True:
            if not await sampler.after(number, WAIT_S):
                yield b""
                continue
            told = sampler.overview(number, event_number)
            number, event_number = sampler.number, sampler.event_number
            yield told
