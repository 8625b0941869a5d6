"""The API called where the program was interrupted: by the garbage collector, or by a signal."""

from __future__ import annotations

import gc
import random
import subprocess
import sys
import time
from typing import Any

import pytest

import zray
from tests.api.conftest import Run, Script
from zray.errors import ObjectLostError

pytestmark = pytest.mark.usefixtures("cluster")
GET_S = 30.0


@zray.task(num_cpus=0)
def double(number: int) -> int:
    return 2 * number


@zray.actor(num_cpus=0)
class Counter:
    def __init__(self) -> None:
        self.number = 0

    def add(self) -> int:
        self.number += 1
        return self.number


def collect_amid_calls(make: Any) -> None:
    """Cycles of these become garbage while the main thread is in all parts of the API."""
    threshold = gc.get_threshold()
    gc.set_threshold(50, 3, 3)
    try:
        for number in range(300):
            made = make(number)
            made.cycle = made
            del made
            refs = [double.remote(number), zray.put(number)]
            if number % 5 == 0:
                assert zray.get(refs, timeout=GET_S) == [2 * number, number]
                assert zray.wait(refs, num_returns=2, timeout=GET_S) == (refs, [])
    finally:
        gc.set_threshold(*threshold)
    gc.collect()


def test_a_finalizer_may_use_the_api() -> None:
    counter = Counter.remote()
    found = []

    class Uses:
        def __init__(self, number: int) -> None:
            self.number = number
            self.cycle: Any = None

        def __del__(self) -> None:
            counter.add.remote()
            found.append(zray.get(double.remote(self.number), timeout=GET_S))

    collect_amid_calls(Uses)
    assert sorted(found) == [2 * number for number in range(300)]
    assert zray.get(counter.add.remote(), timeout=GET_S) == 301


def test_a_finalizer_that_needs_what_was_collected_with_it_is_told() -> None:
    """Python says in no order which of them is finalized first."""
    values, errors = [], []

    class Waits:
        def __init__(self, ref: Any) -> None:
            self.ref = ref
            self.cycle: Any = None

        def __del__(self) -> None:
            try:
                values.append(zray.get(self.ref))
            except Exception as error:
                errors.append(error)

    collect_amid_calls(lambda number: Waits(double.remote(number)))
    assert errors and len(values) + len(errors) == 300
    assert {type(error) for error in errors} == {ObjectLostError}
    assert "a finalizer that needs the value has to get it sooner" in str(errors[0])


def test_what_was_collected_is_told_though_the_drop_was_sent_before() -> None:
    """Another finalizer of the same collection may have used the API in between."""
    ref = double.remote(1)
    ref.__del__()  # what the collector does first with references of a cycle
    other = double.remote(2)
    assert zray.get(other, timeout=GET_S) == 4
    with pytest.raises(ObjectLostError):
        zray.get(ref, timeout=GET_S)
    assert zray.wait([ref, other], num_returns=2, timeout=GET_S) == ([other], [ref])
    with pytest.raises(ObjectLostError):
        ref.future().result(GET_S)


def test_a_collector_that_is_off_stays_off() -> None:
    gc.disable()
    try:
        assert zray.get(double.remote(2), timeout=GET_S) == 4
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert zray.get(double.remote(2), timeout=GET_S) == 4
    deadline = time.monotonic() + GET_S
    while not gc.isenabled():  # another thread of zray's may just be at work
        assert time.monotonic() < deadline


@pytest.mark.parametrize(
    ("number", "least"), [("SIGHUP", 1.0), ("SIGUSR1", 0.05)], ids=["put off", "not put off"]
)
def test_a_signal_handler_gets_its_value_or_an_error(run: Run, number: str, least: float) -> None:
    """At whatever place of the API it comes, nothing hangs."""
    done = run(
        f"""
        import signal, threading
        zray.init(num_cpus=1)

        @zray.task
        def double(number):
            return 2 * number

        found = []
        handles = []

        def handle(*_):
            if handles:
                return
            handles.append(1)
            try:
                found.append(zray.get(double.remote(7)))
            except zray.errors.ReentrantCallError as error:
                found.append(str(error))
            finally:
                handles.clear()

        zray.get(double.remote(1))  # what a first call imports is there
        signal.signal(signal.{number}, handle)
        over = threading.Event()

        def bother():
            while not over.wait(0.003):
                os.kill(os.getpid(), signal.{number})

        thread = threading.Thread(target=bother, daemon=True)
        thread.start()
        for number in range(1500):
            refs = [double.remote(number) for _ in range(10)]
            assert zray.get(refs) == [2 * number] * 10
        over.set()
        thread.join()
        texts = [value for value in found if value != 14]
        assert all("set a flag" in text for text in texts), texts
        right = found.count(14)
        print(right > 20 and right >= {least} * len(found), right, "of", len(found))
        """
    )
    assert done.stdout.startswith("True"), done


def test_calls_that_a_timer_ends_leave_all_as_it_was(run: Run) -> None:
    done = run(
        """
        import random, signal
        zray.init(num_cpus=1)

        @zray.task
        def double(number):
            return 2 * number

        class TooLate(Exception):
            pass

        armed = []

        def late(*_):
            if armed:
                armed.clear()
                raise TooLate

        zray.wait([double.remote(1)])  # the function is pickled, and all imported
        signal.signal(signal.SIGALRM, late)
        chance = random.Random(7)
        ended = 0
        for number in range(1500):
            try:
                armed.append(1)
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00005, 0.0008))
                refs = [double.remote(number) for _ in range(3)]
                assert zray.get(refs) == [2 * number] * 3
                zray.get(zray.put(number))
                zray.wait([double.remote(number)])
                armed.clear()
            except TooLate:
                ended += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert zray.get([double.remote(number) for number in range(100)]) == [*range(0, 200, 2)]
        print(ended > 300, ended)
        """
    )
    assert done.stdout.startswith("True"), done


def test_a_program_that_exits_when_it_is_told_to(script: Script) -> None:
    """Amid whatever call: it leaves the cluster, and ends with its own exit status."""
    program = script(
        """
        import signal
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
        zray.init(sys.argv[1])

        @zray.task
        def double(number):
            return 2 * number

        print("on", flush=True)
        while True:
            zray.get([double.remote(1) for _ in range(50)])
            zray.put(bytes(1000))
        """
    )
    address = zray.get_runtime_context().gcs_address
    chance = random.Random(7)
    for _ in range(15):
        command = [sys.executable, str(program), address]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "on\n"
            try:
                child.wait(chance.uniform(0.0, 0.2))
            except subprocess.TimeoutExpired:
                child.terminate()
            try:
                assert child.wait(20.0) == 3
            finally:
                child.kill()
