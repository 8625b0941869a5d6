"""Contracts of ``cancel``: what is queued, waits, runs or has ended, in tasks and actors."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
import ray
from ray.exceptions import TaskCancelledError, WorkerCrashedError

from tests.conformance.functions import same, slow

pytestmark = pytest.mark.usefixtures("cluster")


def until(path: Path) -> None:
    """Waits until the file is there."""
    deadline = time.monotonic() + 40
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


def cancelled(ref, kind=TaskCancelledError):
    with pytest.raises(kind) as caught:
        ray.get(ref, timeout=30)
    return caught.value


@ray.remote(num_cpus=0, max_retries=0)
def linger(path=None, seconds=60.0):
    if path is not None:
        Path(path).touch()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.01)
    return "lingered"


@ray.remote(num_cpus=4)
def whole(path, seconds=60.0):
    Path(path).touch()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.01)


@ray.remote
def touch(path, *_):
    Path(path).touch()


# ---- tasks ---------------------------------------------------------------------------------


def test_a_queued_task_is_dropped(tmp_path) -> None:
    """A task that waits for a CPU is cancelled at once, and never runs."""
    running = whole.remote(tmp_path / "running")
    until(tmp_path / "running")
    queued = touch.remote(tmp_path / "ran")

    ray.cancel(queued)
    cancelled(queued)
    ray.cancel(running)
    cancelled(running)
    assert ray.get(same.remote(1)) == 1
    assert not (tmp_path / "ran").exists()


def test_a_task_that_waits_for_an_argument_is_dropped(tmp_path) -> None:
    """It is cancelled though the argument is not there; what makes that goes on."""
    argument = slow.remote(1.0, 5)
    waiting = touch.remote(tmp_path / "ran", argument)

    ray.cancel(waiting)
    cancelled(waiting)
    assert ray.get(argument) == 5
    assert not (tmp_path / "ran").exists()


def test_a_cancelled_task_tidies_up(tmp_path) -> None:
    """Its ``finally`` blocks run."""

    @ray.remote
    def f(path):
        try:
            path.with_suffix(".began").touch()
            while True:
                time.sleep(0.01)
        finally:
            path.with_suffix(".tidy").touch()

    ref = f.remote(tmp_path / "f")
    until(tmp_path / "f.began")

    ray.cancel(ref)
    cancelled(ref)
    until(tmp_path / "f.tidy")


def test_a_task_in_a_blocking_get_is_interrupted(tmp_path) -> None:
    """A task that waits in ``get`` is cancelled, and so is what it waits for."""

    @ray.remote
    def f(path):
        ray.get(linger.remote(path))

    ref = f.remote(tmp_path / "child")
    until(tmp_path / "child")

    ray.cancel(ref)
    cancelled(ref)


def test_a_task_in_wait_is_interrupted(tmp_path) -> None:
    """The same in ``wait``."""

    @ray.remote
    def f(path):
        ray.wait([linger.remote(path)])

    ref = f.remote(tmp_path / "child")
    until(tmp_path / "child")

    ray.cancel(ref)
    cancelled(ref)


def test_a_task_that_has_ended_keeps_its_value() -> None:
    """Cancelling it does nothing."""
    ref = same.remote(5)
    assert ray.get(ref) == 5

    ray.cancel(ref)
    assert ray.get(ref) == 5


def test_a_task_that_has_failed_keeps_its_error() -> None:
    """Cancelling it does nothing."""

    @ray.remote
    def f():
        raise ValueError("failed")

    ref = f.remote()
    cancelled(ref, ValueError)

    ray.cancel(ref)
    cancelled(ref, ValueError)


def test_cancelled_twice(tmp_path) -> None:
    """The second time does nothing."""
    ref = linger.remote(tmp_path / "began")
    until(tmp_path / "began")

    ray.cancel(ref)
    ray.cancel(ref)
    cancelled(ref)
    ray.cancel(ref)
    cancelled(ref)


def test_force_ends_the_worker(tmp_path) -> None:
    """A task that heeds no interrupt is ended by ``force``; ``get`` raises one of two errors."""

    @ray.remote
    def f(path):
        path.touch()
        while True:
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                pass

    ref = f.remote(tmp_path / "began")
    until(tmp_path / "began")

    ray.cancel(ref, force=True)
    cancelled(ref, (TaskCancelledError, WorkerCrashedError))


def test_a_forced_end_is_not_retried(tmp_path, counter) -> None:
    """``force`` costs no retries: there are none."""

    @ray.remote(max_retries=3)
    def f(path):
        counter()
        path.touch()
        time.sleep(60)

    ref = f.remote(tmp_path / "began")
    until(tmp_path / "began")

    ray.cancel(ref, force=True)
    cancelled(ref, (TaskCancelledError, WorkerCrashedError))
    assert ray.get(same.remote(1)) == 1
    assert counter() == 2


def test_a_cancelled_task_is_not_retried(tmp_path, counter) -> None:
    """Nor is one that ``retry_exceptions`` would have run again."""

    @ray.remote(max_retries=3, retry_exceptions=True)
    def f(path):
        counter()
        path.touch()
        while True:
            time.sleep(0.01)

    ref = f.remote(tmp_path / "began")
    until(tmp_path / "began")

    ray.cancel(ref)
    cancelled(ref)
    assert ray.get(same.remote(1)) == 1
    assert counter() == 2


def test_a_queued_task_that_is_forced() -> None:
    """``force`` of a task that does not run yet is as without."""
    ref = touch.remote("/nowhere", linger.remote(None, 5.0))

    ray.cancel(ref, force=True)
    cancelled(ref, (TaskCancelledError, WorkerCrashedError))


@pytest.mark.parametrize("recursive", [True, False])
def test_children(tmp_path, recursive) -> None:
    """What the task has submitted is cancelled, too, unless ``recursive`` is false."""

    @ray.remote(num_cpus=0)
    def child(path):
        path.with_suffix(".began").touch()
        deadline = time.monotonic() + (60 if recursive else 1)
        try:
            while time.monotonic() < deadline:
                time.sleep(0.01)
        except KeyboardInterrupt:
            path.with_suffix(".interrupted").touch()
            raise
        path.with_suffix(".ended").touch()

    @ray.remote
    def parent(path):
        refs = [child.remote(path)]
        while refs:
            time.sleep(0.01)

    ref = parent.remote(tmp_path / "child")
    until(tmp_path / "child.began")

    ray.cancel(ref, recursive=recursive)
    cancelled(ref)
    until(tmp_path / ("child.interrupted" if recursive else "child.ended"))


def test_grandchildren(tmp_path) -> None:
    """And so on."""

    @ray.remote(num_cpus=0)
    def chain(path, depth):
        if depth == 0:
            path.with_suffix(".began").touch()
            try:
                while True:
                    time.sleep(0.01)
            except KeyboardInterrupt:
                path.with_suffix(".interrupted").touch()
                raise
        return ray.get(chain.remote(path, depth - 1))

    ref = chain.remote(tmp_path / "c", 2)
    until(tmp_path / "c.began")

    ray.cancel(ref)
    cancelled(ref)
    until(tmp_path / "c.interrupted")


def test_children_of_a_task_that_has_ended_go_on(tmp_path) -> None:
    """Cancelling a task that has ended does not reach what it has submitted."""

    @ray.remote
    def parent():
        return [slow.remote(1.0, 7)]

    ref = parent.remote()
    (child,) = ray.get(ref)

    ray.cancel(ref)
    assert ray.get(child, timeout=30) == 7


def test_every_return_is_cancelled(tmp_path) -> None:
    """Cancelling one return of a task cancels all of them."""

    @ray.remote(num_returns=2)
    def f(path):
        path.touch()
        while True:
            time.sleep(0.01)

    first, second = f.remote(tmp_path / "began")
    until(tmp_path / "began")

    ray.cancel(second)
    cancelled(first)
    cancelled(second)


def test_what_depends_on_a_cancelled_task_has_no_value(tmp_path) -> None:
    """A task with a cancelled argument raises TaskCancelledError, and does not run."""
    argument = linger.remote(tmp_path / "began")
    dependent = touch.remote(tmp_path / "ran", argument)
    until(tmp_path / "began")

    ray.cancel(argument)
    cancelled(dependent)
    assert not (tmp_path / "ran").exists()


def test_a_cancelled_task_is_ready(tmp_path) -> None:
    """``wait`` has it among those that are ready."""
    ref = linger.remote(tmp_path / "began")
    until(tmp_path / "began")

    ray.cancel(ref)
    ready, rest = ray.wait([ref], timeout=30)
    assert (ready, rest) == ([ref], [])


def test_cancelled_as_soon_as_it_is_submitted() -> None:
    """A task that is cancelled at once is cancelled, or has run; nothing hangs."""
    refs = [same.remote(i) for i in range(200)]
    for ref in refs:
        ray.cancel(ref)

    for i, ref in enumerate(refs):
        try:
            assert ray.get(ref, timeout=30) == i
        except TaskCancelledError:
            pass
    assert ray.get([same.remote(i) for i in range(20)]) == [*range(20)]


def test_long_ones_cancelled_as_soon_as_they_are_submitted() -> None:
    """A cancel counts though it may be there before its task."""
    for _ in range(20):
        ref = linger.remote()
        ray.cancel(ref)
        cancelled(ref)


def test_cancelling_one_of_many_spares_the_others() -> None:
    """Only what is named is cancelled."""
    refs = [slow.remote(0.05, i) for i in range(20)]
    for ref in refs[::2]:
        ray.cancel(ref)

    assert ray.get(refs[1::2], timeout=40) == [*range(1, 20, 2)]


def test_await_of_a_cancelled_task(tmp_path) -> None:
    """``await`` raises TaskCancelledError, and not asyncio's CancelledError."""

    async def main():
        ref = linger.remote(tmp_path / "began")
        until(tmp_path / "began")
        ray.cancel(ref)
        with pytest.raises(TaskCancelledError):
            await ref

    asyncio.run(main())


def test_a_future_of_a_cancelled_task(tmp_path) -> None:
    """``future()`` has the error, and is not itself cancelled."""
    ref = linger.remote(tmp_path / "began")
    until(tmp_path / "began")

    ray.cancel(ref)
    future = ref.future()
    assert isinstance(future.exception(timeout=30), TaskCancelledError)
    assert not future.cancelled()


def test_giving_up_on_an_await_cancels_nothing() -> None:
    """An asyncio task that awaits a reference may be cancelled; what makes the value goes on."""

    async def main():
        ref = slow.remote(0.5, 3)

        async def wait():
            return await ref

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return await ref

    assert asyncio.run(main()) == 3


def test_cancelled_from_another_task(tmp_path) -> None:
    """A task can cancel what another process has submitted, whose reference it was given."""

    @ray.remote(num_cpus=0)
    def cancel(refs):
        ray.cancel(refs[0])

    ref = linger.remote(tmp_path / "began")
    until(tmp_path / "began")

    ray.get(cancel.remote([ref]))
    cancelled(ref)


def test_the_text_of_a_cancelled_task(tmp_path) -> None:
    """It says that the task was cancelled."""
    ref = linger.remote(tmp_path / "began")
    until(tmp_path / "began")

    ray.cancel(ref)
    assert "cancelled" in str(cancelled(ref))


@pytest.mark.parametrize("what", [None, 1, "text", [1]])
def test_only_references_can_be_cancelled(what) -> None:
    """Anything else is a TypeError."""
    with pytest.raises(TypeError):
        ray.cancel(what)


def test_a_handle_cannot_be_cancelled() -> None:
    """An actor is no task."""

    @ray.remote
    class Actor:
        pass

    with pytest.raises(TypeError):
        ray.cancel(Actor.remote())


def test_options_of_cancel_are_keywords() -> None:
    """``cancel(ref, True)`` is a TypeError."""
    with pytest.raises(TypeError):
        ray.cancel(same.remote(1), True)


def test_cancel_gives_nothing() -> None:
    """It does not wait, and returns None."""
    assert ray.cancel(same.remote(1)) is None


def test_a_put_value_cannot_be_cancelled() -> None:
    """Its value stays."""
    ref = ray.put(3)
    try:
        ray.cancel(ref)
    except Exception as error:
        pytest.fail(repr(error))
    assert ray.get(ref) == 3


# ---- actors --------------------------------------------------------------------------------


@ray.remote
class Plain:
    def go(self, path, seconds=60.0):
        Path(path).touch()
        time.sleep(seconds)
        return "gone"

    def ping(self):
        return os.getpid()

    def mark(self, path):
        Path(path).touch()


@ray.remote
class Async:
    async def go(self, path):
        path.with_suffix(".began").touch()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            path.with_suffix(".interrupted").touch()
            raise

    async def stubborn(self, path):
        path.with_suffix(".began").touch()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "stayed"

    async def ask(self, path):
        return await linger.remote(path)

    async def ping(self):
        return os.getpid()


def test_a_running_call_of_a_plain_actor_goes_on(tmp_path) -> None:
    """It is not interrupted, and its actor lives."""
    actor = Plain.remote()
    pid = ray.get(actor.ping.remote())
    ref = actor.go.remote(tmp_path / "began", 0.5)
    until(tmp_path / "began")

    ray.cancel(ref)
    try:
        assert ray.get(ref, timeout=30) == "gone"
    except TaskCancelledError:
        pass
    assert ray.get(actor.ping.remote()) == pid


def test_a_running_coroutine_is_cancelled(tmp_path) -> None:
    """It gets asyncio's CancelledError, and ``get`` raises TaskCancelledError."""
    actor = Async.remote()
    ref = actor.go.remote(tmp_path / "c")
    until(tmp_path / "c.began")

    ray.cancel(ref)
    cancelled(ref)
    until(tmp_path / "c.interrupted")
    ray.get(actor.ping.remote())


def test_a_coroutine_that_swallows_it(tmp_path) -> None:
    """One that returns all the same has been cancelled, or has its value; the actor goes on."""
    actor = Async.remote()
    ref = actor.stubborn.remote(tmp_path / "c")
    until(tmp_path / "c.began")

    ray.cancel(ref)
    try:
        assert ray.get(ref, timeout=30) == "stayed"
    except TaskCancelledError:
        pass
    ray.get(actor.ping.remote())


def test_what_a_coroutine_awaits_is_cancelled(tmp_path) -> None:
    """A cancelled call of an async actor cancels what it has submitted."""
    actor = Async.remote()
    ref = actor.ask.remote(tmp_path / "child")
    until(tmp_path / "child")

    ray.cancel(ref)
    cancelled(ref)


def test_a_queued_call_of_a_threaded_actor(tmp_path) -> None:
    """A call beyond the threads is dropped, and never runs."""
    actor = Plain.options(max_concurrency=2).remote()
    running = [actor.go.remote(tmp_path / str(i), 1.5) for i in range(2)]
    until(tmp_path / "0")
    until(tmp_path / "1")
    queued = actor.mark.remote(tmp_path / "ran")

    ray.cancel(queued)
    cancelled(queued)
    assert ray.get(running) == ["gone", "gone"]
    assert not (tmp_path / "ran").exists()


def test_a_finished_call_keeps_its_value() -> None:
    """Cancelling it does nothing."""
    actor = Plain.remote()
    ref = actor.ping.remote()
    pid = ray.get(ref)

    ray.cancel(ref)
    assert ray.get(ref) == pid


def test_many_calls_cancelled_as_soon_as_they_are_made() -> None:
    """Each is cancelled or has run, and the actor goes on."""
    actor = Plain.remote()
    pid = ray.get(actor.ping.remote())
    refs = [actor.ping.remote() for _ in range(100)]
    for ref in refs:
        ray.cancel(ref)

    for ref in refs:
        try:
            assert ray.get(ref, timeout=30) == pid
        except TaskCancelledError:
            pass
    assert ray.get(actor.ping.remote()) == pid


def test_a_call_of_an_actor_that_is_not_there_yet() -> None:
    """A call can be cancelled before its actor has been made."""

    @ray.remote
    class Slow:
        def __init__(self):
            time.sleep(1.0)

        def go(self):
            return 1

    actor = Slow.remote()
    first, second = actor.go.remote(), actor.go.remote()

    ray.cancel(first)
    cancelled(first)
    assert ray.get(second, timeout=40) == 1


# ---- calls and tasks below each other ------------------------------------------------------


def test_a_call_below_a_task(tmp_path) -> None:
    """A cancelled task cancels the calls of actors that it has made."""
    actor = Async.remote()
    ray.get(actor.ping.remote())

    @ray.remote
    def f(actor, path):
        ray.get(actor.go.remote(path))

    ref = f.remote(actor, tmp_path / "c")
    until(tmp_path / "c.began")

    ray.cancel(ref)
    cancelled(ref)
    until(tmp_path / "c.interrupted")


def test_a_task_below_a_call(tmp_path) -> None:
    """A cancelled call cancels the tasks that it has submitted."""

    @ray.remote(num_cpus=0)
    def child(path):
        path.with_suffix(".began").touch()
        try:
            while True:
                time.sleep(0.01)
        except KeyboardInterrupt:
            path.with_suffix(".interrupted").touch()
            raise

    @ray.remote
    class Parent:
        async def go(self, path):
            await child.remote(path)

    ref = Parent.remote().go.remote(tmp_path / "c")
    until(tmp_path / "c.began")

    ray.cancel(ref)
    cancelled(ref)
    until(tmp_path / "c.interrupted")


def test_a_call_below_a_call(tmp_path) -> None:
    """And the calls of other actors."""
    inner = Async.remote()

    @ray.remote
    class Outer:
        async def go(self, inner, path):
            await inner.go.remote(path)

    ref = Outer.remote().go.remote(inner, tmp_path / "c")
    until(tmp_path / "c.began")

    ray.cancel(ref)
    cancelled(ref)
    until(tmp_path / "c.interrupted")


def test_a_call_that_spares_what_is_below(tmp_path) -> None:
    """``recursive=False`` leaves it alone."""

    @ray.remote(num_cpus=0)
    def child(path):
        path.with_suffix(".began").touch()
        time.sleep(0.5)
        path.with_suffix(".ended").touch()

    @ray.remote
    class Parent:
        async def go(self, path):
            await child.remote(path)

    ref = Parent.remote().go.remote(tmp_path / "c")
    until(tmp_path / "c.began")

    ray.cancel(ref, recursive=False)
    cancelled(ref)
    until(tmp_path / "c.ended")


# ---- by others -----------------------------------------------------------------------------


@ray.remote(max_retries=0)
def linger_on_a_cpu(path):
    Path(path).touch()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.01)


@ray.remote(num_cpus=0, max_concurrency=2)
class Lingering:
    def linger(self, path):
        Path(path).touch()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if ray.get_runtime_context().is_canceled():
                return
            time.sleep(0.01)

    def one(self):
        return 1


@ray.remote(num_cpus=0)
def cancel_it(refs, **options):
    ray.cancel(refs[0], **options)


@ray.remote(num_cpus=0)
class Canceller:
    def cancel_it(self, refs, **options):
        ray.cancel(refs[0], **options)

    def cancel_when(self, refs, path):
        until(Path(path))
        ray.cancel(refs[0])


@pytest.fixture(scope="module")
def lingering(cluster):
    actor = Lingering.remote()
    assert ray.get(actor.one.remote()) == 1
    return actor


@pytest.fixture(scope="module")
def canceller(cluster):
    actor = Canceller.remote()
    assert ray.get(actor.cancel_it.remote([ray.put(1)])) is None
    return actor


def lingers(what, lingering, path):
    """Something that runs from now on."""
    ref = linger_on_a_cpu.remote(path) if what == "task" else lingering.linger.remote(path)
    until(path)
    return ref


@pytest.mark.parametrize("by", ["task", "actor"])
@pytest.mark.parametrize("what", ["task", "call"])
def test_whoever_has_a_reference_may_cancel(what, by, lingering, canceller, tmp_path) -> None:
    """A task or call that runs, by a task or actor to which its reference was passed."""
    assert ray.get(same.options(num_cpus=1).remote(1)) == 1
    method = cancel_it if by == "task" else canceller.cancel_it
    for number in range(2):
        ref = lingers(what, lingering, tmp_path / str(number))
        ray.get(method.remote([ref]), timeout=40)
        cancelled(ref)


def test_whoever_has_a_reference_may_cancel_with_force(canceller, tmp_path) -> None:
    """A task whose worker is killed then."""
    for number in range(2):
        ref = lingers("task", None, tmp_path / str(number))
        ray.get(canceller.cancel_it.remote([ref], force=True), timeout=40)
        with pytest.raises((TaskCancelledError, WorkerCrashedError)):
            ray.get(ref, timeout=40)


@pytest.mark.parametrize("what", ["task", "call"])
def test_who_has_submitted_it_need_not_wait(what, lingering, canceller, tmp_path) -> None:
    """A task that is busy has what it has submitted cancelled by others, too."""

    @ray.remote(num_cpus=0)
    def outer(lingering, canceller):
        running = tmp_path / "running"
        ref = (
            linger_on_a_cpu.remote(running) if what == "task" else lingering.linger.remote(running)
        )
        asked = canceller.cancel_when.remote([ref], running)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if ray.wait([asked], timeout=0)[0]:
                break
        try:
            ray.get(ref, timeout=30)
        except TaskCancelledError:
            return "cancelled"

    assert ray.get(outer.remote(lingering, canceller), timeout=50) == "cancelled"


@pytest.mark.parametrize("what", ["task", "call", "put"])
def test_what_has_ended_stays(what, lingering, canceller) -> None:
    """A cancel of that by others changes nothing."""
    made = {"task": lambda: same.remote(1), "call": lingering.one.remote, "put": lambda: ray.put(1)}
    ref = made[what]()
    assert ray.get(ref) == 1
    assert ray.get(canceller.cancel_it.remote([ref]), timeout=40) is None
    assert ray.get(cancel_it.remote([ref], force=what == "task"), timeout=40) is None
    assert ray.get(ref, timeout=40) == 1
