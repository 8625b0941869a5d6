"""A daemon's words on a stderr that may be full, closed, or read by nobody."""

from __future__ import annotations

import os
import subprocess
import sys

SAY = """
import sys
from zray.runtime.log import Log
log = Log("zray-test")
for number in range({count}):
    log("line " + str(number) + " " + "x" * 1000 + " \\ud800")
print(log.lost)
"""


def lost(count: int, **more: object) -> int:
    found = subprocess.run(
        [sys.executable, "-c", SAY.format(count=count)],
        stdout=subprocess.PIPE,
        timeout=20,
        check=True,
        **more,  # type: ignore[call-overload]
    )
    return int(found.stdout)


def test_lines_have_time_and_name_and_survive_what_no_encoding_has() -> None:
    found = subprocess.run(
        [sys.executable, "-c", SAY.format(count=2)], capture_output=True, timeout=20, check=True
    )
    lines = found.stderr.decode().splitlines()
    assert len(lines) == 2 and " zray-test: line 0 xxx" in lines[0]
    assert lines[1].endswith("\\ud800") and found.stdout == b"0\n"


def test_what_a_peer_says_does_nothing_to_a_terminal() -> None:
    say = (
        "from zray.runtime.log import Log\n"
        "Log('zray-test')('one\\ttwo\\nthree \\x1b[2J\\r\\x7f\\x9b\\0 \u00fc')"
    )
    found = subprocess.run([sys.executable, "-c", say], capture_output=True, timeout=20, check=True)
    first, second = found.stderr.decode().split("\n")[:2]
    assert first.endswith("one\ttwo") and second == "three \\x1b[2J\\x0d\\x7f\\x9b\\x00 \u00fc"


def test_a_full_disk_costs_lines_only() -> None:
    with open("/dev/full", "wb") as full:
        assert lost(5, stderr=full) == 5


def test_a_reader_that_ended_costs_lines_only() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        assert lost(5, stderr=write) == 5
    finally:
        os.close(write)


def test_a_reader_that_does_not_read_is_not_waited_for() -> None:
    read, write = os.pipe()
    try:
        assert 0 < lost(500, stderr=write) < 500  # a pipe has room for 64 KiB
    finally:
        os.close(read)
        os.close(write)


def test_no_stderr_at_all() -> None:
    assert lost(3, preexec_fn=lambda: os.close(2)) == 3
