"""Code of the driver: its script, its own modules, its directory and its import path."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def start(*command: str, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A program with modules beside it, below it, and in a folder of PYTHONPATH."""
    files = {
        "app/main.py": """
import os, sys
import zray as ray
import beside, package.inner, elsewhere
from beside import decorated

@ray.remote
def use(x):
    sys.path.index(os.path.dirname(os.path.abspath(__file__)))
    return beside.add(x, 1), package.inner.VALUE, elsewhere.NAME, os.getcwd()

if __name__ == "__main__":
    ray.init(num_cpus=1)
    print(ray.get(use.remote(1)))
    print(ray.get(decorated.remote(beside.Point(3))).x)
    print(ray.get(ray.remote(beside.add).remote(2, y=3)))
""",
        "app/beside.py": """
import zray as ray

class Point:
    def __init__(self, x):
        self.x = x

def add(x, y):
    return x + y

@ray.remote
def decorated(point):
    return Point(add(point.x, 1)) if type(point) is Point else None
""",
        "app/package/__init__.py": "",
        "app/package/inner.py": "VALUE = 'inner'\n",
        "library/elsewhere.py": "NAME = 'elsewhere'\n",
        "work/data.txt": "data",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_a_program_in_another_folder(project: Path) -> None:
    path = os.pathsep.join([str(project / "library"), os.environ["PYTHONPATH"]])
    found = start("../app/main.py", cwd=project / "work", PYTHONPATH=path)
    cwd = str(project / "work")
    assert found == f"(2, 'inner', 'elsewhere', {cwd!r})\n4\n5\n"


def test_a_program_as_module(project: Path) -> None:
    path = os.pathsep.join([str(project / "library"), os.environ["PYTHONPATH"]])
    found = start("-m", "main", cwd=project / "app", PYTHONPATH=path)
    assert found.splitlines()[1:] == ["4", "5"]


def test_a_path_added_before_init(project: Path) -> None:
    text = f"""
import sys
import zray
sys.path.append({str(project / "library")!r})
zray.init(num_cpus=1)
import elsewhere
@zray.remote
def name():
    import elsewhere
    return elsewhere.NAME
print(zray.get(name.remote()))
"""
    assert start("-c", text, cwd=project) == "elsewhere\n"


def test_the_main_module(script: Callable[[str], Path], tmp_path: Path) -> None:
    text = """
        from dataclasses import dataclass, field
        from enum import Enum
        from functools import partial

        FACTOR = 3
        SEEN = []

        class Color(Enum):
            RED = 1

        @dataclass
        class Item:
            name: str
            tags: list = field(default_factory=list)

            def shout(self):
                return self.name.upper() + helper()

        class Special(Item):
            def shout(self):
                return super().shout() + "!"

        class Oops(Exception):
            pass

        def helper():
            return "?" * FACTOR

        @zray.remote
        def shout(item, color):
            SEEN.append(item)
            assert color is Color.RED and isinstance(item, Special)
            return item, item.shout(), len(SEEN)

        @zray.remote
        def oops():
            raise Oops("own type")

        def outer(n):
            def inner(x):
                return x * n * FACTOR
            return inner

        if __name__ == "__main__":
            zray.init(num_cpus=1)
            item, text, _ = zray.get(shout.remote(Special("x", [1]), Color.RED))
            print(item == Special("x", [1]), type(item) is Special, text)
            print([zray.get(shout.remote(item, Color.RED))[2] for _ in range(2)], len(SEEN))
            print(zray.get(zray.remote(outer(2)).remote(5)))
            print(zray.get(zray.remote(lambda x: outer(x)(1)).remote(4)))
            print(zray.get(zray.put(partial(outer(1), 7)))())
            try:
                zray.get(oops.remote())
            except Oops as error:
                print(type(error.cause) is Oops, error.args)
    """
    found = start(str(script(text)), cwd=tmp_path)
    assert found.splitlines() == [
        "True True X???!",
        "[2, 3] 0",
        "30",
        "12",
        "21",
        "True ('own type',)",
    ]


def test_a_module_missing_in_workers_is_named(script: Callable[[str], Path]) -> None:
    """A path that was added after ``init`` is not known to the workers."""
    text = """
        zray.init(num_cpus=1)
        os.makedirs("late", exist_ok=True)
        with open("late/too_late.py", "w") as file:
            file.write("def f(): return 1")
        sys.path.append(os.path.abspath("late"))
        import too_late
        try:
            zray.get(zray.remote(too_late.f).remote())
        except TypeError as error:
            print(error)
    """
    path = script(text)
    found = start(str(path), cwd=path.parent)
    assert "the module 'too_late', which cannot be imported on node" in found
