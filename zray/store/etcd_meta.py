"""Which cluster an etcd has the state of, read without leading it."""

from __future__ import annotations

from zray.store import etcd_errors
from zray.store.etcd_address import EtcdAddress
from zray.store.etcd_gateway import Gateway
from zray.store.etcd_layout import Damaged, Layout, Meta


def cluster_id(address: EtcdAddress, name: str, deadline_s: float) -> bytes | None:
    """The id of the cluster of that name whose state is there; None: there is none.

    Args:
        deadline_s: of ``time.monotonic``.

    Raises:
        EtcdError: it does not answer until then, or refuses.
        StoreError: what is there cannot be read.
    """
    gateway = Gateway(address)
    try:
        pair, _ = gateway.get(Layout(name).meta, deadline_s)
        return Meta.decode(pair.value).cluster_id if pair is not None else None
    except Damaged as error:
        raise etcd_errors.damaged(address.where(name), str(error)) from error
    finally:
        gateway.close()
