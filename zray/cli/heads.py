"""``zray head step-down``: another head leads, and it is said which."""

from __future__ import annotations

import time

from zray import limits
from zray.cli import reporting
from zray.cli.reporting import Failed
from zray.core.causes import plain
from zray.errors import HeadConnectionError
from zray.nodes.driver.operator import Operator
from zray.protocol import messages as m

LOOK_S = 0.05


def step_down(addresses: list[str], reason: str, *, as_json: bool) -> int:
    """Ask the leader to stand by, and wait for the next; returns the exit code."""
    try:
        with reporting.operator(addresses, as_json=as_json) as operator:
            before = operator.address
            began = time.monotonic()
            operator.step_down(reason)
            status = _next_leader(operator)
            took_s = time.monotonic() - began
            leader = next((head for head in status.heads if head.leads), None)
            now = leader.addresses[0] if leader is not None else operator.address
            if as_json:
                reporting.show({"before": before, "leader": now, "seconds": round(took_s, 3)})
            elif now == before:
                print(plain(f"{before} leads again: no other head did within {took_s:.1f} s"))
            else:
                since = f"{took_s:.1f} s after {before} was asked to step down"
                print(plain(f"{now} leads now, {since}"))
    except Failed:
        return 1
    return 0


def _next_leader(operator: Operator) -> m.Status:
    """
    Raises:
        HeadConnectionError: no head leads.
    """
    deadline = time.monotonic() + limits.STEP_DOWN_S + limits.AUTH_TIMEOUT_S
    while True:
        try:
            with Operator(operator.info, operator.address) as other:
                return other.status()
        except HeadConnectionError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(LOOK_S)
