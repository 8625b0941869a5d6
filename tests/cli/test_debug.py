"""``zray debug``: breakpoints in tasks and actors, attached to through a real terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pexpect
import pytest

import zray
from tests.api.conftest import cluster, eventually
from zray.protocol.messages import BREAKPOINTS
from zray.util import kv
from zray.util.state import get_task

__all__ = ["cluster"]
pytestmark = pytest.mark.usefixtures("cluster")
DEBUG = [sys.executable, "-m", "zray", "debug"]
PROMPT = r"\(Pdb\) "


@pytest.fixture(autouse=True)
def none_waits() -> Iterator[None]:
    """When a test has ended."""
    yield
    assert not kv.keys(BREAKPOINTS)
    assert not kv.keys(b"zray/breakpoint")


def listed() -> list[dict[str, Any]]:
    done = subprocess.run([*DEBUG, "--json"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["breakpoints"]
    return found


def waits(number: int = 1) -> list[bytes]:
    """Until so many wait."""
    eventually(lambda: len(kv.keys(BREAKPOINTS)) == number)
    return [key.removeprefix(BREAKPOINTS) for key in kv.keys(BREAKPOINTS)]


def attach(which: object) -> Any:
    terminal = pexpect.spawn(DEBUG[0], [*DEBUG[1:], str(which)], timeout=20, encoding="utf-8")
    terminal.expect(PROMPT)
    return terminal


def say(terminal: Any, command: str, answer: str, prompt: str = PROMPT) -> None:
    terminal.sendline(command)
    terminal.expect(answer)
    terminal.expect(prompt)


@zray.remote(num_cpus=0)
def count(to: int) -> int:
    total = sum(range(to))
    breakpoint()  # noqa: T100
    total += 1000
    return total


@zray.remote(num_cpus=0)
class Counter:
    def __init__(self) -> None:
        self.total = 1

    def add(self, number: int) -> int:
        import zray.util.rpdb

        zray.util.rpdb.set_trace()
        self.total += number
        return self.total


def test_a_task_waits_is_listed_and_goes_on() -> None:
    ref = count.remote(5)
    (task_id,) = waits()
    (one,) = listed()
    assert one["task_id"] == task_id.hex() == ref.id[:16].hex()
    assert (one["function"], one["node"], one["attached"]) == ("count", "head", False)
    assert one["file"] == __file__ and one["pid"] != os.getpid()
    state: Any = get_task(task_id.hex())
    assert (state[0] if isinstance(state, list) else state).is_debugger_paused
    done = subprocess.run(DEBUG, capture_output=True, text=True, timeout=30)
    assert "count" in done.stdout and "test_debug.py:" in done.stdout and "to attach" in done.stdout

    terminal = attach(0)
    say(terminal, "p total", "10")
    assert listed()[0]["attached"]
    say(terminal, "n", "return total")
    say(terminal, "total = 7", "")
    terminal.sendline("c")
    terminal.expect("count goes on")
    assert zray.get(ref, timeout=20) == 7
    assert terminal.wait() == 0


def test_whoever_leaves_may_come_back() -> None:
    ref = count.remote(5)
    waits()
    terminal = attach(ref.id[:16].hex()[:20])
    terminal.sendeof()
    terminal.expect("goes on waiting")
    terminal.wait()
    eventually(lambda: not listed()[0]["attached"])
    terminal = attach(listed()[0]["pid"])
    terminal.kill(signal.SIGKILL)
    terminal.wait()
    eventually(lambda: not listed()[0]["attached"])
    terminal = attach(0)
    say(terminal, "p total", "10")
    terminal.sendline("c")
    assert zray.get(ref, timeout=20) == 1010
    terminal.wait()


def test_an_actors_method_and_its_next_breakpoint() -> None:
    counter = Counter.remote()
    for expected in (3, 5):
        ref = counter.add.remote(2)
        waits()
        assert listed()[0]["function"] == "Counter.add"
        terminal = attach(0)
        say(terminal, "p self.total", str(expected - 2))
        terminal.sendline("c")
        assert zray.get(ref, timeout=20) == expected
        terminal.wait()


def test_stepping_past_the_end_of_a_task_stops_in_no_other() -> None:
    ref = count.remote(5)
    waits()
    terminal = attach(0)
    for answer in ("return total", "--Return--"):
        say(terminal, "n", answer)
    terminal.sendline("n")
    terminal.expect("count goes on")
    assert zray.get(ref, timeout=20) == 1010
    terminal.wait()

    @zray.remote(num_cpus=0)
    def plain() -> bool:
        return sys.gettrace() is None

    assert all(zray.get([plain.remote() for _ in range(8)], timeout=20))


def test_breakpoints_of_the_debuggers_own() -> None:
    @zray.remote(num_cpus=0)
    def loop() -> int:
        breakpoint()  # noqa: T100
        total = 0
        for number in range(3):
            total += number
        return total

    ref = loop.remote()
    waits()
    terminal = attach(0)
    line = listed()[0]["line"] + 2
    say(terminal, f"b {line}", "Breakpoint 1")
    for _ in range(3):
        say(terminal, "c", "total \\+= number")
    say(terminal, "cl 1", "Deleted")
    terminal.sendline("c")
    assert zray.get(ref, timeout=20) == 3
    terminal.wait()


def test_quitting_ends_the_task_with_an_error() -> None:
    ref = count.options(max_retries=0).remote(5)
    waits()
    terminal = attach(0)
    terminal.sendline("q")
    with pytest.raises(zray.exceptions.RayTaskError, match="BdbQuit"):
        zray.get(ref, timeout=20)
    terminal.wait()


@pytest.mark.parametrize("force", [False, True])
def test_a_cancelled_task_waits_no_more(force: bool) -> None:
    ref = count.options(max_retries=0).remote(5)
    waits()
    zray.cancel(ref, force=force)
    with pytest.raises((zray.exceptions.TaskCancelledError, zray.exceptions.WorkerCrashedError)):
        zray.get(ref, timeout=20)
    eventually(lambda: not listed())


def test_what_raises_waits_where_it_has_raised() -> None:
    @zray.remote(num_cpus=0, max_retries=0)
    def fail(number: int) -> float:
        half = number / 2
        return half / 0

    env = {"env_vars": {"ZRAY_DEBUG_POST_MORTEM": "1"}}
    ref = fail.options(runtime_env=env).remote(8)
    waits()
    assert listed()[0]["error"] == "ZeroDivisionError: float division by zero"
    terminal = attach(0)
    say(terminal, "p half", "4.0")
    terminal.sendline("c")
    terminal.expect("fail goes on")
    with pytest.raises(ZeroDivisionError):
        zray.get(ref, timeout=20)
    terminal.wait()


def test_words_that_stand_for_none() -> None:
    assert listed() == []
    for which in ("0", "cafe", "no-such"):
        done = subprocess.run([*DEBUG, which], capture_output=True, text=True, timeout=30)
        assert done.returncode == 2 and "no breakpoint is" in done.stderr
    done = subprocess.run(DEBUG, capture_output=True, text=True, timeout=30)
    assert done.stdout == "no breakpoint waits\n"


def test_where_nothing_can_be_shown() -> None:
    ref = count.remote(3)
    waits()
    command = " ".join(DEBUG)
    attached = subprocess.run(
        f"{command} 0 >&-", shell=True, input="", stderr=subprocess.PIPE, text=True, timeout=30
    )
    assert attached.returncode == 2
    assert "output is closed" in attached.stderr
    assert "Traceback" not in attached.stderr
    unread = subprocess.run(
        f"({command}; echo $? >&2) | true",
        shell=True,
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
    )
    assert unread.stderr == "0\n"
    zray.cancel(ref)
    waits(0)


def test_a_strangers_word_does_not_attach() -> None:
    import msgspec

    from zray.util.channels import LocalDoor
    from zray.util.rpdb import Breakpoint

    ref = count.remote(5)
    (task_id,) = waits()
    raw = kv.get(BREAKPOINTS + task_id)
    assert raw is not None
    one = msgspec.msgpack.decode(raw, type=Breakpoint)
    from zray.runtime.linux import direct

    for word in (b"", b"x" * 100, bytes(36)):
        link = direct.connect(one.member_id)
        assert link is not None
        link.socket.sendall(word)
        link.close()
    door = LocalDoor(os.urandom(16))
    channel = door.connect(one.member_id, 0)  # a member, which says what no debugger is
    assert channel is not None
    channel.send(memoryview(b"\xff" * 1000))
    channel.close()
    door.close()
    eventually(lambda: not listed()[0]["attached"])
    terminal = attach(0)
    terminal.sendline("c")
    assert zray.get(ref, timeout=20) == 1010
    terminal.wait()


def test_from_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import msgspec

    from zray.cli import debug
    from zray.util import far_channels
    from zray.util.debug_stream import ASK, LINE, DebugStream
    from zray.util.rpdb import Breakpoint

    @zray.remote(num_cpus=0, max_calls=1)
    def far(number: int) -> int:
        from zray.util import far_channels

        far_channels.is_loopback = lambda host: False  # as a node with an address for others
        breakpoint()  # noqa: T100
        return number + 1

    ref = far.remote(4)
    (task_id,) = waits()
    monkeypatch.setattr(debug, "own_machine", lambda: "another")
    raw = kv.get(BREAKPOINTS + task_id)
    assert raw is not None
    one = msgspec.msgpack.decode(raw, type=Breakpoint)
    with pytest.raises(ValueError, match="not reached from here"):
        debug._connected(one)
    monkeypatch.setattr(far_channels, "is_loopback", lambda host: False)
    stream = DebugStream(debug._connected(one))
    told = ""
    for command in ("p number * 100", "c"):
        while (frame := stream.receive()) is None or frame[0] != ASK:
            told += frame[1] if frame is not None else ""
        stream.send(LINE, command)
    assert zray.get(ref, timeout=20) == 5
    stream.close()
    assert "attached to far" in told and "400" in told


def test_calls_of_an_async_actor_one_after_the_other() -> None:
    @zray.remote(num_cpus=0)
    class Sleeper:
        async def nap(self, number: int) -> int:
            import asyncio

            breakpoint()  # noqa: T100
            await asyncio.sleep(0.1)
            return number

    actor = Sleeper.remote()
    refs = [actor.nap.remote(number) for number in range(2)]
    first = waits()
    terminal = attach(0)
    terminal.sendline("n")  # to where it awaits, and then the other one stops the loop
    terminal.expect("goes on")
    terminal.wait()
    eventually(lambda: waits() != first)
    terminal = attach(0)
    say(terminal, "p number", "1")
    terminal.sendline("c")
    assert zray.get(refs, timeout=20) == [0, 1]
    terminal.wait()
