"""Run the test suites, some beside each other, each timed and with a limit; never waits for ever.

Without a name, every suite. A folder of tests/ that no suite names belongs to the suite ``unit``,
so that no test is left out. What a suite prints comes whole when it ends, but at once where it is
the only one. The last line counts the tests of all suites.
"""

from __future__ import annotations

import argparse
import compileall
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import xml.etree.ElementTree as ET
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"
DYING_S = 10
POLL_S = 0.1
GIVING_WAY = 15  # the nice value with which the CPU is only a thirtieth of another's
NO_TESTS = 5  # pytest's exit status when nothing was collected or all was deselected


@dataclass(frozen=True)
class Suite:
    """Folders of tests/ that run together, and the seconds they may take."""

    name: str
    folders: tuple[str, ...]
    limit_s: float
    lane: int  # suites of one lane run one after the other

    def paths(self) -> list[str]:
        return [str(TESTS / folder) for folder in self.folders if (TESTS / folder).is_dir()]


# Suites that start processes wait most of their time, and two of them leave a CPU idle now and
# then. The others only compute: they have what is left over, so that they make no test late.
WAITING, WAITING_TOO, COMPUTING = range(3)


def all_suites() -> list[Suite]:
    api = ("api", "cli", "clients", "compat", "costs", "examples", "util")
    named = [
        Suite("cluster", ("cluster",), 2500, WAITING),
        Suite("api", api, 1900, WAITING_TOO),
        Suite("conformance", ("conformance",), 1100, WAITING_TOO),
        Suite("runtime", ("runtime", "nodes", "store"), 900, WAITING_TOO),
        Suite("dashboard", ("dashboard", "jobs"), 500, WAITING_TOO),
        Suite("enemy", ("enemy",), 650, WAITING),
        Suite("failover", ("failover",), 650, WAITING_TOO),
        Suite("sim", ("sim",), 2700, COMPUTING),
    ]
    taken = {folder for suite in named for folder in suite.folders}
    rest = [p.name for p in sorted(TESTS.iterdir()) if p.is_dir() and p.name[0] not in "._"]
    unit = Suite("unit", tuple(name for name in rest if name not in taken), 1500, COMPUTING)
    return [unit, *named]


def kill_marked(mark: str) -> None:
    """Kill whatever a suite that was cut off has left, daemons in sessions of their own too."""
    for process in psutil.process_iter():
        try:
            if process.environ().get("ZRAY_SESSION_TEST") == mark:
                process.kill()
        except psutil.Error:
            continue


class Running:
    """A suite that runs: its pytest, in a session of its own."""

    def __init__(self, suite: Suite, *, core: bool, alone: bool) -> None:
        self.suite = suite
        self._core = core
        self._mark = f"suite-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._folder = tempfile.TemporaryDirectory(prefix="zray-suite-")
        self._report = Path(self._folder.name, "report.xml")
        self._began = time.monotonic()
        self._killed_at = 0.0
        self._said = None if alone else Path(self._folder.name, "output")
        command = [sys.executable, "-m", "pytest", f"--junitxml={self._report}", "--durations=3"]
        with ExitStack() as stack:
            output = stack.enter_context(self._said.open("wb")) if self._said else None
            self.process = subprocess.Popen(
                [*command, *(["-m", "not system"] if core else []), *suite.paths()],
                cwd=ROOT,
                env=os.environ | {"ZRAY_SESSION_TEST": self._mark},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        if suite.lane == COMPUTING:
            give_way(self.process.pid)

    def ended(self) -> bool:
        """Whether it has; cuts it off when its time is over."""
        if self.process.poll() is not None:
            return True
        now = time.monotonic()
        if now > (self._killed_at or self._began + self.suite.limit_s):
            if self._killed_at:
                self.process.kill()
            else:  # pytest's faulthandler prints where each thread is
                self.process.send_signal(signal.SIGABRT)
                print(f"suite {self.suite.name}: cut off after {self.suite.limit_s:.0f} s")
            self._killed_at = now + DYING_S
        return False

    def close(self) -> tuple[bool, Counter[str], float]:
        """End what is left of it and print what it said; whether it passed, counts, seconds."""
        self.process.kill()
        kill_marked(self._mark)
        status = self.process.wait()
        seconds = time.monotonic() - self._began
        if self._said is not None:
            print(f"\n==== suite {self.suite.name}: {seconds:.1f} s", flush=True)
            sys.stdout.buffer.write(self._said.read_bytes())
            sys.stdout.flush()
        counts = read_counts(self._report)
        self._folder.cleanup()
        passed = status == 0 or (self._core and status == NO_TESTS)
        if not passed and not counts["failed"]:  # cut off, or it did not even start
            counts["failed"] = 1
        return passed, counts, seconds


def give_way(pid: int) -> None:
    """Let a process and what it starts have the CPU that nobody else wants, and little more."""
    os.setpriority(os.PRIO_PROCESS, pid, GIVING_WAY)
    try:  # where sessions share the CPU, a session has a priority of its own
        Path(f"/proc/{pid}/autogroup").write_text(str(GIVING_WAY))
    except OSError:
        pass


def read_counts(report: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    if not report.exists() or report.stat().st_size == 0:
        return counts
    for suite in ET.parse(report).getroot().iter("testsuite"):
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped = int(suite.get("skipped", 0))
        counts["failed"] += failed
        counts["skipped"] += skipped
        counts["passed"] += int(suite.get("tests", 0)) - failed - skipped
    return counts


def arguments(suites: list[Suite]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the test suites, each timed and limited.")
    names = [suite.name for suite in suites]
    parser.add_argument("names", nargs="*", metavar="SUITE", help=f"of {', '.join(names)}")
    parser.add_argument("--core", action="store_true", help="only what needs no system parts")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(names):
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    return chosen


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    suites = [suite for suite in all_suites() if suite.paths()]
    chosen = arguments(suites)
    began = time.monotonic()
    compileall.compile_dir(ROOT / "zray", quiet=2)  # else each daemon does, where nobody keeps it
    total: Counter[str] = Counter()
    times: list[str] = []
    failures: list[str] = []
    left = [suite for suite in suites if not chosen.names or suite.name in chosen.names]
    alone = len(left) == 1
    running: list[Running] = []
    try:
        while left or running:
            busy = {run.suite.lane for run in running}
            for suite in [*left]:
                if suite.lane not in busy:
                    busy.add(suite.lane)
                    left.remove(suite)
                    print(f"==== suite {suite.name} begins (at most {suite.limit_s:.0f} s)")
                    running.append(Running(suite, core=chosen.core, alone=alone))
            sys.stdout.flush()
            time.sleep(POLL_S)
            for run in [run for run in running if run.ended()]:
                running.remove(run)
                passed, counts, seconds = run.close()
                total += counts
                result = "" if passed else "   FAILED"
                times.append(f"{run.suite.name:<12}{seconds:8.1f} s{result}")
                if not passed:
                    failures.append(run.suite.name)
    finally:
        for run in running:  # interrupted
            run.process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + DYING_S / 2  # whoever interrupts soon kills
        for run in running:
            while run.process.poll() is None and time.monotonic() < deadline:
                time.sleep(POLL_S)
            run.close()
    times.append(f"{'all':<12}{time.monotonic() - began:8.1f} s")
    print("\n==== times of the suites", *times, sep="\n")
    if failures:
        print(f"failed: {', '.join(failures)}")
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return 0 if total["passed"] and not failures else 1


if __name__ == "__main__":
    sys.exit(main())
