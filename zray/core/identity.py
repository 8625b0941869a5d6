"""Who a process is, for the machines that speak in its name.

A worker's machines are made before it is: in the zygote, from which it is then forked.
"""

from __future__ import annotations

from zray.ids import IdSource

NOBODY = bytes(16)  # no process, and no job yet


class Identity:
    """``job_id``: as it is by then. ``pid``: 0 where nobody is told of it.

    ``new_task`` makes the id of a task, or of a value that is put.
    """

    __slots__ = ("_ids", "job_id", "new_task", "pid", "process_id")

    def __init__(self, process_id: bytes, job_id: bytes, ids: IdSource) -> None:
        self.process_id = process_id
        self.job_id = job_id
        self.pid = 0
        self._ids = ids
        self.new_task = ids.task_id

    def become(self, process_id: bytes, pid: int, random_bytes: bytes) -> None:
        """In a new process: this one, whose ids begin with these 8 bytes."""
        self.process_id = process_id
        self.pid = pid
        self._ids.renew(random_bytes)
