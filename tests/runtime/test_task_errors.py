from __future__ import annotations

import abc
import asyncio
import contextlib
import copy
import dataclasses
import os
import pickle
import subprocess
import sys
import threading
import traceback
import types
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import msgpack
import pytest

import zray.errors
from zray import limits
from zray.errors import SerializationError, TaskError, WorkerCrashedError, ZrayError
from zray.protocol.errors import MESSAGE_BYTES_MAX, ErrorRecord, decode_error, encode_error
from zray.runtime import pickling, serialization, task_errors

ROOT = Path(__file__).parents[2]


def caught(function: Callable[[], Any]) -> BaseException:
    try:
        function()
    except BaseException as exc:
        return exc
    raise AssertionError("did not raise")


def dumped(exc: BaseException) -> ErrorRecord:
    def f() -> None:
        raise exc

    return decode_error(task_errors.dump_exception(caught(f), "f", "n1", 7))


def arrive(exc: BaseException) -> Any:
    """What the driver raises where a task raised ``exc``."""
    return task_errors.load_exception(encode_error(dumped(exc)))


@pytest.fixture
def strays() -> Iterator[list[bytes]]:
    seen: list[bytes] = []
    pickling.set_stray_reference_hook(seen.append)
    serialization.set_reference_factory(lambda object_id: ("ref", object_id))
    yield seen
    pickling.set_stray_reference_hook(None)
    serialization.set_reference_factory(None)


# ---- the record ----------------------------------------------------------------------------


def test_the_record_says_all_without_pickle() -> None:
    record = dumped(ValueError("boom"))
    assert (record.code, record.message, record.type_name) == ("ZR-3001", "boom", "ValueError")
    assert (record.function_name, record.node, record.pid) == ("f", "n1", 7)
    assert record.traceback.startswith("Traceback (most recent call last):")
    assert record.traceback.endswith("ValueError: boom\n")
    assert record.note == ""


def test_type_names_have_their_module() -> None:
    assert dumped(urllib.error.URLError("x")).type_name == "urllib.error.URLError"


def test_cause_context_and_notes_are_text() -> None:
    def fails() -> None:
        try:
            {}["missing"]
        except KeyError as exc:
            problem = ValueError("boom")
            problem.add_note("look here")
            raise problem from exc

    text = task_errors.load_exception(task_errors.dump_exception(caught(fails), "f", "n", 1))
    assert "KeyError: 'missing'" in str(text)
    assert "direct cause" in str(text)
    assert "look here" in str(text)


def test_frames_of_zray_above_the_task_are_dropped() -> None:
    namespace: dict[str, Any] = {"__name__": "zray.nodes.worker.worker"}
    exec(compile("def run(f):\n    f()\n", "inside_zray.py", "exec"), namespace)

    def user() -> None:
        namespace["run"](lambda: 1 / 0)

    exc = caught(lambda: namespace["run"](user))
    assert exc.__traceback__ is not None
    exc.__traceback__ = exc.__traceback__.tb_next  # as caught in the worker: its frame is first
    assert exc.__traceback__ is not None
    exc.__traceback__ = exc.__traceback__.tb_next
    text = decode_error(task_errors.dump_exception(exc, "f", "n", 1)).traceback
    assert text.count("inside_zray.py") == 1
    assert text.index("in user") < text.index("inside_zray.py")


def test_an_error_within_zray_keeps_its_frames() -> None:
    exc = caught(lambda: serialization.loads(b"Z"))
    assert exc.__traceback__ is not None
    exc.__traceback__ = exc.__traceback__.tb_next.tb_next  # type: ignore[union-attr]
    text = decode_error(task_errors.dump_exception(exc, "f", "n", 1)).traceback
    assert "serialization.py" in text


def test_a_huge_message_is_cut_and_marked() -> None:
    record = dumped(ValueError("start" + "x" * (8 << 20) + "end"))
    assert len(record.traceback.encode()) <= limits.ERROR_TEXT_BYTES_MAX
    assert len(record.message.encode()) <= MESSAGE_BYTES_MAX
    assert "[cut:" in record.traceback
    assert record.message.startswith("start")
    assert record.message.endswith("end")
    assert len(encode_error(record)) < 3 * limits.ERROR_TEXT_BYTES_MAX
    assert isinstance(task_errors.load_exception(encode_error(record)), ValueError)


def test_a_deep_traceback_is_cut_and_marked() -> None:
    def down(n: int) -> None:
        if n == 0:
            raise ValueError("bottom")
        down(n - 1)

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(30_000)
    try:
        exc = caught(lambda: down(20_000))
        record = decode_error(task_errors.dump_exception(exc, "f", "n", 1))
    finally:
        sys.setrecursionlimit(limit)
    assert len(record.traceback.encode()) <= limits.ERROR_TEXT_BYTES_MAX
    assert "outer frames are left out" in record.traceback
    assert record.traceback.endswith("ValueError: bottom\n")


def test_unbounded_recursion_is_a_recursion_error() -> None:
    def down() -> None:
        down()

    loaded = task_errors.load_exception(task_errors.dump_exception(caught(down), "f", "n", 1))
    assert isinstance(loaded, RecursionError)
    assert isinstance(loaded, TaskError)


def test_text_that_utf8_cannot_carry_is_escaped() -> None:
    assert "\\udc80" in dumped(ValueError("a\udc80")).message


# ---- both classes --------------------------------------------------------------------------


def test_it_is_the_users_error_and_a_task_error() -> None:
    exc = arrive(ValueError("boom", 3))
    assert isinstance(exc, ValueError)
    assert isinstance(exc, TaskError)
    assert type(exc).__name__ == "TaskError(ValueError)"
    assert exc.args == ("boom", 3)
    assert type(exc.cause) is ValueError
    assert exc.cause.args == ("boom", 3)
    assert exc.function_name == "f"
    assert exc.code == "ZR-3001"
    first, second, *_ = str(exc).splitlines()
    assert first == "ZR-3001 f failed (pid=7, node=n1): ValueError: ('boom', 3)"
    assert second == "Traceback (most recent call last):"
    assert str(exc) == exc.traceback_text
    assert "in f" in str(exc)


def test_the_class_is_made_once_per_type() -> None:
    assert type(arrive(ValueError())) is type(arrive(ValueError()))
    assert type(arrive(ValueError())) is not type(arrive(TypeError()))


def test_it_prints_once_when_uncaught() -> None:
    text = "".join(traceback.format_exception(arrive(ValueError("boom"))))
    assert "zray.errors.TaskError(ValueError): ZR-3001 f failed" in text
    assert text.count("Traceback") == 1


@pytest.mark.parametrize("way", [pickle, cloudpickle], ids=["pickle", "cloudpickle"])
@pytest.mark.parametrize("exc", [ValueError("boom"), SystemExit(1), StopIteration(4)])
def test_it_can_be_pickled_again(way: Any, exc: BaseException) -> None:
    one = arrive(exc)
    for _ in range(3):
        two = way.loads(way.dumps(one))
        assert type(two) is type(one)
        assert str(two) == str(one)
        assert repr(two.cause) == repr(exc)
        one = two
    assert str(copy.copy(one)) == str(copy.deepcopy(one)) == str(one)


def test_several_tasks_deep_it_is_still_the_users_error() -> None:
    inner = arrive(ValueError("boom"))
    outer = arrive(inner)
    assert type(outer) is type(inner)
    assert type(outer.cause) is ValueError
    assert str(outer).count("boom") >= 2
    assert "ZR-3001 f failed" in outer.traceback_text.split("\n", 1)[1]


class Plain(Exception):
    pass


class TwoArguments(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")
        self.a, self.b = a, b


class KeywordOnly(Exception):
    def __init__(self, *, reason: str) -> None:
        self.reason = reason


class OwnNew(Exception):
    def __new__(cls, a: int, b: int) -> OwnNew:
        return super().__new__(cls, a)

    def __init__(self, a: int, b: int) -> None:
        self.b = b


class Slotted(Exception):
    __slots__ = ("a", "b")

    def __init__(self, a: int, b: int) -> None:
        self.a, self.b = a, b


class Status(Exception):
    code = 404


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    a: int
    b: int


class Abstract(Exception, abc.ABC):
    pass


class Reserved(Exception):
    @property
    def cause(self) -> str:
        return "mine"

    @property
    def function_name(self) -> str:
        return "mine"


class OwnReduce(Exception):
    def __init__(self, *, a: int) -> None:
        self.a = a

    def __reduce__(self) -> Any:
        return _make_own_reduce, (self.a,)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__reduce__()


def _make_own_reduce(a: int) -> OwnReduce:
    return OwnReduce(a=a)


class Disk(OSError):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(a, f"text {b}")
        self.b = b


ODD: list[tuple[Exception, dict[str, Any]]] = [
    (Plain(1), {}),
    (TwoArguments(1, 2), {"a": 1, "b": 2}),
    (KeywordOnly(reason="r"), {"reason": "r"}),
    (OwnNew(1, 2), {"b": 2}),
    (Slotted(1, 2), {"a": 1, "b": 2}),
    (Status("x"), {"code": 404}),
    (Frozen(1, 2), {"a": 1, "b": 2}),
    (Abstract("x"), {}),
    (Reserved("x"), {}),
    (OwnReduce(a=5), {"a": 5}),
    (Disk(2, 3), {"errno": 2, "strerror": "text 3", "b": 3}),
    (FileNotFoundError(2, "no", "name"), {"errno": 2, "filename": "name"}),
    (UnicodeDecodeError("utf8", b"x", 0, 1, "r"), {"object": b"x", "end": 1, "reason": "r"}),
    (ImportError("x", name="n", path="p"), {"name": "n", "path": "p"}),
    (SyntaxError("x", ("file", 1, 2, "text")), {"lineno": 1, "filename": "file"}),
    (KeyError("k"), {}),
    (TimeoutError(), {}),
    (subprocess.CalledProcessError(3, "cmd"), {"returncode": 3, "cmd": "cmd"}),
    (zray.errors.GetTimeoutError("late"), {"code": "ZR-3001"}),
    (zray.errors.TaskCancelledError("stop"), {}),
    (SerializationError("x"), {}),
]


@pytest.mark.parametrize(("exc", "attributes"), ODD, ids=lambda v: type(v).__name__)
def test_classes_of_every_kind_arrive_as_themselves(
    exc: Exception, attributes: dict[str, Any]
) -> None:
    expected = {name: getattr(exc, name) for name in vars(exc)}
    loaded = arrive(exc)
    assert isinstance(loaded, type(exc))
    assert isinstance(loaded, TaskError)
    assert loaded.args == exc.args
    assert type(loaded.cause) is type(exc)
    assert loaded.cause.args == exc.args
    for name, value in attributes.items():
        assert getattr(loaded, name) == value
    for name, value in expected.items():
        assert getattr(loaded.cause, name) == value
    assert loaded.function_name == "f"
    assert str(loaded).startswith("ZR-3001 f failed")
    assert type(pickle.loads(pickle.dumps(loaded))) is type(loaded)
    with pytest.raises(type(exc)), contextlib.ExitStack():
        raise loaded


def test_a_class_made_in_a_function_arrives_as_itself() -> None:
    class Local(Exception):
        pass

    assert isinstance(arrive(Local("x")), Local)


class Final(Exception):
    def __init_subclass__(cls) -> None:
        raise TypeError("this class is final")


def test_a_final_class_is_a_plain_task_error_with_its_cause() -> None:
    exc = arrive(Final("x"))
    assert type(exc).__name__ == "TaskError"
    assert isinstance(exc, TaskError)
    assert type(exc.cause) is Final
    assert "does not allow subclasses" in str(exc)
    assert type(pickle.loads(pickle.dumps(exc))) is type(exc)


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration])
def test_what_would_end_a_generator_is_not_raised_as_such(kind: type[Exception]) -> None:
    exc = arrive(kind(4))
    assert not isinstance(exc, kind)
    assert type(exc.cause) is kind

    async def awaits() -> None:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(exc)
        await future

    with pytest.raises(TaskError):
        asyncio.run(awaits())


# ---- bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (SystemExit(0), "task called sys.exit(0)"),
        (SystemExit(1), "task called sys.exit(1)"),
        (SystemExit("x"), "task called sys.exit('x')"),
        (SystemExit(), "task called sys.exit()"),
        (KeyboardInterrupt(), "task raised KeyboardInterrupt"),
        (GeneratorExit(), "task raised GeneratorExit"),
        (asyncio.CancelledError(), "task raised CancelledError"),
        (BaseExceptionGroup("g", [KeyboardInterrupt()]), "task raised BaseExceptionGroup: g"),
    ],
)
def test_what_would_stop_the_driver_is_only_reported(exc: BaseException, text: str) -> None:
    assert dumped(exc).message.startswith(text)
    loaded = arrive(exc)
    assert isinstance(loaded, TaskError)
    assert not isinstance(loaded, type(exc))
    assert type(loaded.cause) is type(exc)
    assert text in str(loaded).splitlines()[0]
    assert loaded.args[0].startswith(text)


class BadStr(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


def test_an_error_that_cannot_be_printed_arrives() -> None:
    exc = arrive(BadStr("x"))
    assert isinstance(exc, BadStr)
    assert "BadStr" in str(exc)


class ExitsAtLoad(Exception):
    def __reduce__(self) -> Any:
        return sys.exit, (3,)


class ExitsAtDump(Exception):
    def __reduce__(self) -> Any:
        sys.exit(3)


class ReducesToNonsense(Exception):
    def __reduce__(self) -> Any:
        return dict, ()


@pytest.mark.parametrize("kind", [ExitsAtLoad, ExitsAtDump, ReducesToNonsense])
def test_a_reduce_that_misbehaves_is_avoided(kind: type[Exception]) -> None:
    exc = arrive(kind("x", 1))
    assert isinstance(exc, kind)
    assert exc.args == ("x", 1)


@pytest.mark.parametrize("function", [sys.exit, int, dict])
def test_a_record_whose_pickle_misbehaves_is_a_task_error_with_a_note(function: Any) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return function, ("x",)

    record = ErrorRecord(
        "ZR-3001", "boom", "m.E", "f", "Traceback\nm.E: boom", pickled=pickle.dumps(Bomb())
    )
    exc = task_errors.load_exception(encode_error(record))
    assert isinstance(exc, TaskError)
    assert exc.cause is None
    assert "m.E: boom" in str(exc)
    assert "note: the exception object could not be rebuilt here" in str(exc)


def test_attributes_that_cannot_be_pickled_are_left_out_and_named() -> None:
    problem = TwoArguments(1, 2)
    problem.lock = threading.Lock()  # type: ignore[attr-defined]
    problem.args = ("text", threading.Lock())
    exc = arrive(problem)
    assert isinstance(exc, TwoArguments)
    assert (exc.a, exc.b) == (1, 2)
    assert not hasattr(exc.cause, "lock")
    assert exc.args[0] == "text"
    assert exc.args[1].startswith("<unlocked _thread.lock")
    assert "left out of the exception object: args[1], attribute 'lock'" in str(exc)


def test_large_attributes_are_left_out_and_named() -> None:
    problem = TwoArguments(1, 2)
    problem.data = bytes(1 << 20)  # type: ignore[attr-defined]
    record = dumped(problem)
    assert len(record.pickled) < 2 * limits.INLINE_BYTES_MAX
    exc = task_errors.load_exception(encode_error(record))
    assert isinstance(exc, TwoArguments)
    assert exc.a == 1
    assert "left out of the exception object: attribute 'data'" in str(exc)


def test_an_exception_class_that_cannot_be_pickled_is_text() -> None:
    class Local(Exception):
        lock = threading.Lock()

    exc = arrive(Local("boom"))
    assert type(exc).__name__ == "TaskError"
    assert exc.cause is None
    assert "Local: boom" in str(exc)
    assert "the exception object could not be pickled" in str(exc)


def test_a_class_of_a_missing_module_is_text_and_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("only_on_the_worker")
    exec("class Remote(Exception): pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_on_the_worker", module)
    record = dumped(module.Remote("boom"))
    assert record.type_name == "only_on_the_worker.Remote"
    monkeypatch.delitem(sys.modules, "only_on_the_worker")
    exc: Any = task_errors.load_exception(encode_error(record))
    assert type(exc).__name__ == "TaskError"
    assert exc.cause is None
    assert "only_on_the_worker.Remote: boom" in str(exc)
    assert "needs the module 'only_on_the_worker'" in str(exc)
    again = pickle.loads(pickle.dumps(exc))
    assert str(again) == str(exc)
    # A task that got this error and lets it pass: the outer driver may have the module.
    outer_record = encode_error(dumped(exc))
    assert "boom" in str(task_errors.load_exception(outer_record))
    monkeypatch.setitem(sys.modules, "only_on_the_worker", module)
    assert isinstance(task_errors.load_exception(outer_record), module.Remote)


# ---- groups --------------------------------------------------------------------------------


def test_a_group_arrives_as_a_group() -> None:
    group = ExceptionGroup("g", [ValueError(1), ExceptionGroup("h", [TypeError(2)])])
    exc = arrive(group)
    assert isinstance(exc, ExceptionGroup)
    assert isinstance(exc, TaskError)
    assert exc.message == "g"
    assert [type(member) for member in exc.exceptions] == [ValueError, ExceptionGroup]
    seen: list[Any] = []
    try:
        raise exc
    except* TypeError as part:
        seen.append(part)
    except* ValueError as part:
        seen.append(part)
    assert len(seen) == 2
    assert "ValueError: 1" in str(exc)


class OwnGroup(ExceptionGroup[Exception]):
    def __new__(cls, errors: list[Exception]) -> OwnGroup:
        return super().__new__(cls, "own", errors)

    def __init__(self, errors: list[Exception]) -> None:
        self.count = len(errors)


def test_a_group_with_bad_members_keeps_the_good_ones() -> None:
    class Unpicklable(Exception):
        lock = threading.Lock()

    group = OwnGroup([ValueError(1), TwoArguments(1, 2), Unpicklable("x"), ExitsAtLoad("y")])
    exc = arrive(group)
    assert isinstance(exc, OwnGroup)
    assert exc.count == 4
    kinds = [type(member) for member in exc.exceptions]
    assert kinds == [ValueError, TwoArguments, TaskError, ExitsAtLoad]
    assert "Unpicklable: x" in str(exc.exceptions[2])
    assert "Unpicklable in the group" in str(exc)


# ---- references ----------------------------------------------------------------------------


class Ref:
    def __reduce__(self) -> Any:
        pickling.note_reference(b"id")
        return serialization.restore_reference, (b"id",)


def test_references_in_errors_are_reported_as_stray(strays: list[bytes]) -> None:
    assert arrive(ValueError(Ref())).args == (("ref", b"id"),)
    assert set(strays) == {b"id"}
    strays.clear()
    odd = TwoArguments(1, 2)
    odd.ref = Ref()  # type: ignore[attr-defined]
    assert arrive(odd).ref == ("ref", b"id")
    assert set(strays) == {b"id"}


# ---- errors of the system ------------------------------------------------------------------


def codes() -> dict[str, type[ZrayError]]:
    kinds = [k for k in vars(zray.errors).values() if isinstance(k, type) and "code" in vars(k)]
    return {kind.code: kind for kind in kinds}


def test_codes_are_unique() -> None:
    kinds = {k for k in vars(zray.errors).values() if isinstance(k, type) and "code" in vars(k)}
    assert len(codes()) == len(kinds)


@pytest.mark.parametrize("code", sorted(set(codes()) - {"ZR-3001"}))
def test_system_errors_are_raised_as_their_class(code: str) -> None:
    data = task_errors.system_error(code, "what happened", function_name="f", node="n", pid=1)
    exc = task_errors.load_exception(data)
    assert type(exc) is codes()[code]
    assert str(exc) == f"{code} what happened"
    again = pickle.loads(pickle.dumps(exc))
    assert (type(again), str(again)) == (type(exc), str(exc))


def test_a_system_error_has_its_note() -> None:
    exc = task_errors.load_exception(task_errors.system_error("ZR-3003", "died", note="signal 9"))
    assert isinstance(exc, WorkerCrashedError)
    assert str(exc) == "ZR-3003 died\nsignal 9"


def test_a_code_of_the_future_is_kept() -> None:
    exc = task_errors.load_exception(task_errors.system_error("ZR-3999", "new"))
    assert type(exc) is ZrayError
    assert exc.code == "ZR-3999"
    assert str(exc) == "ZR-3999 new"


def test_an_error_of_a_foreign_worker_has_no_pickle() -> None:
    record = msgpack.packb(["ZR-3001", "boom", "Error", "f", "at f.js:1\nError: boom", "n", 5])
    exc: Any = task_errors.load_exception(record)
    assert type(exc).__name__ == "TaskError"
    assert exc.cause is None
    assert str(exc) == "ZR-3001 f failed (pid=5, node=n): Error: boom\nat f.js:1\nError: boom"


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x90", b"garbage"])
def test_a_damaged_record_is_an_exception_too(data: bytes) -> None:
    exc = task_errors.load_exception(data)
    assert isinstance(exc, SerializationError)


# ---- through real processes ----------------------------------------------------------------


def test_an_exception_class_of_the_script_returns_as_the_same_class() -> None:
    script = """
import subprocess, sys
from zray.runtime import serialization, task_errors
worker = '''
import sys
from zray.runtime import serialization, task_errors
function, _ = serialization.loads_function(sys.stdin.buffer.read())
try:
    function()
except BaseException as exc:
    sys.stdout.buffer.write(task_errors.dump_exception(exc, "f", "n", 1))
'''
class Mine(Exception):
    def __init__(self, a, b):
        super().__init__(a)
        self.b = b
def f():
    raise Mine(1, 2)
done = subprocess.run([sys.executable, "-c", worker], stdout=subprocess.PIPE, check=True,
                      input=serialization.dumps_function(f, False).blob)
exc = task_errors.load_exception(done.stdout)
print(isinstance(exc, Mine), type(exc.cause) is Mine, exc.b, "in f" in str(exc))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        timeout=60,
        env=environment,
        check=False,
    )
    assert done.stdout == b"True True 2 True\n", done.stderr.decode()
