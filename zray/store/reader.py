"""What is read of a store or a backup, which is not opened: nothing in it changes.

What is read is as of one moment, also while a head writes. Rows come one after the other, so that
a store of any size can be read. Owns the interface alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, TypeAlias

Stored: TypeAlias = tuple[str, bytes, bytes]
"""Table, key, value."""


class Identity(NamedTuple):
    """Whose state it is.

    Attributes:
        cluster_id: None: of a cluster that was never begun.
        epoch: no head that has written to the store had a later one.
        version: of the zray that has made a backup; empty: it is no backup.
        created: when a backup was made, in unix seconds; 0: it is none.
        source: where a backup is from.
    """

    cluster_id: bytes | None
    epoch: int
    version: str = ""
    created: float = 0.0
    source: str = ""


class Reader(Protocol):
    """``where``: what it reads, in words."""

    where: str

    def identity(self) -> Identity:
        """To be asked first.

        Raises:
            StoreError: it cannot be read; StoreRefusedError: nor can it ever be.
        """
        ...

    def rows(self) -> Iterator[Stored]:
        """All rows, checked against their checksums; once.

        Raises:
            StoreError: as of ``identity``.
        """
        ...

    def close(self) -> None:
        """Idempotent."""
        ...
