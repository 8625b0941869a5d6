"""The largest, emptiest and oddest value of every option: an error at the call, or it works.

Nothing waits for ever for what the head or a node would not take.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

import zray
from zray.errors import ZrayError

pytestmark = pytest.mark.usefixtures("cluster")

LONG = "n" * 300
SURROGATE = "\ud800"
NUL = "a\0b"
WIDE = "\N{GRINNING FACE}" * 256


@zray.task
def work(value: int = 1) -> int:
    return value


@zray.actor
class Actor:
    def call(self) -> int:
        return 1


NAMES = [LONG, SURROGATE, f"a{SURROGATE}", "", NUL, " ", WIDE, "\x7f\n\t", "a" * 256, 5, None, b"a"]
AMOUNTS = [
    -1, 2**60, 2**64, 10**400, math.nan, math.inf, -math.inf, 1e-9, 1e308, True, "1", None, 0.00005,
]  # fmt: skip
COUNTS = [-1, 2**31, 2**63, 2**64, 10**30, 1.5, "1", None, True, 0, 65_537]


def cases(counts: tuple[str, ...]) -> list[Any]:
    found: list[tuple[str, Any]] = [("name", name) for name in NAMES]
    found += [(key, amount) for key in ("num_cpus", "num_gpus", "memory") for amount in AMOUNTS]
    found += [("resources", {"extra": amount}) for amount in AMOUNTS]
    found += [("resources", {name: 1}) for name in NAMES]
    found += [("resources", {f"r{number}": 1 for number in range(5000)}), ("resources", {})]
    found += [("resources", []), ("resources", None), ("resources", {"CPU": 1})]
    found += [(key, count) for key in counts for count in COUNTS]
    return [
        pytest.param(key, value, id=f"{key}-{index}") for index, (key, value) in enumerate(found)
    ]


def settle(act: Callable[[], Any]) -> None:
    """What is asked for is refused at once with a text, or ends, or waits until it is cancelled."""
    try:
        refs = act()
    except (TypeError, ValueError, ZrayError) as error:
        assert str(error)
        return
    for ref in refs if isinstance(refs, list) else [refs] if refs is not None else []:
        done, _ = zray.wait([ref], timeout=0.2)
        if not done:
            zray.cancel(ref)
        try:
            zray.get(ref, timeout=10)
        except zray.exceptions.GetTimeoutError:
            raise
        except ZrayError as error:
            assert str(error)


@pytest.mark.parametrize(("key", "value"), cases(("num_returns", "max_retries")))
def test_a_task_with_an_extreme_option(key: str, value: Any) -> None:
    settle(lambda: work.options(**{key: value}).remote())
    assert zray.get(work.remote(7), timeout=10) == 7


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *cases(("max_restarts", "max_task_retries", "max_concurrency", "max_pending_calls")),
        *(pytest.param("namespace", name, id=f"namespace-{n}") for n, name in enumerate(NAMES)),
        *(pytest.param("lifetime", name, id=f"lifetime-{n}") for n, name in enumerate(NAMES)),
    ],
)
def test_an_actor_with_an_extreme_option(key: str, value: Any) -> None:
    actor: Any = None

    def act() -> Any:
        nonlocal actor
        actor = Actor.options(**{key: value}).remote()
        return actor.call.remote()

    settle(act)
    if actor is not None:
        zray.kill(actor)
    assert zray.get(work.remote(7), timeout=10) == 7


@pytest.mark.parametrize("name", NAMES)
def test_asking_for_an_actor_of_an_odd_name(name: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        zray.get_actor(name)
    with pytest.raises((ValueError, TypeError)):
        zray.get_actor("fine", namespace=name if name is not None else LONG)


@pytest.mark.parametrize("name", [f"m{SURROGATE}", LONG, WIDE, NUL, ""])
def test_a_class_with_a_method_of_an_odd_name(name: str) -> None:
    odd = type("Odd", (), {"__module__": "__main__", name: lambda self: 5, "fine": lambda self: 6})

    def act() -> Any:
        actor = zray.remote(odd).remote()
        assert zray.get(actor.fine.remote(), timeout=10) == 6
        return getattr(actor, name).remote()

    settle(act)
    assert zray.get(work.remote(7), timeout=10) == 7


@pytest.mark.parametrize("name", [f"f{SURROGATE}", LONG, WIDE, NUL, ""])
def test_a_function_of_an_odd_name(name: str) -> None:
    def odd() -> int:
        return 5

    odd.__name__ = odd.__qualname__ = name
    assert zray.get(zray.remote(odd).remote(), timeout=10) == 5
