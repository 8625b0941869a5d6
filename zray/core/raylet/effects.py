"""What the Raylet machine wants done to processes; its shell does it."""

from __future__ import annotations

from typing import NamedTuple

from zray.core.raylet.local_records import PoolKey


class StartWorker(NamedTuple):
    """Effect: fork a worker. The channel to it can be written to at once."""

    worker_id: bytes
    key: PoolKey


class KillWorker(NamedTuple):
    """Effect: end a worker's process group now."""

    worker_id: bytes


class FindProcess(NamedTuple):
    """Effect: say ``driver_ended`` if the process of that driver of this machine has ended."""

    job_id: bytes
    pid: int


Effect = StartWorker | KillWorker | FindProcess
