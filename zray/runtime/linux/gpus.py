"""The GPUs of this machine, as the makers' management libraries tell of them.

NVIDIA's by nvidia-ml-py, an instance of MIG for one GPU; AMD's by amdsmi, which comes with ROCm.
It must never decide how many of them are offered, nor load such a library where there is no driver.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

NVML = "libnvidia-ml.so.1"  # a part of NVIDIA's driver
KFD = Path("/dev/kfd")  # a part of AMD's
_ORDER = "CUDA_DEVICE_ORDER"
CUDA, HIP = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"


class Gpu(msgspec.Struct, frozen=True):
    """One GPU, or one instance of MIG.

    Attributes:
        index: of the physical one in its library: PCI bus order, which CUDA's default may not be.
        name: of the physical one, for people.
        visible: how ``variable`` names it.
        variable: which says what a process may use.
    """

    index: int
    uuid: str
    name: str
    memory_bytes: int
    visible: str
    variable: str = CUDA


def visible_gpus(environment: Mapping[str, str], kfd: Path = KFD) -> list[Gpu]:
    """The GPUs that a process with this environment would be shown. Never raises."""
    for variable, find in ((CUDA, _of_nvidia), (HIP, lambda: _of_amd(kfd))):
        chosen = environment.get(variable)
        if chosen is not None and not chosen.strip():
            continue
        try:
            found = find()
        except Exception:  # a broken driver tells in many ways that there is nothing to use
            continue
        if found:
            return _select(found, chosen)
    return []


# ---- NVIDIA ----------------------------------------------------------------------------------


def _of_nvidia() -> list[Gpu]:
    import ctypes  # takes long to import, and only nodes look for GPUs

    ctypes.CDLL(NVML)  # raises at once where there is no driver
    import pynvml

    pynvml.nvmlInit()
    try:
        count = pynvml.nvmlDeviceGetCount()
        return [gpu for index in range(count) for gpu in _nvidia(pynvml, index)]
    finally:
        pynvml.nvmlShutdown()


def _nvidia(nvml: Any, index: int) -> Iterator[Gpu]:
    """A GPU, or its instances; nothing of one that is lost or forbidden."""
    try:
        device = nvml.nvmlDeviceGetHandleByIndex(index)
        name, uuid = nvml.nvmlDeviceGetName(device), nvml.nvmlDeviceGetUUID(device)
        memory = nvml.nvmlDeviceGetMemoryInfo(device).total
    except nvml.NVMLError:
        return
    if not _is_shared(nvml, device):
        yield Gpu(index, uuid, name, memory, str(index))
        return
    for place in range(nvml.nvmlDeviceGetMaxMigDeviceCount(device)):
        try:
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(device, place)
            uuid = nvml.nvmlDeviceGetUUID(instance)
            memory = nvml.nvmlDeviceGetMemoryInfo(instance).total
        except nvml.NVMLError:  # there is none at that place
            continue
        yield Gpu(index, uuid, name, memory, uuid)


def _is_shared(nvml: Any, device: Any) -> bool:
    """Whether it is divided into instances, which then are what programs can use."""
    try:
        return bool(nvml.nvmlDeviceGetMigMode(device)[0] == nvml.NVML_DEVICE_MIG_ENABLE)
    except nvml.NVMLError:  # it cannot be
        return False


# ---- AMD -------------------------------------------------------------------------------------


def _of_amd(kfd: Path) -> list[Gpu]:
    if not kfd.exists():
        return []
    import amdsmi

    amdsmi.amdsmi_init()
    try:
        return [
            Gpu(
                index,
                amdsmi.amdsmi_get_gpu_device_uuid(device),
                amdsmi.amdsmi_get_gpu_asic_info(device)["market_name"],
                amdsmi.amdsmi_get_gpu_memory_total(device, amdsmi.AmdSmiMemoryType.VRAM),
                str(index),
                HIP,
            )
            for index, device in enumerate(amdsmi.amdsmi_get_processor_handles())
        ]
    finally:
        amdsmi.amdsmi_shut_down()


# ---- which of them ---------------------------------------------------------------------------


def _select(gpus: list[Gpu], visible: str | None) -> list[Gpu]:
    """As CUDA reads it: indices or beginnings of UUIDs, up to the first that names nothing.

    The number of a GPU with MIG stands for all of its instances.
    """
    if visible is None:
        return gpus
    chosen: list[Gpu] = []
    for token in map(str.strip, visible.split(",")):
        if token.isdigit():
            named = [gpu for gpu in gpus if gpu.index == int(token)]
        else:
            named = [gpu for gpu in gpus if token and gpu.uuid.startswith(token)]
        ambiguous = len(named) > 1 and not token.isdigit()
        if not named or ambiguous or named[0] in chosen:
            break
        chosen += named
    return chosen


def told(gpus: list[Gpu], places: list[int]) -> dict[str, str]:
    """The environment of a process that may use those of the node's GPUs, and no other.

    ``gpus``: that were found; there may be less of them than the node was told to have. Then it is
    what this process was told itself that names them, or their number.
    """
    variable = gpus[0].variable if gpus else CUDA
    preset = [name.strip() for name in os.environ.get(variable, "").split(",") if name.strip()]
    if not (places or gpus):
        return {}
    names = []
    for place in places:
        if place < len(gpus):
            names.append(gpus[place].visible)
        else:
            names.append(preset[place] if place < len(preset) else str(place))
    env = {variable: ",".join(names)}
    if variable == CUDA and gpus and not ({CUDA, _ORDER} & {*os.environ}):
        env[_ORDER] = "PCI_BUS_ID"  # in which the numbers were found
    return env
