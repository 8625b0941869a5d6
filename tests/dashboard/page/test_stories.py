"""One question after the other, asked by command, from Python, by HTTP and on the page: the same
true answer.

The program and its cluster are those of ``conftest``, in which something of everything is.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

import zray
from zray.util import state

pytestmark = pytest.mark.system

COMMAND_S = 60


class Ways:
    """All ways to ask one cluster."""

    def __init__(self, cluster: Any, viewer: Any) -> None:
        self.cluster = cluster
        self.viewer = viewer

    def command(self, *arguments: str) -> Any:
        """What ``zray ... --json`` says."""
        ran = subprocess.run(
            [sys.executable, "-m", "zray", *arguments, "--json", "--address", self.cluster.address],
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        assert ran.returncode in (0, 1), ran.stdout + ran.stderr
        return json.loads(ran.stdout)

    def why(self, kind: str, subject: str) -> list[tuple[str, str]]:
        """The chain of causes, codes and texts, which is the same on all four ways."""
        (by_command,) = self.command("why", subject)
        told = [by_command, zray.why(subject).to_dict(), self.viewer.ask(f"why/{subject}")]
        chains = [[(cause["code"], cause["text"]) for cause in one["causes"]] for one in told]
        assert chains[0] == chains[1] == chains[2]
        self.viewer.go(f"{kind}/{subject}")
        shown = self.viewer.page.locator("#why")
        for code, text in chains[0]:
            expect(shown).to_contain_text(code)
            expect(shown).to_contain_text(text)
        return chains[0]


@pytest.fixture
def ways(cluster: Any, viewer: Any) -> Iterator[Ways]:
    """This process is a driver of the cluster as well."""
    cluster.connect()
    try:
        yield Ways(cluster, viewer)
    finally:
        zray.shutdown()


def test_why_is_it_pending(ways: Any) -> None:
    first, behind = ways.why("tasks", ways.viewer.id_of("tasks", name="report"))
    assert first[0] == "WAIT_DEPS" and "the result of big" in first[1]
    assert behind[0] == "INFEASIBLE" and "no node ever has CPU 64" in behind[1]


def test_why_does_a_placement_group_wait(ways: Any) -> None:
    group_id = ways.viewer.id_of("placement_groups", state="PENDING")
    (only,) = ways.why("placement_groups", group_id)
    assert only[0] == "PENDING" and "bundle 1 needs GPU 1; no node ever has that" in only[1]


def test_why_did_it_die(ways: Any) -> None:
    @zray.remote(num_cpus=0)
    class Doomed:
        def pid(self) -> int:
            return os.getpid()

    doomed = Doomed.options(name="doomed").remote()
    os.kill(zray.get(doomed.pid.remote()), signal.SIGKILL)

    def dead() -> Any:
        found = state.list_actors(filters=[("name", "=", "doomed")], detail=True)
        return found[0] if found[0].state == "DEAD" else None

    actor = ways.cluster.until(dead, 10, "it is dead")
    ((code, text), *_) = ways.why("actors", actor.actor_id)
    assert code == "DEAD" and "SIGKILL" in text
    assert "SIGKILL" in actor.death_cause["error_message"]


def test_why_did_a_task_fail(ways: Any) -> None:
    ((code, text), *_) = ways.why("tasks", ways.viewer.id_of("tasks", name="broken"))
    assert code == "FAILED" and "ValueError: column <b>age</b> is missing" in text


def test_who_holds_the_memory(ways: Any) -> None:
    @zray.remote(num_cpus=0)
    class Keeper:
        def keep(self, values: list[Any]) -> None:
            self.values = values

        def pid(self) -> int:
            return os.getpid()

    keeper, value = Keeper.remote(), zray.put(bytes(7_000_000))
    zray.get(keeper.keep.remote([value]))  # from then on others know of it
    object_id = value.hex()

    def told() -> Any:
        found = state.list_objects(filters=[("object_id", "=", object_id)])
        return found[0] if found and found[0].object_size >= 7_000_000 else None

    by_python = ways.cluster.until(told, 10, "it is told of")
    (by_http,) = ways.viewer.ask(f"objects/{object_id}")["items"]
    (by_command,) = ways.command("get", "objects", object_id)
    holders = {os.getpid(), zray.get(keeper.pid.remote())}
    for one in (by_http, by_command, by_python.__dict__):
        assert one["object_size"] == by_python.object_size
        assert one["pid"] in holders and one["reference_type"] == "LOCAL_REFERENCE"
    ways.viewer.go(f"objects/{object_id}")
    expect(ways.viewer.page.locator("main")).to_contain_text(
        re.compile("|".join(map(str, holders)))
    )
    expect(ways.viewer.page.locator("main")).to_contain_text("6.7 MiB")


def test_what_is_slow(ways: Any) -> None:
    """The task that has been running for longest, and the line where it is."""
    (by_python,) = state.list_tasks(filters=[("state", "=", "RUNNING")])
    (by_command,) = ways.command("list", "tasks", "--filter", "state=RUNNING")["rows"]
    (by_http,) = ways.viewer.ask("tasks?filter=state=RUNNING")["items"]
    assert by_python.task_id == by_command["task_id"] == by_http["task_id"]
    assert by_python.name == "chatter"
    line = re.compile(r"chatter \(program\.py:\d+\)")
    assert line.search(ways.viewer.ask(f"stack/{by_python.task_id}")["stack"])
    assert line.search(json.dumps(ways.command("stack", by_python.task_id)))
    ways.viewer.go(f"tasks/{by_python.task_id}")
    page = ways.viewer.page
    page.get_by_role("button", name="Stack").click()
    expect(page.get_by_role("dialog").get_by_label("Stack")).to_contain_text(line)
    page.keyboard.press("Escape")


STUCK = """
import zray

zray.init()

@zray.remote(num_cpus=64)
def never():
    pass

ref = never.remote()
print("WAITS", flush=True)
zray.get(ref)
"""


def test_is_it_stuck(ways: Any) -> None:
    """A program that waits for what never comes: its job says for what, and why."""
    program = ways.cluster.run("stuck", STUCK)
    try:
        program.says("WAITS")
        (job,) = ways.cluster.until(
            lambda: [
                one
                for one in ways.viewer.ask("jobs?filter=status=RUNNING")["items"]
                if "stuck.py" in one["entrypoint"]
            ],
            10,
            "its job is there",
        )
        chain = ways.why("jobs", job["job_id"])
        assert any("no node ever has CPU 64" in text for _, text in chain), chain
    finally:
        program.kill()
