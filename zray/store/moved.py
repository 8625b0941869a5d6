"""Marks of a store whose rows were moved elsewhere, or are still on their way. Does no I/O.

They are rows, so that they are durable with the others, in whatever store.
"""

from __future__ import annotations

import json
import time
from typing import Final

from zray.store.base import Batch, Row, Rows

TABLE: Final = "moved"
_TO: Final = b"to"
_FROM: Final = b"from"


def mark_to(where: str) -> Batch:
    """For the store that was moved to ``where``."""
    return [_mark(_TO, where), (TABLE, _FROM, None)]


def mark_from(where: str) -> Batch:
    """For a store that has not all of ``where`` yet."""
    return [_mark(_FROM, where), (TABLE, _TO, None)]


def no_mark() -> Batch:
    """For a store that has all, and that a head may use."""
    return [(TABLE, _TO, None), (TABLE, _FROM, None)]


def moved_to(rows: Rows) -> str:
    """Where the store of these rows was moved; empty: nowhere."""
    return _text(rows, _TO)


def incomplete_from(rows: Rows) -> str:
    """From where the rest of the store's rows has to come; empty: it has all."""
    return _text(rows, _FROM)


def own(rows: Rows) -> Rows:
    """Without the marks."""
    return {table: of_table for table, of_table in rows.items() if table != TABLE}


def objection(rows: Rows) -> str:
    """Why no head may use a store of these rows, for people; empty: one may."""
    if where := moved_to(rows):
        return (
            f"was moved to {where}, and what has happened since is there. The head does not start. "
            "Start it with that store; or move that one back here with `zray gcs move`"
        )
    if where := incomplete_from(rows):
        return (
            f"has only a part of what is to come from {where}. The head does not start. Run the "
            "same `zray gcs move` or `zray gcs restore` again"
        )
    return ""


def _mark(key: bytes, where: str) -> Row:
    return TABLE, key, json.dumps({"where": where, "when": time.time()}).encode()


def _text(rows: Rows, key: bytes) -> str:
    value = rows.get(TABLE, {}).get(key)
    if value is None:
        return ""
    try:
        return str(json.loads(value)["where"])
    except (ValueError, LookupError, TypeError):
        return "another place"
