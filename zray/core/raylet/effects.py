"""What the Raylet machine wants done to processes and files; its shell does it."""

from __future__ import annotations

from typing import NamedTuple

from zray.core.raylet.local_records import PoolKey
from zray.protocol.messages import Measure, ReadLog, Scrape


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


class ReadUsage(NamedTuple):
    """Effect: look what these processes use; ``Measuring.measured`` hears of it."""

    message: Measure
    pids: list[int]


class ScrapeNode(NamedTuple):
    """Effect: tell the head all figures of this node, and what its processes use."""

    message: Scrape


Looks = ReadLogFile | StartExamination | EndExamination | ReadUsage | ScrapeNode
Effect = StartWorker | KillWorker | FindProcess | Looks
