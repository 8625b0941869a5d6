"""What requests say, checked: numbers, words, filters and cursors; nothing else is accepted."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, Final

from starlette.requests import Request

from zray import limits
from zray.dashboard.problems import bad_request
from zray.protocol import messages as m
from zray.util.state.source import filters_of

_FILTER: Final = re.compile(r"\s*(\w+)\s*(!?=)\s*(.*?)\s*", re.DOTALL)


def known(request: Request, *names: str) -> None:
    """No other parameters than these are there: a slip is not to change an answer in silence.

    Raises:
        Problem: there are.
    """
    unknown = sorted({*request.query_params.keys()} - {*names})
    if unknown:
        has = f"it has {', '.join(names)}" if names else "it has none"
        raise bad_request(f"there is no parameter {unknown[0][:64]!r}; {has}")


def number(request: Request, name: str, otherwise: int, least: int, most: int) -> int:
    """A whole number.

    Raises:
        Problem: it is none, or out of these bounds.
    """
    text = request.query_params.get(name)
    if text is None:
        return otherwise
    if not (text.isascii() and text.isdecimal() and len(text) < 17 and least <= int(text) <= most):
        raise bad_request(
            f"{name} must be a whole number from {least} to {most}, not {text[:32]!r}"
        )
    return int(text)


def flag(request: Request, name: str, otherwise: bool) -> bool:
    """Yes or no.

    Raises:
        Problem: it is something else.
    """
    text = request.query_params.get(name)
    if text is None:
        return otherwise
    if text.lower() not in ("0", "1", "false", "true"):
        raise bad_request(f"{name} must be 0 or 1, not {text[:32]!r}")
    return text.lower() in ("1", "true")


def cursor(request: Request) -> bytes:
    """Where a list goes on.

    Raises:
        Problem: it is none that an answer has had.
    """
    text = request.query_params.get("cursor", "")
    try:
        found = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except (ValueError, binascii.Error):
        found = b"?" * 65
    if len(found) > 64:
        raise bad_request("the cursor is none that an answer has had")
    return found


def cursor_text(found: bytes) -> str | None:
    """For the answer; None: there are no more."""
    return base64.urlsafe_b64encode(found).rstrip(b"=").decode() or None


def filters(request: Request) -> list[m.Filter]:
    """``filter=key=value`` and ``filter=key!=value``, as often as they are there.

    Raises:
        Problem: one is neither, or there are too many.
    """
    given = request.query_params.getlist("filter")
    if len(given) > limits.FILTERS_MAX:
        raise bad_request(f"there are at most {limits.FILTERS_MAX} filters")
    found = []
    for text in given:
        parts = _FILTER.fullmatch(text)
        if parts is None:
            raise bad_request(f"filter={text[:64]!r} is not key=value or key!=value")
        key, predicate, value = parts.groups()
        found.append((key, predicate, value))
    return filters_of(found)


def thing_id(text: str) -> bytes:
    """An id in hexadecimal digits.

    Raises:
        Problem: it is none.
    """
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if not 0 < len(found) <= 20:
        raise bad_request("an id has 32 or 40 hexadecimal digits")
    return found


def subject(text: str) -> str:
    """An id, a name or a pid.

    Raises:
        Problem: it is too long to be one, or no text.
    """
    if not 0 < len(text) <= limits.NAME_MAX:
        raise bad_request(f"an id, name or pid has 1 to {limits.NAME_MAX} characters")
    return sendable(text, "an id, name or pid")


def sendable(text: str, what: str) -> str:
    """What JSON can say and a message cannot is no text.

    Raises:
        Problem: there are lone surrogates in it.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise bad_request(f"{what} is text that UTF-8 can carry") from None
    return text


async def body(
    request: Request, *, nullable: bool = False, **kinds: type[Any] | tuple[type[Any], ...]
) -> dict[str, Any]:
    """A JSON object with these fields alone, each of its kind. ``nullable``: one that is null is as
    if it were not there.

    Raises:
        Problem: it is something else.
    """
    try:
        found = json.loads(await request.body())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise bad_request("the body must be a JSON object")
    if nullable:
        found = {name: value for name, value in found.items() if value is not None}
    for name, value in found.items():
        kind = kinds.get(name)
        if kind is None:
            raise bad_request(f"there is no field {name[:64]!r}; there are {', '.join(kinds)}")
        if not isinstance(value, kind) or isinstance(value, bool):
            raise bad_request(f"the field {name!r} has a value of another kind")
    return found
