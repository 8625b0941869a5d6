"""Which node a head's own raylet is to the cluster: the same in all lives of that head.

Where a cluster can have one head only, its node is told by the cluster; where it can have several,
by the data directory, which keeps a file for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import socket
import time
from pathlib import Path
from typing import Any

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
        self._file = _NodeFile(data) if shared else None
        salt = self._file.salt if self._file is not None else b""
        self.node_id = hashlib.sha256(b"head's node" + cluster_id + salt).digest()[:16]

    def next_incarnation(self, gcs: Gcs | None) -> int:
        """Higher than all before, with room for those that the node makes up itself.

        ``gcs``: this head's, where it leads.
        """
        if self._file is not None:  # no head but the one that leads knows what is stored
            return self._file.next_incarnation()
        assert gcs is not None
        incarnation = gcs.epoch << 16
        known = gcs.members.node_rows.get(self.node_id)
        if known is not None:
            incarnation = max(incarnation, known.incarnation + 1)
        return incarnation


class _NodeFile:
    """What a directory's node is told by, and its last incarnation, by this machine's clock."""

    def __init__(self, data: Path) -> None:
        self._path = data / _FILE
        self._here = {"host": socket.gethostname(), "directory": os.path.realpath(data)}
        self.salt, self._last = secrets.token_bytes(16), 0
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            found: Any = json.loads(self._path.read_bytes())
            if all(found[name] == value for name, value in self._here.items()):
                last = int(found["incarnation"])
                if 0 <= last < 1 << 52:
                    self.salt, self._last = bytes.fromhex(found["salt"]), last

    def next_incarnation(self) -> int:
        """It is kept, so that a clock that is set back does not make one that was before."""
        self._last = max(self._last + (1 << 16), time.time_ns() // 1000)
        fields = {**self._here, "salt": self.salt.hex(), "incarnation": self._last}
        write_secret_file(self._path, json.dumps(fields).encode())
        return self._last
