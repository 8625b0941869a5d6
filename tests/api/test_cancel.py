"""``cancel``: queued, running, forced and recursive; and that it hits nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

import zray
from tests.api.conftest import eventually, finished
from zray.errors import TaskCancelledError

pytestmark = pytest.mark.usefixtures("cluster")


@zray.remote
def sleep(seconds: float, mark: str = "") -> int:
    if mark:
        Path(mark).touch()
    time.sleep(seconds)
    return os.getpid()


def assert_cancelled(ref: Any, within_s: float = 3.0) -> None:
    began = time.monotonic()
    with pytest.raises(TaskCancelledError):
        zray.get(ref, timeout=10)
    assert time.monotonic() - began < within_s


def test_queued(tmp_path: Path) -> None:
    running = [sleep.remote(0.5) for _ in range(2)]
    queued = [sleep.remote(0, str(tmp_path / str(i))) for i in range(5)]
    for ref in queued:
        zray.cancel(ref)
    for ref in queued:
        assert_cancelled(ref)
    zray.get(running)
    assert list(tmp_path.iterdir()) == []


def test_waiting_for_arguments() -> None:
    slow = sleep.remote(0.5)
    ref = sleep.remote(slow)
    zray.cancel(ref)
    assert_cancelled(ref)
    zray.get(slow)


def test_running(tmp_path: Path) -> None:
    pid = zray.get(sleep.remote(0))
    ref = sleep.remote(60, str(tmp_path / "began"))
    eventually((tmp_path / "began").exists)
    zray.cancel(ref)
    assert_cancelled(ref)
    os.kill(pid, 0)  # the worker lives on


def test_running_in_a_blocking_get(tmp_path: Path) -> None:
    mark = tmp_path / "began"

    @zray.remote
    def block() -> None:
        zray.get(sleep.remote(60, str(mark)))

    ref = block.remote()
    eventually(mark.exists)
    zray.cancel(ref, recursive=False)
    assert_cancelled(ref)
    mark.unlink()
    assert zray.get(sleep.remote(0, str(mark))) and mark.exists()


def test_a_task_may_tidy_up(tmp_path: Path) -> None:
    @zray.remote
    def tidy(began: Path, tidied: Path) -> None:
        try:
            began.touch()
            time.sleep(60)
        finally:
            tidied.touch()

    ref = tidy.remote(tmp_path / "began", tmp_path / "tidied")
    eventually((tmp_path / "began").exists)
    zray.cancel(ref)
    assert_cancelled(ref)
    assert (tmp_path / "tidied").exists()


def test_a_task_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    @zray.remote
    def stubborn(began: Path) -> None:
        while True:
            try:
                began.touch()
                time.sleep(60)
            except KeyboardInterrupt:
                pass

    ref = stubborn.remote(tmp_path / "began")
    eventually((tmp_path / "began").exists)
    zray.cancel(ref)
    assert_cancelled(ref, 9)


def test_force(tmp_path: Path) -> None:
    @zray.remote
    def stubborn(began: Path) -> None:
        while True:
            try:
                began.write_text(str(os.getpid()))
                time.sleep(60)
            except KeyboardInterrupt:
                pass

    ref = stubborn.remote(tmp_path / "began")
    eventually(lambda: (tmp_path / "began").exists() and (tmp_path / "began").read_text())
    zray.cancel(ref, force=True)
    assert_cancelled(ref)
    pid = int((tmp_path / "began").read_text())
    eventually(lambda: not Path(f"/proc/{pid}").exists())


@pytest.mark.parametrize("recursive", [True, False])
def test_recursive(tmp_path: Path, recursive: bool) -> None:
    @zray.remote
    def grandchild(folder: Path) -> None:
        (folder / "began").touch()
        time.sleep(1)
        (folder / "done").touch()

    @zray.remote
    def child(folder: Path) -> None:
        zray.get(grandchild.remote(folder))

    @zray.remote
    def parent(folder: Path) -> None:
        zray.get(child.remote(folder))

    ref = parent.remote(tmp_path)
    eventually((tmp_path / "began").exists)
    zray.cancel(ref, recursive=recursive)
    assert_cancelled(ref)
    eventually(finished)
    assert (tmp_path / "done").exists() is not recursive


def test_finished_put_and_twice() -> None:
    done, put, running = sleep.remote(0), zray.put(1), sleep.remote(60)
    zray.get(done)
    for ref in (done, put, running, running):
        zray.cancel(ref)
    assert zray.get(done) and zray.get(put) == 1
    assert_cancelled(running)


def test_dependants_of_a_cancelled_task_are_cancelled() -> None:
    slow = sleep.remote(60)
    ref = sleep.remote(slow)
    zray.cancel(slow)
    assert_cancelled(ref)


def test_every_return_is_cancelled() -> None:
    refs = sleep.options(num_returns=2).remote(60)
    zray.cancel(refs[0])
    for ref in refs:
        assert_cancelled(ref)


def test_no_retry_after_a_cancel(tmp_path: Path) -> None:
    @zray.remote(retry_exceptions=True, max_retries=5)
    def count(folder: Path) -> None:
        (folder / str(time.monotonic())).touch()
        time.sleep(60)

    ref = count.remote(tmp_path)
    eventually(lambda: list(tmp_path.iterdir()))
    zray.cancel(ref)
    assert_cancelled(ref)
    eventually(finished)
    assert len(list(tmp_path.iterdir())) == 1


def test_cancelling_some_of_many_short_tasks_hits_only_those() -> None:
    @zray.remote
    def quick(i: int) -> int:
        return i

    zray.get([quick.remote(i) for i in range(300)])
    refs = [quick.remote(i) for i in range(2000)]
    for ref in refs[1::2]:
        zray.cancel(ref)
    assert zray.get(refs[::2]) == list(range(0, 2000, 2))
    for i, ref in enumerate(refs[1::2]):
        try:
            assert zray.get(ref) == 2 * i + 1
        except TaskCancelledError:
            pass
    assert zray.get([quick.remote(i) for i in range(300)]) == list(range(300))


def test_not_a_reference() -> None:
    with pytest.raises(TypeError, match="only supported for object refs"):
        zray.cancel(5)  # type: ignore[arg-type]
