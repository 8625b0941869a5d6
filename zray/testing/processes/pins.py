"""What keeps objects for another process until that has them."""

from __future__ import annotations

from zray.testing.processes.steps import Ref


class Pins:
    """References that live until the caller needs the answer no more."""

    def __init__(self, refs: list[Ref]) -> None:
        self._refs = refs

    def __del__(self) -> None:
        for ref in self._refs:
            ref.drop()
