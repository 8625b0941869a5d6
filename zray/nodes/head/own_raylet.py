"""The raylet on the head's own machine: started by the head, watched, and started again.

It outlives a head that is killed, waits for the next one as other nodes do, and is adopted by it;
in a local cluster it ends with its head, however that ends. Owns which process it is, from start to
end; what the raylet does is its own business.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zray import limits
from zray._version import __version__
from zray.nodes.head.raylet_process import RayletProcess
from zray.nodes.node_record import DataLock
from zray.nodes.options import NodeOptions, encode_node
from zray.runtime import log_files
from zray.runtime.linux import machine
from zray.runtime.linux.process_handle import ProcessHandle


class OwnRaylet:
    """``say`` is told in words whom it takes over. ``local``: nothing of it outlives the head.

    ``begun``: its process, where that was started before.
    """

    def __init__(
        self,
        node: NodeOptions,
        data: Path,
        say: Callable[[str], None],
        *,
        local: bool,
        begun: RayletProcess | None = None,
    ) -> None:
        """Start it, first of all: it gets its imports done while the head opens its store.

        Where one runs, that waits for `feed`: it may be the node of a head that runs, too.
        """
        if not node.name:
            node = node._replace(name="head")
        if node.log_directory is None:
            node = node._replace(log_directory=data / "logs")
        options = encode_node(node)
        self._signature = json.dumps([__version__, sys.executable, options], sort_keys=True)
        own_log = log_files.declared
        self._start: dict[str, Any] = {"node": options, "log": str(own_log) if own_log else ""}
        if not local:
            self._start |= {"data": str(data), "signature": self._signature}
        self._data = data
        self._say = say
        self._outlives = not local
        self._fed = False
        self._process: RayletProcess | None = None  # None: another head's
        self.handle: ProcessHandle | None = None  # None: none runs
        self._pause_s = 0.0
        if begun is not None:
            self._take(begun)
        elif local or DataLock.holder(data) is None:
            self._take(RayletProcess())

    # ---- begin -----------------------------------------------------------------------------

    def feed(self, connection_file: Path, node_id: str, incarnation: int) -> None:
        """Tell it where the head is and who it is itself; until then it waits.

        Starts another after the end of one. To be called by the one head that may use the data
        directory.

        Raises:
            OSError: no process can be made.
        """
        if self.handle is None and not (self._outlives and self._adopt()):
            self._take(RayletProcess())
        if self._process is not None:
            found = {"connection": str(connection_file), "node_id": node_id}
            self._process.tell({**found, "incarnation": incarnation})
        self._fed = True

    def _adopt(self) -> bool:
        """Take over the one that a killed head has left; one that is not as asked for ends."""
        found = DataLock.holder(self._data)
        if found is None:
            return False
        pid, signature = found
        try:
            self.handle = ProcessHandle(pid)
        except ProcessLookupError:
            return False
        if DataLock.holder(self._data) != found:  # its pid is another's by now
            self._hang_up()
            return False
        if signature == self._signature:
            self._say(f"the node of the head before goes on (pid {pid})")
            return True
        self._say(f"the node of the head before (pid {pid}) was started otherwise, and is replaced")
        self.end(limits.STOP_S / 2)
        return False

    def _take(self, process: RayletProcess) -> None:
        self._process = process
        try:
            self.handle = ProcessHandle(process.child.pid)
        except OSError:
            self._hang_up()
            raise
        self._fed = False
        process.tell(self._start)

    # ---- while it runs ---------------------------------------------------------------------

    def runs(self) -> bool:
        """Whether its process is there."""
        return self.handle is not None and not self.handle.has_ended()

    def ended(self) -> tuple[str, float]:
        """After its end: how it was, in words, and how long to wait before the next begins."""
        assert self.handle is not None
        how = f"its process (pid {self.handle.pid}) has ended"
        if self._process is not None:
            how += f": {_status_text(self._process.child.wait())}"
        began_at = self._process.began_at if self._process is not None else 0.0
        self._hang_up()
        if time.monotonic() - began_at > limits.OWN_NODE_STEADY_S:
            self._pause_s = 0.0
        pause_s, longer = self._pause_s, max(limits.OWN_NODE_RETRY_FIRST_S, self._pause_s * 2)
        self._pause_s = min(longer, limits.OWN_NODE_RETRY_MAX_S)
        return how, pause_s

    # ---- end -------------------------------------------------------------------------------

    def let_go(self) -> None:
        """Tell it to end."""
        if self._outlives and self.handle is not None:
            self.handle.signal(signal.SIGTERM)
        self._close_pipe()

    def leave(self) -> None:
        """Let it wait for the next head, where it can."""
        if self._outlives and (self._fed or self._process is None):
            self._hang_up()
        else:
            self.end(limits.STOP_S / 2)

    def end(self, timeout_s: float) -> None:
        """Wait for its end, after the timeout by force; what it has started ends with it."""
        self.let_go()
        deadline = time.monotonic() + timeout_s
        while self.runs() and time.monotonic() < deadline:
            time.sleep(0.01)
        if self.runs():
            assert self.handle is not None
            self.handle.signal(signal.SIGKILL)
            while self.runs():
                time.sleep(0.01)
        if self._process is not None:
            self._process.child.wait()
        self._hang_up()

    def _hang_up(self) -> None:
        self._close_pipe()
        if self.handle is not None:
            self.handle.close()
        self.handle = self._process = None

    def _close_pipe(self) -> None:
        if self._process is not None:
            self._process.close()


def _status_text(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    return f"killed by {machine.signal_name(-status) or f'signal {-status}'}"
