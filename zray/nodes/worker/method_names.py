"""The names under which an actor's methods are shown: with the class's, made once for each."""

from __future__ import annotations


class MethodNames(dict[str, str]):
    """By the method's own name."""

    def __init__(self, class_name: str) -> None:
        super().__init__()
        self._class_name = class_name

    def __missing__(self, method: str) -> str:
        name = self[method] = f"{self._class_name}.{method}"
        return name
