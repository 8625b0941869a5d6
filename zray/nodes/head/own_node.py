"""What a head does about its own raylet: who that is to the cluster, and what its end means.

It is a node as every other, also while its head stands by; whether that leads changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from zray import limits
from zray.core.head.gcs import Gcs
from zray.core.incidents import Incidents
from zray.errors import NodeDiedError
from zray.nodes.head.own_identity import OwnIdentity
from zray.nodes.head.own_raylet import OwnRaylet
from zray.runtime.linux.process_handle import ProcessHandle
from zray.runtime.loop import Loop


class OwnNode:
    """Keeps the raylet running from ``begin`` on. It is one node in all lives of the head.

    Args:
        gcs: this head's while it leads.
    """

    def __init__(
        self,
        raylet: OwnRaylet,
        loop: Loop,
        incidents: Incidents,
        gcs: Callable[[], Gcs | None],
        connection_file: Path,
        identity: OwnIdentity,
    ) -> None:
        self._raylet = raylet
        self._loop = loop
        self._identity = identity
        self._connection_file = connection_file
        self._incidents = incidents
        self._gcs = gcs
        self._watched: ProcessHandle | None = None
        self._again_at = 0.0

    def begin(self) -> None:
        """Tell it where the heads are, and who it is.

        Each process is a later incarnation: those before are known to be dead then, and nobody
        waits for their return.

        Raises:
            OSError: no process can be made.
        """
        incarnation = self._identity.next_incarnation(self._gcs())
        node_id = self._identity.node_id.hex()
        self._raylet.feed(self._connection_file, node_id, incarnation)
        self._watched = self._raylet.handle
        self._loop.watch(self._watched, self._ended)

    def _ended(self) -> None:
        self._unwatch()
        how, pause_s = self._raylet.ended()
        now, gcs = self._loop.now(), self._gcs()
        if gcs is None:  # it may have been told to stop, as its head is about to hear
            pause_s = max(pause_s, limits.OWN_NODE_RETRY_FIRST_S)
        self._again_at = now + pause_s
        self._failed(NodeDiedError(f"{how}; it is started again"))
        if gcs is not None:
            gcs.departures.process_ended(self._identity.node_id, how)

    def tend(self) -> None:
        """Start it again when it has ended, and then waited for its turn."""
        if self._watched is not None or (now := self._loop.now()) < self._again_at:
            return
        self._again_at = now + limits.OWN_NODE_RETRY_MAX_S
        try:
            self.begin()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        what = "keeping the head's own node running"
        self._incidents.record(what, "", error, self._loop.now())

    # ---- end -------------------------------------------------------------------------------

    def let_go(self) -> None:
        """Tell it to end; it is watched no more."""
        self._unwatch()
        self._raylet.let_go()

    def runs(self) -> bool:
        """Whether its process is there."""
        return self._raylet.runs()

    def end(self) -> None:
        """It has had its time."""
        self._raylet.end(0.0)
        gcs = self._gcs()
        node = gcs.members.nodes.get(self._identity.node_id) if gcs is not None else None
        if gcs is not None and node is not None:  # it did not say goodbye
            gcs.departures.node_died(node, "its head ended")

    def _unwatch(self) -> None:
        if self._watched is not None:
            self._loop.unwatch(self._watched)
            self._watched = None
