"""``zray job``: what it submits, shows and returns."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real_cluster import Cluster, until
from zray.errors import JobExistsError, JobNotFoundError

RUN_S = 30.0


class Shell:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "zray", "job", arguments[0]]
        command += ["--address", self.cluster.address, *arguments[1:]]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, **options)

    def __call__(self, *arguments: str, code: int = 0) -> str:
        ran = self.start(*arguments)
        out, err = ran.communicate(timeout=RUN_S)
        assert ran.returncode == code, out + err
        return out + err

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(arguments[0], "--json", *arguments[1:], code=code))


@pytest.fixture(scope="module")
def shell(_module_leaves_nothing: Path) -> Iterator[Shell]:
    cluster = Cluster(_module_leaves_nothing)
    try:
        cluster.start_head()
        yield Shell(cluster)
    finally:
        cluster.close()


def test_what_it_prints_is_shown_until_it_has_ended(shell: Shell) -> None:
    text = shell(
        "submit", "--submission-id", "shown", "--", "sh", "-c", "echo out; sleep 0.2; echo 'a  b'"
    )
    assert "Job 'shown' submitted successfully" in text
    assert "\nout\na  b\nJob 'shown' succeeded\n" in text
    assert shell("logs", "shown") == "out\na  b\n"
    assert shell("logs", "--follow", "shown").startswith("out\na  b\nJob 'shown'")
    assert shell("status", "shown") == "Job 'shown' succeeded\n"


def test_the_exit_code_says_whether_it_has_failed(shell: Shell) -> None:
    text = shell("submit", "--", "sh", "-c", "echo oops; exit 7", code=1)
    assert "failed" in text and "exit code 7" in text


def test_options_are_the_jobs(shell: Shell, tmp_path: Path) -> None:
    environment = tmp_path / "env.json"
    environment.write_text('{"env_vars": {"A": "from a file"}}')
    shell(
        *("submit", "--submission-id", "chosen", "--runtime-env", str(environment)),
        *("--metadata-json", '{"team": "x"}', "--working-dir", str(tmp_path), "--", "sh", "-c"),
        'echo "$A"; ls',
    )
    found = shell.json("status", "chosen")
    assert found["metadata"] == {"team": "x"} and found["driver_exit_code"] == 0
    assert shell("logs", "chosen") == "from a file\nenv.json\n"
    assert shell.json("logs", "chosen") == {"logs": "from a file\nenv.json\n"}


def test_one_that_runs_is_listed_stopped_and_forgotten(shell: Shell) -> None:
    text = shell("submit", "--no-wait", "--submission-id", "long", "--", "sleep", "60")
    assert "zray job stop long" in text and "Tailing" not in text
    until(lambda: shell.json("status", "long")["status"] == "RUNNING", RUN_S, "it runs")
    assert "sleep 60" in shell("list")
    assert "non-terminal" in shell("delete", "long", code=1)
    assert shell("stop", "long").endswith("Job 'long' was stopped\n")
    assert "had ended already" in shell("stop", "long")
    assert shell.json("delete", "long") == {"deleted": True}
    assert "long" not in [one["submission_id"] for one in shell.json("list")]


def test_without_an_output_commands_do_what_they_do(shell: Shell) -> None:
    shell("submit", "--submission-id", "silent", "--", "echo", "hello")
    for words in ("logs silent", "logs --follow silent", "submit -- true", "list"):
        command, *arguments = words.split()
        words = f"{sys.executable} -m zray job {command} --address {shell.cluster.address}"
        line = f"{words} {' '.join(arguments)} >&-"
        ran = subprocess.run(line, shell=True, capture_output=True, timeout=RUN_S)
        assert (ran.returncode, ran.stderr) == (0, b"")


def test_ctrl_c_ends_the_watching_and_not_the_job(shell: Shell) -> None:
    command = ("submit", "--submission-id", "watched", "--", "sh", "-c", "echo began; sleep 60")
    ran = shell.start(*command)
    assert ran.stdout is not None
    while ran.stdout.readline() != "began\n":
        assert ran.poll() is None
    ran.send_signal(signal.SIGINT)
    _, err = ran.communicate(timeout=RUN_S)
    assert ran.returncode == 130 and "goes on" in err
    assert shell.json("status", "watched")["status"] == "RUNNING"
    assert shell.json("stop", "watched") == {"stopped": True, "status": "STOPPED"}


def test_a_file_that_is_nested_without_end_has_no_environment(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    command = ("submit", "--runtime-env", str(tmp_path / "deep.json"), "--", "true")
    assert "has no runtime_env" in shell(*command, code=2)


def test_what_there_is_not_or_cannot_be(shell: Shell) -> None:
    for command in ("status", "logs", "stop", "delete"):
        assert JobNotFoundError.code in shell(command, "nothing", code=1)
    assert shell.json("status", "nothing", code=1)["error"]["code"] == JobNotFoundError.code
    shell("submit", "--submission-id", "once", "--", "true")
    refused = shell("submit", "--submission-id", "once", "--", "true", code=1)
    assert JobExistsError.code in refused
    assert "JSON object" in shell("submit", "--metadata-json", "5", "--", "true", code=2)
    assert "only one" in shell(
        "submit", "--runtime-env-json", "{}", "--runtime-env", "/dev/null", "--", "true", code=2
    )
    assert "submission_id" in shell("submit", "--submission-id", "a b", "--", "true", code=1)


def test_a_head_that_is_not_there_is_said() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "zray", "job", "list", "--address", "127.0.0.1:9"],
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert ran.returncode == 1 and ran.stderr.startswith("zray: ")
