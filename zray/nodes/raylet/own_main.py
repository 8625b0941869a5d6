"""Entry of the raylet that a head starts: ``python -m zray.nodes.raylet.own_main FD``.

From the pipe FD come two lines of JSON, of which the second follows once the head serves; its end
is the head's end. What it then does depends on the first: see `own_raylet`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zray import limits
from zray.errors import KeyFileError, ZrayError
from zray.nodes.node_record import DataLock, NodeRecord
from zray.nodes.options import NodeOptions, decode_node
from zray.nodes.raylet.raylet import Lifeline, RayletNode, run_to_end
from zray.runtime import log_files
from zray.runtime.connection import ConnectionInfo
from zray.runtime.linux.processes import set_process_name


def main() -> None:
    fd = int(sys.argv[1])
    set_process_name("zray-raylet")
    with contextlib.ExitStack() as stack:
        with os.fdopen(os.dup(fd), "rb") as pipe:
            start = _line(pipe)
            outlives = "data" in start
            if outlives:
                data = Path(start["data"])
                lock = DataLock(data, start["signature"])
                stack.enter_context(contextlib.closing(lock))
            found = _line(pipe)
        path = Path(found["connection"])
        info = ConnectionInfo.load(path)
        options = decode_node(start["node"])
        log_files.declared = Path(start["log"]) if start["log"] else None

        def logs_to(log: Path) -> None:
            node.own_log.move_to(log, rotates=True)

        lifeline = _outliving(fd, path, options, lock, logs_to) if outlives else Lifeline(fd)
        chosen = (bytes.fromhex(found["node_id"]), int(found["incarnation"]))
        node = RayletNode(info, info.addresses, options, lifeline, chosen=chosen)
        if outlives:
            try:
                stack.enter_context(contextlib.closing(NodeRecord(info.cluster_id)))
            except (OSError, KeyFileError) as error:
                node.log(f"zray stop will not find this node if its head is killed: {error}")
        run_to_end(node)
        if outlives and node.is_orphan:
            node.log(f"stopped: {node.stop_reason}")


def _line(pipe: Any) -> dict[str, Any]:
    line = pipe.readline()
    if not line:
        sys.exit(0)  # the head did not come up
    found: dict[str, Any] = json.loads(line)
    return found


def _outliving(
    fd: int,
    connection_file: Path,
    options: NodeOptions,
    lock: DataLock,
    logs_to: Callable[[Path], None],
) -> Lifeline:
    """It goes on when its head ends, which may come back at another port.

    ``logs_to``: told where its output goes then.
    """

    def ended() -> str:
        print(
            f"zray-worker: its head has ended; node {options.name} waits for the next one, "
            f"at most {limits.HEAD_LOST_GRACE_S / 60:g} min",
            file=sys.stderr,
            flush=True,
        )
        # Who reads what the head says, a terminal or a pipe, does not wait for its node's end.
        with contextlib.suppress(OSError):
            assert options.log_directory is not None
            options.log_directory.mkdir(mode=0o700, exist_ok=True)  # not the data directory anew
            log = options.log_directory / "node.log"
            new = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.dup2(new, 1)
            os.dup2(new, 2)
            os.close(new)
            logs_to(log)
        return ""

    def addresses() -> list[str]:
        if lock.is_void():  # the next head starts another node in this one's place
            os.kill(os.getpid(), signal.SIGTERM)
        with contextlib.suppress(KeyFileError):
            return ConnectionInfo.load(connection_file).addresses
        return []

    return Lifeline(fd, ended, addresses)


if __name__ == "__main__":
    try:
        main()
    except (ZrayError, OSError) as error:
        sys.exit(f"zray-worker: {error}")
