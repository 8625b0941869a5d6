"""Commands that reach a running process or a node, as people call them, on real clusters."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cli.conftest import suspend, until

PROGRAM = """
import os, sys, time
import zray
zray.init(sys.argv[1])

@zray.remote(num_cpus=0, resources={"w1": 0.1})
class Counter:
    def __init__(self):
        print("a counter")
    def say(self, text, times=1):
        for _ in range(times):
            print(text)
        return os.getpid()
    def raw(self, data):
        os.write(1, data)

@zray.remote(resources={"w1": 0.1})
def busy(seconds):
    print("busy now", flush=True)
    deadline = time.time() + seconds
    while time.time() < deadline:
        sum(range(1000))

counter = Counter.options(name="the counter").remote()
print("counter", counter._actor_id.hex(), zray.get(counter.say.remote("hello")), flush=True)
task = busy.remote(600)
print("task", task.hex(), flush=True)
for line in sys.stdin:
    words = line.split()
    if words[0] == "say":
        zray.get(counter.say.remote(words[1] * int(words[2]), int(words[3])))
    elif words[0] == "raw":
        zray.get(counter.raw.remote(bytes.fromhex(words[1])))
    elif words[0] == "get":
        try:
            print("got", zray.get(task))
        except Exception as error:
            print("raised", type(error).__name__)
    print("done", *words[:1], flush=True)
"""


class Talking:
    """A cluster with one node beside the head's, and a program on it that does as it is told."""

    def __init__(self, commands: Any) -> None:
        self.commands = commands
        self.head = commands.head("--num-cpus", 0)
        self.address = self.head.address()
        self.node = commands.worker(
            *("--name", "w1", "--address", self.address, "--resources", "w1=1")
        )
        path = commands.home / "program.py"
        path.write_text(PROGRAM)
        self.output = commands.home / "program.out"
        with self.output.open("wb") as output:
            self.program = subprocess.Popen(
                [sys.executable, str(path), self.address],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        _, self.actor, self.pid = self.says("counter ").split()
        self.task = self.says("task ").split()[1]
        self.says("busy now")

    def says(self, text: str) -> str:
        def probe() -> str | None:
            found = [line for line in self.output.read_text().splitlines() if text in line]
            return found[0] if found else None

        return until(probe, f"{text!r} in {self.output.read_text()!r}")

    def tell(self, *words: object) -> None:
        assert self.program.stdin is not None
        before = self.output.read_text().count("done")
        self.program.stdin.write(" ".join(map(str, words)).encode() + b"\n")
        self.program.stdin.flush()
        until(lambda: self.output.read_text().count("done") > before, f"{words} is done")

    def run(self, *options: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        done: subprocess.CompletedProcess[str] = self.commands.run("zray", *options, code=code)
        return done

    def close(self) -> None:
        assert self.program.stdin is not None
        self.program.stdin.close()
        self.program.wait(20)


@pytest.fixture
def talking(commands: Any) -> Any:
    found = Talking(commands)
    yield found
    found.close()


# ---- logs ------------------------------------------------------------------------------------


def test_logs_of_everything_from_anywhere(talking: Talking) -> None:
    listed = json.loads(talking.run("logs", "--json").stdout)
    mine = next(one for one in listed if one["title"] == "Counter")
    assert (mine["node"], str(mine["pid"]), mine["alive"]) == ("w1", talking.pid, True)
    table = talking.run("logs").stdout
    assert mine["name"] in table and "busy" in table

    words = ("the counter", talking.actor, talking.actor[:10], talking.pid, mine["worker_id"])
    for word in words:
        assert talking.run("logs", word).stdout == "a counter\nhello\n", word
    for kind, word in (("actor", "the counter"), ("worker", talking.pid)):
        assert talking.run("logs", f"--{kind}", word).stdout == "a counter\nhello\n"
    assert talking.run("logs", "the counter", "--tail", 1).stdout == "hello\n"
    assert talking.run("logs", "the counter", "--tail", 0).stdout == ""
    lines = talking.run("logs", "the counter", "--json").stdout.splitlines()
    assert [json.loads(line)["line"] for line in lines] == ["a counter", "hello"]
    assert "READY" in talking.run("logs", "--node", "w1").stdout
    assert "READY" in talking.run("logs", "--head").stdout
    assert talking.run("logs", "--task", talking.task).stdout == "busy now\n"
    job = json.loads(talking.run("status", "--json").stdout)["jobs"][0]["job_id"]
    told = talking.run("logs", "--job", job[:8]).stdout
    assert f"(Counter pid={talking.pid}) hello" in told and "busy now" in told


def test_logs_that_are_not_there(talking: Talking) -> None:
    for word in ("nobody", "99999999", "ff" * 16, "../../etc/passwd", "\x1b[31m"):
        said = talking.run("logs", word, code=1).stderr
        assert "ZR-5101" in said and "\x1b" not in said
    assert "ZR-5101" in talking.run("logs", "--actor", "w1", code=1).stderr
    error = json.loads(talking.run("logs", "nobody", "--json", code=1).stdout)["error"]
    assert error["code"] == "ZR-5101"
    assert "name one" in talking.run("logs", "a", "--head", code=2).stderr
    assert "say whose" in talking.run("logs", "--follow", code=2).stderr


def test_logs_follow_what_comes_whatever_it_is(talking: Talking, tmp_path: Path) -> None:
    output = tmp_path / "followed"
    line = talking.commands.line("zray", "logs", "--follow", "the counter", "--tail", 1)
    with output.open("wb") as file:
        follower = subprocess.Popen(line, stdout=file)
    try:
        until(lambda: output.read_bytes() == b"hello\n", "it begins with the last line")
        every = bytes(range(256))
        talking.tell("raw", every.hex())
        until(lambda: output.read_bytes() == b"hello\n" + every, "all bytes as they were")
        talking.tell("say", "x", 2_000_000, 1)  # one line of 2 MB
        until(lambda: len(output.read_bytes()) == 6 + 256 + 2_000_001, "a huge line")
    finally:
        follower.send_signal(signal.SIGINT)
        assert follower.wait(10) == 130


def test_a_follower_that_does_not_read_makes_nobody_keep_anything(talking: Talking) -> None:
    line = talking.commands.line("zray", "logs", "-f", "the counter")
    follower = subprocess.Popen(line, stdout=subprocess.PIPE)
    assert follower.stdout is not None
    daemons = [psutil.Process(talking.head.pid), psutil.Process(talking.node.pid)]
    try:
        assert follower.stdout.readline() == b"a counter\n"
        talking.tell("say", "warm", 100, 20_000)
        before = [one.memory_info().rss for one in daemons]
        for _ in range(5):
            talking.tell("say", "line", 250, 20_000)  # 20 MB each
        after = [one.memory_info().rss for one in daemons]
        grown = [b - a for a, b in zip(before, after, strict=True)]
        assert max(grown) < 30 << 20, grown
        follower.stdout.readline()
    finally:
        follower.kill()
        follower.stdout.close()
        follower.wait(10)


def test_following_goes_on_with_the_next_head(talking: Talking, tmp_path: Path) -> None:
    output = tmp_path / "followed"
    line = talking.commands.line("zray", "logs", "--follow", "the counter", "--tail", 1)
    with output.open("wb") as file:
        follower = subprocess.Popen(line, stdout=file, stderr=subprocess.DEVNULL)
    try:
        until(lambda: output.read_bytes() == b"hello\n", "it begins")
        talking.head.end(signal.SIGKILL)
        port = talking.address.rpartition(":")[2]
        talking.head = talking.commands.start("zray-head", "--port", port, "--num-cpus", 0)
        talking.commands.node("w1")
        talking.tell("say", "again", 1, 1)
        until(lambda: output.read_bytes() == b"hello\nagain\n", "it goes on")
    finally:
        follower.send_signal(signal.SIGINT)
        follower.wait(10)


def test_a_reader_that_has_enough_ends_it(talking: Talking) -> None:
    talking.tell("say", "line", 250, 20_000)
    line = " ".join(talking.commands.line("zray", "logs", "'the counter'"))
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line} | head -n 2"], capture_output=True, timeout=40
    )
    assert done.stdout == b"a counter\nhello\n" and b"Traceback" not in done.stderr


TASKS = """
import sys, zray
zray.init(sys.argv[1])
@zray.remote
def says(number):
    print("number", number)
    print("error", number, file=sys.stderr)
    if number % 2:
        print("and no end of line", end="", flush=True)
@zray.remote
class Echo:
    async def say(self, text):
        import asyncio
        print(text, 1)
        await asyncio.sleep(0.3)
        print(text, 2)
refs = [says.remote(number) for number in range(40)]
zray.get(refs)
echo = Echo.remote()
calls = [echo.say.remote(text) for text in ("a", "b")]
zray.get(calls)
print("ids", *(ref.hex() for ref in (*refs, *calls)), flush=True)
sys.stdin.read()
"""


def test_each_task_has_its_own_lines(commands: Any) -> None:
    """Also of those that go straight to leased workers, one after the other in one process."""
    head = commands.head("--num-cpus", 2)
    driver = commands.drive(TASKS, head.address())
    driver.says("ids")
    ids = next(line for line in driver.text().splitlines() if line.startswith("ids")).split()[1:]
    for number in (0, 7, 39):
        said = commands.run("zray", "logs", "--task", ids[number]).stdout
        assert f"number {number}\n" in said and f"error {number}\n" in said
        assert said.count("number") == said.count("error") == 1
        assert ("no end" in said) == bool(number % 2)
    for text, ref in zip("ab", ids[-2:], strict=True):
        assert commands.run("zray", "logs", ref).stdout == f"{text} 1\n{text} 2\n"
    assert "\x1e" not in driver.text() and "zray-task" not in driver.text()
    assert "ZR-5101" in commands.run("zray", "stack", ids[0], code=1).stderr  # it has ended


# ---- stack and profile -----------------------------------------------------------------------


def test_where_a_process_is_and_its_flame_graph(talking: Talking, tmp_path: Path) -> None:
    assert "busy (program.py" in talking.run("stack", talking.task).stdout
    assert "Loop.turn" in talking.run("stack").stdout  # of the head
    assert "RayletNode.run" in talking.run("stack", "w1").stdout
    found = json.loads(talking.run("stack", talking.actor, "--json").stdout)
    assert found["title"] == "Counter" and str(found["pid"]) == talking.pid
    assert "ActorServer" in found["stack"]

    graph = tmp_path / "graph.svg"
    talking.run("profile", talking.task, "--seconds", 1, "-o", graph)
    text = graph.read_text()
    assert "<svg" in text and "busy (program.py" in text
    with contextlib.ExitStack() as stack:  # the head has something to do meanwhile
        over = threading.Event()

        def ask() -> None:
            while not over.is_set():
                talking.run("list", "nodes")

        asking = threading.Thread(target=ask)
        stack.callback(asking.join)
        stack.callback(over.set)
        asking.start()
        talking.run("profile", "head", "--seconds", 3, "-o", graph)
    assert "Loop.turn" in graph.read_text()
    assert "ZR-5101" in talking.run("profile", "nobody", code=1).stderr
    left = [one for one in psutil.Process(talking.node.pid).children() if "py-spy" in one.name()]
    assert not left


def test_a_head_that_does_not_answer_is_looked_at_where_it_is(commands: Any) -> None:
    head = commands.head("--num-cpus", 0)
    process = psutil.Process(head.pid)
    suspend(process)
    try:
        done = commands.run("zray", "stack")
        assert "Loop.turn" in done.stdout and "ZR-15" in done.stderr
    finally:
        process.resume()


def test_a_worker_says_itself_where_the_tool_is_not_there(commands: Any, tmp_path: Path) -> None:
    """Its node was started by a Python that has no py-spy beside it."""
    head = commands.head("--num-cpus", 0)
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(os.path.realpath(sys.executable))
    packages = [path for path in sys.path if path.endswith("site-packages")]
    paths = os.pathsep.join([os.environ["PYTHONPATH"], *packages])
    line = ("-m", "zray.cli.worker", "--num-cpus", "1", "--name", "bare")
    node = subprocess.Popen(
        [str(python), *line, "--address", head.address()],
        env={**os.environ, "PYTHONPATH": paths, "PATH": "/usr/bin:/bin"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        commands.node("bare")
        driver = commands.drive(
            """
            import sys, time, zray
            zray.init(sys.argv[1])
            @zray.remote
            def sleeps():
                print("asleep", flush=True)
                time.sleep(600)
            task = sleeps.remote()
            print("task", task.hex(), flush=True)
            zray.get(task)
            """,
            head.address(),
        )
        driver.says("asleep")
        task = re.search(r"task (\w+)", driver.text())
        assert task is not None
        done = commands.run("zray", "stack", task[1])
        assert "in sleeps" in done.stdout and "zray[profile]" in done.stderr
        said = commands.run("zray", "profile", task[1], "--seconds", 1, "-o", "-", code=1).stderr
        assert "ZR-5104" in said and 'pip install "zray[profile]"' in said
        assert "ZR-5104" in commands.run("zray", "stack", "bare", code=1).stderr
    finally:
        node.terminate()
        node.wait(15)


def test_a_timeline_of_what_has_run(talking: Talking, tmp_path: Path) -> None:
    talking.tell("say", "x", 1, 1)
    path = tmp_path / "trace.json"
    assert str(path) in talking.run("timeline", path).stdout
    events = json.loads(path.read_text())
    assert {"say"} <= {one["name"] for one in events} and all(one["ph"] == "X" for one in events)
    assert {one["pid"] for one in events} == {"w1 (127.0.0.1)"}
    again = json.loads(talking.run("timeline", "-").stdout)
    assert [one["args"] for one in again] == [one["args"] for one in events]


# ---- kill ------------------------------------------------------------------------------------


def test_kill_ends_what_is_named_and_nothing_else(talking: Talking) -> None:
    assert "zray drain w1" in talking.run("kill", "w1", code=1).stderr
    assert "ZR-5101" in talking.run("kill", "nobody", code=1).stderr
    assert "ZR-5101" in talking.run("kill", "ff" * 16, code=1).stderr
    assert talking.run("kill", talking.task).stdout.startswith("Killed task busy")
    talking.tell("get")
    assert "raised TaskCancelledError" in talking.output.read_text()
    worker = talking.run("kill", talking.pid, "--json").stdout
    assert json.loads(worker)["title"] == "Counter"
    until(lambda: not psutil.pid_exists(int(talking.pid)), "the worker ends")
    assert "killed with zray kill" in until(
        lambda: talking.run("kill", talking.actor, code=1).stderr, "its actor is dead"
    )
    status = json.loads(talking.run("status", "--json").stdout)
    assert [node["state"] for node in status["nodes"]] == ["ALIVE", "ALIVE"]


def test_kill_ends_a_task_that_only_its_driver_knows(commands: Any) -> None:
    head = commands.head("--num-cpus", 2)
    driver = commands.drive(
        """
        import sys, time, zray
        zray.init(sys.argv[1])
        @zray.remote
        def sleeps(seconds):
            print("asleep for", seconds, flush=True)
            time.sleep(seconds)
        zray.get([sleeps.remote(0.001) for _ in range(20)])
        task = sleeps.remote(600)
        print("task", task.hex(), flush=True)
        try:
            zray.get(task)
        except zray.exceptions.TaskCancelledError:
            print("it was cancelled", flush=True)
        """,
        head.address(),
    )
    driver.says("asleep for 600")
    task = re.search(r"task (\w+)", driver.text())
    assert task is not None
    commands.run("zray", "kill", task[1])
    driver.says("it was cancelled")


def test_kill_ends_an_actor_for_good(talking: Talking) -> None:
    assert "Counter" in talking.run("kill", "the counter").stdout
    until(lambda: not psutil.pid_exists(int(talking.pid)), "its worker ends")
    assert not json.loads(talking.run("status", "--json").stdout)["actors"]


# ---- drain -----------------------------------------------------------------------------------


def test_drain_empties_a_node_which_then_ends(talking: Talking) -> None:
    assert "ZR-5106" in talking.run("drain", "head", code=1).stderr
    assert "ZR-5101" in talking.run("drain", "nobody", code=1).stderr
    talking.run("drain", "w1", "--reason", "new \x1b[31mkernel")
    shown = talking.run("status", code=0).stdout
    assert "DRAINING" in shown and "new \\x1b[31mkernel" in shown and "\x1b" not in shown
    assert "waits for 1 task, 1 actor" in shown
    talking.run("kill", talking.task)
    talking.run("kill", "the counter")
    talking.node.process.wait(10)
    assert talking.node.process.returncode == 0
    assert "stopped: drained: new" in talking.node.text()


def test_drain_with_a_deadline_ends_what_runs(talking: Talking) -> None:
    talking.run("drain", "w1", "--deadline", 1, "--wait")
    talking.node.process.wait(10)
    assert [one["name"] for one in talking.commands.status()["nodes"]] == ["head"]
    assert talking.commands.status()["queue"]  # the task is to be tried again, elsewhere


# ---- debug dump ------------------------------------------------------------------------------


def test_a_dump_has_what_is_needed_and_no_secret(talking: Talking, tmp_path: Path) -> None:
    talking.tell("raw", b"password=hunter2hunter2 AKIAABCDEFGHIJKLMNOP\n".hex())
    connection = json.loads(
        (talking.commands.home / "clusters" / "default" / "connection.json").read_text()
    )
    path = tmp_path / "dump.tar.gz"
    environment = {"MY_API_TOKEN": "value-of-a-variable"}
    talking.tell("raw", b"value-of-a-variable\n".hex())
    talking.commands.run("zray", "debug", "dump", "--output", path, **environment)
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as archive:
        files = {one.name: archive.extractfile(one).read() for one in archive if one.isfile()}  # type: ignore[union-attr]
    names = " ".join(files)
    for wanted in ("status.json", "versions.json", "README.txt", "head/stack.txt", "node.log"):
        assert wanted in names
    everything = b"\n".join(files.values())
    assert b"a counter" in everything and b"RayletNode.run" in everything
    secrets = [connection[name] for name in ("client_secret", "client_public", "server_public")]
    secrets += ["hunter2hunter2", "AKIAABCDEFGHIJKLMNOP", "value-of-a-variable"]
    for secret in secrets:
        assert secret.encode() not in everything
    assert "is there already" in talking.run("debug", "dump", "-o", path, code=1).stderr


# ---- all of them -----------------------------------------------------------------------------


def test_without_a_head_all_say_so(commands: Any) -> None:
    for words in (
        *(
            ["logs"],
            ["logs", "x"],
            ["stack"],
            ["profile", "x"],
            ["timeline", "-"],
            ["kill", "x"],
            ["drain", "x"],
        ),
        ["debug", "dump"],
    ):
        said = commands.run("zray", *words, code=1).stderr
        assert "ZR-15" in said, words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_there_for_each_shell(commands: Any, shell: str) -> None:
    assert "_ZRAY_COMPLETE" in commands.run("zray", "completion", shell).stdout


def test_completion_is_fast_and_loads_no_network_library() -> None:
    source = (
        "import sys; from zray.cli.main import command\n"
        "try:\n    command(prog_name='zray')\n"
        "finally:\n"
        "    print({'zmq', 'msgspec', 'psutil'} & set(sys.modules), file=sys.stderr)\n"
    )
    asked = {"_ZRAY_COMPLETE": "bash_complete", "COMP_WORDS": "zray logs --f", "COMP_CWORD": "2"}
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        env={**os.environ, **asked},
        timeout=20,
    )
    assert done.stdout == "plain,--follow\n" and "set()" in done.stderr
    assert time.monotonic() - begun < 5
