"""The import of ``ray`` and its modules, here and in the workers that run this process's functions.

Owns how a name of the table (``zray.compat.names``) becomes a module or what is in one. Nothing is
loaded before it is asked for.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from zray.compat.absent import Absent
from zray.compat.names import ABSENT_MODULES, ALIASES, MODULES, Home, Instead, Module
from zray.runtime import serialization


class _Finder(MetaPathFinder, Loader):
    """Finds ``ray`` and the modules below it, and makes them."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's spec, or None where Ray has no public module of that name."""
        if name in MODULES or name in ALIASES or _absent(name) is not None:
            return ModuleSpec(name, self, origin="zray.compat", is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """None: an ordinary module."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module, or put another one in its place."""
        name = module.__name__
        if name in ALIASES:
            sys.modules[name] = importlib.import_module(ALIASES[name])
            return
        instead = _absent(name)
        if instead is not None:
            module.__doc__ = f"{name} is not part of zray: {instead}"
            vars(module)["__getattr__"] = _absent_members(name, instead)
            return
        module.__doc__ = f"zray in the place of {name}."
        module.__class__ = _Table
        vars(module)["__getattr__"] = _members(module)
        vars(module)["__dir__"] = lambda: [*MODULES[name]]
        vars(module)["__all__"] = [one for one in MODULES[name] if not one.startswith("_")]


class _Table(ModuleType):
    """A module whose names are in the table, also where one below it is called so.

    As in Ray, ``ray.util.placement_group`` is the function, whoever has imported the module.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        named = isinstance(value, ModuleType) and isinstance(MODULES[self.__name__].get(name), Home)
        if not named:
            super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, (self.__name__,)


def _absent(name: str) -> str | None:
    """What to use instead of a module that is left out as a whole, or of one below it."""
    while name:
        if name in ABSENT_MODULES:
            return ABSENT_MODULES[name]
        name = name.rpartition(".")[0]
    return None


def _absent_members(module: str, instead: str) -> Callable[[str], Any]:
    def find(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return Absent(f"{module}.{name}", instead)

    return find


def _members(module: ModuleType) -> Callable[[str], Any]:
    """What Python asks for a name that the module does not have yet."""
    table, prefix = MODULES[module.__name__], f"{module.__name__}."

    def find(name: str) -> Any:
        entry = table.get(name)
        if isinstance(entry, Home | Module):
            value = entry.load()
        elif isinstance(entry, Instead):
            value = Absent(prefix + name, entry.text)
        elif entry is not None:
            value = entry
        elif _FINDER.find_spec(prefix + name) is not None:
            value = importlib.import_module(prefix + name)
        elif prefix + name == "ray.__file__":
            value = sys.modules["zray"].__file__
        else:
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
        setattr(module, name, value)
        return value

    return find


_FINDER = _Finder()


class _Installation:
    """In front of each function's pickle: whoever loads that one has ``ray`` installed first."""

    def __reduce__(self) -> tuple[Any, ...]:
        return install, ()


def install() -> None:
    """From now on ``import ray`` gives zray, in this process and in what runs its functions.

    Raises:
        ImportError: Ray itself has been imported here.
    """
    if _FINDER in sys.meta_path:
        return
    if "ray" in sys.modules:
        raise ImportError(
            "Ray itself has been imported already, so zray cannot take its place; call "
            "zray.compat.install() before the first 'import ray'"
        )
    sys.meta_path.insert(0, _FINDER)
    serialization.set_prelude(_Installation())
