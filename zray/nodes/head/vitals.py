"""How the head's process itself does, for metrics: its turns, its port, its store and its memory.

Made when somebody asks for the first time.
"""

from __future__ import annotations

from zray.core.head.figures import HeadFigures
from zray.core.head.gcs import Gcs
from zray.core.head.identity import HeadIdentity
from zray.nodes.head.head_port import HeadPort
from zray.protocol import messages as m
from zray.protocol.histogram import Histogram
from zray.runtime.linux.process_figures import processes
from zray.store.base import Store

HEAD = "head"


class Vitals:
    """``turns``: how long each turn of the head took."""

    def __init__(
        self, identity: HeadIdentity, gcs: Gcs, port: HeadPort, store: Store, turns: Histogram
    ) -> None:
        self._gcs = gcs
        self._port = port
        self._store = store
        self._turns = turns
        self._pid = identity.pid
        self._figures = HeadFigures(
            identity, gcs, gcs.queries.classes, gcs.queries.health, gcs.tasks.__len__
        )

    def all(self, now: float) -> list[m.Figure]:
        """All figures of the head and the cluster."""
        gcs, port = self._gcs, self._port
        rejected = gcs.controller.rejected
        reconnects = gcs.sessions.reconnects
        refused = {"key": port.refused(), **gcs.sessions.refused}
        commits = self._store.commits
        return [
            *self._figures.all(now),
            self._turns.figure("zray_head_turn_seconds", []),
            commits.figure("zray_store_commit_seconds", []),
            *(m.Figure("zray_messages_rejected_total", n, [why]) for why, n in rejected.items()),
            *(m.Figure("zray_reconnects_total", n, [why]) for why, n in reconnects.items()),
            *(m.Figure("zray_auth_failures_total", n, [code]) for code, n in refused.items()),
            m.Figure("zray_sessions", len(gcs.sessions.by_route)),
            m.Figure("zray_silent_connections_cut_total", port.cut()),
            m.Figure("zray_send_failures_total", port.send_failures),
            m.Figure("zray_unsent_bytes", port.unsent_bytes()),
            m.Figure("zray_relayed_bytes_total", gcs.transfers.relayed_bytes),
            m.Figure("zray_incidents_total", gcs.incidents.total, ["", HEAD]),
            *processes("", HEAD, [self._pid]),
        ]
