"""What holds for every test: a time limit, a zray home of its own, and nothing left behind.

Tests of the folders in ``REAL`` start processes and sockets. After each such test, and after each
such module, nothing new may be alive: processes (found as descendants and by a mark that daemons
inherit through the environment), descriptors, threads, socket files. What is found is killed, then
the test fails and names it. Must never import zray: a broken module must not take the limits away.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import shutil
import signal
import stat
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
REAL = {
    *("api", "cli", "clients", "cluster", "compat", "conformance", "costs", "enemy", "failover"),
    *("dashboard", "examples", "jobs", "nodes", "runtime", "util"),
}
LIMIT_S = 60.0
COMPUTING_LIMIT_S = 300.0  # in the other folders, whose tests may have to leave the CPU to these
GRACE_S = 5.0  # what a process may take to end after its test; a clean test waits for none of it

MARK_NAME = "ZRAY_SESSION_TEST"
MARK = os.environ.setdefault(MARK_NAME, f"pytest-{os.getpid()}-{uuid.uuid4().hex[:8]}")

FAILED = pytest.StashKey[bool]()
STDERR = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    # The shell's own cluster is no part of the tests.
    for name in ("ADDRESS", "LOG_TO_DRIVER", "NAMESPACE"):
        os.environ.pop(f"ZRAY_{name}", None)
        os.environ.pop(f"RAY_{name}", None)
    # Daemons that tests start run this checkout, whatever folder they are started in.
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    config.stash[STDERR] = os.dup(2)  # capturing is suspended here, so this is the real one
    signal.signal(signal.SIGALRM, _on_alarm)
    # Prints every thread's stack even where the interpreter hangs in C and no handler can run.
    faulthandler.register(signal.SIGALRM, file=config.stash[STDERR], chain=True)


def pytest_collection_finish() -> None:
    """Modules stay to the end: no collection needs to look at them, and there are many."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure(config: pytest.Config) -> None:
    faulthandler.unregister(signal.SIGALRM)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    os.close(config.stash[STDERR])


# ---- the time limit ------------------------------------------------------------------------


def _on_alarm(_signal: int, _frame: object) -> None:
    pytest.fail("the time limit is over; every thread's stack is on stderr", pytrace=True)


@contextmanager
def _limit(item: pytest.Item) -> Iterator[None]:
    marker = item.get_closest_marker("slow_limit")
    usual = LIMIT_S if _is_real(item.path) else COMPUTING_LIMIT_S
    seconds = float(marker.args[0]) if marker else usual
    if item.config.getoption("usepdb"):
        seconds = 0.0  # never
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)


# Each phase has the whole limit: a test that ran out of time still gets its teardown.
@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    with _limit(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    with _limit(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    with _limit(item):
        return (yield)


# ---- nothing is left -----------------------------------------------------------------------


class Surroundings:
    """What was alive at one moment, and what has come since."""

    def __init__(self) -> None:
        self.connected = _connected()
        self.processes = _processes()
        self.descriptors = _descriptors()
        self.threads = set(threading.enumerate())

    def settle(self) -> list[str]:
        """Wait until nothing new is alive; after the grace, kill it and say what it was."""
        deadline = time.monotonic() + GRACE_S
        left_connected = _connected() and not self.connected
        if left_connected:
            sys.modules["zray"].shutdown()
        clean = self.is_clean()
        while not clean and time.monotonic() < deadline:
            gc.collect()  # sockets of dropped objects that are in a cycle by now
            time.sleep(0.01)
            clean = self.is_clean()
        if clean and not left_connected:
            return []
        found = self.new()
        if left_connected:
            found.append("zray.init() without zray.shutdown()")
        for process in (processes := self.new_processes()):
            process.kill()
        psutil.wait_procs(processes, timeout=GRACE_S)
        return found

    def is_clean(self) -> bool:
        """Looks for processes last, which costs most."""
        return not (self.new_threads() or self.new_descriptors() or self.new_processes())

    def new(self) -> list[str]:
        return [
            *(f"process {_describe(process)}" for process in self.new_processes()),
            *(f"thread {thread.name}" for thread in self.new_threads()),
            *self.new_descriptors(),
        ]

    def new_descriptors(self) -> list[str]:
        descriptors = _descriptors()
        more = Counter(map(_kind, descriptors.values())) - Counter(
            map(_kind, self.descriptors.values())
        )
        return [
            f"descriptor {number}: {target}"
            for number, target in descriptors.items()
            if _kind(target) in more and self.descriptors.get(number) != target
        ]

    def new_processes(self) -> list[psutil.Process]:
        """Without those below an older one: a cluster that a wider fixture keeps may grow."""
        found = []
        for process in _processes() - self.processes:
            try:
                if self.processes.isdisjoint(process.parents()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def new_threads(self) -> list[threading.Thread]:
        return [
            thread
            for thread in threading.enumerate()
            if thread not in self.threads and (not thread.daemon or thread.name.startswith("zray"))
        ]


def _connected() -> bool:
    """Whether this process is a driver that is connected."""
    is_initialized = getattr(sys.modules.get("zray"), "is_initialized", None)
    return bool(is_initialized and is_initialized())


def _processes() -> set[psutil.Process]:
    """Descendants of this process, and daemons that carry its mark."""
    here = psutil.Process()
    found = set(here.children(recursive=True))
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK_NAME) == MARK:
                found.add(process)
        except psutil.Error:
            continue
    return found - {here, *here.parents()}


def _describe(process: psutil.Process) -> str:
    try:
        command = " ".join(process.cmdline()) or process.name()
        return f"{process.pid} ({process.status()}): {command[:200]}"
    except psutil.NoSuchProcess:
        return f"{process.pid} (just ended)"


def _descriptors() -> dict[int, str]:
    """Open descriptors of this process and what they lead to; none where there is no /proc."""
    found = {}
    for name in os.listdir("/proc/self/fd") if sys.platform == "linux" else []:
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the one that listed the folder
            continue
    return found


def _kind(target: str) -> str:
    """``socket:[12]`` and ``socket:[13]`` are of one kind: a reconnection is no leak."""
    return target if target.startswith(("/", "anon_inode:")) else target.partition(":")[0]


# ---- a home for each test ------------------------------------------------------------------


@contextmanager
def _home() -> Iterator[Path]:
    """ZRAY_HOME: a new folder, or the present one if a wider fixture has a cluster in it."""
    before = os.environ.get("ZRAY_HOME")
    if before and before.startswith("/tmp/zt-") and os.listdir(before):
        yield Path(before)
        return
    # The path is short because a unix socket's may have 107 bytes.
    home = Path(tempfile.mkdtemp(prefix="zt-", dir="/tmp"))
    os.environ["ZRAY_HOME"] = str(home)
    try:
        yield home
    finally:
        if before is None:
            del os.environ["ZRAY_HOME"]
        else:
            os.environ["ZRAY_HOME"] = before
        shutil.rmtree(home, ignore_errors=True)


def _socket_files(home: Path) -> list[str]:
    return [
        f"socket file {path}"
        for path in home.rglob("*")
        if stat.S_ISSOCK(path.lstat().st_mode) or stat.S_ISFIFO(path.lstat().st_mode)
    ]


@contextmanager
def _guarded(node: pytest.Item | pytest.Module) -> Iterator[Path]:
    outer = os.environ.get("ZRAY_HOME")
    with _home() as home:
        before = Surroundings()
        yield home
        left = before.settle()
        if not left and str(home) != outer and not node.get_closest_marker("leaves_sockets"):
            left = _socket_files(home)
    if left and not node.stash.get(FAILED, False):  # a failed test says enough as it is
        pytest.fail(f"{node.name} left behind:\n  " + "\n  ".join(left), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[FAILED] = True
        if module := item.getparent(pytest.Module):
            module.stash[FAILED] = True
    return report


def _is_real(path: Path) -> bool:
    return path.relative_to(ROOT / "tests").parts[0] in REAL


def _guarded_if_real(request: pytest.FixtureRequest) -> Iterator[Path | None]:
    if _is_real(request.path):
        with _guarded(request.node) as home:
            yield home
    else:
        yield None


@pytest.fixture(scope="session", autouse=True)
def _session_home() -> Iterator[None]:
    with _home():
        yield


@pytest.fixture(scope="module", autouse=True)
def _module_leaves_nothing(
    request: pytest.FixtureRequest, _session_home: None
) -> Iterator[Path | None]:
    yield from _guarded_if_real(request)


@pytest.fixture(autouse=True)
def zray_home(
    request: pytest.FixtureRequest, _module_leaves_nothing: Path | None
) -> Iterator[Path | None]:
    """The folder that ZRAY_HOME names in this test, in the folders of ``REAL``; else None."""
    yield from _guarded_if_real(request)
