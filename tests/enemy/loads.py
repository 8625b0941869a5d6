"""What one user does to a cluster, each a driver program that checks what it gets.

``python -m tests.enemy.loads NAME SEED`` says RIGHT, or what was wrong. With ZRAY_ENEMY_ROUGH set,
processes of the cluster are killed meanwhile: what they take along is excused, a hang never is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import zray
from zray.errors import (
    ActorError,
    HeadConnectionError,
    ObjectLostError,
    ObjectStoreFullError,
    TaskCancelledError,
    WorkerCrashedError,
    ZrayError,
)

KB = 1000
LIMIT_S = 150.0
BROKEN = (ZrayError, OSError, ValueError, RecursionError, AttributeError)  # by a vandal
EXCUSED = (ActorError, ObjectLostError, ObjectStoreFullError, WorkerCrashedError)

Load = Callable[[random.Random], None]
LOADS: dict[str, Load] = {}


def load(function: Load) -> Load:
    LOADS[function.__name__] = function
    return function


def get(what: Any) -> Any:
    return zray.get(what, timeout=LIMIT_S)


@zray.task(max_retries=-1)
def double(number: int) -> int:
    return 2 * number


# ---- large and many -----------------------------------------------------------------------------


@load
def many_returns(chance: random.Random) -> None:
    count = chance.choice((1, 300, 1200))

    @zray.task(num_returns=count, max_retries=-1)
    def many() -> Any:
        values = [bytes([number % 256]) * 60 * KB for number in range(count)]
        return values if count > 1 else values[0]

    refs = many.remote()
    values = get(refs if count > 1 else [refs])
    assert [value[0] for value in values] == [number % 256 for number in range(count)]


@load
def one_error_of_thousands(chance: random.Random) -> None:
    @zray.task(max_retries=-1)
    def fails() -> None:
        raise ValueError("x" * 58 * KB)

    @zray.task(max_retries=-1)
    def takes(_value: None) -> None:
        raise AssertionError("it has no argument")

    first = fails.remote()
    others = [takes.remote(first) for _ in range(chance.choice((10, 1000, 4000)))]
    assert zray.wait(others, num_returns=len(others), timeout=LIMIT_S)[1] == []
    for ref in (others[0], others[-1]):
        with contextlib.suppress(*EXCUSED):
            try:
                get(ref)
                raise AssertionError("no error")
            except ValueError as error:
                assert "xxx" in str(error)


@load
def ten_thousand_references(chance: random.Random) -> None:
    @zray.task(max_retries=-1)
    def total(refs: list[Any]) -> int:
        return sum(zray.get(refs))

    count = chance.choice((0, 1, 2000, 10_000))
    refs = [zray.put(number) for number in range(count)]
    assert get(total.remote(refs)) == sum(range(count))


@load
def many_children(chance: random.Random) -> None:
    count = chance.choice((100, 3000, 8000))

    @zray.task(num_cpus=0, max_retries=-1)
    def parent() -> int:
        @zray.task(max_retries=-1)
        def child(data: bytes) -> int:
            return len(data)

        return sum(zray.get([child.remote(bytes(3 * KB)) for _ in range(count)]))

    assert get(parent.remote()) == count * 3 * KB


@load
def calls_of_a_starting_actor(chance: random.Random) -> None:
    pause_s = chance.choice((0.0, 1.0, 4.0))

    @zray.actor(num_cpus=0, max_restarts=-1, max_task_retries=-1)
    class Sizes:
        def __init__(self) -> None:
            time.sleep(pause_s)

        def of(self, value: bytes) -> int:
            return len(value)

    sizes = Sizes.remote()
    value = zray.put(bytes(60 * KB))
    refs = [sizes.of.remote(value) for _ in range(chance.choice((10, 1500)))]
    assert set(get(refs)) == {60 * KB}


@load
def large_answers(chance: random.Random) -> None:
    count = chance.choice((20, 800))

    @zray.actor(num_cpus=0, max_concurrency=2000)
    class Slow:
        def __init__(self) -> None:
            self.opened = asyncio.Event()

        async def large(self, number: int) -> bytes:
            await self.opened.wait()
            return b"%06d" % number * 10 * KB

        async def open(self) -> None:
            self.opened.set()

    slow = Slow.remote()
    refs = [slow.large.remote(number) for number in range(count)]
    get(slow.open.remote())
    for number, ref in enumerate(refs):
        value = get(ref)
        assert value[:6] == b"%06d" % number and len(value) == 60 * KB


@load
def hundreds_of_large_objects(chance: random.Random) -> None:
    @zray.task(max_retries=-1)
    def make(number: int) -> Any:
        return np.full(9000, number)

    @zray.task(max_retries=-1)
    def total(refs: list[Any]) -> int:
        return sum(int(array[0]) for array in zray.get(refs))

    count = chance.choice((200, 500))
    refs = [make.remote(number) for number in range(count)]
    assert get(total.remote(refs)) == sum(range(count))


@load
def more_than_the_store(chance: random.Random) -> None:
    @zray.task(max_retries=-1)
    def make(number: int) -> Any:
        return np.full(20_000_000 // 8, number)

    left = [make.remote(number) for number in range(20)]
    seen = 0
    while left:
        ready, left = zray.wait(left, timeout=LIMIT_S)
        assert ready, f"{len(left)} of 20 are not ready"
        seen += int(get(ready[0])[-1])
        del ready
    assert seen == sum(range(20))


@load
def chains(chance: random.Random) -> None:
    @zray.task(max_retries=-1)
    def h(number: int) -> int:
        return number + 1

    @zray.task(max_retries=-1)
    def g(number: int) -> int:
        return int(zray.get(h.remote(number))) + 1

    @zray.task(max_retries=-1)
    def f(number: int) -> int:
        return int(zray.get(g.remote(number))) + 1

    count = chance.choice((20, 150))
    assert get([f.remote(number) for number in range(count)]) == [n + 3 for n in range(count)]


@load
def a_tree(chance: random.Random) -> None:
    @zray.task(num_cpus=chance.choice((0, 0.5, 1)), max_retries=-1)
    def grow(depth: int) -> int:
        if depth == 0:
            return 1
        return 1 + sum(zray.get([grow.remote(depth - 1) for _ in range(3)]))

    depth = chance.choice((3, 5))
    assert get(grow.remote(depth)) == (3 ** (depth + 1) - 1) // 2


@load
def large_functions(chance: random.Random) -> None:
    refs = []
    for number in range(30):
        data = os.urandom(500 * KB)

        @zray.task(max_retries=-1)
        def size(more: int, data: bytes = data) -> int:
            return len(data) + more

        refs.append(size.remote(number))
    assert get(refs) == [500 * KB + number for number in range(30)]


@load
def many_actors(chance: random.Random) -> None:
    @zray.actor(num_cpus=0, max_restarts=-1, max_task_retries=-1)
    class Idle:
        def __init__(self, number: int) -> None:
            self.number = number

        def number_of(self) -> int:
            return self.number

    count = chance.choice((5, 40))
    actors = [Idle.remote(number) for number in range(count)]
    assert get([actor.number_of.remote() for actor in actors]) == list(range(count))


@load
def puts_and_frees(chance: random.Random) -> None:
    for _ in range(20):
        refs = [zray.put(bytes(chance.choice((0, 1, 1000)))) for _ in range(500)]
        assert all(set(value) <= {0} for value in get(refs[::50]))
        nested = zray.put([refs[:10], {"deep": [refs[10:20]]}])
        assert len(get(nested)[0]) == 10
        array = zray.put(np.arange(100_000))
        assert get(array)[-1] == 99_999


# ---- ends of every kind -------------------------------------------------------------------------


@load
def cancels(chance: random.Random) -> None:
    @zray.task(max_retries=0)
    def naps(number: int) -> int:
        time.sleep(0.01)
        return number

    refs = [naps.remote(number) for number in range(chance.choice((50, 3000)))]
    for ref in refs:
        zray.cancel(ref, force=chance.random() < 0.01)
    for number, ref in enumerate(refs):
        with contextlib.suppress(TaskCancelledError, WorkerCrashedError):
            assert get(ref) == number


@load
def what_is_refused_at_once(_chance: random.Random) -> None:
    surrogate = "\ud800"
    for options in (
        {"resources": {"x" * 300: 1}},
        {"name": surrogate},
        {"resources": {surrogate: 1}},
        {"num_cpus": -1},
        {"num_cpus": float("nan")},
        {"num_returns": -2},
        {"num_returns": 1 << 60},
        {"max_retries": -2},
        {"resources": {"": 1}},
    ):
        try:
            double.options(**options).remote(1)
        except (TypeError, ValueError, ZrayError):
            continue
        raise AssertionError(f"accepted: {options}")
    for name in ("x" * 5000, surrogate):
        try:
            zray.get_actor(name)
        except (ValueError, ZrayError):
            continue
        raise AssertionError(f"found: {name!r}")
    assert get(double.remote(4)) == 8


@load
def odd_results(chance: random.Random) -> None:
    class Unpicklable:
        def __reduce__(self) -> Any:
            raise RuntimeError("cannot be pickled")

    class Odd(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__("odd")

    def raises(error: BaseException) -> Any:
        raise error

    kinds: dict[str, Callable[[], Any]] = {
        "nothing": lambda: None,
        "unpicklable": Unpicklable,
        "unpicklable error": lambda: raises(Odd(1, 2)),
        "exit": lambda: sys.exit(3),
        "interrupt": lambda: raises(KeyboardInterrupt()),
        "hard exit": lambda: os._exit(1),
        "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "aborts": os.abort,
        "generator": lambda: (number for number in range(3)),
        "lambda": lambda: lambda: 5,
        "empty array": lambda: np.zeros(0),
        "recursion": lambda: (lambda f: f(f))(lambda f: f(f)),
        "surrogate": lambda: "\ud800",
        "error with a surrogate": lambda: raises(ValueError("\ud800")),
        "module": lambda: sys,
        "lock": threading.Lock,
        "reference": lambda: [zray.put(1)],
    }
    refs = {}
    for name in chance.sample(sorted(kinds), 8):
        do = kinds[name]

        @zray.task(max_retries=0)
        def odd(do: Any = do) -> Any:
            return do()

        refs[name] = odd.remote()
    for name, ref in refs.items():
        try:
            get(ref)
        except zray.errors.GetTimeoutError:
            raise AssertionError(f"hangs: {name}") from None
        except (Exception, SystemExit, KeyboardInterrupt):
            continue
    assert get(double.remote(4)) == 8


@load
def vandals(chance: random.Random) -> None:
    """What a task does to its own process; the next task finds one that works."""

    def fork_and_return() -> None:
        os.fork()

    def limit_descriptors() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))

    def ignore_signals() -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_IGN)

    def endless_thread() -> None:
        threading.Thread(target=time.sleep, args=(3600,), daemon=False).start()

    def lose_directory() -> None:
        os.mkdir(f"/tmp/zt-lost-{os.getpid()}")
        os.chdir(f"/tmp/zt-lost-{os.getpid()}")
        os.rmdir(f"/tmp/zt-lost-{os.getpid()}")

    def garble() -> None:
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                    os.write(int(name), b"\xc1\xff\x00\x93" * 300)

    kinds: list[Callable[[], Any]] = [
        fork_and_return,
        limit_descriptors,
        ignore_signals,
        endless_thread,
        lose_directory,
        garble,
        lambda: os.closerange(3, 4096),
        lambda: os.closerange(0, 3),
        lambda: sys.stdout.close(),
        lambda: setattr(sys, "stdout", None),
        lambda: sys.setrecursionlimit(60),
        lambda: os.setsid(),
        lambda: os.nice(19),
        lambda: signal.alarm(1),
        lambda: subprocess.Popen(["sleep", "5"]),
        lambda: [os.dup(1) for _ in range(200)],
    ]
    for do in chance.sample(kinds, 5):

        @zray.task(max_retries=0)
        def vandal(do: Any = do) -> int:
            do()
            return 1

        @zray.task(max_retries=0)
        def after(number: int) -> int:
            print("after", number)
            return number

        ref = vandal.remote()
        try:
            assert get(ref) == 1
        except (ZrayError, OSError):
            pass
        for number in range(6):  # the worker may have been broken for the first of them
            with contextlib.suppress(
                ZrayError, OSError, ValueError, RecursionError, AttributeError
            ):
                assert get(after.remote(number)) == number
    assert get(double.remote(4)) == 8


@load
def dying_actors(chance: random.Random) -> None:
    size = chance.choice((10, 70_000))

    @zray.actor(num_cpus=0, max_restarts=1)
    class Talker:
        def end(self) -> None:
            for _ in range(25):
                print("x" * size, file=sys.stderr)
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    talker = Talker.remote()
    deadline = time.monotonic() + 60
    while True:
        try:
            get(talker.end.remote())
            raise AssertionError("it lives")
        except ActorError as error:  # also, at once, while it starts again
            if type(error).__name__ == "ActorDiedError":
                return
        assert time.monotonic() < deadline, "its death is not known"
        time.sleep(0.01)


@load
def named_actors(chance: random.Random) -> None:
    @zray.actor(num_cpus=0)
    class Named:
        def who(self) -> str:
            return "named"

    name = f"named-{os.getpid()}"
    for _ in range(chance.choice((3, 15))):
        actor = Named.options(name=name, lifetime=chance.choice((None, "detached"))).remote()
        assert get(zray.get_actor(name).who.remote()) == "named"
        zray.kill(actor)
        deadline = time.monotonic() + 60
        while True:
            try:
                zray.get_actor(name)
            except ValueError:
                break
            assert time.monotonic() < deadline, "a killed actor keeps its name"


# ---- waits and prints ---------------------------------------------------------------------------


@load
def gets_in_other_threads(_chance: random.Random) -> None:
    @zray.task(max_retries=-1)
    def by_thread(number: int) -> int:
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(zray.get(double.remote(number))))
        thread.start()
        thread.join()
        return found[0]

    @zray.task(max_retries=-1)
    def by_future(number: int) -> int:
        return int(double.remote(number).future().result())

    @zray.task(max_retries=-1)
    def by_await(number: int) -> int:
        async def wait() -> int:
            return int(await double.remote(number))

        return asyncio.run(wait())

    refs = [f.remote(number) for number in range(5) for f in (by_thread, by_future, by_await)]
    assert get(refs) == [2 * number for number in range(5) for _ in range(3)]


@load
def prints(chance: random.Random) -> None:
    count, size = chance.choice(((2000, 100), (50, 100_000), (3, 5_000_000)))

    @zray.task(max_retries=-1)
    def speak(number: int) -> int:
        print("x" * size, number)
        return number

    assert get([speak.remote(number) for number in range(count)]) == list(range(count))


@load
def waits_with_short_timeouts(_chance: random.Random) -> None:
    refs = [double.remote(number) for number in range(1000)]
    left, deadline = refs, time.monotonic() + LIMIT_S
    while left:
        _, left = zray.wait(left, num_returns=min(50, len(left)), timeout=0.05)
        assert time.monotonic() < deadline, f"{len(left)} are not ready"
    assert get(refs) == [2 * number for number in range(1000)]


# ---- drivers that stop or die -------------------------------------------------------------------


def child(name: str, seed: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.enemy.loads", name, str(seed)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL)


@load
def a_driver_that_is_paused(chance: random.Random) -> None:
    name = chance.choice(("results", "prints", "hundreds_of_large_objects", "large_answers"))
    program = child(name, chance.randrange(1 << 30))
    time.sleep(chance.uniform(0.2, 3))
    program.send_signal(signal.SIGSTOP)
    time.sleep(chance.uniform(1, 10))
    program.send_signal(signal.SIGCONT)
    assert program.wait(2 * LIMIT_S) == 0


@load
def a_driver_that_is_killed(chance: random.Random) -> None:
    name = chance.choice(
        sorted(set(LOADS) - {"a_driver_that_is_paused", "a_driver_that_is_killed"})
    )
    program = child(name, chance.randrange(1 << 30))
    time.sleep(chance.uniform(0.2, 4))
    program.kill()
    program.wait()
    connect()
    assert get(double.remote(4)) == 8


@load
def results(_chance: random.Random) -> None:
    @zray.task(max_retries=-1)
    def sized(number: int) -> bytes:
        return b"%06d" % number * 8 * KB

    refs = [sized.remote(number) for number in range(1500)]
    for number, ref in enumerate(refs):
        assert get(ref)[:6] == b"%06d" % number


def connect() -> None:
    """As a driver; again and again where the head may be killed or paused at the moment."""
    deadline = time.monotonic() + 60
    while True:
        try:
            zray.init()
            return
        except HeadConnectionError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.2)


def main(name: str, seed: int) -> int:
    if not name.startswith("a_driver"):
        connect()
    try:
        LOADS[name](random.Random(seed))
    except EXCUSED as error:
        if not os.environ.get("ZRAY_ENEMY_ROUGH"):
            raise
        print(f"EXCUSED {type(error).__name__}: {str(error)[:300]}", flush=True)
    else:
        print("RIGHT", flush=True)
    zray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
