"""Which peers are let in: a HELLO that is refused is answered with the reason and what to do."""

from __future__ import annotations

from zray.core.head.control_store import ControlStore
from zray.core.head.identity import HeadIdentity
from zray.core.head.members import Members
from zray.errors import (
    OlderStoreError,
    ProtocolError,
    StoreError,
    VersionMismatchError,
    WrongClusterError,
)
from zray.protocol import messages as m
from zray.protocol.versions import mismatch, work_together

_NAMES = {m.ROLE_NODE: "the node", m.ROLE_DRIVER: "the program", m.ROLE_OBSERVER: "the command"}


class Admission:
    """``identity``: what peers have to agree with."""

    def __init__(self, identity: HeadIdentity, members: Members, store: ControlStore) -> None:
        self._identity = identity
        self._members = members
        self._store = store

    def objection(self, hello: m.Hello, epoch: int) -> m.Refused | None:
        """Why the peer is not let in. ``epoch``: the latest that it knows; 0: it knows none."""
        return self._of_another(hello, epoch) or self._of_another_time(hello, epoch)

    def _of_another(self, hello: m.Hello, epoch: int) -> m.Refused | None:
        """It speaks another protocol or language, or belongs to another cluster or head."""
        identity = self._identity
        mine, theirs = identity.versions, hello.versions
        if not work_together(hello.protocol, hello.minor, pickles=bool(theirs.python)):
            who = _NAMES.get(hello.role, "the peer")
            text = mismatch("the head", who, hello.protocol, hello.minor, theirs.zray)
            return m.Refused(0, VersionMismatchError.code, text)
        if hello.cluster_id and hello.cluster_id != identity.cluster_id:
            text = (
                f"this is cluster {identity.cluster_id.hex()[:8]}, the peer belongs to "
                f"{hello.cluster_id.hex()[:8]}; use that cluster's connection file"
            )
            return m.Refused(0, WrongClusterError.code, text)
        # A backup that is older by one start gives its head the epoch that the peers know.
        forked = epoch == identity.epoch and hello.head_id not in (b"", identity.head_id)
        if epoch > identity.epoch or (forked and identity.head_id):
            self._store.later_epoch = max(epoch, self._store.later_epoch)
            text = f"this head's control store: {self._store.outdated()}"
            return m.Refused(0, OlderStoreError.code, text)
        if theirs.python and theirs.python != mine.python and hello.role != m.ROLE_OBSERVER:
            text = (
                f"this cluster runs Python {mine.python}, the peer Python {theirs.python}: pickled "
                f"functions would not load; use Python {mine.python} there"
            )
            return m.Refused(0, VersionMismatchError.code, text)
        return None

    def _of_another_time(self, hello: m.Hello, epoch: int) -> m.Refused | None:
        """It was given up since, cannot be stored, or does not say what it is."""
        wants = {m.ROLE_NODE: hello.node, m.ROLE_DRIVER: hello.job, m.ROLE_OBSERVER: True}
        if not wants.get(hello.role):
            text = f"HELLO with role {hello.role} and without what that role says of itself"
            return m.Refused(0, ProtocolError.code, text)
        if hello.role == m.ROLE_NODE and self._members.fenced(hello.process_id, hello.incarnation):
            text = f"incarnation {hello.incarnation} of this node was declared dead"
            return m.Refused(0, m.FENCED, text)
        if self._store.trouble and not self._is_stored(hello):
            return self.cannot_store()
        # Jobs are durable before they are welcome: one that is not known any more has ended.
        welcomed = hello.role == m.ROLE_DRIVER and epoch > 0
        if welcomed and hello.process_id not in self._members.jobs:
            lost = "this driver was out of reach, so its job was ended and its objects freed"
            lost = self._members.lost_jobs.get(hello.process_id, lost)
            text = f"{lost}; zray.init() begins another (driver_lost_after_s, --driver-lost-after)"
            return m.Refused(0, m.FENCED, text)
        return None

    def _is_stored(self, hello: m.Hello) -> bool:
        """Whether the peer can be welcome without another row in the store."""
        if hello.role == m.ROLE_NODE:
            row = self._members.node_rows.get(hello.process_id)
            return row is not None and row.alive and row.incarnation == hello.incarnation
        return hello.role == m.ROLE_OBSERVER or hello.process_id in self._members.jobs

    def cannot_store(self) -> m.Refused:
        """The answer to a newcomer while nothing becomes durable."""
        return m.Refused(0, StoreError.code, self._store.trouble)
