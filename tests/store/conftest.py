"""Helpers of the store's tests: waiting for commits, and child processes that use a store."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import zray.store.base
from tests.etcd_cluster import Etcd
from zray.store.base import Store
from zray.store.sqlite import SqliteStore

_ROOT = Path(zray.store.base.__file__).parents[2]
_DEADLINE_S = 20.0

Wait = Callable[[Store, int], list[int]]
Child = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def wait_completed() -> Wait:
    """``wait_completed(store, count)``: the next ``count`` tokens, as the head's loop gets them."""

    def wait(store: Store, count: int) -> list[int]:
        tokens = store.completed()
        deadline = time.monotonic() + _DEADLINE_S
        while len(tokens) < count:
            assert store.failure() is None, store.failure()
            assert time.monotonic() < deadline, f"{len(tokens)} of {count}; {store.stall()}"
            descriptor = store.fileno()
            assert descriptor is not None, "a store without a descriptor completes at once"
            select.select([descriptor], [], [], 1.0)
            tokens += store.completed()
        return tokens

    return wait


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool]], None]:
    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.005)

    return wait


@pytest.fixture
def child() -> Iterator[Child]:
    """``child(script, *arguments)``: a Python process that is killed at the end of the test."""
    children: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: object, prefix: tuple[str, ...] = ()) -> object:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-c", script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
        )
        children.append(process)
        return process

    yield start  # type: ignore[misc]
    for process in children:
        process.kill()
        process.communicate()


@pytest.fixture
def stores() -> Iterator[Callable[[Path], SqliteStore]]:
    """``stores(directory)``: a SqliteStore, not opened, that is closed at the end of the test."""
    made: list[SqliteStore] = []

    def make(directory: Path) -> SqliteStore:
        made.append(SqliteStore(directory))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture(scope="module")
def etcd_of_1(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """For tests that leave it as it is."""
    etcd = Etcd(tmp_path_factory.mktemp("etcd"))
    yield etcd
    etcd.close()


@pytest.fixture(scope="module")
def etcd_of_3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """For tests that leave it as it is."""
    etcd = Etcd(tmp_path_factory.mktemp("etcd"), 3)
    yield etcd
    etcd.close()
