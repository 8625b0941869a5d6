"""Routes for Prometheus: figures of the cluster and of each node, and where these are scraped.

Nothing is kept between two scrapes. A node has a path of its own, so that one that does not answer
fails its own scrape alone, and Prometheus spreads the work of many over its interval.
"""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from zray.dashboard import parameters
from zray.dashboard.problems import json_response
from zray.dashboard.service import Service
from zray.metrics.exposition import exposed
from zray.nodes.driver.operator import Operator
from zray.protocol import messages as m
from zray.protocol.words import is_id

TARGETS = "/api/v1/prometheus/targets"
RAY_TARGETS = "/api/prometheus/sd"  # as Ray has it
NODES = "/metrics/nodes"


def routes(service: Service) -> list[Route]:
    """In the order in which they are tried."""
    mine = MetricsRoutes(service)
    return [
        Route("/metrics", mine.cluster),
        Route(f"{NODES}/{{node}}", mine.node),
        Route(TARGETS, mine.targets),
        Route(RAY_TARGETS, mine.targets),
    ]


class MetricsRoutes:
    """Of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def cluster(self, request: Request) -> Response:
        """The head and the cluster as it sees it, and what drivers record."""
        accept = request.headers.get("accept", "")
        return _response(await self._service.ask(partial(_scraped, "", accept)))

    async def node(self, request: Request) -> Response:
        """One node, and what tasks and actors record there."""
        node = parameters.subject(request.path_params["node"])
        accept = request.headers.get("accept", "")
        return _response(await self._service.ask(partial(_scraped, node, accept)))

    async def targets(self, request: Request) -> Response:
        """All nodes, as Prometheus discovers what to scrape (HTTP service discovery)."""
        parameters.known(request)
        status = await self._service.ask(lambda operator: operator.status())
        address = request.headers["host"]
        found = [
            {
                "targets": [address],
                "labels": {
                    "__metrics_path__": f"{NODES}/{node.node_id.hex()}",
                    "instance": node.info.name,
                    "cluster": self._service.info.name,
                },
            }
            for node in status.nodes
            if node.state != "JOINING"
        ]
        return json_response(found)


def _scraped(node: str, accept: str, operator: Operator) -> tuple[bytes, str]:
    node_id = bytes.fromhex(node) if is_id(node) else b""
    if node and not node_id:
        node_id = operator.locate(node, m.A_NODE).node_id
    return exposed([operator.scrape(node_id)], accept)


def _response(found: tuple[bytes, str]) -> Response:
    text, content_type = found
    return Response(text, headers={"content-type": content_type, "cache-control": "no-store"})
