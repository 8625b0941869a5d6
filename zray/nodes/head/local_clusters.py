"""Clusters that belong to one program: what those leave that were killed."""

from __future__ import annotations

from pathlib import Path

from zray.runtime import connection


def sweep() -> None:
    """Remove what drivers that were killed, and their heads too, have left behind."""
    import shutil

    for directory in (connection.home() / "clusters").glob(f"{connection.LOCAL_PREFIX}*"):
        pid = directory.name.removeprefix(connection.LOCAL_PREFIX).split("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(directory, ignore_errors=True)
