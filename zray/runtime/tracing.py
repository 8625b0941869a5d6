"""Whether this process traces with OpenTelemetry, and what of a trace goes with tasks and calls.

Owns the switch. While it is off, nothing goes with them and nothing is imported. A hook, named
``"module:function"`` as Ray has it, sets up a tracer provider in each process: in the program, and
in workers when the first traced task comes. The context is a W3C ``traceparent`` among the keyword
arguments, so only processes that run Python code look at it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

CARRIED = "_zray_trace"  # the keyword: hook and context

hook = ""  # that has been called in this process; empty: off
_broken = ""  # one that could not be


def switch_on(name: object) -> None:
    """Call the hook and trace from now on; with an empty name, trace no more.

    Raises:
        ValueError: it is no ``"module:function"``, or there is no such function; ImportError: its
            module, or OpenTelemetry (``pip install "zray[otel]"``), is not there.
    """
    global hook
    hook = ""
    if not name:
        return
    module, _, function = str(name).partition(":")
    if not (isinstance(name, str) and module and function):
        raise ValueError(
            f'_tracing_startup_hook must be "module:function", which is called in each process to '
            f"set up OpenTelemetry, got {name!r}"
        )
    importlib.import_module("zray.runtime.trace_spans")  # says what is missing
    called = getattr(importlib.import_module(module), function, None)
    if not callable(called):
        raise ValueError(f"_tracing_startup_hook: module {module} has no function {function}")
    called()
    hook = name


def carried(name: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a task or call, with the span of its submission."""
    from zray.runtime import trace_spans

    return {**kwargs, CARRIED: (hook, trace_spans.submitted(name))}


def traced(function: Callable[..., Any], kwargs: dict[str, Any], name: str) -> Callable[..., Any]:
    """What runs in a span of its own, below that of its submission, which leaves ``kwargs``."""
    global _broken
    wanted, context = kwargs.pop(CARRIED)
    if wanted != hook and wanted != _broken:
        try:
            switch_on(wanted)
        except Exception:  # a task is not to fail of it
            _broken = wanted
            print(f"zray: tasks are not traced here: {wanted} failed", file=sys.stderr)
            import traceback

            traceback.print_exc()
    if wanted != hook:
        return function
    from zray.runtime import trace_spans

    return trace_spans.ran(function, context, name)
