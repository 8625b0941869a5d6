"""Contracts of Ray's API, held against zray or, with CONFORMANCE_SIDE=ray, against Ray itself.

Each test states one contract in its docstring and uses ``ray`` by its public names only, so the
very same test runs on both sides; one that Ray fails is a wrong test. A file is a row of the counts
that are printed at the end. A test must never ask on which side it runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SIDE = os.environ.get("CONFORMANCE_SIDE", "zray")
if SIDE == "ray":
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
else:
    import zray.compat
    from tests.api.conftest import eventually, shares_memory

    zray.compat.install()
    if SIDE == "local":  # zray's local mode, for those contracts that need no cluster
        os.environ["ZRAY_LOCAL_MODE"] = "1"

import ray  # noqa: E402  # whichever it is

NOT_IN_LOCAL_MODE = Path(__file__).with_name("not_in_local_mode.txt")
PYTHON = [sys.executable] if SIDE == "ray" else [sys.executable, "-m", "zray.compat"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A cluster of this module's own with four CPUs."""
    ray.init(num_cpus=4, include_dashboard=False)
    if SIDE == "zray":
        eventually(shares_memory)  # the socket for that stays until the cluster is left
    yield
    ray.shutdown()


@pytest.fixture
def disconnected() -> Iterator[None]:
    """Whatever the test connects to is left after it."""
    assert not ray.is_initialized()
    yield
    ray.shutdown()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what needs a cluster, where there is none."""
    if SIDE == "local":
        names = {*NOT_IN_LOCAL_MODE.read_text().splitlines()}
        left_out = [item for item in items if getattr(item, "originalname", "") in names]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def python() -> list[str]:
    """The command that runs a program in which ``import ray`` works."""
    return PYTHON


Program = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Runs a program in its own process to its end; it has imported ray, os, sys and time."""

    def run(
        text: str, *arguments: str, code: int = 0, **env: str
    ) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "program.py"
        path.write_text("import os, sys, time\nimport ray\n" + textwrap.dedent(text))
        done = subprocess.run(
            [*PYTHON, str(path), *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, **env},
            timeout=50,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def counter(tmp_path: Path) -> Callable[[], int]:
    """Counts its calls, in whatever process they are made."""
    path = str(tmp_path / "counter")

    def count() -> int:
        fd = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(fd, b".")
        os.close(fd)
        return os.stat(path).st_size

    return count


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints how many contracts of each row hold on this side."""
    kept: Counter[str] = Counter()
    broken: Counter[str] = Counter()
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.getreports(outcome):
            path = Path(report.nodeid.partition("::")[0])
            if path.parent.name == "conformance" and (report.when == "call" or outcome != "passed"):
                row = path.stem.removeprefix("test_").replace("_", " ")
                (kept if outcome == "passed" else broken)[row] += 1
    if not kept and not broken:
        return
    terminalreporter.section(f"contracts of Ray {ray.__version__} kept by {SIDE}")
    for row in sorted({*kept, *broken}):
        lost = f", {broken[row]} broken" if broken[row] else ""
        terminalreporter.line(f"{row:24}{kept[row]:5} kept{lost}")
    terminalreporter.line(f"{'all':24}{kept.total():5} kept, {broken.total()} broken")
