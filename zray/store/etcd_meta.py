"""Which cluster an etcd has the state of, read without leading it."""

from __future__ import annotations

import json
from typing import Any

from zray.store import etcd_errors
from zray.store.etcd_address import EtcdAddress
from zray.store.etcd_gateway import EtcdError, Gateway
from zray.store.etcd_layout import Layout


def cluster_id(address: EtcdAddress, layout: Layout, where: str, deadline_s: float) -> bytes | None:
    """The id of the cluster whose state is there; None: there is none.

    Args:
        where: that store, for people.
        deadline_s: of ``time.monotonic``.

    Raises:
        StoreError: it does not answer until then, or what is there cannot be read.
    """
    gateway = Gateway(address)
    try:
        pair, _ = gateway.get(layout.meta, deadline_s)
    except EtcdError as error:
        raise etcd_errors.cannot_open(where, error) from error
    finally:
        gateway.close()
    if pair is None:
        return None
    try:
        found: Any = json.loads(pair.value)
        return bytes.fromhex(found["cluster_id"]) or None
    except (ValueError, TypeError, KeyError) as error:
        raise etcd_errors.damaged(where, f"its key `meta` cannot be read ({error!r})") from error
