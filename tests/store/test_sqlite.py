"""The SQLite store in operation: kill -9, stalls, failures, what happens to the directory."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import stat

import pytest

from zray.errors import DataDirectoryLockedError, StoreError

WRITER = """
import select, sys
from pathlib import Path
from zray.store.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
first = int(sys.argv[2])
store.open()
token = first
while True:
    for token in range(token, token + 7):
        rows = [(t, b"%d" % token, b"x" * (token % 4000)) for t in ("left", "right")]
        store.submit(token, rows)
    token += 1
    select.select([store.fileno()], [], [])
    for done in store.completed():
        sys.stdout.write(f"{done}\\n")
    sys.stdout.flush()
"""


def test_kill_9_loses_nothing_reported(tmp_path, child, stores) -> None:
    source = random.Random(1)
    reported: list[int] = []
    for round_number in range(8):
        writer = child(WRITER, tmp_path / "data", 1_000_000 * round_number)
        for _ in range(source.randrange(1, 1500)):
            reported.append(int(writer.stdout.readline()))
        writer.kill()
        # What the pipe still holds was reported before the kill; its last line may be torn.
        lines = writer.stdout.read().split("\n")
        reported += [int(line) for line in lines[:-1]]
        writer.wait()
    store = stores(tmp_path / "data")
    opened = store.open()
    assert opened.epoch == 9
    stored = opened.rows["left"]
    assert {b"%d" % token for token in reported} <= stored.keys()
    assert all(len(value) == int(key) % 4000 for key, value in stored.items())
    assert opened.rows["right"] == stored, "a batch was torn"


@pytest.mark.system
def test_full_disk_is_a_stall(tmp_path, child) -> None:
    """In a mount namespace of its own, since only a file system can be truly full.

    Root may make one as it is; others need user namespaces.
    """
    own = ("unshare", "-m" if os.geteuid() == 0 else "-rm")
    script = """
import os, select, subprocess, sys, time
from pathlib import Path
from zray.store.sqlite import SqliteStore
mount = sys.argv[1]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", mount], check=True)
data = Path(mount, "data")
store = SqliteStore(data)
store.open()
ballast = Path(mount, "ballast")
with ballast.open("wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
for token in range(4):
    store.submit(token, [("t", b"%d" % token, bytes(60_000))])
select.select([store.fileno()], [], [], 20)
assert store.completed() == [] and store.failure() is None
assert "is full" in str(store.stall()), store.stall()
ballast.unlink()
tokens = []
deadline = time.monotonic() + 20
while len(tokens) < 4 and time.monotonic() < deadline:
    select.select([store.fileno()], [], [], 1)
    tokens += store.completed()
assert tokens == [0, 1, 2, 3] and store.stall() is None and store.failure() is None
store.close()
assert len(SqliteStore(data).open().rows["t"]) == 4
print("recovered")
"""
    process = child(script, tmp_path, prefix=own)
    assert process.stdout.read() == "recovered\n"


def test_close_gives_up_on_a_stall(tmp_path, stores, monkeypatch, wait_until) -> None:
    monkeypatch.setattr("zray.store.sqlite._DRAIN_S", 0.5)
    store = stores(tmp_path / "data")
    store.open()
    foreign = sqlite3.connect(tmp_path / "data" / "gcs.sqlite", isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    store.submit(1, [("t", b"k", b"v")])
    wait_until(lambda: store.stall() is not None)
    store.close()
    assert store.completed() == []
    foreign.close()
    assert stores(tmp_path / "data").open().rows == {}


def test_write_error_fences(tmp_path, child, stores) -> None:
    script = """
import resource, select, sys
from pathlib import Path
from zray.store.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
store.open()
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))  # Python ignores SIGXFSZ
token = 0
while store.failure() is None:
    store.submit(token, [("t", b"%d" % token, bytes(20_000))])
    token += 1
    select.select([store.fileno()], [], [], 20)
    for done in store.completed():
        print(done)
store.submit(token, [])
assert store.completed() == []
store.close()
assert store.completed() == []
print(store.failure())
"""
    process = child(script, tmp_path / "data")
    *reported, failure = process.stdout.read().splitlines()
    assert "ZR-4003" in failure and "SQLITE_IOERR" in failure and "ulimit" in failure
    assert 3 < len(reported) < 20
    rows = stores(tmp_path / "data").open().rows["t"]
    assert {token.encode() for token in reported} <= rows.keys()


def test_foreign_lock_is_a_stall(tmp_path, stores, wait_until, wait_completed) -> None:
    store = stores(tmp_path / "data")
    store.open()
    foreign = sqlite3.connect(tmp_path / "data" / "gcs.sqlite", isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    store.submit(1, [("t", b"k", b"v")])
    store.submit(2, [("t", b"many", b"v")] * 500)
    # Just before it is known why, it may only be known that it takes long.
    wait_until(lambda: "another program" in str(store.stall()))
    assert store.completed() == []
    foreign.execute("ROLLBACK")
    assert wait_completed(store, 2) == [1, 2]
    assert store.stall() is None
    foreign.close()


def test_online_backup_is_a_store(tmp_path, stores, wait_completed) -> None:
    store = stores(tmp_path / "data")
    store.open()
    store.submit(1, [("t", b"k", b"v")])
    wait_completed(store, 1)
    copy = tmp_path / "copy"
    copy.mkdir(mode=0o700)
    source = sqlite3.connect(tmp_path / "data" / "gcs.sqlite")
    target = sqlite3.connect(copy / "gcs.sqlite")
    source.backup(target)
    source.close()
    target.close()
    opened = stores(copy).open()
    assert (opened.epoch, opened.rows) == (2, {"t": {b"k": b"v"}})


def test_moved_directory_fences_and_its_successor_is_left_alone(
    tmp_path, stores, wait_until, wait_completed
) -> None:
    store = stores(tmp_path / "data")
    store.open()
    (tmp_path / "data").rename(tmp_path / "moved")
    successor = stores(tmp_path / "data")
    successor.open()
    successor.submit(1, [("t", b"k", b"v")])
    wait_completed(successor, 1)

    def fenced() -> bool:
        store.submit(1, [("t", b"lost", b"v")])
        return store.failure() is not None

    wait_until(fenced)
    assert "moved, removed or replaced" in str(store.failure())
    store.close()
    assert (tmp_path / "data" / "gcs.sqlite-wal").exists()
    successor.close()
    assert stores(tmp_path / "data").open().rows == {"t": {b"k": b"v"}}


def test_newer_opener_fences_the_older(tmp_path, stores, wait_until, wait_completed) -> None:
    old, new = stores(tmp_path / "data"), stores(tmp_path / "data")
    old.open()
    (tmp_path / "data" / "lock").unlink()
    assert new.open().epoch == 2
    old.submit(1, [("t", b"old", b"v")])
    old.submit(2, [("t", b"%d" % i, b"v") for i in range(500)])
    wait_until(lambda: old.failure() is not None)
    assert "another head" in str(old.failure())
    assert old.completed() == []
    new.submit(1, [("t", b"new", b"v")])
    wait_completed(new, 1)
    old.close()
    new.close()
    assert stores(tmp_path / "data").open().rows == {"t": {b"new": b"v"}}


def test_idle_store_moves_its_log_into_the_file(
    tmp_path, stores, wait_until, wait_completed
) -> None:
    store = stores(tmp_path / "data")
    store.open()
    store.submit(1, [("t", b"k", b"v")])
    wait_completed(store, 1)
    copy = tmp_path / "copy"
    copy.mkdir(mode=0o700)

    def stored_without_log() -> bool:
        shutil.copy(tmp_path / "data" / "gcs.sqlite", copy)
        opened = stores(copy).open()
        for path in copy.iterdir():
            path.unlink()
        return opened.rows == {"t": {b"k": b"v"}}

    wait_until(stored_without_log)


def test_log_stays_short(tmp_path, stores, wait_completed) -> None:
    store = stores(tmp_path / "data")
    store.open()
    for token in range(200):
        store.submit(token, [("t", b"%d" % (token % 10), bytes(100_000))])
        assert wait_completed(store, 1) == [token]
    assert (tmp_path / "data" / "gcs.sqlite-wal").stat().st_size < 12 << 20


# ---- the directory and its lock ------------------------------------------------------------


def test_what_deleted_rows_took_goes_back_to_the_disk(
    tmp_path, stores, wait_until, wait_completed
) -> None:
    store = stores(tmp_path / "data")
    store.open()
    store.submit(1, [("functions", b"%d" % number, bytes(1 << 20)) for number in range(40)])
    wait_completed(store, 1)
    path = tmp_path / "data" / "gcs.sqlite"
    wait_until(lambda: path.stat().st_size > 40 << 20)
    store.submit(2, [("functions", b"%d" % number, None) for number in range(1, 40)])
    wait_completed(store, 1)
    wait_until(lambda: path.stat().st_size < 12 << 20)
    store.close()
    assert [*stores(tmp_path / "data").open().rows["functions"]] == [b"0"]


def test_modes(tmp_path, stores) -> None:
    store = stores(tmp_path / "deep" / "data")
    store.open()
    assert stat.S_IMODE((tmp_path / "deep" / "data").stat().st_mode) == 0o700
    files = {path.name: path.stat().st_mode & 0o077 for path in (tmp_path / "deep/data").iterdir()}
    assert files == dict.fromkeys(("gcs.sqlite", "gcs.sqlite-wal", "gcs.sqlite-shm", "lock"), 0)


def test_empty_directory_is_closed_to_others(tmp_path, stores) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    directory.chmod(0o755)
    stores(directory).open()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_directory_of_other_things_is_refused(tmp_path, stores) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(StoreError, match=r"chmod 700"):
        stores(tmp_path).open()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_strange_path(tmp_path, stores, wait_completed) -> None:
    directory = tmp_path / "a b?c=d%20#\u00e9"
    store = stores(directory)
    store.open()
    store.close()
    assert stores(directory).open().epoch == 2
    assert [path.name for path in tmp_path.iterdir()] == [directory.name]


def test_path_that_is_no_directory(tmp_path, stores) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be used"):
        stores(tmp_path / "file").open()
    with pytest.raises(StoreError, match="cannot be used"):
        stores(tmp_path / "file" / "below").open()


def test_second_head_is_refused(tmp_path, child, stores) -> None:
    first = child(WRITER, tmp_path / "data", 0)
    assert first.stdout.readline()
    with pytest.raises(DataDirectoryLockedError) as refusal:
        stores(tmp_path / "data").open()
    assert refusal.value.code == "ZR-4002"
    assert f"pid {first.pid}, started " in str(refusal.value)
    assert f"`kill {first.pid}`" in str(refusal.value)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert stores(tmp_path / "data").open().epoch == 2


def test_lock_in_one_process(tmp_path, stores) -> None:
    first = stores(tmp_path / "data")
    first.open()
    with pytest.raises(DataDirectoryLockedError, match=f"pid {os.getpid()}"):
        stores(tmp_path / "data").open()
    first.close()
    assert stores(tmp_path / "data").open().epoch == 2


def test_lock_held_by_a_fork_of_a_dead_head(tmp_path, child, stores, wait_until) -> None:
    script = """
import os, sys
from pathlib import Path
from zray.store.lock import DirectoryLock
lock = DirectoryLock(Path(sys.argv[1]))
lock.acquire()
if os.fork() == 0:
    print("locked", flush=True)
    sys.stdin.read()
os._exit(0)
"""
    head = child(script, tmp_path / "data")
    assert head.stdout.readline() == "locked\n"
    head.wait()
    with pytest.raises(DataDirectoryLockedError, match=rf"pid {head.pid} has ended, .*fuser"):
        stores(tmp_path / "data").open()
    head.stdin.close()
    head.stdin = None

    def opens() -> bool:
        try:
            return stores(tmp_path / "data").open().epoch == 1
        except DataDirectoryLockedError:
            return False

    wait_until(opens)


@pytest.mark.parametrize("content", ["", "no json", "[1]", '{"pid": "x"}', '{"pid": -1}'])
def test_lock_file_without_sense(tmp_path, stores, content: str) -> None:
    stores(tmp_path / "data").open()
    (tmp_path / "data" / "lock").write_text(content)
    with pytest.raises(DataDirectoryLockedError, match="fuser"):
        stores(tmp_path / "data").open()


def test_lock_of_another_host(tmp_path, stores) -> None:
    stores(tmp_path / "data").open()
    (tmp_path / "data" / "lock").write_text(json.dumps({"pid": 7, "host": "elsewhere"}))
    with pytest.raises(DataDirectoryLockedError, match="pid 7 on host elsewhere"):
        stores(tmp_path / "data").open()


def test_refused_open_leaves_no_lock(tmp_path, stores) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "gcs.sqlite").touch()
    with pytest.raises(StoreError, match="0 bytes"):
        stores(tmp_path / "data").open()
    (tmp_path / "data" / "gcs.sqlite").unlink()
    assert stores(tmp_path / "data").open().epoch == 1


def test_importing_the_store_is_cheap(child) -> None:
    process = child("import sys, zray.store.sqlite; print('sqlite3' in sys.modules)")
    assert process.stdout.read() == "False\n"
