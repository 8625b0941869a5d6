"""Who a head is to its peers: which cluster it serves, and which of its starts this one is."""

from __future__ import annotations

from typing import NamedTuple

from zray.protocol.messages import Versions


class HeadIdentity(NamedTuple):
    """``versions``: its own, of which those of others may differ. ``started_s``: wall clock.

    ``head_id``: random, of its process; empty: terms are told apart by their epochs alone.
    ``pid``: of its process.
    """

    cluster_id: bytes
    epoch: int
    versions: Versions
    started_s: float
    head_id: bytes = b""
    pid: int = 0

    def of_term(self) -> bytes:
        """8 bytes that no other term of this process has, nor another process's."""
        random = int.from_bytes(self.head_id[:8], "big")
        return (random ^ self.epoch).to_bytes(8, "big")
