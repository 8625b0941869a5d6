"""Where a control store is, from what a user says: a data directory, an etcd or a backup.

Must never import the head's machines, nor anything that unpickles.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from zray.errors import StoreError
from zray.runtime.keys import ClusterKey
from zray.store import backup
from zray.store.base import Batch, Store
from zray.store.etcd_address import EtcdAddress, parse
from zray.store.reader import Reader, Stored
from zray.store.sqlite_reader import FILE_NAME, SqliteReader

KEY_NAME: Final = "cluster.key"
LEADER_WAIT_S: Final = 6.0  # longer than a head that was killed leads on
COMMIT_S: Final = 60.0  # a batch that takes longer is given up
_BATCH_ROWS: Final = 200
_BATCH_BYTES: Final = 4 << 20


class DataDirectory:
    """A store in a head's data directory."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.file = self.path / FILE_NAME
        self.where = str(self.file)

    def reader(self) -> Reader:
        """To look at it, while a head may use it."""
        return SqliteReader(self.file)

    def store(self) -> Store:
        """To write to it, while no head may use it. Not opened."""
        from zray.store.sqlite import SqliteStore

        return SqliteStore(self.path)

    def start_command(self) -> str:
        """How a head is started with it."""
        return f"zray-head --data-directory {self.path}"

    def check_key(self, cluster_id: bytes | None) -> str:
        """Whether the cluster's key is there: what is still to be done, in words; or nothing.

        Raises:
            StoreError: it is another cluster's. KeyFileError: it cannot be used.
        """
        path = self.path / KEY_NAME
        if cluster_id is None:
            return ""
        if not os.path.lexists(path):
            return f"copy the cluster's key to {path}, with mode 0600; no head starts without it"
        if ClusterKey.load(path).cluster_id != cluster_id:
            raise StoreError(
                f"{path} is the key of another cluster than {cluster_id.hex()}; choose another "
                "--data-directory, or put that cluster's key there first"
            )
        return ""


class EtcdPlace:
    """A store in an etcd, under a cluster's name."""

    def __init__(self, url: str, name: str) -> None:
        """
        Raises:
            ValueError: it is no address.
        """
        self.url = url
        self.name = name
        self.address: EtcdAddress = parse(url, os.environ)
        self.where = self.address.where(name)

    def reader(self) -> Reader:
        """As of a data directory."""
        from zray.store.etcd_reader import EtcdReader

        return EtcdReader(self.address, self.name)

    def store(self) -> Store:
        """As of a data directory."""
        from zray.nodes.head.elected_store import ElectedStore

        return ElectedStore(self.address, self.name, wait_s=LEADER_WAIT_S)

    def start_command(self) -> str:
        """As of a data directory."""
        named = "" if self.name == "default" else f" --name {self.name}"
        return f"zray-head --store {self.url}{named}"

    def check_key(self, cluster_id: bytes | None) -> str:
        """Its heads have the key, each in its own data directory."""
        return f"each head needs {KEY_NAME} in its data directory" if cluster_id else ""


Place = DataDirectory | EtcdPlace


def place(text: str, name: str) -> Place:
    """``etcd://...`` with the cluster's name, or a data directory.

    Raises:
        ValueError: it is neither.
    """
    if "://" in text:
        return EtcdPlace(text, name)
    path = Path(text)
    if path.name == FILE_NAME and not path.is_dir():
        path = path.parent
    return DataDirectory(path)


def default(name: str) -> DataDirectory:
    """The data directory that a head of that name has unless it is told another."""
    from zray.runtime import connection

    return DataDirectory(connection.home() / "clusters" / name)


def reader(text: str, name: str) -> Reader:
    """As ``place``, or of a backup.

    Raises:
        ValueError: it is none of them. StoreError: it cannot be read.
    """
    path = Path(text)
    try:
        if "://" not in text and path.is_file() and path.name != FILE_NAME:
            with path.open("rb") as file:
                if file.read(6) == b"SQLite":
                    return SqliteReader(path)
            return backup.BackupReader(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    return place(text, name).reader()


# ---- writing -------------------------------------------------------------------------------


def batches(rows: Iterable[Stored]) -> Iterable[Batch]:
    """In pieces that are not too large for a transaction."""
    batch: Batch = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row[2])
        if len(batch) >= _BATCH_ROWS or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def given_up(failure: StoreError) -> StoreError:
    """What a store says of a head, which tries again, as it is for a command."""
    text = str(failure).removeprefix(f"{failure.code} ")
    return StoreError(
        f"{text} This command has ended before it was done; what it reads from is as it was. Give "
        "it again.",
        code=failure.code,
    )


def commit(store: Store, batch: Batch) -> None:
    """Make it durable.

    Raises:
        StoreError: it is not.
    """
    store.submit(1, batch)
    deadline = time.monotonic() + COMMIT_S
    while not store.completed():
        failure = store.failure() or (store.stall() if time.monotonic() > deadline else None)
        if failure is None and time.monotonic() > deadline:
            failure = StoreError(f"nothing has become durable within {COMMIT_S:g} s")
        if failure is not None:
            raise given_up(failure) from failure
        time.sleep(0.002)
