"""Imports go down only, core decides without doing, and drivers import on any platform."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from typing import Any

# Layer -> its packages. A module may import its own layer and those below, except what the
# notes in BESIDE forbid. The longest matching package decides; zray itself is the api.
LAYERS = {
    "base": ("zray.errors", "zray.ids", "zray.limits", "zray._version"),
    "protocol": ("zray.protocol",),
    "core": ("zray.core",),
    "store": ("zray.store",),
    "runtime": ("zray.runtime",),
    "nodes": ("zray.nodes",),
    "api": ("zray",),
    "edges": ("zray.cli", "zray.dashboard", "zray.metrics", "zray.testing", "zray.__main__"),
}
ORDER = list(LAYERS)
BESIDE = {"store": {"core"}}  # neighbours: neither imports the other

# A process's wing on each floor, and which others it may use. What has no wing is on the ground
# floor, which uses none of them. So the four processes can only speak by messages.
WINGS: dict[str, set[str]] = {
    "zray.core.head": set(),
    "zray.core.raylet": set(),
    "zray.core.worker": set(),
    "zray.core.client": set(),
    "zray.nodes.head": {"zray.core.head"},
    "zray.nodes.raylet": {"zray.core.raylet"},
    "zray.nodes.participant": {"zray.core.client"},
    "zray.nodes.driver": {"zray.core.client", "zray.nodes.participant"},
    "zray.nodes.worker": {"zray.core.client", "zray.core.worker", "zray.nodes.participant"},
    "zray.nodes.local": {"zray.core.client", "zray.nodes.participant"},
}

# The rooms of the simulator, from below: each uses itself and those before it.
ROOMS = [f"zray.testing.{name}" for name in ("world", "processes", "programs", "judgement")]

WIRE = {"msgpack", "msgspec"}
SYSTEM = {*WIRE, "cloudpickle", "psutil", "zmq"}
PACKAGES: dict[str, set[str]] = {
    "base": set(),
    "protocol": WIRE,
    "core": {"msgspec"},  # rows of the store and user-visible records are encoded there
    "store": {*WIRE, "httpx"},  # the latter where the store is an etcd
    "runtime": {*SYSTEM, "amdsmi", "opentelemetry", "pathspec", "pynvml"},  # four where asked for
    "nodes": SYSTEM,
    "api": {*SYSTEM, "dask", "joblib", "numpy"},  # the last three where a program has them
    "edges": {*SYSTEM, "click", "prometheus_client", "rich", "starlette", "uvicorn"},
}

CORE_STDLIB = {
    "__future__",
    "abc",
    "bisect",
    "collections",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "itertools",
    "math",
    "operator",
    "typing",
}
# Builtins that reach outside a machine, or whose value differs between two runs.
CORE_FORBIDDEN_CALLS = {"breakpoint", "eval", "exec", "id", "input", "open", "print", "__import__"}

CORE_TESTS_FORBIDDEN = {
    *("multiprocessing", "socket", "subprocess", "threading", "time", "unittest", "zmq"),
}

# The only modules that may turn bytes into objects (the zygote loads cloudpickle for its workers),
# and the module prefixes that never may even indirectly: the head, the raylet and the dashboard see
# payloads as bytes.
PICKLES = {"cloudpickle", "dill", "marshal", "pickle", "shelve"}
MAY_PICKLE = (
    "zray.api",
    "zray.nodes.worker.worker",
    "zray.runtime.code",
    "zray.runtime.pickling",
    "zray.runtime.serialization",
)
NEVER_UNPICKLE = ("zray.core", "zray.dashboard", "zray.nodes.head", "zray.nodes.raylet")

# Where Linux-only code may be, and what a driver imports, on macOS too.
LINUX_ONLY = "zray.runtime.linux"
MAY_USE_LINUX = (
    LINUX_ONLY,
    "zray.nodes.head",
    "zray.nodes.raylet",
    "zray.nodes.worker",
)
ANY_PLATFORM = (
    *("zray", "zray.api", "zray.compat", "zray.util", "zray.nodes.driver", "zray.nodes.local"),
    "zray.testing",
)
LINUX_NAMES = {
    *("EPOLLIN", "EPOLLOUT", "SO_PEERCRED", "epoll", "eventfd", "memfd_create", "pidfd_open"),
    *("pidfd_send_signal", "prctl", "sched_getaffinity", "sched_setaffinity", "setns", "splice"),
    *("unshare",),
}


def layer_of(name: str) -> str:
    found = [
        (len(package), layer)
        for layer, packages in LAYERS.items()
        for package in packages
        if name == package or name.startswith(f"{package}.")
    ]
    return max(found)[1]


def test_imports_go_down_only(tree: Any) -> None:
    wrong = []
    for module in tree.modules.values():
        own = layer_of(module.name)
        for item in module.imports:
            target = tree.resolve(item.name)
            if target is None:
                continue
            layer = layer_of(target)
            if ORDER.index(layer) > ORDER.index(own) or layer in BESIDE.get(own, ()):
                wrong.append(f"{module}:{item.line}: {own} imports {item.name} of {layer}")
    assert not wrong, "\n".join(wrong)


def wing_of(name: str) -> str:
    """The wing that a module is in, or empty."""
    wing = ".".join(name.split(".")[:3])
    return wing if wing in WINGS else ""


def test_a_wing_uses_its_own_rooms_and_the_ground_floor(tree: Any) -> None:
    wrong = []
    for module in tree.under("zray.core", "zray.nodes"):
        own = wing_of(module.name)
        for item in module.imports:
            wing = wing_of(tree.resolve(item.name) or "")
            if wing and wing != own and wing not in WINGS.get(own, ()):
                wrong.append(f"{module}:{item.line}: imports {item.name}")
    assert not wrong, "\n".join(wrong)


def test_rooms_of_the_simulator_lie_one_above_the_other(tree: Any) -> None:
    wrong = []
    for module in tree.under(*ROOMS):
        own = room_of(module.name)
        for item in module.imports:
            target = tree.resolve(item.name) or ""
            if target.startswith("zray.testing.") and room_of(target) > own:
                wrong.append(f"{module}:{item.line}: imports {item.name}")
    assert not wrong, "\n".join(wrong)


def room_of(name: str) -> int:
    """How high a module of the simulator is: what has no room is above all."""
    room = ".".join(name.split(".")[:3])
    return ROOMS.index(room) if room in ROOMS else len(ROOMS)


def test_modules_form_no_circle(tree: Any) -> None:
    """Not even for types."""
    found = circles(arrows(tree))
    assert not found, "\n".join(", ".join(sorted(circle)) for circle in found)


def arrows(tree: Any) -> dict[str, set[str]]:
    """What each module imports of the tree, if only for types."""
    return {
        module.name: {target for item in module.imports if (target := tree.resolve(item.name))}
        - {module.name}
        for module in tree.modules.values()
    }


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The largest sets of modules of which each reaches each other one."""
    reached = {name: reach(graph, name) for name in graph}
    found: list[set[str]] = []
    for name in graph:
        circle = {other for other in reached[name] if name in reached[other]}
        if circle and circle not in found:
            found.append(circle)
    return found


def reach(graph: dict[str, set[str]], start: str) -> set[str]:
    """What is reached from there, by one arrow or more."""
    found: set[str] = set()
    ahead = [start]
    while ahead:
        for target in graph[ahead.pop()] - found:
            found.add(target)
            ahead.append(target)
    return found


def test_third_party_packages_enter_at_their_layer(tree: Any) -> None:
    wrong = []
    for module in tree.modules.values():
        own = layer_of(module.name)
        for item in module.imports:
            package = item.name.partition(".")[0]
            if package in sys.stdlib_module_names | {"zray"} | PACKAGES[own]:
                continue
            wrong.append(f"{module}:{item.line}: {own} imports {item.name}")
    assert not wrong, "\n".join(wrong)


def test_core_imports_no_clock_no_chance_and_no_io(tree: Any) -> None:
    wrong = [
        f"{module}:{item.line}: {item.name}"
        for module in tree.under("zray.core")
        for item in module.imports
        if tree.resolve(item.name) is None
        and item.name.partition(".")[0] not in CORE_STDLIB | PACKAGES["core"]
    ]
    assert not wrong, "\n".join(wrong)


def test_tests_of_core_need_no_clock_no_thread_and_no_socket(tree: Any) -> None:
    wrong = [
        f"{module}:{item.line}: {item.name}"
        for module in tree.tests("core")
        for item in module.imports
        if item.name.partition(".")[0] in CORE_TESTS_FORBIDDEN
    ]
    assert not wrong, "\n".join(wrong)


def test_core_calls_nothing_that_reaches_outside(tree: Any) -> None:
    wrong = [
        f"{module}:{node.lineno}: {node.func.id}()"
        for module in tree.under("zray.core")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in CORE_FORBIDDEN_CALLS
    ]
    assert not wrong, "\n".join(wrong)


def test_core_takes_nothing_from_a_set_in_the_set_s_order(tree: Any) -> None:
    """Order in a set of bytes differs between two runs, and with it the trace of one seed."""
    wrong = []
    for module in tree.under("zray.core"):
        fields = {name.rpartition(".")[2] for name in set_names(module.tree, fields=True)}
        for _, function in module.functions():
            sets = {f".{field}" for field in fields} | set_names(function, fields=False)
            for node in ordered_uses(function, sets):
                wrong.append(f"{module}:{node.lineno}: {ast.unparse(node)}")
    assert not wrong, "\n".join(wrong)


def set_names(root: ast.AST, *, fields: bool) -> set[str]:
    """What is made or declared as a set: fields, of self or in a class body, or local names."""
    names = set()
    for node in ast.walk(root):
        if isinstance(node, ast.AnnAssign) and is_set_type(node.annotation):
            names.add(ast.unparse(node.target))
        elif isinstance(node, ast.arg) and node.annotation and is_set_type(node.annotation):
            names.update(set() if fields else {node.arg})
        elif isinstance(node, ast.Assign) and is_set(node.value, set()):
            names.update(ast.unparse(target) for target in node.targets)
    if not fields:
        return {name for name in names if "." not in name}
    in_classes = {
        ast.unparse(node.target)
        for holder in ast.walk(root)
        if isinstance(holder, ast.ClassDef)
        for node in holder.body
        if isinstance(node, ast.AnnAssign)
    }
    return {name for name in names if "." in name or name in in_classes}


def is_set_type(annotation: ast.expr) -> bool:
    return ast.unparse(annotation).startswith(("set[", "frozenset["))


def is_set(node: ast.expr, names: set[str]) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in {"frozenset", "set"}
    if isinstance(node, ast.BinOp):
        return is_set(node.left, names) or is_set(node.right, names)
    if isinstance(node, ast.Attribute):
        return f".{node.attr}" in names
    return isinstance(node, ast.Name) and node.id in names


def ordered_uses(root: ast.AST, names: set[str]) -> Iterator[ast.expr]:
    """Expressions that read a set's order: loops, list(), tuple(), next(iter()), pop()."""
    harmless = {
        id(argument)
        for node in ast.walk(root)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func)
        in {"all", "any", "frozenset", "len", "max", "min", "set", "sorted"}
        for argument in node.args
    }
    for node in ast.walk(root):
        if isinstance(node, ast.For) and is_set(node.iter, names):
            yield node.iter
        elif isinstance(node, ast.ListComp | ast.GeneratorExp | ast.DictComp):
            if id(node) not in harmless:
                yield from (g.iter for g in node.generators if is_set(g.iter, names))
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in {"iter", "list", "tuple"}:
                yield from (node for argument in node.args if is_set(argument, names))
            elif is_pop(node) and is_set(node.func.value, names):
                yield node


def is_pop(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Attribute) and node.func.attr == "pop" and not node.args


def test_only_serialization_and_workers_import_pickle(tree: Any) -> None:
    wrong = [
        f"{module}:{item.line}: {item.name}"
        for module in tree.modules.values()
        for item in module.imports
        if item.name.partition(".")[0] in PICKLES and not module.name.startswith(MAY_PICKLE)
    ]
    assert not wrong, "\n".join(wrong)


def test_head_raylet_and_dashboard_never_reach_pickle(tree: Any) -> None:
    wrong = []
    for module in tree.under(*NEVER_UNPICKLE):
        reached = tree.reached(module.name)
        wrong += [
            f"{module} reaches {item.name}, which {name} imports for {reached[name]}"
            for name in reached
            for item in tree.modules[name].imports
            if item.name.partition(".")[0] in PICKLES and not item.typing_only
        ]
    assert not wrong, "\n".join(wrong)


def test_a_driver_imports_nothing_linux_only(tree: Any) -> None:
    wrong = []
    starts = [
        module
        for module in tree.modules.values()
        if module.name == "zray" or module.name.startswith(ANY_PLATFORM[1:])
    ]
    for module in starts:
        reached = tree.reached(module.name)
        wrong += [
            f"{module} reaches {name} through {reached[name]}"
            for name in reached
            if name.startswith(MAY_USE_LINUX)
        ]
    assert not wrong, "\n".join(wrong)


def test_linux_only_calls_are_in_the_linux_package(tree: Any) -> None:
    wrong = [
        f"{module}:{node.lineno}: {ast.unparse(node)}"
        for module in tree.modules.values()
        if not module.name.startswith(MAY_USE_LINUX)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and node.attr in LINUX_NAMES
    ]
    assert not wrong, "\n".join(wrong)
