"""A management library as NVIDIA's driver has it, compiled here, where no GPU is at hand.

What is found with it goes the way of a real one, through nvidia-ml-py. Must never be on the path of
anything but a process that a test starts.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

# As in nvml.h: an H200, one that is lost, and one with two instances of MIG, at places 0 and 3.
SOURCE = r"""
#include <stdio.h>
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned gpu, memory; } utilization_t;
static int ready;
static char devices[32];
static int number(void *device) { return (int)((char *)device - devices); }
int nvmlInitWithFlags(unsigned flags) { ready = 1; return 0; }
int nvmlShutdown(void) { ready = 0; return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 3; return ready ? 0 : 1; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = &devices[index];
    return index == 1 ? 15 : 0;
}
int nvmlDeviceGetHandleByUUID(const char *text, void **device) {
    int found = 0;
    sscanf(text + 4, "%d", &found);
    *device = &devices[found / 10];
    return ready ? 0 : 1;
}
int nvmlDeviceGetUUID(void *device, char *text, unsigned length) {
    if (length < 80) return 7;
    sprintf(text, "%s-%d7-uuid", number(device) < 8 ? "GPU" : "MIG", number(device));
    return 0;
}
int nvmlDeviceGetName(void *device, char *text, unsigned length) {
    if (length < 64) return 7;
    strcpy(text, "NVIDIA H200");
    return 0;
}
int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    memory->total = (number(device) < 8 ? 141ULL : 16ULL) << 30;
    memory->free = 1; memory->used = memory->total / 4;
    return 0;
}
int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *later) {
    if (number(device) == 0) return 3;
    *now = *later = 1;
    return 0;
}
int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) { *count = 7; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **instance) {
    *instance = &devices[10 + index];
    return index % 3 || index > 3 ? 6 : 0;
}
int nvmlDeviceGetUtilizationRates(void *device, utilization_t *found) {
    if (number(device) != 0) return 3;
    found->gpu = 37; found->memory = 5;
    return 0;
}
"""


def make(folder: Path) -> Path:
    """Compile it; the folder for ``LD_LIBRARY_PATH``."""
    compiler = shutil.which("cc")
    assert compiler is not None, "this needs a C compiler (Debian: gcc, libc6-dev)"
    source = folder / "nvml.c"
    source.write_text(SOURCE)
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return folder
