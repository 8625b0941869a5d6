"""How busy this machine's GPUs are, as their makers' libraries say when somebody asks.

Takes some milliseconds, so it is for a thread of its own. Never raises: what is not told is left
out, as the load of an instance of MIG.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from zray.protocol.messages import Figure
from zray.runtime.linux.gpus import CUDA, Gpu


def figures(node: str, gpus: Sequence[Gpu]) -> list[Figure]:
    """Their load and memory, for metrics of that node."""
    found: list[Figure] = []
    if gpus:
        read = _nvidia if gpus[0].variable == CUDA else _amd
        with contextlib.suppress(Exception):  # a driver that fails now is to fail nothing else
            read(node, gpus, found)
    return found


def _nvidia(node: str, gpus: Sequence[Gpu], found: list[Figure]) -> None:
    import pynvml

    pynvml.nvmlInit()
    try:
        for gpu in gpus:
            labels = [node, gpu.visible]
            with contextlib.suppress(pynvml.NVMLError):
                device = pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid)
                memory = pynvml.nvmlDeviceGetMemoryInfo(device)
                found += _memory(labels, memory.used, memory.total)
                load = pynvml.nvmlDeviceGetUtilizationRates(device).gpu
                found.append(Figure("zray_gpu_utilization", load / 100, labels))
    finally:
        pynvml.nvmlShutdown()


def _amd(node: str, gpus: Sequence[Gpu], found: list[Figure]) -> None:
    import amdsmi

    amdsmi.amdsmi_init()
    try:
        devices: list[Any] = amdsmi.amdsmi_get_processor_handles()
        kind = amdsmi.AmdSmiMemoryType.VRAM
        for gpu in gpus:
            labels, device = [node, gpu.visible], devices[gpu.index]
            used = amdsmi.amdsmi_get_gpu_memory_usage(device, kind)
            found += _memory(labels, used, gpu.memory_bytes)
            load = amdsmi.amdsmi_get_gpu_activity(device)["gfx_activity"]
            if isinstance(load, int):  # else "N/A"
                found.append(Figure("zray_gpu_utilization", load / 100, labels))
    finally:
        amdsmi.amdsmi_shut_down()


def _memory(labels: list[str], used: int, total: int) -> list[Figure]:
    kinds = {"used": used, "total": total}
    return [Figure("zray_gpu_memory_bytes", n, [*labels, kind]) for kind, n in kinds.items()]
