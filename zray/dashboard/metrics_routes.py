"""Routes for Prometheus."""

from __future__ import annotations

from starlette.routing import Route

from zray.dashboard.service import Service


def routes(service: Service) -> list[Route]:
    """In the order in which they are tried."""
    return []
