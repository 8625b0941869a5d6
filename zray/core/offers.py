"""Which names of functions and actor classes the cluster's nodes offer, as far as the head knows.

What runs by name goes to nodes that offer the name (`resources.offering`). A name that no node has
ever offered is an error at once; one that was offered is waited for, as its node may come back.
"""

from __future__ import annotations

from collections.abc import Iterable

_SHOWN = 20


class Offers:
    """Which names the nodes offer, and have offered."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def learn(self, names: Iterable[str]) -> None:
        """A node that offers these has joined."""
        self._known.update(names)

    def objection(self, name: str) -> str:
        """Why nothing can run by that name; empty: it can, or could be again."""
        if name in self._known:
            return ""
        offered = listed(sorted(self._known)) or "nothing"
        return f"no node of this cluster offers {name!r} (offered: {offered}); {remedy(name)}"


def listed(names: list[str]) -> str:
    """Names for people, of a long list the first ones."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def remedy(name: str) -> str:
    """What would make a node offer the name."""
    return (
        f"start a node with --import MODULE, where the module has @zray.task(name={name!r}) on a "
        f"function, or @zray.actor(offer={name!r}) on a class"
    )
