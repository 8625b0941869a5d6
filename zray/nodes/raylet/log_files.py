"""The logs that a node keeps: which there are, and parts of them, for whoever asks.

A name from outside chooses among them and never makes a path: those of workers are matched whole
against what the node itself calls them, those of daemons are what their stderr is.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from zray import limits
from zray.core.raylet.inspection import WorkerFacts
from zray.core.raylet.printed import FILE_ID_MAX, TaskOutput
from zray.errors import LogUnavailableError
from zray.protocol import messages as m

NODE = "node"
HEAD = "head"
OF_WORKER = re.compile(r"worker-([0-9a-f]{32})\.log(\.[0-9]{1,6})?")
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class LogFiles:
    """``directory``: of its workers' logs. ``facts``, ``output``: what the machine knows of a
    worker, and of what a task has printed."""

    def __init__(
        self,
        directory: Path | None,
        facts: Callable[[bytes], WorkerFacts | None],
        output: Callable[[bytes], TaskOutput | None],
    ) -> None:
        self._directory = directory
        self._facts = facts
        self._output = output

    def answer(self, asked: m.ReadLog) -> m.Message:
        """What there is, or a part of one; why that cannot be read is in the answer."""
        try:
            if asked.task_id:
                return self._of_task(asked)
            return self._part(asked) if asked.name else self._list(asked)
        except OSError as error:
            text = f"its log cannot be read: {error.strerror or error}"
            return self._refusal(asked, text)

    @staticmethod
    def _refusal(asked: m.ReadLog, text: str) -> m.LogPart:
        told = (asked.file_id, asked.offset, 0, b"", False, LogUnavailableError.code, text)
        return m.LogPart(0, asked.source, asked.seq, *told)

    # ---- which there are -------------------------------------------------------------------

    def _list(self, asked: m.ReadLog) -> m.LogFiles:
        found = [*self._daemons(asked.head_pid)]
        found += sorted(self._workers(), key=lambda one: one.modified_s)
        left_out = max(0, len(found) - limits.LOG_FILES_TOLD_MAX)
        return m.LogFiles(0, asked.source, asked.seq, found[left_out:], left_out)

    def _daemons(self, head_pid: int) -> Iterator[m.LogFile]:
        seen = set()
        for name, pid in ((HEAD, head_pid), (NODE, os.getpid())):
            about = _regular(f"/proc/{pid}/fd/2") if pid else None
            if about is not None and about.st_ino not in seen:
                seen.add(about.st_ino)
                yield _file(name, about, b"", pid, b"", "", alive=True)

    def _workers(self) -> Iterator[m.LogFile]:
        if self._directory is None or not self._directory.is_dir():
            return
        with os.scandir(self._directory) as entries:
            for entry in islice(entries, limits.LOG_FILES_SCANNED_MAX):
                match = OF_WORKER.fullmatch(entry.name)
                if match is None or not entry.is_file(follow_symlinks=False):
                    continue
                try:
                    about = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # it has just been removed
                    continue
                worker_id = bytes.fromhex(match[1])
                facts = self._facts(worker_id) or WorkerFacts(0, b"", "", False)
                whose = (facts.pid, facts.job_id, facts.title[: limits.NAME_MAX])
                yield _file(entry.name, about, worker_id, *whose, alive=facts.alive)

    # ---- a part ----------------------------------------------------------------------------

    def _part(self, asked: m.ReadLog) -> m.LogPart:
        current = self._path(asked.name, asked.head_pid)
        if current is None:
            return self._refusal(asked, f"{asked.name!r} is not the name of a log on this node")
        fd = _open(current)
        if fd < 0 or (asked.file_id and _id(os.fstat(fd)) != asked.file_id):
            before = self._before(current, asked.file_id)
            if before:
                if fd >= 0:
                    os.close(fd)
                return self._read(asked, _open(before), asked.offset, _later(before, current))
        if fd < 0:
            return self._refusal(asked, f"the log {asked.name} is not there, or not any more")
        is_it = asked.file_id in (0, _id(os.fstat(fd)))
        return self._read(asked, fd, asked.offset if is_it else 0, -1)

    def _path(self, name: str, head_pid: int) -> str | None:
        if name in (NODE, HEAD):
            pid = os.getpid() if name == NODE else head_pid
            return f"/proc/{pid}/fd/2" if pid else None
        if self._directory is None or OF_WORKER.fullmatch(name) is None:
            return None
        return str(self._directory / name)

    @staticmethod
    def _before(current: str, file_id: int) -> str:
        """The file that has another name by now; empty: it is gone."""
        path = Path(os.readlink(current) if current.startswith("/proc/") else current)
        older = re.compile(re.escape(path.name) + r"\.[0-9]{1,6}")
        if not file_id or not path.parent.is_dir():
            return ""
        with os.scandir(path.parent) as entries:
            for entry in islice(entries, limits.LOG_FILES_SCANNED_MAX):
                if older.fullmatch(entry.name) and entry.inode() % FILE_ID_MAX == file_id:
                    return entry.path
        return ""

    def _read(self, asked: m.ReadLog, fd: int, offset: int, next_id: int) -> m.LogPart:
        """``next_id``: of the file that follows; -1: this is the last."""
        if fd < 0:
            return self._refusal(asked, f"the log {asked.name} is not there any more")
        try:
            about = os.fstat(fd)
            if offset > about.st_size:
                offset = 0  # it was emptied
            data = os.pread(fd, min(asked.size, limits.LOG_PART_BYTES_MAX), offset)
        finally:
            os.close(fd)
        ended = next_id >= 0 and offset + len(data) >= about.st_size
        told = (_id(about), offset, about.st_size, data, ended, "", "", next_id if ended else 0)
        return m.LogPart(0, asked.source, asked.seq, *told)

    # ---- what a task has printed -----------------------------------------------------------

    def _of_task(self, asked: m.ReadLog) -> m.LogPart:
        """The pieces of its worker's log that are the task's, as if they were one file."""
        output = self._output(asked.task_id)
        if output is None or self._directory is None:
            text = (
                "nothing that the task has printed is known on its node: it has printed nothing, "
                "or so long ago that the node has forgotten"
            )
            return m.LogPart(0, asked.source, asked.seq, 1, text=text)
        current = str(self._directory / f"worker-{output.worker_id.hex()}.log")
        place, size, text = output.dropped, output.size(), ""
        begin, data = max(asked.offset, place), b""
        most = min(asked.size, limits.LOG_PART_BYTES_MAX)
        for part in output.parts:
            here, place = place, place + part.end - part.begin
            if place <= begin + len(data):
                continue
            if len(data) >= most:
                break
            low = part.begin + begin + len(data) - here
            piece = self._piece(current, part.file_id, low, min(part.end - low, most - len(data)))
            if piece is None and data:
                break
            if piece is None:
                begin, text = place, "a part of what it has printed is gone: its log was removed"
            else:
                data += piece
        told = (1, begin, size, data, False, "", text)
        return m.LogPart(0, asked.source, asked.seq, *told)

    def _piece(self, current: str, file_id: int, offset: int, size: int) -> bytes | None:
        fd = _open(current)
        if fd >= 0 and _id(os.fstat(fd)) != file_id:
            os.close(fd)
            before = self._before(current, file_id)
            fd = _open(before) if before else -1
        if fd < 0:
            return None
        try:
            return os.pread(fd, size, offset)
        finally:
            os.close(fd)


def _later(renamed: str, current: str) -> int:
    """Which file follows one that was renamed; 0: not known, but for the current one."""
    base, _, number = renamed.rpartition(".")
    path = current if number == "1" else f"{base}.{int(number) - 1}"
    fd = _open(path)
    if fd < 0:
        return 0
    try:
        return _id(os.fstat(fd))
    finally:
        os.close(fd)


def _regular(path: str) -> os.stat_result | None:
    """Of a log that is kept in a file; None: it goes to a terminal or a pipe."""
    try:
        about = os.stat(path)
    except OSError:
        return None
    return about if stat.S_ISREG(about.st_mode) else None


def _open(path: str) -> int:
    """A descriptor of a regular file; -1: there is none."""
    is_link = path.startswith("/proc/")  # to what the daemon has open, not to what a name says
    if is_link and _regular(path) is None:
        return -1
    try:
        fd = os.open(path, _OPEN & ~os.O_NOFOLLOW if is_link else _OPEN)
    except FileNotFoundError:
        return -1
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return -1
    return fd


def _id(about: os.stat_result) -> int:
    return about.st_ino % FILE_ID_MAX


def _file(
    name: str,
    about: os.stat_result,
    worker_id: bytes,
    pid: int,
    job_id: bytes,
    title: str,
    *,
    alive: bool,
) -> m.LogFile:
    told = (_id(about), about.st_size, about.st_mtime)
    return m.LogFile(name, *told, worker_id, pid, job_id, title, alive)
