"""Which process of which machine this is, and whether another of this machine has ended."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from zray.core.head.head_record import HeadRecord
from zray.protocol.head_messages import HeadInfo


def record(me: HeadInfo) -> HeadRecord:
    """What this process writes of itself where other heads see it."""
    boot = namespace = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    return HeadRecord.of(me, boot, namespace, _born(os.getpid()) or "")


def is_gone(other: HeadRecord, me: HeadRecord) -> bool:
    """Whether the process that wrote ``other`` has ended; False where it cannot be told."""
    if not other.shares_machine_with(me) or other.pid <= 0 or not other.born:
        return False
    try:
        os.kill(other.pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return _born(other.pid) not in (other.born, None)


def _born(pid: int) -> str | None:
    """When the process began; empty: it has ended, and its parent does not know yet."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "" if fields[0] in "ZX" else fields[19]
