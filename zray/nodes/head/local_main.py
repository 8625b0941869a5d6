"""Entry of a driver's own head: ``python -m zray.nodes.head.local_main OPTIONS READY LIFELINE``.

OPTIONS is JSON, the other two are descriptors. READY gets one line of JSON: where the connection
file is, or the error. The end of the pipe LIFELINE is the driver's.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from zray.nodes.head.raylet_process import RayletProcess

if TYPE_CHECKING:
    from zray.runtime.connection import ConnectionInfo


def main() -> int:
    """Run it; the process's exit code."""
    text, ready, lifeline = sys.argv[1:]
    raylet = RayletProcess()
    # Now the imports that take long: this head's beside its raylet's.
    from zray.errors import ZrayError
    from zray.nodes.head.head import serve
    from zray.nodes.options import decode_head
    from zray.runtime import connection

    serves = False

    def on_ready(info: ConnectionInfo) -> None:
        nonlocal serves
        serves = True
        path = str(connection.connection_path(info.name))
        _tell(int(ready), {"connection": path, "address": info.addresses[0], "pid": info.pid})

    try:
        serve(decode_head(text), on_ready, int(lifeline), raylet)
    except (ZrayError, ValueError, OSError) as error:
        if serves:
            print(f"zray-head: {error}", file=sys.stderr)
        else:
            _tell(int(ready), {"error": str(error), "code": getattr(error, "code", "")})
        return 1
    return 0


def _tell(fd: int, found: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the driver is gone, which LIFELINE tells
        os.write(fd, json.dumps(found).encode() + b"\n")
    os.close(fd)


if __name__ == "__main__":
    sys.exit(main())
