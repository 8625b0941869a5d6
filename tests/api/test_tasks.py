"""Tasks: what they get, what they return, and tasks that submit tasks."""

from __future__ import annotations

import threading
from typing import Any

import psutil
import pytest

import zray
from tests.api.conftest import eventually

pytestmark = pytest.mark.usefixtures("cluster")


@zray.remote
def double(x: int) -> int:
    return 2 * x


@zray.remote
def collect(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


@zray.remote
def fib(n: int, base: int = 2) -> int:
    return n if n < base else sum(zray.get([fib.remote(n - 1), fib.remote(n - 2)]))


def test_results_are_values() -> None:
    assert zray.get([double.remote(i) for i in range(20)]) == [2 * i for i in range(20)]


def test_positional_and_keyword_arguments() -> None:
    ref = collect.remote(1, "two", three=[3], four=None)
    assert zray.get(ref) == ((1, "two"), {"three": [3], "four": None})


def test_references_as_arguments_become_values() -> None:
    one = double.remote(1)
    two = zray.put("two")
    assert zray.get(collect.remote(one, x=two, y=one)) == ((2,), {"x": "two", "y": 2})


def test_one_reference_in_several_places_is_one_value() -> None:
    ref = zray.put([1])

    @zray.remote
    def same(a: list[int], b: list[int], c: list[int]) -> bool:
        return a == b == c == [1]

    assert zray.get(same.remote(ref, ref, c=ref))


def test_chain_of_dependencies() -> None:
    ref = double.remote(1)
    for _ in range(30):
        ref = double.remote(ref)
    assert zray.get(ref) == 2**31


def test_nested_references_stay_references() -> None:
    inner = double.remote(4)

    @zray.remote
    def unpack(refs: list[Any], mapping: dict[str, Any]) -> tuple[str, int, int]:
        return type(refs[0]).__name__, zray.get(refs[0]), zray.get(mapping["x"])

    assert zray.get(unpack.remote([inner], {"x": inner})) == ("ObjectRef", 8, 8)


def test_several_returns() -> None:
    @zray.remote(num_returns=3)
    def three() -> tuple[int, str, list[int]]:
        return 1, "2", [3]

    refs = three.remote()
    assert type(refs) is list and len(refs) == 3
    assert zray.get(refs) == [1, "2", [3]]
    assert zray.get(double.options(num_returns=1).remote(refs[0])) == 2


def test_no_return() -> None:
    @zray.remote(num_returns=0)
    def nothing() -> None:
        pass

    assert nothing.remote() is None


@pytest.mark.parametrize("value", [(1, 2), 5, None])
def test_wrong_number_of_returns(value: Any) -> None:
    @zray.remote(num_returns=3)
    def three() -> Any:
        return value

    refs = three.remote()
    for ref in refs:
        with pytest.raises(ValueError, match="num_returns=3"):
            zray.get(ref)


def test_two_hundred_and_more_returns() -> None:
    @zray.remote(num_returns=300)
    def many() -> range:
        return range(300)

    assert zray.get(many.remote()) == list(range(300))


def test_recursion_with_a_default_argument() -> None:
    assert zray.get(fib.remote(9)) == 34


def test_workers_that_recursion_needed_end_again() -> None:
    zray.get(fib.remote(8))
    here = psutil.Process()
    eventually(lambda: len(here.children(recursive=True)) <= 5)  # head, raylet, zygote, two


def test_nested_function_may_recurse() -> None:
    @zray.remote
    def depth(n: int, step: int = 1) -> int:
        return 0 if n == 0 else 1 + zray.get(depth.remote(n - step))

    assert zray.get(depth.remote(12)) == 12


def test_put_in_a_task_and_references_returned() -> None:
    @zray.remote
    def make() -> list[Any]:
        return [zray.put("from the task"), double.remote(21)]

    assert zray.get(zray.get(make.remote())) == ["from the task", 42]


def test_references_in_references() -> None:
    @zray.remote
    def deeper(n: int) -> Any:
        return [zray.put([deeper.remote(n - 1)])] if n else "the bottom"

    value = zray.get(deeper.remote(3))
    while value != "the bottom":
        (value,) = zray.get(zray.get(value)[0]) if isinstance(value, list) else value
        value = zray.get(value) if isinstance(value, zray.ObjectRef) else value


def test_a_worker_keeps_a_borrowed_reference() -> None:
    @zray.remote
    def keep(box: list[Any]) -> None:
        import builtins

        builtins.kept = box[0]  # type: ignore[attr-defined]

    @zray.remote
    def use() -> Any:
        import builtins

        return zray.get(builtins.kept) if hasattr(builtins, "kept") else None

    ref = double.remote(33)
    zray.get(keep.remote([ref]))
    del ref
    for _ in range(5):  # let drops and frees pass by
        zray.get(double.remote(0))
    eventually(lambda: 66 in zray.get([use.remote() for _ in range(20)]))


def test_a_task_passes_its_reference_on() -> None:
    @zray.remote
    def outer(box: list[Any]) -> Any:
        return collect.remote(box[0], nested=box)

    _, kwargs = zray.get(zray.get(outer.remote([double.remote(5)])))
    assert zray.get(kwargs["nested"]) == [10]


def test_closures_keep_references_alive() -> None:
    def make() -> zray.RemoteFunction[[], str]:
        ref = zray.put("captured")

        @zray.remote
        def use() -> str:
            return zray.get(ref)

        return use

    use = make()
    first = use.remote()
    assert zray.get([first, use.remote()]) == ["captured", "captured"]


def test_a_function_is_exported_once_and_captures_its_variables_then() -> None:
    n = 1

    @zray.remote
    def captured() -> int:
        return n

    assert zray.get(captured.remote()) == 1
    n = 2
    assert zray.get(captured.remote()) == 1


def test_none_and_empty_values() -> None:
    values: list[Any] = [None, b"", "", (), [], {}, 0, False]
    assert zray.get(collect.remote(*values)) == (tuple(values), {})
    assert zray.get([zray.put(value) for value in values]) == values


def test_task_decorator_may_be_called_here() -> None:
    @zray.task(num_cpus=1)
    def add(a: int, b: int) -> int:
        return a + b

    assert add(1, 2) == 3
    assert zray.get(add.remote(1, b=2)) == 3


def test_remote_function_may_not_be_called_here() -> None:
    with pytest.raises(TypeError, match="Remote functions cannot be called directly"):
        double(1)


def test_decorating_what_cannot_be_a_task() -> None:
    with pytest.raises(TypeError, match="takes a function"):
        zray.remote(5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="applied either with no arguments"):
        zray.remote(double, num_cpus=1)  # type: ignore[call-overload]

    async def coroutine() -> None: ...

    with pytest.raises(ValueError, match="async def"):
        zray.remote(coroutine)


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), ((1, 2), {}), ((), {"y": 1}), ((1,), {"x": 1})]
)
def test_arguments_are_checked_at_the_call(args: Any, kwargs: Any) -> None:
    with pytest.raises(TypeError, match=r"double\(\)"):
        double.remote(*args, **kwargs)


def test_builtins_and_lambdas_are_functions_too() -> None:
    assert zray.get(zray.remote(len).remote([1, 2, 3])) == 3
    assert zray.get(zray.remote(lambda x: x + 1).remote(1)) == 2


def test_fan_in() -> None:
    refs = [double.remote(i) for i in range(1000)]

    @zray.remote
    def total(*values: int) -> int:
        return sum(values)

    @zray.remote
    def total_of(refs: list[Any]) -> int:
        return sum(zray.get(refs))

    assert zray.get([total.remote(*refs), total_of.remote(refs)]) == [999000, 999000]


def test_ten_thousand_tasks() -> None:
    assert sum(zray.get([double.remote(i) for i in range(10_000)])) == 99_990_000


def test_threads_in_a_task_may_use_the_api() -> None:
    @zray.remote
    def threaded() -> list[int]:
        found: list[int] = []

        def one(i: int) -> None:
            found.append(zray.get(double.remote(zray.put(i))))

        threads = [threading.Thread(target=one, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sorted(found)

    assert zray.get(threaded.options(num_cpus=0).remote()) == [2 * i for i in range(8)]
