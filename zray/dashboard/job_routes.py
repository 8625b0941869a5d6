"""Submitted jobs, under Ray's paths: submit, look, read, stop, delete."""

from __future__ import annotations

import codecs
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from zray.api.runtime_env import NOTHING
from zray.dashboard import http_limits, parameters
from zray.dashboard.events import EventStream, server_event
from zray.dashboard.followed import followed
from zray.dashboard.problems import bad_request, json_response
from zray.dashboard.service import Service
from zray.jobs import operations
from zray.jobs.submission import Alone, Submission, check_no_files, checked_submission
from zray.nodes.driver.operator import Operator
from zray.protocol import messages as m

FOLLOW_S = 0.5  # how often it is looked whether there is more
AWAY_S = 2.0
_SUBMITTED: dict[str, Any] = {
    **dict.fromkeys(("entrypoint", "submission_id", "job_id"), str),
    **dict.fromkeys(("runtime_env", "metadata"), dict),
    **dict.fromkeys(("entrypoint_num_cpus", "entrypoint_num_gpus"), (int, float)),
    "entrypoint_memory": int,
    **dict.fromkeys(("entrypoint_resources", "entrypoint_label_selector"), dict),
}


class JobRoutes:
    """Of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """In the order in which they are tried."""
        return [
            Route("/api/jobs/", self.submit, methods=["POST"]),
            Route("/api/jobs/", self.every),
            Route("/api/jobs/{job}", self.delete, methods=["DELETE"]),
            Route("/api/jobs/{job}", self.one),
            Route("/api/jobs/{job}/stop", self.stop, methods=["POST"]),
            Route("/api/jobs/{job}/logs", self.logs),
            Route("/api/jobs/{job}/logs/tail", self.tail),
        ]

    async def submit(self, request: Request) -> Response:
        """Have a command run."""
        parameters.known(request)
        given = await parameters.body(request, nullable=True, **_SUBMITTED)
        older = given.pop("job_id", None)
        given["submission_id"] = given.get("submission_id") or older
        if "entrypoint" not in given:
            raise bad_request("the field 'entrypoint' is missing: the command to run")
        check_no_files(given.get("runtime_env"))
        try:
            wanted = checked_submission(**given)
        except TypeError as error:
            raise bad_request(str(error)) from None
        job_id = await self._service.ask(partial(_submit, wanted))
        return json_response({"job_id": job_id, "submission_id": job_id})

    async def every(self, request: Request) -> Response:
        """All jobs that the cluster remembers."""
        parameters.known(request)
        found = await self._service.look(operations.every)
        return json_response([one.dict() for one in found])

    async def one(self, request: Request) -> Response:
        """One job."""
        parameters.known(request)
        found = await self._service.ask(partial(_details, _word(request)))
        return json_response(found)

    async def stop(self, request: Request) -> Response:
        """Have one end."""
        parameters.known(request)
        stopped = await self._service.ask(partial(_stop, _word(request)))
        return json_response({"stopped": stopped})

    async def delete(self, request: Request) -> Response:
        """Have one forgotten."""
        parameters.known(request)
        deleted = await self._service.ask(partial(_delete, _word(request)))
        return json_response({"deleted": deleted})

    async def logs(self, request: Request) -> Response:
        """What its command has printed; the end of it, if that is much."""
        parameters.known(request)
        text = await self._service.look(partial(_logs, _word(request)))
        return json_response({"logs": text})

    async def tail(self, request: Request) -> Response:
        """The same as it grows, until it has ended."""
        parameters.known(request)
        reading = await self._service.ask(partial(_Reading, _word(request)))
        return EventStream(
            self._service, followed(self._service, reading, b""), self._service.followers
        )


def _word(request: Request) -> str:
    return parameters.subject(request.path_params["job"])


# ---- in threads ----------------------------------------------------------------------------


def _submit(wanted: Submission, operator: Operator) -> str:
    environment = None
    if wanted.environment != NOTHING:
        from zray.api.environments import environment_of  # which loads pickle

        environment = environment_of(Alone(), wanted.environment)
    return operations.submit(operator, wanted, environment)


def _details(word: str, operator: Operator) -> dict[str, Any]:
    return operations.details(operator, word).dict()


def _stop(word: str, operator: Operator) -> bool:
    return operations.stop(operator, word)


def _delete(word: str, operator: Operator) -> bool:
    return operations.delete(operator, word)


def _logs(word: str, operator: Operator) -> str:
    data = operations.JobLog(operator, word).last(http_limits.JOB_LOG_BYTES)
    return data.decode("utf-8", "replace")


class _Reading:
    """A job's log that is followed."""

    def __init__(self, word: str, operator: Operator) -> None:
        self._log = operations.JobLog(operator, word)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._ended = False
        self.last = b""

    def next(self, operator: Operator) -> list[bytes]:
        """As of ``followed.Reading``."""
        self._log.use(operator)
        data = self._log.next()
        if not data and not self._ended:
            self._ended = self._log.look().status in m.JOB_ENDS
            data = self._log.next()
        if self._ended and not data:
            self.last = server_event("end", {"status": self._log.job.status})
        text = self._decoder.decode(data)
        return [server_event("text", {"text": text})] if text else []
