"""Clusters with a page, and viewers of it: as a script that has the token, or as a browser."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

import zray
from tests.real_cluster import Cluster, until
from zray.runtime.connection import ConnectionInfo
from zray.runtime.web_keys import WebKeys

ANSWER_S = 20.0


class Site:
    """A cluster of which the page is looked at."""

    until = staticmethod(until)

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    @property
    def info(self) -> ConnectionInfo:
        return self.cluster.info()

    @property
    def url(self) -> str:
        return self.info.dashboard

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def keys(self) -> WebKeys:
        return WebKeys.of(self.info)

    def script(self) -> httpx.Client:
        """As whoever has the token; who asks for it closes it."""
        headers = {"authorization": f"Bearer {self.keys().token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=ANSWER_S)

    def stranger(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=ANSWER_S, **options)

    @contextmanager
    def browser(self) -> Iterator[httpx.Client]:
        """One that has logged in."""
        with self.stranger() as client:
            answer = client.get("/", params={"code": self.keys().code(time.time())})
            assert answer.status_code == 303, answer.text
            yield client

    def get(self, path: str, status: int = 200, **parameters: Any) -> Any:
        """What a script is told there."""
        with self.script() as client:
            answer = client.get(path, params=parameters or None)
        assert answer.status_code == status, (path, answer.status_code, answer.text[:500])
        return answer.json()

    def process(self) -> psutil.Process | None:
        """What serves the page, if anything does."""
        assert self.cluster.head is not None
        found = [
            one
            for one in self.cluster.head.children()
            if one.status() != psutil.STATUS_ZOMBIE and "zray.dashboard" in " ".join(one.cmdline())
        ]
        return found[0] if found else None

    def connect(self) -> socket.socket:
        """A connection on which nothing has been said."""
        return socket.create_connection(("127.0.0.1", self.port), ANSWER_S)


class Stream:
    """Server-sent events, as they come."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines

    def next(self, name: str) -> Any:
        """The data of the next event of that name."""
        found = ""
        for line in self._lines:
            if line.startswith("event: "):
                found = line.removeprefix("event: ")
            elif line.startswith("data: ") and found == name:
                return json.loads(line.removeprefix("data: "))
        raise AssertionError(f"it ended without {name}")


@pytest.fixture(scope="session")
def stream_of() -> Callable[[httpx.Response], Stream]:
    return lambda answer: Stream(answer.iter_lines())


@pytest.fixture
def bare_site(zray_home: Path) -> Iterator[Any]:
    """One of which nothing runs yet."""
    cluster = Cluster(zray_home)
    try:
        yield Site(cluster)
    finally:
        if zray.is_initialized():
            zray.shutdown()
        cluster.close()


@pytest.fixture(scope="module")
def site(_module_leaves_nothing: Path) -> Iterator[Any]:
    """A head and a node of two CPUs; for all tests of a file."""
    cluster = Cluster(_module_leaves_nothing)
    try:
        cluster.start_head("--dashboard-port", "0", "--dashboard-name", "page.example.org")
        cluster.start_node("one", 2)
        found = Site(cluster)
        with found.script() as client:
            client.get("/healthz")  # so that it runs
        yield found
    finally:
        cluster.close()


@pytest.fixture
def driven(site: Any) -> Iterator[Any]:
    """``site``, of which this process is a driver."""
    site.cluster.connect()
    try:
        yield site
    finally:
        zray.shutdown()
