"""What the Raylet machine wants done to processes and files; its shell does it."""

from __future__ import annotations

from typing import NamedTuple

from zray.core.raylet.local_records import PoolKey
from zray.protocol.messages import EnvironmentPart, Measure, ReadLog, Scrape


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


class BuildPart(NamedTuple):
    """Effect: build a part of an environment; ``Environments.built`` or ``failed`` hears of it.

    ``data``: the bytes of its package, if it is one.
    """

    part_id: str
    part: EnvironmentPart
    data: bytes | memoryview | None


class EndBuild(NamedTuple):
    """Effect: end the process that builds a part."""

    part_id: str


class RemovePart(NamedTuple):
    """Effect: remove what was built."""

    part_id: str


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
Builds = BuildPart | EndBuild | RemovePart
Effect = StartWorker | KillWorker | FindProcess | Looks | Builds
