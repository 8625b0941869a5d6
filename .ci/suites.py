"""Run the test suites one after the other, each timed and with a limit; never waits for ever.

Without a name, every suite. A folder of tests/ that no suite names belongs to the suite ``unit``,
so that no test is left out. The last line counts the tests of all suites.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"
DYING_S = 10
NO_TESTS = 5  # pytest's exit status when nothing was collected or all was deselected


@dataclass(frozen=True)
class Suite:
    """Folders of tests/ that run together, and the seconds they may take."""

    name: str
    folders: tuple[str, ...]
    limit_s: float

    def paths(self) -> list[str]:
        return [str(TESTS / folder) for folder in self.folders if (TESTS / folder).is_dir()]


def all_suites() -> list[Suite]:
    named = [
        Suite("sim", ("sim",), 400),
        Suite("runtime", ("runtime", "nodes"), 230),
        Suite("api", ("api", "cli", "clients", "costs", "examples"), 1000),
        Suite("cluster", ("cluster",), 1700),
        Suite("enemy", ("enemy",), 650),
    ]
    taken = {folder for suite in named for folder in suite.folders}
    rest = [p.name for p in sorted(TESTS.iterdir()) if p.is_dir() and p.name[0] not in "._"]
    unit = Suite("unit", tuple(name for name in rest if name not in taken), 150)
    return [unit, *named]


def kill_marked(mark: str) -> None:
    """Kill whatever a suite that was cut off has left, daemons in sessions of their own too."""
    for process in psutil.process_iter():
        try:
            if process.environ().get("ZRAY_SESSION_TEST") == mark:
                process.kill()
        except psutil.Error:
            continue


def wait(process: subprocess.Popen[bytes], suite: Suite) -> int:
    """The exit status of ``process``, which has what the suite allows and a little to die in."""
    try:
        return process.wait(suite.limit_s)
    except subprocess.TimeoutExpired:
        print(f"suite {suite.name}: cut off after {suite.limit_s:.0f} s", flush=True)
        process.send_signal(signal.SIGABRT)  # pytest's faulthandler prints where each thread is
    except KeyboardInterrupt:  # the terminal sent it to pytest as well
        pass
    try:
        return process.wait(DYING_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def run(suite: Suite, core: bool) -> tuple[bool, Counter[str], float]:
    """Run one suite; whether it passed, its counts, and its seconds."""
    mark = f"suite-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="zray-suite-") as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", f"--junitxml={report}", "--durations=3"]
        process = subprocess.Popen(
            [*command, *(["-m", "not system"] if core else []), *suite.paths()],
            cwd=ROOT,
            env=os.environ | {"ZRAY_SESSION_TEST": mark},
            stdin=subprocess.DEVNULL,
        )
        try:
            status = wait(process, suite)
        finally:
            process.kill()
            kill_marked(mark)
        counts = read_counts(report)
    passed = status == 0 or (core and status == NO_TESTS)
    if not passed and not counts["failed"]:  # cut off, or it did not even start
        counts["failed"] = 1
    return passed, counts, time.monotonic() - began


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
    suites = [suite for suite in all_suites() if suite.paths()]
    chosen = arguments(suites)
    began = time.monotonic()
    total: Counter[str] = Counter()
    times: list[str] = []
    failures: list[str] = []
    for suite in suites:
        if chosen.names and suite.name not in chosen.names:
            continue
        print(f"\n==== suite {suite.name} (at most {suite.limit_s:.0f} s)", flush=True)
        passed, counts, seconds = run(suite, chosen.core)
        total += counts
        times.append(f"{suite.name:<10}{seconds:8.1f} s{'' if passed else '   FAILED'}")
        if not passed:
            failures.append(suite.name)
    times.append(f"{'all':<10}{time.monotonic() - began:8.1f} s")
    print("\n==== times of the suites", *times, sep="\n")
    if failures:
        print(f"failed: {', '.join(failures)}")
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return 0 if total["passed"] and not failures else 1


if __name__ == "__main__":
    sys.exit(main())
