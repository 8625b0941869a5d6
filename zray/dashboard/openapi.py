"""The OpenAPI document of the HTTP API: which paths there are, what they take and tell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args, get_type_hints

from zray import limits
from zray._version import __version__
from zray.util.state.kinds import RECORDS

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_WHOLE: Schema = {"type": "integer"}
_OBJECT: Schema = {"type": "object"}
_BASICS: dict[Any, Schema] = {
    str: _TEXT,
    int: _WHOLE,
    float: {"type": "number"},
    bool: {"type": "boolean"},
}
_ERROR: Schema = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "code": {"type": "string", "description": "Stable; docs/errors.md lists them."},
                "message": _TEXT,
                "effect": _TEXT,
                "next": _TEXT,
                "age_s": {"type": ["number", "null"]},
            },
        }
    },
}
_SUBJECT: Schema = {
    "name": "subject",
    "in": "path",
    "required": True,
    "description": "An id in hexadecimal digits, a name or a pid; `head`.",
    "schema": {"type": "string", "maxLength": limits.NAME_MAX},
}
_KIND: Schema = {
    "name": "kind",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "enum": [*RECORDS]},
}


def document() -> Schema:
    """The whole of it."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "zray",
            "version": __version__,
            "description": "The state of a zray cluster. Field names are those of Ray's state API.",
        },
        "security": [{"token": []}, {"cookie": []}],
        "paths": dict(_paths()),
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "zray-CLUSTER"},
            },
            "schemas": {"Error": _ERROR, **dict(_records())},
        },
    }


def _records() -> Iterable[tuple[str, Schema]]:
    for record in RECORDS.values():
        hints = get_type_hints(record)
        names = record.columns(detail=True)
        yield (
            record.__name__,
            {
                "type": "object",
                "description": (record.__doc__ or "").strip(),
                "properties": {name: _schema(hints[name]) for name in names},
            },
        )


def _schema(hint: Any) -> Schema:
    """Of a field by its type."""
    options = [one for one in get_args(hint) if one is not type(None)]
    if hint in _BASICS:
        return _BASICS[hint]
    if type(None) in get_args(hint) and len(options) == 1:
        inner = _schema(options[0])
        return {**inner, "type": [inner["type"], "null"]}
    return {"type": "array" if getattr(hint, "__origin__", None) is list else "object"}


def _paths() -> Iterable[tuple[str, Schema]]:
    lists = _answer(
        {
            "kind": _TEXT,
            "total": {**_WHOLE, "description": "Of the kind, whatever the filters."},
            "dropped": {**_WHOLE, "description": "Ended tasks of which the number is known."},
            "unlisted": {**_WHOLE, "description": "Tasks that their submitters alone know."},
            "next": {"type": ["string", "null"], "description": "The cursor of the next page."},
            "items": {"type": "array", "items": {"anyOf": [_ref(one) for one in RECORDS.values()]}},
        }
    )
    asked = [
        _query("limit", _bounded(1, limits.LISTED_ROWS_MAX), "Rows at most; 100."),
        _query("cursor", _TEXT, "The `next` of the answer before."),
        _query("detail", {"enum": ["0", "1"]}, "All fields; 1."),
        _query("filter", _TEXT, "key=value or key!=value; as often as needed, all hold."),
    ]
    yield "/api/v1/session", _get("What a page knows of its login.", [], _answer({"csrf": _TEXT}))
    yield "/api/v1/cluster", _get("As `zray status --json`.", [], _OBJECT)
    yield "/api/v1/{kind}", _get("Things of a kind.", [_KIND, *asked], lists)
    one = [_KIND, {**_SUBJECT, "name": "id", "description": "The whole id."}]
    yield "/api/v1/{kind}/{id}", _get("One thing; each attempt of a task.", one, lists)
    yield "/api/v1/{kind}/summary", _get("How many, by name and state.", [_KIND], _OBJECT)
    yield "/api/v1/why/{subject}", _get("Why it is as it is.", [_SUBJECT], _OBJECT)
    node = _query("node", _TEXT, "Of one node.")
    yield "/api/v1/logs", _get("Which logs there are.", [node], _OBJECT)
    tail = _query("tail", _bounded(0, 10_000), "The last lines; 0: from the beginning.")
    offset = _query("offset", _WHOLE, "Where to go on, as the answer before says.")
    file_id = _query("file_id", _WHOLE, "Of the same file.")
    yield "/api/v1/logs/{subject}", _get("A log.", [_SUBJECT, tail, offset, file_id], _OBJECT)
    yield (
        "/api/v1/logs/{subject}/follow",
        _get("A log as it grows.", [_SUBJECT, tail], _TEXT, "text/event-stream"),
    )
    yield "/api/v1/stack/{subject}", _get("Where its threads are now.", [_SUBJECT], _OBJECT)
    seconds = _query("seconds", _bounded(1, 60), "For how long; 5.")
    yield (
        "/api/v1/profile/{subject}",
        _get("A flame graph.", [_SUBJECT, seconds], _TEXT, "image/svg+xml"),
    )
    yield "/api/v1/timeline", _get("What has run, as Chrome's trace events.", [], _OBJECT)
    yield "/api/v1/usage", _get("CPU and memory of nodes and their processes.", [], _OBJECT)
    most = _query("limit", _bounded(1, limits.LISTED_ROWS_MAX), "Rows at most; 100.")
    yield "/api/v1/memory", _get("What holds each object, the largest first.", [most], _OBJECT)
    stream = "The last minutes, then each second what is new."
    yield "/api/v1/stream", _get(stream, [], _TEXT, "text/event-stream")
    yield "/api/v1/kill", _post("End a task, an actor or a worker.", {"subject": _TEXT})
    drained = {"node": _TEXT, "deadline_s": {"type": "number"}, "reason": _TEXT}
    yield "/api/v1/drain", _post("Have a node take no more work, and leave.", drained)
    health = _get(
        "OK, DEGRADED or DOWN; STANDBY: all is well, and another head leads.",
        [],
        _TEXT,
        "text/plain",
    )
    yield "/healthz", {"get": {**health["get"], "security": []}}
    yield "/api/version", _get("As Ray's.", [], _OBJECT)
    yield from _jobs()
    yield "/api/v0/{kind}", _get("As Ray's state API.", [_KIND], _OBJECT)
    yield "/api/v0/{kind}/summarize", _get("As Ray's state API.", [_KIND], _OBJECT)


def _jobs() -> Iterable[tuple[str, Schema]]:
    job = {**_SUBJECT, "name": "job", "description": "Its submission id, or its driver's job id."}
    asked = {
        **dict.fromkeys(("entrypoint", "submission_id"), _TEXT),
        **dict.fromkeys(("runtime_env", "metadata", "entrypoint_resources"), _OBJECT),
        "entrypoint_num_cpus": {"type": "number"},
        "entrypoint_num_gpus": {"type": "number"},
        "entrypoint_memory": _WHOLE,
        "entrypoint_label_selector": _OBJECT,
    }
    every = _get("All jobs, as Ray's.", [], {"type": "array", "items": _OBJECT})
    yield "/api/jobs/", {**every, **_post("Run a command; `entrypoint` is needed.", asked)}
    changed = _post("Forget a job that has ended.", {})["post"]
    deleted = {name: value for name, value in changed.items() if name != "requestBody"}
    deleted["parameters"] = [job, *changed["parameters"]]
    yield "/api/jobs/{job}", {**_get("One job, as Ray's.", [job], _OBJECT), "delete": deleted}
    stopped = _post("End a job.", {})["post"]
    stopped["parameters"] = [job, *stopped["parameters"]]
    yield "/api/jobs/{job}/stop", {"post": stopped}
    yield "/api/jobs/{job}/logs", _get("What it has printed.", [job], _answer({"logs": _TEXT}))
    tail = _get("The same as it grows.", [job], _TEXT, "text/event-stream")
    yield "/api/jobs/{job}/logs/tail", tail


def _ref(record: type[Any]) -> Schema:
    return {"$ref": f"#/components/schemas/{record.__name__}"}


def _bounded(least: int, most: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most}


def _query(name: str, schema: Schema, text: str) -> Schema:
    return {"name": name, "in": "query", "description": text, "schema": schema}


def _answer(properties: dict[str, Schema]) -> Schema:
    return {"type": "object", "properties": properties}


def _get(
    summary: str, parameters: list[Schema], schema: Schema, kind: str = "application/json"
) -> Schema:
    return {"get": {"summary": summary, "parameters": parameters, **_responses(kind, schema)}}


def _post(summary: str, properties: dict[str, Schema]) -> Schema:
    body = {"required": True, "content": {"application/json": {"schema": _answer(properties)}}}
    header = {
        "name": "X-Zray-CSRF",
        "in": "header",
        "description": "Of /api/v1/session, where a browser is logged in; not with a token.",
        "schema": _TEXT,
    }
    told = _responses("application/json", _OBJECT)
    return {"post": {"summary": summary, "parameters": [header], "requestBody": body, **told}}


def _responses(kind: str, schema: Schema) -> Schema:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        "responses": {
            "200": {"description": "The answer.", "content": {kind: {"schema": schema}}},
            "default": {"description": "What is wrong.", "content": error},
        }
    }
