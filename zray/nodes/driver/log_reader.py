"""Reads one log of a node, part after part, as its reader takes them; follows it where it goes on.

Nothing is sent that was not asked for, so a reader that stops makes nobody keep anything.
"""

from __future__ import annotations

from zray import limits
from zray.errors import LogUnavailableError, NotFoundError
from zray.nodes.driver.operator import Operator, Place
from zray.protocol import messages as m

PART_BYTES = limits.LOG_PART_BYTES_MAX
MISSED = "the log was rotated, emptied or removed; a part of it may be missing here"


class LogReader:
    """``task_id``: only what that task has printed.

    ``offset``: what comes next. ``missed``: a part was gone before it could be read. ``remark``: of
    the node, to what it has told last.
    """

    def __init__(
        self, operator: Operator, node_id: bytes, file: m.LogFile, task_id: bytes = b""
    ) -> None:
        self.operator = operator
        self.node_id = node_id
        self.file = file
        self.file_id = 0 if task_id else file.file_id
        self.offset = 0
        self.missed = False
        self.remark = ""
        self._task_id = task_id
        self._said = ""  # the remark that was told last

    def remarks(self) -> list[str]:
        """What whoever reads should know of what came last, each remark once."""
        found = [MISSED] if self.missed else []
        self.missed = False
        if self.remark not in ("", self._said):
            self._said = self.remark
            found.append(self.remark)
        return found

    def seek_tail(self, lines: int) -> None:
        """Begin with the last ``lines`` lines; from behind, so that a long log costs nothing."""
        end = self._part(0, 0).size
        left = lines
        low = end
        if not left:
            self.offset = end
            return
        while low > 0:
            size = min(PART_BYTES, low)
            low -= size
            data = self._part(low, size).data
            if low + size == end and data.endswith(b"\n"):
                data = data[:-1]  # it ends the last line, and begins none
            place = len(data)
            while left and (place := data.rfind(b"\n", 0, place)) >= 0:
                left -= 1
            if not left:
                self.offset = low + place + 1
                return
        self.offset = 0

    def _part(self, offset: int, size: int) -> m.LogPart:
        where = (self.file.name, self.file_id, offset, size, self._task_id)
        return self.operator.read_log(self.node_id, *where)

    def next(self) -> bytes:
        """What comes next of it; nothing: no more is there as yet.

        Where another file has taken its name, that follows it.

        Raises:
            LogUnavailableError: it is not there any more.
        """
        part = self._part(self.offset, PART_BYTES)
        if self.file_id and (part.file_id != self.file_id or part.offset != self.offset):
            self.missed = True  # it was removed, or emptied
        self.remark = part.text
        self.file_id = part.file_id
        self.offset = part.offset + len(part.data)
        if part.rotated:
            self.file_id, self.offset = part.next_id, 0
            if not part.data:
                return self.next()
        return part.data


def read(operator: Operator, place: Place) -> LogReader:
    """A reader of a process's log, or of what a task has printed.

    Raises:
        NotFoundError: no process has it. LogUnavailableError: it has none.
    """
    if place.kind == "task" and place.node_id and place.worker_id:
        name = f"worker-{place.worker_id.hex()}.log"
        whose = (place.worker_id, place.pid, b"", place.title)
        file = m.LogFile(name, 0, 0, 0.0, *whose)
        return LogReader(operator, place.node_id, file, place.subject)
    return LogReader(operator, place.node_id, log_of(operator, place))


def log_of(operator: Operator, place: Place) -> m.LogFile:
    """The log of a process.

    Raises:
        NotFoundError: no process has it. LogUnavailableError: it has none.
    """
    if not place.node_id or (place.kind not in ("head", "node") and not place.worker_id):
        why = place.text or "no process has it now"
        raise NotFoundError(f"{place.in_words()} has no log: {why}")
    (told,) = operator.log_files([place.node_id])
    if told is None:
        raise LogUnavailableError(f"node {place.node} has not told which logs it has")
    if place.worker_id:
        mine = [one for one in told.files if one.worker_id == place.worker_id]
        found = [one for one in mine if one.name.endswith(".log")] or mine
        missing = "it has printed nothing"
    else:
        wanted = {place.kind, "head" if place.node == "head" else place.kind}
        found = [one for one in told.files if one.name in wanted]
        missing = (
            "its output goes to a terminal or a pipe, and is kept nowhere; start it with --detach, "
            "or have it written to a file"
        )
    if not found:
        raise LogUnavailableError(f"{place.in_words()} has no log: {missing}")
    return found[-1]
