"""Figures of processes and machines: this process's own, and /proc with the kernel's formats."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from zray.runtime.linux import machine, usage


def test_a_process_has_used_what_it_has_used() -> None:
    before = usage.of_process(os.getpid())
    held = bytearray(64 << 20)
    began = time.process_time()
    while time.process_time() - began < 0.1:
        sum(range(1000))
    after = usage.of_process(os.getpid())
    assert before is not None and after is not None
    assert 0.05 < after.cpu_s - before.cpu_s < 5
    assert after.rss_bytes - before.rss_bytes > len(held) // 2
    assert after.shared_bytes <= after.rss_bytes
    assert (after.pid, after.state) == (os.getpid(), "R") and after.threads >= 1
    assert 0 < time.time() - after.started_s < 86400


def test_one_that_is_not_there_is_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert usage.of_process(process.pid) is None


def test_a_name_with_spaces_and_brackets_is_not_taken_for_fields(tmp_path: Path) -> None:
    folder = tmp_path / "7"
    folder.mkdir()
    fields = "S 1 7 7 0 -1 0 0 0 0 0 300 200 0 0 20 0 5 0 1000 0 0"
    (folder / "stat").write_text(f"7 (a) b) R 1 () {fields}")
    (folder / "statm").write_text("1000 50 20 0 0 0 0")
    (tmp_path / "stat").write_text("cpu  1 2 3 4 5 6 7 8 0 0\nbtime 1000\n")
    found = usage.of_process(7, tmp_path)
    ticks = os.sysconf("SC_CLK_TCK")
    assert found is not None
    assert (found.cpu_s, found.threads, found.state) == (500 / ticks, 5, "S")
    assert found.rss_bytes == 50 * os.sysconf("SC_PAGE_SIZE")
    assert found.started_s == 1000 + 1000 / ticks


def test_the_machine_is_no_busier_than_it_can_be() -> None:
    found = usage.of_machine()
    assert found.cpus >= 1 and found.cpu_s > 0 and found.load >= 0
    assert 0 < found.memory_used_bytes < found.memory_bytes


def test_what_cannot_be_read_is_nought(tmp_path: Path) -> None:
    found = usage.of_machine(tmp_path)
    assert (found.cpu_s, found.load) == (0, 0)


def test_memory_is_that_of_the_narrowest_control_group(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 16000 kB\nMemAvailable: 4000 kB\n")
    (proc / "self/cgroup").write_text("0::/a/b\n")
    assert machine.memory(proc, groups) == (16000 << 10, 12000 << 10)
    (groups / "a/b").mkdir(parents=True)
    for folder, most in (("a/b", "max\n"), ("a", f"{1 << 20}\n")):
        (groups / folder / "memory.max").write_text(most)
        (groups / folder / "memory.current").write_text(f"{700 << 10}\n")
        (groups / folder / "memory.stat").write_text("anon 5\ninactive_file 102400\nslab 1\n")
    assert machine.memory(proc, groups) == (1 << 20, 600 << 10)
