"""Of which kinds of things there are lists, and what is made of each row; placement groups' own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zray import limits
from zray.protocol import messages as m
from zray.util.state.records import (
    ActorState,
    ClusterEventState,
    JobState,
    NodeState,
    ObjectState,
    StateRecord,
    TaskState,
    WorkerState,
)


@dataclass
class PlacementGroupState(StateRecord):
    """A placement group. ``bundles``: of each its index, resources and node. ``reason``: which
    bundle finds no node, and why."""

    placement_group_id: str
    name: str
    creator_job_id: str
    state: str
    bundles: list[dict[str, Any]] | None = None
    is_detached: bool | None = None
    stats: dict[str, Any] | None = None
    strategy: str | None = None
    reason: str | None = None

    DETAILS = ("bundles", "is_detached", "stats")

    @classmethod
    def of(cls, row: m.ListedGroup) -> PlacementGroupState:
        """The record of a row."""
        units = limits.RESOURCE_UNIT
        bundles = [
            {
                "bundle_index": index,
                "unit_resources": {name: amount / units for name, amount in bundle.resources},
                "label_selector": dict(bundle.labels),
                "node_id": node.hex(),
            }
            for index, (bundle, node) in enumerate(zip(row.bundles, row.nodes, strict=True))
        ]
        return cls(
            placement_group_id=row.placement_group_id.hex(),
            name=row.name,
            creator_job_id=row.job_id.hex(),
            state=row.state,
            strategy=row.strategy,
            reason=row.reason or None,
            bundles=bundles,
            is_detached=row.detached,
            stats={"scheduling_attempt": row.rounds},
        )


# By kind: the list of LISTED, and what is made of each row.
RECORDS: dict[str, type[Any]] = {
    "tasks": TaskState,
    "actors": ActorState,
    "objects": ObjectState,
    "nodes": NodeState,
    "workers": WorkerState,
    "jobs": JobState,
    "events": ClusterEventState,
    "placement_groups": PlacementGroupState,
}
