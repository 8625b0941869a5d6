"""Routes that look into processes and nodes: logs, stacks, flame graphs, what has run when."""

from __future__ import annotations

import codecs
import json
from functools import partial
from operator import itemgetter
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from zray.dashboard import parameters
from zray.dashboard.events import EventStream, server_event
from zray.dashboard.followed import followed
from zray.dashboard.problems import json_response
from zray.dashboard.service import Service
from zray.nodes.driver import log_reader
from zray.nodes.driver.log_reader import LogReader
from zray.nodes.driver.operator import Operator, Place
from zray.nodes.driver.trace_events import event
from zray.protocol import messages as m

TAIL_LINES = 500
TAIL_LINES_MAX = 10_000
FOLLOW_LINES = 200
PLACE_MAX = 2**53 - 1  # as a message's Count
SECONDS = 5
SECONDS_MAX = 60
TRACED_NODES = 8  # that are asked together
TRACED_MAX = 50_000  # of a timeline: the latest
# Its script zooms; in an origin of its own it can reach nothing of this page.
GRAPH_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "sandbox allow-scripts; frame-ancestors 'self'"
)


class LookRoutes:
    """Of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """In the order in which they are tried."""
        return [
            Route("/api/v1/logs", self.logs),
            Route("/api/v1/logs/{subject}", self.log),
            Route("/api/v1/logs/{subject}/follow", self.follow),
            Route("/api/v1/stack/{subject}", self.stack),
            Route("/api/v1/profile/{subject}", self.profile),
            Route("/api/v1/timeline", self.timeline),
        ]

    # ---- logs ------------------------------------------------------------------------------

    async def logs(self, request: Request) -> Response:
        """Which logs there are."""
        parameters.known(request, "node")
        node = request.query_params.get("node")
        wanted = parameters.subject(node) if node is not None else None
        return json_response(await self._service.ask(partial(log_files, wanted)))

    async def log(self, request: Request) -> Response:
        """The end of a log, or what follows an offset."""
        parameters.known(request, "tail", "offset", "file_id")
        subject = parameters.subject(request.path_params["subject"])
        tail = parameters.number(request, "tail", TAIL_LINES, 0, TAIL_LINES_MAX)
        offset = parameters.number(request, "offset", -1, 0, PLACE_MAX)
        file_id = parameters.number(request, "file_id", 0, 0, PLACE_MAX)
        where = (subject, tail, offset, file_id)
        return json_response(await self._service.ask(partial(_log_part, *where)))

    async def follow(self, request: Request) -> Response:
        """A log as it grows."""
        parameters.known(request, "tail")
        subject = parameters.subject(request.path_params["subject"])
        tail = parameters.number(request, "tail", FOLLOW_LINES, 0, TAIL_LINES_MAX)
        reading = await self._service.ask(partial(_begin_reading, subject, tail))
        first = server_event("subject", reading.place.described())
        events = followed(self._service, reading, first)
        return EventStream(self._service, events, self._service.followers)

    # ---- looks -----------------------------------------------------------------------------

    async def stack(self, request: Request) -> Response:
        """Where the threads of a process are now."""
        parameters.known(request)
        subject = parameters.subject(request.path_params["subject"])
        place, found = await self._service.look(partial(_examine, subject, 0.0))
        text = found.data.decode("utf-8", "replace")
        return json_response({"subject": place.described(), "stack": text, "remark": found.text})

    async def profile(self, request: Request) -> Response:
        """Where a process spends its time, as a flame graph."""
        parameters.known(request, "seconds")
        subject = parameters.subject(request.path_params["subject"])
        seconds = parameters.number(request, "seconds", SECONDS, 1, SECONDS_MAX)
        _, found = await self._service.look(partial(_examine, subject, float(seconds)))
        headers = {
            "content-security-policy": GRAPH_POLICY,
            "x-frame-options": "SAMEORIGIN",
            "cache-control": "no-store",
        }
        return Response(found.data, 200, headers, "image/svg+xml")

    async def timeline(self, request: Request) -> Response:
        """What has run lately on all nodes, for a viewer of traces."""
        parameters.known(request)
        text = await self._service.look(_timeline)
        return Response(text, 200, {"cache-control": "no-store"}, "application/json")


# ---- in threads ----------------------------------------------------------------------------


def log_files(wanted: str | None, operator: Operator) -> dict[str, Any]:
    nodes = operator.nodes()
    if wanted is not None:
        place = operator.locate(wanted, m.A_NODE)
        nodes = [node for node in nodes if node.node_id == place.node_id]
    told = operator.log_files([node.node_id for node in nodes])
    items, silent, left_out = [], [], 0
    for node, found in zip(nodes, told, strict=True):
        if found is None:
            silent.append(node.info.name)
            continue
        left_out += found.left_out
        where = {"node": node.info.name, "node_id": node.node_id.hex()}
        items += [{**where, **_log_file(one)} for one in found.files]
    return {"items": items, "silent": silent, "left_out": left_out}


def _log_file(one: m.LogFile) -> dict[str, Any]:
    return {
        "name": one.name,
        "file_id": one.file_id,
        "worker_id": one.worker_id.hex(),
        "pid": one.pid,
        "job_id": one.job_id.hex(),
        "title": one.title,
        "size": one.size,
        "modified": one.modified_s,
        "alive": one.alive,
    }


def _log_part(
    subject: str, tail: int, offset: int, file_id: int, operator: Operator
) -> dict[str, Any]:
    place = operator.locate(subject)
    reader = log_reader.read(operator, place)
    if offset >= 0:
        reader.offset = offset
        reader.file_id = file_id or reader.file_id
    elif tail:
        reader.seek_tail(tail)
    data = reader.next()
    return {
        "subject": place.described(),
        "name": reader.file.name,
        "text": data.decode("utf-8", "replace"),
        "offset": reader.offset,
        "file_id": reader.file_id,
        "remark": reader.remark,
        "missed": reader.missed,
        "eof": not data,
    }


class _Reading:
    """A log that is followed."""

    last = b""  # it may always grow

    def __init__(self, place: Place, reader: LogReader) -> None:
        self.place = place
        self._reader = reader
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def next(self, operator: Operator) -> list[bytes]:
        """As of ``followed.Reading``."""
        reader = self._reader
        reader.operator = operator
        text = self._decoder.decode(reader.next())
        events = [server_event("remark", {"text": remark}) for remark in reader.remarks()]
        return [*events, server_event("text", {"text": text})] if text else events


def _begin_reading(subject: str, tail: int, operator: Operator) -> _Reading:
    place = operator.locate(subject)
    reader = log_reader.read(operator, place)
    if tail:
        reader.seek_tail(tail)
    return _Reading(place, reader)


def _examine(subject: str, seconds: float, operator: Operator) -> tuple[Place, m.Examined]:
    place = operator.locate(subject, running=True)
    return place, operator.examine(place, seconds)


def _timeline(operator: Operator) -> bytes:
    nodes = operator.nodes()
    spans: list[tuple[float, str, bytes, m.Span]] = []
    silent, left_out = [], 0
    for low in range(0, len(nodes), TRACED_NODES):
        some = nodes[low : low + TRACED_NODES]
        told = operator.traces([one.node_id for one in some])
        for node, found in zip(some, told, strict=True):
            if found is None:
                silent.append(node.info.name)
            place = f"{node.info.name} ({node.info.host})"
            for one in found.workers if found is not None else ():
                spans += [(span.began_s, place, one.worker_id, span) for span in one.spans]
        spans.sort(key=itemgetter(0))
        left_out += max(0, len(spans) - TRACED_MAX)
        del spans[:-TRACED_MAX]
    events = [event(place, worker_id, span) for _, place, worker_id, span in spans]
    found_all = {"traceEvents": events, "silent": silent, "left_out": left_out}
    return json.dumps(found_all).encode()
