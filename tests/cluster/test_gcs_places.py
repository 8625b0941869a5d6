"""A cluster whose state is moved to another store, or comes from a backup: it goes on as it was."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import zray
from tests.etcd_cluster import Etcd


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    made = Etcd(tmp_path / "etcd")
    yield made
    made.close()


@zray.actor(num_cpus=1)
class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        self.count += 1
        return self.count


@zray.task
def double(number: int) -> int:
    return 2 * number


def gcs(*words: object) -> str:
    command = [sys.executable, "-m", "zray", "gcs", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    return done.stdout


def test_moved_to_etcd_and_back_it_is_the_same_cluster(bare: Any, etcd: Etcd) -> None:
    bare.start_head()
    node = bare.start_node("one", 3)
    bare.connect()
    counter = Counter.options(name="kept", lifetime="detached").remote()
    assert zray.get(counter.add.remote(), timeout=20) == 1
    waiting = double.remote(4)
    data = bare.home / "clusters" / "default"
    for number, (source, target, options) in enumerate(
        [(data, etcd.url, ["--store", etcd.url]), (etcd.url, data, [])]
    ):
        epoch = bare.epoch()
        bare.head.kill()
        gcs("move", "--from", source, "--to", target)
        bare.start_head(*options, port=-1)
        assert bare.epoch() > epoch
        bare.await_node("one", pid=node.pid)
        assert zray.get(counter.add.remote(), timeout=20) == 2 + number
        assert zray.get(double.remote(3), timeout=20) == 6
    assert zray.get(waiting, timeout=20) == 8
    assert zray.get(zray.get_actor("kept").add.remote(), timeout=20) == 4


def test_a_backup_brings_the_cluster_back_in_another_directory(bare: Any) -> None:
    """As on another machine: all that is needed is the backup, and the key."""
    bare.start_head()
    node = bare.start_node("one", 3)
    bare.connect()
    counter = Counter.options(name="kept", lifetime="detached").remote()
    assert zray.get(counter.add.remote(), timeout=20) == 1
    data, path, new = bare.home / "clusters" / "default", bare.home / "b", bare.home / "new"
    assert "Wrote" in gcs("backup", path)
    later = Counter.options(name="later", lifetime="detached").remote()
    assert zray.get(later.add.remote(), timeout=20) == 1
    epoch = bare.epoch()
    bare.head.kill()
    new.mkdir(mode=0o700)
    shutil.copy2(data / "cluster.key", new)
    data.rename(bare.home / "gone")

    said = gcs("restore", path, "--data-directory", new)
    assert "To be done" not in said and f"zray-head --data-directory {new}" in said

    bare.start_head("--data-directory", str(new), port=-1)
    assert bare.epoch() > epoch + (1 << 20)
    bare.await_node("one", pid=node.pid)
    assert zray.get(zray.get_actor("kept").add.remote(), timeout=20) == 2
    assert zray.get(double.remote(3), timeout=20) == 6
    bare.until(lambda: bare.status().health == "OK", 20, "all is well")
