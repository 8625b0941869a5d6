"""Which GPUs a node finds: NVIDIA's by way of nvidia-ml-py, instances of MIG, and AMD's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fake_gpus
from zray.runtime.linux import gpus
from zray.runtime.linux.gpus import Gpu, told, visible_gpus

GIB = 1 << 30
WHOLE = Gpu(0, "GPU-07-uuid", "NVIDIA H200", 141 * GIB, "0")
PARTS = [
    Gpu(2, f"MIG-{place}7-uuid", "NVIDIA H200", 16 * GIB, f"MIG-{place}7-uuid")
    for place in (10, 13)
]
LOOK = """
import json, sys
from pathlib import Path
from zray.runtime.linux.gpus import visible_gpus
import msgspec
found = [visible_gpus(environment, Path(sys.argv[2])) for environment in json.loads(sys.argv[1])]
print(msgspec.json.encode([found, sorted({"pynvml", "amdsmi"} & {*sys.modules})]).decode())
"""


def look(
    environments: list[dict[str, str]], kfd: str = "/nowhere", **env: str
) -> tuple[list[list[Gpu]], list[str]]:
    """What a process finds, told each of these, and which libraries it has loaded."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK, json.dumps(environments), kfd],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **env},
    )
    found, loaded = json.loads(done.stdout)
    return [[Gpu(**one) for one in gpus] for gpus in found], loaded


@pytest.fixture(scope="module")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of NVIDIA's library."""
    return str(fake_gpus.make(tmp_path_factory.mktemp("nvml")))


@pytest.mark.system
def test_gpus_that_cuda_would_show(nvml: str) -> None:
    """As CUDA reads its variable; the number of one with MIG stands for its instances."""
    expected: dict[str | None, list[Gpu]] = {
        None: [WHOLE, *PARTS],
        "": [],
        "-1": [],
        "NoDevFiles": [],
        "0": [WHOLE],
        "2,0": [*PARTS, WHOLE],
        "2, 1, 0": PARTS,  # CUDA stops at the first that is not there
        "GPU-07": [WHOLE],
        "MIG-13": [PARTS[1]],
        "MIG-": [],  # ambiguous
        "0,0": [WHOLE],
    }
    environments = [{} if one is None else {"CUDA_VISIBLE_DEVICES": one} for one in expected]
    found, _ = look(environments, LD_LIBRARY_PATH=nvml)
    assert dict(zip(expected, found, strict=True)) == expected


def test_without_a_driver_nothing_is_loaded() -> None:
    """A node without GPUs pays nothing for those of others."""
    assert look([{}]) == ([[]], [])


@pytest.mark.system
def test_a_driver_that_does_not_answer(tmp_path: Path, nvml: str) -> None:
    """Its node has no GPUs, and starts all the same."""
    folder = fake_gpus.make(tmp_path)
    broken = fake_gpus.SOURCE.replace("{ ready = 1; return 0; }", "{ return 9; }")
    assert broken != fake_gpus.SOURCE
    (folder / "nvml.c").write_text(broken)
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, folder / "nvml.c"], check=True)
    assert look([{}], LD_LIBRARY_PATH=str(folder))[0] == [[]]
    library.write_bytes(b"no library")
    assert look([{}], LD_LIBRARY_PATH=str(folder))[0] == [[]]


AMDSMI = """
import enum
AmdSmiMemoryType = enum.Enum("AmdSmiMemoryType", "VRAM")
amdsmi_init = amdsmi_shut_down = lambda: None
amdsmi_get_processor_handles = lambda: ["a", "b"]
amdsmi_get_gpu_device_uuid = lambda device: f"{device}-uuid"
amdsmi_get_gpu_asic_info = lambda device: {"market_name": "AMD Instinct MI300X OAM"}
amdsmi_get_gpu_memory_total = lambda device, kind: 192 << 30
"""


def test_gpus_of_amd(tmp_path: Path) -> None:
    """Where its driver is, and its library for Python; as HIP_VISIBLE_DEVICES says."""
    (tmp_path / "amdsmi.py").write_text(AMDSMI)
    kfd = tmp_path / "kfd"
    environments = [{}, {"HIP_VISIBLE_DEVICES": "1"}, {"HIP_VISIBLE_DEVICES": ""}]
    assert look(environments, str(kfd), PYTHONPATH=str(tmp_path)) == ([[], [], []], [])
    kfd.touch()
    first, second = (
        Gpu(place, f"{one}-uuid", "AMD Instinct MI300X OAM", 192 * GIB, str(place), gpus.HIP)
        for place, one in enumerate("ab")
    )
    found, loaded = look(environments, str(kfd), PYTHONPATH=str(tmp_path))
    assert found == [[first, second], [second], []]
    assert loaded == ["amdsmi"]
    broken = "raise KeyError('/opt/rocm/lib/libamd_smi.so')"
    (tmp_path / "amdsmi.py").write_text(broken)
    assert look([{}], str(kfd), PYTHONPATH=str(tmp_path))[0] == [[]]


# ---- how busy they are -------------------------------------------------------------------------

LOAD = """
import os
from pathlib import Path
from zray.runtime.linux import gpu_usage
from zray.runtime.linux.gpus import visible_gpus
import msgspec
found = visible_gpus(os.environ, Path(os.environ.get("KFD", "/nowhere")))
print(msgspec.json.encode(gpu_usage.figures("n", found)).decode())
"""


def load(**env: str) -> dict[tuple[str, ...], float]:
    """What a process reads, by metric and labels behind the node's."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **env},
    )
    return {(one[0], *one[2][1:]): one[1] for one in json.loads(done.stdout)}


@pytest.mark.system
def test_load_of_nvidia_s(nvml: str) -> None:
    """That of instances of MIG is not told, their memory is."""
    kept = ("zray_gpu_memory_bytes", PARTS[0].visible)
    found = load(LD_LIBRARY_PATH=nvml)
    assert found["zray_gpu_utilization", "0"] == 0.37
    assert found["zray_gpu_memory_bytes", "0", "total"] == 141 * GIB
    assert found[(*kept, "used")] * 4 == found[(*kept, "total")] == 16 * GIB
    assert [name for name, *_ in found].count("zray_gpu_utilization") == 1
    assert len(found) == 7


def test_load_of_amd_s(tmp_path: Path) -> None:
    """Where its library knows it."""
    (tmp_path / "amdsmi.py").write_text(
        AMDSMI
        + """
amdsmi_get_gpu_memory_usage = lambda device, kind: 3
amdsmi_get_gpu_activity = lambda device: {"gfx_activity": 12 if device == "a" else "N/A"}
"""
    )
    (tmp_path / "kfd").touch()
    found = load(KFD=str(tmp_path / "kfd"), PYTHONPATH=str(tmp_path))
    assert found["zray_gpu_utilization", "0"] == 0.12
    assert ("zray_gpu_utilization", "1") not in found
    assert found["zray_gpu_memory_bytes", "1", "used"] == 3
    assert load() == {}


# ---- what a worker is told -------------------------------------------------------------------


def test_workers_are_told_which_they_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """By number or UUID, in the maker's variable; nobody else sees one."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    found = [WHOLE, *PARTS]
    assert told(found, [0]) == {"CUDA_VISIBLE_DEVICES": "0", **order}
    assert told(found, [2]) == {"CUDA_VISIBLE_DEVICES": "MIG-137-uuid", **order}
    assert told(found, []) == {"CUDA_VISIBLE_DEVICES": "", **order}
    assert told([], []) == {}
    assert told([], [1]) == {"CUDA_VISIBLE_DEVICES": "1"}
    amd = Gpu(3, "uuid", "AMD Instinct", 1, "3", gpus.HIP)
    assert told([amd], [0]) == {"HIP_VISIBLE_DEVICES": "3"}


def test_what_the_node_was_told_itself_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its numbers mean what they meant to whoever has started it."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 6")
    assert told([], [1]) == {"CUDA_VISIBLE_DEVICES": "6"}
    assert told([WHOLE], [0]) == {"CUDA_VISIBLE_DEVICES": "0"}
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}) == []
