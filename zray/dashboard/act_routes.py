"""Routes that change something: end a task, an actor or a worker; empty a node."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from zray.dashboard import parameters
from zray.dashboard.problems import bad_request, json_response
from zray.dashboard.service import Service
from zray.nodes.driver.operator import Operator
from zray.protocol import messages as m

DEADLINE_S_MAX = 30 * 86400
REASON_CHARS_MAX = 500


class ActRoutes:
    """Of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """In the order in which they are tried."""
        return [
            Route("/api/v1/kill", self.kill, methods=["POST"]),
            Route("/api/v1/drain", self.drain, methods=["POST"]),
        ]

    async def kill(self, request: Request) -> Response:
        """End a task with force, an actor for good, or a worker's process."""
        parameters.known(request)
        found = await parameters.body(request, subject=str)
        subject = parameters.subject(found.get("subject", ""))
        return json_response(await self._service.ask(partial(_kill, subject)))

    async def drain(self, request: Request) -> Response:
        """Have a node take no more work, and leave."""
        parameters.known(request)
        found = await parameters.body(request, node=str, deadline_s=(int, float), reason=str)
        node = parameters.subject(found.get("node", ""))
        deadline_s = found.get("deadline_s", 0.0)  # a whole number may be too large for a float
        if not 0 <= deadline_s <= DEADLINE_S_MAX:
            raise bad_request(f"deadline_s must be from 0 to {DEADLINE_S_MAX}")
        reason = parameters.sendable(found.get("reason", ""), "the reason")
        if len(reason) > REASON_CHARS_MAX:
            raise bad_request(f"the reason has at most {REASON_CHARS_MAX} characters")
        asked = partial(_drain, node, float(deadline_s), reason)
        return json_response(await self._service.ask(asked))


# ---- in threads ----------------------------------------------------------------------------


def _kill(subject: str, operator: Operator) -> dict[str, Any]:
    place = operator.victim(subject)
    answer = operator.kill(place)
    return {"subject": place.described(), "killed": not answer.text, "remark": answer.text}


def _drain(node: str, deadline_s: float, reason: str, operator: Operator) -> dict[str, Any]:
    place = operator.locate(node, m.A_NODE)
    answer = operator.drain(place, reason, deadline_s)
    return {"subject": place.described(), "remark": answer.text}
