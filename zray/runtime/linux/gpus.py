"""The GPUs of this machine, as NVIDIA's management library tells of them.

It must never decide how many of them are offered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:  # takes long to import, and only nodes look for GPUs
    import ctypes

NVML = "libnvidia-ml.so.1"
_NVML_TEXT_BYTES = 96  # NVML_DEVICE_NAME_V2_BUFFER_SIZE; UUIDs need no more


class Gpu(msgspec.Struct, frozen=True):
    """One physical GPU. `index` is NVML's: PCI bus order, which CUDA's default order may not be."""

    index: int
    uuid: str
    name: str
    memory_bytes: int


def visible_gpus(library: str, visible: str | None) -> list[Gpu]:
    """The GPUs that CUDA would show a process with this `CUDA_VISIBLE_DEVICES`."""
    if visible is not None and not visible.strip():
        return []
    import ctypes

    try:
        nvml = ctypes.CDLL(library)
        if nvml.nvmlInit_v2() != 0:
            return []
    except (OSError, AttributeError):
        return []
    try:
        return _select(_nvml_devices(nvml), visible)
    except AttributeError:  # a library too old to have the call
        return []
    finally:
        nvml.nvmlShutdown()


def _nvml_devices(nvml: ctypes.CDLL) -> list[Gpu]:
    import ctypes

    class Memory(ctypes.Structure):
        _fields_ = tuple((name, ctypes.c_ulonglong) for name in ("total", "free", "used"))

    count = ctypes.c_uint()
    if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return []
    gpus = []
    for index in range(count.value):
        device, memory = ctypes.c_void_p(), Memory()
        uuid, name = (ctypes.create_string_buffer(_NVML_TEXT_BYTES) for _ in range(2))
        size = ctypes.c_uint(_NVML_TEXT_BYTES)
        codes = (
            nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(device)),
            nvml.nvmlDeviceGetUUID(device, uuid, size),
            nvml.nvmlDeviceGetName(device, name, size),
            nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)),
        )
        if not any(codes):  # a GPU that is lost or forbidden answers with an error
            gpus.append(Gpu(index, uuid.value.decode(), name.value.decode(), memory.total))
    return gpus


def _select(gpus: list[Gpu], visible: str | None) -> list[Gpu]:
    """As CUDA reads it: indices or beginnings of UUIDs, up to the first that names nothing."""
    if visible is None:
        return gpus
    chosen: list[Gpu] = []
    for token in map(str.strip, visible.split(",")):
        if token.isdigit():
            named = [gpu for gpu in gpus if gpu.index == int(token)]
        else:
            named = [gpu for gpu in gpus if token and gpu.uuid.startswith(token)]
        if len(named) != 1 or named[0] in chosen:
            break
        chosen += named
    return chosen
