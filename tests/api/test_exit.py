"""Ends of a driver: nothing is left, however it ends; forks; Ctrl-C."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import zray
from tests.api.conftest import Run, eventually

BUSY = """
    zray.init(num_cpus=2)

    @zray.remote
    def sleep(seconds):
        import subprocess
        subprocess.Popen(["sleep", "1000"])
        open(f"{folder}/began-{os.getpid()}", "w").close()
        time.sleep(seconds)

    from tests.api.conftest import eventually
    folder = os.path.dirname(os.path.abspath(__file__))
    refs = [sleep.remote(1000) for _ in range(3)]
    eventually(lambda: sum(name.startswith("began-") for name in os.listdir(folder)) == 2)
    print("ready", flush=True)
"""


def marked() -> set[int]:
    """Daemons and workers of these tests."""
    mark = os.environ["ZRAY_SESSION_TEST"]
    found = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get("ZRAY_SESSION_TEST") == mark:
                found.add(process.pid)
        except psutil.Error:
            continue
    return found - {os.getpid(), os.getppid()}


def files(home: Path) -> list[Path]:
    return [path for path in home.rglob("*") if not path.is_dir()]


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise ValueError", 1),
        ("zray.shutdown()", 0),
        ("os._exit(4)", 4),
        ("os.kill(os.getpid(), 9)", -9),
        ("os.kill(os.getpid(), 15)", -15),
    ],
)
def test_nothing_is_left(run: Run, zray_home: Path, end: str, code: int) -> None:
    before = marked()
    run(BUSY + "    " + end, code=code)
    eventually(lambda: marked() <= before, 5)
    eventually(lambda: files(zray_home) == [], 5)


def test_a_thread_that_waits_does_not_keep_the_program(run: Run) -> None:
    text = """
        import threading
        from tests.api.conftest import eventually, waits_in_get
        zray.init(num_cpus=1)

        @zray.remote
        def sleep():
            time.sleep(1000)

        thread = threading.Thread(target=zray.get, args=(sleep.remote(),), daemon=True)
        thread.start()
        eventually(lambda: waits_in_get(thread))
    """
    began = time.monotonic()
    run(text)
    assert time.monotonic() - began < 10


def test_a_driver_that_leaves_takes_its_tasks_along(run: Run) -> None:
    with zray.init(num_cpus=2) as context:
        run(BUSY.replace("zray.init(num_cpus=2)", "zray.init(sys.argv[1])"), context["address"])
        eventually(lambda: zray.available_resources()["CPU"] == 2, 3)
        assert zray.get(double.options(num_cpus=2).remote(1), timeout=5) == 2


# ---- fork ----------------------------------------------------------------------------------


@pytest.fixture
def cluster() -> Any:
    with zray.init(num_cpus=2):
        yield


def in_child(function: Callable[[], bool]) -> bool:
    """Whether ``function`` returns True in a forked child."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if function() else 1)
        except BaseException:
            os._exit(2)
    return os.waitpid(pid, 0)[1] == 0


@zray.remote
def double(x: int) -> int:
    return 2 * x


@pytest.mark.usefixtures("cluster")
def test_a_forked_child_has_no_connection() -> None:
    ref = double.remote(1)

    def child() -> bool:
        zray.shutdown()  # nothing to do
        return not zray.is_initialized() and "disconnected" in repr(ref)

    assert in_child(child)
    assert zray.get([ref, double.remote(2)]) == [2, 4]


@pytest.mark.usefixtures("cluster")
def test_a_forked_child_may_connect_by_itself() -> None:
    address = zray.get_runtime_context().gcs_address

    def child() -> bool:
        zray.init(address)
        try:
            return zray.get(double.remote(5)) == 10
        finally:
            zray.shutdown()

    assert in_child(child)
    assert zray.get(double.remote(2)) == 4


@pytest.mark.usefixtures("cluster")
def test_many_forked_children_and_ids() -> None:
    """References made after a fork in the parent are never those of a child."""
    for _ in range(5):
        assert in_child(lambda: True)
        assert zray.get([double.remote(i) for i in range(5)]) == [0, 2, 4, 6, 8]


def test_a_living_child_does_not_hold_the_shutdown_up() -> None:
    zray.init(num_cpus=1)
    pid = os.fork()
    if pid == 0:
        time.sleep(30)
        os._exit(0)
    try:
        began = time.monotonic()
        zray.shutdown()
        assert time.monotonic() - began < 3
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.usefixtures("cluster")
def test_a_task_that_forks_ends_once() -> None:
    @zray.remote
    def fork() -> str:
        return "child" if os.fork() == 0 else "parent"

    assert zray.get([fork.remote() for _ in range(5)]) == ["parent"] * 5
    assert zray.get([double.remote(i) for i in range(20)]) == [2 * i for i in range(20)]


@pytest.mark.usefixtures("cluster")
def test_multiprocessing_in_driver_and_task() -> None:
    import multiprocessing

    @zray.remote
    def pool() -> list[int]:
        with multiprocessing.get_context("fork").Pool(2) as pool:
            return pool.map(abs, [-1, -2, -3])

    assert zray.get(pool.remote(), timeout=20) == [1, 2, 3]
    with multiprocessing.get_context("fork").Pool(2) as here:
        assert here.map(abs, [-1, -2]) == [1, 2]


# ---- Ctrl-C --------------------------------------------------------------------------------


def test_ctrl_c_in_get(script: Callable[[str], Path]) -> None:
    text = """
        zray.init(num_cpus=1)

        @zray.remote
        def sleep(seconds):
            time.sleep(seconds)
            return "slept"

        import threading
        from tests.api.conftest import eventually, waits_in_get

        def announce():
            eventually(lambda: waits_in_get(threading.main_thread()))
            print("ready", flush=True)

        slow = sleep.remote(2)
        threading.Thread(target=announce).start()
        try:
            zray.get(slow)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        print(zray.get(slow), zray.get(sleep.remote(0)))
    """
    process = subprocess.Popen(
        [sys.executable, script(text)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        assert time.monotonic() - began < 1
        assert process.stdout.read() == "slept slept\n"
    assert process.returncode == 0


def test_ctrl_c_in_init_and_shutdown(script: Callable[[str], Path], zray_home: Path) -> None:
    before = marked()
    text = """
        import signal
        print("ready", flush=True)
        interrupts, deadline = 0, time.monotonic() + 4
        while time.monotonic() < deadline:
            try:
                zray.init(num_cpus=1, ignore_reinit_error=True)
                zray.shutdown()
            except KeyboardInterrupt:
                interrupts += 1
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        zray.shutdown()
        with zray.init(num_cpus=1):
            print(interrupts > 1, zray.get(zray.put(1)))
        sys.stdin.read()
    """
    dice = random.Random(2)
    with subprocess.Popen(
        [sys.executable, script(text)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        end = time.monotonic() + 4
        while time.monotonic() < end:
            time.sleep(dice.uniform(0.05, 0.5))
            process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "True 1\n"
        eventually(lambda: marked() <= before | {process.pid}, 5)
        assert files(zray_home) == []
        process.stdin.close()
    assert process.returncode == 0


def test_ctrl_c_in_the_middle_of_shutdown(run: Run) -> None:
    text = """
        import psutil
        import signal
        from zray.nodes.driver.driver import Driver

        def interrupted(driver):
            signal.raise_signal(signal.SIGINT)  # its handler runs where the program's code may next
            say_goodbye(driver)

        say_goodbye, Driver._say_goodbye = Driver._say_goodbye, interrupted
        zray.init(num_cpus=1)
        try:
            zray.shutdown()
        except KeyboardInterrupt:
            print("interrupted", zray.is_initialized(), psutil.Process().children())
        Driver._say_goodbye = say_goodbye
        with zray.init(num_cpus=1):
            print(zray.get(zray.put(1)))
    """
    assert run(text).stdout.splitlines() == ["interrupted False []", "1"]


def test_ctrl_c_at_any_time(script: Callable[[str], Path]) -> None:
    text = """
        zray.init(num_cpus=2)

        @zray.remote
        def double(x):
            return 2 * x

        import signal
        inside = False  # a round; what is raised outside of it nobody would catch

        def interrupt(number, frame):
            global inside
            if inside:
                inside = False
                raise KeyboardInterrupt

        signal.signal(signal.SIGINT, interrupt)
        print("ready", flush=True)
        interrupts, rounds, deadline = 0, 0, time.monotonic() + 3
        while time.monotonic() < deadline:
            try:
                inside = True
                refs = [double.remote(i) for i in range(50)]
                assert zray.get(refs) == [2 * i for i in range(50)]
                zray.wait(refs, num_returns=50)
                inside = False
                rounds += 1
            except KeyboardInterrupt:
                interrupts += 1
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert zray.get([double.remote(i) for i in range(50)], timeout=10) == list(range(0, 100, 2))
        print(interrupts > 5, rounds > 5)
    """
    process = subprocess.Popen([sys.executable, script(text)], stdout=subprocess.PIPE, text=True)
    dice = random.Random(1)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        while process.poll() is None:
            try:
                process.wait(dice.uniform(0.005, 0.1))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "True True\n"
    assert process.returncode == 0
