"""``zray list``, ``get`` and ``summary``: tables for people, JSON for programs, nothing obeyed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.cli.conftest import until

WORK = """
import sys, time
import zray
zray.init(sys.argv[1])
@zray.remote(name="evil\\x1b[31m[bold]<script>")
def fails():
    raise ValueError("\\x1b]0;title\\x07[red]")
@zray.remote
def works():
    pass
@zray.remote
class Counter:
    def ready(self):
        pass
counter = Counter.options(name="tally").remote()
zray.get(counter.ready.remote())
zray.get([works.remote() for _ in range(20)])
zray.wait([fails.remote()])
print("done", flush=True)
time.sleep(600)
"""


@pytest.fixture
def worked(commands: Any) -> Any:
    """A cluster whose driver has done all that and is still there."""
    head = commands.head()
    driver = commands.drive(WORK, head.address())
    driver.says("done")
    until(lambda: "FAILED" in commands.run("zray", "list", "tasks").stdout, "the failure is listed")
    return head


def rows(commands: Any, *arguments: str) -> list[dict[str, Any]]:
    ran = commands.run("zray", "list", *arguments, "--json")
    found: list[dict[str, Any]] = json.loads(ran.stdout)["rows"]
    return found


def test_names_are_never_obeyed(commands: Any, worked: Any) -> None:
    for arguments in (
        *(("list", "tasks"), ("list", "tasks", "--detail"), ("summary", "tasks")),
        ("get", "task", rows(commands, "tasks", "--filter", "state=FAILED")[0]["task_id"]),
    ):
        ran = commands.run("zray", *arguments)
        assert "\x1b" not in ran.stdout and "\x07" not in ran.stdout
        assert r"evil\x1b[31m[bold]<script>" in ran.stdout
    (failed,) = rows(commands, "tasks", "--filter", "state=FAILED", "--detail")
    assert failed["name"] == "evil\x1b[31m[bold]<script>"
    assert failed["error_message"] == "ValueError: \x1b]0;title\x07[red]"


def test_lists_of_each_kind_say_how_many_there_are(commands: Any, worked: Any) -> None:
    for kind, heading in (
        *(("tasks", "TASK ID"), ("actors", "ACTOR ID"), ("objects", "OBJECT ID")),
        *(("nodes", "NODE ID"), ("workers", "WORKER ID"), ("jobs", "JOB ID"), ("events", "TIME")),
    ):
        said = commands.run("zray", "list", kind).stdout
        assert said.startswith(heading), said
        count = int(said.strip().rsplit("\n", 1)[-1].split()[0])
        assert count == len(rows(commands, kind))


def test_filters_limits_and_what_is_not_there(commands: Any, worked: Any) -> None:
    assert len(rows(commands, "tasks", "--filter", "name=works", "--limit", "7")) == 7
    mixed = rows(commands, "tasks", "--filter", "name!=works", "--filter", "type=NORMAL_TASK")
    assert [row["name"] for row in mixed] == ["evil\x1b[31m[bold]<script>"]
    none = commands.run("zray", "list", "tasks", "--filter", "name=nobody")
    assert none.stdout.startswith("no tasks of ")
    wrong = commands.run("zray", "list", "tasks", "--filter", "colour=red", code=2)
    assert "'colour'" in wrong.stderr and "worker_id" in wrong.stderr
    wrong = commands.run("zray", "list", "tasks", "--filter", "colour", code=2)
    assert "state=FAILED" in wrong.stderr
    wrong = commands.run("zray", "list", "things", code=2)
    assert "tasks" in wrong.stderr


def test_one_thing_with_all_that_is_known_of_it(commands: Any, worked: Any) -> None:
    (actor,) = rows(commands, "actors")
    said = commands.run("zray", "get", "actor", actor["actor_id"]).stdout
    for text in ("Counter", "tally", "ALIVE", actor["actor_id"]):
        assert text in said
    found = json.loads(commands.run("zray", "get", "actors", actor["actor_id"], "--json").stdout)
    assert found[0]["name"] == "tally" and found[0]["num_restarts"] == 0
    unknown = commands.run("zray", "get", "task", "00" * 16, code=1)
    assert "not known" in unknown.stdout
    wrong = commands.run("zray", "get", "task", "xyz", code=2)
    assert "zray list tasks" in wrong.stderr


def test_summaries(commands: Any, worked: Any) -> None:
    found = json.loads(commands.run("zray", "summary", "tasks", "--json").stdout)["summary"]
    assert found["works"]["state_counts"] == {"FINISHED": 20}
    found = json.loads(commands.run("zray", "summary", "actors", "--json").stdout)["summary"]
    assert found["Counter"]["state_counts"] == {"ALIVE": 1}
    said = commands.run("zray", "summary", "objects").stdout
    assert "ACTOR_HANDLE" in said and "1 objects" in said
    commands.run("zray", "summary", "nodes", code=2)


def test_watching_goes_on_until_it_is_interrupted(commands: Any, worked: Any) -> None:
    command = [sys.executable, "-m", "zray", "list", "nodes", "--json", "--watch", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ}) as watch:
        assert watch.stdout is not None
        seen = [json.loads(watch.stdout.readline())["rows"] for _ in range(3)]
        watch.send_signal(signal.SIGINT)
        assert watch.wait(10) == 130
    assert all(rows[0]["node_name"] == "head" for rows in seen)


def test_colours_are_for_terminals_and_only_where_they_are_wanted(
    commands: Any, worked: Any
) -> None:
    def seen(**environment: str) -> bytes:
        ours, theirs = os.openpty()
        command = [sys.executable, "-m", "zray", "list", "tasks"]
        given = {**os.environ, "TERM": "xterm-256color", **environment}
        with subprocess.Popen(command, stdout=theirs, env=given) as process:
            os.close(theirs)
            data = b""
            while True:
                try:
                    more = os.read(ours, 65536)
                except OSError:
                    break
                if not more:
                    break
                data += more
            assert process.wait(10) == 0
        os.close(ours)
        return data

    assert b"\x1b[31m" in seen()
    assert b"\x1b[31m" not in seen(NO_COLOR="1")
    assert b"\x1b]0;" not in seen()


def test_without_a_head_it_says_so(commands: Any) -> None:
    ran = commands.run("zray", "list", "tasks", "--address", "127.0.0.1:9", code=2)
    assert "ZR-1405" in ran.stderr and not ran.stdout
    where = ("--json", "--address", "127.0.0.1:9")
    ran = commands.run("zray", "summary", "tasks", *where, code=2)
    assert json.loads(ran.stdout)["error"]["code"] == "ZR-1405"


def test_help_stays_fast() -> None:
    code = (
        "import sys, zray.cli.main; "
        "print([name for name in ('zmq', 'rich', 'dataclasses') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "zmq" not in ran.stdout and "rich" not in ran.stdout
