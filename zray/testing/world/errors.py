"""The codes of the errors that a simulation can bring, and what ends it: a broken invariant."""

from __future__ import annotations

RAISED = "ZR-3001"
CANCELLED = "ZR-3002"
TIMED_OUT = "ZR-3009"
CRASHED = "ZR-3003"
ACTOR_DIED = "ZR-3402"
ACTOR_UNAVAILABLE = "ZR-3403"
GROUP_GONE = "ZR-3010"
ACTOR_GROUP_GONE = "ZR-3407"
ACTOR_DEATHS = {ACTOR_DIED, ACTOR_UNAVAILABLE, ACTOR_GROUP_GONE}
DEATHS = {CRASHED, "ZR-3004", GROUP_GONE, *ACTOR_DEATHS}
# Errors that tell of a loss and are no outcome of the object: another reader may have the value.
LOSSES = {"ZR-3005", "ZR-3006"}


class Violation(AssertionError):
    """An invariant does not hold."""
