"""What workers print, and how far they are, passed on to the driver of their job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from zray import limits
from zray.core.head.members import JobMember, Member, Members
from zray.core.machine import Outbox
from zray.core.pace import Pace
from zray.core.prints import Prints
from zray.protocol.messages import Log, Message, Progress

_BAR_BYTES = 64  # what a bar costs besides its label


class PrintRelay:
    """``prints``: how much each driver has not read yet."""

    def __init__(self, outbox: Outbox[bytes], members: Members, prints: Prints) -> None:
        self._outbox = outbox
        self._members = members
        self._prints = prints
        self._pace = Pace(limits.PROGRESS_HEAD_PER_S)
        self.handlers: dict[type[Message], Callable[[Any, Any, float], None]] = {
            Log: self.on_log,
            Progress: self.on_progress,
        }

    def on_log(self, sender: Member, message: Log, now: float) -> None:
        """Pass lines on to the job's driver, if that is there, wants them and reads them."""
        if (job := self._reader(message.job_id)) is not None:
            lines = self._prints.take(job.process_id, message.lines)
            if lines:
                message = msgspec.structs.replace(message, lines=lines)
                self._outbox.send(job.process_id, message)

    def on_progress(self, sender: Member, message: Progress, now: float) -> None:
        """The same with how far tasks are. Where there is too much of that, only ends are told."""
        if (job := self._reader(message.job_id)) is None:
            return
        paced = self._pace.allows(now)
        bars = message.bars if paced else [bar for bar in message.bars if bar.ended]
        size = sum(len(bar.label) + _BAR_BYTES for bar in bars)
        if bars and self._prints.fits(job.process_id, size):
            message = msgspec.structs.replace(message, bars=bars)
            self._outbox.send(job.process_id, message)

    def _reader(self, job_id: bytes) -> JobMember | None:
        """The job, if its driver is there and wants to see what its tasks say."""
        job = self._members.jobs.get(job_id)
        if job is not None and job.connected and job.info.wants_logs:
            return job
        return None
