"""Runs the examples as a user does, each test with a zray home of its own.

It owns the deadline, the check that a run left nothing, and the packages that examples need and
zray does not; it must never import an example.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
GONE_TIMEOUT_S = 10
INSTALL_TIMEOUT_S = 100
PACKAGES = {"sklearn": "scikit-learn", "PIL": "pillow"}

Launch = Callable[..., "subprocess.Popen[str]"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def home() -> Iterator[Path]:
    """A short path (unix sockets allow 107 bytes), used as ZRAY_HOME and as TMPDIR."""
    with tempfile.TemporaryDirectory(prefix="zr-") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """A folder with scikit-learn and Pillow; None: this Python has them."""
    missing = [package for module, package in PACKAGES.items() if find_spec(module) is None]
    if not missing:
        return None
    folder = tmp_path_factory.mktemp("packages")
    options = ("--quiet", "--no-input", "--disable-pip-version-check", "--no-compile")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", folder, *missing],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INSTALL_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def with_packages(packages: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test launches finds scikit-learn and Pillow."""
    if packages:
        paths = [*filter(None, [os.environ.get("PYTHONPATH")]), str(packages)]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


@pytest.fixture
def launch(home: Path) -> Iterator[Launch]:
    """Start an example; what still runs at the end of the test is killed, and fails it."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *args: str | Path) -> subprocess.Popen[str]:
        environment = {name: text for name, text in os.environ.items() if name[:5] != "ZRAY_"}
        # Works where zray is not installed too; what is on the path already comes first.
        paths = [*filter(None, [environment.get("PYTHONPATH")]), str(ROOT)]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        process = subprocess.Popen(
            [sys.executable, ROOT / "examples" / script, *args],
            env=environment | {"ZRAY_HOME": str(home), "TMPDIR": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
    left = wait_until_gone(home)
    for daemon in left:
        daemon.kill()
    assert not left, f"still running after {GONE_TIMEOUT_S} s: {left}"


@pytest.fixture
def run(launch: Launch) -> Run:
    """Run an example to its end, within 60 s."""

    def to_end(script: str, *args: str | Path) -> subprocess.CompletedProcess[str]:
        process = launch(script, *args)
        stdout, stderr = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    return to_end


def wait_until_gone(home: Path) -> list[psutil.Process]:
    """Processes that were started with this home and have not ended within the time."""
    deadline = time.monotonic() + GONE_TIMEOUT_S
    while (left := started_with(home)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def started_with(home: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR") == str(home):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
