"""Which versions work together: those whose protocols differ by one minor at most.

``PROTOCOL_VERSION`` stays while that is so. ``PROTOCOL_MINOR`` rises by one with each version that
adds a message, a field, or a value of a field; a message that a peer's minor does not have is not
sent to it. So a cluster is upgraded one process after the other. HELLO and WELCOME tell the minor;
a peer that says nothing of it speaks minor 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from zray._version import __version__
from zray.errors import ProtocolError, VersionMismatchError
from zray.protocol import messages as m

TAG_OF_MINOR: Final = (0, 243)  # the first tag that each minor has added


def _minor_of(kind: type[m.Message]) -> int:
    tag = int(str(kind.__struct_config__.tag))
    return max(minor for minor, first in enumerate(TAG_OF_MINOR) if tag >= first)


SINCE: Final = {kind: minor for kind in m.ALL if (minor := _minor_of(kind))}
"""The minor that has added a message; those of minor 0 are left out."""


def known(messages: Iterable[m.Message], minor: int) -> list[m.Message]:
    """Of the messages those that a peer of that minor knows."""
    return [one for one in messages if SINCE.get(type(one), 0) <= minor]


def spoken(version: int, minor: int) -> str:
    """A protocol's version, for people."""
    return f"{version}.{minor}"


def work_together(version: int, minor: int, *, pickles: bool = True) -> bool:
    """Whether this process and one that speaks that protocol can work together.

    ``pickles``: it is one of zray's own. Others may speak any older minor: what they were written
    for stays.
    """
    later = minor - m.PROTOCOL_MINOR
    return version == m.PROTOCOL_VERSION and later <= 1 and (later >= -1 or not pickles)


def mismatch(here: str, there: str, version: int, minor: int, zray: str) -> str:
    """Why they cannot, with both versions and what to do. ``here``, ``there``: which they are."""
    mine = f"zray {__version__} (protocol {spoken(m.PROTOCOL_VERSION, m.PROTOCOL_MINOR)})"
    theirs = f"zray {zray or 'of an unknown version'} (protocol {spoken(version, minor)})"
    newer = (version, minor) > (m.PROTOCOL_VERSION, m.PROTOCOL_MINOR)
    return (
        f"{here} is {mine}, {there} is {theirs}: versions whose protocols differ by more than one "
        f"minor do not work together. Upgrade {here if newer else there}, one minor after the "
        "other, or all with the cluster stopped"
    )


def unfit(welcome: m.Welcome, epoch: int, known_epoch: int) -> m.Refused | None:
    """Why a head's WELCOME is not taken. ``known_epoch``: the latest that this process knows."""
    if epoch < known_epoch:
        return m.Refused(0, ProtocolError.code, "an old head answered")
    if work_together(welcome.protocol, welcome.minor):
        return None
    ends = ("this process", "the head", welcome.protocol, welcome.minor, welcome.zray)
    return m.Refused(0, VersionMismatchError.code, mismatch(*ends))
