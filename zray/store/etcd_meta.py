"""Which cluster an etcd has the state of, read without leading it."""

from __future__ import annotations

from zray.store import etcd_errors
from zray.store.etcd_address import EtcdAddress
from zray.store.etcd_gateway import Gateway
from zray.store.etcd_layout import Damaged, Layout, Meta
from zray.store.etcd_wire import EtcdError


def cluster_id(address: EtcdAddress, name: str, deadline_s: float) -> bytes | None:
    """The id of the cluster of that name whose state is there; None: there is none.

    Args:
        deadline_s: of ``time.monotonic``.

    Raises:
        StoreError: it does not answer until then, or what is there cannot be read.
    """
    gateway, where = Gateway(address), address.where(name)
    try:
        pair, _ = gateway.get(Layout(name).meta, deadline_s)
        return Meta.decode(pair.value).cluster_id if pair is not None else None
    except EtcdError as error:
        raise etcd_errors.cannot_open(where, error) from error
    except Damaged as error:
        raise etcd_errors.damaged(where, str(error)) from error
    finally:
        gateway.close()
