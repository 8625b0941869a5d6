"""All processes of one simulation, the dead among them where somebody may ask."""

from __future__ import annotations

from zray.testing.processes.driver import SimDriver
from zray.testing.processes.head import SimHead
from zray.testing.processes.raylet import SimRaylet
from zray.testing.processes.worker import SimWorker
from zray.testing.processes.workers import Workers


class Population:
    """``head``: the one that has the store; None: there is none now."""

    def __init__(self) -> None:
        self.head: SimHead | None = None
        self.raylets: list[SimRaylet] = []
        self.drivers: list[SimDriver] = []
        self.everywhere = Workers[SimWorker]()

    @property
    def workers(self) -> dict[bytes, SimWorker]:
        """The workers that live, of all nodes."""
        return self.everywhere.living
