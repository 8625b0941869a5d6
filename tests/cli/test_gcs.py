"""``zray gcs``: what it makes of stores that are whole, damaged, in use, moved, or not there."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.cli.conftest import until
from tests.etcd_cluster import Etcd
from zray.cli import gcs_backup, gcs_places
from zray.core.head.members import NodeRow
from zray.errors import StoreError
from zray.runtime.keys import ClusterKey
from zray.store.base import Rows
from zray.store.etcd_address import parse
from zray.store.etcd_gateway import Gateway
from zray.store.sqlite import SqliteStore

NODE = msgspec.msgpack.encode(NodeRow(3, False, "one"))


def fill(directory: Path, rows: Rows, *, epochs: int = 1) -> ClusterKey:
    """A data directory as a head leaves it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ClusterKey.load_or_create(directory / "cluster.key")
    for _ in range(epochs - 1):
        store = SqliteStore(directory)
        store.open()
        store.close()
    store = SqliteStore(directory)
    store.open()
    store.set_cluster_id(key.cluster_id)
    for table, of_table in rows.items():
        store.submit(1, [(table, one, value) for one, value in of_table.items()])
    until(lambda: len(store.completed()) >= 0 and not store._queue.qsize(), "all is stored")
    store.close()
    return key


def content(directory: Path) -> tuple[int, bytes | None, Rows]:
    store = SqliteStore(directory)
    try:
        found = store.open()
        return found.epoch, found.cluster_id, found.rows
    finally:
        store.close()


ROWS: Rows = {
    "nodes": {bytes([number]) * 16: NODE for number in range(40)},
    "kv": {b"key %d" % number: b"v" * number for number in range(500)} | {b"large": bytes(3 << 20)},
}


@pytest.fixture
def data(zray_home: Path) -> Path:
    directory = zray_home / "clusters" / "default"
    fill(directory, ROWS, epochs=3)
    return directory


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    made = Etcd(tmp_path_factory.mktemp("etcd"))
    yield made
    made.close()


# ---- backup and restore --------------------------------------------------------------------


def test_a_backup_comes_back_as_it_was_with_a_later_epoch(
    commands: Any, data: Path, tmp_path: Path
) -> None:
    path, other = tmp_path / "b", tmp_path / "other"
    said = commands.run("zray", "gcs", "backup", path).stdout
    assert "541 records" in said and "does not have the cluster's key" in said
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "exists" in commands.run("zray", "gcs", "backup", path, code=1).stderr
    commands.run("zray", "gcs", "backup", path, "--force")

    said = commands.run("zray", "gcs", "restore", path, "--data-directory", other).stdout
    assert f"copy the cluster's key to {other}/cluster.key" in said
    epoch, cluster_id, rows = content(data)
    later, same, restored = content(other)
    assert (
        epoch == 4
        and later > 3 + (1 << 20)
        and (same, restored) == (cluster_id, rows)
        and rows == ROWS
    )

    time.sleep(1.1)  # a second restore is later than all that has come of the first
    commands.run("zray", "gcs", "restore", path, "--data-directory", other, "--force")
    assert content(other)[0] > later
    assert len(list(other.glob("gcs.sqlite.before-*[0-9]"))) == 1


def test_a_restore_keeps_what_was_there_whatever_that_is(
    commands: Any, data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "b"
    commands.run("zray", "gcs", "backup", path)
    (data / "gcs.sqlite").write_bytes(b"damaged")
    (data / "gcs.sqlite-wal").write_bytes(b"its log")
    said = commands.run("zray", "gcs", "check", code=1).stderr
    assert "damaged" in said and f"zray gcs restore FILE --data-directory {data} --force" in said
    refused = commands.run("zray", "gcs", "restore", path, code=1).stderr
    assert "is there already; with --force" in refused
    assert (data / "gcs.sqlite").read_bytes() == b"damaged"
    commands.run("zray", "gcs", "restore", path, "--force")
    assert content(data)[2] == ROWS
    (kept,) = data.glob("gcs.sqlite.before-*[0-9]")
    assert kept.read_bytes() == b"damaged"
    assert Path(f"{kept}-wal").read_bytes() == b"its log"


def test_a_restore_that_ends_once_the_log_is_aside_loses_nothing_of_what_was_there(
    data: Path,
) -> None:
    """Whose newest rows are in the log alone, as a head that was killed leaves them."""
    text = (
        "import os, sys, time; from pathlib import Path\n"
        "from zray.store.sqlite import SqliteStore\n"
        "store = SqliteStore(Path(sys.argv[1])); store.open()\n"
        "store.submit(1, [('kv', b'newest', b'acknowledged')])\n"
        "while not store.completed(): time.sleep(0.01)\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", text, data], check=False, timeout=60)
    assert (data / "gcs.sqlite-wal").stat().st_size
    aside = gcs_backup._set_aside(gcs_places.DataDirectory(data))
    assert content(data)[2]["kv"][b"newest"] == b"acknowledged"
    with sqlite3.connect(aside) as kept:
        assert kept.execute("SELECT value FROM rows WHERE key = ?", (b"newest",)).fetchone()
    kept.close()


def test_nothing_is_restored_beside_a_head_or_from_what_is_no_backup(
    commands: Any, data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "b"
    commands.run("zray", "gcs", "backup", path)
    whole = path.read_bytes()
    for wrong, says in (
        (whole[:-1], "ends in the middle"),
        (whole[:500] + b"?" + whole[501:], "does not match its checksum"),
        (b"", "no backup"),
        (whole.replace(b"backup 1", b"backup 9"), "newer zray"),
    ):
        (tmp_path / "wrong").write_bytes(wrong)
        said = commands.run("zray", "gcs", "restore", tmp_path / "wrong", "--force", code=1).stderr
        assert says in said and str(tmp_path / "wrong") in said
        commands.run("zray", "gcs", "check", tmp_path / "wrong", code=1)
    assert content(data)[2] == ROWS

    fill(tmp_path / "foreign", {})
    said = commands.run(
        "zray", "gcs", "restore", path, "--data-directory", tmp_path / "foreign", "--force", code=1
    ).stderr
    assert "is the key of another cluster" in said

    head = commands.head("--num-cpus", 0)
    said = commands.run("zray", "gcs", "restore", path, "--force", code=1).stderr
    assert f"in use by another head: pid {head.pid}" in said
    more = commands.run("zray", "gcs", "backup", path, "--force").stdout
    assert "543 records" in more  # its own node and version
    assert "Whole" in commands.run("zray", "gcs", "check").stdout


# ---- check ---------------------------------------------------------------------------------


def test_check_counts_and_decodes(commands: Any, data: Path) -> None:
    before = (data / "gcs.sqlite").read_bytes()
    for what in ([], [data], [data / "gcs.sqlite"]):
        assert "Whole: every record was read." in commands.run("zray", "gcs", "check", *what).stdout
    found = json.loads(commands.run("zray", "gcs", "check", "--json").stdout)
    assert found["tables"]["kv"]["records"] == 501 and found["epoch"] == 3
    assert (data / "gcs.sqlite").read_bytes() == before

    store = SqliteStore(data)
    store.open()
    store.submit(1, [("nodes", b"n" * 16, b"\x93no record")])
    until(store.completed, "it is stored")
    store.close()
    found = json.loads(commands.run("zray", "gcs", "check", "--json", code=1).stdout)
    (fault,) = found["faults"]
    assert fault.startswith(f"nodes: the record {(b'n' * 16).hex()} cannot be read: ")


def test_check_says_where_a_record_was_changed(commands: Any, data: Path) -> None:
    with sqlite3.connect(data / "gcs.sqlite") as store:
        store.execute("UPDATE rows SET value = 'v?' WHERE key = ?", (b"key 7",))
    store.close()
    said = commands.run("zray", "gcs", "check", code=1).stderr
    assert "a row of 'kv' (key b'key 7') does not match its checksum" in said
    assert "not there" not in said
    said = commands.run("zray", "gcs", "check", data / "nothing", code=1).stderr
    assert "there is no control store" in said


# ---- move ----------------------------------------------------------------------------------


def moving(data: Path, etcd: Etcd, name: str) -> list[str]:
    return ["gcs", "move", "--from", str(data), "--to", etcd.url, "--name", name]


def test_there_and_back_it_is_the_same_cluster_of_later_epochs(
    commands: Any, data: Path, etcd: Etcd
) -> None:
    first = content(data)
    said = commands.run("zray", *moving(data, etcd, "back")).stdout
    assert "Moved 541 records" in said and f"zray-head --store {etcd.url} --name back" in said
    said = commands.run("zray", *moving(data, etcd, "back")).stdout
    assert "already; nothing was changed" in said

    head = commands.start("zray-head", "--port", 0)
    assert head.process.wait(20) == 3
    assert f"was moved to etcd at http://127.0.0.1:{etcd.ports[0]} (/zray/back/)" in head.text()
    assert "note: it was moved" in commands.run("zray", "gcs", "check").stdout
    assert "Whole" in commands.run("zray", "gcs", "check", etcd.url, "--name", "back").stdout

    again = ["gcs", "move", "--from", etcd.url, "--to", str(data), "--name", "back"]
    commands.run("zray", *again)
    epoch, cluster_id, rows = content(data)
    assert (cluster_id, {t: of for t, of in rows.items() if t != "moved"}) == first[1:]
    assert epoch > first[0] + 2 and epoch < 10_000  # it has grown with use, and not with moves
    commands.run("zray", *moving(data, etcd, "other"))


def test_a_move_that_is_killed_anywhere_can_be_gone_on_with(
    commands: Any, data: Path, etcd: Etcd
) -> None:
    expected = content(data)[1:]
    command = commands.line("zray", *moving(data, etcd, "killed"))
    for number in range(8):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.2 + 0.1 * number)
        process.send_signal(signal.SIGKILL)
        process.wait()
        _, cluster_id, rows = content(data)
        if "moved" in rows:  # so the target is complete
            break
        assert (cluster_id, rows) == expected
    commands.run("zray", *moving(data, etcd, "killed"))
    found = json.loads(
        commands.run("zray", "gcs", "check", etcd.url, "--name", "killed", "--json").stdout
    )
    assert found["faults"] == found["notes"] == []
    assert {table: of["records"] for table, of in found["tables"].items()} == {
        "kv": 501,
        "nodes": 40,
    }


def test_a_move_to_a_full_disk_says_what_has_become_of_it(
    commands: Any, data: Path, tmp_path: Path
) -> None:
    small = ["sh", "-c", 'ulimit -f 512; trap "" XFSZ; exec "$@"', "sh"]
    move = commands.line("zray", "gcs", "move", "--from", data, "--to", tmp_path / "to")
    done = subprocess.run([*small, *move], capture_output=True, text=True, timeout=90)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "This command has ended before it was done; what it reads from is as" in done.stderr
    assert content(data)[2] == ROWS
    commands.run("zray", "gcs", "move", "--from", data, "--to", tmp_path / "to")
    assert content(tmp_path / "to")[2] == ROWS


def test_an_etcd_that_forgets_what_is_being_read_is_not_called_wrong(
    commands: Any, data: Path, etcd: Etcd
) -> None:
    commands.run("zray", *moving(data, etcd, "compacted"))
    reader = gcs_places.EtcdPlace(etcd.url, "compacted").reader()
    reader.identity()
    store = gcs_places.EtcdPlace(etcd.url, "compacted").store()
    store.open()
    gcs_places.commit(store, [("kv", b"one", b"more")])
    store.close()
    gateway = Gateway(parse(etcd.url, {}))
    _, revision = gateway.get(b"none", time.monotonic() + 10)
    gateway.call("kv/compaction", {"revision": str(revision)}, time.monotonic() + 10)
    gateway.close()
    with pytest.raises(StoreError, match=r"etcd has compacted its history.*do it again"):
        list(reader.rows())
    reader.close()


def test_what_has_a_state_of_its_own_is_no_target(
    commands: Any, data: Path, etcd: Etcd, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    fill(other, {"kv": {b"a": b"b"}})
    commands.run("zray", *moving(other, etcd, "taken"))
    said = commands.run("zray", *moving(data, etcd, "taken"), code=1).stderr
    assert "has the state of another cluster" in said
    assert content(data)[2] == ROWS
    said = commands.run("zray", *moving(tmp_path / "none", etcd, "x"), code=1).stderr
    assert "there is no control store" in said and not (tmp_path / "none").exists()
    head = commands.head("--num-cpus", 0)
    said = commands.run("zray", *moving(data, etcd, "free"), code=1).stderr
    assert f"in use by another head: pid {head.pid}" in said


def test_a_backup_goes_from_either_kind_to_either(
    commands: Any, data: Path, etcd: Etcd, tmp_path: Path
) -> None:
    commands.run("zray", "gcs", "backup", tmp_path / "one")
    into = ("--store", etcd.url, "--name", "restored")
    commands.run("zray", "gcs", "restore", tmp_path / "one", *into)
    said = commands.run("zray", "gcs", "restore", tmp_path / "one", *into, code=1).stderr
    assert "has a state already; with --force it is kept as a backup here" in said
    commands.run("zray", "gcs", "backup", tmp_path / "two", *into)
    commands.run("zray", "gcs", "restore", tmp_path / "two", "--data-directory", tmp_path / "back")
    assert content(tmp_path / "back")[1:] == content(data)[1:]
    assert not os.path.exists("zray-gcs-restored")
