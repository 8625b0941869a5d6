"""Leased workers: a driver's tasks that pass the head by start at once, and keep nobody waiting."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import psutil
import pytest

import zray
from zray.errors import GetTimeoutError
from zray.limits import PING_S

BURST = 2000

LASTS = """
    import os, sys, time
    import zray

    zray.init()
    ended = sys.argv[1]

    @zray.task
    def short():
        pass

    @zray.task
    def lasts():
        print("lasts", flush=True)
        while not os.path.exists(ended):
            time.sleep(0.05)

    zray.get([short.remote() for _ in range(50)])
    zray.get(lasts.remote())
    print("ended", flush=True)
"""

SHARES = """
    import os, sys, time
    import zray

    zray.init()
    own, begin = sys.argv[1:3]
    milliseconds, workers, cpus = int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])

    @zray.task(num_cpus=cpus)
    def spin(milliseconds):
        began, until = time.process_time(), time.process_time() + milliseconds / 1000
        while time.process_time() < until:
            pass
        return time.monotonic(), time.process_time() - began

    refs = [spin.remote(milliseconds) for _ in range(8 * workers)]
    window, used, until = 0, 0.0, 0.0
    while not os.path.exists(f"{begin}.enough"):
        ready, refs = zray.wait(refs, num_returns=1)
        for at, cpu in zray.get(ready):
            if until and at > until:  # of a window of 2 s
                print(f"used {window} {used}", flush=True)
                window, used, until = window + 1, 0.0, until + 2
            used += cpu
        if not until and os.path.exists(begin):
            until, used = float(open(begin).read()), 0.0
        refs += [spin.remote(milliseconds) for _ in ready]
        if not os.path.exists(own):
            open(own, "w").close()
    for _ in range(len(refs)):
        zray.cancel(refs.pop())
    print("ended", flush=True)
"""


def cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def leased(work: Any, *arguments: Any) -> None:
    """Have short tasks of this function run until they go by leases, as their reasons say."""
    deadline = time.monotonic() + 20
    told = ""
    while "leased to this process" not in told:
        assert time.monotonic() < deadline, told
        refs = [work.remote(*arguments) for _ in range(200)]
        try:
            zray.get(refs, timeout=0.001)
        except GetTimeoutError as error:
            told = str(error)
        zray.get(refs)


def test_a_burst_of_short_tasks_passes_the_head_by(connected: Any) -> None:
    @zray.task
    def double(number: int) -> int:
        return 2 * number

    before = cpu_s(connected.head.pid)
    for _ in range(5):
        refs = [double.remote(number) for number in range(BURST)]
        assert zray.get(refs, timeout=60) == [2 * number for number in range(BURST)]
    assert cpu_s(connected.head.pid) - before < 0.4  # by way of it, they take more than a second
    connected.until(
        lambda: dict(connected.status().counters)["finished"] == 5 * BURST, 5, "all are counted"
    )
    connected.until(connected.at_rest, 5, "the leases have ended")

    def counted() -> bool:
        return sum(node["TasksFinished"] for node in zray.nodes()) == 5 * BURST

    connected.until(counted, 5 + PING_S, "the nodes tell how many they have run")


def test_long_tasks_do_not_wait_behind_each_other(bare: Any) -> None:
    bare.start_head()
    bare.start_node("one", 2, wait=False)
    bare.start_node("two", 2, wait=False)
    bare.await_node("one")
    bare.await_node("two")
    bare.connect()

    @zray.task
    def sleeps(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    began = time.monotonic()
    zray.get([sleeps.remote(1) for _ in range(8)], timeout=20)
    assert time.monotonic() - began < 2.9
    for count in (1, 40):  # measured as short, then not
        zray.get([sleeps.remote(0.001) for _ in range(count)], timeout=20)
        began = time.monotonic()
        zray.get([sleeps.remote(1) for _ in range(8)], timeout=20)
        assert time.monotonic() - began < 2.9


def test_what_is_behind_a_task_that_holds_the_gil_goes_elsewhere(connected: Any) -> None:
    """But for very short tasks: these are given to a worker several at a time."""

    @zray.task
    def work(seconds: int) -> int:
        import ctypes

        time.sleep(0.002)
        if seconds:
            ctypes.PyDLL(None).sleep(seconds)  # in C, and with the GIL
        return os.getpid()

    leased(work, 0)
    for place in (0, 5, 50):
        refs = [work.remote(4 if at == place else 0) for at in range(200)]
        stuck = refs.pop(place)
        began = time.monotonic()
        zray.get(refs, timeout=20)
        assert time.monotonic() - began < 2
        assert zray.wait([stuck], timeout=0) == ([], [stuck])
        zray.get(stuck, timeout=20)


def test_what_a_stopped_worker_was_given_goes_elsewhere(connected: Any, records: Any) -> None:
    write = records.write

    @zray.task
    def work(stops: bool) -> int:
        time.sleep(0.002)
        if stops:
            write(os.getpid())
            os.kill(os.getpid(), signal.SIGSTOP)
        return os.getpid()

    leased(work, False)
    refs = [work.remote(at == 20) for at in range(200)]
    stopped = refs.pop(20)
    pid = int(records.until(1)[0])
    try:
        zray.get(refs, timeout=3)
        assert zray.wait([stopped], timeout=0) == ([], [stopped])
    finally:
        os.kill(pid, signal.SIGCONT)
    assert zray.get(stopped, timeout=10) == pid


def test_a_node_that_joins_gets_tasks_within_a_second(bare: Any) -> None:
    bare.start_head()
    bare.start_node("one", 1)
    bare.connect()

    @zray.task
    def work() -> str:
        time.sleep(0.05)
        return str(zray.get_runtime_context().get_node_id())

    refs = [work.remote() for _ in range(20)]
    assert len({*zray.get(refs[:5], timeout=20)}) == 1
    refs = refs[5:] + [work.remote() for _ in range(400)]
    bare.start_node("two", 1)
    began = time.monotonic()
    [two] = [node["NodeID"] for node in zray.nodes() if node["NodeName"] == "two"]
    while True:
        ready, refs = zray.wait(refs, num_returns=1, timeout=10)
        if two in zray.get(ready):
            break
        assert time.monotonic() - began < 1.5
    for ref in refs:
        zray.cancel(ref)


@pytest.mark.parametrize(
    ("cpus", "jobs"),
    [
        (1, [(5, 1), (5, 1)]),
        (2, [(1, 1), (1, 1)]),
        (2, [(1, 1), (20, 1)]),
        (2, [(5, 1), (5, 1), (5, 1)]),
        (2, [(5, 1), (20, 2)]),
        (4, [(10, 1), (10, 1)]),
    ],
)
def test_drivers_get_the_same_cpu_time(
    bare: Any, tmp_path: Any, cpus: int, jobs: list[tuple[int, int]]
) -> None:
    """``jobs``: milliseconds and CPUs of each one's tasks. One begins after the other.

    A task of two CPUs computes on one, and leaves the other to drivers and head, which others have
    to share with these: so where the needs differ, so may what the tasks get done.
    """
    within = 0.1 if len({each for _, each in jobs}) == 1 else 0.3
    bare.start_head()
    bare.start_node("one", cpus)
    begin = tmp_path / "begin"
    drivers = []
    for place, (milliseconds, each) in enumerate(jobs):
        path = tmp_path / str(place)
        options = (str(path), str(begin), str(milliseconds), str(cpus), str(each))
        drivers.append(bare.run(f"driver{place}", SHARES, *options))
        bare.until(path.exists, 20, "its first result")
    whole = tmp_path / "whole"
    whole.write_text(str(time.monotonic() + 0.2))
    whole.rename(begin)
    # With one CPU they have it in turn; with more the kernel has a say in what each gets done.
    found, even, wanted = [], 0, 3 if cpus == 1 else 1
    for window in range(6):  # others use the machine, too: what they leave may be uneven
        told = [driver.says(f"used {window}", 30).split() for driver in drivers]
        used = [float(spun[2]) * each for spun, (_, each) in zip(told, jobs, strict=True)]
        found.append(used)
        even += window > 0 and max(used) - min(used) < within * (max(used) + min(used))
        if even == wanted:
            break
    else:
        pytest.fail(f"it was even in {even} windows only: {found}")
    (tmp_path / "begin.enough").touch()
    for driver in drivers:
        driver.says("ended", 30)
    bare.until(bare.at_rest, 5, "all is free again")


def test_who_comes_later_need_not_wait_for_leases_to_end(bare: Any, tmp_path: Any) -> None:
    bare.start_head()
    bare.start_node("one", 2)
    first, begin = tmp_path / "first", tmp_path / "begin"
    driver = bare.run("first", SHARES, str(first), str(begin), "5", "2", "1")
    bare.until(first.exists, 20, "the first one's first result")
    bare.connect()

    @zray.task
    def here() -> int:
        return os.getpid()

    @zray.actor(num_cpus=1)
    class Actor:
        def here(self) -> int:
            return os.getpid()

    for _ in range(3):
        began = time.monotonic()
        zray.get(here.remote(), timeout=10)
        assert time.monotonic() - began < 1
    began = time.monotonic()
    zray.get(Actor.remote().here.remote(), timeout=10)
    assert time.monotonic() - began < 2
    (tmp_path / "begin.enough").touch()
    driver.says("ended", 30)


def test_a_lease_ends_though_its_tasks_leave_no_other_thread_a_turn(
    bare: Any, tmp_path: Any
) -> None:
    """Whether another thread gets the GIL while they run is not what that depends on."""
    bare.start_head()
    bare.start_node("one", 1)
    first, begin = tmp_path / "first", tmp_path / "begin"
    source = SHARES.replace("began, until =", "sys.setswitchinterval(60); began, until =")
    busy = bare.run("busy", source, str(first), str(begin), "5", "8", "1")
    bare.until(first.exists, 20, "the busy one's first result")
    bare.connect()

    @zray.task
    def here() -> int:
        return os.getpid()

    waited = 0.0
    for _ in range(8):
        began = time.monotonic()
        zray.get(here.remote(), timeout=20)
        waited += time.monotonic() - began
        time.sleep(0.3)  # the busy one has the CPU, and has been at it for a while
    assert waited < 1.2
    (tmp_path / "begin.enough").touch()
    busy.says("ended", 30)


def test_two_jobs_share_what_a_long_task_of_a_third_leaves(bare: Any, tmp_path: Any) -> None:
    bare.start_head()
    bare.start_node("one", 2)
    ended, first, begin = (tmp_path / name for name in ("ended", "first", "begin"))
    long = bare.run("long", LASTS, str(ended))
    long.says("lasts", 20)
    busy = bare.run("busy", SHARES, str(first), str(begin), "20", "8", "1")
    bare.until(first.exists, 20, "the busy one's first result")
    bare.connect()

    @zray.task
    def short(number: int) -> int:
        return number

    for _ in range(12):
        refs = [short.remote(number) for number in range(200)]
        assert zray.get(refs, timeout=6) == [*range(200)]
        time.sleep(0.1)  # another lease, as the one before idled
    ended.touch()
    long.says("ended", 20)
    (tmp_path / "begin.enough").touch()
    busy.says("ended", 30)


def test_a_lease_that_idles_yields_to_another_class(connected: Any) -> None:
    @zray.task
    def nothing() -> None:
        pass

    @zray.task(num_cpus=0.5)
    def half() -> None:
        pass

    @zray.actor(num_cpus=1)
    class Actor:
        def here(self) -> int:
            return os.getpid()

    for _ in range(5):
        leased(nothing)
        began = time.monotonic()
        zray.get([half.remote() for _ in range(4)], timeout=10)
        assert time.monotonic() - began < 0.5
    leased(nothing)
    actors = [Actor.remote() for _ in range(2)]
    began = time.monotonic()
    zray.get([actor.here.remote() for actor in actors], timeout=10)
    assert time.monotonic() - began < 2


def test_the_reason_of_a_wait_is_told(connected: Any, gate: Any) -> None:
    wait = gate.wait

    @zray.task
    def waits(at_gate: bool) -> None:
        if at_gate:
            wait()

    leased(waits, False)
    refs = [waits.remote(True) for _ in range(3)]
    zray.wait(refs, timeout=0.5)
    for ref, reason in zip(refs, ("LEASED", "LEASED", "WAIT_RESOURCES"), strict=True):
        with pytest.raises(GetTimeoutError, match=f"{reason}:.*leased to this process"):
            zray.get(ref, timeout=0.1)

    def unfinished() -> list[int]:
        return [job.unfinished for job in connected.status().jobs]

    connected.until(lambda: unfinished() == [3], 5 + PING_S, "the status counts them")
    gate.open()
    zray.get(refs, timeout=10)
    connected.until(lambda: unfinished() == [0], 5 + PING_S, "and no more once they have ended")
