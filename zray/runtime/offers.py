"""Functions and actor classes that this process's modules offer by name, to callers without them.

Owns the table of names. Must never import a module, nor keep alive what is offered: a name goes
with the decorated function or class that it stands for.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

_ID_BYTES = 16


class Offer(NamedTuple):
    """What runs under a name.

    Attributes:
        target: the function or class itself.
        is_class: it makes actors.
        retry: as ``retry_exceptions`` of tasks.
        is_async: of a class: its actors run their calls in an event loop.
        max_concurrency: of a class, where who makes an actor asks for no more than 1.
        groups: of a class: its concurrency groups.
        out_of_order: of a class: as ActorInfo has it.
    """

    target: Callable[..., Any]
    is_class: bool = False
    retry: bool | tuple[type[BaseException], ...] = False
    is_async: bool = False
    max_concurrency: int = 1
    groups: tuple[tuple[str, int], ...] = ()
    out_of_order: bool = False


class Offered(Protocol):
    """A remote function or an actor class."""

    def _offer(self) -> Offer:
        """What it is, for those who run it."""


class _Entry(NamedTuple):
    place: str  # module and qualified name: a definition that is run again replaces itself
    thing: weakref.ref[Any]


_table: dict[str, list[_Entry]] = {}


def function_id(name: str) -> bytes:
    """The id under which a name travels in the place of a pickled function's."""
    return hashlib.blake2b(b"name:" + name.encode()).digest()[:_ID_BYTES]


def add(name: str, thing: Offered, place: str, *, alone: bool) -> None:
    """Offer ``thing`` under the name. ``place``: where it is defined, as ``module.name``.

    Raises:
        ValueError: with ``alone``: something else has the name. Without, ``find`` says so.
    """
    others = [entry for entry in _living(name) if entry.place != place]
    if others and alone:
        raise ValueError(_ambiguous(name, [place, *(entry.place for entry in others)]))
    _table[name] = [*others, _Entry(place, weakref.ref(thing))]


def find(name: str) -> Offer | None:
    """What is offered under the name, if anything.

    Raises:
        ValueError: two things are.
    """
    entries = _living(name)
    if len(entries) > 1:
        raise ValueError(_ambiguous(name, [entry.place for entry in entries]))
    thing: Offered | None = entries[0].thing() if entries else None
    return thing._offer() if thing is not None else None


def names() -> list[str]:
    """All names that something is offered under, sorted."""
    return sorted(name for name in _table if _living(name))


def _living(name: str) -> list[_Entry]:
    return [entry for entry in _table.get(name, ()) if entry.thing() is not None]


def _ambiguous(name: str, places: list[str]) -> str:
    listed = " and ".join(sorted(places))
    return f"{name!r} is offered by {listed}; give each a name of its own"
