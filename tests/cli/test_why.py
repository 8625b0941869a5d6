"""``zray why``: the same for people and for programs, whatever it is asked about."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from tests.cli.conftest import until


def test_why(commands: Any, waiting: Any) -> None:
    def reason(name: str) -> str:
        return str(commands.run("zray", "why", waiting[name][0]).stdout)

    until(lambda: reason("never0").startswith("INFEASIBLE"), "it is infeasible")
    until(lambda: reason("runs").startswith("LEASED: runs is with node head"), "it runs")
    assert reason("never0").startswith("INFEASIBLE: needs CPU 100, rare 0.5;")
    assert "    head: never: has 1 CPU in all, needs 100, has 0 rare" in reason("never0")
    assert "    what would help: add a node that has it" in reason("never0")
    assert reason("after").startswith("WAIT_DEPS: after waits for 1 of its arguments")
    assert "<- task runs: LEASED: runs is with node head" in reason("after")
    assert "WAIT_RESOURCES" in reason("next")
    assert reason("done").startswith("READY: ")


def test_why_for_programs(commands: Any, waiting: Any) -> None:
    def answers() -> Any:
        asked = (waiting["after"][0], "head", waiting["done"][0])
        return json.loads(commands.run("zray", "why", "--json", *asked).stdout)

    def runs() -> Any:
        found = answers()
        return found if found[0]["causes"][-1]["code"] == "RUNNING" else None

    after, node, done = until(runs, "it runs")
    assert after["subject"] == waiting["after"][0]
    assert [one["code"] for one in after["causes"]] == ["WAIT_DEPS", "LEASED", "RUNNING"]
    assert [one["kind"] for one in after["causes"]] == ["task", "task", "attempt"]
    assert set(after["causes"][0]) == {
        *("kind", "id", "name", "code", "text", "since_s", "details", "more", "advice"),
    }
    assert after["causes"][1]["since_s"] >= 0
    assert (node["causes"][0]["kind"], node["causes"][0]["code"]) == ("node", "ALIVE")
    assert done["causes"][0]["code"] == "READY"


def test_why_takes_several_and_what_repr_shows(commands: Any, waiting: Any) -> None:
    names = ("never0", "after")
    first = waiting["never0"][0]
    until(lambda: "INFEASIBLE" in commands.run("zray", "why", first).stdout, "it is infeasible")

    said = commands.run("zray", "why", *(waiting[name][1] for name in names)).stdout

    lines = [line for line in said.splitlines() if not line.startswith(" ")]
    assert [line.split(": ")[0] for line in lines] == [waiting[name][0] for name in names]


def test_why_of_a_job_by_the_beginning_of_its_id(commands: Any, waiting: Any) -> None:
    (job,) = commands.status()["jobs"]

    said = commands.run("zray", "why", job["job_id"][:8]).stdout

    assert said.startswith(f"RUNNING: job {job['job_id'][:8]} (1.py), pid {job['pid']} on ")
    assert "    3: INFEASIBLE: needs CPU 100, rare 0.5;" in said
    assert "    1: WAIT_DEPS: for their arguments" in said or "WAIT_DEPS" in said


def test_why_of_what_nobody_knows(commands: Any) -> None:
    commands.head()

    said = commands.run("zray", "why", "00" * 20, code=1).stdout
    assert said.startswith("UNKNOWN: the head has not been told of object 0000")
    said = commands.run("zray", "why", "00" * 16, code=1).stdout
    assert said.startswith("UNKNOWN: the head has not been told of 0000")
    said = commands.run("zray", "why", "evil\x1b[2J", code=1).stdout
    assert said.startswith("UNKNOWN: nothing here has the id or name 'evil\\x1b[2J'")
    assert "\x1b" not in said


def test_why_of_what_can_be_no_name(commands: Any) -> None:
    for text in ("", "x" * 257):
        said = commands.run("zray", "why", text, code=2).stderr
        assert "is no id or name, which has 1 to 256 characters" in " ".join(said.split())


def test_why_without_a_head(commands: Any) -> None:
    assert "ZR-1500" in commands.run("zray", "why", "00" * 20, code=1).stderr
    said = commands.run("zray", "why", "--json", "00" * 20, code=1).stdout
    assert json.loads(said)["error"]["code"] == "ZR-1500"


def test_a_word_that_is_no_text_is_refused_at_once(commands: Any, waiting: Any) -> None:
    for command in (("why",), ("stack",), ("metrics", "show"), ("drain", "head", "--reason")):
        done = subprocess.run(
            [*commands.line("zray", *command), b"a\xff"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=40,
        )
        assert done.returncode and b"ZR-2010" in done.stderr, (command, done.stderr)
        assert b"Traceback" not in done.stderr
