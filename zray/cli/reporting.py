"""How commands on processes say what went wrong, and write text that came from elsewhere."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

from zray.cli.status import locate
from zray.core.causes import plain
from zray.errors import ZrayError
from zray.nodes.driver.operator import Operator

# Lone surrogates, which no stream takes, and what turns the direction of writing, too.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")


class Failed(Exception):
    """It was said what is wrong: the command ends with 1."""


@contextlib.contextmanager
def operator(addresses: list[str], *, as_json: bool = False) -> Iterator[Operator]:
    """A session with the cluster; what goes wrong in it is said, and ends the command.

    Raises:
        Failed: something went wrong.
    """
    try:
        info, target = locate(addresses)
        with Operator(info, target) as found:
            yield found
    except BrokenPipeError:  # who reads it has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ZrayError, OSError, ValueError) as error:
        code = getattr(error, "code", "")
        if as_json:
            print(json.dumps({"error": {"code": code, "message": str(error)}}, indent=2))
        else:
            print(f"zray: {plain(str(error))}", file=sys.stderr)
        raise Failed from None


def show(found: Any) -> None:
    """For programs."""
    print(json.dumps(found, indent=2))


def harmless(text: str) -> str:
    """Text for a terminal: it keeps lines, tabs and colours, and obeys nothing else.

    With ``NO_COLOR`` it has no colours either.
    """
    kept = [] if os.environ.get("NO_COLOR") else _COLOUR.findall(text)
    parts = _COLOUR.split(text)
    clean = [_CONTROL.sub(_escaped, part) for part in parts]
    if not kept:
        return "".join(clean)
    return "".join(a + b for a, b in zip(clean, [*kept, ""], strict=True))


def _escaped(one: re.Match[str]) -> str:
    return one[0].encode("unicode_escape").decode()
