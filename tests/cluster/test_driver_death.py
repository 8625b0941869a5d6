"""A driver that is killed takes its own cluster along, and of a shared one nothing but its share.

What becomes of its running tasks is in test_node_death.
"""

from __future__ import annotations

import fcntl
import select
import signal
import socket
import sys
import termios
import threading
import time
from typing import Any

import msgspec
import psutil
import pytest

import zray
from tests.real_cluster import Peer, until
from zray.protocol import messages as m
from zray.runtime.connection import format_address, parse_address

LOCAL = """
    import subprocess, sys, time
    import zray

    zray.init(num_cpus=1)

    @zray.task
    def run():
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
        print("it runs", flush=True)
        time.sleep(1000)

    refs = [run.remote() for _ in range(3)]
    time.sleep(1000)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_local_cluster_ends_with_its_driver(bare: Any, number: int) -> None:
    driver = bare.run("driver", LOCAL)
    driver.says("it runs")
    below = driver.below()
    assert any(process.name() == "sleep" for process in below)
    assert [path.name for path in (bare.home / "clusters").iterdir()]

    driver.signal(number)
    ended = time.monotonic()

    driver.wait(5)
    _, alive = psutil.wait_procs(below, 5)
    assert not alive
    assert time.monotonic() - ended < 3
    bare.until(lambda: not [*(bare.home / "clusters").iterdir()], 2, "its folder is removed")


def test_a_driver_that_says_goodbye_leaves_nothing_in_a_shared_cluster(
    cluster: Any, records: Any
) -> None:
    """An unhandled exception is such an end: tasks run and wait, objects are held."""
    driver = cluster.run(
        "driver",
        """
        import os, sys, time
        import zray

        zray.init()
        records = sys.argv[1]

        @zray.task
        def run(value):
            with open(records, "a") as file:
                file.write(f"{os.getpid()}\\n")
            time.sleep(1000)

        kept = zray.put(b"x" * 1_000_000)
        refs = [run.remote(kept) for _ in range(5)]
        while not open(records).read():
            time.sleep(0.01)
        raise ValueError("an error of the program's own")
        """,
        str(records.path),
    )
    assert driver.wait(20) == 1
    ended = time.monotonic()
    assert "an error of the program's own" in driver.text()
    pids = [int(line) for line in records.lines()]
    cluster.until(lambda: not any(map(psutil.pid_exists, pids)), 5, "its tasks have ended")
    cluster.until(cluster.at_rest, 5, "its queue is empty and all resources are free")
    cluster.until(lambda: not cluster.status().jobs, 5, "its job has ended")
    cluster.until(lambda: not cluster.status().objects, 5, "its objects are freed")
    assert time.monotonic() - ended < 5


@pytest.mark.parametrize("head_too", [False, True])
def test_a_driver_that_is_killed_on_the_heads_machine_leaves_nothing(
    cluster: Any, records: Any, head_too: bool
) -> None:
    """``head_too``: it dies while there is no head."""
    driver = cluster.run(
        "driver",
        """
        import os, sys, time
        import zray

        zray.init()
        records = sys.argv[1]

        @zray.task
        def run():
            with open(records, "a") as file:
                file.write(f"{os.getpid()}\\n")
            time.sleep(1000)

        refs = [run.remote() for _ in range(5)]
        time.sleep(1000)
        """,
        str(records.path),
    )
    records.until(1)
    if head_too:
        cluster.head.kill()
    driver.process.kill()  # and nobody has reaped it yet
    if head_too:
        cluster.start_head(port=-1)
    ended = time.monotonic()
    cluster.until(lambda: not cluster.status().jobs, 10, "its job has ended")
    cluster.until(cluster.at_rest, 10, "all resources are free")
    assert time.monotonic() - ended < 5


class Deaf:
    """A way to the head that, from ``deafen`` on, reads nothing from there any more.

    When its client has closed and the head's kernel has acknowledged all, it resets the connection:
    unread answers make it one. (Without the wait the kernel would drop what is not sent yet.)
    """

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = format_address(*self._listener.getsockname())
        self._head = socket.create_connection(("127.0.0.1", port))
        self._deaf = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def deafen(self) -> None:
        self._deaf = True

    def _run(self) -> None:
        client, _ = self._listener.accept()
        with self._listener, self._head, client:
            while True:
                sources = [client] if self._deaf else [client, self._head]
                for source in select.select(sources, [], [], 0.01)[0]:
                    data = source.recv(1 << 16)
                    if not data:
                        break
                    (self._head if source is client else client).sendall(data)
                else:
                    continue
                break
            until(lambda: self._unacknowledged() == 0, 5, "the head's kernel has it all")

    def _unacknowledged(self) -> int:
        left = fcntl.ioctl(self._head, termios.TIOCOUTQ, b"\0" * 4)  # SIOCOUTQ of tcp(7)
        return int.from_bytes(left, sys.byteorder)

    def join(self) -> None:
        self._thread.join(20)


def test_a_driver_that_leaves_without_reading_its_answers_has_left(cluster: Any) -> None:
    """The head finds its connection gone when it answers; what was said before still counts."""
    info = cluster.info()
    port = parse_address(info.addresses[0])[1]
    ways, drivers = [], []
    try:
        for _ in range(20):
            ways.append(Deaf(port))
            driver = Peer(
                msgspec.structs.replace(info, addresses=[ways[-1].address]), role=m.ROLE_DRIVER
            )
            drivers.append(driver)
            ways[-1].deafen()
        for driver in drivers:  # together more than the head reads before it hears of an end
            for _ in range(200):
                driver.send(m.Ping(0, 0.0))
            driver.send(m.Goodbye(0, "done"))
            driver.close(linger_ms=5000)
        cluster.until(lambda: not cluster.status().jobs, 5, "no job is left")
    finally:
        for driver in drivers:
            driver.close()
        for way in ways:
            way.join()


def test_a_driver_that_leaves_in_the_middle_of_its_submissions_has_left(cluster: Any) -> None:
    """It goes when the head has heard that: its last words are behind 50 MB of tasks."""
    zray.init(cluster.address)

    @zray.task
    def take(_value: bytes) -> None:
        pass

    refs = [take.remote(b"x" * 1000) for _ in range(50_000)]
    zray.shutdown()
    cluster.until(lambda: not cluster.status().jobs, 5, "no job is left")
    del refs


def test_a_driver_that_is_gone_before_it_was_heard_is_given_up(cluster: Any) -> None:
    """Its HELLO is read when its connection has ended, and others have its descriptor by then."""
    busy = cluster.peer()
    try:
        for _ in range(50):
            for _ in range(100):  # the head has something to do meanwhile
                busy.send(m.Query(0, m.STATUS))
            driver = cluster.peer(hello=False)
            hello = driver.hello(m.ROLE_DRIVER)
            job = msgspec.structs.replace(hello.job, lost_after_s=0.5)
            driver.send(msgspec.structs.replace(hello, job=job))
            driver.close(linger_ms=5000)
        cluster.until(lambda: not cluster.status().jobs, 10, "no job is left")
    finally:
        busy.close()
