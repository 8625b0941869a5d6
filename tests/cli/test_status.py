"""``zray status``: right, complete, and quick where there is nothing to see."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from zray.cli.status import NAMED_MAX, versions

# ---- status --------------------------------------------------------------------------------


def test_status_for_programs(commands: Any) -> None:
    head = commands.head("--name", "lab")
    commands.node("head")

    view = commands.status()
    assert set(view) == {
        *("health", "cluster", "nodes", "jobs", "actors", "queue", "objects", "notices"),
        *("counters", "placement_groups", "heads"),
    }
    cluster = view["cluster"]
    assert set(cluster) == {"id", "name", "address", "host", "pid", "started", "zray"}
    assert (cluster["name"], cluster["pid"]) == ("lab", head.pid)
    assert cluster["address"] == head.address()
    assert 0 <= time.time() - cluster["started"] < 60
    (node,) = view["nodes"]
    assert set(node) == {
        *("node_id", "incarnation", "name", "state", "host", "pid", "resources", "available"),
        *("labels", "running", "queued", "finished", "silent_s", "remark", "zray"),
    }
    assert node["available"] == node["resources"]
    assert (view["jobs"], view["queue"], view["notices"], view["heads"]) == ([], [], [], [])
    assert view["placement_groups"] == {"all": 0, "waiting": 0}


ACTORS = """
import sys
import zray
zray.init(sys.argv[1], namespace="shop")
@zray.remote
class Till:
    def ready(self):
        return True
till = Till.options(name="first", max_restarts=1).remote()
zray.get(till.ready.remote())
never = Till.options(num_cpus=100).remote()
print("made", flush=True)
zray.get(never.ready.remote())
"""


def test_status_of_actors(commands: Any) -> None:
    head = commands.head()
    driver = commands.drive(ACTORS, head.address())
    driver.says("made")

    def settled() -> Any:
        found = {one["state"]: one for one in commands.status()["actors"]}
        return found if set(found) == {"ALIVE", "PENDING"} else None

    found = wait_for(settled)
    alive, pending = found["ALIVE"], found["PENDING"]
    assert (alive["class"], alive["name"], alive["namespace"]) == ("Till", "first", "shop")
    assert (alive["restarts"], alive["detached"], alive["reason"]) == (0, False, "")
    assert alive["node"] and not pending["node"]
    assert pending["reason"].startswith("INFEASIBLE: needs CPU 100")


def test_status_of_work_and_of_what_waits(commands: Any, waiting: Any) -> None:
    def settled() -> Any:
        view = commands.status()
        reasons = {entry["task"]: entry for entry in view["queue"]}
        # What a driver has by lease it tells now and then.
        told = [job["unfinished"] for job in view["jobs"]] == [6]
        return view if told and {"never", "runs"} <= set(reasons) else None

    view = wait_for(settled)
    (node,) = view["nodes"]
    assert (node["running"], node["available"].get("CPU", 0)) == (1, 0)
    (job,) = view["jobs"]
    assert set(job) == {
        *("job_id", "connected", "detached", "unfinished", "finished", "entrypoint", "host", "pid"),
        *("user", "zray"),
    }
    assert (job["connected"], job["finished"]) == (True, 0)
    queue = {entry["task"]: entry for entry in view["queue"]}
    assert set(queue["never"]) == {"task", "waiting", "reason", "resources", "job_id"}
    assert queue["never"]["waiting"] == 3
    assert queue["never"]["resources"] == {"CPU": 100.0, "rare": 0.5}
    assert queue["never"]["job_id"] == job["job_id"]
    assert queue["never"]["reason"].startswith("INFEASIBLE: needs CPU 100, rare 0.5; no node")
    assert queue["runs"]["reason"].startswith("WAIT_RESOURCES: needs CPU 1")


def test_status_for_people(commands: Any, waiting: Any) -> None:
    def settled() -> Any:
        said = commands.run("zray", "status").stdout
        return said if "INFEASIBLE" in said and "WAIT_RESOURCES" in said else None

    said = wait_for(settled)
    assert "Health: OK\n" in said
    assert "  head  ALIVE  1/1" in said
    assert "  3 x never: INFEASIBLE: needs CPU 100, rare 0.5;" in said
    assert "connected" in said
    assert "Waiting tasks: 4\n" in said


DETACHES = """
import sys, zray
zray.init(sys.argv[1])
@zray.remote
class Keeper:
    def ready(self):
        return True
zray.get(Keeper.options(name="kept", lifetime="detached").remote().ready.remote())
"""


def test_what_a_program_left_running_is_not_called_lost(commands: Any) -> None:
    head = commands.head()
    commands.drive(DETACHES, head.address()).process.wait(20)

    (job,) = wait_for(lambda: [j for j in commands.status()["jobs"] if not j["connected"]])
    assert job["detached"] and not job["connected"]
    said = commands.run("zray", "status").stdout
    assert "detached" in said and "lost" not in said and "kept" in said


def wait_for(probe: Any) -> Any:
    deadline = time.monotonic() + 20
    while not (found := probe()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def test_status_shows_a_warning_of_tasks_that_never_fit(commands: Any, waiting: Any) -> None:
    def warned() -> Any:
        return commands.status()["notices"]

    (notice,) = wait_for(warned)
    assert notice.startswith("INFEASIBLE")


def test_status_finds_the_head_by_option_and_environment(commands: Any) -> None:
    first = commands.head("--name", "first")
    commands.head()

    named = commands.status("--address", first.address())
    assert named["cluster"]["name"] == "first"
    by_environment = commands.run("zray", "status", ZRAY_ADDRESS=first.address()).stdout
    assert "Cluster first," in by_environment
    assert commands.status()["cluster"]["name"] == "default"


def test_status_of_a_node_that_is_silent_is_degraded(commands: Any) -> None:
    head = commands.head("--num-cpus", 0)
    worker = commands.worker("--address", head.address(), "--name", "one")
    commands.node("one")
    os.kill(worker.pid, signal.SIGSTOP)

    def suspected() -> Any:
        done = subprocess.run(
            commands.line("zray", "status"), capture_output=True, text=True, timeout=20
        )
        return done.stdout if done.returncode == 1 else None

    assert "DEGRADED: not heard of for some seconds: node one" in wait_for(suspected)
    os.kill(worker.pid, signal.SIGCONT)
    commands.node("one")
    assert commands.status()["health"] == "OK"


def test_status_without_a_head(commands: Any) -> None:
    said = commands.run("zray", "status", code=2)
    assert said.stdout == ""
    assert said.stderr.startswith("zray: ZR-1500 no head runs on this machine")

    view = commands.status(code=2)
    assert view["health"] == "UNREACHABLE"
    assert view["error"]["code"] == "ZR-1500"


def test_status_of_a_head_that_does_not_answer(commands: Any) -> None:
    head = commands.head()
    os.kill(head.pid, signal.SIGSTOP)

    started = time.monotonic()
    without = commands.run("zray", "status", code=2).stderr
    with_address = commands.run("zray", "status", "--address", head.address(), code=2).stderr
    assert time.monotonic() - started < 2 * 5
    assert "ZR-1503" in without
    assert "stopped" in without
    assert "stopped or overloaded" in with_address


def test_status_of_addresses_that_are_wrong(commands: Any) -> None:
    said = commands.run("zray", "status", "--address", "127.0.0.1:1", code=2).stderr
    assert "ZR-1405" in said
    said = commands.run("zray", "status", "--address", "http://127.0.0.1", code=2).stderr
    assert "is a web address" in said


def test_status_sends_a_terminal_nothing_that_it_obeys(commands: Any) -> None:
    head = commands.head()
    source = "import sys; sys.argv[0] = 'evil\\x1b[2J'; import zray; zray.init(sys.argv[1])\n"
    driver = commands.drive(
        source + "print('here'); import time; time.sleep(600)\n", head.address()
    )
    driver.says("here")

    said = commands.run("zray", "status").stdout
    assert "\x1b" not in said
    assert "evil\\x1b[2J" in said


def test_versions_are_shown_where_there_are_several() -> None:
    def view(nodes: list[str], job: str = "1.1", heads: Sequence[str] = ()) -> dict[str, Any]:
        told = [{"name": f"n{number}", "zray": zray} for number, zray in enumerate(nodes)]
        return {
            "cluster": {"zray": "1.1"},
            "heads": [{"zray": zray, "addresses": [f"h{zray}:1"], "host": ""} for zray in heads],
            "nodes": told,
            "jobs": [{"job_id": "abcdef0123", "zray": job}],
        }

    assert versions(view(["1.1", "1.1"])) == []
    assert versions(view(["1.1", ""], job="")) == []  # those do not tell
    assert versions(view(["1.0", "1.1"])) == [
        *("", "Versions of zray", "  1.0: node n0", "  1.1: this head, node n1, job abcdef01"),
    ]
    assert versions(view(["1.1"], heads=["1.1", "1.0"]))[2:] == [
        *("  1.0: head h1.0:1", "  1.1: head h1.1:1, node n0, job abcdef01"),
    ]
    (*_, old, _) = versions(view(["1.0"] * (NAMED_MAX + 2)))
    assert old.endswith(f"node n{NAMED_MAX - 1} and 2 more")
