"""``zray.cluster_utils.Cluster``: what programs on top of it rely on beside Ray's contract."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import zray
from tests.api.conftest import Script, eventually
from zray.cluster_utils import Cluster
from zray.errors import StartError
from zray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """One that has a head, and nobody connected."""
    with Cluster(initialize_head=True) as cluster:
        yield cluster


@zray.remote(num_cpus=0)
def variable(name: str) -> str | None:
    return os.environ.get(name)


def below(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file()]


def test_a_node_has_its_own_environment_and_name(cluster: Cluster) -> None:
    """``env_vars`` are of its processes alone."""
    node = cluster.add_node(
        node_name="other", resources={"other": 1}, env_vars={"ZRAY_TEST_OF_CLUSTER": "there"}
    )
    cluster.connect(namespace="mine")
    assert zray.get_runtime_context().namespace == "mine"
    there = variable.options(resources={"other": 1}).remote("ZRAY_TEST_OF_CLUSTER")
    assert zray.get([there, variable.remote("HOME")]) == ["there", os.environ["HOME"]]
    assert {one["NodeName"]: one["NodeID"] for one in zray.nodes()}["other"] == node.node_id
    assert "joined" in node.log() or "READY" in node.log()


def test_what_it_has_started_and_written_is_gone_after_it(cluster: Cluster) -> None:
    """Whoever is connected is disconnected; a second shutdown does nothing."""
    cluster.add_node()
    cluster.connect()
    processes = [psutil.Process(node.pid) for node in cluster.list_all_nodes()]
    home = Path(os.environ["ZRAY_HOME"])
    assert below(home / "clusters")
    cluster.shutdown()
    cluster.shutdown()
    assert not zray.is_initialized()
    assert not any(process.is_running() for process in processes)
    assert not below(home / "clusters")
    assert cluster.address is None and cluster.list_all_nodes() == []


def test_nodes_that_were_not_waited_for(cluster: Cluster) -> None:
    """Come up together, and are known once they are waited for."""
    nodes = [cluster.add_node(wait=False) for _ in range(2)]
    assert [node.node_id for node in nodes] == ["", ""]
    cluster.wait_for_nodes()
    cluster.connect()
    alive = {one["NodeID"] for one in zray.nodes() if one["Alive"]}
    assert len(alive) == 3 and {node.node_id for node in nodes} < alive


def test_a_forked_child_does_not_end_it(cluster: Cluster) -> None:
    """It is its parent's."""
    if (pid := os.fork()) == 0:
        cluster.shutdown()
        os._exit(0)
    os.waitpid(pid, 0)
    assert cluster.remaining_processes_alive()
    cluster.wait_for_nodes()


def test_another_head_after_the_first(cluster: Cluster) -> None:
    """The first node that is added after its removal has the head again."""
    assert cluster.head_node is not None
    first = cluster.address
    cluster.remove_node(cluster.head_node)
    assert cluster.address is None
    node = cluster.add_node(num_cpus=3)
    assert node.is_head and cluster.address not in (None, first)
    cluster.connect()
    assert zray.cluster_resources()["CPU"] == 3.0


def test_a_killed_head_takes_its_own_node_along(cluster: Cluster) -> None:
    """Which would otherwise wait for the next head."""
    assert cluster.head_node is not None
    pids = {cluster.head_node.pid, cluster.head_node._raylet}
    assert len(pids) == 2
    cluster.kill_node(cluster.head_node)
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_node_that_does_not_start_says_why(cluster: Cluster) -> None:
    """And is not one of the cluster's."""
    with pytest.raises(StartError, match="PYTHONHOME"):
        cluster.add_node(env_vars={"PYTHONHOME": "/nowhere"})
    assert len(cluster.list_all_nodes()) == 1
    with pytest.raises(ValueError, match="CPU"):
        cluster.add_node(num_cpus=-1)
    with pytest.raises(RuntimeError):
        Cluster().connect()


def test_what_no_node_can_be_is_refused_before_it_starts(cluster: Cluster) -> None:
    """With the option's name."""
    for name in ("a/b", "a\0b", "a\nb", "x" * 129, "\ud800"):
        with pytest.raises(ValueError, match="node_name"):
            cluster.add_node(node_name=name)
    for option in ("labels", "env_vars"):
        for value in (5, {"name": 1}):
            with pytest.raises(TypeError, match=option):
                cluster.add_node(**{option: value})
    with pytest.raises(TypeError, match="resources"):
        cluster.add_node(resources=5)  # type: ignore[arg-type]


def test_amounts_and_labels_arrive_as_they_are(cluster: Cluster) -> None:
    """Whole numbers that are floats, and values with what separates labels elsewhere."""
    cluster.connect()
    wanted = {"memory": 1234567890.0, "labels": {"zone": "a,b=c"}}
    node = cluster.add_node(num_cpus=2.0, node_name="large", **wanted)
    [found] = [one for one in zray.nodes() if one["NodeID"] == node.node_id]
    assert found["Resources"]["memory"] == 1234567890 and found["Resources"]["CPU"] == 2
    assert found["Labels"]["zone"] == "a,b=c"


def test_a_node_ends_with_its_workers(cluster: Cluster) -> None:
    """None is left when ``remove_node`` returns, whatever it does; a second call does no harm."""
    cluster.connect()
    node = cluster.add_node(num_cpus=1)

    @zray.remote(
        num_cpus=1, scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, False)
    )
    def stays() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.kill(os.getpid(), signal.SIGSTOP)

    stays.remote()
    raylet = psutil.Process(node.pid)

    def stopped() -> bool:
        below = raylet.children(recursive=True)
        return any(one.status() == psutil.STATUS_STOPPED for one in below)

    eventually(stopped)
    left = raylet.children(recursive=True)
    cluster.remove_node(node, allow_graceful=False)
    assert not [one for one in left if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    cluster.remove_node(node)
    assert cluster._reaper is not None and cluster._reaper.poll() is None


@pytest.mark.parametrize(
    "before",
    [
        "",
        "cluster.remove_node(node); cluster.remove_node(node)",
        "cluster.head_node._process.kill()",
        "os.fork() or (os.setsid(), signal.pause())",
    ],
    ids=["", "after a removal twice", "after the head", "with a child of its own"],
)
def test_a_program_that_is_killed_leaves_nothing(
    script: Script, tmp_path: Path, before: str
) -> None:
    """Neither processes nor files."""
    path = script(
        f"""
        import os, signal
        from zray.cluster_utils import Cluster
        cluster = Cluster(initialize_head=True, connect=True)
        node = cluster.add_node()
        print(*(node.pid for node in cluster.list_all_nodes()), cluster._directory, flush=True)
        input()
        {before}
        print("done", flush=True)
        signal.pause()
        """
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    program = subprocess.Popen([sys.executable, str(path)], text=True, **pipes)  # type: ignore[call-overload]
    child: list[psutil.Process] = []
    try:
        assert program.stdin is not None and program.stdout is not None
        *pids, folder = program.stdout.readline().split()
        below_it = psutil.Process(program.pid).children(recursive=True)
        assert {int(pid) for pid in pids} <= {process.pid for process in below_it}
        program.stdin.write("\n")
        program.stdin.flush()
        assert program.stdout.readline() == "done\n"
        now = psutil.Process(program.pid).children()
        child = [one for one in now if one not in below_it] if "fork" in before else []
    finally:
        program.send_signal(signal.SIGKILL)
        program.wait()
        program.stdin.close()
        program.stdout.close()
    try:
        eventually(lambda: not any(process.is_running() for process in below_it))
        eventually(lambda: not os.path.exists(folder))
        assert not below(Path(os.environ["ZRAY_HOME"]) / "clusters")
    finally:
        for one in child:
            one.kill()
