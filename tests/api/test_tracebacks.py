"""Tracebacks of tasks and actors: the user's file, line and the text of the line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

PROGRAM = """
    import functools
    import linecache
    import traceback

    import helpers


    def deeper(number):
        raise ValueError(number)  # in a helper


    @zray.remote
    def plain():
        deeper(1)


    def closure_over(value):
        def inside():
            raise KeyError(value)  # in a closure

        return inside


    class Machine:
        def __init__(self, fails=False):
            if fails:
                raise OSError("no start")  # in a constructor

        def work(self):
            raise RuntimeError(self)  # in a method

        @property
        def broken(self):
            return 1 / 0  # in a property


    @zray.remote
    def by_value(machine, name):
        return getattr(machine, name)()


    @zray.remote
    def of_a_module():
        helpers.check(3)


    @zray.remote
    def printed():
        try:
            deeper(1)
        except ValueError:
            return traceback.format_exc()


    @zray.remote
    def nested():
        zray.get(plain.remote())  # in the parent


    @zray.remote
    def twice(function):
        function()  # passed along


    CELL = '''
    def cell():
        raise LookupError("cell")  # in a cell
    '''
    name = "/tmp/ipykernel_1/2.py"  # as IPython keeps what was typed
    linecache.cache[name] = (len(CELL), None, CELL.splitlines(keepends=True), name)
    exec(compile(CELL, name, "exec"))
    Actor = zray.remote(Machine)
    zray.init(num_cpus=4)
    machine = Actor.remote()
    for what, reference in {
        "helper": plain.remote(),
        "closure": zray.remote(closure_over(1)).remote(),
        "lambda": zray.remote(lambda: [][1]).remote(),  # in a lambda
        "constructor": Actor.remote(True).work.remote(),
        "method": machine.work.remote(),
        "value": by_value.remote(Machine(), "work"),
        "property": by_value.remote(Machine(), "broken"),
        "module": of_a_module.remote(),
        "cell": zray.remote(cell).remote(),
        "partial": zray.remote(functools.partial(deeper, 2)).remote(),
        "parent": nested.remote(),
        "passed": twice.remote(closure_over(2)),
    }.items():
        try:
            zray.get(reference)
        except Exception as error:
            print("====", what)
            print(error)
    print("====", "printed")
    print(zray.get(printed.remote()))
"""
HELPERS = """
def check(number):
    if number > 2:
        raise ArithmeticError("large")  # in a module
"""


def said(run: Callable[..., Any], script: Callable[..., Path], text: str) -> dict[str, str]:
    script(HELPERS, "helpers.py")
    parts = run(text).stdout.split("==== ")[1:]
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}


def test_a_traceback_shows_the_lines_that_the_user_wrote(run: Any, script: Any) -> None:
    texts = said(run, script, PROGRAM)
    path = script(PROGRAM)
    lines = path.read_text().splitlines()
    inner = {
        "helper": "helper", "closure": "closure", "lambda": "lambda",
        "constructor": "constructor", "method": "method", "value": "method",
        "property": "property", "partial": "helper", "printed": "helper",
        "parent": "helper", "passed": "closure",
    }  # fmt: skip
    assert set(texts) == {*inner, "module", "cell"}
    for what, place in inner.items():
        number, line = next(
            (n, line) for n, line in enumerate(lines, 1) if line.endswith(f"# in a {place}")
        )
        at = texts[what].index(f'File "{path}", line {number}, in ')
        assert texts[what][at:].splitlines()[1].strip().startswith(line.strip()[:20]), texts[what]
    module = path.with_name("helpers.py")
    assert f'File "{module}", line ' in texts["module"] and "# in a module" in texts["module"]
    assert 'File "/tmp/ipykernel_1/2.py", line 3, in cell\n' in texts["cell"]
    assert "# in a cell" in texts["cell"] and "# in the parent" in texts["parent"]
    for what, text in texts.items():
        assert "/zray/" not in text.partition("# in")[0], f"{what}: {text}"
