"""A term as leader that nobody renews, watches or ends: for what etcd itself refuses."""

from __future__ import annotations

from tests.etcd_cluster import Etcd, encoded
from zray.store.etcd_layout import Layout


class FixedTerm:
    """``Term`` of a leader's key without a lease, made here."""

    def __init__(self, etcd: Etcd, name: str) -> None:
        body = {"key": encoded(Layout(name).leader), "value": encoded(b"of a test")}
        self.revision = int(etcd.ask("kv/put", body)["header"]["revision"])
        self.reason = ""

    def fenced(self) -> str:
        return self.reason

    def lost(self, reason: str) -> None:
        self.reason = reason
