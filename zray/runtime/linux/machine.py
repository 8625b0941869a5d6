"""What this machine lets us use: CPUs, memory, GPUs, addresses, and the kernel's word on deaths.

Reads /proc, /sys and NVIDIA's management library. It must never decide how much of it is offered.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import resource
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from zray import limits
from zray.runtime.linux.gpus import Gpu, visible_gpus

_SIOCGIFADDR = 0x8915
_IF_NAME_BYTES = 16


class Machine(msgspec.Struct, frozen=True):
    """What one daemon may use.

    Attributes:
        cpus: by affinity and cgroup quota; a fraction where the quota is one, at least 1.
        memory_bytes: the machine's, or a cgroup's limit where that is lower.
        gpus: the visible ones, in the order of `CUDA_VISIBLE_DEVICES` (of AMD's,
            `HIP_VISIBLE_DEVICES`) where that is set.
        machine_id: equal for processes that share kernel, pid namespace and network namespace, and
            so can reach each other by pid and by loopback; new at each boot.
        addresses: IP addresses other machines may reach, best guess first; may be empty.
    """

    cpus: float
    memory_bytes: int
    gpus: list[Gpu] = []
    hostname: str = ""
    machine_id: str = ""
    addresses: list[str] = []


class Ending(Protocol):
    """How a process ended: exactly one of the two is set (`Exited`, `ZygoteDied`)."""

    @property
    def exit_code(self) -> int | None:
        """What it returned, 0 to 255; None: a signal ended it."""

    @property
    def signal(self) -> int | None:
        """The number of the signal that ended it; None: it returned."""


def detect(proc: str | Path = "/proc", cgroup: str | Path = "/sys/fs/cgroup") -> Machine:
    """Look at this machine as the calling process sees it. Never raises: unknown is left out."""
    groups = _Cgroups(Path(proc), Path(cgroup))
    return Machine(
        cpus=_cpus(groups),
        memory_bytes=_memory_bytes(Path(proc), groups),
        gpus=visible_gpus(os.environ),
        hostname=socket.gethostname(),
        machine_id=machine_id(Path(proc)),
        addresses=_addresses(Path(proc)),
    )


# ---- cgroups -------------------------------------------------------------------------------


class _Cgroups:
    """The control groups of this process, v1, v2 or both, from its own up to the root."""

    def __init__(self, proc: Path, root: Path) -> None:
        self._root = root
        self._paths: dict[str, str] = {}  # controller -> path; "" is the v2 hierarchy
        for line in _read(proc / "self/cgroup").splitlines():
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            for controller in controllers.split(","):
                self._paths[controller] = path

    def v1(self, controller: str, name: str) -> Iterator[str]:
        """The texts of a file of a v1 controller, innermost group first."""
        if controller in self._paths:
            for mount in self._root.glob(f"*{controller}*"):
                if controller in mount.name.split(","):
                    yield from self._upwards(mount, self._paths[controller], name)
                    return

    def v2(self, name: str) -> Iterator[str]:
        """The texts of a file of the unified hierarchy, innermost group first."""
        if "" in self._paths:
            unified = self._root / "unified"
            mount = unified if unified.is_dir() else self._root
            yield from self._upwards(mount, self._paths[""], name)

    def _upwards(self, mount: Path, path: str, name: str) -> Iterator[str]:
        # A container's path may be one of its host's, of which it sees only the mount.
        steps = [step for step in path.split("/") if step not in ("", "..")]
        for depth in range(len(steps), -1, -1):
            text = _read(mount.joinpath(*steps[:depth], name))
            if text:
                yield text


def _cpus(groups: _Cgroups) -> float:
    limits = [float(len(os.sched_getaffinity(0)))]
    for text in groups.v2("cpu.max"):
        quota, period = [*text.split(), "100000"][:2]
        if quota != "max":
            limits.append(int(quota) / int(period))
    quotas, periods = groups.v1("cpu", "cpu.cfs_quota_us"), groups.v1("cpu", "cpu.cfs_period_us")
    for quota, period in zip(quotas, periods, strict=False):
        if int(quota) > 0:
            limits.append(int(quota) / int(period))
    return max(1.0, min(limits))


def _memory_bytes(proc: Path, groups: _Cgroups) -> int:
    limits = [
        int(line.split()[1]) << 10
        for line in _read(proc / "meminfo").splitlines()
        if line.startswith("MemTotal:")
    ]
    limits += [int(text) for text in groups.v2("memory.max") if text.strip() != "max"]
    limits += map(int, groups.v1("memory", "memory.limit_in_bytes"))  # no limit: close to 2**63
    return min(limits, default=0)


def memory(proc: str | Path = "/proc", cgroup: str | Path = "/sys/fs/cgroup") -> tuple[int, int]:
    """Bytes that this process may use, and how many of them are not free for the asking."""
    proc = Path(proc)
    groups = _Cgroups(proc, Path(cgroup))
    found = {line.split()[0]: line.split()[1] for line in _read(proc / "meminfo").splitlines()}
    total, free = (int(found.get(f"{name}:", 0)) << 10 for name in ("MemTotal", "MemAvailable"))
    pairs = [(total, total - free)]
    v2 = [groups.v2(f"memory.{name}") for name in ("max", "current", "stat")]
    names = ("limit_in_bytes", "usage_in_bytes", "stat")
    v1 = [groups.v1("memory", f"memory.{name}") for name in names]
    for texts in (v2, v1):
        for limit, used, stat in zip(*texts, strict=False):
            cache = re.search(r"^(?:total_)?inactive_file (\d+)", stat, re.MULTILINE)
            if limit.strip() != "max":
                pairs.append((int(limit), int(used) - (int(cache[1]) if cache else 0)))
    return min(pairs)


# ---- identity and addresses ----------------------------------------------------------------


def machine_id(proc: Path = Path("/proc")) -> str:
    """See `Machine.machine_id`."""
    parts = [_read(proc / "sys/kernel/random/boot_id").strip() or socket.gethostname()]
    for namespace in ("pid", "net"):
        try:
            parts.append(str((proc / "self/ns" / namespace).stat().st_ino))
        except OSError:
            parts.append("0")
    return "-".join(parts)


def has_ended(pid: int, proc: Path = Path("/proc")) -> bool:
    """Whether no thread of that process runs any more, though it may not have been reaped."""
    try:
        for thread in (proc / str(pid) / "task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                state = (thread / "stat").read_bytes().rpartition(b")")[2].split()[0]
                if state not in (b"Z", b"X"):
                    return False
    except (FileNotFoundError, ProcessLookupError):
        return True
    except OSError:
        return False
    return True


def _addresses(proc: Path) -> list[str]:
    """The default route's source first, then one IPv4 per interface, then global IPv6."""
    found: list[str] = []
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe,
    ):
        probe.connect(("192.0.2.1", 9))  # picks a route; a datagram socket sends nothing here
        found.append(probe.getsockname()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[: _IF_NAME_BYTES - 1])
            with contextlib.suppress(OSError):  # the interface has no IPv4 address
                reply = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
                found.append(socket.inet_ntoa(reply[20:24]))
    for line in _read(proc / "net/if_inet6").splitlines():
        digits, _, _, scope, *_ = line.split()
        if scope == "00":
            found.append(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits)))
    return [address for address in dict.fromkeys(found) if not address.startswith("127.")]


# ---- deaths --------------------------------------------------------------------------------


class OomWatch:
    """Tells whether the kernel's OOM killer was at work between two looks.

    Counts this process's control group and those below it; where that counter cannot be read, the
    whole machine.
    """

    def __init__(self, proc: str | Path = "/proc", cgroup: str | Path = "/sys/fs/cgroup") -> None:
        self._proc, self._cgroup = Path(proc), Path(cgroup)
        self._seen = self._kills()

    def struck(self) -> bool | None:
        """Whether it has killed anything since the last call; None if that cannot be known."""
        before, self._seen = self._seen, self._kills()
        return None if before is None or self._seen is None else self._seen > before

    def _kills(self) -> int | None:
        groups = _Cgroups(self._proc, self._cgroup)
        texts = (
            *groups.v2("memory.events"),
            *groups.v1("memory", "memory.oom_control"),
            _read(self._proc / "vmstat"),
        )
        for text in texts:
            for line in text.splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
        return None


def signal_name(number: int) -> str:
    """As SIGTERM; empty: a real-time signal, which has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return ""


def status_text(exit: Ending, oom: bool | None = None) -> str:
    """How a process ended, in words for an error message; `oom` is `OomWatch.struck()`."""
    if exit.signal is None:
        return f"exit code {exit.exit_code}"
    name = signal_name(exit.signal)
    text = f"killed by signal {name} ({exit.signal})" if name else f"killed by signal {exit.signal}"
    if exit.signal != signal.SIGKILL or oom is False:
        return text
    if oom:
        return f"{text}, most likely by the kernel's OOM killer, which was at work just then"
    return f"{text}, possibly by the kernel's OOM killer"


def check_descriptors() -> None:
    """Make sure that this process can open some more for what must go on.

    Raises:
        OSError: EMFILE, with what is in use and what would help.
    """
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    used = os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))  # since Linux 6.2
    if allowed - used < min(limits.RESERVED_DESCRIPTORS, allowed // 4):
        text = f"{used} of {allowed} descriptors are in use (allow more with `ulimit -n`)"
        raise OSError(errno.EMFILE, text)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
