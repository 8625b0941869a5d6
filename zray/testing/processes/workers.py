"""The simulated workers of all nodes."""

from __future__ import annotations

from typing import Generic, TypeVar

Worker = TypeVar("Worker")


class Workers(Generic[Worker]):
    """``living``, ``ever``: by worker id, in the order of their forks."""

    def __init__(self) -> None:
        self.living: dict[bytes, Worker] = {}
        self.ever: dict[bytes, Worker] = {}
