"""A driver's account of itself: what the cluster, and its own workers, are told of the program."""

from __future__ import annotations

import getpass
import os
import socket
import sys

from zray import limits
from zray.api.submitted_job import submission_id
from zray.protocol import messages as m
from zray.protocol.errors import cut_text

CALL_SITES = ("ZRAY_RECORD_CALL_SITE", "RAY_record_ref_creation_sites")  # variables


def job_info(
    wants_logs: bool, namespace: str, lost_after_s: float, logging: m.LogSettings | None
) -> m.JobInfo:
    """What this program says of itself when it joins a cluster; see JobInfo."""
    script = sys.argv[0] if sys.argv else ""
    path = sys.path
    try:
        directory = os.getcwd()
        script = os.path.abspath(script) if script else ""
        path = [os.path.abspath(entry) for entry in path]
    except OSError:  # it was removed, or may not be read
        directory = ""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = str(os.getuid())
    return m.JobInfo(
        _readable(script[:4096]),
        _readable(directory),
        [_readable(entry) for entry in path],
        own_machine(),
        *(socket.gethostname(), os.getpid(), user, wants_logs, namespace, lost_after_s),
        logging,
        any(os.environ.get(name, "").lower() in ("1", "true") for name in CALL_SITES),
        submission_id(),
    )


def _readable(path: str) -> str:
    """A path for a message; one that is no text (bytes of another encoding) has escapes."""
    return cut_text(path, limits.TEXT_MAX)


def own_machine() -> str:
    """Equal for processes that share a machine and its files; as the raylets say it."""
    if sys.platform != "linux":
        return ""
    from zray.runtime.linux.machine import machine_id

    return machine_id()
