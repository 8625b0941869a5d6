"""A scheduler for Dask: each node of a graph is a task of the cluster, its dependencies are values.

The whole graph is submitted at once, in Dask's own order; which task runs when and where, and what
is kept for whom, the cluster decides as for any other tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import dask
from dask._task_spec import Alias, DataNode, GraphNode, Task, TaskRef, convert_legacy_graph
from dask.order import order
from dask.utils import key_split

from zray.api.functions import remote
from zray.api.objects import cancel, put
from zray.api.objects import get as values_of
from zray.runtime.references import ObjectRef
from zray.util.parallel import calls

NAME_CHARS = 100  # of a key, in its task's name
RAY_ARGUMENTS = "ray_remote_args"
_RESOURCES = (
    'Use ray_remote_args={"resources": {...}} instead of resources={...} to specify required Ray '
    "task resources."
)


def get(dsk: Any, keys: Any, **kwargs: Any) -> Any:
    """The values of ``keys``, which may be lists of lists, of the graph ``dsk``.

    Args:
        dsk: a graph, or an expression that has one.
        keys: what is wanted.
        kwargs: ``ray_remote_args``: options of the tasks, beside which layers may have their own
            (``with dask.annotate(ray_remote_args={"num_cpus": 2})``); ``ray_persist``: references
            instead of values; others change nothing.

    Raises:
        Exception: what a task raised.
        ValueError: an option that has another name here.
    """
    return _run(dsk, keys, kwargs, wait=False)


ray_dask_get = get


def ray_dask_get_sync(dsk: Any, keys: Any, **kwargs: Any) -> Any:
    """As ``get``, one task after the other: to find out which one does what."""
    return _run(dsk, keys, kwargs, wait=True)


def enable_dask_on_ray(
    shuffle: str | None = "tasks", use_shuffle_optimization: bool | None = True
) -> dask.config.set:
    """Make this Dask's scheduler from now on, or, with ``with``, in a block.

    Args:
        shuffle: how frames are shuffled; "tasks" needs no disk that all nodes share.
        use_shuffle_optimization: accepted as in Ray; it changes nothing.
    """
    return dask.config.set({"scheduler": get, "dataframe.shuffle.method": shuffle})


def disable_dask_on_ray() -> dask.config.set:
    """Leave Dask's scheduler to Dask again."""
    return dask.config.set({"scheduler": None, "dataframe.shuffle.method": None})


def ray_dask_persist(*args: Any, **kwargs: Any) -> Any:
    """As ``dask.persist``, with the values left in the cluster: the graphs refer to them."""
    return dask.persist(*args, **{"scheduler": get, **kwargs, "ray_persist": True})


def _run(dsk: Any, keys: Any, kwargs: dict[str, Any], *, wait: bool) -> Any:
    if "resources" in kwargs or "resources" in dask.get_annotations():
        raise ValueError(_RESOURCES)
    options: dict[str, Any] = kwargs.get(RAY_ARGUMENTS) or {}
    if not isinstance(dsk, Mapping):
        dsk = dsk._optimized_dsk if hasattr(dsk, "_optimized_dsk") else dsk.__dask_graph__()
    chosen = _options_by_key(dsk)
    graph: dict[Any, GraphNode] = convert_legacy_graph(dsk)
    tasks = _Tasks(options, wait=wait)
    wanted = {*_flat(keys)}
    places = order(graph)
    needed = _last_uses(graph, places, wanted)
    found: dict[Any, Any] = {}
    try:
        for key in sorted(graph, key=places.__getitem__):
            found[key] = tasks.submit(key, graph[key], found, chosen.get(key, {}))
            for done in needed.get(key, ()):
                del found[done]  # who needs it has it
        if kwargs.get("ray_persist"):
            return _packed(keys, found)
        refs = {key: found[key] for key in wanted if isinstance(found[key], ObjectRef)}
        found.update(zip(refs, values_of([*refs.values()]), strict=True))
        return _packed(keys, found)
    except BaseException as error:
        for value in found.values():
            if isinstance(value, ObjectRef):
                cancel(value)
        if isinstance(error, Exception):
            found_error = calls.original(error)
            raise found_error from found_error.__cause__
        raise


class _Tasks:
    """Submits nodes; a kind of node is a task of its own, with its own name."""

    def __init__(self, options: dict[str, Any], *, wait: bool) -> None:
        self._options = options
        self._wait = wait
        self._kinds: dict[tuple[str, str], Any] = {}
        self._functions: dict[Any, Any] = {}

    def submit(self, key: Any, node: GraphNode, found: dict[Any, Any], own: dict[str, Any]) -> Any:
        """The value of the node, or a reference to what it will be."""
        if isinstance(node, Alias):
            target = node.target
            return found[target.key if isinstance(target, TaskRef) else target]
        if isinstance(node, DataNode):
            return _literal(node.value)
        names = [*node.dependencies]
        name = _shown(str(key_split(key)))
        kind = self._kinds.get((name, repr(own)))
        if kind is None:
            options = {**self._options, **own}
            kind = remote(**options)(_node).options(name=f"dask:{name}")
            self._kinds[name, repr(own)] = kind
        ref = kind.remote(self._to_send(node), names, *(found[one] for one in names))
        if self._wait:
            values_of(ref)
        return ref

    def _to_send(self, node: GraphNode) -> GraphNode:
        """The node with its function pickled already, if others have that, too."""
        function: Any = getattr(node, "func", None)
        if not calls.is_plain(function):
            return node
        sent = self._functions.get(function)
        if sent is None:
            sent = self._functions[function] = partial(calls.call, calls.pickled(function))
        node = node.copy()
        node.func = sent
        return node


def _literal(value: Any) -> Any:
    """A value of the graph itself; a large one goes to the cluster once."""
    size = getattr(value, "nbytes", 0)
    return put(value) if isinstance(size, int) and size > 10_000 else value


def _shown(name: str) -> str:
    """As a task's name may be: keys may be of any length, and of any characters."""
    return "".join(one if one.isprintable() else "?" for one in name[:NAME_CHARS])


def _node(node: Callable[[dict[Any, Any]], Any], names: list[Any], *values: Any) -> Any:
    """The task of a node."""
    return _with_values(node)(dict(zip(names, values, strict=True)))


def _with_values(what: Any) -> Any:
    """The node, or a part of it, with the values of references: of what was persisted, and is
    fused with others."""
    if isinstance(what, ObjectRef):
        return values_of(what)
    if isinstance(what, DataNode):
        is_reference = isinstance(what.value, ObjectRef)
        return DataNode(what.key, values_of(what.value)) if is_reference else what
    if isinstance(what, Task):
        what.args = tuple(map(_with_values, what.args))
        return what
    if type(what) is dict:
        return {key: _with_values(value) for key, value in what.items()}
    if type(what) is list or type(what) is tuple:
        return type(what)(map(_with_values, what))
    return what


def _last_uses(
    graph: dict[Any, GraphNode], places: dict[Any, int], wanted: set[Any]
) -> dict[Any, list[Any]]:
    """After which node which others are needed no more."""
    last: dict[Any, Any] = {}
    for key, node in graph.items():
        for one in (key, *node.dependencies):
            if one not in last or places[key] > places[last[one]]:
                last[one] = key
    uses: dict[Any, list[Any]] = {}
    for one, key in last.items():
        if one not in wanted:
            uses.setdefault(key, []).append(one)
    return uses


def _options_by_key(dsk: Any) -> dict[Any, dict[str, Any]]:
    """The options that annotated layers have."""
    everywhere = dask.get_annotations().get(RAY_ARGUMENTS) or {}
    found: dict[Any, dict[str, Any]] = {}
    for layer in getattr(dsk, "layers", {}).values():
        annotations = layer.annotations or {}
        if "resources" in annotations:
            raise ValueError(_RESOURCES)
        options = {**everywhere, **(annotations.get(RAY_ARGUMENTS) or {})}
        if options:
            found.update((key, options) for key in layer.get_output_keys())
    if everywhere and not found:
        found = dict.fromkeys(dsk, everywhere)
    return found


def _flat(keys: Any) -> Any:
    if isinstance(keys, list):
        for one in keys:
            yield from _flat(one)
    else:
        yield keys


def _packed(keys: Any, found: dict[Any, Any]) -> Any:
    if isinstance(keys, list):
        return tuple(_packed(one, found) for one in keys)
    return found[keys]
