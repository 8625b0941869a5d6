from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from zray import limits
from zray.errors import SerializationError
from zray.runtime import pickling, serialization

ROOT = Path(__file__).parents[2]


class Ref:
    """What an ObjectRef does with the hooks."""

    def __init__(self, object_id: bytes) -> None:
        self.id = object_id

    def __reduce__(self) -> Any:
        pickling.note_reference(self.id)
        return serialization.restore_reference, (self.id,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ref) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)


@pytest.fixture(autouse=True)
def strays() -> Iterator[list[bytes]]:
    seen: list[bytes] = []
    serialization.set_reference_factory(Ref)
    pickling.set_stray_reference_hook(seen.append)
    yield seen
    serialization.set_reference_factory(None)
    pickling.set_stray_reference_hook(None)


def run_script(code: str, *arguments: str, stdin: bytes = b"") -> bytes:
    """Output of a Python process whose __main__ is ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        input=stdin,
        capture_output=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def round_trip(value: Any) -> Any:
    return serialization.loads(serialization.dumps(value)[0])


# ---- values --------------------------------------------------------------------------------

CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        2**70,
        1.5,
        1j,
        "",
        "\udc80",
        b"",
        bytearray(b"x"),
        (1, "a"),
        [1, [2]],
        {1: {2}},
        "__main__",
        ["if __name__ == '__main__':"],
        Path("/x"),
        ValueError,
        len,
    ],
)
def test_values_come_back_equal(value: Any) -> None:
    data, references = serialization.dumps(value)
    assert references == []
    assert serialization.loads(data) == value
    assert serialization.loads(memoryview(data)) == value


def test_a_value_that_contains_itself_works() -> None:
    loaded = round_trip(CYCLE)
    assert loaded[0] is loaded


def test_what_plain_pickle_refuses_travels_by_value() -> None:
    class Local:
        x = 3

    assert round_trip(lambda y: y + 1)(2) == 3
    assert round_trip(Local()).x == 3
    assert round_trip({"f": [lambda: 7]})["f"][0]() == 7


def test_a_pickle_is_its_own_format() -> None:
    data, _ = serialization.dumps([1])
    assert data[0] == serialization.PICKLE_TAG
    assert pickle.loads(data) == [1]


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"\x80\x05", b"\x80\x05garbage.", b"M", b"M\xc1", b"M\x01\x02", b"Zx"]
)
def test_damaged_values_are_a_typed_error(data: bytes) -> None:
    with pytest.raises(SerializationError):
        serialization.loads(data)


def test_every_truncation_of_a_value_is_a_typed_error() -> None:
    data, _ = serialization.dumps({"a": [1, (2, b"x" * 300)], "b": Ref(b"r")})
    for end in range(len(data)):
        with pytest.raises(SerializationError):
            serialization.loads(data[:end])


def test_a_value_nested_too_deeply_says_so() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(SerializationError, match="the result of f is nested too deeply"):
        serialization.dumps(value, "the result of f")
    while value:
        value = value.pop()


def test_an_unpicklable_value_names_its_part() -> None:
    with pytest.raises(SerializationError, match=r"result: the value at 'k', item 1 is a _thread"):
        serialization.dumps({"k": [1, threading.Lock()]}, "result")


def test_a_failing_reduce_is_an_error_of_the_value() -> None:
    class Odd:
        def __reduce__(self) -> Any:
            raise KeyError("no")

    with pytest.raises(SerializationError, match=r"cannot be pickled \(KeyError: 'no'") as caught:
        serialization.dumps([Odd()])
    assert isinstance(caught.value.__cause__, KeyError)


def test_interrupts_pass_through_dumps() -> None:
    class Interrupted:
        def __reduce__(self) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        serialization.dumps([Interrupted()])


def test_a_missing_module_is_named_with_a_remedy() -> None:
    data = b"\x80\x05\x8c\x0bno_such_mod\x8c\x01f\x93."
    with pytest.raises(SerializationError, match=r"module 'no_such_mod'.*Install") as caught:
        serialization.loads(data)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_missing_name_is_an_error_of_versions() -> None:
    with pytest.raises(SerializationError, match=r"no_such_name.*another version"):
        serialization.loads(b"\x80\x05\x8c\x04json\x8c\x0cno_such_name\x93.")


def test_what_the_script_defines_is_usable_in_another_process_and_back() -> None:
    script = """
import sys
from zray.runtime import serialization
class Point:
    def __init__(self, x): self.x = x
    def double(self): return Point(self.x * 2)
if sys.argv[1] == "out":
    there, back = sys.stdin.buffer, sys.stdout.buffer
    back.write(serialization.dumps([Point(4)])[0])
"""
    data = run_script(script, "out")
    loaded = serialization.loads(data)[0]
    assert type(loaded).__module__ == "__main__"
    returned = serialization.dumps(loaded.double())[0]
    assert serialization.loads(returned).x == 8


def test_a_class_of_the_script_is_the_same_class_when_it_returns() -> None:
    script = """
import subprocess, sys
from zray.runtime import serialization
worker = '''
import sys
from zray.runtime import serialization
value = serialization.loads(sys.stdin.buffer.read())
value.x += 1
sys.stdout.buffer.write(serialization.dumps(value)[0])
'''
class Point:
    x = 1
done = subprocess.run([sys.executable, "-c", worker], input=serialization.dumps(Point())[0],
                      stdout=subprocess.PIPE, check=True)
back = serialization.loads(done.stdout)
print(type(back) is Point, back.x)
"""
    assert run_script(script) == b"True 2\n"


def test_importing_is_light() -> None:
    script = """
import sys
from zray.runtime import serialization, task_errors
serialization.loads(serialization.dumps((1, "a"))[0])
print([m for m in ("zmq", "numpy", "cloudpickle", "msgpack") if m in sys.modules])
"""
    assert run_script(script) == b"[]\n"


# ---- references ----------------------------------------------------------------------------


def test_references_inside_a_value_are_collected_once_and_in_order(strays: list[bytes]) -> None:
    a, b, c = Ref(b"a"), Ref(b"b"), Ref(b"c")
    data, references = serialization.dumps({"x": [b, a], b: (Ref(b"b"), c)})
    assert references == [b"b", b"a", b"c"]
    assert serialization.loads(data)["x"] == [b, a]
    assert strays == []


def test_references_are_collected_once_where_plain_pickle_fails() -> None:
    data, references = serialization.dumps([Ref(b"a"), lambda: 1])
    assert references == [b"a"]
    assert serialization.loads(data)[0] == Ref(b"a")


def test_a_reference_pickled_outside_is_reported(strays: list[bytes]) -> None:
    data = pickle.dumps([Ref(b"a")])
    assert strays == [b"a"]
    assert pickle.loads(data) == [Ref(b"a")]


def test_a_failed_dumps_reports_no_stray_and_ends_collecting(strays: list[bytes]) -> None:
    with pytest.raises(SerializationError):
        serialization.dumps([Ref(b"a"), threading.Lock()])
    assert strays == []
    pickle.dumps(Ref(b"b"))
    assert strays == [b"b"]


def test_dumps_within_dumps_keeps_the_references_apart() -> None:
    inner: list[Any] = []

    class Nested:
        def __reduce__(self) -> Any:
            inner.append(serialization.dumps([Ref(b"inner")])[1])
            return str, ()

    _, references = serialization.dumps([Ref(b"a"), Nested(), Ref(b"b")])
    assert references == [b"a", b"b"]
    assert inner[0] == [b"inner"]


def test_threads_collect_apart() -> None:
    turns = threading.Barrier(2, timeout=30)

    class Slow:
        def __reduce__(self) -> Any:
            turns.wait()
            return str, ()

    results: dict[bytes, list[bytes]] = {}

    def work(name: bytes) -> None:
        results[name] = serialization.dumps([Slow(), Ref(name), Slow()])[1]

    threads = [threading.Thread(target=work, args=(name,)) for name in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    # Local classes are pickled twice, by the plain pickler first; the ids count once.
    assert results == {b"a": [b"a"], b"b": [b"b"]}


def test_a_reference_without_a_cluster_says_so() -> None:
    data, _ = serialization.dumps([Ref(b"a")])
    serialization.set_reference_factory(None)
    with pytest.raises(SerializationError, match=r"zray\.init"):
        serialization.loads(data)


# ---- portable values -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [None, True, -(2**63), 2**64 - 1, 1.5, "x", b"x", [1, [None]], {"a": {"b": [b""]}}]
)
def test_portable_values_come_back_equal(value: Any) -> None:
    data = serialization.dumps_portable(value)
    assert data[:1] == b"M"
    assert msgpack.unpackb(data[1:]) == value
    assert serialization.loads(data) == value


@pytest.mark.parametrize("value", [(1,), {1: 2}, [{b"a": 1}], 2**64, {1, 2}, object(), CYCLE])
def test_what_is_not_portable_is_refused_when_packed(value: Any) -> None:
    with pytest.raises(SerializationError, match="not portable"):
        serialization.dumps_portable(value)


@pytest.mark.parametrize(
    "body",
    [
        msgpack.packb({1: 2}),
        msgpack.packb({b"a": 2}),
        b"\x82\xa1a\x01\xa1a\x02",
        b"\xc1",
        b"\xa1\xff",
        msgpack.packb(msgpack.ExtType(1, b"x")),
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 100_000,
        b"\x01\x01",
    ],
)
def test_what_is_not_portable_is_refused_when_unpacked(body: bytes) -> None:
    with pytest.raises(SerializationError):
        serialization.loads(b"M" + body)


# ---- arguments -----------------------------------------------------------------------------


def call(values: list[Any], *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    arguments = serialization.dumps_arguments(args, kwargs, Ref)
    return serialization.loads_arguments(arguments.whole(), values)


def test_arguments_come_back() -> None:
    assert call([]) == ((), {})
    assert call([], 1, "a") == ((1, "a"), {})
    assert call([], [1], k={"x": None}) == (([1],), {"k": {"x": None}})
    assert call([], k=1) == ((), {"k": 1})


def test_what_no_arguments_load_as_is_nobody_elses() -> None:
    one = serialization.dumps_arguments((), {}, Ref)
    assert one == serialization.Arguments(one.data, [], [])
    _, kwargs = serialization.loads_arguments(one.data, [])
    kwargs["x"] = 1
    assert serialization.loads_arguments(one.data, []) == ((), {})


def test_references_that_are_arguments_become_their_values() -> None:
    a, b = Ref(b"a"), Ref(b"b")
    args, kwargs = (1, b, [a], a), {"x": b, "y": None, "z": Ref(b"c")}
    arguments = serialization.dumps_arguments(args, kwargs, Ref)
    assert arguments.dependencies == [b"b", b"a", b"c"]
    assert arguments.nested == [b"a"]
    loaded = serialization.loads_arguments(arguments.data, ["B", "A", "C"])
    assert loaded == ((1, "B", [a], "A"), {"x": "B", "y": None, "z": "C"})
    assert kwargs == {"x": b, "y": None, "z": Ref(b"c")}


def test_large_arrays_among_arguments_are_not_copied_and_none_can_be_changed() -> None:
    large, small = np.arange(20_000.0), np.arange(10.0)
    arguments = serialization.dumps_arguments((Ref(b"a"), [large]), {"k": small}, Ref)
    assert arguments.parts is not None and not arguments.data
    assert any(np.shares_memory(np.frombuffer(p, np.uint8), large) for p in arguments.parts.pieces)
    assert arguments.parts.contained == arguments.nested == []
    (value, (found,)), kwargs = serialization.loads_arguments(arguments.whole(), ["A"])
    assert value == "A" and (found == large).all() and not found.flags.writeable
    assert (kwargs["k"] == small).all() and not kwargs["k"].flags.writeable


def test_small_arrays_travel_with_the_call_and_are_aligned_where_they_come() -> None:
    arrays = [np.arange(count) for count in (0, 1, 7, 100, 1000)]
    arguments = serialization.dumps_arguments((arrays,), {"k": b"bytes"}, Ref)
    assert arguments.parts is None
    for _ in range(20):  # wherever that is
        (found,), kwargs = serialization.loads_arguments(bytes(bytearray(arguments.data)), [])
        assert [one.tolist() for one in found] == [one.tolist() for one in arrays]
        assert {one.ctypes.data % 64 for one in found if one.size} == {0}
        assert kwargs == {"k": b"bytes"}


def test_one_object_given_twice_is_one_object_as_in_a_plain_call() -> None:
    value = [1]
    (first, second), _ = call([value], Ref(b"a"), Ref(b"a"))
    assert first is second is value


def test_an_unpicklable_argument_is_named() -> None:
    lock = threading.Lock()
    with pytest.raises(SerializationError, match=r"^ZR-3201 argument 1 of f is a _thread\.lock"):
        serialization.dumps_arguments((1, lock), {}, Ref, "f")
    with pytest.raises(SerializationError, match="argument 'k' of f: item 0 is a _thread"):
        serialization.dumps_arguments((Ref(b"a"),), {"k": [lock]}, Ref, "f")


def test_arguments_of_a_foreign_caller() -> None:
    data = serialization.dumps_portable([[1, None], {"k": None}, [[1, 0], ["k", 1]]])
    assert serialization.loads_arguments(data, ["A", "B"]) == ((1, "A"), {"k": "B"})
    data = serialization.dumps_portable([[1], {}])
    assert serialization.loads_arguments(data, []) == ((1,), {})


@pytest.mark.parametrize(
    "parts",
    [None, [], [[]], [1, {}], [[], 2], [[], {}, [[0, 0]]], [[None], {}, [[0, 5]]], [[], {}, 3]],
)
def test_malformed_arguments_are_a_typed_error(parts: Any) -> None:
    with pytest.raises(SerializationError):
        serialization.loads_arguments(serialization.dumps_portable(parts), ["A"])


# ---- functions -----------------------------------------------------------------------------


def test_a_function_comes_back_with_its_closure_and_retries() -> None:
    ref, base = Ref(b"a"), 5

    def add(x: int) -> Any:
        return x + base, ref

    made = serialization.dumps_function(add, (ValueError,))
    assert len(made.function_id) == serialization.FUNCTION_ID_BYTES
    assert made.contained == [b"a"]
    function, retry = serialization.loads_function(made.blob)
    assert function(1) == (6, ref)
    assert retry == (ValueError,)
    assert serialization.dumps_function(len, False) == serialization.dumps_function(len, False)
    assert serialization.dumps_function(len, True) != serialization.dumps_function(len, False)


def test_a_function_of_the_script_runs_elsewhere() -> None:
    script = """
import sys
from zray.runtime import serialization
FACTOR = 3
def helper(x): return x * FACTOR
def f(x): return helper(x) + 1
sys.stdout.buffer.write(serialization.dumps_function(f, False).blob)
"""
    function, _ = serialization.loads_function(run_script(script))
    assert function(2) == 7


def test_an_unpicklable_closure_names_the_variable() -> None:
    lock = threading.Lock()

    def f() -> Any:
        return lock

    message = r"f: captured variable 'lock' \(closure\) is a _thread\.lock, which cannot be pickled"
    with pytest.raises(SerializationError, match=message) as caught:
        serialization.dumps_function(f, False)
    assert "f.<closure>.lock" in str(caught.value)


def test_unpicklable_retry_exceptions_are_named() -> None:
    lock = threading.Lock()
    with pytest.raises(SerializationError, match="retry_exceptions of len: item 0 is a _thread"):
        serialization.dumps_function(len, [lock])


def test_a_large_function_warns_and_a_too_large_one_is_refused() -> None:
    data = bytes(limits.FUNCTION_BYTES_WARN)

    def f() -> int:
        return len(data)

    with pytest.warns(UserWarning, match=r"The remote function f is very large \(9 MiB\)"):
        serialization.dumps_function(f, False)
    data = bytes(limits.FUNCTION_BYTES_MAX)
    with pytest.raises(ValueError, match=r"The remote function f is too large \(95 MiB.*zray.put"):
        serialization.dumps_function(f, False)


def test_a_function_of_a_missing_module_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("only_on_the_driver")
    exec("def f(): return 1", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_on_the_driver", module)
    blob = serialization.dumps_function(module.f, False).blob
    monkeypatch.delitem(sys.modules, "only_on_the_driver")
    with pytest.raises(SerializationError, match=r"task's function needs the module 'only_on_the"):
        serialization.loads_function(blob)


@pytest.mark.parametrize("blob", [b"", b"garbage", pickle.dumps(3), pickle.dumps((1, 2, 3))])
def test_damaged_functions_are_a_typed_error(blob: bytes) -> None:
    with pytest.raises(SerializationError, match="the task's function"):
        serialization.loads_function(blob)
