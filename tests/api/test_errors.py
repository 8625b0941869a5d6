"""Exceptions of tasks: their type, their remote traceback, dependencies, and what ends a task."""

from __future__ import annotations

import asyncio
import pickle
import sys
import threading
from typing import Any

import pytest

import zray
from zray import exceptions
from zray.errors import SerializationError, TaskError

pytestmark = pytest.mark.usefixtures("cluster")


class PaymentError(Exception):
    """Constructed with two arguments, which pickle gets wrong."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


@zray.remote
def fail(kind: type[BaseException], *args: Any) -> None:
    raise kind(*args)


@zray.remote
def identity(x: Any) -> Any:
    return x


# ---- the task raised -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        (ValueError, ("bad",)),
        (KeyError, ("missing",)),
        (FileNotFoundError, (2, "No such file", "x")),
        (UnicodeDecodeError, ("utf-8", b"x", 0, 1, "why")),
        (StopIteration, (1,)),
        (asyncio.CancelledError, ()),
    ],
)
def test_own_type_and_task_error(kind: type[BaseException], args: tuple[Any, ...]) -> None:
    with pytest.raises(TaskError) as caught:
        zray.get(fail.remote(kind, *args))
    error = caught.value
    if issubclass(kind, Exception) and kind is not StopIteration:
        assert isinstance(error, kind)
    assert type(error.cause) is kind and error.cause.args == kind(*args).args
    assert "raise kind(*args)" in str(error) and f"{kind.__name__}" in str(error)
    assert error.function_name == "fail" and "in fail" in error.traceback_text
    assert exceptions.RayTaskError is TaskError


def test_an_error_is_caught_by_its_own_type() -> None:
    try:
        zray.get(fail.remote(KeyError, "k"))
    except KeyError as error:
        assert error.args == ("k",)


def test_an_exception_that_pickle_cannot_rebuild() -> None:
    with pytest.raises(PaymentError) as caught:
        zray.get(fail.remote(PaymentError, 402, "payment required"))
    assert caught.value.code == 402 and "402: payment required" in str(caught.value)


def test_an_exception_that_cannot_be_pickled() -> None:
    @zray.remote
    def locked() -> None:
        error = ValueError("locked")
        error.lock = threading.Lock()  # type: ignore[attr-defined]
        raise error

    with pytest.raises(ValueError, match="locked") as caught:
        zray.get(locked.remote())
    assert "'lock'" in str(caught.value)


def test_the_chain_and_notes_are_in_the_traceback() -> None:
    @zray.remote
    def chained() -> None:
        try:
            raise ZeroDivisionError("the first")
        except ZeroDivisionError as first:
            second = ValueError("the second")
            second.add_note("a hint")
            raise second from first

    with pytest.raises(ValueError, match="the second") as caught:
        zray.get(chained.remote())
    text = str(caught.value)
    assert "ZeroDivisionError: the first" in text and "direct cause" in text and "a hint" in text


def test_exception_groups() -> None:
    @zray.remote
    def several() -> None:
        raise ExceptionGroup("several", [ValueError("one"), PaymentError(1, "two")])

    with pytest.raises(ExceptionGroup) as caught:
        zray.get(several.remote())
    matched, _ = caught.value.split(ValueError)
    assert matched is not None and "PaymentError: 1: two" in str(caught.value)


def test_each_get_raises_anew_and_errors_pickle() -> None:
    ref = fail.remote(ValueError, "again")
    errors = []
    for _ in range(2):
        with pytest.raises(ValueError, match="again") as caught:
            zray.get(ref)
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    copy = pickle.loads(pickle.dumps(errors[0]))
    assert isinstance(copy, ValueError) and str(copy) == str(errors[0])


def test_the_first_error_of_a_list_is_raised() -> None:
    refs = [identity.remote(1), fail.remote(KeyError, "a"), fail.remote(ValueError, "b")]
    zray.wait(refs, num_returns=3)  # of those that are not known yet, the first to come is raised
    with pytest.raises(KeyError):
        zray.get(refs)


def test_every_return_has_the_error() -> None:
    refs = fail.options(num_returns=2).remote(ValueError, "both")
    for ref in refs:
        with pytest.raises(ValueError, match="both"):
            zray.get(ref)


def test_a_deep_recursion_is_an_error() -> None:
    @zray.remote
    def forever(n: int) -> int:
        def down(n: int) -> int:
            return down(n + 1)

        return down(n)

    with pytest.raises(RecursionError):
        zray.get(forever.remote(0))


def test_a_huge_message_is_cut() -> None:
    with pytest.raises(ValueError, match="cut") as caught:
        zray.get(fail.remote(ValueError, "x" * 10_000_000))
    assert len(str(caught.value)) < 200_000


# ---- dependencies --------------------------------------------------------------------------


def test_an_error_passes_through_dependencies() -> None:
    failing = fail.remote(KeyError, "root")
    ref = identity.remote(identity.remote(failing))
    for waiting in (ref, identity.remote(failing)):
        with pytest.raises(KeyError) as caught:
            zray.get(waiting)
        assert isinstance(caught.value, TaskError) and caught.value.function_name == "fail"


def test_an_error_inside_a_list_is_raised_where_it_is_got() -> None:
    @zray.remote
    def look(refs: list[Any]) -> str:
        try:
            zray.get(refs[0])
        except KeyError as error:
            return type(error.cause).__name__  # type: ignore[attr-defined]
        return "no error"

    assert zray.get(look.remote([fail.remote(KeyError, "x")])) == "KeyError"


def test_an_error_passes_through_nested_tasks() -> None:
    @zray.remote
    def outer() -> None:
        zray.get(fail.remote(PaymentError, 1, "inner"))

    with pytest.raises(PaymentError) as caught:
        zray.get(outer.remote())
    assert caught.value.code == 1
    assert "in outer" in str(caught.value) and "in fail" in str(caught.value)


def test_an_exception_returned_is_a_value() -> None:
    error = zray.get(identity.remote(ValueError("a value")))
    assert type(error) is ValueError and error.args == ("a value",)


# ---- ends of another kind ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "args", "text"),
    [
        (SystemExit, (), r"task called sys\.exit\(\)"),
        (SystemExit, (3,), r"task called sys\.exit\(3\)"),
        (SystemExit, ("why",), r"task called sys\.exit\('why'\)"),
        (KeyboardInterrupt, (), "task raised KeyboardInterrupt"),
        (GeneratorExit, (), "task raised GeneratorExit"),
    ],
)
def test_exits_are_task_errors(kind: type[BaseException], args: Any, text: str) -> None:
    pid = zray.get(identity.remote(0))
    with pytest.raises(TaskError, match=text):
        zray.get(fail.remote(kind, *args))
    assert zray.get(identity.remote(pid)) == pid


def test_a_worker_survives_sys_exit() -> None:
    @zray.remote(num_cpus=2)
    def pid(leave: bool) -> int:
        import os

        if leave:
            sys.exit(1)
        return os.getpid()

    before = zray.get(pid.remote(False))
    with pytest.raises(TaskError):
        zray.get(pid.remote(True))
    assert zray.get(pid.remote(False)) == before


# ---- what cannot be pickled ----------------------------------------------------------------


def test_unpicklable_argument() -> None:
    with pytest.raises(TypeError, match=r"argument 1 of identity2.*attribute 'lock'") as caught:

        class Holder:
            def __init__(self) -> None:
                self.lock = threading.Lock()

        @zray.remote
        def identity2(*args: Any) -> Any:
            return args

        identity2.remote(1, [Holder()])
    assert isinstance(caught.value, SerializationError)


def test_unpicklable_keyword_argument() -> None:
    with pytest.raises(SerializationError, match=r"argument 'x' of identity.*generator"):
        identity.remote(x=(i for i in range(3)))


def test_unpicklable_closure() -> None:
    lock = threading.Lock()

    @zray.remote
    def use() -> bool:
        return lock.locked()

    with pytest.raises(SerializationError, match=r"captured variable 'lock' \(closure\)"):
        use.remote()


def test_unpicklable_result() -> None:
    @zray.remote
    def bad() -> Any:
        return {"a": [threading.Lock()]}

    with pytest.raises(TaskError, match=r"the result of .*bad.*value at 'a'.*item 0") as caught:
        zray.get(bad.remote())
    assert isinstance(caught.value, SerializationError)


def test_unpicklable_put() -> None:
    with pytest.raises(SerializationError, match="lock"):
        zray.put([threading.Lock()])


def test_a_deeply_nested_value() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(SerializationError, match="nested too deeply"):
        zray.put(value)
    while value:  # freed without recursion
        value = value[0]


def test_a_large_function_is_refused() -> None:
    data = bytes(100 << 20)

    @zray.remote
    def use() -> int:
        return len(data)

    with pytest.raises(ValueError, match=r"The remote function use is too large \(100 MiB"):
        use.remote()


def test_a_module_that_workers_lack_is_named() -> None:
    import types

    module = types.ModuleType("only_here")
    sys.modules["only_here"] = module
    try:
        exec("def f(): return 1", module.__dict__)
        with pytest.raises(TaskError, match=r"the module 'only_here', which cannot be imported on"):
            zray.get(zray.remote(module.f).remote())
    finally:
        del sys.modules["only_here"]
