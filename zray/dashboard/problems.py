"""What went wrong, as the HTTP API says it: cause, effect, next step, and the stable code."""

from __future__ import annotations

import json
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.responses import Response

from zray.errors import (
    AmbiguousError,
    BusyError,
    DrainRefusedError,
    HeadConnectionError,
    HeadSilentError,
    InternalFaultError,
    JobExistsError,
    JobNotFoundError,
    JobSubmissionError,
    LogUnavailableError,
    NotFoundError,
    ProfilerError,
    StateQueryError,
    WebLoginError,
    WebRequestError,
)

# By class, the first that fits: status, effect, next step.
_KINDS: Final[tuple[tuple[type[Exception], int, str, str], ...]] = (
    (HeadSilentError, 504, "Nothing can be told of the cluster now.", "See zray status."),
    (
        *(HeadConnectionError, 503),
        "Nothing can be told of the cluster until its head is back.",
        "Look at the head's log, or start it again.",
    ),
    (StateQueryError, 400, "Nothing was listed.", "Change the question."),
    (JobNotFoundError, 404, "Nothing was done.", "GET /api/jobs/ shows which there are."),
    (JobExistsError, 409, "Nothing was submitted.", "Give it another submission_id."),
    (JobSubmissionError, 400, "Nothing was done.", "See what the message says."),
    (NotFoundError, 404, "Nothing was done.", "zray list shows what there is."),
    (LogUnavailableError, 404, "There is nothing to show.", "GET /api/v1/logs shows which are."),
    (AmbiguousError, 409, "Nothing was done.", "Say which one with its id."),
    (DrainRefusedError, 409, "The node goes on.", "See what the message says."),
    (BusyError, 503, "The question was not asked.", "Ask again in a moment."),
    (ProfilerError, 502, "The process could not be looked into.", "See what the message says."),
    (ValueError, 400, "Nothing was done.", "Change the request."),
)


class Problem(Exception):
    """Ends a request with this answer."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        effect: str = "Nothing was done.",
        next_step: str = "See docs/http-api.md.",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.effect = effect
        self.next_step = next_step
        self.headers = headers or {}
        self.age_s: float | None = None  # of the last answer, where the head does not answer

    def described(self) -> dict[str, Any]:
        """As in an answer."""
        return {
            "code": self.code,
            "message": self.message,
            "effect": self.effect,
            "next": self.next_step,
            "age_s": self.age_s,
        }

    def response(self) -> Response:
        """The answer."""
        content = {"error": self.described()}
        return json_response(content, self.status, self.headers)


def bad_request(message: str, status: int = 400, **headers: str) -> Problem:
    """A request that cannot be understood."""
    return Problem(
        *(status, WebRequestError.code, message),
        *("Nothing was done.", "Change the request; docs/http-api.md says how."),
        {name.replace("_", "-"): value for name, value in headers.items()},
    )


def refused(message: str, next_step: str, status: int = 403) -> Problem:
    """Somebody who may not do that."""
    headers = {"www-authenticate": 'Bearer realm="zray"'} if status == 401 else {}
    return Problem(
        status, WebLoginError.code, message, "Nothing was told or done.", next_step, headers
    )


def problem_of(error: Exception) -> Problem:
    """What an exception means for whoever has asked."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        what = {404: "there is no such path", 405: "this method does not go here"}
        text = what.get(error.status_code, str(error.detail))
        return bad_request(text, error.status_code, **(error.headers or {}))
    for kind, status, effect, next_step in _KINDS:
        if isinstance(error, kind):
            text = str(error.args[0]) if error.args else type(error).__name__
            code = getattr(error, "code", WebRequestError.code)
            headers = {"retry-after": "2"} if status == 503 else None
            return Problem(status, code, text, effect, next_step, headers)
    return Problem(
        *(500, InternalFaultError.code, "the dashboard failed at this request"),
        *("Nothing was told.", "The head's log has more; the rest goes on."),
    )


def json_response(
    content: Any, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """JSON; text in it is as it came."""
    data = json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode()
    found = {"cache-control": "no-store", **(headers or {})}
    return Response(data, status, found, "application/json")
