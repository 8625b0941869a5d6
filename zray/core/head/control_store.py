"""What is wrong with the control store, as its shell and the head's peers tell."""

from __future__ import annotations


class ControlStore:
    """``epoch``: of the head that has opened it."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.later_epoch = 0  # the latest that a peer knows, where that is later than this one
        self.trouble = ""  # why nothing becomes durable just now

    def outdated(self) -> str:
        """Why peers are refused that know a later epoch, and what to do."""
        known = "another head of it"
        if self.later_epoch > self.epoch:
            known = f"epoch {self.later_epoch}"
        return (
            f"it is older than its cluster (epoch {self.epoch}; a node or driver knows {known}), "
            "as one that was restored from a backup. Put the newest data "
            "directory back, or go on with this one: zray-head --adopt"
        )
