"""zray: tasks on all your cores and machines, with Ray's API.

Names are loaded on first use, so that importing zray costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from zray._version import __version__

if TYPE_CHECKING:
    from zray import errors, exceptions
    from zray.api.cluster import (
        available_resources,
        cluster_resources,
        init,
        is_initialized,
        nodes,
        shutdown,
    )
    from zray.api.functions import RemoteFunction, remote, task
    from zray.api.objects import cancel, get, put, wait
    from zray.api.runtime_context import get_gpu_ids, get_runtime_context
    from zray.runtime.references import ObjectRef

_HOMES = {
    "init": "zray.api.cluster",
    "shutdown": "zray.api.cluster",
    "is_initialized": "zray.api.cluster",
    "nodes": "zray.api.cluster",
    "cluster_resources": "zray.api.cluster",
    "available_resources": "zray.api.cluster",
    "remote": "zray.api.functions",
    "task": "zray.api.functions",
    "RemoteFunction": "zray.api.functions",
    "get": "zray.api.objects",
    "put": "zray.api.objects",
    "wait": "zray.api.objects",
    "cancel": "zray.api.objects",
    "get_gpu_ids": "zray.api.runtime_context",
    "get_runtime_context": "zray.api.runtime_context",
    "ObjectRef": "zray.runtime.references",
}
_MODULES = ("errors", "exceptions")

__all__ = [
    "ObjectRef",
    "RemoteFunction",
    "__version__",
    "available_resources",
    "cancel",
    "cluster_resources",
    "errors",
    "exceptions",
    "get",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "is_initialized",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "task",
    "wait",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is not None:
        value = getattr(importlib.import_module(home), name)
    elif name in _MODULES:
        value = importlib.import_module(f"zray.{name}")
    else:
        raise AttributeError(f"module 'zray' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
