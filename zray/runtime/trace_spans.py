"""Spans of tasks and calls, with OpenTelemetry: loaded where tracing is switched on."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

try:
    from opentelemetry import trace
    from opentelemetry.trace import Span, SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as error:
    raise ImportError(
        'tracing needs OpenTelemetry in each process: pip install "zray[otel]"'
    ) from error

from zray.runtime import session

_PROPAGATOR = TraceContextTextMapPropagator()

Context = dict[str, str]  # traceparent, and tracestate if there is one


def submitted(name: str) -> Context:
    """A span for the submission, which is over with it; what its run is to go on with."""
    span = trace.get_tracer("zray").start_span(f"{name}.remote", kind=SpanKind.PRODUCER)
    context: Context = {}
    _PROPAGATOR.inject(context, trace.set_span_in_context(span))
    span.end()
    return context


def ran(function: Callable[..., Any], context: Context, name: str) -> Callable[..., Any]:
    """The function, in a span that lasts until it has returned, raised, or yielded all."""
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            with _span(context, name):
                return await function(*args, **kwargs)

        return awaited
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def stepped(*args: Any, **kwargs: Any) -> Any:
            with _span(context, name):
                return (yield from function(*args, **kwargs))

        return stepped
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def stepped_aside(*args: Any, **kwargs: Any) -> Any:
            with _span(context, name):
                async for item in function(*args, **kwargs):
                    yield item

        return stepped_aside

    def called(*args: Any, **kwargs: Any) -> Any:
        with _span(context, name):
            return function(*args, **kwargs)

    return called


def _span(context: Context, name: str) -> AbstractContextManager[Span]:
    task_id = session.current_task()
    about: dict[str, Any] = {"zray.task_id": task_id.hex(), "zray.pid": os.getpid()}
    return trace.get_tracer("zray").start_as_current_span(
        name, _PROPAGATOR.extract(context), SpanKind.CONSUMER, about
    )
