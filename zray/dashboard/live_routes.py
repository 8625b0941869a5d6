"""The route of what changes: the last minutes, then each second what is new, to each viewer."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from zray import limits
from zray.dashboard import parameters
from zray.dashboard.events import event_stream, server_event
from zray.dashboard.sampler import Sampler
from zray.dashboard.service import Service
from zray.errors import BusyError

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
        if self._service.streams >= limits.HTTP_STREAMS_MAX:
            raise BusyError("as many viewers look on as may; close another page first")
        return event_stream(self._service, self._samples())

    async def _samples(self) -> AsyncIterator[bytes]:
        sampler = self._sampler
        number, event_number = sampler.number, 0
        sampler.begin()
        try:
            history = {"interval_s": limits.LIVE_S, "samples": [*sampler.history]}
            yield server_event("history", history)
            while True:
                if not await sampler.after(number, WAIT_S):
                    yield b""
                    continue
                told = sampler.overview(number, event_number)
                number, event_number = sampler.number, sampler.event_number
                yield server_event("overview", told)
        finally:
            sampler.end()
