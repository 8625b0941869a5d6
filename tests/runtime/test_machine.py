"""Detection on trees with the kernel's real file formats, and on this machine itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from zray.runtime.linux import machine
from zray.runtime.linux.machine import Machine, OomWatch, status_text

AFFINITY = len(os.sched_getaffinity(0))
GIB = 1 << 30
NO_LIMIT_V1 = "9223372036854771712\n"


class Tree:
    """A /proc and a /sys/fs/cgroup of our own."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.cgroup = folder / "proc", folder / "cgroup"
        self.write(self.proc / "meminfo", "MemTotal:       16777216 kB\nMemFree:  1000 kB\n")
        self.write(self.proc / "self/cgroup", "")
        self.write(self.proc / "vmstat", "nr_free_pages 5\noom_kill 7\nnuma_hit 3\n")
        self.cgroup.mkdir()

    @staticmethod
    def write(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def group(self, path: str, **files: str) -> None:
        for name, text in files.items():
            self.write(self.cgroup / path / name.replace("__", "."), text)

    def detect(self) -> Machine:
        return machine.detect(self.proc, self.cgroup)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture
def many_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))


def test_without_cgroups_the_machine_itself_counts(tree: Tree) -> None:
    found = tree.detect()
    assert found.cpus == AFFINITY
    assert found.memory_bytes == 16 * GIB
    assert found.gpus == []


def test_affinity_is_respected() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert machine.detect().cpus == 1.0
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.usefixtures("many_cpus")
def test_v2_takes_the_tightest_group_above_us(tree: Tree) -> None:
    tree.write(tree.proc / "self/cgroup", "0::/user.slice/zray.service\n")
    tree.group("user.slice", cpu__max="250000 100000\n", memory__max=f"{8 * GIB}\n")
    tree.group("user.slice/zray.service", cpu__max="max 100000\n", memory__max="max\n")
    assert tree.detect().cpus == 2.5
    assert tree.detect().memory_bytes == 8 * GIB
    tree.group("user.slice/zray.service", cpu__max="150000 50000\n", memory__max=f"{GIB}\n")
    assert tree.detect().cpus == 2.5
    assert tree.detect().memory_bytes == GIB


@pytest.mark.usefixtures("many_cpus")
def test_v2_in_a_container_sees_its_limits_at_the_mount(tree: Tree) -> None:
    for own_path in ("/", "/docker/0123abcd", "/../../pod/x"):
        tree.write(tree.proc / "self/cgroup", f"0::{own_path}\n")
        tree.group("", cpu__max="400000 100000\n", memory__max=f"{2 * GIB}\n")
        assert tree.detect().cpus == 4.0
        assert tree.detect().memory_bytes == 2 * GIB


@pytest.mark.usefixtures("many_cpus")
def test_less_than_one_cpu_counts_as_one(tree: Tree) -> None:
    tree.write(tree.proc / "self/cgroup", "0::/\n")
    tree.group("", cpu__max="20000 100000\n")
    assert tree.detect().cpus == 1.0


@pytest.mark.usefixtures("many_cpus")
def test_v1_with_joined_controllers(tree: Tree) -> None:
    tree.write(
        tree.proc / "self/cgroup",
        "5:cpuset:/\n4:cpu,cpuacct:/docker/ab\n3:memory:/docker/ab\n1:name=systemd:/\n",
    )
    limits = {"cpu__cfs_quota_us": "350000\n", "cpu__cfs_period_us": "100000\n"}
    tree.group("cpu,cpuacct/docker/ab", **limits)
    tree.group("cpu,cpuacct", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    tree.group("cpuset", cpuset__cpus="0-1\n")
    tree.group("memory", memory__limit_in_bytes=NO_LIMIT_V1)
    tree.group("memory/docker/ab", memory__limit_in_bytes=f"{3 * GIB}\n")
    assert tree.detect().cpus == 3.5
    assert tree.detect().memory_bytes == 3 * GIB


@pytest.mark.usefixtures("many_cpus")
def test_hybrid_reads_v1_controllers_beside_an_empty_unified_tree(tree: Tree) -> None:
    tree.write(tree.proc / "self/cgroup", "2:memory:/\n1:cpu:/job\n0::/\n")
    tree.group("unified", cgroup__procs="1\n")
    tree.group("cpu/job", cpu__cfs_quota_us="200000\n", cpu__cfs_period_us="100000\n")
    tree.group("memory", memory__limit_in_bytes=NO_LIMIT_V1)
    assert tree.detect().cpus == 2.0
    assert tree.detect().memory_bytes == 16 * GIB


def test_this_machine() -> None:
    found = machine.detect()
    assert 1 <= found.cpus <= os.cpu_count()  # type: ignore[operator]
    assert found.memory_bytes > 100 << 20
    assert found.hostname
    assert found.machine_id == machine.detect().machine_id
    assert not any(address.startswith("127.") for address in found.addresses)


# ---- deaths ----------------------------------------------------------------------------------


@dataclass
class End:
    exit_code: int | None
    signal: int | None


def test_status_in_words() -> None:
    assert status_text(End(3, None)) == "exit code 3"
    assert status_text(End(None, 11)) == "killed by signal SIGSEGV (11)"
    assert status_text(End(None, 40)) == "killed by signal 40"
    assert status_text(End(None, 9), oom=False) == "killed by signal SIGKILL (9)"
    assert "possibly by the kernel's OOM killer" in status_text(End(None, 9))
    assert "most likely by the kernel's OOM killer" in status_text(End(None, 9), oom=True)


@pytest.mark.parametrize(
    ("groups", "path", "text"),
    [
        ("0::/zray\n", "cgroup/zray/memory.events", "low 0\nmax 9\noom 1\noom_kill {}\n"),
        ("4:memory:/a\n", "cgroup/memory/a/memory.oom_control", "under_oom 0\noom_kill {}\n"),
        ("0::/\n", "proc/vmstat", "pgfault 4\noom_kill {}\n"),
    ],
)
def test_oom_kills_are_noticed_once(
    tree: Tree, tmp_path: Path, groups: str, path: str, text: str
) -> None:
    tree.write(tree.proc / "self/cgroup", groups)
    tree.write(tmp_path / path, text.format(2))
    watch = OomWatch(tree.proc, tree.cgroup)
    assert watch.struck() is False
    tree.write(tmp_path / path, text.format(3))
    assert watch.struck() is True
    assert watch.struck() is False


def test_oom_kills_that_cannot_be_counted(tree: Tree) -> None:
    tree.write(tree.proc / "vmstat", "pgfault 4\n")
    assert OomWatch(tree.proc, tree.cgroup).struck() is None
