"""Shared memory of real nodes: past its mark, and when any of its processes is killed."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import zray
from tests import shared_memory
from tests.real_cluster import until
from zray import limits
from zray.errors import ObjectLostError, ObjectStoreFullError, TaskError, WorkerCrashedError
from zray.runtime import session

MB = 1_000_000


@pytest.fixture(autouse=True)
def _leaves_no_memory() -> Iterator[None]:
    with shared_memory.unchanged():
        yield
        gc.collect()


@pytest.fixture
def spill(tmp_path: Path) -> Path:
    return tmp_path / "spill"


@pytest.fixture
def small(zray_home: Path, spill: Path) -> Iterator[None]:
    """A cluster of this process with 200 MB for objects, and its disk."""
    with zray.init(num_cpus=2, object_store_memory=200 * MB, object_spilling_directory=spill):
        yield


@pytest.fixture
def tight(zray_home: Path, tmp_path: Path) -> Iterator[None]:
    """The same with a disk that cannot be written."""
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "spill"
    with zray.init(num_cpus=2, object_store_memory=200 * MB, object_spilling_directory=below):
        # Before it has heard of its node's store, a driver keeps what it puts in its own memory.
        until(lambda: shared_memory.maps(zray.get(zray.put(array(1))).ctypes.data), 20, "the store")
        yield


def array(megabytes: float, fill: float = 1.0) -> Any:
    return np.full(int(megabytes * MB) // 8, fill)


def files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file() and path.suffix != ".lock"]


def shares_memory() -> bool:
    zray.get(zray.put(bytes(100_000)))
    return session.current()._store is not None


def raylet_of_this_process() -> psutil.Process:
    """The one whose socket for shared memory this process uses."""
    return next(
        process
        for process in psutil.Process().children(recursive=True)
        if process.name().startswith("zray-raylet")
    )


# ---- past the mark ---------------------------------------------------------------------------


@pytest.mark.slow_limit(120)
def test_what_memory_has_no_room_for_goes_to_disk_and_comes_back(small: None, spill: Path) -> None:
    before = shared_memory.segment_bytes()
    refs = [zray.put(array(20, float(i))) for i in range(50)]
    assert shared_memory.segment_bytes() - before < 400 * MB
    assert sum(path.stat().st_size for path in files(spill)) > 700 * MB
    for i, ref in enumerate(refs):
        assert (zray.get(ref) == float(i)).all()

    @zray.task
    def ends(value: Any) -> tuple[float, float]:
        return float(value[0]), float(value[-1])

    @zray.task
    def make(fill: float) -> Any:
        return np.full(20 * MB // 8, fill)

    assert zray.get([ends.remote(ref) for ref in refs], timeout=60) == [(i, i) for i in range(50)]
    made = [make.remote(float(i)) for i in range(30)]
    for i, ref in enumerate(made):
        assert (zray.get(ref, timeout=60) == float(i)).all()
    assert shared_memory.segment_bytes() - before < 500 * MB
    del refs, ref, made
    until(lambda: not files(spill), 10, "the files are gone")
    zray.get(zray.put(array(150)))


def test_arrays_in_use_stay_in_memory(small: None, spill: Path) -> None:
    value = zray.get(zray.put(array(50, 3.0)))
    refs = [zray.put(array(20, float(i))) for i in range(20)]
    assert (value == 3.0).all()
    assert 50 * MB not in {path.stat().st_size // MB * MB for path in files(spill)}
    del refs


def test_more_than_the_mark_can_be_read_at_once(small: None) -> None:
    refs = [zray.put(array(20, float(i))) for i in range(20)]
    values = zray.get(refs)
    assert [float(value[-1]) for value in values] == [float(i) for i in range(20)]


def test_nothing_is_left_on_disk(zray_home: Path, spill: Path) -> None:
    with zray.init(num_cpus=1, object_store_memory=100 * MB, object_spilling_directory=spill):
        refs = [zray.put(array(20)) for _ in range(10)]
        assert files(spill)
    assert [*spill.rglob("*")] == []
    del refs


def test_a_full_store_says_who_holds_it_and_works_again_after_a_drop(tight: None) -> None:
    kept = [zray.get(zray.put(array(40))) for _ in range(4)]
    with pytest.raises(ObjectStoreFullError) as raised:
        for _ in range(4):
            kept.append(zray.put(array(40)))
    assert "has 200.0 MB, and 160.0 MB of it are in use" in str(raised.value)
    assert "in arrays that" in str(raised.value) and "(4 objects)" in str(raised.value)
    del kept, raised
    assert zray.get(zray.put(array(150)))[-1] == 1.0


def test_a_disk_that_cannot_be_written_is_named(tight: None) -> None:
    kept = []
    with pytest.raises(ObjectStoreFullError, match=r"spilling to disk failed.*Not a directory"):
        for _ in range(8):
            kept.append(zray.put(array(40)))
    assert len(kept) == 4 and zray.get(kept[0])[-1] == 1.0
    del kept
    assert zray.get(zray.put(array(150)))[-1] == 1.0


@pytest.mark.slow_limit(120)
@pytest.mark.parametrize("at_once", [True, False])
def test_waiting_for_values_takes_no_memory(small: None, at_once: bool) -> None:
    """Three times as much as the store has, while other work keeps the cores busy."""

    @zray.task(num_cpus=0.5)
    def make(number: int) -> Any:
        return array(20, float(number))

    @zray.task(num_cpus=0)
    def burn() -> None:
        end = time.monotonic() + 5
        while time.monotonic() < end:
            pass

    burning = [burn.remote() for _ in range(6)]
    refs = left = [make.remote(number) for number in range(30)]
    if at_once:
        left = zray.wait(refs, num_returns=30, timeout=60)[1]
    while left:
        done, left = zray.wait(left, timeout=30)
        assert done
    assert zray.wait(refs, num_returns=30, timeout=0) == (refs, [])
    for number, ref in enumerate(refs):
        assert zray.get(ref, timeout=30)[-1] == number
    zray.get(burning)


def test_many_small_results_take_no_more_memory_than_the_store_has(small: None) -> None:
    """Past an eighth of it they are with the large values, and on disk with them."""

    @zray.task
    def make(number: int) -> bytes:
        return number.to_bytes(4, "big") * 15_000

    until(shares_memory, 10, "this process shares memory")
    raylet = raylet_of_this_process()
    zray.get(make.remote(0))

    def own() -> int:
        memory = raylet.memory_info()
        return int(memory.rss - memory.shared)

    before = own()
    refs = [make.remote(number) for number in range(8000)]  # 480 MB
    zray.wait(refs, num_returns=8000, timeout=50, fetch_local=False)
    assert own() - before < 240 * MB  # some are on their way to a disk that may be slow
    until(lambda: own() - before < 100 * MB, 30, "the node's memory is given back")
    for number in range(0, 8000, 97):
        assert zray.get(refs[number], timeout=20) == number.to_bytes(4, "big") * 15_000


def test_values_that_a_stopped_driver_has_and_does_not_use_are_few(bare: Any) -> None:
    bare.start_head("--num-cpus", "1", "--object-store-memory", "200MB")
    stopped = bare.run(
        "stopped",
        """
        import time
        import numpy as np
        import zray

        zray.init()

        @zray.task
        def make():
            return np.ones(20_000_000 // 8)

        refs = [make.remote() for _ in range(8)]
        print("has", len(zray.wait(refs, num_returns=8)[0]), flush=True)
        time.sleep(60)
        """,
    )
    stopped.says("has 8")
    stopped.signal(signal.SIGSTOP)
    bare.connect()

    @zray.task
    def make(megabytes: int) -> Any:
        return array(megabytes)

    assert zray.get(make.remote(150), timeout=30)[-1] == 1.0
    with pytest.raises(ObjectStoreFullError, match="or does not let go of: it does not answer"):
        zray.get(make.remote(190), timeout=30)


def test_an_object_larger_than_the_store_is_refused_at_once(tight: None) -> None:
    until(shares_memory, 10, "this process shares memory")
    large = array(300)
    began = time.monotonic()
    with pytest.raises(ObjectStoreFullError, match=r"300\.0 MB .* smaller parts"):
        zray.put(large)
    assert time.monotonic() - began < 1.5


def test_the_caller_of_a_task_without_room_gets_the_error(tight: None) -> None:
    @zray.task
    def make(megabytes: float) -> Any:
        return np.ones(int(megabytes * MB) // 8)

    @zray.task
    def pid() -> int:
        return os.getpid()

    until(shares_memory, 10, "this process shares memory")
    workers = {zray.get(pid.remote()) for _ in range(5)}
    kept = [zray.get(zray.put(array(40))) for _ in range(4)]
    with pytest.raises(TaskError) as raised:
        zray.get(make.remote(60), timeout=30)
    assert isinstance(raised.value, ObjectStoreFullError)
    assert zray.get(make.remote(1), timeout=30)[0] == 1.0
    del kept
    until(lambda: zray.get(make.remote(60), timeout=30)[0] == 1.0, 10, "there is room")
    assert {zray.get(pid.remote()) for _ in range(5)} & workers


@pytest.mark.system
def test_a_disk_that_fills_up_is_named(zray_home: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", "size=30m"]
    subprocess.run(["mount", *options, "zray-test", str(disk)], check=True)
    try:
        with zray.init(num_cpus=1, object_store_memory=100 * MB, object_spilling_directory=disk):
            kept = []
            with pytest.raises(ObjectStoreFullError, match="No space left"):
                for i in range(20):
                    kept.append(zray.put(array(20, float(i))))
            for i, ref in enumerate(kept):
                assert (zray.get(ref) == float(i)).all()
            del kept, ref
            assert zray.get(zray.put(array(80)))[-1] == 1.0
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# ---- killed ----------------------------------------------------------------------------------


def test_a_result_outlives_the_worker_that_made_it(connected: Any) -> None:
    @zray.task
    def make() -> Any:
        return os.getpid(), np.arange(500_000)

    ref = make.remote()
    zray.wait([ref], fetch_local=False)
    pid, value = zray.get(ref)
    other = make.remote()
    zray.wait([other], fetch_local=False)
    workers = [p for node in connected.programs[1:] for z in node.children() for p in z.children()]
    for process in workers:
        process.kill()
    psutil.wait_procs(workers, timeout=10)
    assert pid in {process.pid for process in workers}
    assert value[-1] == 499_999 and zray.get(ref)[1][0] == 0
    assert zray.get(other, timeout=20)[1][-1] == 499_999


def test_workers_killed_right_after_their_results(connected: Any) -> None:
    """At the moment, found by trial, in which about one half of the results is still heard."""

    @zray.task(max_retries=0)
    def make(number: int, pause_s: float) -> Any:
        pid = os.getpid()

        def end() -> None:
            time.sleep(pause_s)
            os.kill(pid, signal.SIGKILL)

        value = np.full(100_000, float(number))
        threading.Thread(target=end, daemon=True).start()
        return value

    arrived, crashed, pause_s = 0, 0, 0.002
    for number in range(40):
        ref = make.remote(number, pause_s)  # not within an assert, which would keep it
        try:
            value = zray.get(ref, timeout=20)
        except WorkerCrashedError:
            crashed, pause_s = crashed + 1, pause_s * 1.5
            continue
        assert (value == float(number)).all()
        arrived, pause_s = arrived + 1, pause_s / 1.5
    assert arrived and crashed
    del ref, value
    connected.until(connected.at_rest, 10, "nothing runs")
    connected.until(lambda: connected.status().objects == 0, 10, "all objects are free")


def test_a_worker_killed_while_it_writes_leaves_nothing(connected: Any, records: Any) -> None:
    write = records.write

    @zray.task(max_retries=2)
    def make() -> Any:
        write(os.getpid())
        return [np.ones(10 * MB // 8) for _ in range(40)]

    ref = make.remote()
    for number in (1, 2):
        pid = int(records.until(number)[-1])
        process = psutil.Process(pid)
        connected.until(lambda p=pid: shared_memory.mappings(p), 20, "it writes")
        process.kill()
    assert len(zray.get(ref, timeout=40)) == 40


def test_readers_that_are_killed_free_what_they_used(connected: Any) -> None:
    @zray.actor
    class Reader:
        def keep(self, values: list[Any]) -> int:
            self.values = zray.get(values)
            return os.getpid()

    before = shared_memory.segment_bytes()
    for _ in range(10):
        reader = Reader.remote()
        refs = [zray.put(array(20)) for _ in range(5)]
        pid = zray.get(reader.keep.remote(refs), timeout=20)
        del refs
        os.kill(pid, signal.SIGKILL)
        del reader
    warm = 3 * limits.WARM_BYTES_MAX  # of this process, and of two nodes for copies
    assert shared_memory.segment_bytes() - before < warm
    connected.until(lambda: connected.status().objects == 0, 10, "all objects are free")


DRIVER = """
    import os, sys, time
    import numpy as np
    import zray

    zray.init()

    @zray.actor
    class Keeper:
        def keep(self, refs):
            self.refs = refs
            return len(refs)

        def values(self):
            return zray.get(self.refs)

    keeper = Keeper.options(name="keeper", namespace="shared", lifetime="detached").remote()
    refs = [zray.put(np.full(1_000_000, float(i))) for i in range(5)]
    assert zray.get(keeper.keep.remote(refs)) == 5
    values = zray.get(refs)
    others = [zray.put(np.full(1_000_000, float(i))) for i in range(50)]
    print("ready", flush=True)
    time.sleep(600)
"""


def test_a_driver_that_is_killed_leaves_what_others_hold(cluster: Any) -> None:
    before = shared_memory.segment_bytes()
    driver = cluster.run("driver", DRIVER)
    driver.says("ready")
    assert shared_memory.mappings(driver.pid)
    driver.kill()
    cluster.connect()
    keeper = zray.get_actor("keeper", namespace="shared")
    values = zray.get(keeper.values.remote(), timeout=20)
    assert [float(value[-1]) for value in values] == [0.0, 1.0, 2.0, 3.0, 4.0]
    cluster.until(
        lambda: shared_memory.segment_bytes() - before < 250 * MB, 20, "the others' memory is free"
    )
    zray.kill(keeper)
    assert float(values[3][0]) == 3.0


def test_two_drivers_share_the_result_of_an_actor(cluster: Any) -> None:
    driver = cluster.run("driver", DRIVER)
    driver.says("ready")
    cluster.connect()
    keeper = zray.get_actor("keeper", namespace="shared")
    ref = keeper.values.remote()
    values = zray.get(ref, timeout=20)
    again = zray.get(ref)
    assert values[2].ctypes.data == again[2].ctypes.data
    assert shared_memory.maps(values[2].ctypes.data)
    driver.stop()
    assert float(values[4][-1]) == 4.0
    zray.kill(keeper)


def test_own_values_outlive_the_node(bare: Any) -> None:
    bare.start_head()
    one = bare.start_node("one")
    bare.connect()
    bare.until(shares_memory, 10, "this process shares memory")
    told, private = zray.put(array(4, 1.0)), zray.put(array(4, 2.0))
    seen = zray.put(array(4, 3.0))
    value = zray.get(seen)

    @zray.task
    def first(given: Any) -> float:
        return float(given[0])

    @zray.task
    def make() -> Any:
        return np.full(500_000, 4.0)

    lost = make.options(max_retries=0).remote()
    assert zray.get([first.remote(told), first.remote(lost)], timeout=20) == [1.0, 4.0]
    head_has_shared = session.current()._store.node_id
    one_has = bare.node("one").node_id
    victim = one if head_has_shared == one_has else None
    if victim is None:  # the head's node serves this process: end that
        pid = next(p.pid for p in bare.head.children() if "raylet" in " ".join(p.cmdline()))
        os.kill(pid, signal.SIGKILL)
    else:
        victim.kill()
    assert (value == 3.0).all()
    for ref, fill in ((told, 1.0), (private, 2.0), (seen, 3.0)):
        assert (zray.get(ref, timeout=30) == fill).all()
    if victim is not None:
        bare.start_node("other")
    assert zray.get([first.remote(told), first.remote(private)], timeout=30) == [1.0, 2.0]
    if victim is not None:
        with pytest.raises(ObjectLostError):
            zray.get(lost, timeout=30)
    assert zray.get(zray.put(array(4, 5.0)))[-1] == 5.0


def test_a_raylet_that_is_killed_leaves_files_for_the_next_to_remove(
    bare: Any, tmp_path: Path
) -> None:
    spill = tmp_path / "spill"
    options = ("--object-store-memory", "64MiB", "--spill-directory", str(spill))
    bare.start_head("--object-store-memory", "64MiB")
    node = bare.start_node("one", 1, *options)
    bare.connect()

    @zray.task
    def make() -> Any:
        return np.ones(2_000_000)

    refs = [make.remote() for _ in range(10)]
    zray.wait(refs, num_returns=10, timeout=30, fetch_local=False)
    bare.until(lambda: files(spill), 10, "something was spilled")
    node.kill()
    assert files(spill)
    again = bare.start_node("two", 1, *options)
    bare.until(lambda: not files(spill), 10, "the files of the dead node are gone")
    del refs
    again.stop()
    assert [*spill.rglob("*")] == []


def test_values_outlive_a_head_that_is_killed(connected: Any) -> None:
    @zray.task
    def make() -> Any:
        return np.full(500_000, 4.0)

    @zray.task
    def total(*values: Any) -> float:
        return float(sum(value[0] for value in values))

    stored, made = zray.put(array(4, 1.0)), make.remote()
    assert zray.get(total.remote(stored, made), timeout=20) == 5.0
    value = zray.get(made)
    connected.head.kill()
    assert (value == 4.0).all() and zray.get(stored)[0] == 1.0
    later = zray.put(array(4, 2.0))
    connected.start_head(port=-1)
    assert zray.get(total.remote(stored, made, later), timeout=40) == 7.0
    assert (zray.get(made, timeout=20) == 4.0).all()


@pytest.mark.system
def test_a_driver_without_shared_memory_works_by_chunks(apart: Any) -> None:
    bare, _ = apart
    value = array(20, 2.0)

    @zray.task
    def twice(given: Any) -> Any:
        return given * 2

    ref = zray.put(value)
    assert (zray.get(twice.remote(ref), timeout=30) == 4.0).all()
    assert session.current()._store is None
    assert (zray.get(ref) == 2.0).all()
    del ref
    bare.until(lambda: bare.status().objects == 0, 10, "all objects are free")
