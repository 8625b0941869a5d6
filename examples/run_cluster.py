"""Start a small cluster on this machine, run the examples on it, and stop it (``make run``).

It owns the daemons that it starts, and must never leave one, or a file of theirs, behind.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import zray

T = TypeVar("T")
Process = subprocess.Popen[bytes]

EXAMPLES = Path(__file__).resolve().parent
START_TIMEOUT_S = 20
EXAMPLE_TIMEOUT_S = 120
STOP_TIMEOUT_S = 15
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    for number in SIGNALS:
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with ExitStack() as cluster:  # leaving it stops the daemons, the last one started first
        home = Path(cluster.enter_context(tempfile.TemporaryDirectory(prefix="zray-")))
        os.environ["ZRAY_HOME"] = str(home)  # the cluster's key, store and logs are kept here

        say("Starting the head; it coordinates, and has no CPUs of its own.")
        head_log = home / "head.out"
        head = daemon(head_log, "zray.cli.head", "--num-cpus", "0", "--port", "0")
        daemons = [cluster.enter_context(head)]
        address = wait_for("the head", lambda: ready_address(head_log), daemons)

        for name in ("one", "two"):
            say(f"Starting worker node {name!r} with 1 CPU; it joins the head at {address}.")
            options = ("--address", address, "--num-cpus", "1", "--name", name)
            node = daemon(home / f"{name}.out", "zray.cli.worker", *options)
            daemons.append(cluster.enter_context(node))
        cluster.enter_context(zray.init(address))
        wait_for("the worker nodes", lambda: {"one", "two"} <= tasks_by_node().keys(), daemons)

        run_example(address, "hello_cluster.py")
        run_example(address, "code_census.py")
        if find_spec("sklearn"):
            run_example(address, "image_pipeline.py", "--repeat", "5")
        else:
            say("Leaving out examples/image_pipeline.py: python -m pip install scikit-learn")
        say("Tasks that each node ran:")
        for name, tasks in sorted(tasks_by_node().items()):
            print(f"    {name:<12}{tasks:>8,}", flush=True)
        say("Stopping the cluster.")
    say("Stopped; nothing is left running.")


@contextmanager
def running(command: list[str], **options: Any) -> Iterator[Process]:
    """A process for the length of a block; a signal that comes as it starts waits until it runs."""
    came: list[int] = []
    former = {n: signal.signal(n, lambda number, _: came.append(number)) for n in SIGNALS}
    process = subprocess.Popen(command, **options)
    try:
        for number, handler in former.items():
            signal.signal(number, handler)
        if came:
            sys.exit(128 + came[0])
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def daemon(log: Path, module: str, *options: str) -> Iterator[Process]:
    """Run a daemon for the length of a block; its output is shown if the block fails."""
    command = [sys.executable, "-m", module, *options]
    with log.open("wb") as output:
        streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
        # A session of its own: Ctrl-C reaches this program alone, which then stops the daemons.
        with running(command, **streams, start_new_session=True) as process:
            try:
                yield process
            except Exception:
                print(f"---- last output of {module} {' '.join(options)}", file=sys.stderr)
                lines = log.read_text(errors="replace").splitlines()
                print("\n".join(lines[-20:]), file=sys.stderr)
                raise
            finally:
                process.terminate()
                process.wait(STOP_TIMEOUT_S)


def wait_for(what: str, probe: Callable[[], T | None], daemons: list[Process]) -> T:
    """Poll until ``probe`` returns something true, and return that."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not (found := probe()):
        if any(process.poll() is not None for process in daemons):
            raise RuntimeError(f"a daemon ended while {what} started; its output is above")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not start within {START_TIMEOUT_S} s")
        time.sleep(0.02)
    return found


def ready_address(log: Path) -> str | None:
    """HOST:PORT from the head's READY line, once it has written one."""
    line = re.search(r"\bREADY\b.*?([\w.\[\]:-]+:\d+)", log.read_text(errors="replace"))
    return line[1] if line else None


def tasks_by_node() -> dict[str, int]:
    return {node["NodeName"]: node["TasksFinished"] for node in zray.nodes() if node["Alive"]}


def run_example(address: str, script: str, *options: str) -> None:
    say(" ".join([f"Running examples/{script}", *options]) + ":")
    command = [sys.executable, str(EXAMPLES / script), *options]
    with running(command, env=os.environ | {"ZRAY_ADDRESS": address}) as process:
        if process.wait(EXAMPLE_TIMEOUT_S):
            raise subprocess.CalledProcessError(process.returncode, command)


def say(text: str) -> None:
    print(f"==> {text}", flush=True)


if __name__ == "__main__":
    main()
