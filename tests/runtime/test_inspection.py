from __future__ import annotations

import functools
import socket
import threading
from collections.abc import Sized
from typing import Any

import pytest

from zray.runtime import pickling, serialization

MODULE_LOCK = threading.Lock()
REASON = "which cannot be pickled (TypeError: cannot pickle '_thread.lock' object"


class Holder:
    def __init__(self, value: Any) -> None:
        self.inner = value


class Slotted:
    __slots__ = ("inner",)

    def __init__(self, value: Any) -> None:
        self.inner = value


class Selective:
    def __init__(self) -> None:
        self.lock = MODULE_LOCK
        self.bad = [MODULE_LOCK]

    def __getstate__(self) -> Any:
        return {"bad": self.bad}


@pytest.mark.parametrize("value", [1, [1, {"a": (2,)}], Holder(3), lambda: 1, Holder])
def test_nothing_to_explain(value: Any) -> None:
    assert serialization.explain(value, "x") is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (MODULE_LOCK, f"x is a _thread.lock, {REASON})"),
        ([1, MODULE_LOCK], f"x: item 1 is a _thread.lock, {REASON}, at x[1])"),
        ({"k": (MODULE_LOCK,)}, f"x: the value at 'k', item 0 is a _thread.lock, {REASON}"),
        (Holder(MODULE_LOCK), f"x: attribute 'inner' is a _thread.lock, {REASON}, at x.inner)"),
        (Slotted(MODULE_LOCK), f"x: attribute 'inner' is a _thread.lock, {REASON}, at x.inner)"),
        (
            [Holder([MODULE_LOCK])],
            f"x: item 0, attribute 'inner', item 0 is a _thread.lock, {REASON}",
        ),
        (functools.partial(len, MODULE_LOCK), "x: argument 0 of a partial is a _thread.lock"),
        (functools.partial(len, k=MODULE_LOCK), "x: argument 'k' of a partial is a _thread.lock"),
        (Holder(MODULE_LOCK).__init__, "x: the object it is bound to, attribute 'inner' is a"),
        ((i for i in ()), "x is a generator, which cannot be pickled"),
        ({1, "a", frozenset([1])} | {MODULE_LOCK}, "x: the member <unlocked _thread.lock"),
        ({MODULE_LOCK: 1}, "x: the key <unlocked _thread.lock"),
    ],
)
def test_the_smallest_part_is_named_with_its_path(value: Any, expected: str) -> None:
    text = serialization.explain(value, "x")
    assert text is not None
    assert text.startswith(expected)


def test_functions_name_captured_global_and_default_values() -> None:
    lock = threading.Lock()

    def captures() -> Any:
        return lock

    def uses_global() -> Any:
        def inner() -> Any:
            return MODULE_LOCK

        return inner

    def defaults(a: Any = lock) -> Any:
        return a

    def calls() -> Any:
        return captures()

    start = "f: captured variable 'lock' (closure) is a _thread.lock"
    assert str(serialization.explain(captures, "f")).startswith(start)
    text = str(serialization.explain(uses_global, "f"))
    assert text.startswith("f: global variable 'MODULE_LOCK' is a _thread.lock")
    assert "f.<globals>.MODULE_LOCK" in text
    assert "default value 0" in str(serialization.explain(defaults, "f"))
    text = str(serialization.explain(calls, "f"))
    assert "captured variable 'captures' (closure), captured variable 'lock' (closure)" in text
    assert "at f.<closure>.captures.<closure>.lock" in text


def test_classes_of_the_script_name_their_attributes() -> None:
    class Local:
        lock = MODULE_LOCK

    assert "class attribute 'lock' is a _thread.lock" in str(serialization.explain(Local, "C"))
    assert "class attribute 'lock' is a _thread.lock" in str(serialization.explain(Local(), "c"))


def test_what_a_class_makes_anew_in_each_process_is_not_blamed() -> None:
    class Local(Sized):
        lock = threading.Lock()

        def __len__(self) -> int:
            return 0

    assert "class attribute 'lock' is a _thread.lock" in str(serialization.explain(Local, "C"))


def test_an_open_socket_is_named() -> None:
    with socket.socket() as opened:
        text = str(serialization.explain({"conn": opened}, "x"))
    assert text.startswith("x: the value at 'conn' is a socket.socket")


def test_state_that_is_not_pickled_is_not_blamed() -> None:
    assert "attribute 'bad', item 0" in str(serialization.explain(Selective(), "x"))


def test_odd_objects_are_survived() -> None:
    class Odd:
        def __reduce__(self) -> Any:
            raise KeyError("no")

        def __repr__(self) -> str:
            raise ValueError

    assert "Odd, which cannot be pickled (KeyError: 'no'" in str(
        serialization.explain([Odd()], "x")
    )
    assert serialization.explain({Odd(): 1}, "x") is not None


def test_cycles_and_large_lists_end() -> None:
    cycle: list[Any] = [MODULE_LOCK]
    cycle.insert(0, cycle)
    assert "item 1 is a _thread.lock" in str(serialization.explain(cycle, "x"))
    many: list[Any] = list(range(9000))
    many[7777] = MODULE_LOCK
    assert "item 7777 is a _thread.lock" in str(serialization.explain(many, "x"))
    deep: list[Any] = [MODULE_LOCK]
    for _ in range(100):
        deep = [deep]
    assert "which cannot be pickled" in str(serialization.explain(deep, "x"))


def test_looking_reports_no_stray_references() -> None:
    seen: list[bytes] = []

    class Ref:
        def __reduce__(self) -> Any:
            pickling.note_reference(b"a")
            return str, ()

    pickling.set_stray_reference_hook(seen.append)
    try:
        assert serialization.explain([Ref(), MODULE_LOCK], "x") is not None
    finally:
        pickling.set_stray_reference_hook(None)
    assert seen == []


def test_the_steps_to_what_fails() -> None:
    holder = Holder([1, MODULE_LOCK])

    steps = serialization.steps_to_failure(holder, "h")

    assert steps == [("h", holder), ("inner", holder.inner), ("[1]", MODULE_LOCK)]
    assert serialization.steps_to_failure([1], "x") is None
