"""One bad thing, of a user, a stranger or the system, ends no daemon and harms nobody else."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import zmq

import zray
from tests.hostile import GARBAGE, abstract_sockets, fill, knock
from zray.errors import ActorDiedError, ActorError, ActorUnavailableError, WorkerCrashedError
from zray.protocol import messages as m
from zray.runtime import sockets
from zray.runtime.keys import ClusterKey
from zray.runtime.stream import READ_BYTES


@zray.task
def double(number: int) -> int:
    return 2 * number


def health(cluster: Any) -> str:
    return str(cluster.status().health)


def degraded(cluster: Any, *words: str) -> str:
    """Wait until the health says so, and return what it says."""

    def probe() -> str:
        said = health(cluster)
        return said if said.startswith("DEGRADED") and all(w in said for w in words) else ""

    return str(cluster.until(probe, 10, f"the health speaks of {words}; it says {health(cluster)}"))


def test_a_task_gets_hundreds_of_large_objects_that_another_node_made(sites: Any) -> None:
    @zray.task(resources={"two": 0.01})
    def make(number: int) -> Any:
        return np.full(9000, number)  # 72 kB

    @zray.task(resources={"one": 1}, max_retries=0)
    def total(refs: list[Any]) -> int:
        return sum(int(array[0]) for array in zray.get(refs))

    refs = [make.remote(number) for number in range(500)]
    assert zray.get(total.remote(refs), timeout=50) == sum(range(500))


def test_descriptors_that_run_out_end_no_node(bare: Any) -> None:
    bare.start_head()
    bare.prefix["one"] = ["prlimit", "--nofile=200:200"]
    node = bare.start_node("one", 2)
    bare.connect()

    @zray.actor(num_cpus=0)
    class Idle:
        def pid(self) -> int:
            return os.getpid()

    actors = [Idle.remote() for _ in range(60)]
    said = degraded(bare, "node one", "starting a worker", "ulimit -n")
    assert "descriptors are in use" in said
    waiting = double.remote(21)
    with pytest.raises(zray.errors.GetTimeoutError, match=r"in trouble.*descriptors are in use"):
        zray.get(waiting, timeout=3)
    assert node.process.poll() is None
    # Each that ends makes room for one that waits.
    first, *_ = zray.wait([actor.pid.remote() for actor in actors], num_returns=10, timeout=30)
    assert len(first) == 10
    for actor in actors:
        zray.kill(actor)
    assert zray.get(waiting, timeout=30) == 42
    assert node.process.poll() is None


@pytest.fixture
def full_logs(bare: Any, tmp_path: Path) -> Any:
    """A node whose directory for logs is a disk of 64 kB."""
    logs = tmp_path / "logs"
    logs.mkdir()
    mount = f'mount -t tmpfs -o size=64k tmpfs "{logs}" && exec "$@"'
    bare.prefix["one"] = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    bare.start_head()
    bare.start_node("one", 1, "--log-directory", str(logs))
    bare.connect()
    return bare


def test_a_full_disk_for_logs_costs_lines_in_files_only(
    full_logs: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    @zray.task
    def speak(number: int) -> int:
        print("line", number, "x" * 1000)
        return number

    assert zray.get([speak.remote(i) for i in range(200)], timeout=30) == list(range(200))
    degraded(full_logs, "node one", "writing the log of a worker", "No space left")
    printed = ""

    def all_printed() -> bool:
        nonlocal printed
        printed += capfd.readouterr().out
        return all(f"line {number} x" in printed for number in range(200))

    full_logs.until(all_printed, 10, "the driver sees every line")


@contextlib.contextmanager
def stranger(cluster: Any) -> Iterator[Any]:
    """Somebody with a key of his own, who tries to connect."""
    context = sockets.context()
    try:
        key = ClusterKey.create().client()
        peer = context.socket(zmq.DEALER)
        peer.curve_serverkey = cluster.info().server_public
        peer.curve_publickey, peer.curve_secretkey = key.public, key.secret
        peer.setsockopt(zmq.LINGER, 0)
        monitor = sockets.Monitor(peer)
        peer.connect(f"tcp://{cluster.address}")
        yield monitor
        monitor.close()
    finally:
        context.destroy(0)


@pytest.mark.parametrize("stderr", ["full", "ended"])
def test_a_head_whose_stderr_cannot_be_written_serves_on(bare: Any, stderr: str) -> None:
    where = {"full": "/dev/full", "ended": ">(true)"}[stderr]
    bare.prefix["head"] = ["bash", "-c", f'exec "$@" 2> {where}', "bash"]
    bare.start_head()
    bare.start_node("one")
    bare.connect()
    with stranger(bare) as monitor:
        refused = zmq.EVENT_HANDSHAKE_FAILED_AUTH
        bare.until(lambda: any(e.event == refused for e in monitor.read()), 10, "it is refused")
    assert zray.get(double.remote(21), timeout=10) == 42
    assert health(bare) == "OK"


def test_garbage_to_what_a_worker_inherited_costs_that_worker_alone(sites: Any) -> None:
    @zray.task(num_cpus=0, max_retries=0, resources={"one": 1})
    def babble(number: int) -> int:
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                    os.write(int(name), GARBAGE)
        return number

    @zray.actor(resources={"one": 1})
    class Bystander:
        def __init__(self) -> None:
            self.calls = 0

        def call(self) -> int:
            self.calls += 1
            return self.calls

    bystander = Bystander.remote()
    assert zray.get(bystander.call.remote(), timeout=20) == 1
    nodes = {node.info.name: node.info.pid for node in sites.status().nodes}
    for _ in range(3):
        with pytest.raises(WorkerCrashedError, match=r"ZR-2001|reading what a worker said"):
            zray.get(babble.remote(1), timeout=20)
    assert zray.get(bystander.call.remote(), timeout=20) == 2
    assert {node.info.name: node.info.pid for node in sites.status().nodes} == nodes
    degraded(sites, "node one", "reading what a worker said")


def test_after_garbage_no_word_of_a_worker_counts(sites: Any) -> None:
    pid = next(node.info.pid for node in sites.status().nodes if node.info.name == "one")
    node = psutil.Process(pid)

    @zray.task(num_cpus=0, max_retries=0, resources={"one": 1})
    def babble() -> int:
        os.kill(pid, signal.SIGSTOP)  # it reads the garbage when the result is there, too
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                    os.write(int(name), GARBAGE * (READ_BYTES // len(GARBAGE)))
                    os.write(int(name), GARBAGE[: READ_BYTES % len(GARBAGE)])
        return 1

    zray.get(double.options(resources={"one": 1}).remote(1), timeout=20)
    result = babble.remote()
    sites.until(lambda: node.status() == psutil.STATUS_STOPPED, 20, "the task has begun")
    zygote = min(node.children(), key=lambda child: child.create_time())
    at_rest = psutil.STATUS_SLEEPING
    sites.until(lambda: all(w.status() == at_rest for w in zygote.children()), 20, "it is over")
    node.resume()
    with pytest.raises(WorkerCrashedError):
        zray.get(result, timeout=20)


@pytest.mark.parametrize(
    "line", ["x" * 70_000, "\N{GRINNING FACE}" * 17_000], ids=["ascii", "wide"]
)
def test_an_actor_with_long_last_words_is_known_to_be_dead(sites: Any, line: str) -> None:
    @zray.actor(resources={"one": 1}, max_restarts=1)
    class Talker:
        def end(self) -> None:
            for _ in range(25):
                print(line, file=sys.stderr)
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        def pid(self) -> int:
            return os.getpid()

    talker = Talker.remote()
    first = zray.get(talker.pid.remote(), timeout=20)
    with pytest.raises(ActorError):
        zray.get(talker.end.remote(), timeout=20)

    def again() -> int:
        with contextlib.suppress(ActorError):
            return int(zray.get(talker.pid.remote(), timeout=20))
        return 0

    assert sites.until(again, 20, "it is restarted") != first
    with pytest.raises(ActorDiedError):
        zray.get(talker.end.remote(), timeout=20)
    assert health(sites) == "OK"


def test_garbage_to_the_sockets_of_store_and_actor_harms_nobody(bare: Any) -> None:
    bare.start_head()
    node = bare.start_node("one", 2)
    bare.connect()

    @zray.actor
    class Counter:
        def __init__(self) -> None:
            self.calls = 0

        def call(self) -> int:
            self.calls += 1
            return self.calls

        def pid(self) -> int:
            return os.getpid()

    counter = Counter.remote()
    worker = zray.get(counter.pid.remote(), timeout=20)
    own = next(p.pid for p in bare.head.below() if p.name().startswith("zray-raylet"))
    names = [name for pid in (own, node.pid, worker) for name in abstract_sockets(pid)]
    assert len(names) == 4  # of two stores, one also under the cluster's name, and the actor's
    for name in names:
        knock(name)
    assert zray.get([counter.call.remote() for _ in range(3)], timeout=10) == [1, 2, 3]
    array = np.arange(100_000)
    assert zray.get(zray.put(array), timeout=10)[99_999] == 99_999
    assert node.process.poll() is None and psutil.pid_exists(worker)


def test_an_actor_that_garbles_its_callers_socket_costs_that_call_or_ends(bare: Any) -> None:
    bare.start_head()
    node = bare.start_node("one", 2)
    bare.connect()

    @zray.actor
    class Babbler:
        def babble(self) -> int:
            for name in os.listdir("/proc/self/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                        os.write(int(name), GARBAGE)
            return 1

    babbler = Babbler.remote()
    with contextlib.suppress(ActorDiedError, ActorUnavailableError):
        assert zray.get(babbler.babble.remote(), timeout=20) == 1
    assert zray.get(double.remote(21), timeout=10) == 42
    assert node.process.poll() is None
    status = bare.status()
    assert [type(status)] == [m.Status]


# ---- the head's disk and port ------------------------------------------------------------------


@pytest.fixture
def small_disk(bare: Any, tmp_path: Path) -> tuple[Any, Path]:
    """A head whose data directory is a disk of 2 MB, and where that is seen from here."""
    data = tmp_path / "data"
    data.mkdir()
    mount = f'mount -t tmpfs -o size=2m,mode=700 tmpfs "{data}" && exec "$@"'
    bare.prefix["head"] = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    head = bare.start_head("--data-directory", str(data))
    bare.await_node("head")  # whose own node would be refused while the disk is full
    bare.start_node("one", 1)
    return bare, Path(f"/proc/{head.pid}/root{data}")


def test_a_head_whose_disk_is_full_says_so_and_goes_on_when_there_is_room(
    small_disk: tuple[Any, Path],
) -> None:
    cluster, disk = small_disk
    cluster.connect()
    assert zray.get(double.remote(20), timeout=20) == 40
    filler = fill(disk)

    @zray.task
    def unheard_of(number: int) -> int:
        return number + 1

    # Tasks that need no CPU go by way of the head, where their function has to be stored.
    waiting = [unheard_of.options(name=f"{n}", num_cpus=0).remote(n) for n in range(3)]
    said = degraded(cluster, "control store", "full")
    assert "gcs.sqlite" in said
    assert zray.get(double.remote(21), timeout=10) == 42  # what is stored already works on
    with pytest.raises(zray.errors.GetTimeoutError, match=r"being stored.*full"):
        zray.get(waiting, timeout=1)
    late = cluster.run("late", "import zray; zray.init()")
    assert late.wait(20) == 1
    assert "ZR-4003" in late.text() and "full" in late.text() and "refused" in late.text()

    filler.unlink()
    assert zray.get(waiting, timeout=20) == [1, 2, 3]
    cluster.until(lambda: health(cluster) == "OK", 10, "the health is OK again")
    again = cluster.run("again", "import zray; zray.init(); print('welcome')")
    assert again.wait(20) == 0 and "welcome" in again.text()


def test_strangers_who_only_connect_get_few_descriptors_and_harm_nobody(bare: Any) -> None:
    bare.prefix["head"] = ["prlimit", "--nofile=64:64"]
    head = bare.start_head()
    bare.start_node("one")
    bare.connect()
    host, port = bare.address.rsplit(":", 1)
    process = psutil.Process(head.pid)
    before = process.memory_info().rss
    with contextlib.ExitStack() as stack:
        strangers = []
        for _ in range(5):
            for _ in range(60):
                strangers.append(stack.enter_context(socket.socket()))
                strangers[-1].setblocking(False)
                strangers[-1].connect_ex((host, int(port)))
            assert zray.get(double.remote(21), timeout=5) == 42

        def alive() -> int:
            found = 0
            for one in strangers:
                try:
                    found += bool(one.recv(100))
                except BlockingIOError:
                    found += 1
                except OSError:
                    pass
            return found

        bare.until(lambda: alive() <= 16, 10, f"most are sent away; {alive()} are not")
        assert bare.epoch()  # who has the key still gets in
        busy = process.cpu_times()
        assert zray.get([double.remote(i) for i in range(50)], timeout=10) == list(range(0, 100, 2))
        assert process.cpu_times().user - busy.user < 2
    assert process.memory_info().rss - before < 20_000_000
    assert head.stop(5) == 0
