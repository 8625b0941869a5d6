"""Resources: exact accounting, GPUs, thread counts, and tasks that no node can run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

import zray
from tests.api.conftest import eventually
from zray.errors import GetTimeoutError

UNIT = 10_000
TOTAL = {"CPU": 4, "GPU": 2, "memory": 1000, "disk": 1}


@pytest.fixture(scope="module", autouse=True)
def cluster(_module_leaves_nothing: Any) -> Iterator[None]:
    with zray.init(num_cpus=4, num_gpus=2, resources={"disk": 1}, _memory=1000):
        yield


@zray.remote
def occupy(seconds: float = 0.05) -> tuple[float, float, str]:
    began = time.monotonic()
    time.sleep(seconds)
    return began, time.monotonic(), os.environ.get("CUDA_VISIBLE_DEVICES", "")


def most_at_once(runs: list[tuple[float, float, Any]]) -> int:
    """The largest number of runs that overlapped at any moment."""
    edges = sorted([(began, 1) for began, _, _ in runs] + [(ended, -1) for _, ended, _ in runs])
    now = most = 0
    for _, step in edges:
        now += step
        most = max(most, now)
    return most


@pytest.mark.parametrize(
    ("options", "fitting"),
    [
        ({}, 4),
        ({"num_cpus": 3}, 1),
        ({"num_cpus": 1.5}, 2),
        ({"num_cpus": 0.3}, 13),
        ({"num_cpus": 0, "memory": 300}, 3),
        ({"num_cpus": 0.0001, "resources": {"disk": 0.5}}, 2),
        ({"num_cpus": 0, "resources": {"disk": 0.3334}}, 2),
        ({"num_cpus": 0, "num_gpus": 1}, 2),
        ({"num_cpus": 0, "num_gpus": 0.4}, 4),
        ({"num_cpus": 1, "num_gpus": 2}, 1),
        ({"num_cpus": 2, "memory": 100, "resources": {"disk": 0.01}}, 2),
    ],
)
def test_never_more_at_once_than_fit(options: dict[str, Any], fitting: int) -> None:
    bound = occupy.options(**options)
    zray.get([bound.remote(0) for _ in range(fitting)])  # the workers are there
    most = most_at_once(zray.get([bound.remote(0.1) for _ in range(2 * fitting)]))
    assert most == fitting if fitting <= 4 else most <= fitting


def test_a_mix_fits_exactly() -> None:
    wants: list[dict[str, float]] = [
        {"num_cpus": 1},
        {"num_cpus": 2.5},
        {"num_cpus": 0, "memory": 600},
        {"num_gpus": 0.7},
    ]
    refs = [(want, occupy.options(**want).remote()) for _ in range(8) for want in wants]
    runs = [(*zray.get(ref)[:2], want) for want, ref in refs]
    for moment in sorted(began for began, _, _ in runs):
        used = {"num_cpus": 0.0, "memory": 0.0, "num_gpus": 0.0}
        for began, ended, want in runs:
            if began <= moment < ended:
                for name, amount in {"num_cpus": 1, **want}.items():
                    used[name] += amount
        assert used["num_cpus"] <= 4 + 1e-6 and used["memory"] <= 1000 and used["num_gpus"] <= 2


def test_a_blocked_task_gives_only_its_cpu_back() -> None:
    @zray.remote(num_cpus=4, resources={"disk": 1})
    def parent() -> Any:
        runs = zray.get([occupy.remote() for _ in range(4)])
        with pytest.raises(GetTimeoutError, match="disk 1"):
            zray.get(occupy.options(resources={"disk": 1}).remote(), timeout=0.3)
        return runs

    assert len(zray.get(parent.remote(), timeout=10)) == 4


def test_everything_is_given_back() -> None:
    refs = [occupy.options(num_cpus=0.1, memory=1, num_gpus=0.1).remote(0) for _ in range(50)]

    @zray.remote(max_retries=0, num_cpus=2, num_gpus=1)
    def crash() -> None:
        os._exit(1)

    crashes = [crash.remote() for _ in range(3)]
    zray.wait([*refs, *crashes], num_returns=53)
    cancelled = occupy.options(num_gpus=2).remote(60)
    eventually(lambda: "GPU" not in zray.available_resources())
    zray.cancel(cancelled)
    assert zray.cluster_resources().items() >= TOTAL.items()
    eventually(lambda: zray.available_resources() == zray.cluster_resources())


def test_available_resources_go_down() -> None:
    ref = occupy.options(num_cpus=1, num_gpus=1, resources={"disk": 0.25}).remote(0.5)
    expected = {"CPU": 3, "GPU": 1, "memory": 1000, "disk": 0.75}
    eventually(lambda: zray.available_resources().items() >= expected.items(), 0.5)
    zray.get(ref)


# ---- GPUs and threads ----------------------------------------------------------------------


def test_each_task_sees_its_own_gpus() -> None:
    both = zray.get([occupy.options(num_gpus=1).remote(0.2) for _ in range(2)])
    assert sorted(visible for _, _, visible in both) == ["0", "1"]
    assert zray.get(occupy.options(num_gpus=2).remote())[2] == "0,1"
    assert zray.get(occupy.remote())[2] == ""


def test_fractions_share_a_gpu() -> None:
    runs = zray.get([occupy.options(num_cpus=0, num_gpus=0.5).remote(0.2) for _ in range(4)])
    assert sorted(visible for _, _, visible in runs) == ["0", "0", "1", "1"]


def test_gpu_ids() -> None:
    @zray.remote(num_gpus=1)
    def ids() -> Any:
        return zray.get_gpu_ids(), zray.get_runtime_context().get_accelerator_ids()

    found, accelerators = zray.get(ids.remote())
    assert found in ([0], [1]) and accelerators == {"GPU": [str(found[0])]}
    assert zray.get_gpu_ids() == []


@pytest.mark.parametrize(("cpus", "threads"), [(0.5, "1"), (1, "1"), (3, "3"), (0, "1")])
def test_thread_counts_of_numeric_libraries(cpus: float, threads: str) -> None:
    @zray.remote
    def names() -> list[str | None]:
        return [os.environ.get(f"{name}_NUM_THREADS") for name in ("OMP", "MKL", "OPENBLAS")]

    if "OMP_NUM_THREADS" not in os.environ:
        assert zray.get(names.options(num_cpus=cpus).remote()) == [threads] * 3


# ---- what never fits -----------------------------------------------------------------------


def test_an_infeasible_task_is_warned_about(capfd: pytest.CaptureFixture[str]) -> None:
    ref = occupy.options(num_cpus=1, resources={"tape": 2}).remote()
    with pytest.raises(GetTimeoutError, match=r"INFEASIBLE: needs CPU 1, tape 2; no node ever has"):
        zray.get(ref, timeout=0.2)
    seen: list[str] = []

    def warned() -> bool:
        seen.append(capfd.readouterr().err)
        return "ZR-3007" in "".join(seen)

    eventually(warned, 8)
    assert "no node ever has tape 2" in "".join(seen)
    zray.cancel(ref)


def test_other_tasks_pass_an_infeasible_one() -> None:
    ref = occupy.options(num_cpus=100).remote()
    assert zray.get(occupy.remote(0))
    zray.cancel(ref)
