"""The raylet on the head's own machine: a child process that ends with its head, however that ends.

Owns the process and the pipe that is its lifeline; what the raylet does is its own business.
"""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
from pathlib import Path

from zray.nodes.options import NodeOptions, encode_node


class OwnRaylet:
    def __init__(self, node: NodeOptions, data: Path) -> None:
        """Start it, first of all: it gets its imports done while the head opens its store."""
        if not node.name:
            node = node._replace(name="head")
        if node.log_directory is None:
            node = node._replace(log_directory=data / "logs")
        self._node = node
        read, self._lifeline = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "zray.nodes.raylet", "--pipe", str(read)],
            pass_fds=(read,),
            stdin=subprocess.DEVNULL,
            env=_import_environment(),
            start_new_session=True,
        )
        os.close(read)

    def feed(self, connection_file: Path, node_id: str, incarnation: int) -> None:
        """Tell it where the head is and who it is itself; until then it waits."""
        description = {
            "connection": str(connection_file),
            "node": encode_node(self._node),
            "node_id": node_id,
            "incarnation": incarnation,
        }
        os.write(self._lifeline, json.dumps(description).encode() + b"\n")

    def runs(self) -> bool:
        return self._process.poll() is None

    def let_go(self) -> None:
        """Tell it to end."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def end(self, timeout_s: float) -> None:
        """Wait for its end, after the timeout by force; what it has started ends with it."""
        self.let_go()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _import_environment() -> dict[str, str]:
    """The environment for a child that shall find this zray, wherever it is started."""
    root = str(Path(__file__).parents[2])
    if root in site.getsitepackages() or root == site.getusersitepackages():
        return {**os.environ}
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}
