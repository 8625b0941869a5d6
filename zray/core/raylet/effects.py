"""What the Raylet machine wants done to processes and files; its shell does it."""

from __future__ import annotations

from typing import NamedTuple

from zray.core.raylet.local_records import PoolKey
from zray.protocol.messages import Scrape, ReadLog


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


class ReadLogFile(NamedTuple):
    """Effect: read a log of this node, or list them, and tell the head what there is."""

    message: ReadLog


class StartExamination(NamedTuple):
    """Effect: look into a process, for ``seconds`` or once; ``Inspection.examined`` hears of it."""

    number: int
    pid: int
    seconds: float


class EndExamination(NamedTuple):
    """Effect: kill the tool that looks into a process."""

    number: int


class ScrapeNode(NamedTuple):
    """Effect: look what this node and its processes use, and tell the head."""

    message: Scrape


Effect = (
    StartWorker
    | KillWorker
    | FindProcess
    | ReadLogFile
    | StartExamination
    | EndExamination
    | ScrapeNode
)
