"""What simulated actors do: constructors and methods. Owns no checker and no fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zray.testing.processes.contexts import CallContext, TaskContext
from zray.testing.processes.steps import (
    Die,
    Fail,
    Get,
    Leave,
    Program,
    Ref,
    Returned,
    Sleep,
    Value,
)


def keep_ref(process: Any, kept: list[Ref], ref: Ref) -> None:
    """Keep a reference beyond the end of the program, in ``kept`` beside the process's own."""
    kept.append(ref)
    process.kept.append(ref)


# ---- constructors --------------------------------------------------------------------------


def counter(context: TaskContext, seconds: float, start: int, *parts: Any) -> Program:
    """Counts from a number; what else it gets must be there."""
    yield Sleep(seconds)
    extra = sum(part.number for part in parts if isinstance(part, Value))
    return {"count": start + extra, "kept": []}


def keeper(context: TaskContext, seconds: float, refs: list[Ref]) -> Program:
    """Keeps references that its constructor got."""
    yield Sleep(seconds)
    kept: list[Ref] = []
    for ref in refs:
        keep_ref(context.process, kept, ref)
    return {"count": 0, "kept": kept}


def hopeless(context: TaskContext, seconds: float) -> Program:
    """Its constructor raises."""
    yield Sleep(seconds)
    yield Fail(covered=False)


def delicate(context: TaskContext, seconds: float, times: int) -> Program:
    """Its constructor kills the process, the first so many times."""
    yield Sleep(seconds)
    if context.incarnations() <= times:
        yield Die()
    return {"count": 0, "kept": []}


def parent(context: TaskContext, seconds: float, number: int) -> Program:
    """Has a child actor of its own, which it called in its constructor."""
    child, _ = context.process.create("counter", [seconds, number])
    kept: list[Ref] = []
    keep_ref(context.process, kept, child)
    yield Get(context.process.call(child, "inc", [0.0, 1]))
    return {"count": number, "kept": kept}


CONSTRUCTORS: dict[str, Callable[..., Program]] = {
    function.__name__: function for function in (counter, keeper, hopeless, delicate, parent)
}


# ---- methods -------------------------------------------------------------------------------


def inc(context: CallContext, seconds: float, amount: int) -> Program:
    """Adds to the count, and gives it back."""
    context.state["count"] += amount
    count = context.state["count"]
    yield Sleep(seconds)
    return Returned(count)


def total(context: CallContext, seconds: float, size: int, *parts: Any) -> Program:
    """The sum of its arguments: values, numbers, and strings for their lengths."""
    yield Sleep(seconds)
    number = 0
    for part in parts:
        if isinstance(part, str):
            number += len(part)
        else:
            number += part.number if isinstance(part, Value) else part
    return Returned(number, size=size)


def pair(context: CallContext, seconds: float, first: int) -> Program:
    """Two values."""
    yield Sleep(seconds)
    return [Returned(first), Returned(first + 1)]


def retain(context: CallContext, seconds: float, refs: list[Ref]) -> Program:
    """Keeps references beyond its end; the number of them."""
    yield Sleep(seconds)
    for ref in refs:
        keep_ref(context.process, context.state["kept"], ref)
    return Returned(len(refs))


def give_back(context: CallContext, seconds: float, forget: bool) -> Program:
    """What it has kept, inside a value; it may forget that in the same moment."""
    kept = context.state["kept"]
    yield Sleep(seconds)
    if forget:
        context.state["kept"] = []
        context.process.kept = [ref for ref in context.process.kept if ref not in kept]
        context.process.references += kept
    return Returned(len(kept), kept)


def look(context: CallContext, seconds: float, refs: list[Ref]) -> Program:
    """The sum of what references stand for, which it gets itself."""
    values = yield Get(refs)
    yield Sleep(seconds)
    return Returned(sum(value.number for value in values))


def store(context: CallContext, seconds: float, number: int, size: int) -> Program:
    """A reference to a value that it put."""
    ref = context.process.put(number, size=size)
    yield Sleep(seconds)
    return Returned(number, [ref])


def delegate(context: CallContext, seconds: float, number: int) -> Program:
    """A reference to the result of a task, for which it does not wait."""
    refs = context.submit("add", [seconds, 0, number])
    yield Sleep(seconds)
    return Returned(number, refs)


def ask_other(
    context: CallContext, seconds: float, number: int, handles: list[Ref], wait: bool
) -> Program:
    """Calls other actors: the sum of what they say, or references to that."""
    refs = [context.process.call(h, "total", [seconds, 0, number])[0] for h in handles]
    if not wait:
        return Returned(number, refs)
    values = yield Get(refs)
    return Returned(sum(value.number for value in values))


def spawn(context: CallContext, seconds: float, number: int) -> Program:
    """The handle of another actor, which lives as long as this one."""
    child, _ = context.process.create("counter", [seconds, number])
    yield Sleep(seconds)
    return Returned(number, [child])


def introduce(context: CallContext, seconds: float) -> Program:
    """Its own handle, inside a value."""
    yield Sleep(seconds)
    return Returned(0, [context.myself()])


def fails(context: CallContext, seconds: float) -> Program:
    """Raises."""
    yield Sleep(seconds)
    yield Fail(covered=False)


def wobble(context: CallContext, seconds: float, number: int, times: int) -> Program:
    """Raises what its call is made again for, the first so many times."""
    yield Sleep(seconds)
    tried = context.state.setdefault("tried", {})
    tried[number] = tried.get(number, 0) + 1
    if tried[number] <= times:
        yield Fail(covered=True)
    return Returned(number)


def crash(context: CallContext, seconds: float) -> Program:
    """Ends its process with a signal."""
    yield Sleep(seconds)
    yield Die()


def leave(context: CallContext, seconds: float) -> Program:
    """Ends the actor by its own wish."""
    yield Sleep(seconds)
    yield Leave()


METHODS: dict[str, Callable[..., Program]] = {
    function.__name__: function
    for function in (
        *(inc, total, pair, retain, give_back, look, store, delegate, ask_other, spawn),
        *(introduce, fails, wobble, crash, leave),
    )
}
