"""What decorated methods of an actor class say of their calls, for those who run them.

The decorator leaves its options on the function; a worker that has the class reads them there.
"""

from __future__ import annotations

from typing import Any

OPTIONS_OF_METHOD = "__zray_method__"


def groups_of(cls: type) -> dict[str, str]:
    """The concurrency group of each method that has one."""
    found = {}
    for name in dir(cls):
        group = getattr(getattr(cls, name, None), OPTIONS_OF_METHOD, None)
        if group is not None and group.concurrency_group:
            found[name] = group.concurrency_group
    return found


def quiet_methods(cls: type) -> frozenset[str]:
    """Those of whose calls nobody is to be told."""
    marked = {name: getattr(getattr(cls, name, None), OPTIONS_OF_METHOD, None) for name in dir(cls)}
    return frozenset(name for name, one in marked.items() if one is not None and not one.events)


def items_per_yield(cls: type, method: str) -> int:
    """How many items each yield of a method has, as its decorator says."""
    options = getattr(getattr(cls, method, None), OPTIONS_OF_METHOD, None)
    return options.items_per_yield if options is not None else 1


def retried(method: Any) -> bool | tuple[type[BaseException], ...]:
    """For which errors the calls of a method are made again, as its decorator says."""
    options = getattr(method, OPTIONS_OF_METHOD, None)
    return (options.retry_exceptions or False) if options is not None else False
