"""Which version has written the store: whether this head may go on with it, and what it notes.

Any older store is read, but not while nodes of it may run that would be refused. One of the next
minor, too, so that a standby that is not upgraded yet can
take over from one that is; what it does not know of a row stays there (`unknown_fields`). So a
minor may append fields to rows, which hold for what the row's key names, and add tables, whose rows
may outlive what they are about. Whatever else changes raises the schema of both stores.
"""

from __future__ import annotations

from typing import Final

import msgspec

from zray._version import __version__
from zray.core.head.journal import Journal
from zray.core.head.members import NodeRow
from zray.protocol import messages as m
from zray.protocol import versions

TABLE: Final = "versions"  # of the store
KEY: Final = b"newest"  # that has ever led with it


class StoredVersion(msgspec.Struct, array_like=True, frozen=True):
    """A version of zray, and of the protocol, of which rows are a part."""

    protocol: int
    minor: int
    zray: str


_UNTOLD: Final = StoredVersion(1, 0, "of before")  # who has noted nothing
_NAMED_MAX: Final = 6
MINE: Final = StoredVersion(m.PROTOCOL_VERSION, m.PROTOCOL_MINOR, __version__)


def newest(rows: dict[str, dict[bytes, bytes]]) -> StoredVersion | None:
    """The newest that has led with a store of these rows; None: none that has noted it.

    Raises:
        msgspec.MsgspecError: the note cannot be read.
    """
    value = rows.get(TABLE, {}).get(KEY)
    return msgspec.msgpack.decode(value, type=StoredVersion) if value is not None else None


def objection(rows: dict[str, dict[bytes, bytes]]) -> str:
    """Why this version must not lead with it, for people; empty: it may."""
    found = newest(rows) or _UNTOLD
    if (found.protocol, found.minor) > (MINE.protocol, MINE.minor + 1):
        return (
            f"the control store was written by {_in_words(found)}, and this head is "
            f"{_in_words(MINE)}, which can go on with what is at most one minor newer. It has "
            f"changed no record and does not lead. Install zray {found.zray} here, or put back a "
            "backup of before (zray gcs restore)"
        )
    if (found.protocol, found.minor) >= (MINE.protocol, MINE.minor - 1):
        return ""
    stored = (msgspec.msgpack.decode(row, type=NodeRow) for row in rows.get("nodes", {}).values())
    names = [row.name for row in stored if row.alive]
    if not names:
        return ""
    more = f" and {len(names) - _NAMED_MAX:,} more" if len(names) > _NAMED_MAX else ""
    return (
        f"the control store was written by {_in_words(found)}, whose nodes may still run "
        f"({', '.join(names[:_NAMED_MAX])}{more}): this head, {_in_words(MINE)}, would refuse them "
        "and end what they run. It has changed no record and does not lead. Go through the minors "
        f"between; or start zray {found.zray} again, zray stop, and then this one"
    )


def _in_words(version: StoredVersion) -> str:
    return f"zray {version.zray} (protocol {versions.spoken(version.protocol, version.minor)})"


def note(rows: dict[str, dict[bytes, bytes]], journal: Journal) -> None:
    """Have it known that this version has led, before anything that it may write differently."""
    found = newest(rows)
    if found is None or (found.protocol, found.minor) < (MINE.protocol, MINE.minor):
        journal.persist([(TABLE, KEY, msgspec.msgpack.encode(MINE))], lambda _now: None)
    elif (found.protocol, found.minor) > (MINE.protocol, MINE.minor):
        from zray.core.head.unknown_fields import UnknownFields  # loaded where it is needed

        journal.unknown = UnknownFields(rows)
