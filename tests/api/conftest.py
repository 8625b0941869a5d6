"""Clusters and scripts for the tests of the public API. Must never replace a part of zray."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import zray
from zray.api.cluster import _status
from zray.nodes.driver.observer import Observer
from zray.nodes.participant.participant import Participant
from zray.runtime import session

PRELUDE = "import os, sys, time\nimport zray\n"


@pytest.fixture(scope="module")
def cluster(_module_leaves_nothing: Path | None) -> Iterator[None]:
    """A cluster of this module's own with two CPUs."""
    with zray.init(num_cpus=2):
        eventually(shares_memory)  # the socket for that stays until the cluster is left
        yield


@pytest.fixture
def disconnected() -> Iterator[None]:
    """Whatever the test connects to is left after it."""
    assert not zray.is_initialized()
    yield
    zray.shutdown()


Run = Callable[..., "subprocess.CompletedProcess[str]"]
Script = Callable[..., Path]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Writes a program that has imported os, sys, time and zray."""

    def write(text: str, name: str = "script.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PRELUDE + textwrap.dedent(text))
        return path

    return write


@pytest.fixture
def run(script: Script) -> Run:
    """Runs a program to its end; its exit code is 0 unless ``code`` says otherwise."""

    def run(
        text: str, *arguments: str, code: int = 0, **env: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, str(script(text)), *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, **env},
            timeout=40,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def counter(tmp_path: Path) -> Callable[[], int]:
    """Counts its calls, in whatever process they are made."""
    path = tmp_path / "counter"

    def count() -> int:
        fd = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(fd, b".")
        os.close(fd)
        return path.stat().st_size

    return count


def objects() -> int:
    """How many objects the head knows."""
    gc.collect()
    return _status().objects


def eventually(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Wait until ``condition()`` is true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {condition}"
        time.sleep(0.01)


def shares_memory() -> bool:
    """Whether this process shares memory with its node."""
    zray.get(zray.put(bytes(100_000)))
    return session.current()._store is not None


def finished() -> bool:
    """Whether the head has the outcome of every task of every driver."""
    with Observer(session.current().info, session.current().address) as observer:
        return all(job.unfinished == 0 for job in observer.status().jobs)


def waits_in_get(thread: threading.Thread) -> bool:
    """Whether the thread is inside of ``zray.get``."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code is Participant.get.__code__:
            return True
        frame = frame.f_back
    return False
