"""Functions that are too large for messages: their pickles are objects of the cluster."""

from __future__ import annotations

from typing import Any, NoReturn

from zray.runtime.references import ObjectRef


class LargeFunction:
    """What a function's blob has in the place of the function: a reference to its own blob."""

    __slots__ = ("ref",)

    def __init__(self, ref: ObjectRef[Any]) -> None:
        self.ref = ref

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Who loads it gets the function itself first."""
        raise TypeError("it only stands for a function")

    def __reduce__(self) -> tuple[Any, ...]:
        return LargeFunction, (self.ref,)
