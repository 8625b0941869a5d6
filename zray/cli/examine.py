"""``zray stack`` and ``zray profile``: where a process is, and where its time goes."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

from zray import limits
from zray.cli import reporting
from zray.cli.reporting import Failed
from zray.core.causes import plain
from zray.protocol import messages as m
from zray.runtime import connection


def stack(addresses: list[str], what: str, *, as_json: bool) -> int:
    """Print the stacks of a process; returns the exit code."""
    try:
        with reporting.operator(addresses, as_json=as_json) as operator:
            place = operator.locate(what, running=True)
            found = operator.examine(place)
            text = found.data.decode("utf-8", "replace")
            if as_json:
                reporting.show({**place.described(), "stack": text, "remark": found.text})
                return 0
            _remark(found)
            shown = reporting.harmless(text) if sys.stdout.isatty() else text
            print(shown.rstrip())
    except Failed:
        return 0 if what == "head" and not addresses and _of_silent_head() else 1
    return 0


def _of_silent_head() -> bool:
    """The stack of a head of this machine that does not answer; whether it was shown."""
    info = connection.find(None)
    if sys.platform != "linux" or info is None or info.host != socket.gethostname():
        return False
    from zray.nodes.raylet import examiner

    tool = examiner.find_tool()
    if tool is None or not Path("/proc", str(info.pid)).exists():
        return False
    line = [tool, "dump", "--pid", str(info.pid)]
    if examiner.is_stopped(info.pid):
        line.append("--nonblocking")
    print(
        f"zray: looks at the head's process (pid {info.pid}), which is on this machine",
        file=sys.stderr,
    )
    sys.stderr.flush()
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(line, timeout=limits.EXAMINE_S).returncode == 0
    return False


def profile(addresses: list[str], what: str, seconds: int, output: Path, *, as_json: bool) -> int:
    """Write the flame graph of a process; returns the exit code."""
    try:
        with reporting.operator(addresses, as_json=as_json) as operator:
            place = operator.locate(what, running=True)
            to_stdout = str(output) == "-"
            if not to_stdout and not os.access(output.absolute().parent, os.W_OK):
                raise OSError(f"{output.absolute().parent} cannot be written to")
            if not as_json:
                print(f"zray: looks at {plain(place.in_words())} for {seconds} s", file=sys.stderr)
            found = operator.examine(place, float(seconds))
            if to_stdout:
                sys.stdout.buffer.write(found.data)
                return 0
            output.write_bytes(found.data)
            told = {**place.described(), "output": str(output), "bytes": len(found.data)}
            if as_json:
                reporting.show(told)
            else:
                print(f"Wrote {output} ({len(found.data):,} bytes); open it in a browser.")
    except Failed:
        return 1
    return 0


def _remark(found: m.Examined) -> None:
    if found.text:
        print(f"zray: {plain(found.text)}", file=sys.stderr)
