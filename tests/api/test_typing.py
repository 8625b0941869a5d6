"""What a type checker makes of the API: results have the types that the functions return."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = (  # left out below
    *("builtins.", "typing.", "program."),
    *("zray.runtime.references.", "zray.api.actors.", "zray.api.actor_handles."),
)

PROGRAM = """
from __future__ import annotations
import asyncio
from typing import Any, Sequence, TypeVar
import zray

T = TypeVar("T")

@zray.remote
def length(text: str) -> int:
    return len(text)

@zray.task
def half(x: int) -> float:
    return x / 2

@zray.remote(num_cpus=2, max_retries=0)
def name(x: int, y: int = 0) -> str:
    return str(x)

@zray.task(num_cpus=2)
def pair() -> tuple[int, str]:
    return 1, ""

@zray.task(num_returns=2)
def two() -> tuple[int, str]:
    return 1, ""

@zray.remote
def many(a: int, b: int, c: int, d: int, e: int, f: int, g: int, h: int, i: int, j: str) -> str:
    return j

@zray.task
def only(x: int, *, k: int = 1) -> str:
    return ""

@zray.task
def every(*xs: int) -> str:
    return ""

@zray.task
def untyped(x: Any, y: Any) -> Any:
    return x

@zray.task
def whatever(x: Any, y: object, z: float) -> str:
    return ""

@zray.task
def nested(xs: list[zray.ObjectRef[int]]) -> str:
    return ""

@zray.task
def first(xs: Sequence[T]) -> T:
    return xs[0]

class Counter:
    def __init__(self, start: int = 0) -> None: ...

    def add(self, n: int, *, twice: bool = False) -> str:
        return ""

    async def later(self) -> float:
        return 0

    @zray.method(num_returns=2)
    def pair(self) -> tuple[int, str]:
        return 1, ""

    @zray.method(max_task_retries=1)
    def again(self, n: int) -> bytes:
        return b""

CounterActor = zray.actor(Counter)
counter = CounterActor.remote(1)

def pass_on(handle: zray.ActorHandle[Counter], cls: zray.ActorClass[Counter]) -> None: ...

reveal_type(CounterActor)  # ActorClass[Counter]
reveal_type(counter)  # ActorHandle[Counter]
reveal_type(counter.add.remote(1))  # ObjectRef[Any]
reveal_type(zray.get(counter[Counter.add].remote(1, twice=True)))  # str
reveal_type(zray.get(counter[Counter.later].remote()))  # float
reveal_type(zray.get(counter[Counter.again].remote(1)))  # bytes
reveal_type(counter[Counter.pair].remote())  # list[ObjectRef[Any]]
reveal_type(Counter().pair())  # tuple[int, str]
reveal_type(CounterActor(3))  # Counter
reveal_type(CounterActor.options(name="x").remote())  # ActorHandle[Counter]
reveal_type(zray.actor(num_cpus=1)(Counter))  # ActorClass[Counter]
reveal_type(zray.remote(Counter))  # ActorClass[Counter]
reveal_type(zray.remote(max_restarts=1)(Counter))  # ActorClass[Counter]
reveal_type(zray.get_actor("x"))  # ActorHandle[Any]
reveal_type(zray.util.list_named_actors())  # list[str]
reveal_type(zray.util.list_named_actors(all_namespaces=True))  # list[dict[str, str]]
pass_on(counter, CounterActor)
counter[Counter.add].remote("1")  # error: arg-type
counter[Counter.pair].remote(1)  # error: call-arg
counter[str.upper]  # error: index
zray.kill(CounterActor)  # error: arg-type

reveal_type(zray.get(length.remote("x")))  # int
reveal_type(zray.get([length.remote("x")]))  # list[int]
reveal_type(zray.get(name.remote(1)))  # str
reveal_type(zray.get(name.options(num_cpus=1).remote(1)))  # str
reveal_type(zray.get(half.remote(length.remote("x"))))  # float
reveal_type(zray.get(zray.put({"a": 1})))  # dict[str, int]
reveal_type(zray.wait([length.remote("x")]))  # tuple[list[ObjectRef[int]], list[ObjectRef[int]]]
reveal_type(half(3))  # float
reveal_type(pair())  # tuple[int, str]
reveal_type(length.remote("x"))  # ObjectRef[int]
reveal_type(length.remote("x").future().result())  # int
reveal_type(two.remote())  # list[ObjectRef[Any]]
reveal_type(two())  # tuple[int, str]
reveal_type(length.options(num_returns=3).remote("x"))  # list[ObjectRef[Any]]
reveal_type(zray.get(length.options(num_returns=1, name="n").remote("x")))  # int
reveal_type(zray.get([length.remote("x"), half.remote(2)]))  # list[float]
reveal_type(zray.nodes())  # list[dict[str, Any]]
reveal_type(zray.init().address_info)  # dict[str, str]

async def main() -> None:
    reveal_type(await length.remote("x"))  # int
    reveal_type(await asyncio.gather(length.remote("x"), name.remote(1)))  # tuple[int, str]

number = length.remote("x")
text = name.remote(number)
reveal_type(length.remote(text))  # ObjectRef[int]
reveal_type(name.remote(number, number))  # ObjectRef[str]
reveal_type(name.remote(number, y=1))  # ObjectRef[str]
reveal_type(name.remote(y=1, x=1))  # ObjectRef[str]
reveal_type(half.remote(number))  # ObjectRef[float]
reveal_type(many.remote(1, number, 1, 1, 1, 1, 1, 1, number, text))  # ObjectRef[str]
reveal_type(only.remote(number, k=2))  # ObjectRef[str]
reveal_type(every.remote())  # ObjectRef[str]
reveal_type(every.remote(number, 2, number))  # ObjectRef[str]
reveal_type(untyped.remote(number, y=2))  # ObjectRef[Any]
reveal_type(whatever.remote(number, text, number))  # ObjectRef[str]
reveal_type(nested.remote([number]))  # ObjectRef[str]
reveal_type(first.remote([1]))  # ObjectRef[int]
reveal_type(name.options(num_cpus=1).remote(number, 2))  # ObjectRef[str]
reveal_type(name.options(num_cpus=1).remote(x=number, y=number))  # ObjectRef[str]
reveal_type(every.options(num_cpus=1).remote(number, 2))  # ObjectRef[str]
reveal_type(half.options(num_cpus=1)(2))  # float

name.remote()  # error: call-overload
name.remote("1")  # error: call-overload
name.remote(text)  # error: arg-type
name.remote(number, text)  # error: arg-type
name.remote(1, 2, 3)  # error: call-overload
name.remote(1, z=3)  # error: call-overload
name.remote(number, y="2")  # error: call-overload
every.remote("1")  # error: call-overload
only.remote(1, 2)  # error: call-overload
many.remote(number)  # error: call-overload
nested.remote([1])  # error: list-item
name.options(num_cpus=1).remote("1")  # error: call-overload
name.options(num_cpus=1).remote(text)  # error: arg-type
name.options(num_cpus=1).remote(1, 2, 3)  # error: call-overload

half("3")  # error: arg-type
half(3, 4)  # error: call-arg
zray.get(5)  # error: call-overload
zray.put(1).nothing  # error: attr-defined
zray.wait([1])  # error: arg-type
length.options(3)  # error: call-overload
"""


@pytest.mark.slow_limit(150)
def test_types(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--no-error-summary"),
            *("--cache-dir", str(tmp_path / "cache"), str(path)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    told: dict[int, list[str]] = {}
    for line in done.stdout.splitlines():
        where, _, text = line.partition(": ")
        assert where.startswith(str(path)), done.stdout + done.stderr
        told.setdefault(int(where.rpartition(":")[2]), []).append(text)
    for number, line in enumerate(PROGRAM.splitlines(), 1):
        expected = line.partition("  # ")[2]
        texts = told.pop(number, [])
        if expected.startswith("error: "):
            assert any(f"[{expected[7:]}]" in text for text in texts), (line, texts)
        elif expected:
            shown = texts[0].partition('"')[2].rpartition('"')[0]
            for module in MODULES:
                shown = shown.replace(module, "")
            assert shown == expected, (line, texts)
    assert told == {}
