"""What tasks print reaches the driver's own streams, with who said it."""

from __future__ import annotations

import os
import sys

import pytest

import zray
from tests.api.conftest import Run, Script, eventually
from tests.terminal import on_terminal, screen


@zray.remote
def say(text: str, end: str = "\n") -> int:
    print(text, end=end, flush=True)
    return os.getpid()


@zray.remote
def warn(text: str) -> int:
    print(text, file=sys.stderr)
    return os.getpid()


@pytest.mark.usefixtures("cluster")
def test_both_streams_with_a_prefix(capfd: pytest.CaptureFixture[str]) -> None:
    said, warned = zray.get([say.remote("hello\nworld"), warn.remote("careful")])
    out, err = capfd.readouterr()
    assert out == "".join(f"(say pid={said}, node=head) {word}\n" for word in ("hello", "world"))
    assert err == f"(warn pid={warned}, node=head) careful\n"


@pytest.mark.usefixtures("cluster")
def test_prints_come_before_the_result(capfd: pytest.CaptureFixture[str]) -> None:
    for i in range(20):
        zray.get(say.remote(f"number {i}"))
        assert f"number {i}\n" in capfd.readouterr().out


@pytest.mark.usefixtures("cluster")
def test_odd_output(capfd: pytest.CaptureFixture[str]) -> None:
    @zray.remote
    def odd() -> None:
        os.write(1, b"bytes \xff\xfe\n")
        os.write(1, b"x" * 100_000 + b"\n")
        print("\ud800 surrogate \N{SNOWMAN}")
        print("no newline", end="", flush=True)

    zray.get(odd.remote())
    seen: list[str] = []

    def complete() -> bool:
        seen.append(capfd.readouterr().out)
        return "SNOWMAN" in (text := "".join(seen)) or "\N{SNOWMAN}" in text

    eventually(complete)
    text = "".join(seen)
    assert "bytes \ufffd\ufffd" in text
    assert max(len(line) for line in text.splitlines()) < 17_000


@pytest.mark.usefixtures("cluster")
def test_prints_of_subprocesses_and_c(capfd: pytest.CaptureFixture[str]) -> None:
    @zray.remote
    def shell() -> None:
        import subprocess

        subprocess.run(["echo", "from a subprocess"], check=True)

    zray.get(shell.remote())
    assert "from a subprocess\n" in capfd.readouterr().out


@pytest.mark.usefixtures("cluster")
def test_stdin_of_a_task_is_empty() -> None:
    @zray.remote
    def read() -> str:
        return sys.stdin.read()

    assert zray.get(read.remote(), timeout=10) == ""


@pytest.mark.usefixtures("cluster")
def test_much_output_does_not_hold_the_task_up(capfd: pytest.CaptureFixture[str]) -> None:
    @zray.remote
    def chatter() -> None:
        for i in range(20_000):
            print("line", i)

    zray.get(chatter.remote(), timeout=20)
    assert capfd.readouterr().out.count("\n") == 20_000


def test_a_driver_that_wants_no_logs(run: Run) -> None:
    text = """
        zray.init(num_cpus=1, log_to_driver=False)

        @zray.remote
        def say():
            print("not to be heard")

        zray.get(say.remote())
    """
    done = run(text)
    assert done.stdout == done.stderr == ""


def test_a_driver_whose_output_nobody_reads(run: Run) -> None:
    text = """
        read, write = os.pipe()
        os.dup2(write, 1)
        zray.init(num_cpus=1)

        @zray.remote
        def chatter():
            for i in range(20_000):
                print("a line of some length, again and again", i)

        @zray.remote
        def one():
            return 1

        zray.get(chatter.remote())
        os.close(read)
        os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
        os._exit(0 if zray.get(one.remote()) == 1 else 1)
    """
    # The reader is slow for ever; only those who print may wait for it.
    text = text.replace("zray.get(chatter.remote())\n", "chatter.remote(); time.sleep(1)\n")
    run(text)


@pytest.mark.parametrize(
    "stream",
    ["None", "open(os.devnull, 'w'); sys.stdout.close()", "Fails()", "open('/dev/full', 'w')"],
)
def test_a_program_whose_output_fails_gets_its_results(run: Run, stream: str) -> None:
    run(
        f"""
        class Fails:
            def write(self, text):
                raise RuntimeError("on purpose")

        sys.stdout = sys.stderr = {stream}
        zray.init(num_cpus=1)

        @zray.task
        def speak(number):
            print("spoken")
            print("spoken", file=sys.stderr)
            return number

        for number in range(20):
            if zray.get(speak.remote(number)) != number:
                os._exit(3)
        zray.shutdown()
        os._exit(0)
        """
    )


def test_what_an_actor_prints_is_shown_though_the_program_ends_at_once(run: Run) -> None:
    text = """
        zray.init(num_cpus=1)

        @zray.remote(num_cpus=0)
        class Speaker:
            def say(self, number):
                print("line", number)

        speakers = [Speaker.remote() for _ in range(3)]
        zray.get([one.say.remote(number) for number, one in enumerate(speakers)])
        zray.get(speakers[0].say.remote("last"))
    """
    for _ in range(5):
        lines = run(text).stdout.splitlines()
        said = sorted(line.rpartition(" ")[2] for line in lines)
        assert said == ["0", "1", "2", "last"]


# ---- equal lines of several workers, and colours ---------------------------------------------

SAME = """
    import atexit, shutil, tempfile

    zray.init(num_cpus=4)

    there = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, there)

    @zray.remote
    def say(*lines):
        open(os.path.join(there, str(os.getpid())), "w").close()
        while len(os.listdir(there)) < 4:  # so there are four at a time
            time.sleep(0.01)
        for line in lines:
            print(line)
        return os.getpid()

    pids = zray.get([say.remote("begin", "same", "end") for _ in range(4)])
    assert len({*pids}) == 4
"""


def test_equal_lines_of_workers_are_folded_and_all_is_out_at_exit(run: Run) -> None:
    lines = run(SAME).stdout.splitlines()
    assert [line.partition(") ")[2] for line in lines] == [
        *("begin", "same", "end"),
        "begin [repeated 3x across cluster; ZRAY_DEDUP_LOGS=0 shows each]",
        *("same [repeated 3x across cluster]", "end [repeated 3x across cluster]"),
    ]


def test_what_is_held_back_comes_by_itself_within_seconds(run: Run) -> None:
    text = """
    last = time.monotonic()
    class Watch:
        def write(self, text):
            if "repeated" in text:
                sys.__stdout__.write(f"after {time.monotonic() - last:.0f} s\\n")
                sys.__stdout__.flush()
                os._exit(0)
        def flush(self): pass
    sys.stdout = Watch()
    time.sleep(30)
    """
    assert run(SAME + text).stdout.splitlines()[-1] in ("after 4 s", "after 5 s", "after 6 s")


@pytest.mark.parametrize("name", ["ZRAY_DEDUP_LOGS", "RAY_DEDUP_LOGS"])
def test_the_environment_has_each_line_shown(run: Run, name: str) -> None:
    assert run(SAME, **{name: "0"}).stdout.count("same\n") == 4


@pytest.mark.parametrize("prefix", ["ZRAY", "RAY"])
def test_some_lines_are_shown_each_time_and_some_never(run: Run, prefix: str) -> None:
    name = f"{prefix}_DEDUP_LOGS"
    env = {f"{name}_ALLOW_REGEX": "^sa.e$", f"{name}_SKIP_REGEX": "egi"}
    shown = [line.partition(") ")[2] for line in run(SAME, **env).stdout.splitlines()]
    assert shown.count("same") == 4 and shown.count("end") == 1
    assert not [line for line in shown if "begin" in line]


def test_what_is_no_regular_expression_is_said_and_not_used(run: Run) -> None:
    done = run(SAME, ZRAY_DEDUP_LOGS_SKIP_REGEX="([")
    assert "ZRAY_DEDUP_LOGS_SKIP_REGEX='([' is no regular expression" in done.stderr
    assert "begin" in done.stdout


def test_each_worker_has_a_colour_on_a_terminal(script: Script) -> None:
    path = script(SAME + "    print(*pids)\n")
    written = on_terminal(path, NO_COLOR="", ZRAY_DEDUP_LOGS="0")
    (pids,) = (line.split() for line in screen(written) if line[:1].isdigit())
    colours = {written.partition(f"(say pid={pid}")[0].rpartition("\x1b")[2] for pid in pids}
    assert len(pids) == len(colours) == 4
    assert "\x1b[0m same" in written


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"RAY_COLOR_PREFIX": "0"}, {"TERM": "dumb"}])
def test_colours_can_be_forgone(script: Script, env: dict[str, str]) -> None:
    assert "\x1b" not in on_terminal(script(SAME), **env)
