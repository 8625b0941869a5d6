"""One generator of another process, as far as its consumer has heard of it."""

from __future__ import annotations

from collections import deque

from zray.protocol.messages import Outcome


class IncomingStream:
    """``came``: how many items are here, without a gap. ``taken``: of these, by the program.

    ``ended``: no more come. ``failed``: with an error, which is the task's own result.
    """

    __slots__ = (
        *("ahead", "came", "closed", "ended", "failed", "limited", "source", "taken", "task_id"),
        "unsettled",
    )

    def __init__(self, task_id: bytes, limited: bool) -> None:
        self.task_id = task_id
        self.limited = limited
        self.source = b""  # the worker, as it was last heard of
        self.came = self.taken = 0
        self.ended = self.failed = self.closed = False
        self.ahead: dict[int, Outcome] = {}  # came before others that precede them
        # Items after these numbers are held here, but the cluster may not know that yet.
        self.unsettled: deque[int] = deque()
