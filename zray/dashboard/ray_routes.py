"""Ray's own routes, in its shapes: ``/api/version`` and the state API ``/api/v0``. Reads only."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from zray import limits
from zray._version import RAY_VERSION
from zray.dashboard import parameters
from zray.dashboard.look_routes import log_files
from zray.dashboard.problems import Problem, bad_request, json_response, problem_of
from zray.dashboard.service import Service
from zray.nodes.driver.operator import Operator
from zray.protocol import messages as m
from zray.util.state.api import StateList, listed
from zray.util.state.environments import RuntimeEnvState, gather, passing
from zray.util.state.records import summary_of

VERSION = "4"  # of the HTTP interface, as Ray counts it
ROWS_MAX = 10_000
PATHS = {kind: kind for kind in ("tasks", "actors", "objects", "nodes", "workers", "jobs")}
PATHS |= {"cluster_events": "events", "placement_groups": "placement_groups"}
ASKED = (
    *("limit", "timeout", "detail", "exclude_driver"),
    *("filter_keys", "filter_predicates", "filter_values"),
)


class RayRoutes:
    """Of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """In the order in which they are tried."""
        return [
            Route("/api/version", self.version),
            Route("/api/v0/logs", self.logs),
            Route("/api/v0/{kind}/summarize", self.summarize),
            Route("/api/v0/{kind}", self.many),
        ]

    async def version(self, request: Request) -> Response:
        """What Ray's clients look at first."""
        found = {"version": VERSION, "ray_version": RAY_VERSION, "ray_commit": "zray"}
        session = f"session_{self._service.info.cluster_id}"
        return json_response({**found, "session_name": session})

    async def many(self, request: Request) -> Response:
        """Things of a kind."""
        try:
            return _told(await self._many(request))
        except Exception as error:
            return _failed(problem_of(error))

    async def _many(self, request: Request) -> dict[str, Any]:
        kind: str = request.path_params["kind"]
        parameters.known(request, *ASKED)
        limit = parameters.number(request, "limit", 100, 0, ROWS_MAX)
        detail = parameters.flag(request, "detail", False)
        filters = _filters(request)
        if kind == "runtime_envs":
            there = passing(await self._service.look(_environments), filters)
            rows = [one.asdict() for one in there[:limit]]
            return _result(rows, len(there), len(there) > limit)
        if kind not in PATHS:
            raise bad_request(f"there is no {kind[:64]!r}", 404)
        if kind == "workers" and parameters.flag(request, "exclude_driver", False):
            filters.append(("worker_type", "!=", "DRIVER"))
        found = await self._service.ask(partial(_listed, PATHS[kind], filters, limit, detail))
        return _result([one.asdict() for one in found], found.total, found.truncated)

    async def summarize(self, request: Request) -> Response:
        """How many there are."""
        kind: str = request.path_params["kind"]
        try:
            parameters.known(request, *ASKED)
            if kind not in ("tasks", "actors", "objects"):
                raise bad_request(f"there is no summary of {kind[:64]!r}", 404)
            number = m.KINDS[kind]
            summary = await self._service.ask(lambda operator: operator.summary(number))
        except Exception as error:
            return _failed(problem_of(error))
        found = {"node_id_to_summary": summary_of(summary)}
        return _told({**_result([], 0, False), "result": found})

    async def logs(self, request: Request) -> Response:
        """The names of a node's logs."""
        try:
            parameters.known(request, "node_id", "node_ip", "glob", "timeout")
            node = request.query_params.get("node_id")
            wanted = parameters.subject(node) if node is not None else None
            found = await self._service.ask(partial(log_files, wanted))
        except Exception as error:
            return _failed(problem_of(error))
        return _told({"worker_out": [one["name"] for one in found["items"]]})


def _filters(request: Request) -> list[tuple[str, str, str]]:
    given = request.query_params
    keys = given.getlist("filter_keys")
    predicates, values = given.getlist("filter_predicates"), given.getlist("filter_values")
    if not len(keys) == len(predicates) == len(values) <= limits.FILTERS_MAX:
        raise bad_request("filter_keys, filter_predicates and filter_values do not go together")
    return [*zip(keys, predicates, values, strict=True)]


def _listed(
    kind: str, filters: list[tuple[str, str, str]], limit: int, detail: bool, operator: Operator
) -> StateList:
    return listed(operator, kind, filters, limit, limits.QUESTION_S, detail)


def _environments(operator: Operator) -> list[RuntimeEnvState]:
    return gather(operator).environments


def _result(rows: list[dict[str, Any]], total: int, truncated: bool) -> dict[str, Any]:
    return {
        "total": total,
        "num_after_truncation": len(rows),
        "num_filtered": len(rows),
        "result": rows,
        "partial_failure_warning": "",
        "warnings": ["there are more than were asked for"] if truncated else None,
    }


def _told(found: dict[str, Any]) -> Response:
    return json_response({"result": True, "msg": "", "data": {"result": found}})


def _failed(problem: Problem) -> Response:
    text = f"{problem.code} {problem.message}"
    content = {"result": False, "msg": text, "data": {"result": None}}
    return json_response(content, problem.status, problem.headers)
