"""Routes of the cluster's state: what there is, page by page, and why it is so. Reads only."""

from __future__ import annotations

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from zray import limits
from zray._version import __version__
from zray.core import causes
from zray.dashboard import parameters
from zray.dashboard.problems import json_response, problem_of
from zray.dashboard.service import Service
from zray.errors import NotFoundError
from zray.protocol import messages as m
from zray.util.state.cluster import describe
from zray.util.state.kinds import RECORDS
from zray.util.state.records import summary_of

SUMMARIES = ("tasks", "actors", "objects")
PAGE_ROWS = 100


class StateRoutes:
    """Of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """In the order in which they are tried."""
        return [
            Route("/api/v1/session", self.session),
            Route("/api/v1/cluster", self.cluster),
            Route("/api/v1/why/{subject}", self.why),
            Route("/api/v1/{kind}/summary", self.summary),
            Route("/api/v1/{kind}/{id}", self.one),
            Route("/api/v1/{kind}", self.many),
        ]

    async def session(self, request: Request) -> Response:
        """What a page has to know of its login."""
        parameters.known(request)
        stamp = request.scope["zray.session"]
        found: dict[str, Any] = {
            "csrf": "",
            "expires_s": None,
            "version": __version__,
            "cluster": self._service.info.name,
            "cluster_id": self._service.info.cluster_id,
            "now_s": time.time(),
        }
        if stamp is not None:
            found["csrf"] = self._service.keys.csrf(stamp)
            found["expires_s"] = stamp.time_s + limits.LOGIN_S
        return json_response(found)

    async def cluster(self, request: Request) -> Response:
        """What ``zray status --json`` tells."""
        parameters.known(request)
        service = self._service
        status = await service.ask(lambda operator: operator.status())
        return json_response(describe(status, service.info, service.address))

    async def many(self, request: Request) -> Response:
        """A page of things of a kind."""
        kind = _kind(request)
        parameters.known(request, "limit", "cursor", "detail", "filter")
        limit = parameters.number(request, "limit", PAGE_ROWS, 1, limits.LISTED_ROWS_MAX)
        detail = parameters.flag(request, "detail", True)
        wanted, cursor = parameters.filters(request), parameters.cursor(request)
        number = m.KINDS[kind]
        page = await self._service.ask(lambda one: one.page(number, wanted, limit, cursor))
        found = {
            "kind": kind,
            "total": page.total,
            "dropped": page.dropped,
            "unlisted": page.unlisted,
            "next": parameters.cursor_text(page.cursor),
        }
        return json_response({**found, "items": _items(kind, page, detail)})

    async def one(self, request: Request) -> Response:
        """What has this id; of a task, each of its attempts."""
        kind = _kind(request)
        parameters.known(request)
        if kind == "events":
            raise NotFoundError("events have no page of their own")
        only = parameters.thing_id(request.path_params["id"])
        number = m.KINDS[kind]
        page = await self._service.ask(lambda operator: operator.page(number, only=only))
        items = _items(kind, page, True)
        if not items:
            raise NotFoundError(f"the head knows nothing of {kind} that has the id {only.hex()}")
        return json_response({"kind": kind, "items": items})

    async def summary(self, request: Request) -> Response:
        """How many there are, by name and state."""
        kind = _kind(request)
        parameters.known(request)
        if kind not in SUMMARIES:
            raise NotFoundError(f"there are summaries of {', '.join(SUMMARIES)} alone")
        number = m.KINDS[kind]
        found = await self._service.ask(lambda operator: operator.summary(number))
        return json_response({"kind": kind, "summary": summary_of(found)["cluster"]})

    async def why(self, request: Request) -> Response:
        """Why something waits, failed, or is as it is."""
        parameters.known(request)
        subject = parameters.subject(request.path_params["subject"])
        (answer,) = await self._service.ask(lambda operator: operator.why([subject]))
        found = causes.described(answer)
        if answer.causes[0].code == causes.UNKNOWN:
            problem = problem_of(NotFoundError(answer.causes[0].text))
            return json_response({"error": problem.described(), "why": found}, 404)
        return json_response(found)


def _kind(request: Request) -> str:
    kind: str = request.path_params["kind"]
    if kind not in RECORDS:
        raise NotFoundError(f"there is no {kind[:64]!r}; there are {', '.join(RECORDS)}")
    return kind


def _items(kind: str, page: m.Listed, detail: bool) -> list[dict[str, Any]]:
    record = RECORDS[kind]
    found = []
    for row in getattr(page, kind):
        one = record.of(row)
        names = record.columns(detail=detail)
        found.append({name: getattr(one, name) for name in names})
    return found
