"""``get``, ``put`` and ``wait``: their checks, messages and time limits, as Ray's."""

from __future__ import annotations

import inspect
import re
import time
from typing import Any, cast

import pytest

import zray
from zray.errors import GetTimeoutError

pytestmark = pytest.mark.usefixtures("cluster")


@zray.remote
def after(seconds: float, value: Any = None) -> Any:
    time.sleep(seconds)
    return value


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (zray.get, "timeout=None progress=False"),
        (zray.put, ""),
        (zray.wait, "num_returns=1 timeout=None fetch_local=True"),
        (zray.cancel, "force=False recursive=True"),
    ],
)
def test_signatures(function: Any, expected: str) -> None:
    first, *others = inspect.signature(function).parameters.values()
    assert first.kind is first.POSITIONAL_OR_KEYWORD and first.default is first.empty
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in others)
    assert " ".join(f"{p.name}={p.default}" for p in others) == expected


# ---- get -----------------------------------------------------------------------------------


def test_get_of_a_list_keeps_order_and_duplicates() -> None:
    a, b = after.remote(0.05, "a"), after.remote(0, "b")
    assert zray.get([a, b, a]) == ["a", "b", "a"]
    assert zray.get([]) == []


@pytest.mark.parametrize("value", [5, "text", (), None, {}])
def test_get_of_no_reference(value: Any) -> None:
    text = "'object_refs' must either be an ObjectRef or a list of ObjectRefs"
    with pytest.raises(ValueError, match=text):
        zray.get(value)


def test_get_takes_no_tuple() -> None:
    with pytest.raises(ValueError, match="'object_refs' must either be"):
        zray.get((zray.put(1),))


def test_get_of_a_list_with_another_value() -> None:
    with pytest.raises(TypeError, match="Attempting to call `get` on the value 5"):
        zray.get([zray.put(1), 5])  # type: ignore[arg-type]


def test_get_timeout_says_what_it_waited_for() -> None:
    done, slow = zray.put(1), after.remote(30)
    began = time.monotonic()
    with pytest.raises(GetTimeoutError) as caught:
        zray.get([done, slow], timeout=0.2)
    assert time.monotonic() - began < 2
    assert isinstance(caught.value, TimeoutError)
    text = str(caught.value)
    assert "0.2 s" in text and "1 of 2 values" in text and slow.hex() in text
    assert re.search(r"after is with node head \(ALIVE\)", text)
    zray.cancel(slow, force=True)


def test_get_timeout_of_a_task_without_room_says_so() -> None:
    blocking = [after.remote(30) for _ in range(4)]
    with pytest.raises(GetTimeoutError, match=r"WAIT_RESOURCES: needs CPU 1.*task after"):
        zray.get(blocking[-1:], timeout=0.3)
    for ref in blocking:
        zray.cancel(ref, force=True)


def test_get_timeout_of_a_task_with_dependencies_says_so() -> None:
    slow = after.remote(30)
    with pytest.raises(GetTimeoutError, match="WAIT_DEPS: after waits for 1 of its arguments"):
        zray.get(after.remote(0, slow), timeout=0.3)
    zray.cancel(slow, force=True)


def test_get_without_waiting() -> None:
    ref = after.remote(0.1, 7)
    with pytest.raises(GetTimeoutError):
        zray.get(ref, timeout=0)
    deadline = time.monotonic() + 10
    while True:  # nobody else may be needed for the value to arrive
        try:
            assert zray.get(ref, timeout=0) == 7
            break
        except GetTimeoutError:
            assert time.monotonic() < deadline
    assert zray.get(ref, timeout=0) == 7


def test_get_with_progress(capfd: pytest.CaptureFixture[str]) -> None:
    refs = [after.remote(0.01, i) for i in range(5)]
    assert zray.get(refs, progress=True) == list(range(5))
    assert "5/5" in capfd.readouterr().err


# ---- put -----------------------------------------------------------------------------------


def test_put_copies() -> None:
    value = [1]
    ref = zray.put(value)
    value.append(2)
    assert zray.get(ref) == [1]
    zray.get(ref).append(3)
    assert zray.get(ref) == [1]


def test_put_of_a_reference() -> None:
    with pytest.raises(TypeError, match="Calling 'put' on an ObjectRef is not allowed"):
        zray.put(zray.put(1))


def test_put_of_a_list_of_references() -> None:
    inner = zray.put("inner")
    outer = zray.put([inner])
    del inner
    assert zray.get(zray.get(outer)) == ["inner"]


# ---- wait ----------------------------------------------------------------------------------


def test_wait_returns_what_is_ready_in_the_given_order() -> None:
    slow, first, second = after.remote(20), after.remote(0), zray.put(0)
    ready, others = zray.wait([slow, first, second], num_returns=2)
    assert (ready, others) == ([first, second], [slow])
    ready, others = zray.wait([slow, first, second], num_returns=1)
    assert (ready, others) == ([first], [slow, second])
    zray.cancel(slow, force=True)


def test_wait_with_a_timeout_returns_fewer() -> None:
    slow = after.remote(20)
    began = time.monotonic()
    assert zray.wait([slow], timeout=0.1) == ([], [slow])
    assert zray.wait([slow, zray.put(1)], num_returns=2, timeout=0)[1] == [slow]
    assert time.monotonic() - began < 1
    zray.cancel(slow, force=True)


def test_wait_without_waiting_sees_progress() -> None:
    ref = after.remote(0.1)
    deadline = time.monotonic() + 10
    while not zray.wait([ref], timeout=0)[0]:
        assert time.monotonic() < deadline


@pytest.mark.parametrize("fetch_local", [True, False])
def test_a_loop_of_waits_sees_each_once_though_its_list_changes(fetch_local: bool) -> None:
    refs = [after.remote(0.002) for _ in range(40)]
    left, seen = [*refs], []
    while left:
        number = min(3, len(left))
        ready, left = zray.wait(left, num_returns=number, fetch_local=fetch_local)
        assert len(ready) == number
        seen += ready
        left.reverse()
        with pytest.raises(ValueError, match="unique"):
            zray.wait([*left, ready[0], ready[0]], timeout=0)
    assert len(seen) == 40 and {*seen} == {*refs}


def test_wait_returns_ready_ones_from_between_others() -> None:
    slow = [after.remote(20) for _ in range(4)]
    first, second, third = (zray.put(n) for n in range(3))
    refs = [slow[0], first, slow[1], second, third, slow[2], slow[3]]
    assert zray.wait(refs, num_returns=7, timeout=0) == ([first, second, third], slow)
    for ref in slow:
        zray.cancel(ref, force=True)


@pytest.mark.parametrize("fetch_local", [True, False])
def test_wait_for_large_values(fetch_local: bool) -> None:
    @zray.remote
    def large() -> bytes:
        return bytes(300_000)

    refs = [large.remote() for _ in range(3)]
    assert zray.wait(refs, num_returns=3, fetch_local=fetch_local) == (refs, [])
    assert [len(value) for value in zray.get(refs)] == [300_000] * 3


def test_wait_counts_failures_as_ready() -> None:
    @zray.remote
    def fail() -> None:
        raise ValueError

    ref = fail.remote()
    assert zray.wait([ref]) == ([ref], [])


def test_wait_of_nothing() -> None:
    assert zray.wait([]) == ([], [])


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda ref: zray.wait(ref), TypeError, "got a single ray.ObjectRef"),
        (lambda ref: zray.wait((ref,)), TypeError, "expected a list of ray.ObjectRef"),
        (lambda ref: zray.wait(cast(Any, 5)), TypeError, "expected a list of ray.ObjectRef"),
        (lambda ref: zray.wait([ref, cast(Any, 5)]), TypeError, "got list containing 5"),
        (lambda ref: zray.wait([ref, ref]), ValueError, "a list of unique object refs"),
        (lambda ref: zray.wait([ref], num_returns=0), ValueError, "Invalid number of objects"),
        (lambda ref: zray.wait([ref], num_returns=-1), ValueError, "Invalid number of objects"),
        (lambda ref: zray.wait([ref], num_returns=2), ValueError, "cannot be greater than"),
        (lambda ref: zray.wait([ref], timeout=-1), ValueError, "must be nonnegative"),
    ],
)
def test_wait_checks(make: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make(zray.put(1))
