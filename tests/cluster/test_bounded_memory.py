"""What daemons keep has bounds, and goes when nobody needs it any more."""

from __future__ import annotations

import signal
from typing import Any

import psutil

FUNCTIONS = 30  # of a megabyte each


def megabytes(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / 1e6


def test_functions_end_with_their_job_and_when_they_are_redefined(bare: Any) -> None:
    head = bare.start_head()
    node = bare.start_node("one")
    database = bare.home / "clusters" / "default" / "gcs.sqlite"
    before = megabytes(head.pid), megabytes(node.pid)
    source = """
        import os, sys
        import zray

        zray.init()
        kept = []
        for _ in range(int(sys.argv[2])):
            blob = os.urandom(1 << 20)

            @zray.task
            def size():
                return len(blob)

            assert zray.get(size.remote()) == 1 << 20
            if sys.argv[1] == "keep":
                kept.append(size)
        print("all ran", database := os.path.getsize(sys.argv[3]) >> 20, flush=True)
        assert database < 20 or sys.argv[1] == "keep", database
    """
    for number, word in enumerate(("keep", "redefine")):
        driver = bare.run(f"driver{number}", source, word, str(FUNCTIONS), str(database))
        assert driver.wait(40) == 0, driver.text()
        bare.until(lambda: not bare.status().jobs, 5, "the job has ended")
        for program, size in zip((head, node), before, strict=True):
            bare.until(  # once the end of the job is stored
                lambda pid=program.pid, most=size + 20: megabytes(pid) < most,
                *(10, "the functions are forgotten"),
            )
    bare.until(lambda: database.stat().st_size < 10 << 20, 15, "the database shrinks")


def test_prints_for_a_driver_that_does_not_read_are_dropped_and_counted(bare: Any) -> None:
    head = bare.start_head()
    node = bare.start_node("one")
    before = megabytes(head.pid), megabytes(node.pid)
    source = """
        import time
        import zray

        zray.init()

        @zray.task
        def talk():
            end = time.time() + 6
            while time.time() < end:
                print("x" * 1000)
            print("the last line")

        ref = talk.remote()
        print("it begins", flush=True)
        zray.get(ref)
        print("it is over", flush=True)
    """
    driver = bare.run("driver", source)
    driver.says("it begins")
    bare.until(lambda: not bare.at_rest(), 10, "the task runs")
    driver.process.send_signal(signal.SIGSTOP)
    bare.until(lambda: bare.at_rest(), 30, "the task has ended")
    for program, size in zip((head, node), before, strict=True):
        assert megabytes(program.pid) < size + 80
    driver.process.send_signal(signal.SIGCONT)
    assert driver.wait(30) == 0
    said = driver.text()
    assert "it is over" in said and "x" * 1000 in said


def test_a_head_and_its_own_node_do_without_psutil(bare: Any) -> None:
    """It takes a megabyte of each, and is for commands, ends and errors."""
    head = bare.start_head("--num-cpus", "1")
    program = bare.run("driver", "import zray; zray.init(); print(zray.get(zray.put('ran')))")
    program.says("ran")
    for pid in (head.pid, bare.await_node("head").info.pid):
        assert not [one.path for one in psutil.Process(pid).memory_maps() if "psutil" in one.path]
