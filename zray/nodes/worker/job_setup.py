"""How a worker takes the place of its job's driver: directory, import path, logging, call sites."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

from zray.protocol import messages as m


def take_place(worker: Any, setup: m.Setup) -> None:
    """Be as the driver's process, as far as this machine has what that has."""
    job = setup.job
    if setup.local:
        with contextlib.suppress(OSError):
            os.chdir(job.directory)
        _add_paths(job.python_path)
    if setup.directory:
        os.chdir(setup.directory)
    _add_paths(setup.python_path)
    if job.records_sites:
        from zray.nodes.participant import call_sites  # rarely wanted

        call_sites.record(worker)
    if job.logging is not None:
        from zray.nodes.worker import log_context  # which loads logging

        log_context.configure(worker, setup, job.logging)


def _add_paths(paths: list[str]) -> None:
    known = set(sys.path)
    sys.path[:0] = [path for path in paths if path not in known]
