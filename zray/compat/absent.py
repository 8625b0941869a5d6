"""Stand-ins for Ray's public names that zray does not have: they import, and raise when used."""

from __future__ import annotations

from typing import Any, NoReturn


class NotInZrayError(NotImplementedError):
    """A program used a public name of Ray that zray does not have; the message says what has."""


class Absent:
    """Stands for a function, class or object of Ray's; any use of it raises.

    It can be a base class, an annotation and a default value, so that modules load that name it.
    """

    def __init__(self, name: str, instead: str) -> None:
        self.__name__ = self.__qualname__ = name
        self._instead = instead

    def _refuse(self) -> NoReturn:
        raise NotInZrayError(f"{self.__name__} is not part of zray: {self._instead}")

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse()

    def __getattr__(self, attribute: str) -> NoReturn:
        if attribute.startswith("__") and attribute.endswith("__"):
            raise AttributeError(attribute)  # Python itself asks for these
        self._refuse()

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        name, instead = self.__name__, self._instead

        class AbsentBase:
            """In the place of the absent class among a class's bases."""

            def __init__(self, *args: Any, **kwargs: Any) -> None:
                Absent(name, instead)._refuse()

        return (AbsentBase,)

    def __or__(self, other: Any) -> Any:
        return self

    __ror__ = __or__

    def __getitem__(self, item: Any) -> Any:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Absent, (self.__name__, self._instead)

    def __repr__(self) -> str:
        return f"<{self.__name__}, which is not part of zray>"
