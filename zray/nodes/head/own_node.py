"""What a head does about its own raylet: who that is to the cluster, and what its end means."""

from __future__ import annotations

import hashlib

from zray import limits
from zray.core.head.gcs import Gcs
from zray.errors import NodeDiedError
from zray.nodes.head.own_raylet import OwnRaylet
from zray.runtime import connection
from zray.runtime.connection import ConnectionInfo
from zray.runtime.linux.process_handle import ProcessHandle
from zray.runtime.loop import Loop


class OwnNode:
    """Keeps the raylet running from ``begin`` on. It is one node in all lives of the head."""

    def __init__(
        self,
        raylet: OwnRaylet,
        loop: Loop,
        gcs: Gcs,
        info: ConnectionInfo,
    ) -> None:
        self._raylet = raylet
        self._loop = loop
        self._gcs = gcs
        self._connection_file = connection.connection_path(info.name)
        cluster_id = bytes.fromhex(info.cluster_id)
        self._node_id = hashlib.sha256(b"head's node" + cluster_id).digest()[:16]
        self._watched: ProcessHandle | None = None
        self._again_at = 0.0

    def begin(self) -> None:
        """Tell it where the head is, and who it is.

        Each process is a later incarnation: those before are known to be dead then, and nobody
        waits for their return.

        Raises:
            OSError: no process can be made.
        """
        incarnation = self._gcs.epoch << 16  # room for those that it makes up itself
        known = self._gcs.members.node_rows.get(self._node_id)
        if known is not None:
            incarnation = max(incarnation, known.incarnation + 1)
        self._raylet.feed(self._connection_file, self._node_id.hex(), incarnation)
        self._watched = self._raylet.handle
        self._loop.watch(self._watched, self._ended)

    def _ended(self) -> None:
        self._unwatch()
        how, pause_s = self._raylet.ended()
        now = self._loop.now()
        self._again_at = now + pause_s
        self._failed(NodeDiedError(f"{how}; it is started again"))
        self._gcs.departures.process_ended(self._node_id, how)

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
        self._gcs.incidents.record(what, "", error, self._loop.now())

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
        node = self._gcs.members.nodes.get(self._node_id)
        if node is not None:  # it did not say goodbye
            self._gcs.departures.node_died(node, "its head ended")

    def _unwatch(self) -> None:
        if self._watched is not None:
            self._loop.unwatch(self._watched)
            self._watched = None
