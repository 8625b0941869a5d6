"""Where a head keeps its state, and the key that belongs to it. Opens nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from zray import limits
from zray.core.head import stored_version
from zray.core.head.gcs import Gcs
from zray.core.head.identity import HeadIdentity
from zray.core.incidents import Incidents
from zray.errors import StartError, StoreRefusedError
from zray.nodes.options import HeadOptions
from zray.runtime.keys import ClusterKey
from zray.store import moved
from zray.store.base import Rows, Store
from zray.store.memory import MemoryStore

if TYPE_CHECKING:  # loaded where the store is shared
    from zray.store.fencing import Term


def make_store(options: HeadOptions, data: Path) -> Store:
    """The store of a head that keeps its state in its own memory or directory, not opened."""
    if options.local:
        return MemoryStore()
    from zray.store.sqlite import SqliteStore

    return SqliteStore(data)


class SharedStore:
    """Where the heads of a cluster keep their state together: in an etcd.

    What says how to enter it leaves the environment, which nodes and tasks inherit.

    Raises:
        ValueError: it is no address of one.
        StoreError: what it needs is not installed, or cannot be read.
    """

    def __init__(self, options: HeadOptions) -> None:
        from zray.store import etcd_address

        self._options = options
        self.name = options.name
        self.address = etcd_address.parse(options.store, os.environ)
        for name in etcd_address.VARIABLES:
            os.environ.pop(name, None)

    def make(self, term: Term) -> Store:
        """The store for one term of this head's, not opened."""
        from zray.store.etcd import EtcdStore

        return EtcdStore(self.address, self.name, term)

    def key(self, data: Path) -> ClusterKey:
        """That of the data directory; a new one for a new cluster.

        A store that does not answer just now is waited for later where there is a key. Without one
        it has to be known first whether there is a cluster.

        Raises:
            StartError, KeyFileError: as ``cluster_key``.
            StoreError: the store refuses this head, or does not answer and there is no key.
        """
        from zray.store import etcd_errors, etcd_meta
        from zray.store.etcd_wire import EtcdError, Unavailable

        has_key = os.path.lexists(data / "cluster.key")
        patience_s = limits.STORE_LOOK_S if has_key else limits.LEADER_WAIT_S
        try:
            found = etcd_meta.cluster_id(self.address, self.name, time.monotonic() + patience_s)
        except EtcdError as error:
            if has_key and isinstance(error, Unavailable):
                return ClusterKey.load_or_create(data / "cluster.key")
            raise etcd_errors.cannot_open(self.address.where(self.name), error) from error
        return cluster_key(self._options, data, found)

    def check(self, data: Path, cluster_id: bytes | None) -> None:
        """Whether the key of the data directory is that of the cluster that is stored.

        Raises:
            StartError: it is not.
        """
        cluster_key(self._options, data, cluster_id)


def make_gcs(
    identity: HeadIdentity, rows: Rows, now: float, incidents: Incidents, where: str
) -> Gcs:
    """The machines of a head that goes on with what its store has. ``where``: that store.

    Raises:
        StoreRefusedError: this version cannot.
    """
    try:
        objection = stored_version.objection(rows)
        if objection:
            raise StoreRefusedError(objection)
        objection = moved.objection(rows)
        if objection:
            raise StoreRefusedError(f"the control store {where} {objection}")
        return Gcs(identity, rows, now, incidents)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreRefusedError(
            f"the control store {where} has a record that zray {identity.versions.zray} cannot "
            f"read ({error}). The head does not start, because it would forget it. Use the version "
            "that wrote it, or restore a backup"
        ) from error


def cluster_key(options: HeadOptions, data: Path, cluster_id: bytes | None) -> ClusterKey:
    """The key of the cluster ``cluster_id`` that the store is of; a new one for a new cluster.

    Raises:
        StartError: store and data directory do not belong together.
        KeyFileError: the key's file cannot be used.
    """
    if options.local:
        return ClusterKey.create()
    path = data / "cluster.key"
    if cluster_id is not None and not os.path.lexists(path):
        raise StartError(
            f"the control store has the state of cluster {cluster_id.hex()}, whose key is not "
            f"there: {path}. Copy the file cluster.key from the data directory of a head that has "
            "led this cluster, with mode 0600"
        )
    if cluster_id is None and options.store and (data / "gcs.sqlite").exists():
        raise StartError(
            f"{data / 'gcs.sqlite'} has the state of a cluster, and {options.store} has none for "
            "this name: to start would forget it. Start the head without --store; or, to begin an "
            "empty cluster, give it another --data-directory"
        )
    key = ClusterKey.load_or_create(path)
    if cluster_id not in (None, key.cluster_id):
        raise StartError(
            f"{options.store or data} holds the state of another cluster than {path} is of; "
            "restore the key that belongs to it, or start with an empty --data-directory"
        )
    return key
