"""The few pages that are not of the application: what somebody sees who is not logged in."""

from __future__ import annotations

from html import escape

from starlette.responses import HTMLResponse, Response

from zray.dashboard.problems import Problem

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>zray</title>
</head>
<body><main><h1>zray</h1><p>{message}.</p><p>{next_step}</p></main></body>
</html>
"""


def refusal(problem: Problem) -> Response:
    """For a browser that may not see the page."""
    text = _PAGE.format(message=_sentence(problem.message), next_step=_sentence(problem.next_step))
    headers = {"cache-control": "no-store", **problem.headers}
    return HTMLResponse(text, problem.status, headers)


def _sentence(text: str) -> str:
    return escape(text[:1].upper() + text[1:])
