"""zray: tasks and actors on all your cores and machines, with Ray's API.

Names are loaded on first use, so that importing zray costs next to nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from zray._version import __version__

if TYPE_CHECKING:
    from zray import errors, exceptions, util
    from zray.api.actor_handles import ActorHandle
    from zray.api.actors import ActorClass, actor, exit_actor, get_actor, kill, method
    from zray.api.by_name import actor_class_by_name, task_by_name
    from zray.api.cluster import (
        available_resources,
        cluster_resources,
        init,
        is_initialized,
        nodes,
        shutdown,
    )
    from zray.api.functions import RemoteFunction, remote, task
    from zray.api.logging_config import LoggingConfig
    from zray.api.objects import cancel, get, put, wait
    from zray.api.replay import replay
    from zray.api.runtime_context import get_gpu_ids, get_runtime_context
    from zray.api.timeline import timeline
    from zray.api.why import why
    from zray.runtime.generators import DynamicObjectRefGenerator, ObjectRefGenerator
    from zray.runtime.references import ObjectRef
    from zray.util.executor import Executor

_HOMES = {
    "init": "zray.api.cluster",
    "shutdown": "zray.api.cluster",
    "is_initialized": "zray.api.cluster",
    "cluster_resources": "zray.api.cluster",
    "available_resources": "zray.api.cluster",
    "actor_class_by_name": "zray.api.by_name",
    "task_by_name": "zray.api.by_name",
    "ActorHandle": "zray.api.actor_handles",
    "ActorClass": "zray.api.actors",
    "actor": "zray.api.actors",
    "exit_actor": "zray.api.actors",
    "get_actor": "zray.api.actors",
    "kill": "zray.api.actors",
    "method": "zray.api.actors",
    "remote": "zray.api.functions",
    "task": "zray.api.functions",
    "RemoteFunction": "zray.api.functions",
    "get": "zray.api.objects",
    "put": "zray.api.objects",
    "wait": "zray.api.objects",
    "cancel": "zray.api.objects",
    "get_gpu_ids": "zray.api.runtime_context",
    "get_runtime_context": "zray.api.runtime_context",
    "timeline": "zray.api.timeline",
    "LoggingConfig": "zray.api.logging_config",
    "why": "zray.api.why",
    "replay": "zray.api.replay",
    "ObjectRef": "zray.runtime.references",
    "DynamicObjectRefGenerator": "zray.runtime.generators",
    "ObjectRefGenerator": "zray.runtime.generators",
    "Executor": "zray.util.executor",
}
_MODULES = ("errors", "exceptions", "util")

__all__ = [
    "ActorClass",
    "ActorHandle",
    "DynamicObjectRefGenerator",
    "Executor",
    "LoggingConfig",
    "ObjectRef",
    "ObjectRefGenerator",
    "RemoteFunction",
    "__version__",
    "actor",
    "actor_class_by_name",
    "available_resources",
    "cancel",
    "cluster_resources",
    "errors",
    "exceptions",
    "exit_actor",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "method",
    "nodes",
    "put",
    "remote",
    "replay",
    "shutdown",
    "task",
    "task_by_name",
    "timeline",
    "util",
    "wait",
    "why",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is not None:
        value = getattr(importlib.import_module(home), name)
    elif name in _MODULES:
        value = importlib.import_module(f"zray.{name}")
    elif name == "nodes":
        value = importlib.import_module("zray.nodes")
    else:
        raise AttributeError(f"module 'zray' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """This module. ``zray.nodes`` is a function of the API and also a package of that name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "nodes" and isinstance(value, ModuleType):
            value.__class__ = _Nodes  # the import system has just loaded the package
        super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, (self.__name__,)  # pickle knows plain modules only


class _Nodes(_Package):
    """The package ``zray.nodes``; a call of it is that of the function."""

    def __call__(self) -> list[dict[str, Any]]:
        from zray.api import cluster

        return cluster.nodes()


sys.modules[__name__].__class__ = _Package
