"""What the store on etcd says when it cannot go on: cause, effect, next step. Raises nothing."""

from __future__ import annotations

from zray.errors import (
    DataDirectoryLockedError,
    FencedError,
    StoreError,
    StoreRefusedError,
)
from zray.store.etcd_wire import EtcdError, NoSpace, Unavailable

_WAIT = "Changes to nodes, actors and jobs wait; the rest goes on."


def led_by(where: str, who: str, waited_s: float) -> DataDirectoryLockedError:
    """Another head leads the cluster, and goes on to do so."""
    return DataDirectoryLockedError(
        f"the control store {where} is in use by another head: {who or 'it is not known which'}; "
        f"this one has waited {waited_s:.0f} s for it. Two heads of one cluster would contradict "
        "each other. Stop the other, or give this cluster another --name."
    )


def cannot_open(where: str, error: EtcdError) -> StoreError:
    """Why it cannot be opened now."""
    if isinstance(error, NoSpace):
        return StoreError(
            f"the control store {where} takes nothing more: its database is full ({error}). The "
            "head does not start. Compact and defragment etcd, then `etcdctl alarm disarm`."
        )
    if isinstance(error, Unavailable):
        return StoreError(
            f"the control store {where} does not answer ({error}). The head does not start, "
            "because it would forget its nodes, actors and jobs. More than half of etcd's members "
            "have to run: see `etcdctl endpoint health`, and check the addresses."
        )
    return StoreError(
        f"the control store {where} refuses this head ({error}). The head does not start. Check "
        "ZRAY_ETCD_USER, ZRAY_ETCD_PASSWORD and what that user may do under /zray/."
    )


def forgotten(where: str) -> StoreError:
    """What is read as of one moment was compacted meanwhile."""
    return StoreError(
        f"the control store {where} was not read as a whole: etcd has compacted its history, and "
        "so what was there when that began. Nothing is wrong with the store: do it again, where "
        "that takes less time, or with a longer --auto-compaction-retention of etcd."
    )


def stalled(where: str, error: Unavailable) -> StoreError:
    """Why nothing can be stored just now."""
    if isinstance(error, NoSpace):
        return StoreError(
            f"the database of the control store {where} is full. {_WAIT} Compact "
            "and defragment etcd, then `etcdctl alarm disarm`: the head recovers by itself."
        )
    return StoreError(
        f"the control store {where} does not answer: {error}. {_WAIT} More than "
        "half of etcd's members have to run: see `etcdctl endpoint health`. If this lasts, the "
        "head stands by until etcd answers again."
    )


def slow(where: str, limit_s: float) -> StoreError:
    """A change takes long, and may still come."""
    return StoreError(
        f"the control store {where} takes longer than {limit_s:g} s for a change. {_WAIT} Look at "
        "the disks of etcd's members (`etcdctl check perf`) and at the network to them."
    )


def fenced(where: str, reason: str) -> FencedError:
    """This head does not lead any more."""
    return FencedError(
        f"this head does not lead the cluster of {where} any more: {reason}. It acknowledges and "
        "says nothing more as its leader; all that it acknowledged is stored. It stands by, and "
        "another head may lead now."
    )


def cannot_write(where: str, error: EtcdError) -> StoreError:
    """etcd refuses what is to be written."""
    return StoreError(
        f"the control store {where} refuses a change: {error}. The head acknowledges nothing "
        "more; all that it acknowledged is stored. Check the rights of its user, and etcd's "
        "--max-request-bytes and --max-txn-ops, which must not be below their defaults. Then "
        "restart the head."
    )


def damaged(where: str, detail: str) -> StoreRefusedError:
    """What is stored is not what was written."""
    return StoreRefusedError(
        f"the control store {where} is damaged: {detail}. The head does not start, because it "
        "would forget its nodes, actors and jobs. Restore a backup under another --name (`zray gcs "
        "restore FILE --store URL --name NAME`), or a snapshot of etcd; or, to begin an empty "
        "cluster, choose another --name."
    )


def newer_schema(where: str, found: int, known: int) -> StoreRefusedError:
    """A later zray has written it."""
    return StoreRefusedError(
        f"the control store {where} was written by a newer zray (schema {found}; this one knows "
        f"{known}). Nothing was changed, and the head does not start. Use that newer zray."
    )
