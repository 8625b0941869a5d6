"""What Ray has in ``ray.util``: tools on top of tasks and actors. Owns no connection.

What pickles is loaded on first use: the state API is also used where nothing is ever unpickled.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Literal, overload

from zray.api.session import participant
from zray.util.placement_group import (  # so that this name is the function, and not the module
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

if TYPE_CHECKING:
    from zray.util.actor_pool import ActorPool
    from zray.util.check_serialize import inspect_serializability
    from zray.util.completion import as_completed, map_unordered
    from zray.util.debug import disable_log_once_globally, enable_periodic_logging, log_once
    from zray.util.node_address import get_node_instance_id, get_node_ip_address
    from zray.util.serialization import deregister_serializer, register_serializer

_HOMES = {
    "ActorPool": "zray.util.actor_pool",
    "as_completed": "zray.util.completion",
    "map_unordered": "zray.util.completion",
    "disable_log_once_globally": "zray.util.debug",
    "enable_periodic_logging": "zray.util.debug",
    "log_once": "zray.util.debug",
    "get_node_instance_id": "zray.util.node_address",
    "get_node_ip_address": "zray.util.node_address",
    "inspect_serializability": "zray.util.check_serialize",
    "deregister_serializer": "zray.util.serialization",
    "register_serializer": "zray.util.serialization",
}

_MODULES = {"iter": "zray.util.iter", "pdb": "zray.util.rpdb"}

__all__ = [
    "ActorPool",
    "as_completed",
    "deregister_serializer",
    "disable_log_once_globally",
    "enable_periodic_logging",
    "get_current_placement_group",
    "get_node_instance_id",
    "get_node_ip_address",
    "get_placement_group",
    "inspect_serializability",
    "list_named_actors",
    "log_once",
    "map_unordered",
    "placement_group",
    "placement_group_table",
    "register_serializer",
    "remove_placement_group",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'zray.util' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(home), name)
    return value


@overload
def list_named_actors(all_namespaces: Literal[False] = False) -> list[str]: ...
@overload
def list_named_actors(all_namespaces: Literal[True]) -> list[dict[str, str]]: ...
def list_named_actors(all_namespaces: bool = False) -> list[str] | list[dict[str, str]]:
    """The names of the living actors that have one.

    Args:
        all_namespaces: of the whole cluster, each as ``{"namespace": ..., "name": ...}``, instead
            of the names in this program's namespace.
    """
    connected = participant()
    found = connected.list_actors(connected.namespace, all_namespaces)
    if all_namespaces:
        return [{"namespace": namespace, "name": name} for namespace, name in found]
    return [name for _, name in found]
