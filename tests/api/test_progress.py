"""``get(progress=...)``: how many values are here, on a terminal, in a log, from within tasks."""

from __future__ import annotations

import pytest

import zray
from tests.api.conftest import Run, Script
from tests.terminal import on_terminal, screen

FULL, EMPTY = "\u2501", "\u254c"
TASKS = """
    zray.init(num_cpus=2)

    @zray.remote
    def work(number, seconds=0.1):
        time.sleep(seconds)
        return number
"""


@pytest.mark.usefixtures("cluster")
def test_values_and_errors_are_those_of_get(capfd: pytest.CaptureFixture[str]) -> None:
    @zray.remote
    def halve(number: int) -> int:
        if number % 2:
            raise ValueError("odd")
        return number // 2

    refs = [halve.remote(number) for number in (2, 4, 4)]
    assert zray.get([*refs, refs[0]], progress="halving") == [1, 2, 2, 1]
    assert "halving: 3/3 100%" in capfd.readouterr().err
    assert zray.get(refs[0], progress=True) == 1
    assert "get: 1/1 100%" in capfd.readouterr().err
    assert zray.get([], progress=True) == []
    with pytest.raises(ValueError, match="odd"):
        zray.get([halve.remote(3)], progress=True)
    with pytest.raises(TypeError, match="progress must be"):
        zray.get(refs, progress=3)  # type: ignore[call-overload]


@pytest.mark.usefixtures("cluster")
def test_the_timeout_is_that_of_all(capfd: pytest.CaptureFixture[str]) -> None:
    @zray.remote
    def sleep() -> None:
        import time

        time.sleep(60)

    ref = sleep.remote()
    with pytest.raises(zray.exceptions.GetTimeoutError):
        zray.get([ref], timeout=0.3, progress="naps")
    assert "naps: 0/1 0%" in capfd.readouterr().err
    zray.cancel(ref, force=True)


def test_a_terminal_keeps_one_line_below_what_is_printed(script: Script) -> None:
    path = script(
        TASKS
        + """
    import threading
    threading.Timer(0.3, lambda: print("printed meanwhile")).start()
    assert zray.get([work.remote(number) for number in range(12)], progress="work") is not None
    print("after", type(sys.stdout).__name__)
    """
    )
    written = on_terminal(path)
    lines = screen(written)
    assert lines[0] == "printed meanwhile"
    assert lines[1].startswith(f"work {24 * FULL} 12/12 100%")
    assert lines[2:] == ["after TextIOWrapper", ""]
    assert EMPTY in written and "s left" in written  # it was seen on its way


def test_tasks_have_bars_at_the_driver_that_leave_nothing(script: Script) -> None:
    path = script(
        TASKS
        + """
    @zray.remote(num_cpus=0)
    class Outer:
        def gather(self, count):
            return sum(zray.get([work.remote(n) for n in range(count)], progress="inner"))

    actors = [Outer.remote(), Outer.remote()]
    assert zray.get([one.gather.remote(10) for one in actors], progress="outer") == [45, 45]
    """
    )
    written = on_terminal(path)
    (line, end) = screen(written)
    assert line.startswith("outer ") and "2/2 100%" in line and end == ""
    assert "node=head) inner" in written and "/10 " in written


def test_bars_of_a_killed_worker_end_with_it(script: Script) -> None:
    path = script(
        TASKS
        + """
    @zray.remote(num_cpus=0, max_retries=0)
    def doomed():
        zray.get([work.remote(1, 60)], progress="never")

    ref = doomed.remote()
    display = zray.runtime.session.current()
    while not display._bars:
        time.sleep(0.02)
    zray.cancel(ref, force=True)
    deadline = time.monotonic() + 10
    while display._bars and time.monotonic() < deadline:
        time.sleep(0.02)
    print("left:", bool(display._bars))
    """
    )
    lines = screen(on_terminal(path))
    assert "left: False" in lines and not any("never" in line for line in lines)


def test_a_label_with_control_characters_stays_a_line(script: Script) -> None:
    path = script(
        TASKS + "    zray.get([work.remote(1)], progress='evil\\x1b[2J\\n<b>' + 'x' * 300)\n"
    )
    written = on_terminal(path, columns=40)
    assert "\x1b[2J" not in written
    (line, end) = screen(written)
    assert line.startswith("evil\ufffd[2J\ufffd<b>xx") and len(line) < 40 and end == ""


def test_a_notebook_has_one_output_that_changes(run: Run) -> None:
    done = run(
        """
    import IPython.display
    from IPython.core.displaypub import CapturingDisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    shell.kernel = object()  # as that of a notebook has
    shell.display_pub = published = CapturingDisplayPublisher()
    """
        + TASKS
        + """
    zray.get([work.remote(number, 0.3) for number in range(4)], progress="<script>")
    first, *others = published.outputs
    ids = {output["transient"]["display_id"] for output in published.outputs}
    assert len(ids) == 1 and not first["update"] and len(others) > 1
    assert all(output["update"] for output in others)
    print(others[-1]["data"]["text/html"])
    print(others[-1]["data"]["text/plain"])
    """,
    )
    page, text = done.stdout.splitlines()
    assert "<progress value='4' max='4'>" in page
    assert "&lt;script&gt;" in page and "<script>" not in page
    assert text.startswith("<script> 4/4 100%") and done.stderr == ""


@pytest.mark.usefixtures("cluster")
def test_a_label_may_be_any_text() -> None:
    @zray.remote
    def outer(label: str) -> int:
        return zray.get(zray.put(5), progress=label)

    for label in ("\ud800 half", "\0" * 3, "x" * 100_000, "\N{SNOWMAN}" * 300):
        assert zray.get(outer.remote(label), progress=label) == 5


def test_a_driver_that_wants_no_prints_hears_of_no_bars(run: Run) -> None:
    done = run(
        """
        zray.init(num_cpus=1, log_to_driver=False)

        @zray.remote
        def outer():
            return zray.get(inner.remote(), progress="inner")

        @zray.remote
        def inner():
            time.sleep(0.5)
            return 1

        assert zray.get(outer.remote()) == 1
        assert zray.runtime.session.current()._bars is None
        """
    )
    assert done.stdout == done.stderr == ""
