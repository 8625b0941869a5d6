"""What several tests of leases begin with."""

from __future__ import annotations

import time
from typing import Any

import zray
from zray.errors import GetTimeoutError


def leased(work: Any, *arguments: Any) -> None:
    """Have tasks of this function run until they go by leases, as their reasons say."""
    deadline = time.monotonic() + 20
    told = ""
    while "leased to this process" not in told:
        assert time.monotonic() < deadline, told
        refs = [work.remote(*arguments) for _ in range(50)]
        try:
            zray.get(refs, timeout=0.001)
        except GetTimeoutError as error:
            told = str(error)
        zray.get(refs)
