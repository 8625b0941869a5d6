"""``init(local_mode=True)``: tasks and actors in the program's own process, for a debugger."""

from __future__ import annotations

import asyncio
import decimal
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

import zray
from tests.api.conftest import Run, Script
from zray.errors import (
    ActorDiedError,
    ClusterShutdownError,
    GetTimeoutError,
    PlacementGroupExistsError,
    ReentrantCallError,
    SerializationError,
    TaskCancelledError,
    TaskError,
    TaskPlacementGroupRemoved,
    ZrayError,
)
from zray.experimental import tqdm_ray
from zray.util import (
    get_current_placement_group,
    get_placement_group,
    kv,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from zray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

CONTRACTS = (
    *("tasks", "actors", "exceptions", "generators", "serialization", "containers", "ids"),
)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def local() -> Iterator[None]:
    """Local mode, which is left after the test."""
    with zray.init(local_mode=True, num_cpus=2, resources={"token": 1.0}):
        yield


@zray.remote
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value

    def add_twice(self, me: zray.ActorHandle[object]) -> list[zray.ObjectRef[int]]:
        return [me.add.remote(), me.add.remote()]

    def waits_for_itself(self, me: zray.ActorHandle[object]) -> int:
        return zray.get(me.add.remote())

    def numbers(self, count: int) -> Iterator[int]:
        for number in range(count):
            self.value += 1
            yield number


@zray.remote
class Gate:
    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def passes(self) -> str:
        await self.event.wait()
        return "through"

    async def open(self) -> None:
        self.event.set()


# ---- for the debugger ------------------------------------------------------------------------


def test_a_breakpoint_stops_in_the_program(script: Script) -> None:
    """The stack has the caller, whose variables can be seen; so in an actor's method."""
    path = script(
        """
        @zray.remote
        class Adder:
            def add(self, x):
                breakpoint()
                return x + 1

        @zray.remote
        def task(adder, y):
            return zray.get(adder.add.remote(y))

        def program():
            mine = 41
            print("result", zray.get(task.remote(Adder.remote(), mine)))

        zray.init(local_mode=True)
        program()
        """
    )
    done = subprocess.run(
        [sys.executable, str(path)],
        input="p x\nw\nc\n",
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert "(Pdb) 41" in done.stdout
    calls = re.findall(r"script\.py\(\d+\)(\w+)\(\)", done.stdout)
    assert [name for name in calls if name != "add"] == ["program", "task"]
    assert "result 42" in done.stdout


def test_quitting_the_debugger_ends_the_program(script: Script) -> None:
    """It is not the error of a task."""
    path = script(
        """
        @zray.remote
        def task():
            breakpoint()

        zray.init(local_mode=True)
        task.remote()
        print("went on")
        """
    )
    done = subprocess.run(
        [sys.executable, str(path)], input="q\n", capture_output=True, text=True, timeout=30
    )
    assert "went on" not in done.stdout
    assert "BdbQuit" in done.stderr


def test_the_environment_switches_it_on(run: Run) -> None:
    """``ZRAY_LOCAL_MODE=1``, whatever address the program or the environment says."""
    text = """
        zray.init("127.0.0.1:1")
        pid = zray.get(zray.remote(os.getpid).remote())
        print(pid == os.getpid())
    """
    done = run(text, ZRAY_LOCAL_MODE="1", ZRAY_ADDRESS="127.0.0.1:2")
    assert done.stdout == "True\n"


def test_nothing_is_made_outside_of_the_process(run: Run) -> None:
    """No process, no socket, no thread and no file."""
    run(
        """
        import psutil, threading
        me = psutil.Process()
        zray.init(local_mode=True)

        @zray.remote
        class Actor:
            def ping(self):
                return b"x" * (1 << 20)

        actor = Actor.remote()
        zray.get([actor.ping.remote(), zray.put(1)])
        assert not me.children(), me.children()
        assert not me.net_connections("all"), me.net_connections("all")
        assert not me.open_files(), me.open_files()
        assert threading.active_count() == 1, threading.enumerate()
        assert "zmq" not in sys.modules or not me.net_connections()
        assert not os.path.exists(os.environ.get("ZRAY_HOME", "/nowhere"))
        """,
        ZRAY_HOME="/tmp/zray-home-that-nobody-makes",
    )


def test_ctrl_c_stops_the_program(local: None) -> None:
    """So does what any signal handler of the program's raises."""

    @zray.remote
    def interrupted() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        interrupted.remote()


# ---- as on a cluster -------------------------------------------------------------------------


def test_values_are_copies(local: None) -> None:
    """Arguments, results and what a function captures: what a task changes is its own."""
    captured: list[int] = []

    @zray.remote
    def change(values: list[int]) -> list[int]:
        values.append(3)
        captured.append(3)
        return values

    mine = [1, 2]
    ref = zray.put(mine)
    assert zray.get(change.remote(mine)) == [1, 2, 3]
    assert zray.get(change.remote(ref)) == [1, 2, 3]
    mine.append(9)
    assert zray.get(ref) == [1, 2] and zray.get(ref) is not zray.get(ref)
    assert captured == []


def test_arrays_are_read_only(local: None) -> None:
    """Large and small ones, as arguments and as results."""

    @zray.remote
    def is_writeable(array: np.ndarray) -> tuple[bool, np.ndarray]:
        return array.flags.writeable, array

    for size in (10, 1_000_000):
        writeable, array = zray.get(is_writeable.remote(np.zeros(size)))
        assert not writeable and not array.flags.writeable


def test_what_cannot_be_sent_is_an_error_here_as_well(local: None) -> None:
    """A program that works here is not to fail on a cluster."""
    with pytest.raises(SerializationError, match="lock"):
        zray.remote(lambda lock: lock).remote(threading.Lock())
    with pytest.raises(TaskError, match="lock"):
        zray.get(zray.remote(threading.Lock).remote())


def test_a_task_does_not_see_its_caller(local: None) -> None:
    """Neither its context variables nor its event loop."""

    @zray.remote
    def inside() -> tuple[int, int]:
        async def nested() -> int:
            return 7

        return decimal.getcontext().prec, asyncio.run(nested())

    async def program() -> tuple[int, int]:
        decimal.getcontext().prec = 5
        return await inside.remote()

    assert asyncio.run(program()) == (28, 7)


def test_environment_variables_are_the_task_s_own(local: None) -> None:
    """They are set while it runs."""

    @zray.remote(runtime_env={"env_vars": {"ZRAY_TEST_OF_LOCAL": "set"}})
    def inside() -> str | None:
        return os.environ.get("ZRAY_TEST_OF_LOCAL")

    assert zray.get(inside.remote()) == "set"
    assert "ZRAY_TEST_OF_LOCAL" not in os.environ


def test_a_busy_actor_runs_its_calls_one_after_the_other(local: None) -> None:
    """Those that one of its own calls makes come after that."""
    actor = Counter.remote()
    refs = zray.get(actor.add_twice.remote(actor))
    assert zray.get([*refs, actor.add.remote()]) == [1, 2, 3]


def test_an_actor_that_waits_for_itself_is_told_so(local: None) -> None:
    """On a cluster it would wait for ever."""
    actor = Counter.remote()
    with pytest.raises(ReentrantCallError, match="same actor"):
        zray.get(actor.waits_for_itself.remote(actor))
    assert zray.get(actor.add.remote()) == 2


def test_calls_of_an_async_actor_wait_for_each_other(local: None) -> None:
    """They run in a loop of the actor's; what depends on them runs when it can."""
    gate = Gate.remote()
    through = gate.passes.remote()
    shouted = zray.remote(str.upper).remote(through)

    assert zray.wait([through, shouted], timeout=0.2) == ([], [through, shouted])
    with pytest.raises(GetTimeoutError):
        zray.get(shouted, timeout=0.1)
    gate.open.remote()
    assert zray.get(shouted) == "THROUGH"


def test_an_error_among_many_is_raised_as_soon_as_it_is_known(local: None) -> None:
    """Though others have not come."""

    @zray.remote
    def fails() -> None:
        raise ValueError("early")

    gate = Gate.remote()
    with pytest.raises(ValueError, match="early"):
        zray.get([gate.passes.remote(), fails.remote()], timeout=20)


def test_calls_of_a_threaded_actor_run_at_once(local: None) -> None:
    """As many as ``max_concurrency`` says."""

    @zray.remote(max_concurrency=3)
    class Meeting:
        def __init__(self) -> None:
            self.barrier = threading.Barrier(3)

        def meet(self) -> int:
            return self.barrier.wait(10)

    actor = Meeting.remote()
    assert sorted(zray.get([actor.meet.remote() for _ in range(3)])) == [0, 1, 2]


def test_an_endless_generator_makes_what_is_asked_for(local: None) -> None:
    """And is closed when nobody asks any more."""

    @zray.remote
    def numbers() -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    generator = numbers.remote()
    assert [zray.get(next(generator)) for _ in range(3)] == [0, 1, 2]
    zray.cancel(generator)
    with pytest.raises(TaskCancelledError):
        zray.get(next(generator))


def test_a_call_behind_a_generator_has_it_run_to_its_end(local: None) -> None:
    """An actor does one thing at a time."""
    actor = Counter.remote()
    generator = actor.numbers.remote(3)
    assert zray.get(actor.add.remote()) == 4
    assert [zray.get(ref) for ref in generator] == [0, 1, 2]


def test_a_cancelled_call_of_a_coroutine(local: None) -> None:
    """Its coroutine is cancelled."""
    gate = Gate.remote()
    through = gate.passes.remote()
    zray.cancel(through)
    with pytest.raises(TaskCancelledError):
        zray.get(through)


def test_errors_that_nobody_asks_for_are_shown(
    local: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """When their last reference goes."""

    @zray.remote
    def fails() -> None:
        raise ValueError("unheard")

    ref = fails.remote()
    assert "unheard" not in capsys.readouterr().err
    del ref
    zray.put(1)
    assert "unheard" in capsys.readouterr().err


def test_a_handle_that_was_looked_up_outlives_its_actor(local: None) -> None:
    """Its calls are told that the actor has ended."""
    first = Counter.options(name="short").remote()
    found = zray.get_actor("short")
    assert zray.get(found.add.remote()) == 1
    del first
    with pytest.raises(ActorDiedError, match="ended"):
        zray.get(found.add.remote())


def test_many_threads_call_one_actor(local: None) -> None:
    """Its calls still run one after the other, and none is lost."""
    actor, refs = Counter.remote(), []

    def call() -> None:
        for _ in range(200):
            refs.append(actor.add.remote())

    threads = [threading.Thread(target=call) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(zray.get(refs)) == [*range(1, 1001)]


def test_values_are_let_go_of(local: None) -> None:
    """The program's memory does not grow with what it has dropped."""
    me, before = psutil.Process(), 0
    for turn in range(60):
        zray.get(zray.put(np.ones(1_000_000)))
        if turn == 10:
            before = me.memory_info().rss
    assert me.memory_info().rss - before < 60_000_000


# ---- the session -----------------------------------------------------------------------------


def test_what_a_program_may_ask(local: None) -> None:
    """Its one node has what ``init`` said, of which nothing is taken; keys are kept."""
    assert zray.cluster_resources()["CPU"] == 2.0
    assert zray.available_resources()["token"] == 1.0
    (node,) = zray.nodes()
    assert node["NodeID"] == zray.get_runtime_context().get_node_id()
    assert not kv.put(b"key", b"value") and kv.get(b"key") == b"value"
    assert kv.keys(b"k") == [b"key"] and kv.delete(b"key") and kv.get(b"key") is None


def test_what_only_a_cluster_has_is_refused(local: None) -> None:
    """With a word of why."""
    with pytest.raises(ZrayError, match="local mode"):
        zray.why(zray.put(1))
    with pytest.raises(ZrayError, match="local mode"):
        zray.timeline()


def test_a_task_cannot_leave_it(local: None) -> None:
    """``shutdown`` in a task does nothing, as in a worker."""
    zray.get(zray.remote(zray.shutdown).remote())
    assert zray.is_initialized()


def test_after_shutdown_actors_have_ended(disconnected: None) -> None:
    """What waits is told; another start begins afresh."""
    zray.init(local_mode=True)
    gate = Gate.remote()
    named = Counter.options(name="kept", lifetime="detached").remote()
    waiting = gate.passes.remote().future()
    found: list[BaseException | None] = []
    waiter = threading.Thread(target=lambda: found.append(waiting.exception(10)))
    waiter.start()
    zray.shutdown()
    waiter.join()
    assert isinstance(found[0], ActorDiedError | ClusterShutdownError | TaskError)
    with zray.init(local_mode=True), pytest.raises(ValueError, match="kept"):
        zray.get_actor("kept")
    del named


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"local_mode": 1}, TypeError),
        ({"local_mode": True, "address": "127.0.0.1:1"}, ValueError),
        ({"local_mode": True, "num_cpus": -1}, ValueError),
    ],
)
def test_bad_options(
    disconnected: None, options: dict[str, object], error: type[Exception]
) -> None:
    """Are errors at once."""
    with pytest.raises(error):
        zray.init(**options)  # type: ignore[arg-type]


# ---- the contracts -----------------------------------------------------------------------------


@pytest.mark.slow_limit(150)
def test_contracts_of_ray_hold_but_for_those_that_need_a_cluster() -> None:
    """Which these are is in tests/conformance/not_in_local_mode.txt."""
    files = [f"tests/conformance/test_{name}.py" for name in CONTRACTS]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files],
        cwd=ROOT,
        env={**os.environ, "CONFORMANCE_SIDE": "local"},
        capture_output=True,
        text=True,
        timeout=140,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    kept = re.search(r"^all +(\d+) kept, 0 broken$", done.stdout, re.MULTILINE)
    assert kept is not None and int(kept[1]) > 450, done.stdout[-2000:]


# ---- placement groups ----------------------------------------------------------------------------


@zray.remote(num_cpus=1)
def groups_down(depth: int) -> list[str]:
    """The placement group of a task and of what it submits."""
    group = get_current_placement_group()
    below = zray.get(groups_down.remote(depth - 1)) if depth else []
    return [group.id.hex() if group is not None else "", *below]


def test_a_placement_group_is_there_at_once(local: None) -> None:
    """Whatever it asks for: resources are not counted."""
    group = placement_group([{"CPU": 1}, {"GPU": 1000}], strategy="STRICT_SPREAD", name="all")
    assert zray.get(group.ready()) == group and group.wait(0.1)
    assert get_placement_group("all") == group
    table = placement_group_table(group)
    assert table["state"] == "CREATED" and [*table["bundles_to_node_id"]] == [0, 1]
    with pytest.raises(PlacementGroupExistsError):
        placement_group([{"CPU": 1}], name="all")


def test_tasks_know_their_placement_group(local: None) -> None:
    """And what they submit runs in it, where it captures that."""
    group = placement_group([{"CPU": 1}])
    for captures, seen in ((True, [group.id.hex()] * 3), (False, [group.id.hex(), "", ""])):
        inside = PlacementGroupSchedulingStrategy(group, 0, captures)
        assert zray.get(groups_down.options(scheduling_strategy=inside).remote(2)) == seen


def test_what_is_in_a_removed_placement_group_ends(local: None) -> None:
    """As on a cluster: actors end, tasks are an error, others go on."""
    group = placement_group([{"CPU": 1}])
    inside = PlacementGroupSchedulingStrategy(group)
    counter = Counter.options(num_cpus=1, scheduling_strategy=inside).remote()
    other = Counter.remote()
    assert zray.get(counter.add.remote()) == 1
    remove_placement_group(group)
    with pytest.raises(ActorDiedError, match="placement group"):
        zray.get(counter.add.remote())
    with pytest.raises(TaskPlacementGroupRemoved):
        zray.get(groups_down.options(scheduling_strategy=inside).remote(0))
    assert zray.get(other.add.remote()) == 1
    assert placement_group_table(group)["state"] == "REMOVED"


def test_the_first_of_several_adds_a_key(local: None) -> None:
    """``kv.add`` leaves what is there."""
    assert [kv.add(b"key", b"first"), kv.add(b"key", b"second")] == [False, True]
    assert kv.get(b"key") == b"first"


# ---- progress bars -------------------------------------------------------------------------------


def test_progress_bars_of_tasks_and_of_the_program(
    local: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are the program's own, at most with the last line of each."""

    @zray.remote
    def counts(rows: int) -> int:
        return sum(tqdm_ray.tqdm(range(rows), desc="in a task"))

    with tqdm_ray.tqdm(total=2, desc="in the program", unit="tasks") as bar:
        for rows in (3, 4):
            assert zray.get(counts.remote(rows)) == sum(range(rows))
            bar.update()
    shown = capsys.readouterr().err
    assert "in a task: 3/3 100%" in shown and "in a task: 4/4 100%" in shown, shown
    assert "in the program: 2/2 tasks 100%" in shown, shown
