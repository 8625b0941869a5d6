"""Contracts of tasks: calls, arguments, returns, options, retries, and errors of misuse."""

from __future__ import annotations

import functools
import os
import time

import numpy as np
import pytest
import ray

from tests.conformance.functions import same

pytestmark = pytest.mark.usefixtures("cluster")


@ray.remote
def add(a, b=1, *rest, c=0, **named):
    """Adds nothing."""
    return (a, b, rest, c, named)


@ray.remote
def fixed(a, *, b):
    return a, b


# ---- calls and arguments -------------------------------------------------------------------


def test_a_remote_call_returns_a_reference_at_once() -> None:
    """``f.remote()`` returns an ObjectRef, and ``get`` the value."""
    ref = add.remote(1)

    assert isinstance(ref, ray.ObjectRef)
    assert ray.get(ref) == (1, 1, (), 0, {})


def test_arguments_are_bound_as_python_does() -> None:
    """Positional, default, star and star-star arguments arrive as in a plain call."""
    assert ray.get(add.remote(1, 2, 3, 4, c=5, d=6)) == (1, 2, (3, 4), 5, {"d": 6})
    assert ray.get(add.remote(b=2, a=1)) == (1, 2, (), 0, {})


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "missing a required argument: 'a'"),
        ((1,), {}, "missing a required.*argument: 'b'"),
        ((1, 2), {}, "too many positional arguments"),
        ((1,), {"b": 1, "z": 2}, "got an unexpected keyword argument 'z'"),
        ((1,), {"a": 2, "b": 1}, "multiple values for argument 'a'"),
    ],
)
def test_arguments_that_do_not_fit_fail_at_the_call(args, kwargs, message) -> None:
    """A call whose arguments do not fit the signature is a TypeError at ``.remote()``."""
    with pytest.raises(TypeError, match=message):
        fixed.remote(*args, **kwargs)


def test_a_reference_as_an_argument_is_its_value() -> None:
    """References that are arguments themselves are resolved, also by keyword and among stars."""
    one, two = ray.put(1), same.remote(2)

    assert ray.get(add.remote(one, two, one, c=two, d=one)) == (1, 2, (1,), 2, {"d": 1})


def test_a_reference_inside_an_argument_stays_a_reference() -> None:
    """References in lists and dicts are not resolved."""

    @ray.remote
    def look(items):
        return [isinstance(item, ray.ObjectRef) for item in items], ray.get(items)

    assert ray.get(look.remote([ray.put(1), same.remote(2)])) == ([True, True], [1, 2])


def test_one_value_twice_is_two_references_to_one_object() -> None:
    """The same reference as several arguments is the same value."""
    ref = ray.put([1])

    assert ray.get(add.remote(ref, ref))[:2] == ([1], [1])


def test_arguments_are_copies() -> None:
    """What a task does to its arguments is not seen by the caller."""

    @ray.remote
    def change(items):
        items.append(1)
        return items

    mine: list[int] = []
    assert ray.get(change.remote(mine)) == [1]
    assert mine == []


def test_a_large_array_is_passed_and_returned() -> None:
    """Arrays of some megabytes go there and back."""
    array = np.arange(1_000_000)

    assert (ray.get(same.remote(array)) == array).all()


def test_an_array_argument_is_read_only() -> None:
    """A large array arrives as memory that cannot be written to."""

    @ray.remote
    def write(array):
        array[0] = 1

    with pytest.raises(ValueError, match="read-only"):
        ray.get(write.remote(np.zeros(1_000_000)))


def test_values_of_closures_are_those_of_the_first_call() -> None:
    """What a function captures is fixed when it is first called."""
    box = [1]

    @ray.remote
    def read():
        return box[0]

    assert ray.get(read.remote()) == 1
    box[0] = 2
    assert ray.get(read.remote()) == 1


def test_a_function_may_call_itself_remotely() -> None:
    """A task can submit itself, and wait for it without a deadlock."""

    @ray.remote
    def fib(n):
        return n if n < 2 else sum(ray.get([fib.remote(n - 1), fib.remote(n - 2)]))

    assert ray.get(fib.remote(6)) == 8


def test_a_lambda_is_a_task() -> None:
    """``ray.remote`` takes lambdas."""
    assert ray.get(ray.remote(lambda x: x * 2).remote(4)) == 8


def test_a_wrapped_function_keeps_its_signature() -> None:
    """A function decorated with functools.wraps is checked by the wrapped one's signature."""

    def twice(function):
        @functools.wraps(function)
        def inner(*args, **kwargs):
            return function(*args, **kwargs) * 2

        return inner

    @ray.remote
    @twice
    def f(a, b):
        return a + b

    assert ray.get(f.remote(1, b=2)) == 6
    with pytest.raises(TypeError, match="too many positional arguments"):
        f.remote(1, 2, 3)


def test_a_result_may_be_a_reference() -> None:
    """A returned reference is not resolved by ``get``."""

    @ray.remote
    def f():
        return [same.remote(3)]

    (inner,) = ray.get(f.remote())
    assert ray.get(inner) == 3


def test_tasks_may_be_remote_functions_arguments() -> None:
    """Remote functions can be passed to tasks and called there."""

    @ray.remote
    def call(function, x):
        return ray.get(function.remote(x))

    assert ray.get(call.remote(same, 5)) == 5


def test_many_arguments() -> None:
    """A task takes hundreds of references."""

    @ray.remote
    def total(*numbers):
        return sum(numbers)

    assert ray.get(total.remote(*[ray.put(i) for i in range(300)])) == sum(range(300))


def test_standard_output_of_tasks_is_not_their_result() -> None:
    """A task without a return statement returns None."""

    @ray.remote
    def f():
        print("said")

    assert ray.get(f.remote()) is None


# ---- misuse --------------------------------------------------------------------------------


def test_a_direct_call_is_refused() -> None:
    """Calling the function itself is a TypeError that names ``.remote()``."""
    with pytest.raises(TypeError, match=r"Remote functions cannot be called directly.*\.remote"):
        add(1)


@pytest.mark.parametrize("thing", [1, "text", None])
def test_only_functions_and_classes_are_remote(thing) -> None:
    """Anything else is refused."""
    with pytest.raises((AssertionError, TypeError)):
        ray.remote(thing)


def test_the_decorator_takes_only_keywords() -> None:
    """Positional options are refused."""
    with pytest.raises((AssertionError, TypeError), match="must be applied"):
        ray.remote(add, 1)


def test_an_async_function_is_refused() -> None:
    """``async def`` is a ValueError that tells how to wrap it."""

    async def f():
        pass

    with pytest.raises(ValueError, match="'async def' should not be used for remote tasks"):
        ray.remote(f).remote()


def test_an_argument_that_cannot_be_pickled_fails_at_the_call() -> None:
    """It is a TypeError at ``.remote()``."""
    import threading

    with pytest.raises(TypeError, match="lock"):
        same.remote(threading.Lock())


def test_a_captured_variable_that_cannot_be_pickled_fails_at_the_call() -> None:
    """It is a TypeError at the first ``.remote()``, not at the decorator."""
    import threading

    lock = threading.Lock()

    @ray.remote
    def f():
        return lock

    with pytest.raises(TypeError, match="lock"):
        f.remote()


# ---- returns -------------------------------------------------------------------------------


def test_several_returns_are_a_list_of_references() -> None:
    """``num_returns=n`` gives a list of n references."""

    @ray.remote(num_returns=3)
    def f():
        return 1, 2, 3

    refs = f.remote()
    assert isinstance(refs, list)
    assert ray.get(refs) == [1, 2, 3]


def test_no_return_is_none() -> None:
    """``num_returns=0`` gives None in place of a reference."""

    @ray.remote(num_returns=0)
    def f():
        return 1

    assert f.remote() is None


def test_the_number_of_returns_is_an_option_of_a_call() -> None:
    """``options(num_returns=)`` overrides the decorator's, for its calls only."""
    two = same.options(num_returns=2)

    assert ray.get(two.remote([1, 2])) == [1, 2]
    assert ray.get(same.remote([1, 2])) == [1, 2]


@pytest.mark.parametrize("value", [[1], [1, 2, 3]])
def test_another_number_of_values_is_the_tasks_error(value) -> None:
    """Returning fewer or more than ``num_returns`` is a ValueError for each reference."""
    refs = same.options(num_returns=2).remote(value)

    for ref in refs:
        with pytest.raises(ValueError, match=r"num_returns|expects|values? returned"):
            ray.get(ref)


def test_one_value_where_several_are_due_is_the_tasks_error() -> None:
    """A value without a length cannot be several returns."""
    refs = same.options(num_returns=2).remote(5)

    with pytest.raises((TypeError, ValueError)):
        ray.get(refs[0])


def test_each_of_several_returns_is_an_object_of_its_own() -> None:
    """They can be passed and waited for one by one."""
    first, second = same.options(num_returns=2).remote([1, 2])

    assert first != second
    assert first.task_id() == second.task_id()
    assert ray.get(same.remote(second)) == 2


# ---- options -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("num_cpus", -1),
        ("num_gpus", -1),
        ("num_returns", -1),
        ("max_retries", -2),
        ("resources", {"x": -1}),
        ("resources", {"CPU": 1}),
        ("resources", {"GPU": 1}),
        ("memory", -1),
        ("max_restarts", 1),
        ("nonsense", 1),
        ("max_calls", -1),
    ],
)
def test_bad_options_are_refused_at_once(option, value) -> None:
    """A value out of range, or an option that tasks do not have, is a ValueError."""
    with pytest.raises(ValueError):
        same.options(**{option: value})
    with pytest.raises(ValueError):
        ray.remote(**{option: value})(lambda: 1)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("num_cpus", "1"),
        ("resources", 1),
        ("num_returns", 1.5),
        ("max_retries", "3"),
        ("name", 1),
        ("runtime_env", 1),
    ],
)
def test_options_of_another_type_are_refused_at_once(option, value) -> None:
    """A value of a wrong type is a TypeError."""
    with pytest.raises(TypeError):
        same.options(**{option: value}).remote(1)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("num_cpus", 0),
        ("num_cpus", 0.5),
        ("num_gpus", 0),
        ("num_gpus", None),
        ("resources", {}),
        ("resources", None),
        ("memory", 1_000_000),
        ("max_retries", 0),
        ("max_retries", -1),
        ("retry_exceptions", True),
        ("retry_exceptions", [ValueError]),
        ("name", "some name"),
        ("scheduling_strategy", "DEFAULT"),
        ("scheduling_strategy", "SPREAD"),
        ("scheduling_strategy", None),
        ("runtime_env", None),
        ("runtime_env", {}),
        ("enable_task_events", False),
        ("label_selector", {}),
        ("fallback_strategy", None),
        ("accelerator_type", None),
        ("_labels", {"x": "y"}),
    ],
)
def test_an_option_that_a_task_runs_with(option, value) -> None:
    """The option is taken, and the task runs."""
    assert ray.get(same.options(**{option: value}).remote(1), timeout=30) == 1


def test_an_accelerator_type_is_a_resource_that_must_be_there() -> None:
    """A task that needs a kind of accelerator that no node has waits."""
    ref = same.options(accelerator_type="A100").remote(1)

    assert ray.wait([ref], timeout=1) == ([], [ref])
    ray.cancel(ref)


def test_options_do_not_change_the_function() -> None:
    """``options`` returns something of its own; the function keeps its options."""
    spread = same.options(scheduling_strategy="SPREAD", num_cpus=0.5)

    assert spread is not same
    assert ray.get([spread.remote(1), same.remote(2)]) == [1, 2]


def test_underscore_remote_takes_arguments_and_options() -> None:
    """``f._remote(args=, kwargs=, **options)`` is a call with options."""
    assert ray.get(add._remote(args=(1,), kwargs={"c": 2})) == (1, 1, (), 2, {})
    assert ray.get(same._remote(args=[[1, 2]], num_returns=2, num_cpus=0)) == [1, 2]


def test_an_unknown_scheduling_strategy_is_refused() -> None:
    """It is an error when the task is called at the latest."""
    with pytest.raises((TypeError, ValueError)):
        same.options(scheduling_strategy="NONSENSE").remote(1)


def test_a_task_needs_its_resources() -> None:
    """Tasks that need all CPUs run one after the other."""

    @ray.remote(num_cpus=4)
    def span():
        began = time.time()
        time.sleep(0.2)
        return began, time.time()

    (_, first_end), (second_begin, _) = sorted(ray.get([span.remote(), span.remote()]))
    assert first_end <= second_begin + 0.01


def test_tasks_of_no_cpus_are_not_held_back() -> None:
    """With ``num_cpus=0`` more run at a time than there are CPUs."""

    @ray.remote
    class Gate:
        def __init__(self):
            self.count = 0

        def arrive(self):
            self.count += 1

        def arrived(self):
            return self.count

    @ray.remote(num_cpus=0)
    def meet(gate, number):
        ray.get(gate.arrive.remote())
        while ray.get(gate.arrived.remote()) < number:
            time.sleep(0.05)
        return True

    gate = Gate.remote()
    assert all(ray.get([meet.remote(gate, 6) for _ in range(6)], timeout=50))


# ---- retries -------------------------------------------------------------------------------


def test_a_task_that_raises_is_not_retried(counter) -> None:
    """By default an exception is the result, however many retries there are."""

    @ray.remote(max_retries=3)
    def f():
        counter()
        raise ValueError("no")

    with pytest.raises(ValueError):
        ray.get(f.remote())
    assert counter() == 2


def test_a_task_that_raises_is_retried_on_demand(counter) -> None:
    """``retry_exceptions=True`` runs it again, at most ``max_retries`` times."""

    @ray.remote(max_retries=2, retry_exceptions=True)
    def f():
        if counter() < 3:
            raise ValueError("not yet")
        return "done"

    assert ray.get(f.remote()) == "done"


def test_retries_end(counter) -> None:
    """After the last retry the exception is the result."""

    @ray.remote(max_retries=1, retry_exceptions=True)
    def f():
        counter()
        raise ValueError("never")

    with pytest.raises(ValueError, match="never"):
        ray.get(f.remote())
    assert counter() == 3


def test_only_listed_exceptions_are_retried(counter) -> None:
    """``retry_exceptions=[...]`` covers these and their subclasses only."""

    @ray.remote(max_retries=5, retry_exceptions=[LookupError])
    def f():
        raise KeyError("again") if counter() < 3 else ValueError("the end")

    with pytest.raises(ValueError, match="the end"):
        ray.get(f.remote())
    assert counter() == 4


def test_a_task_whose_worker_dies_is_retried(counter) -> None:
    """A crash of the worker is retried by default."""

    @ray.remote
    def f():
        if counter() == 1:
            os._exit(1)
        return "done"

    assert ray.get(f.remote(), timeout=50) == "done"


def test_a_task_without_retries_dies_with_its_worker() -> None:
    """With ``max_retries=0`` it is a WorkerCrashedError."""

    @ray.remote(max_retries=0)
    def f():
        os._exit(1)

    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(f.remote(), timeout=50)


def test_a_function_that_is_too_large_is_refused() -> None:
    """A function that captures more than some hundred megabytes is a ValueError at the call."""
    blob = np.zeros(200 << 20, dtype=np.uint8)

    @ray.remote
    def f():
        return blob.size

    with pytest.raises(ValueError, match=r"The remote function .* is too large"):
        f.remote()


@pytest.mark.filterwarnings("ignore:The remote function")
def test_a_function_may_capture_some_megabytes() -> None:
    """A function that captures 20 MB runs."""
    blob = np.ones(20 << 20, dtype=np.uint8)

    @ray.remote
    def f():
        return int(blob.sum())

    assert ray.get(f.remote()) == 20 << 20


class Grave(BaseException):
    pass


@pytest.mark.parametrize(("kind", "runs"), [(Grave, 3), (GeneratorExit, 3), (KeyboardInterrupt, 1)])
def test_retry_exceptions_covers_whatever_is_raised_but_an_interrupt(tmp_path, kind, runs) -> None:
    """retry_exceptions=True is not only for what is an Exception."""
    log = tmp_path / "log"

    @ray.remote(max_retries=2, retry_exceptions=True)
    def fails():
        with log.open("a") as file:
            file.write(".")
        raise kind("again")

    with pytest.raises(ray.exceptions.RayError):
        ray.get(fails.remote())
    assert log.stat().st_size == runs
