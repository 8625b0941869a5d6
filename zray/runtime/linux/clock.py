"""The clock of daemons and leases."""

from __future__ import annotations

import time


def boot_time() -> float:
    """Seconds on a clock that all processes of a machine share, and that runs while it sleeps.

    CLOCK_BOOTTIME of clock_gettime(2): a machine that was suspended for longer than a lease finds
    that lease expired.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)
