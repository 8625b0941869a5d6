"""The port of a head's page, and the process that serves it: started when somebody first comes.

The head only listens, and accepts nothing: whoever connects waits in the socket's queue until the
process, which inherits the socket, accepts. While that runs the head does not look at the socket.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zray import limits
from zray.core.incidents import Incidents
from zray.errors import DashboardError, PortInUseError, StartError
from zray.nodes.head.raylet_process import import_environment
from zray.nodes.options import DashboardOptions
from zray.runtime.connection import format_address
from zray.runtime.linux import machine
from zray.runtime.linux.process_handle import ProcessHandle
from zray.runtime.log import Log
from zray.runtime.loop import Loop

BACKLOG = 128
WHAT = "serving the dashboard"


class Dashboard:
    """First it is bound; then it serves."""

    def __init__(
        self, options: DashboardOptions, loop: Loop, log: Log, incidents: Incidents
    ) -> None:
        self._incidents = incidents
        self._options = options
        self._loop = loop
        self._log = log
        self._socket: socket.socket | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._handle: ProcessHandle | None = None
        self._began = 0.0
        self._pause_s = 0.0
        self._again_at = 0.0  # when the socket is looked at again; 0: it is, or need not be
        self._codes_after_s = time.time()  # logins with older codes may have been used before
        self.url = ""

    # ---- port ------------------------------------------------------------------------------

    def bind(self) -> str:
        """Listen, and return the address of the page; empty: none is wanted, or can be had.

        Raises:
            PortInUseError: the port that was asked for is taken. StartError: there is no such host,
                or certificate.
        """
        host, port = self._options.host, self._options.port
        if not self._options.wanted:
            return ""
        if self._options.cert:
            _check_certificate(self._options.cert, self._options.key)
        usual = limits.DASHBOARD_PORT
        tried = (
            [port] if port is not None else [*range(usual, usual + limits.DASHBOARD_PORTS_TRIED), 0]
        )
        for one in tried:
            try:
                self._socket = _listening(host, one)
            except OSError as error:
                if error.errno == errno.EADDRINUSE and one != tried[-1]:
                    continue
                raise _reason(error, host, one) from None
            break
        assert self._socket is not None
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        scheme = "https" if self._options.cert else "http"
        self.url = f"{scheme}://{format_address(shown, self._socket.getsockname()[1])}"
        return self.url

    def serve(self, connection_file: Path, warn: Callable[[str], None]) -> None:
        """From now on whoever connects finds it. ``warn`` is told when its process dies."""
        self._warn = warn
        self._connection_file = connection_file
        if self._socket is not None:
            self._loop.watch(self._socket, self._begin)

    # ---- process ---------------------------------------------------------------------------

    def _begin(self) -> None:
        """Somebody has connected."""
        assert self._socket is not None
        self._loop.unwatch(self._socket)
        self._began = self._loop.now()
        fd = self._socket.fileno()
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "zray.dashboard", str(fd)],
                pass_fds=(fd,),
                stdin=subprocess.PIPE,
                env=import_environment(),
                start_new_session=True,
            )
            self._handle = ProcessHandle(self._child.pid)
            self._tell(self._child)
        except OSError as error:
            self._failed(f"its process cannot be started: {error}")
            self._end_child()
            return
        self._loop.watch(self._handle, self._ended)

    def _tell(self, child: subprocess.Popen[bytes]) -> None:
        """What it has to know; the end of the pipe is the head's end."""
        assert child.stdin is not None
        found: dict[str, Any] = {
            "connection": str(self._connection_file),
            "host": self._options.host,
            "names": self._options.names,
            "idle_s": self._options.idle_s,
            "cert": self._options.cert,
            "key": self._options.key,
            "codes_after_s": self._codes_after_s,
        }
        with contextlib.suppress(BrokenPipeError):  # its end is about to be noticed
            os.write(child.stdin.fileno(), json.dumps(found).encode() + b"\n")

    def _ended(self) -> None:
        assert self._child is not None and self._handle is not None
        self._loop.unwatch(self._handle)
        status = self._child.wait()
        self._codes_after_s = time.time()
        self._end_child()
        if status == 0:
            self._pause_s = 0.0
            self._watch()
        else:
            name = machine.signal_name(-status) or f"signal {-status}"
            how = f"killed by {name}" if status < 0 else f"status {status}"
            self._failed(f"its process has ended ({how})")

    def _failed(self, how: str) -> None:
        """It is started again when somebody connects; not at once if it fails again and again."""
        now = self._loop.now()
        if now - self._began > limits.DASHBOARD_STEADY_S:
            self._pause_s = 0.0
        pause_s = self._pause_s
        longer = max(limits.DASHBOARD_RETRY_FIRST_S, pause_s * 2)
        self._pause_s = min(longer, limits.DASHBOARD_RETRY_MAX_S)
        when = f" after {pause_s:g} s" if pause_s else ""
        text = f"{how}; it is started again{when} when somebody connects"
        self._incidents.record(WHAT, "", DashboardError(text), now)
        self._warn(f"the dashboard: {text}")
        if pause_s:
            self._again_at = now + pause_s
        else:
            self._watch()

    def _watch(self) -> None:
        self._again_at = 0.0
        if self._socket is not None:
            self._loop.watch(self._socket, self._begin)

    def tend(self) -> None:
        """Look at the socket again once a pause is over."""
        if self._again_at and self._loop.now() >= self._again_at:
            self._watch()

    def _end_child(self) -> None:
        if self._child is not None and self._child.stdin is not None:
            self._child.stdin.close()
        if self._handle is not None:
            self._handle.close()
        self._child = self._handle = None

    # ---- end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Listen no more, and end the process."""
        if self._socket is not None:
            self._loop.unwatch(self._socket)
            self._socket.close()
        child, handle = self._child, self._handle
        if child is None or handle is None:
            return
        self._loop.unwatch(handle)
        assert child.stdin is not None
        child.stdin.close()
        try:
            child.wait(limits.STOP_S / 10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        self._end_child()


def _listening(host: str, port: int) -> socket.socket:
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(BACKLOG)
        found.setblocking(False)
    except OSError:
        found.close()
        raise
    return found


def _check_certificate(cert: str, key: str) -> None:
    """See at the start whether browsers could be served with it."""
    import ssl  # loaded where it is asked for

    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key or None, password=lambda: "")
    except (OSError, ValueError) as error:  # SSLError is one
        files = f"{cert} and {key}" if key else cert
        raise StartError(
            f"the dashboard cannot be encrypted with {files}: {error}; give PEM files: the "
            "certificate with its chain, and the private key that belongs to it, without a "
            "passphrase (--dashboard-cert, --dashboard-key)"
        ) from None


def _reason(error: OSError, host: str, port: int) -> Exception:
    address = format_address(host, port)
    if error.errno == errno.EADDRINUSE:
        return PortInUseError(
            f"the dashboard cannot listen on {address}: the port is taken; choose another one, or "
            "none at all (--dashboard-port, --no-dashboard; dashboard_port=, "
            "include_dashboard=False)"
        )
    return StartError(
        f"the dashboard cannot listen on {address}: {error.strerror}; use 127.0.0.1 for this "
        "machine only, or an address of it"
    )
