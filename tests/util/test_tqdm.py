"""Bars of tasks and drivers: on a terminal, in a log, many at once, and without an end."""

from __future__ import annotations

from tests.api.conftest import Run, Script
from tests.terminal import on_terminal, screen

TASKS = """
    from zray.experimental import tqdm_ray
    zray.init(num_cpus=2)

    @zray.remote(num_cpus=0)
    def work(label, count, seconds=0.05):
        for number in tqdm_ray.tqdm(range(count), desc=label, unit="rows"):
            time.sleep(seconds)
        return label
"""


def test_bars_of_tasks_and_of_the_driver_are_seen_together(script: Script) -> None:
    path = script(
        TASKS
        + """
    refs = [work.remote(f"label {n}", 20) for n in range(3)]
    with tqdm_ray.tqdm(total=3, desc="all") as bar:
        for ref in refs:
            zray.get(ref)
            bar.update()
            bar.set_description(f"all of {bar.n}")
            print("had one")
    """
    )
    written = on_terminal(path)
    lines = screen(written)
    assert lines[:3] == ["had one"] * 3
    assert lines[3].startswith("all of 3 ") and "3/3 100%" in lines[3] and lines[4:] == [""]
    for number in range(3):
        assert f"node=head) label {number}" in written
    assert "/20 rows " in written


def test_a_log_has_a_line_of_the_drivers_bars(run: Run) -> None:
    done = run(
        TASKS
        + """
    assert zray.get(work.remote("in a task", 3)) == "in a task"
    assert list(tqdm_ray.tqdm("abc", desc="letters", unit="letters")) == ["a", "b", "c"]
    """
    )
    assert "letters: 3/3 letters 100%" in done.stderr
    assert "\x1b" not in done.stderr and "in a task" not in done.stderr


def test_bars_without_an_end_leave_with_who_has_made_them(run: Run) -> None:
    done = run(
        TASKS
        + """
    @zray.remote(num_cpus=0)
    class Maker:
        def many(self, count):
            bars = [tqdm_ray.tqdm(total=10, desc=f"bar {n}") for n in range(count)]
            for bar in bars:
                bar.update(3)
            return len(bars)

    maker = Maker.remote()
    for _ in range(20):
        assert zray.get(maker.many.remote(100)) == 100
    own = [tqdm_ray.tqdm(total=10, desc=f"own {n}") for n in range(100)]
    del own
    display = zray.runtime.session.current()._bars
    deadline = time.monotonic() + 20
    while display and time.monotonic() < deadline:
        tqdm_ray.tqdm(total=1).close()  # the others go with the next one
        time.sleep(0.05)
        if not [bar for bar in display._bars.values() if not bar.where]:
            break
    print("own left:", len([bar for bar in display._bars.values() if not bar.where]))
    """
    )
    assert "own left: 0" in done.stdout


def test_a_fast_loop_costs_little(run: Run) -> None:
    done = run(
        TASKS
        + """
    @zray.remote
    def fast(count):
        began = time.perf_counter()
        for _ in tqdm_ray.tqdm(range(count)):
            pass
        return time.perf_counter() - began

    print(zray.get(fast.remote(200_000)))
    """
    )
    assert float(done.stdout) < 10.0


def test_counts_that_no_bar_can_show_end_no_task(run: Run) -> None:
    done = run(
        """
    from zray.experimental import tqdm_ray
    zray.init(num_cpus=1)

    @zray.remote
    def work():
        for total in (float("inf"), float("nan"), 10**30, -5):
            with tqdm_ray.tqdm(total=total, desc=7, flush_interval_s=0) as bar:
                for count in (10**30, float("inf"), -(10**40), float("nan")):
                    bar.update(count)
        return "ended"

    print(zray.get(work.remote()))
    """
    )
    assert done.returncode == 0, done.stderr
    assert "ended" in done.stdout
