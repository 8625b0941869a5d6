"""What heads that a test killed have left: their own nodes, which wait for the next head."""

from __future__ import annotations

from pathlib import Path

import psutil

from zray.nodes.node_record import lock_holder


def end_nodes(home: Path, timeout_s: float) -> None:
    """End every node that is recorded below this ZRAY_HOME; by force after the timeout."""
    found = [lock_holder(path) for path in (home / "running").glob("*.json")]
    nodes = [node for node in found if node is not None]
    for node in nodes:
        try:
            node.resume()
            node.terminate()
        except psutil.NoSuchProcess:
            continue
    for node in psutil.wait_procs(nodes, timeout_s)[1]:
        node.kill()
