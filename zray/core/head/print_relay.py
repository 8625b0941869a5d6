"""What workers print, passed on to the driver of their job."""

from __future__ import annotations

import msgspec

from zray.core.head.members import Member, Members
from zray.core.machine import Outbox
from zray.core.prints import Prints
from zray.protocol.messages import Log


class PrintRelay:
    """``prints``: how much each driver has not read yet."""

    def __init__(self, outbox: Outbox[bytes], members: Members, prints: Prints) -> None:
        self._outbox = outbox
        self._members = members
        self._prints = prints

    def on_log(self, sender: Member, message: Log, now: float) -> None:
        """Pass lines on to the job's driver, if that is there, wants them and reads them."""
        job = self._members.jobs.get(message.job_id)
        if job is not None and job.connected and job.info.wants_logs:
            lines = self._prints.take(job.process_id, message.lines)
            if lines:
                message = msgspec.structs.replace(message, lines=lines)
                self._outbox.send(job.process_id, message)
