"""A control store in one file: who it is of, its rows in blocks with checksums, and how many.

    zray-gcs-backup 1\\n
    block ...          length and crc32 of its content (both >I), and the content, in msgpack

The first block is the head: cluster id, epoch, version and the like. Each of the next is a list of
rows: table, key, value. The last is the end: how many rows of each table, and the SHA-256 of all
before. So a file that was cut short, or changed anywhere, is told from one that is whole. The
cluster's key is not in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgpack

from zray._version import __version__
from zray.errors import StoreError, StoreRefusedError
from zray.store.reader import Identity, Stored
from zray.store.sync import sync

FORMAT: Final = 1  # a reader of format n refuses n+1; the first line is the same in all
_MAGIC: Final = b"zray-gcs-backup "
_BLOCK: Final = struct.Struct(">II")
_BLOCK_BYTES: Final = 1 << 20  # rows of about so many bytes are in one block
_BLOCK_MAX: Final = 1 << 30
_CLUSTER_ID_BYTES: Final = 16
_EPOCHS: Final = 1 << 62  # there are later ones that a store can have
_CREATED_MAX: Final = 253e9  # the year 9987: a date can be made of it


def write(
    path: Path, identity: Identity, rows: Iterable[Stored], *, replace: bool
) -> dict[str, int]:
    """Make the file, whole and on the disk, or none; returns how many rows of each table it has.

    Args:
        replace: a backup that is there already.

    Raises:
        StoreError: there is one, or something else; or it cannot be written, as where the disk is
            full.
    """
    _check_free(path, replace=replace)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
            counts = _write(file, identity, rows)
            file.flush()
            os.fsync(file.fileno())
        _name(draft, path, replace=replace)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}. There is no new backup.") from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
    return counts


def _check_free(path: Path, *, replace: bool) -> None:
    """A device, a store or a key that stands where the backup shall be is not replaced by it."""
    try:
        if not path.exists():
            return
        if replace and path.is_file() and (not path.stat().st_size or _is_backup(path)):
            return
    except OSError as error:
        raise StoreError(f"{path} cannot be looked at: {error}. There is no new backup.") from error
    if not replace and path.is_file():
        raise StoreError(f"{path} exists; choose another file, or use --force to replace a backup")
    raise StoreError(f"{path} exists and is no backup, so it is not replaced; choose another file")


def _name(draft: Path, path: Path, *, replace: bool) -> None:
    if replace:
        draft.rename(path)
    else:
        try:
            os.link(draft, path)  # never over another's that has come meanwhile
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            draft.rename(path)
    sync(path.parent)


def _write(file: BinaryIO, identity: Identity, rows: Iterable[Stored]) -> dict[str, int]:
    digest = hashlib.sha256()

    def put(content: bytes) -> None:
        digest.update(content)
        file.write(content)

    def block(content: Any) -> None:
        packed = msgpack.packb(content)
        put(_BLOCK.pack(len(packed), zlib.crc32(packed)) + packed)

    put(_MAGIC + b"%d\n" % FORMAT)
    block(
        {
            "cluster_id": identity.cluster_id,
            "epoch": identity.epoch,
            "version": __version__,
            "created": time.time(),
            "source": identity.source,
            "host": os.uname().nodename,
        }
    )
    counts: dict[str, int] = {}
    group: list[Stored] = []
    size = 0
    for row in rows:
        table, key, value = row
        counts[table] = counts.get(table, 0) + 1
        group.append(row)
        size += len(key) + len(value)
        if size >= _BLOCK_BYTES:
            block(group)
            group, size = [], 0
    if group:
        block(group)
    block({"counts": counts, "sha256": digest.digest()})
    return counts


def _is_backup(path: Path) -> bool:
    """Whether the file says that it is one."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


class BackupReader:
    """As ``Reader``. ``counts``: of each table, once all rows were read."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self._path = path
        self._file: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self.counts: dict[str, int] = {}

    def identity(self) -> Identity:
        """As ``Reader.identity``."""
        try:
            self._file = self._path.open("rb")
            line = self._file.readline(64)
        except OSError as error:
            raise StoreError(f"the backup {self._path} cannot be read: {error}") from error
        if not line.startswith(_MAGIC):
            raise StoreRefusedError(
                f"{self._path} is no backup of a control store: `zray gcs backup FILE` makes one"
            )
        number = line.removeprefix(_MAGIC).strip()
        if not number.isdigit() or not line.endswith(b"\n"):
            raise self._damaged("its first line", 0)
        if int(number) > FORMAT:
            raise StoreRefusedError(
                f"the backup {self._path} was made by a newer zray (format {int(number)}; this "
                f"one knows {FORMAT}). Use that newer zray."
            )
        self._digest.update(line)
        head = self._block()
        try:
            cluster_id, version = head["cluster_id"], head["version"]
            if type(version) is not str or type(cluster_id) not in (bytes, type(None)):
                raise TypeError
            created, epoch = float(head["created"]), int(head["epoch"])
            right_id = cluster_id is None or len(cluster_id) == _CLUSTER_ID_BYTES
            if not (right_id and 0 <= epoch < _EPOCHS and 0 <= created < _CREATED_MAX):
                raise ValueError
            source = f"{head['source']} on {head['host']}"
        except (KeyError, TypeError, ValueError, OverflowError):
            raise self._damaged("its head", len(line)) from None
        return Identity(cluster_id, epoch, version, created, source)

    def rows(self) -> Iterator[Stored]:
        """As ``Reader.rows``; what follows the last row is checked, too."""
        counts: dict[str, int] = {}
        while True:
            before = self._digest.digest()
            block = self._block()
            if isinstance(block, dict):
                break
            for row in block:
                if type(row) is not list or [type(part) for part in row] != [str, bytes, bytes]:
                    raise self._damaged("a row", self._tell())
                counts[row[0]] = counts.get(row[0], 0) + 1
                yield row[0], row[1], row[2]
        if block.get("counts") != counts or block.get("sha256") != before:
            raise self._damaged("its checksum or its counts", self._tell())
        if self._file is not None and self._file.read(1):
            raise self._damaged("what follows its end", self._tell())
        self.counts = counts

    def close(self) -> None:
        """As ``Reader.close``."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _block(self) -> Any:
        start = self._tell()
        assert self._file is not None
        try:
            head = self._file.read(_BLOCK.size)
            if len(head) < _BLOCK.size:
                raise self._cut(start)
            size, crc = _BLOCK.unpack(head)
            left = os.fstat(self._file.fileno()).st_size - start
            if size > _BLOCK_MAX:
                raise self._damaged("a block", start)
            content = self._file.read(size) if size <= left else b""
        except OSError as error:
            raise StoreError(f"the backup {self._path} cannot be read: {error}") from error
        if len(content) < size:
            raise self._cut(start)
        if zlib.crc32(content) != crc:
            raise self._damaged("a block, which does not match its checksum,", start)
        self._digest.update(head + content)
        try:
            found: Any = msgpack.unpackb(content, strict_map_key=False)
        except ValueError:
            raise self._damaged("a block", start) from None
        if not isinstance(found, list | dict):
            raise self._damaged("a block", start)
        return found

    def _tell(self) -> int:
        assert self._file is not None
        return self._file.tell()

    def _cut(self, position: int) -> StoreRefusedError:
        return StoreRefusedError(
            f"the backup {self._path} ends in the middle (at byte {position} or soon after): it "
            "was not copied as a whole, or its disk was full. Use another backup."
        )

    def _damaged(self, what: str, position: int) -> StoreRefusedError:
        return StoreRefusedError(
            f"the backup {self._path} is damaged: {what} at byte {position} or soon after is not "
            "what was written. Use another backup."
        )
