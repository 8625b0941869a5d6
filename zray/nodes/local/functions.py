"""Functions, actor classes and templates that a program in local mode has made known.

They are unpickled as a worker does it, once, so that what they have captured is a copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zray.errors import NameNotOfferedError
from zray.nodes.local.objects import LocalObjects
from zray.protocol import messages as m
from zray.runtime import offers, serialization
from zray.runtime.large_functions import LargeFunction
from zray.runtime.offers import Offer
from zray.runtime.references import ObjectRef

Get = Callable[[list[ObjectRef[Any]], float | None], list[Any]]


class LocalFunctions:
    """``get``: as the API's."""

    def __init__(self, objects: LocalObjects, get: Get) -> None:
        self._objects = objects
        self._get = get
        self.templates: dict[bytes, m.Template] = {}
        self.functions: dict[bytes, m.Export] = {}
        self._names: dict[bytes, int] = {}  # how many things in the program stand for each
        self._loaded: dict[bytes, tuple[Callable[..., Any], Any]] = {}

    def export(self, function: m.Export) -> None:
        """Something in the program stands for it from now on."""
        fid = function.function_id
        if fid not in self.functions:
            self.functions[fid] = function
            self._objects.add(function.contained)
        self._names[fid] = self._names.get(fid, 0) + 1

    def hold(self, function_id: bytes) -> None:
        """What has not ended needs it; until ``unname``."""
        if function_id in self.functions:
            self._names[function_id] = self._names.get(function_id, 0) + 1

    def unname(self, function_id: bytes) -> list[bytes]:
        """One thing less stands for it; the references that go with it."""
        if function_id not in self.functions:
            return []
        left = self._names.get(function_id, 0) - 1
        if left > 0:
            self._names[function_id] = left
            return []
        self._names.pop(function_id, None)
        self._loaded.pop(function_id, None)
        return self.functions.pop(function_id).contained

    def load(self, template: m.Template) -> tuple[Callable[..., Any], Any]:
        """What runs, and the errors for which it does again.

        Raises:
            SerializationError: it cannot be loaded.
            NameNotOfferedError: this program does not offer what is asked for by name.
        """
        if template.by_name:
            found = self.offer(template.name)
            return found.target, found.retry
        loaded = self._loaded.get(template.function_id)
        if loaded is None:
            loaded = serialization.loads_function(self.functions[template.function_id].blob)
            if isinstance(loaded[0], LargeFunction):
                loaded = serialization.loads_function(self._get([loaded[0].ref], None)[0])
            self._loaded[template.function_id] = loaded
        return loaded

    @staticmethod
    def offer(name: str) -> Offer:
        """What this program itself offers under a name."""
        found = offers.find(name)
        if found is None:
            raise NameNotOfferedError(
                f"nothing is offered as {name!r} in local mode: import the module that offers it"
            )
        return found
