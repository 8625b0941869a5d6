"""What each task of a node has printed: which parts of its worker's log, bounded."""

from __future__ import annotations

from typing import Final, NamedTuple

from zray import limits

FILE_ID_MAX: Final = 2**53  # what every language can count


class PrintedPart(NamedTuple):
    """Of a file that has this number, whatever its name."""

    file_id: int
    begin: int
    end: int


class TaskOutput:
    """All that one task has printed, in parts.

    ``dropped``: so many bytes before those are not known any more.
    """

    def __init__(self, worker_id: bytes) -> None:
        self.worker_id = worker_id
        self.parts: list[PrintedPart] = []
        self.dropped = 0

    def add(self, part: PrintedPart) -> None:
        """It has printed more."""
        last = self.parts[-1] if self.parts else None
        if last is not None and (last.file_id, last.end) == (part.file_id, part.begin):
            self.parts[-1] = PrintedPart(part.file_id, last.begin, part.end)
            return
        self.parts.append(part)
        if len(self.parts) > limits.PRINTED_PARTS_MAX:
            gone = self.parts.pop(0)
            self.dropped += gone.end - gone.begin

    def size(self) -> int:
        """Of all that it has printed, in bytes."""
        return self.dropped + sum(part.end - part.begin for part in self.parts)


class Printed:
    """By task; those that have begun to print last are kept."""

    def __init__(self) -> None:
        self._tasks: dict[bytes, TaskOutput] = {}

    def add(self, worker_id: bytes, task_id: bytes, part: PrintedPart) -> None:
        """A task has printed that part of its worker's log."""
        output = self._tasks.get(task_id)
        if output is None or output.worker_id != worker_id:  # of another attempt
            self._tasks.pop(task_id, None)
            output = self._tasks[task_id] = TaskOutput(worker_id)
            if len(self._tasks) > limits.PRINTED_TASKS_KEPT:
                del self._tasks[next(iter(self._tasks))]
        output.add(part)

    def get(self, task_id: bytes) -> TaskOutput | None:
        """What it has printed, as far as is known."""
        return self._tasks.get(task_id)
