"""The words of collective calls: how values are reduced, and by what. As Ray has them."""

from __future__ import annotations

from enum import Enum


class Backend:
    """What carries a group's values. zray has one, over host memory, and calls it as Ray does."""

    GLOO = "GLOO"
    NCCL = "NCCL"

    def __new__(cls, name: str) -> str:  # type: ignore[misc]  # as Ray's: it makes a text
        """The backend of that name.

        Raises:
            ValueError: there is no such.
        """
        upper = str(name).upper()
        if upper in ("GLOO", "TORCH_GLOO"):
            return cls.GLOO
        if upper == "NCCL":
            return cls.NCCL
        raise ValueError(f"Unrecognized backend: {name!r}. Use 'gloo', over host memory")


class ReduceOp(Enum):
    """How values are put together, element by element."""

    SUM = 0
    PRODUCT = 1
    MIN = 2
    MAX = 3
