"""GPUs of a real node, found by way of NVIDIA's library: what there is, and who sees which.

No GPU is at hand: the library is compiled here, and what lies above it is the real thing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

import zray
from tests import fake_gpus
from zray.cluster_utils import Cluster

pytestmark = pytest.mark.system
PARTS = ["MIG-107-uuid", "MIG-137-uuid"]


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, _module_leaves_nothing: object
) -> Iterator[Cluster]:
    """A head without GPUs, and a node with one and two instances of another."""
    folder = fake_gpus.make(tmp_path_factory.mktemp("nvml"))
    head = {"num_cpus": 2}
    with Cluster(initialize_head=True, connect=True, head_node_args=head) as cluster:
        cluster.add_node(
            node_name="cards", num_cpus=4, num_gpus=None, env_vars={"LD_LIBRARY_PATH": str(folder)}
        )
        yield cluster


@zray.remote(num_gpus=1)
class Seeing:
    def see(self) -> tuple[str, list[int | str]]:
        return os.environ["CUDA_VISIBLE_DEVICES"], zray.get_gpu_ids()


@zray.remote(num_cpus=0)
def see() -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")


@zray.remote(num_gpus=1)
def outer() -> tuple[str | None, str | None]:
    there = zray.get_runtime_context().get_node_id()
    inner = see.options(label_selector={"ray.io/node-id": there}).remote()
    return os.environ["CUDA_VISIBLE_DEVICES"], zray.get(inner)


def test_what_there_is(cluster: Cluster) -> None:
    """Each instance is a GPU; what kind they are is a resource and a label."""
    (node,) = (one for one in zray.nodes() if one["Resources"].get("GPU"))
    assert node["Resources"]["GPU"] == 3.0
    assert node["Resources"]["accelerator_type:H200"] == 1.0
    assert node["Labels"]["ray.io/accelerator-type"] == "H200"
    kind = see.options(num_gpus=0.1, accelerator_type="H200").remote()
    assert zray.get(kind) in ["0", *PARTS]


def test_each_sees_its_own(cluster: Cluster) -> None:
    """An instance by its UUID, as CUDA wants it."""
    actors = [Seeing.remote() for _ in range(3)]
    found = zray.get([actor.see.remote() for actor in actors])
    assert sorted(seen for seen, _ in found) == ["0", *PARTS]
    assert sorted(str(ids[0]) for _, ids in found) == ["0", *PARTS]


def test_two_on_halves_of_one(cluster: Cluster) -> None:
    """Both see it, while others have the rest."""
    others = [Seeing.remote() for _ in range(2)]
    kept = {seen for seen, _ in zray.get([actor.see.remote() for actor in others])}
    halves = [Seeing.options(num_gpus=0.5).remote() for _ in range(2)]
    seen = {seen for seen, _ in zray.get([actor.see.remote() for actor in halves])}
    assert len(seen) == 1 and not seen & kept
    assert zray.available_resources().get("GPU", 0) == 0


def test_a_task_without_gpus_sees_none(cluster: Cluster) -> None:
    """Also where its caller has one, on the same node."""
    seen, below = zray.get(outer.remote())
    assert seen in ["0", *PARTS] and below == ""


def test_metrics_of_them(cluster: Cluster) -> None:
    """Read when somebody asks."""
    assert cluster.address is not None
    shown = subprocess.run(
        [sys.executable, "-m", "zray", "metrics", "show", "cards", "--address", cluster.address],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'zray_gpu_utilization{gpu="0",node="cards"} 0.37' in shown.stdout
    assert shown.stdout.count("zray_gpu_memory_bytes{") == 6
