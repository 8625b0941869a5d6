"""The codes of the errors that a simulation can bring, and what ends it: a broken invariant."""

from __future__ import annotations

RAISED = "ZR-3001"
CANCELLED = "ZR-3002"
TIMED_OUT = "ZR-3009"
CRASHED = "ZR-3003"
ACTOR_DIED = "ZR-3402"
ACTOR_UNAVAILABLE = "ZR-3403"
ACTOR_DEATHS = {ACTOR_DIED, ACTOR_UNAVAILABLE}
DEATHS = {CRASHED, "ZR-3004", *ACTOR_DEATHS}
# Errors that tell of a loss and are no outcome of the object: another reader may have the value.
LOSSES = {"ZR-3005", "ZR-3006"}


class Violation(AssertionError):
    """An invariant does not hold."""
