"""The page that is not of the application: what a person sees where something is refused."""

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


def problem_page(problem: Problem) -> Response:
    """For a person, who may see it in a frame of the page."""
    text = _PAGE.format(message=_sentence(problem.message), next_step=_sentence(problem.next_step))
    headers = {
        "cache-control": "no-store",
        "content-security-policy": "default-src 'none'; frame-ancestors 'self'; sandbox",
        "x-frame-options": "SAMEORIGIN",
        **problem.headers,
    }
    return HTMLResponse(text, problem.status, headers)


def _sentence(text: str) -> str:
    return escape(text[:1].upper() + text[1:])
