"""The application: which route goes to which part, and what is served as a file."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.staticfiles import StaticFiles

from zray.dashboard import http_limits, metrics_routes, openapi, parameters
from zray.dashboard.act_routes import ActRoutes
from zray.dashboard.job_routes import JobRoutes
from zray.dashboard.live_routes import LiveRoutes
from zray.dashboard.look_routes import LookRoutes
from zray.dashboard.problems import json_response
from zray.dashboard.ray_routes import RayRoutes
from zray.dashboard.sampler import Sampler
from zray.dashboard.service import Service
from zray.dashboard.state_routes import StateRoutes
from zray.dashboard.usage_routes import UsageRoutes
from zray.util.state.cluster import health_of

STATIC = Path(__file__).parent / "static"
DOWN = "DOWN"
FRESH = {"cache-control": "no-cache"}  # it is asked whether it has changed


class Files(StaticFiles):
    """Those of the page."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        """With what browsers have to know of it."""
        response: Response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers.update(FRESH)
        return response


class Health:
    """One word, for whoever watches over it: anybody may ask, so the head is asked now and then."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = asyncio.Lock()
        self._word = ""
        self._asked_s = 0.0

    async def tell(self, request: Request) -> Response:
        """The answer."""
        async with self._lock:
            if not self._word or time.monotonic() - self._asked_s >= http_limits.LIVE_S:
                self._word = await self._ask()
                self._asked_s = time.monotonic()
        status = 503 if self._word == DOWN else 200
        return PlainTextResponse(self._word, status, {"cache-control": "no-store"})

    async def _ask(self) -> str:
        try:
            status = await self._service.check(lambda operator: operator.status())
        except Exception:
            return DOWN
        if health_of(status) != "OK":
            return "DEGRADED"
        return "STANDBY" if self._service.stands_by(status) else "OK"


def application(service: Service, sampler: Sampler) -> Router:
    """Of one process. What its routes raise, whoever is around it answers."""

    async def index(request: Request) -> Response:
        return FileResponse(STATIC / "index.html", headers=FRESH)

    async def document(request: Request) -> Response:
        parameters.known(request)
        return json_response(openapi.document())

    routes: list[BaseRoute] = [
        Route("/", index),
        Route("/healthz", Health(service).tell),
        Route("/api/v1/openapi.json", document),
        Mount("/static", Files(directory=STATIC, follow_symlink=False)),
        *metrics_routes.routes(service),
        *LiveRoutes(service, sampler).routes(),
        *LookRoutes(service).routes(),
        *UsageRoutes(service).routes(),
        *ActRoutes(service).routes(),
        *JobRoutes(service).routes(),
        *RayRoutes(service).routes(),
        *StateRoutes(service).routes(),
    ]
    return Router(routes, redirect_slashes=False)
