"""The process of a head's own raylet, and the pipe that tells it what to do and of the head's end.

Imports the standard library alone: a local head starts this process before it imports the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
import site
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


class RayletProcess:
    """Started by being made; it gets its imports done, and waits for the first `tell`."""

    def __init__(self) -> None:
        """
        Raises:
            OSError: no process can be made.
        """
        read, self._pipe = os.pipe()
        try:
            self.child = subprocess.Popen(
                [sys.executable, "-P", "-m", "zray.nodes.raylet.own_main", str(read)],
                pass_fds=(read,),
                stdin=subprocess.DEVNULL,
                env=import_environment(),
                start_new_session=True,
            )
        except OSError:
            self.close()
            raise
        finally:
            os.close(read)
        self.began_at = time.monotonic()

    def tell(self, found: dict[str, Any]) -> None:
        """One line for it: first what it shall be, then where the head is (`own_main`)."""
        with contextlib.suppress(BrokenPipeError):  # its end is about to be noticed
            os.write(self._pipe, json.dumps(found).encode() + b"\n")

    def close(self) -> None:
        """Close the pipe: to the process this is the head's end. Twice does nothing."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


def import_environment() -> dict[str, str]:
    """The environment for a child that shall find this zray, wherever it is started."""
    root = str(Path(__file__).parents[2])
    if root in site.getsitepackages() or root == site.getusersitepackages():
        return {**os.environ}
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}
