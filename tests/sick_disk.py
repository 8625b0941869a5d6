"""A disk that is slow, or broken, for one file name only: a library before libc's own sync calls.

Needs a C compiler. Must never be loaded into the process of the tests themselves.
"""

from __future__ import annotations

import errno
import mmap
import struct
import subprocess
from pathlib import Path

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Milliseconds that a sync takes, the error that it ends with, and that of a write. */
static volatile int *control;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("SICK_DISK");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *found = mmap(0, 12, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (found != MAP_FAILED) control = found;
}

static int concerns(int fd) {
    char link[64], path[4096];
    if (!control || (!control[0] && !control[1] && !control[2])) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return strstr(path, "gcs.sqlite") != 0;
}

static int sick(int fd) {
    if (!concerns(fd)) return 0;
    for (int waited = 0; waited < control[0]; waited += 10) usleep(10000);
    return control[1];
}

int fdatasync(int fd) {
    int wrong = sick(fd);
    if (wrong) { errno = wrong; return -1; }
    return ((int (*)(int)) dlsym(RTLD_NEXT, "fdatasync"))(fd);
}

int fsync(int fd) {
    int wrong = sick(fd);
    if (wrong) { errno = wrong; return -1; }
    return ((int (*)(int)) dlsym(RTLD_NEXT, "fsync"))(fd);
}

typedef ssize_t (*Write)(int, const void *, size_t, off64_t);

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t place) {
    if (concerns(fd) && control[2]) { errno = control[2]; return -1; }
    return ((Write) dlsym(RTLD_NEXT, "pwrite64"))(fd, data, size, place);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t place) {
    return pwrite64(fd, data, size, place);
}
"""


class SickDisk:
    """``environment``: for the processes whose disk it is."""

    def __init__(self, folder: Path) -> None:
        source, library = folder / "sick_disk.c", folder / "sick_disk.so"
        source.write_text(_SOURCE)
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
        subprocess.run(command, check=True)
        control = folder / "sick_disk"
        control.write_bytes(bytes(12))
        with control.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 12)
        self.environment = {"LD_PRELOAD": str(library), "SICK_DISK": str(control)}

    def be(self, *, slow_s: float = 0.0, error: int = 0, full: bool = False) -> None:
        """From now on each sync takes so long, and ends with that errno; without any: it is well.

        ``full``: nothing can be written.
        """
        write = errno.ENOSPC if full else 0
        self._map[:12] = struct.pack("=iii", round(1000 * slow_s), error, write)

    def close(self) -> None:
        self._map.close()
