"""Runs a program as ``python`` would, with zray in the place of Ray.

Owns what a program sees of how it was started: its arguments, ``__main__``, ``sys.path``, and
tracebacks that begin with its own lines.
"""

from __future__ import annotations

import importlib.util
import io
import os
import sys
from importlib.abc import InspectLoader
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import Any

from zray.compat import finder

USAGE = """usage: python -m zray.compat script.py [arguments]
       python -m zray.compat -m module [arguments]

Run a program that imports ray on zray."""


def main() -> None:
    """Run what the command line names; never returns where that ends the process."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in ("-h", "--help"):
        print(USAGE)
        return
    is_module = bool(arguments) and arguments[0] == "-m"
    if len(arguments) < 1 + is_module:
        print(USAGE, file=sys.stderr)
        sys.exit(2)
    finder.install()
    _install_below()
    module, code = (_module if is_module else _script)(arguments[is_module])
    name = str(module.__file__) if is_module else arguments[0]
    sys.argv = [name, *arguments[1 + is_module :]]
    # Kept to the end: threads, pickles and what runs at exit need the program's own __main__.
    sys.modules["__main__"] = module
    try:
        exec(code, vars(module))
    except Exception as error:
        error.__traceback__ = _of_program(error.__traceback__)
        sys.excepthook(type(error), error, error.__traceback__)
        sys.exit(1)


def _install_below() -> None:
    """``import ray`` gives zray in processes that this one starts, as multiprocessing does."""
    folder = str(Path(__file__).with_name("import_path"))
    sys.path.insert(1, folder)  # which multiprocessing hands on
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
    )


def _script(path: str) -> tuple[ModuleType, CodeType]:
    """A file, or a folder or archive with a ``__main__.py``, as ``python`` takes it."""
    if os.path.isdir(path) or path.endswith((".zip", ".pyz")):
        sys.path.insert(0, path)
        return _module("__main__", found_in=path)
    path = os.path.abspath(path)
    try:
        with io.open_code(path) as file:
            source = file.read()
    except OSError as error:
        print(f"can't open file {path!r}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    _first_on_path(os.path.dirname(path))
    try:
        code = compile(source, path, "exec", dont_inherit=True)
    except SyntaxError as error:
        sys.excepthook(SyntaxError, error.with_traceback(None), None)
        sys.exit(1)
    return _made(path, None, ""), code


def _module(name: str, found_in: str = "") -> tuple[ModuleType, CodeType]:
    if not found_in:
        _first_on_path(os.getcwd())
    sys.modules.pop("__main__", None)  # it is this package's, and not what is looked for
    code = None
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
    except ModuleNotFoundError:
        spec = None
    if spec is not None and isinstance(spec.loader, InspectLoader):
        code = spec.loader.get_code(spec.name)
    if spec is None or code is None:
        print(f"No module named {name} in {found_in or 'sys.path'}", file=sys.stderr)
        sys.exit(1)
    return _made(spec.origin or name, spec, spec.parent or ""), code


def _first_on_path(folder: str) -> None:
    """In the place of what ``python -m zray.compat`` has put there itself."""
    if not sys.flags.safe_path:
        sys.path[0] = folder


def _made(path: str, spec: Any, package: str) -> ModuleType:
    module = ModuleType("__main__")
    module.__file__, module.__spec__ = path, spec
    vars(module).update(__builtins__=__builtins__, __package__=package or None, __cached__=None)
    return module


def _of_program(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without this module's frames."""
    while trace is not None and trace.tb_frame.f_globals.get("__name__") == __name__:
        trace = trace.tb_next
    return trace
