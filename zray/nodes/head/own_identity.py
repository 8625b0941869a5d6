"""Which node a head's own raylet is to the cluster: the same in all lives of that head.

Where a cluster can have one head only, its node is told by the cluster; where it can have several,
by the data directory, which keeps a file for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import time
from pathlib import Path

from zray.core.head.gcs import Gcs
from zray.runtime.keys import write_secret_file

_FILE = "node.json"


class OwnIdentity:
    """``shared``: other heads of the cluster may have nodes of their own, from other directories.

    A copy of a data directory, with this head's file in it, is another node.
    """

    def __init__(self, cluster_id: bytes, data: Path, *, shared: bool) -> None:
        """
        Raises:
            KeyFileError: the file cannot be written.
        """
        self._shared = shared
        salt = _salt(data) if shared else b""
        self.node_id = hashlib.sha256(b"head's node" + cluster_id + salt).digest()[:16]
        self._last = 0

    def next_incarnation(self, gcs: Gcs | None) -> int:
        """Higher than all before. ``gcs``: this head's, where it leads."""
        if self._shared:  # no head but the one that leads knows what is stored
            self._last = max(self._last + 1, time.time_ns() // 1000)
            return self._last
        assert gcs is not None
        incarnation = gcs.epoch << 16  # room for those that it makes up itself
        known = gcs.members.node_rows.get(self.node_id)
        if known is not None:
            incarnation = max(incarnation, known.incarnation + 1)
        return incarnation


def _salt(data: Path) -> bytes:
    """What this directory's node is told by; made where there is nothing, or another's."""
    path = data / _FILE
    here = {"host": socket.gethostname(), "directory": os.path.realpath(data)}
    try:
        found = json.loads(path.read_bytes())
        if found == {**here, "salt": found["salt"]}:
            return bytes.fromhex(found["salt"])
    except (OSError, ValueError, LookupError, TypeError):
        pass
    salt = secrets.token_hex(16)
    write_secret_file(path, json.dumps({**here, "salt": salt}).encode())
    return bytes.fromhex(salt)
