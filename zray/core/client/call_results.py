"""Results that this process waits for and that are its own, until somebody hears of them.

Of calls of actors, of tasks that go straight to leased workers, and of generators.
"""

from __future__ import annotations

from zray.core.client.actor_caller import PendingCall
from zray.core.client.incoming_stream import IncomingStream
from zray.core.client.lease import PendingTask


class CallResults:
    """Of one process."""

    def __init__(self) -> None:
        self.awaited: dict[bytes, PendingCall | PendingTask | IncomingStream] = {}  # by object id
        self.promised: dict[bytes, None] = {}  # of these, what others have heard of

    def is_private(self, oid: bytes) -> bool:
        """Whether nobody else has heard of the result, for which this process waits."""
        return oid in self.awaited and oid not in self.promised

    def is_promised(self, oid: bytes) -> bool:
        """Whether somebody else has heard of it."""
        return oid in self.promised

    def take_promise(self, oid: bytes) -> bool:
        """The result is here; whether it was promised."""
        return self.promised.pop(oid, 0) is None
