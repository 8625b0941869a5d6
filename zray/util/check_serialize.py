"""``inspect_serializability``: what keeps a value from being sent, as ``ray.util`` has it."""

from __future__ import annotations

from typing import Any, TextIO

from zray.runtime import serialization


class FailureTuple:
    """A part of a value that cannot be pickled.

    Attributes:
        obj: the part.
        path: names of variables, attributes and items that lead to it.
        parent: what has it; None where it is the value itself.
    """

    def __init__(self, obj: Any, path: tuple[str, ...], parent: Any) -> None:
        self.obj = obj
        self.path = path
        self.parent = parent

    def __repr__(self) -> str:
        return f"FailureTuple({' -> '.join(self.path)}, obj={self.obj!r}, parent={self.parent!r})"


def inspect_serializability(
    base_obj: Any, name: str | None = None, depth: int = 3, print_file: TextIO | None = None
) -> tuple[bool, set[FailureTuple]]:
    """Whether a value can be passed to a task, and the part that keeps it from that.

    Args:
        base_obj: the value.
        name: what to call it.
        depth: accepted as in Ray; the smallest part is looked for at any depth.
        print_file: where the finding is printed; None: stdout.

    Returns:
        Whether it can, and a set of one FailureTuple if it cannot.
    """
    called = name or getattr(base_obj, "__qualname__", None) or type(base_obj).__name__
    steps = serialization.steps_to_failure(base_obj, called)
    if steps is None:
        print(f"{called} can be serialized.", file=print_file)
        return True, set()
    print(serialization.explain(base_obj, called), file=print_file)
    parent = steps[-2][1] if len(steps) > 1 else None
    path = tuple(step for step, _ in steps)
    return False, {FailureTuple(steps[-1][1], path, parent)}
