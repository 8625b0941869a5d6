"""A damaged file is refused with its name and a way out; it never looks like an empty store."""

from __future__ import annotations

import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from zray.errors import StoreError
from zray.store.base import Rows
from zray.store.sqlite import SqliteStore

TOKENS = 60


@pytest.fixture
def closed(tmp_path, stores, wait_completed) -> tuple[Path, Rows]:
    """A store that was closed: its file holds everything. And its content."""
    store = stores(tmp_path / "closed")
    store.open()
    store.set_cluster_id(b"c" * 16)
    for token in range(TOKENS):
        store.submit(token, [("t", b"key%d" % token, b"v" * token * 9), ("u", b"n", b"%d" % token)])
    wait_completed(store, TOKENS)
    store.close()
    assert [path.name for path in (tmp_path / "closed").glob("gcs*")] == ["gcs.sqlite"]
    return tmp_path / "closed", _content(tmp_path / "closed")


@pytest.fixture
def crashed(tmp_path, stores, wait_completed) -> tuple[Path, list[Rows]]:
    """What a killed head leaves: file and log. And the contents after each of its commits."""
    store = stores(tmp_path / "running")
    store.open()
    contents: list[Rows] = [{}]
    for token in range(TOKENS):
        store.submit(token, [("t", b"key%d" % token, b"v" * token)])
        wait_completed(store, 1)
        contents.append({"t": {**contents[-1].get("t", {}), b"key%d" % token: b"v" * token}})
    shutil.copytree(tmp_path / "running", tmp_path / "crashed")
    assert _content(_copy(tmp_path / "crashed")) == contents[-1]
    return tmp_path / "crashed", contents


def _copy(directory: Path) -> Path:
    copy = directory.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(directory, copy)
    return copy


def _content(directory: Path) -> Rows:
    store = SqliteStore(directory)
    try:
        return store.open().rows
    finally:
        store.close()


def _refused(directory: Path) -> str:
    before = {path.name: path.read_bytes() for path in directory.glob("gcs.sqlite*")}
    with pytest.raises(StoreError) as refusal:
        _content(directory)
    for name in ("gcs.sqlite", "gcs.sqlite-wal"):
        path = directory / name
        after = path.read_bytes() if path.exists() else b""
        assert after == before.get(name, b""), "it was changed"
    text = str(refusal.value)
    assert refusal.value.code == "ZR-4009" and str(directory / "gcs.sqlite") in text
    return text


def _flip(path: Path, position: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


@pytest.mark.parametrize("content", [b"", b"x", b"no database\n" * 900, bytes(8192)])
def test_not_a_database(closed, content: bytes) -> None:
    directory, _ = closed
    (directory / "gcs.sqlite").write_bytes(content)
    text = _refused(directory)
    assert "damaged" in text and "backup" in text and "empty cluster" in text


@pytest.mark.parametrize("kept", [0.001, 0.1, 0.3, 0.5, 0.8, 0.999])
def test_truncated(closed, kept: float) -> None:
    directory, _ = closed
    path = directory / "gcs.sqlite"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    assert "damaged" in _refused(directory)


def test_any_flipped_bit_is_refused_or_harmless(closed) -> None:
    directory, content = closed
    source = random.Random(2)
    size = (directory / "gcs.sqlite").stat().st_size
    positions = [*range(100), *(source.randrange(size) for _ in range(200))]
    refused = 0
    for position in positions:
        copy = _copy(directory)
        _flip(copy / "gcs.sqlite", position, source.randrange(8))
        try:
            assert _content(copy) == content, f"byte {position}"
        except StoreError:
            refused += 1
    assert refused > 100


def test_flipped_value_is_refused(closed) -> None:
    directory, _ = closed
    path = directory / "gcs.sqlite"
    _flip(path, path.read_bytes().index(b"v" * 500) + 7, 0)
    assert "checksum" in _refused(directory)


def test_flipped_definition_is_refused(closed) -> None:
    directory, _ = closed
    path = directory / "gcs.sqlite"
    _flip(path, path.read_bytes().index(b"CREATE TABLE rows") + 4, 7)  # no longer UTF-8
    assert "definitions" in _refused(directory)


def test_foreign_database(closed) -> None:
    directory, _ = closed
    (directory / "gcs.sqlite").unlink()
    connection = sqlite3.connect(directory / "gcs.sqlite")
    connection.execute("CREATE TABLE users (name)")
    connection.close()
    assert "no such table" in _refused(directory)


def test_added_index_is_refused(closed) -> None:
    directory, _ = closed
    connection = sqlite3.connect(directory / "gcs.sqlite")
    connection.execute("CREATE INDEX extra ON rows (value)")
    connection.close()
    assert "definitions" in _refused(directory)


def test_newer_schema_is_left_alone(crashed) -> None:
    directory, _ = crashed
    copy = _copy(directory)
    connection = sqlite3.connect(copy / "gcs.sqlite")
    connection.execute("UPDATE meta SET schema = 2")
    connection.execute("CREATE TABLE future (x)")
    connection.commit()
    newer = copy.with_name("newer")
    shutil.copytree(copy, newer)
    connection.close()
    assert (newer / "gcs.sqlite-wal").stat().st_size > 0
    text = _refused(newer)
    assert "newer zray (schema 2; this one knows 1)" in text and "damaged" not in text


def test_missing_file_with_its_log(crashed) -> None:
    directory, _ = crashed
    (directory / "gcs.sqlite").unlink()
    assert "missing" in _refused(directory)


def test_flipped_log_loses_at_most_the_last_commit(crashed) -> None:
    directory, contents = crashed
    source = random.Random(3)
    size = (directory / "gcs.sqlite-wal").stat().st_size
    refused = 0
    for position in [*range(32), *(source.randrange(size) for _ in range(150))]:
        copy = _copy(directory)
        _flip(copy / "gcs.sqlite-wal", position, source.randrange(8))
        try:
            assert _content(copy) in contents[-3:], f"byte {position}"
        except StoreError:
            refused += 1
    assert refused > 130


def test_torn_tail_of_the_log_is_no_damage(crashed) -> None:
    directory, contents = crashed
    log = directory / "gcs.sqlite-wal"
    frame = 24 + 4096
    whole = log.read_bytes()
    frames = (len(whole) - 32) // frame
    for cut in (1, 100, frame - 1):
        log.write_bytes(whole[: 32 + frames * frame - cut])
        assert _content(_copy(directory)) in contents[-2:]
    log.write_bytes(whole + whole[-frame:-5] + b"\0")
    assert _content(_copy(directory)) == contents[-1]


def test_crash_in_the_middle_of_the_first_start(tmp_path, stores) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    for name in ("gcs.sqlite.new", "gcs.sqlite.new-wal", "gcs.sqlite.new-shm"):
        (tmp_path / "data" / name).write_bytes(b"half")
    assert stores(tmp_path / "data").open().epoch == 1
    assert not list((tmp_path / "data").glob("*.new*"))


def test_unreadable_file(closed) -> None:
    directory, _ = closed
    (directory / "gcs.sqlite").unlink()
    (directory / "gcs.sqlite").mkdir()
    with pytest.raises(StoreError, match="cannot be opened"):
        _content(directory)
