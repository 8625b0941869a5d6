"""Traces go through programs, tasks and actors, of real processes; without a hook there is none."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

import zray
from zray.runtime import tracing

HOOK = """
import json, os
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

HERE = os.path.dirname(os.path.abspath(__file__))

class ToFile(SpanExporter):
    def export(self, spans):
        with open(os.path.join(HERE, "spans"), "a") as file:
            for span in spans:
                parent = span.parent.span_id if span.parent else 0
                told = [span.name, span.context.span_id, parent, span.context.trace_id]
                told += [span.kind.name, span.status.status_code.name, os.getpid()]
                told += [[event.name for event in span.events], span.attributes.get("zray.task_id")]
                file.write(json.dumps(told) + "\\n")
        return SpanExportResult.SUCCESS

def setup():
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ToFile()))
    trace.set_tracer_provider(provider)

def fails_in_workers():
    if os.environ.get("DRIVER") != str(os.getpid()):
        raise OSError("not here")
    setup()
"""

PROGRAM = """
import os, sys
import zray
from opentelemetry import trace

os.environ["DRIVER"] = str(os.getpid())
zray.init({init})

@zray.remote
def leaf():
    return 1

@zray.remote
def work():
    return zray.get(leaf.remote())

@zray.remote
def fails():
    raise KeyError("x")

@zray.remote
class Actor:
    def __init__(self, *, start):
        self.count = start

    def plain(self, *, by=1):
        return zray.get(leaf.remote()) + by

    def items(self):
        yield 1
        yield zray.get(leaf.remote())

@zray.remote
class Async:
    async def later(self):
        return await leaf.remote()

with trace.get_tracer("test").start_as_current_span("root"):
    assert zray.get(work.remote()) == 1
    actor, other = Actor.remote(start=5), Async.remote()
    assert zray.get([actor.plain.remote(by=2), other.later.remote()]) == [3, 1]
    streamed = actor.items.options(num_returns="streaming").remote()
    assert [zray.get(ref) for ref in streamed] == [1, 1]
    try:
        zray.get(fails.remote())
        raise SystemExit("it did not fail")
    except KeyError:
        pass
"""


def run(bare: Any, init: str = "", **environment: str) -> Path:
    """The folder of a program that has run to its end, and of its spans."""
    bare.start_head()
    bare.start_node("one", 2)
    folder: Path = bare.home
    (folder / "spans_here.py").write_text(textwrap.dedent(HOOK))
    program = bare.run("traced", PROGRAM.replace("{init}", init), environment=environment)
    assert program.wait(60) == 0, program.text()
    return folder


def check(folder: Path) -> None:
    rows = [json.loads(line) for line in (folder / "spans").read_text().splitlines()]
    names = {row[1]: row[0] for row in rows}
    assert len({row[3] for row in rows}) == 1  # one trace
    tree = {(row[0], names.get(row[2], "")) for row in rows}
    runs = ("work", "fails", "Actor.__init__", "Async.__init__", "Actor.plain", "Actor.items")
    assert tree == {
        ("root", ""),
        *((f"{name}.remote", "root") for name in (*runs, "Async.later")),
        *((name, f"{name}.remote") for name in (*runs, "Async.later", "leaf")),
        *(("leaf.remote", by) for by in ("work", "Actor.plain", "Actor.items", "Async.later")),
    }
    kinds = {row[0]: row[4:6] for row in rows}
    assert kinds["work.remote"] == ["PRODUCER", "UNSET"] and kinds["leaf"] == ["CONSUMER", "UNSET"]
    (failed,) = [row for row in rows if row[5] == "ERROR"]
    assert failed[0] == "fails" and failed[7] == ["exception"]
    assert len({row[6] for row in rows}) > 2  # processes
    assert all(len(row[8]) == 32 for row in rows if row[4] == "CONSUMER")


def test_spans_of_submissions_and_runs_are_one_tree_across_processes(bare: Any) -> None:
    check(run(bare, '_tracing_startup_hook="spans_here:setup"'))


def test_the_environment_switches_it_on_as_well(bare: Any) -> None:
    check(run(bare, ZRAY_TRACING="spans_here:setup"))


def test_where_the_hook_fails_tasks_run_untraced(bare: Any) -> None:
    folder = run(bare, '_tracing_startup_hook="spans_here:fails_in_workers"')
    rows = [json.loads(line) for line in (folder / "spans").read_text().splitlines()]
    assert {row[4] for row in rows} == {"PRODUCER", "INTERNAL"}
    assert "tasks are not traced here" in (folder / "traced.out").read_text()


def test_without_a_hook_nothing_is_sent_or_imported(bare: Any) -> None:
    bare.start_head()
    bare.start_node("one", 1)
    bare.connect()

    @zray.remote
    def looks(**given: Any) -> tuple[list[str], list[str]]:
        import sys

        return [*given], [name for name in sys.modules if name.startswith("opentelemetry")]

    assert tracing.hook == ""
    assert zray.get(looks.remote(a=1)) == (["a"], [])


@pytest.mark.parametrize(
    ("hook", "error", "says"),
    [
        ("nonsense", ValueError, "module:function"),
        (5, ValueError, "module:function"),
        ("no_such_module:setup", ImportError, "no_such_module"),
        ("json:no_such_function", ValueError, "no function no_such_function"),
    ],
)
def test_a_hook_that_is_none_is_an_error_at_once(
    hook: object, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        zray.init("127.0.0.1:1", _tracing_startup_hook=hook)
    assert not zray.is_initialized() and tracing.hook == ""
