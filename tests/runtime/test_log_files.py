"""Log files are bounded by size, age and number, and lose nothing of what was just written."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zray import limits
from zray.runtime.log_files import LogBounds, OwnLog, WorkerLog, prune, rotate

SMALL = LogBounds(100, 0.0, 3)


def test_a_workers_log_is_rotated_at_its_size_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    path = tmp_path / "worker-1.log"
    log = WorkerLog(path, SMALL)
    written = [b"%03d" % number + b"x" * 36 + b"\n" for number in range(12)]
    for line in written:
        assert log.write(line) == len(line)
    log.close()
    files = [path.with_name(f"{path.name}.{number}") for number in (3, 2, 1)] + [path]
    assert b"".join(file.read_bytes() for file in files) == b"".join(written)
    assert {*tmp_path.iterdir()} == {*files}
    log = WorkerLog(path, SMALL)
    for line in written:
        log.write(line)
    log.close()
    assert {*tmp_path.iterdir()} == {*files}  # no more than these


def test_it_is_rotated_at_its_age_but_not_while_it_is_empty(tmp_path: Path) -> None:
    log = WorkerLog(tmp_path / "a.log", LogBounds(0, 0.01, 1))
    time.sleep(0.02)
    log.tend()
    assert len([*tmp_path.iterdir()]) == 1
    log.write(b"line\n")
    log.tend()
    assert (tmp_path / "a.log.1").read_bytes() == b"line\n"
    log.close()
    assert not (tmp_path / "a.log").exists()  # an empty one is no use


def test_where_no_new_file_can_be_made_the_old_one_is_written_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.log"
    log = WorkerLog(path, SMALL)
    log.write(b"x" * 100)
    with monkeypatch.context() as patch:
        patch.setattr(limits, "LOG_LOOK_S", 0.0)
        patch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        for _ in range(3):
            assert log.write(b"more\n") == 5
        with pytest.raises(OSError, match="full"):
            log.tend()
    log.tend()
    log.write(b"new\n")
    log.close()
    assert path.read_bytes() == b"new\n"
    assert path.with_name("a.log.1").read_bytes() == b"x" * 100 + 3 * b"more\n"


def test_without_old_files_only_the_newest_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("x")
    rotate(tmp_path / "a.log", 0)
    assert not [*tmp_path.iterdir()]


def test_logs_of_workers_that_ended_go_by_age_and_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ENDED_LOG_FILES", 3)
    ids = [f"{number:032x}" for number in range(8)]
    for number, worker in enumerate(ids):
        path = tmp_path / f"worker-{worker}.log"
        path.write_text("words")
        os.utime(path, (time.time() - 1000 + number,) * 2)
    old = tmp_path / f"worker-{ids[7]}.log.2"
    old.write_text("long ago")
    os.utime(old, (1, 1))
    other = tmp_path / "worker-mine.log"
    other.write_text("of somebody else")
    prune(tmp_path, {ids[0]})
    left = {path.name for path in tmp_path.iterdir()}
    kept = {f"worker-{ids[number]}.log" for number in (0, 5, 6, 7)}
    assert left == {other.name, *kept}


@pytest.mark.parametrize("value", ["x", "-1", "nan", "1e99"])
def test_a_bad_bound_is_an_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("RAY_ROTATION_MAX_BYTES", value)
    with pytest.raises(ValueError, match="RAY_ROTATION_MAX_BYTES must be a number"):
        LogBounds.from_environment()


PROGRAM = """
import os, sys, time
from pathlib import Path
from zray import limits
from zray.runtime.log_files import LogBounds, OwnLog
limits.LOG_LOOK_S = 0.0
path, rotates = Path(sys.argv[1]), sys.argv[2] == "rotates"
for fd in (1, 2):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), fd)
own = OwnLog(path, LogBounds(1000, 0.0, 1000), rotates=rotates)
for number in range(3000):
    os.write(2, b"%s %05d\\n" % (sys.argv[2].encode(), number))
    own.tend(time.monotonic())
"""


def test_two_daemons_write_to_one_log_while_one_of_them_rotates_it(tmp_path: Path) -> None:
    path = tmp_path / "head.log"
    runs = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(path), role])
        for role in ("rotates", "follows")
    ]
    assert [run.wait(60) for run in runs] == [0, 0]
    text = "".join(file.read_text() for file in tmp_path.iterdir())
    for role in ("rotates", "follows"):
        assert sorted(line for line in text.splitlines() if line.startswith(role)) == [
            f"{role} {number:05}" for number in range(3000)
        ]
    assert len([*tmp_path.iterdir()]) > 10


def test_what_the_user_chose_as_output_is_not_rotated() -> None:
    own = OwnLog(None, LogBounds(1, 0.001, 1), rotates=True)
    own.tend(1e9)
    assert own._look_at == float("inf")
