"""A backup is whole or refused, and where it is wrong is told."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgpack
import pytest

from zray.errors import StoreError, StoreRefusedError
from zray.store import backup
from zray.store.backup import BackupReader
from zray.store.reader import Identity, Stored

WHO = Identity(b"c" * 16, 7, source="a test")


def some_rows(count: int = 300) -> list[Stored]:
    rows = [("t", b"key%d" % number, b"v" * number) for number in range(count)]
    return [*rows, ("u", b"", b""), ("large", b"one", bytes(range(256)) * (3 << 10))]


def content(path: Path) -> tuple[Identity, list[Stored], dict[str, int]]:
    with closing(BackupReader(path)) as reader:
        identity = reader.identity()
        return identity, list(reader.rows()), reader.counts


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "b"
    counts = backup.write(path, WHO, some_rows(), replace=False)
    identity, rows, read = content(path)
    assert rows == some_rows() and read == counts == {"t": 300, "u": 1, "large": 1}
    assert (identity.cluster_id, identity.epoch) == (b"c" * 16, 7)
    assert identity.created > 1e9 and identity.version and "a test" in identity.source
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and os.listdir(tmp_path) == ["b"]


def test_an_empty_store_has_a_backup_too(tmp_path: Path) -> None:
    backup.write(tmp_path / "b", Identity(None, 1), [], replace=False)
    identity, rows, _ = content(tmp_path / "b")
    assert identity.cluster_id is None and rows == []


def test_another_s_file_is_not_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "b"
    backup.write(path, WHO, some_rows(10), replace=False)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="--force"):
        backup.write(path, WHO, some_rows(), replace=False)
    assert path.read_bytes() == before
    for there in (before, before[:100], b""):
        path.write_bytes(there)
        backup.write(path, WHO, some_rows(), replace=True)
        assert len(content(path)[1]) == 302


def test_what_is_no_backup_is_never_replaced_by_one(tmp_path: Path) -> None:
    """Such as the store itself, its key, a device or a pipe."""
    path = tmp_path / "b"
    path.write_bytes(b"SQLite format 3")
    os.mkfifo(tmp_path / "pipe")
    for force in (False, True):
        for one in (path, tmp_path / "pipe"):
            with pytest.raises(StoreError, match=r"no backup|use --force to replace a backup"):
                backup.write(one, WHO, some_rows(), replace=force)
    assert path.read_bytes() == b"SQLite format 3" and (tmp_path / "pipe").is_fifo()


HEAD = {"cluster_id": b"c" * 16, "epoch": 1, "version": "1", "created": 1e9, "source": "s"}


def forged(path: Path, head: object, *blocks: object) -> Path:
    """One whose checksums are right."""
    whole = b"zray-gcs-backup 1\n"
    for block in (head, *blocks):
        packed = msgpack.packb(block)
        whole += struct.pack(">II", len(packed), zlib.crc32(packed)) + packed
    packed = msgpack.packb({"counts": {}, "sha256": hashlib.sha256(whole).digest()})
    path.write_bytes(whole + struct.pack(">II", len(packed), zlib.crc32(packed)) + packed)
    return path


@pytest.mark.parametrize(
    "wrong",
    [
        *({"created": value} for value in (float("inf"), float("-inf"), float("nan"), 1e300, -1)),
        *({"epoch": value} for value in (2**63, -1, "x", None, float("inf"))),
        *({"cluster_id": value} for value in (b"", b"c" * 15, "c" * 16, 1)),
    ],
)
def test_a_head_that_no_zray_has_written_is_refused(
    tmp_path: Path, wrong: dict[str, object]
) -> None:
    assert content(forged(tmp_path / "right", {**HEAD, "host": "h"}))[1] == []
    with pytest.raises(StoreRefusedError, match="its head"):
        content(forged(tmp_path / "b", {**HEAD, "host": "h", **wrong}))


@pytest.mark.parametrize(
    "row", [1, None, {}, "abc", [b"t", b"k", b"v"], ["t", b"k", "v"], ["t", b"k"], []]
)
def test_a_row_that_is_none_is_refused(tmp_path: Path, row: object) -> None:
    with pytest.raises(StoreRefusedError, match="a row"):
        content(forged(tmp_path / "b", {**HEAD, "host": "h"}, [row]))


def test_a_store_that_turns_out_to_be_damaged_leaves_no_backup(tmp_path: Path) -> None:
    def rows() -> Iterator[Stored]:
        yield from some_rows()
        raise StoreRefusedError("damaged")

    backup.write(tmp_path / "b", WHO, some_rows(10), replace=False)
    before = (tmp_path / "b").read_bytes()
    with pytest.raises(StoreRefusedError):
        backup.write(tmp_path / "b", WHO, rows(), replace=True)
    assert os.listdir(tmp_path) == ["b"] and (tmp_path / "b").read_bytes() == before


def test_any_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "b"
    backup.write(path, WHO, some_rows(10), replace=False)
    whole = path.read_bytes()
    chance = random.Random(1)
    positions = [*range(120), *range(len(whole) - 120, len(whole))]
    for position in [*positions, *(chance.randrange(len(whole)) for _ in range(300))]:
        wrong = bytearray(whole)
        wrong[position] ^= 1 << chance.randrange(8)
        path.write_bytes(wrong)
        with pytest.raises(StoreRefusedError) as refusal:
            content(path)
        assert str(path) in str(refusal.value)


def test_any_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "b"
    backup.write(path, WHO, some_rows(20), replace=False)
    whole = path.read_bytes()
    for size in [*range(200), *range(200, len(whole), 997), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(StoreRefusedError):
            content(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(StoreRefusedError, match="follows its end"):
        content(path)


def test_a_newer_and_a_foreign_one_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "b"
    backup.write(path, WHO, some_rows(), replace=False)
    path.write_bytes(path.read_bytes().replace(b"backup 1\n", b"backup 2\n", 1))
    with pytest.raises(StoreRefusedError, match="format 2; this one knows 1"):
        content(path)
    path.write_bytes(b"PK\3\4 something else")
    with pytest.raises(StoreRefusedError, match="no backup of a control store"):
        content(path)


def test_a_disk_that_takes_no_more_leaves_nothing(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StoreError, match=r"File too large.*There is no new backup"):
            backup.write(tmp_path / "b", WHO, some_rows(), replace=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == []
