"""Contracts of how actors end, what runs then, and of handles that keep nothing alive."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import pathlib
import sys
import threading
import time

import psutil
import pytest
import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    RayActorError,
    TaskCancelledError,
)

pytestmark = pytest.mark.usefixtures("cluster")


def note(path, word) -> None:
    with open(path, "a") as file:
        file.write(word + "\n")


def notes(path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def wait_for(condition, seconds=30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def gone(pid) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Noting:
    """Notes in a file what runs at its end."""

    def __init__(self, path):
        self.path = str(path)
        atexit.register(note, self.path, "atexit")

    def __ray_shutdown__(self):
        note(self.path, "shutdown")

    def pid(self):
        return os.getpid()

    def stay(self, seconds):
        note(self.path, "stays")
        time.sleep(seconds)
        note(self.path, "stayed")
        return seconds

    def exit_actor(self):
        ray.actor.exit_actor()

    def sys_exit(self, *code):
        sys.exit(*code)

    def exit_in_a_thread(self):
        thread = threading.Thread(target=sys.exit)
        thread.start()
        thread.join()
        return "alive"


class AsyncNoting(Noting):
    async def pid(self):
        return os.getpid()

    async def stay(self, seconds):
        note(self.path, "stays")
        await asyncio.sleep(seconds)
        note(self.path, "stayed")
        return seconds

    async def exit_actor(self):
        ray.actor.exit_actor()

    async def exit_in_a_thread(self):
        return Noting.exit_in_a_thread(self)


KINDS = {
    "plain": ray.remote(Noting),
    "threaded": ray.remote(max_concurrency=3)(Noting),
    "async": ray.remote(AsyncNoting),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def ended_with(path, pid, *words) -> None:
    """The process is gone, and that was noted; nothing else is."""
    wait_for(lambda: gone(pid))
    assert {*notes(path)} - {"stays", "stayed"} == {*words}


# ---- what runs at an end -------------------------------------------------------------------


@every_kind
def test_the_last_handle_is_gone(kind, tmp_path) -> None:
    """``__ray_shutdown__`` and the ``atexit`` handlers run."""
    actor = KINDS[kind].remote(tmp_path / "notes")
    pid = ray.get(actor.pid.remote())
    del actor
    ended_with(tmp_path / "notes", pid, "shutdown", "atexit")


@every_kind
def test_exit_actor(kind, tmp_path) -> None:
    """The handlers run; the call and the later ones are ActorDiedErrors."""
    actor = KINDS[kind].remote(tmp_path / "notes")
    pid = ray.get(actor.pid.remote())
    with pytest.raises(ActorDiedError):
        ray.get(actor.exit_actor.remote(), timeout=40)
    ended_with(tmp_path / "notes", pid, "shutdown", "atexit")
    with pytest.raises(ActorDiedError):
        ray.get(actor.pid.remote(), timeout=40)


@every_kind
def test_ray_terminate(kind, tmp_path) -> None:
    """The handlers run."""
    actor = KINDS[kind].remote(tmp_path / "notes")
    pid = ray.get(actor.pid.remote())
    actor.__ray_terminate__.remote()
    ended_with(tmp_path / "notes", pid, "shutdown", "atexit")


@pytest.mark.parametrize("way", ["caught", "thread"])
def test_who_has_called_exit_actor_cannot_take_it_back(way, tmp_path) -> None:
    """The actor ends even if what that raises is caught, or ends a thread."""

    @ray.remote
    class Stubborn(Noting):
        def leave(self):
            try:
                ray.actor.exit_actor()
            except BaseException:
                return "caught"

        def leave_in_a_thread(self):
            thread = threading.Thread(target=self.leave)
            thread.start()
            thread.join()
            return "left"

    actor = Stubborn.remote(tmp_path / "notes")
    pid = ray.get(actor.pid.remote())
    if way == "caught":
        with pytest.raises(RayActorError):
            ray.get(actor.leave.remote(), timeout=40)
    else:
        assert ray.get(actor.leave_in_a_thread.remote(), timeout=40) == "left"
    ended_with(tmp_path / "notes", pid, "shutdown", "atexit")


def test_kill_runs_nothing(tmp_path) -> None:
    """Neither ``__ray_shutdown__`` nor ``atexit`` handlers."""
    actor = KINDS["plain"].remote(tmp_path / "notes")
    pid = ray.get(actor.pid.remote())
    ray.kill(actor)
    ended_with(tmp_path / "notes", pid)


def test_a_shutdown_that_raises(tmp_path) -> None:
    """The ``atexit`` handlers run all the same."""

    @ray.remote
    class Raising(Noting):
        def __ray_shutdown__(self):
            raise ValueError("in the shutdown")

    actor = Raising.remote(tmp_path / "notes")
    pid = ray.get(actor.pid.remote())
    del actor
    ended_with(tmp_path / "notes", pid, "atexit")


# ---- calls beside an end -------------------------------------------------------------------


def test_calls_before_terminate_are_answered(tmp_path) -> None:
    """``__ray_terminate__`` waits for them; those after it fail."""
    actor = KINDS["plain"].remote(tmp_path / "notes")
    before = [actor.stay.remote(0.2) for _ in range(4)]
    actor.__ray_terminate__.remote()
    after = actor.stay.remote(0)

    assert ray.get(before) == [0.2] * 4
    with pytest.raises(ActorDiedError):
        ray.get(after, timeout=40)


@pytest.mark.parametrize("kind", ["threaded", "async"])
def test_calls_that_run_beside_an_exit_are_answered(kind, tmp_path) -> None:
    """The actor ends after them."""
    path = tmp_path / "notes"
    actor = KINDS[kind].remote(path)
    running = actor.stay.remote(2)
    wait_for(lambda: notes(path))
    end = actor.exit_actor.remote()

    assert ray.get(running, timeout=40) == 2
    with pytest.raises(RayActorError):
        ray.get(end, timeout=40)
    assert "stayed" in notes(path)


def test_calls_before_the_last_handle_goes_are_answered(tmp_path) -> None:
    """The actor ends after them."""
    actor = KINDS["plain"].remote(tmp_path / "notes")
    refs = [actor.stay.remote(0.2) for _ in range(4)]
    del actor

    assert ray.get(refs) == [0.2] * 4


# ---- sys.exit ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "threaded"])
@pytest.mark.parametrize("code", [(), (0,), (3,), ("words",)], ids=["none", "0", "3", "text"])
def test_sys_exit_in_a_method(kind, code, tmp_path) -> None:
    """It ends the actor: the call and the later ones are ActorDiedErrors."""
    actor = KINDS[kind].remote(tmp_path / "notes")
    pid = ray.get(actor.pid.remote())
    with pytest.raises(ActorDiedError):
        ray.get(actor.sys_exit.remote(*code), timeout=40)
    wait_for(lambda: gone(pid))
    with pytest.raises(ActorDiedError):
        ray.get(actor.pid.remote(), timeout=40)


@every_kind
def test_sys_exit_in_a_thread_of_the_users(kind, tmp_path) -> None:
    """It ends that thread only."""
    actor = KINDS[kind].remote(tmp_path / "notes")
    assert ray.get(actor.exit_in_a_thread.remote(), timeout=40) == "alive"
    assert ray.get(actor.stay.remote(0)) == 0


def test_exit_actor_is_no_failure(tmp_path) -> None:
    """``max_restarts`` does not bring the actor back."""
    actor = KINDS["plain"].options(max_restarts=-1).remote(tmp_path / "notes")
    ray.get(actor.pid.remote())
    with pytest.raises(ActorDiedError):
        ray.get(actor.exit_actor.remote(), timeout=40)
    with pytest.raises(ActorDiedError):
        ray.get(actor.pid.remote(), timeout=40)


@pytest.mark.parametrize("kind", ["plain", "threaded"])
@pytest.mark.parametrize("code", [(), (3,), ("words",)], ids=["none", "3", "text"])
def test_sys_exit_in_a_method_is_a_failure(kind, code, tmp_path) -> None:
    """But for a status of 0: the actor starts again, as its ``max_restarts`` allows."""
    actor = KINDS[kind].options(max_restarts=1).remote(tmp_path / "notes")
    pid = ray.get(actor.pid.remote())
    with pytest.raises(ActorUnavailableError):
        ray.get(actor.sys_exit.remote(*code), timeout=40)
    wait_for(lambda: notes(tmp_path / "notes") == ["shutdown", "atexit"])
    assert ray.get(actor.pid.options(max_task_retries=-1).remote(), timeout=40) != pid


@pytest.mark.parametrize("kind", ["plain", "threaded"])
def test_sys_exit_with_0_is_no_failure(kind, tmp_path) -> None:
    """``max_restarts`` does not bring the actor back."""
    actor = KINDS[kind].options(max_restarts=1).remote(tmp_path / "notes")
    ray.get(actor.pid.remote())
    with pytest.raises(ActorDiedError):
        ray.get(actor.sys_exit.remote(0), timeout=40)
    with pytest.raises(ActorDiedError):
        ray.get(actor.pid.remote(), timeout=40)


# ---- constructors --------------------------------------------------------------------------


def leave(way) -> None:
    if way == "exit_actor":
        ray.actor.exit_actor()
    elif way == "caught":
        with contextlib.suppress(SystemExit):
            ray.actor.exit_actor()
    elif way == "raises":
        raise ValueError("raised")
    elif way == "crash":
        os._exit(1)
    elif way != "lives":
        sys.exit(way)


class Beginning(Noting):
    """Its constructors end so, one after the other; the last way stays."""

    def __init__(self, path, *ways):
        super().__init__(path)
        note(path, "begun")
        leave([*ways, *ways[-1:] * 9][notes(pathlib.Path(path)).count("begun") - 1])


def begin(path, *ways, **options):
    return ray.remote(Beginning).options(**options).remote(path, *ways)


@pytest.mark.parametrize("restarts", [0, 2])
@pytest.mark.parametrize("way", ["exit_actor", "caught", 0, "raises"])
def test_a_constructor_that_ends_the_actor_for_good(way, restarts, tmp_path) -> None:
    """Whatever its ``max_restarts``; what runs at an end runs, on what there is of the instance."""
    actor = begin(tmp_path / "notes", way, max_restarts=restarts)
    with pytest.raises(ActorDiedError):
        ray.get(actor.pid.remote(), timeout=40)
    wait_for(lambda: notes(tmp_path / "notes")[1:] == ["shutdown", "atexit"])
    with pytest.raises(ActorDiedError):
        ray.get(actor.pid.remote(), timeout=40)


@pytest.mark.parametrize("way", [None, 3, "words"])
def test_sys_exit_in_a_constructor_is_a_failure(way, tmp_path) -> None:
    """The actor starts again, after what runs at an end."""
    actor = begin(tmp_path / "notes", way, "lives", max_restarts=1)
    assert ray.get(actor.pid.options(max_task_retries=-1).remote(), timeout=40)
    assert notes(tmp_path / "notes") == ["begun", "shutdown", "atexit", "begun"]


def test_failures_of_a_constructor_use_up_max_restarts(tmp_path) -> None:
    """Then the actor is dead."""
    actor = begin(tmp_path / "notes", 3, max_restarts=2)
    with pytest.raises(ActorDiedError):
        ray.get(actor.pid.options(max_task_retries=-1).remote(), timeout=40)
    wait_for(lambda: notes(tmp_path / "notes") == ["begun", "shutdown", "atexit"] * 3)


def test_a_call_waits_for_an_actor_whose_first_constructor_crashes(tmp_path) -> None:
    """It was not sent, so it needs no retry; nothing runs at such an end."""
    actor = begin(tmp_path / "notes", "crash", "lives", max_restarts=1)
    assert ray.get(actor.pid.remote(), timeout=40)
    assert notes(tmp_path / "notes") == ["begun"] * 2


# ---- handles -------------------------------------------------------------------------------


@ray.remote
class Named:
    def pid(self):
        return os.getpid()

    def back(self, handle):
        return handle


def test_a_handle_that_was_found_keeps_nothing_alive() -> None:
    """The actor ends with the last handle that ``get_actor`` did not give."""
    actor = Named.options(name="ends").remote()
    pid = ray.get(actor.pid.remote())
    found = ray.get_actor("ends")
    del actor
    wait_for(lambda: gone(pid))
    with pytest.raises(ActorDiedError):
        ray.get(found.pid.remote(), timeout=40)


def test_a_handle_of_one_that_was_there_keeps_nothing_alive() -> None:
    """``get_if_exists`` has then but found it."""
    make = Named.options(name="there", get_if_exists=True)
    actor = make.remote()
    pid = ray.get(actor.pid.remote())
    found = make.remote()
    assert found == actor and ray.get(found.pid.remote()) == pid
    del found
    assert ray.get(actor.pid.remote()) == pid
    found = make.remote()
    del actor
    wait_for(lambda: gone(pid))
    with pytest.raises(ActorDiedError):
        ray.get(found.pid.remote(), timeout=40)


def test_a_handle_that_was_found_equals_the_other() -> None:
    """And is of one hash."""
    actor = Named.options(name="equal").remote()
    found = ray.get_actor("equal")
    assert found == actor and hash(found) == hash(actor)
    assert {actor: 1}[found] == 1
    assert actor != 1 and actor is not None


def test_a_detached_actor_needs_no_handle() -> None:
    """A found handle calls it."""
    actor = Named.options(name="stays", lifetime="detached").remote()
    pid = ray.get(actor.pid.remote())
    del actor
    found = ray.get_actor("stays")
    assert ray.get(found.pid.remote()) == pid
    ray.kill(found)


def test_methods_are_what_dir_lists() -> None:
    """Those of the class, and what every actor has."""
    listed = {*dir(Named.remote())}
    assert {"pid", "back", "__ray_ready__", "__ray_call__", "__ray_terminate__"} <= (listed)


# ---- cancelling calls ----------------------------------------------------------------------


@ray.remote
class Waiting:
    def until_canceled(self, path):
        note(path, "runs")
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if ray.get_runtime_context().is_canceled():
                return "canceled"
            time.sleep(0.01)
        return "not canceled"

    def stay(self, seconds):
        time.sleep(seconds)
        return seconds


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_running_call_can_see_that_it_is_cancelled(concurrency, tmp_path) -> None:
    """``get_runtime_context().is_canceled()``, in plain and threaded actors; its result is lost."""
    path = tmp_path / "notes"
    actor = Waiting.options(max_concurrency=concurrency).remote()
    ref = actor.until_canceled.remote(path)
    wait_for(lambda: notes(path))
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=40)


def test_what_a_cancelled_coroutine_makes_of_that_is_lost(tmp_path) -> None:
    """It gets ``asyncio.CancelledError``; whatever it returns, the call is a TaskCancelledError."""

    @ray.remote
    class Swallowing:
        async def stay(self, path):
            note(path, "runs")
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                note(path, "cancelled")
            return "value"

    path = tmp_path / "notes"
    actor = Swallowing.remote()
    ref = actor.stay.remote(path)
    wait_for(lambda: notes(path))
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=40)
    assert notes(path) == ["runs", "cancelled"]


def test_force_is_refused_for_calls() -> None:
    """``cancel(force=True)`` of an actor's call is a ValueError, and it goes on."""
    actor = Waiting.remote()
    ref = actor.stay.remote(1)
    with pytest.raises(ValueError, match="force"):
        ray.cancel(ref, force=True)
    assert ray.get(ref) == 1


def test_a_call_that_waits_in_line_is_cancelled() -> None:
    """It does not run; the one before it does."""
    actor = Waiting.remote()
    first, second = actor.stay.remote(1), actor.stay.remote(2)
    ray.cancel(second)
    with pytest.raises(TaskCancelledError):
        ray.get(second, timeout=40)
    assert ray.get(first) == 1
