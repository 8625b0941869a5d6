"""Entry of the process: ``python -m zray.dashboard FD``, with the listening socket FD.

A line of JSON on stdin says what is to be served; the end of stdin is the head's end.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from zray.errors import ZrayError
from zray.runtime.log import Log, with_traceback


def main() -> int:
    """Serve until nobody looks any more, or the head ends; the exit code."""
    log = Log("zray-dashboard")
    listening = socket.socket(fileno=int(sys.argv[1]))
    text = b""
    while not text.endswith(b"\n"):
        data = os.read(0, 65536)
        if not data:
            return 0  # the head has ended
        text += data
    start: dict[str, Any] = json.loads(text)
    from zray.dashboard.server import Server
    from zray.runtime.connection import ConnectionInfo

    try:
        info = ConnectionInfo.load(Path(start["connection"]))
        return Server(info, start, listening, log).run()
    except (ZrayError, OSError) as error:
        log(f"the dashboard cannot go on: {with_traceback(error)}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
