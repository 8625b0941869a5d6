"""Ends of actors: killed, crashed, left, out of handles, restarted; and what their callers get."""

from __future__ import annotations

import logging.handlers
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import zray
from tests.api.conftest import Run, eventually
from zray import limits
from zray.errors import ActorDiedError, ActorError, ActorUnavailableError, TaskError
from zray.exceptions import RayActorError
from zray.runtime import session

pytestmark = pytest.mark.usefixtures("cluster")

GET_S = 20.0  # a test that waits longer for a value has failed


@zray.actor
class Fragile:
    def __init__(self, start: int = 0) -> None:
        self.n = start

    def add(self, n: int = 1) -> int:
        self.n += n
        return self.n

    def pid(self) -> int:
        return os.getpid()

    def crash(self, code: int = 7) -> None:
        os._exit(code)

    def hang(self, path: str) -> None:
        open(path, "w").close()
        time.sleep(1000)

    def leave(self) -> None:
        zray.exit_actor()

    def restarted(self) -> bool:
        return zray.get_runtime_context().was_current_actor_reconstructed

    def once_per_call(self, count: Callable[[], int], survives_from: int) -> int:
        """Crashes in the first calls."""
        calls = count()
        if calls < survives_from:
            os._exit(1)
        return calls


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid)


def died(ref: Any) -> ActorDiedError:
    with pytest.raises(ActorDiedError) as caught:
        zray.get(ref, timeout=GET_S)
    return caught.value


# ---- death ---------------------------------------------------------------------------------


def test_a_method_that_ends_the_process() -> None:
    handle = Fragile.remote()
    crash = handle.crash.remote(7)
    error = died(crash)
    assert isinstance(error, ActorError) and isinstance(error, RayActorError)
    assert error.maybe_executed and error.actor_id == handle._actor_id.hex()
    assert "Fragile" in str(error) and "7" in str(error)
    late = died(handle.add.remote())
    assert not late.maybe_executed and "7" in str(late)
    assert late.actor_id == handle._actor_id.hex()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_a_signal_ends(tmp_path: Path, number: int) -> None:
    handle = Fragile.remote()
    pid = zray.get(handle.pid.remote())
    running = handle.hang.remote(str(tmp_path / "hangs"))
    eventually(lambda: (tmp_path / "hangs").exists())
    os.kill(pid, number)
    error = died(running)
    assert error.maybe_executed and signal.Signals(number).name in str(error)
    assert not died(handle.add.remote()).maybe_executed


def test_all_that_was_called_ends_with_the_actor() -> None:
    handle = Fragile.remote()
    before = [handle.add.remote() for _ in range(50)]
    zray.get(before)
    refs = [handle.crash.remote(), *(handle.add.remote() for _ in range(50))]
    for ref in refs:
        died(ref)
    assert zray.get(before, timeout=GET_S) == list(range(1, 51))  # results are kept


def test_a_constructor_that_raises() -> None:
    @zray.actor
    class Broken:
        def __init__(self, text: str) -> None:
            raise ValueError(text)

        def f(self) -> None: ...

    handle = Broken.remote("the constructor's reason")
    for ref in (handle.f.remote(), handle.__ray_ready__.remote()):
        error = died(ref)
        assert isinstance(error.cause, ValueError) and not error.maybe_executed
        assert "the constructor's reason" in str(error)
    restartable = Broken.options(max_restarts=-1).remote("no restart helps")
    assert isinstance(died(restartable.f.remote()).cause, ValueError)


def test_a_constructor_that_ends_the_process() -> None:
    @zray.actor
    class Exits:
        def __init__(self) -> None:
            os._exit(9)

        def f(self) -> None: ...

    error = died(Exits.remote().f.remote())
    assert "9" in str(error) and error.cause is None


def test_a_constructor_argument_that_failed() -> None:
    @zray.remote
    def fail() -> int:
        raise KeyError("of the argument")

    error = died(Fragile.remote(fail.remote()).add.remote())
    assert "of the argument" in str(error)


def test_sys_exit_in_a_method_is_an_error_of_that_call() -> None:
    handle = Fragile.remote()

    def leave(self: Any) -> None:
        raise SystemExit(3)

    with pytest.raises((TaskError, ActorDiedError)):
        zray.get(handle.__ray_call__.remote(leave), timeout=GET_S)


# ---- kill and leave ------------------------------------------------------------------------


def test_kill(tmp_path: Path) -> None:
    handle = Fragile.remote()
    pid = zray.get(handle.pid.remote())
    running, waiting = handle.hang.remote(str(tmp_path / "hangs")), handle.add.remote()
    eventually(lambda: (tmp_path / "hangs").exists())
    zray.kill(handle)
    assert died(running).maybe_executed
    died(waiting)
    eventually(lambda: gone(pid))
    assert "kill" in str(died(handle.add.remote()))
    zray.kill(handle)  # it is dead already


def test_kill_before_it_started() -> None:
    handle = Fragile.remote()
    ref = handle.add.remote()
    zray.kill(handle)
    died(ref)


def test_kill_ends_a_restartable_actor_for_good() -> None:
    handle = Fragile.options(max_restarts=-1, max_task_retries=-1).remote()
    zray.get(handle.add.remote())
    zray.kill(handle)
    died(handle.add.remote())


def test_kill_with_a_restart() -> None:
    handle = Fragile.options(max_restarts=1, max_task_retries=-1).remote()
    zray.get(handle.add.remote(5))
    pid = zray.get(handle.pid.remote())
    zray.kill(handle, no_restart=False)
    eventually(lambda: gone(pid))
    assert zray.get(handle.add.remote(), timeout=GET_S) == 1


@pytest.mark.parametrize("max_restarts", [0, -1])
def test_exit_actor(max_restarts: int) -> None:
    handle = Fragile.options(max_restarts=max_restarts).remote()
    pid = zray.get(handle.pid.remote())
    before, leave, after = handle.add.remote(), handle.leave.remote(), handle.add.remote()
    assert zray.get(before) == 1
    assert "exit_actor" in str(died(leave))
    died(after)
    eventually(lambda: gone(pid))


def test_exit_actor_of_an_async_actor() -> None:
    @zray.actor
    class Async:
        async def leave(self) -> None:
            zray.actor.exit_actor()

        async def pid(self) -> int:
            return os.getpid()

    handle = Async.remote()
    pid = zray.get(handle.pid.remote())
    died(handle.leave.remote())
    eventually(lambda: gone(pid))


def test_terminate_comes_after_the_calls_before_it() -> None:
    handle = Fragile.remote()
    pid = zray.get(handle.pid.remote())
    refs = [handle.add.remote() for _ in range(20)]
    end = handle.__ray_terminate__.remote()
    assert zray.get(refs) == list(range(1, 21))
    died(end)
    eventually(lambda: gone(pid))


# ---- the last handle -----------------------------------------------------------------------


def test_an_actor_ends_with_its_last_handle() -> None:
    handle = Fragile.remote()
    pid = zray.get(handle.pid.remote())
    other = handle
    del handle
    assert zray.get(other.add.remote()) == 1
    del other
    eventually(lambda: gone(pid))


def test_an_actor_ends_with_its_last_handle_though_its_driver_idles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And does not wait until the driver has something else to say."""
    driver: Any = session.current()
    monkeypatch.setattr("zray.nodes.driver.driver.COLLECT_S", 600.0)
    monkeypatch.setattr(limits, "PING_S", 600.0)
    driver._ping_at = driver._collect_at = time.monotonic() + 600.0
    handle = Fragile.remote()
    pid = zray.get(handle.pid.remote())
    del handle
    eventually(lambda: gone(pid))
    driver._ping_at = driver._collect_at = time.monotonic()


def test_calls_made_before_the_last_handle_went_are_answered() -> None:
    assert zray.get(Fragile.remote(4).add.remote(), timeout=GET_S) == 5
    handle = Fragile.remote()
    refs = [handle.add.remote() for _ in range(200)]
    del handle
    assert zray.get(refs, timeout=GET_S) == list(range(1, 201))


def test_a_handle_inside_an_object_keeps_the_actor() -> None:
    handle = Fragile.remote()
    pid = zray.get(handle.pid.remote())
    box = zray.put({"handle": handle})
    del handle
    assert zray.get(zray.get(box)["handle"].add.remote()) == 1
    assert not gone(pid)
    del box
    eventually(lambda: gone(pid))


def test_a_handle_inside_another_actor_keeps_the_actor() -> None:
    @zray.actor
    class Keeper:
        def __init__(self, kept: Any) -> None:
            self.kept = kept

        def use(self) -> int:
            return zray.get(self.kept.add.remote())

        def forget(self) -> None:
            self.kept = None

    handle = Fragile.remote()
    pid = zray.get(handle.pid.remote())
    keeper = Keeper.remote(handle)
    zray.get(keeper.use.remote())
    del handle
    assert zray.get([keeper.use.remote() for _ in range(5)]) == [2, 3, 4, 5, 6]
    zray.get(keeper.forget.remote())
    eventually(lambda: gone(pid))


def test_an_actor_that_uses_its_own_handle_ends_too() -> None:
    @zray.actor
    class Own:
        def pid(self) -> int:
            assert zray.get_runtime_context().current_actor is not None
            return os.getpid()

    handle = Own.remote()
    pid = zray.get(handle.pid.remote())
    del handle
    eventually(lambda: gone(pid))


def test_a_named_actor_ends_with_its_last_handle_too() -> None:
    handle = Fragile.options(name="short-lived").remote()
    pid = zray.get(handle.pid.remote())
    del handle
    eventually(lambda: gone(pid))
    eventually(lambda: "short-lived" not in zray.util.list_named_actors())


def test_a_detached_actor_stays_until_it_is_killed() -> None:
    handle = Fragile.options(name="stays", lifetime="detached").remote()
    pid = zray.get(handle.pid.remote())
    del handle
    for _ in range(20):  # whatever would end it passes by
        zray.get(Fragile.remote().add.remote())
    assert not gone(pid)
    assert zray.get(zray.get_actor("stays").pid.remote()) == pid
    zray.kill(zray.get_actor("stays"))
    eventually(lambda: gone(pid))


def test_an_actor_ends_with_the_actor_that_made_it() -> None:
    @zray.actor
    class Parent:
        def __init__(self) -> None:
            self.child = Fragile.remote()

        def child_pid(self) -> int:
            return zray.get(self.child.pid.remote())

        def give(self) -> Any:
            return self.child

    parent = Parent.remote()
    pid = zray.get(parent.child_pid.remote())
    child = zray.get(parent.give.remote())
    assert zray.get(child.add.remote()) == 1
    zray.kill(parent)
    eventually(lambda: gone(pid))
    died(child.add.remote())


# ---- restarts ------------------------------------------------------------------------------


def test_a_restart_runs_the_constructor_again() -> None:
    handle = Fragile.options(max_restarts=1).remote(10)
    assert zray.get(handle.add.remote()) == 11
    assert zray.get(handle.restarted.remote()) is False
    with pytest.raises(ActorUnavailableError) as caught:
        zray.get(handle.crash.remote(), timeout=GET_S)
    assert caught.value.maybe_executed and "Fragile" in str(caught.value)
    assert zray.get(handle.add.options(max_task_retries=1).remote(), timeout=GET_S) == 11
    assert zray.get(handle.restarted.remote()) is True
    error = died(handle.crash.remote())  # the budget is used up
    assert error.maybe_executed
    died(handle.add.remote())


def test_an_actor_may_be_restarted_without_end() -> None:
    handle = Fragile.options(max_restarts=-1).remote()
    for _ in range(3):
        with pytest.raises(ActorUnavailableError) as caught:
            zray.get(handle.crash.remote(), timeout=GET_S)
        assert caught.value.maybe_executed
        assert zray.get(handle.add.options(max_task_retries=1).remote(), timeout=GET_S) == 1


def test_a_call_that_may_not_be_repeated_does_not_wait_for_a_restart(tmp_path: Path) -> None:
    @zray.actor(max_restarts=1)
    class Slow:
        def __init__(self, path: str) -> None:
            with open(path, "a") as file:
                file.write("made\n")
            while os.path.getsize(path) > 5 and not os.path.exists(path + "-go"):
                time.sleep(0.01)

        def pid(self) -> int:
            return os.getpid()

        def crash(self) -> None:
            os._exit(3)

    path = tmp_path / "made"
    handle = Slow.remote(str(path))
    zray.get(handle.pid.remote())
    with pytest.raises(ActorUnavailableError) as caught:
        zray.get(handle.crash.remote(), timeout=GET_S)
    assert caught.value.maybe_executed
    with pytest.raises(ActorUnavailableError, match="did not run") as caught:
        zray.get(handle.pid.remote(), timeout=GET_S)  # while its constructor does not end
    assert not caught.value.maybe_executed
    waits = handle.pid.options(max_task_retries=1).remote()
    (tmp_path / "made-go").touch()
    assert zray.get(waits, timeout=GET_S)


def test_a_call_is_repeated_only_where_that_is_allowed(counter: Callable[[], int]) -> None:
    handle = Fragile.options(max_restarts=2, max_task_retries=2).remote()
    assert zray.get(handle.once_per_call.remote(counter, 3), timeout=GET_S) == 3
    cautious = handle.once_per_call.options(max_task_retries=0)
    with pytest.raises(ActorError):
        zray.get(cautious.remote(counter, 100), timeout=GET_S)
    assert counter() == 5


def test_retries_of_one_call_are_limited(counter: Callable[[], int]) -> None:
    handle = Fragile.options(max_restarts=-1, max_task_retries=1).remote()
    with pytest.raises(ActorUnavailableError):
        zray.get(handle.once_per_call.remote(counter, 100), timeout=GET_S)
    assert counter() == 3
    assert zray.get(handle.add.remote(), timeout=GET_S) == 1


def test_repeated_calls_keep_their_order(tmp_path: Path) -> None:
    @zray.actor(max_restarts=-1, max_task_retries=-1)
    class Ledger:
        def __init__(self, path: str) -> None:
            self.path = path

        def write(self, i: int) -> int:
            with open(self.path, "a") as file:
                file.write(f"{i}\n")
            return i

        def pid(self) -> int:
            return os.getpid()

    path = tmp_path / "ledger"
    path.touch()
    handle = Ledger.remote(str(path))
    refs = []
    for round_ in range(3):
        pid = zray.get(handle.pid.remote(), timeout=GET_S)
        refs += [handle.write.remote(round_ * 100 + i) for i in range(100)]
        eventually(lambda least=round_ * 100: len(path.read_text().split()) > least)
        os.kill(pid, signal.SIGKILL)
    assert zray.get(refs, timeout=GET_S) == list(range(300))
    written = [int(line) for line in path.read_text().split()]
    first = list(dict.fromkeys(written))
    assert first == sorted(first) == list(range(300))  # each for the first time in order


def test_a_named_actor_keeps_its_name_through_a_restart() -> None:
    handle = Fragile.options(max_restarts=1, name="reborn").remote()
    pid = zray.get(handle.pid.remote())
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: gone(pid))
    found = zray.get_actor("reborn")

    def answers() -> bool:
        try:
            return bool(zray.get(found.pid.remote(), timeout=GET_S) != pid)
        except ActorUnavailableError:
            return False

    eventually(answers)
    assert found == handle


# ---- resources and drivers -----------------------------------------------------------------


def test_a_dead_actor_gives_back_what_it_kept() -> None:
    handles = [Fragile.options(num_cpus=1).remote() for _ in range(2)]
    zray.get([handle.add.remote() for handle in handles])
    assert zray.available_resources().get("CPU", 0) == 0
    zray.kill(handles[0])
    died(handles[1].crash.remote())
    eventually(lambda: zray.available_resources().get("CPU", 0) == 2)


def test_actors_end_with_their_driver(run: Run) -> None:
    done = run(
        """
        zray.init(sys.argv[1])

        @zray.actor
        class Actor:
            def pid(self):
                return os.getpid()

        actors = [Actor.remote() for _ in range(3)]
        print(*zray.get([actor.pid.remote() for actor in actors]))
        """,
        zray.get_runtime_context().gcs_address,
    )
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 3
    eventually(lambda: all(map(gone, pids)))


def test_what_logging_has_kept_is_written_at_a_planned_end(tmp_path: Path) -> None:
    path = tmp_path / "log"

    @zray.remote
    class Logs:
        def __init__(self) -> None:
            kept = logging.handlers.MemoryHandler(100, target=logging.FileHandler(path))
            logging.getLogger("kept").addHandler(kept)

        def log(self) -> None:
            logging.getLogger("kept").warning("the last word")

    actor = Logs.remote()
    zray.get(actor.log.remote())
    assert not path.read_text()
    del actor
    eventually(lambda: path.read_text() == "the last word\n")
