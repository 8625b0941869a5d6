"""Logs that a node keeps: a name from outside chooses among them, and never makes a path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from zray import limits
from zray.core.raylet.inspection import WorkerFacts
from zray.core.raylet.printed import PrintedPart, TaskOutput
from zray.errors import LogUnavailableError
from zray.nodes.raylet.log_files import LogFiles
from zray.protocol import messages as m

ME, NODE = b"m" * 16, b"n" * 16
WORKER = b"\x01" * 16
NAME = f"worker-{WORKER.hex()}.log"
FACTS = WorkerFacts(4711, b"j" * 16, "work", True)


def facts(worker_id: bytes) -> WorkerFacts | None:
    return FACTS if worker_id == WORKER else None


@pytest.fixture
def logs(tmp_path: Path) -> LogFiles:
    return LogFiles(tmp_path / "logs", facts, lambda task_id: None)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "logs"
    path.mkdir()
    return path


def read(logs: LogFiles, name: str = NAME, **more: Any) -> Any:
    return logs.answer(m.ReadLog(5, ME, NODE, name, **more))


def listed(logs: LogFiles) -> dict[str, m.LogFile]:
    answer = logs.answer(m.ReadLog(5, ME, NODE))
    assert isinstance(answer, m.LogFiles) and (answer.target, answer.about) == (ME, 5)
    return {one.name: one for one in answer.files if one.name != "node"}


def test_what_is_there_is_listed_with_whose_it_is(logs: LogFiles, directory: Path) -> None:
    (directory / NAME).write_bytes(b"abc")
    (directory / f"worker-{'02' * 16}.log").write_bytes(b"of one that nobody knows any more")
    found = listed(logs)
    mine = found[NAME]
    assert (mine.worker_id, mine.pid, mine.title, mine.size, mine.alive) == (
        *(WORKER, 4711, "work", 3, True),
    )
    assert found[f"worker-{'02' * 16}.log"].pid == 0


def test_what_is_no_log_is_neither_listed_nor_read(logs: LogFiles, directory: Path) -> None:
    secret = directory.parent / "secret"
    secret.write_text("key")
    (directory / "cluster.key").write_text("key")
    (directory / f"worker-{'03' * 16}.log").symlink_to(secret)
    (directory / f"worker-{'04' * 16}.log").mkdir()
    os.mkfifo(directory / f"worker-{'05' * 16}.log")
    assert listed(logs) == {}
    names = [
        *("cluster.key", "../secret", str(secret), f"../logs/{NAME}", "worker-*.log", ".", ""),
        *(f"worker-{'03' * 16}.log", f"worker-{'04' * 16}.log", f"worker-{'05' * 16}.log"),
        *(f"{NAME}/../cluster.key", f"{NAME}\0", f"{NAME}.1/../cluster.key", "head", NAME.upper()),
    ]
    for name in filter(None, names):
        part = read(logs, name)
        assert (part.code, part.data) == (LogUnavailableError.code, b""), name


def test_parts_are_bounded_and_follow_one_another(logs: LogFiles, directory: Path) -> None:
    whole = os.urandom(limits.LOG_PART_BYTES_MAX * 2 + 17)
    (directory / NAME).write_bytes(whole)
    found, offset = b"", 0
    while part := read(logs, offset=offset):
        assert len(part.data) <= limits.LOG_PART_BYTES_MAX and part.size == len(whole)
        if not part.data:
            break
        found, offset = found + part.data, part.offset + len(part.data)
    assert found == whole
    assert read(logs, offset=10**15).offset == 0  # it was emptied
    assert read(logs, size=0).data == b""


def test_a_log_that_was_rotated_is_read_to_its_end(logs: LogFiles, directory: Path) -> None:
    (directory / NAME).write_bytes(b"first")
    file_id = read(logs).file_id
    (directory / NAME).rename(directory / f"{NAME}.1")
    (directory / NAME).write_bytes(b"second")
    rest = read(logs, file_id=file_id, offset=2, size=1)
    assert (rest.data, rest.rotated, rest.file_id) == (b"r", False, file_id)
    rest = read(logs, file_id=file_id, offset=3)
    assert (rest.data, rest.rotated) == (b"st", True)
    new = read(logs)
    assert (new.data, new.rotated) == (b"second", False) and new.file_id != file_id


def test_one_whose_file_is_gone_begins_anew(logs: LogFiles, directory: Path) -> None:
    (directory / NAME).write_bytes(b"first")
    file_id = read(logs).file_id
    (directory / "other").write_bytes(b"")  # or the next one may have its number
    (directory / NAME).rename(directory / "hidden")
    (directory / NAME).write_bytes(b"second")
    part = read(logs, file_id=file_id, offset=5)
    assert (part.data, part.offset) == (b"second", 0) and part.file_id != file_id
    (directory / NAME).unlink()
    assert read(logs, file_id=file_id).code == LogUnavailableError.code


def test_a_node_without_a_directory_keeps_none(tmp_path: Path) -> None:
    for place in (None, tmp_path / "nowhere"):
        logs = LogFiles(place, facts, lambda task_id: None)
        assert listed(logs) == {}
        assert read(logs).code == LogUnavailableError.code


def test_only_the_last_of_very_many_are_told(
    logs: LogFiles, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOG_FILES_TOLD_MAX", 10)
    for number in range(25):
        path = directory / f"worker-{number:032x}.log"
        path.touch()
        os.utime(path, (number, number))
    answer = logs.answer(m.ReadLog(5, ME, NODE))
    assert isinstance(answer, m.LogFiles)
    named = [one.name for one in answer.files if one.name.startswith("worker")]
    assert named == [f"worker-{number:032x}.log" for number in range(15, 25)][-len(named) :]
    assert answer.left_out >= 15


# ---- what a task has printed -----------------------------------------------------------------


def test_what_a_task_has_printed_reads_as_one_file(directory: Path) -> None:
    output = TaskOutput(WORKER)
    logs = LogFiles(directory, facts, lambda task_id: output if task_id == ME else None)
    path = directory / NAME
    path.write_bytes(b"..first..second")
    before = path.stat().st_ino
    output.add(PrintedPart(before, 2, 7))
    output.add(PrintedPart(before, 9, 15))
    path.rename(directory / f"{NAME}.1")
    path.write_bytes(b"third!")
    output.add(PrintedPart(path.stat().st_ino, 0, 5))
    whole = b"firstsecondthird"
    for offset in range(len(whole) + 1):
        for size in (1, 4, 100):
            part = read(logs, task_id=ME, offset=offset, size=size)
            assert (part.data, part.offset) == (whole[offset : offset + size], offset)
            assert part.size == len(whole) and not part.code
    (directory / f"{NAME}.1").unlink()
    part = read(logs, task_id=ME)
    assert (part.data, part.offset) == (b"third", 11) and "removed" in part.text
    output.dropped = 4
    assert read(logs, task_id=ME, offset=3, size=0).size == 20


def test_a_task_of_which_nothing_is_known(logs: LogFiles) -> None:
    part = read(logs, task_id=ME)
    assert (part.data, part.size, part.code) == (b"", 0, "") and "printed nothing" in part.text
