"""The modules of ``--import``: what a worker finds in them by name, and whether they load at all.

Workers import them when a task first asks for a name. Must never import a user's module into a
daemon: at its start a daemon has them tried by a process of their own.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from zray import limits
from zray.core.offers import listed, remedy
from zray.errors import NameNotOfferedError, StartError
from zray.protocol import messages as m
from zray.runtime import offers
from zray.runtime.offers import Offer

_ROOT = str(Path(__file__).parents[2])
_BOOTSTRAP = "import sys; sys.path[:] = sys.argv[2:]; from zray.nodes.imports import main; main()"
_TEXT_CHARS_MAX = 4000
_OWN_FRAMES = ("<frozen importlib", importlib.__file__, __file__)


def load(modules: Sequence[str], directory: str) -> None:
    """Import the modules; ``directory`` comes first on the path from then on."""
    if directory and directory not in sys.path:
        sys.path.insert(0, directory)
    for module in modules:
        importlib.import_module(module)


# ---- in a worker ---------------------------------------------------------------------------


class Imports:
    """What this worker can run by name."""

    def __init__(self) -> None:
        self._loaded = False

    def find(self, name: str, setup: m.Setup, *, is_class: bool) -> Offer:
        """The function (or class) of that name.

        Raises:
            NameNotOfferedError: the node's modules do not offer it, or cannot be imported.
        """
        where = f"node {setup.node_name}"
        if setup.imports and not self._loaded:
            try:
                load(setup.imports, setup.import_directory)
            except Exception as error:
                raise NameNotOfferedError(
                    f"{where} cannot look for {name!r}: one of the modules that it imports "
                    f"({', '.join(setup.imports)}) failed with {type(error).__name__}: {error}"
                ) from error
            self._loaded = True
        try:
            # Without --import nothing is offered, whatever this worker's tasks have imported.
            found = offers.find(name) if setup.imports else None
        except ValueError as error:
            raise NameNotOfferedError(f"{where}: {error}") from None
        if found is None:
            raise NameNotOfferedError(
                f"{where} offers nothing named {name!r}: it imports "
                f"{', '.join(setup.imports) or 'no modules'}; {remedy(name)}"
            )
        if found.is_class != is_class:
            one, other = ("a function", "an actor class")[:: -1 if found.is_class else 1]
            raise NameNotOfferedError(f"{name!r} on {where} is {one}, and {other} was asked for")
        return found

    @staticmethod
    def as_offered(assignment: m.Assignment, name: str) -> m.Assignment:
        """An actor's creation, with what only the node knows of the class of that name."""
        info, offer = assignment.actor, offers.find(name)
        assert info is not None and offer is not None
        asked = info.max_concurrency
        concurrency = asked if asked > 1 else offer.max_concurrency
        info = replace(
            info,
            is_async=offer.is_async,
            max_concurrency=concurrency,
            groups=[*offer.groups],
            out_of_order=offer.out_of_order or concurrency > 1,
        )
        return replace(assignment, actor=info)


# ---- at a daemon's start -------------------------------------------------------------------


def check(modules: Sequence[str], directory: str) -> list[str]:
    """Try to import the modules, in a process that ends with that; the names that they offer.

    Raises:
        StartError: one cannot be imported, or they offer nothing or one name twice; the message
            has the end of the traceback.
    """
    if not modules:
        return []
    asked = ", ".join(modules)
    path = [os.path.abspath(entry) for entry in sys.path]
    request = json.dumps({"modules": [*modules], "directory": directory})
    command = [sys.executable, "-I", "-c", _BOOTSTRAP, request, *dict.fromkeys([*path, _ROOT])]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=limits.IMPORT_CHECK_S,
        )
    except subprocess.TimeoutExpired:
        raise StartError(
            f"--import {asked}: it took longer than {limits.IMPORT_CHECK_S:.0f} s and was stopped; "
            "a module must not wait for anything while it is imported"
        ) from None
    if not done.stdout:
        raise StartError(
            f"--import {asked}: the process that tried it ended with status {done.returncode}"
        )
    return _judge(asked, directory, json.loads(done.stdout))


def _judge(asked: str, directory: str, found: dict[str, Any]) -> list[str]:
    if "error" in found:
        raise StartError(
            f"--import {asked} failed under {sys.executable}:\n{found['error']}\n"
            f"Modules are looked for in {directory or 'no folder of their own'} and then where "
            "this Python finds its own; correct the name, install the module, or start elsewhere"
        )
    names: list[str] = found["names"]
    if not names:
        raise StartError(
            f"--import {asked} offers nothing by name; give functions @zray.task(name=...) and "
            "classes @zray.actor(offer=...)"
        )
    return names


def in_words(names: list[str]) -> str:
    """What a daemon says of the names that its node offers."""
    return f"offers {listed(names)}"


def main() -> None:
    """The process that tries: the request is its first argument, the answer its output."""
    request = json.loads(sys.argv[1])
    sys.argv[:] = [""]
    answer = os.dup(1)
    os.dup2(2, 1)  # what modules print is nobody's answer
    found: dict[str, Any]
    try:
        load(request["modules"], request["directory"])
        found = {"names": offers.names()}
        for name in found["names"]:
            offers.find(name)
    except BaseException as error:
        found = {"error": _short(error)}
    with open(answer, "wb") as file:
        file.write(json.dumps(found).encode())
    os._exit(0)  # whatever threads the modules have started


def _short(error: BaseException) -> str:
    """The traceback from the user's first line on."""
    step = error.__traceback__
    while step is not None and step.tb_frame.f_code.co_filename.startswith(_OWN_FRAMES):
        step = step.tb_next
    return "".join(traceback.format_exception(type(error), error, step))[-_TEXT_CHARS_MAX:].rstrip()
