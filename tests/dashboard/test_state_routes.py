"""What the HTTP API tells of a cluster's state is what the commands and Python tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import zray
from zray.util import state

MARKUP = "<script>alert(1)</script>\x1b[31m"


def command(site: Any, *arguments: str) -> Any:
    ran = subprocess.run(
        [sys.executable, "-m", "zray", *arguments, "--json", "--address", site.cluster.address],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return json.loads(ran.stdout)


def test_the_cluster_is_what_the_status_command_says(site: Any) -> None:
    told, said = site.get("/api/v1/cluster"), command(site, "status")
    assert told["cluster"] == said["cluster"] and told["health"] == said["health"]
    assert [node["name"] for node in told["nodes"]] == [node["name"] for node in said["nodes"]]
    assert set(told) == set(said)


@pytest.mark.parametrize("kind", ["actors", "jobs", "nodes", "objects", "workers"])
def test_each_kind_is_what_python_tells(driven: Any, kind: str) -> None:
    @zray.remote
    class Kept:
        def ready(self) -> bool:
            return True

    kept = Kept.remote()
    assert zray.get(kept.ready.remote())
    held = zray.put(b"x" * 100_000)
    told = driven.get(f"/api/v1/{kind}", limit=1000)
    rows = getattr(state, f"list_{kind}")(detail=True, limit=1000)
    key = f"{kind[:-1]}_id"
    listed = {row[key] for row in told["items"]}
    if kind == "objects":  # Python asks programs as well what they alone know
        assert listed <= {row[key] for row in rows}
        rows = [row for row in rows if row[key] in listed]
    assert listed == {row[key] for row in rows}
    assert told["kind"] == kind and told["total"] == len(rows) and told["next"] is None
    first = told["items"][0]
    assert set(first) == set(rows[0].asdict())
    found = driven.get(f"/api/v1/{kind}/{first[key]}")["items"]
    assert found[0][key] == first[key]
    del held


def test_events_come_the_latest_first(site: Any) -> None:
    told = site.get("/api/v1/events")["items"]
    numbers = [int(one["event_id"]) for one in told]
    assert numbers and numbers == sorted(numbers, reverse=True)


def test_ten_thousand_tasks_are_read_page_by_page_each_once(driven: Any) -> None:
    @zray.remote
    def counted() -> None:
        pass

    zray.get([counted.remote() for _ in range(10_000)])

    def all_there() -> bool:
        found = driven.get("/api/v1/tasks/summary")["summary"]["summary"]
        states = found.get("counted", {}).get("state_counts", {})
        return bool(states.get("FINISHED", 0) >= 10_000)

    driven.until(all_there, 20, "all are counted")
    seen: list[str] = []
    cursor: dict[str, Any] = {}
    pages = 0
    with driven.script() as client:
        while True:
            wanted = {"limit": 1000, "detail": 0, "filter": "func_or_class_name=counted", **cursor}
            found = client.get("/api/v1/tasks", params=wanted).json()
            seen += [row["task_id"] for row in found["items"]]
            pages += 1
            if not found["next"]:
                break
            cursor = {"cursor": found["next"]}
    # Of what has ended the last are kept, and some of a burst are only counted.
    assert len(seen) == len(set(seen)) and pages >= len(seen) // 1000
    assert len(seen) + found["dropped"] >= 10_000


def test_a_task_that_is_called_like_markup_is_told_as_it_is(driven: Any) -> None:
    @zray.remote(max_retries=0)
    def fails() -> None:
        raise ValueError(MARKUP)

    with pytest.raises(ValueError):
        zray.get(fails.options(name=MARKUP).remote())

    def failed() -> Any:
        return driven.get("/api/v1/tasks", filter="state=FAILED")["items"]

    (row,) = [one for one in driven.until(failed, 10, "it is told") if one["name"] == MARKUP]
    assert MARKUP in row["error_message"]
    with driven.script() as client:
        answer = client.get("/api/v1/tasks", params={"filter": f"name={MARKUP}"})
    assert [one["task_id"] for one in answer.json()["items"]] == [row["task_id"]]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert b"\x1b" not in answer.content


def test_filters_hold_together(site: Any) -> None:
    told = site.get("/api/v1/nodes", filter=["node_name=one", "state!=DEAD"])
    assert [row["node_name"] for row in told["items"]] == ["one"]
    assert site.get("/api/v1/nodes", filter="node_name!=one")["items"][0]["node_name"] == "head"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/v1/tasks?limit=-1", 400, "ZR-5107"),
        ("/api/v1/tasks?limit=1000000000", 400, "ZR-5107"),
        ("/api/v1/tasks?limit=" + "9" * 400, 400, "ZR-5107"),
        ("/api/v1/tasks?limit=1.5", 400, "ZR-5107"),
        ("/api/v1/tasks?cursor=nonsense!", 400, "ZR-5107"),
        ("/api/v1/tasks?cursor=AAAAAAEAAAIAAAAAAAAAAQAAAAAAAAAA", 400, "ZR-2010"),
        ("/api/v1/tasks?filter=state", 400, "ZR-5107"),
        ("/api/v1/tasks?filter=nothing%3D1", 400, "ZR-2010"),
        ("/api/v1/tasks?sort=name", 400, "ZR-5107"),
        ("/api/v1/tasks/zz", 400, "ZR-5107"),
        ("/api/v1/tasks/" + "0" * 32, 404, "ZR-5101"),
        ("/api/v1/nodes/summary", 404, "ZR-5101"),
        ("/api/v1/nothing", 404, "ZR-5101"),
        ("/api/v1/why/" + "0" * 32, 404, "ZR-5101"),
        ("/api/v1/why/" + "x" * 1000, 400, "ZR-5107"),
        ("/api/v1/stack/nobody", 404, "ZR-5101"),
        ("/api/v1/logs/nobody", 404, "ZR-5101"),
        ("/api/v1/profile/nobody?seconds=0", 400, "ZR-5107"),
        ("/nothing", 404, "ZR-5107"),
    ],
)
def test_what_cannot_be_answered_is_said_with_a_code(
    site: Any, path: str, status: int, code: str
) -> None:
    error = site.get(path, status)["error"]
    assert error["code"] == code and error["message"] and error["effect"] and error["next"]


def test_why_is_what_the_command_says(driven: Any) -> None:
    @zray.remote(num_cpus=50)
    def never() -> None:
        pass

    ref = never.remote()
    subject = ref.hex()
    told = driven.get(f"/api/v1/why/{subject}")
    assert told["causes"][0]["code"] == command(driven, "why", subject)[0]["causes"][0]["code"]

    def waits() -> Any:
        return [one["reason"] for one in driven.get("/api/v1/cluster")["queue"]]

    assert "CPU 50" in driven.until(waits, 10, "it waits")[0]
    zray.cancel(ref)


def test_what_processes_use(site: Any) -> None:
    def with_rates() -> Any:
        (found,) = [one for one in site.get("/api/v1/usage")["items"] if one["name"] == "one"]
        return found if found["cpu_percent"] is not None else None

    found = site.until(with_rates, 10, "there are two looks")
    kinds = {one["kind"] for one in found["processes"]}
    assert "NODE" in kinds and found["memory_bytes"] > found["memory_used_bytes"] > 0
    assert all(one["rss_bytes"] > 0 for one in found["processes"])


def test_who_holds_which_objects(driven: Any) -> None:
    """Those that only a program knows as well."""
    own = zray.put(b"x" * 2000)
    array = zray.put(b"y" * 300_000)
    told = driven.get("/api/v1/memory")
    assert set(told) == {*command(driven, "memory"), "unshown"}
    sizes = {row["object_id"]: (row["object_size"], row["pid"]) for row in told["references"]}
    assert sizes[own.hex()][0] >= 2000 and sizes[array.hex()][0] >= 300_000
    assert sizes[own.hex()][1] == os.getpid()
    less = driven.get("/api/v1/memory?limit=1")
    (first,) = less["references"]
    assert first["object_id"] == array.hex() and less["unshown"] >= 1


def test_the_document_names_every_path(driven: Any) -> None:
    found = driven.get("/api/v1/openapi.json")
    assert found["openapi"].startswith("3.1")
    for path in found["paths"]:
        assert path.startswith(("/api/", "/healthz"))
    record = found["components"]["schemas"]["TaskState"]["properties"]
    assert set(record) == set(state.list_tasks(limit=1, detail=True)[0].asdict())
    references = json.dumps(found).count("#/components/schemas/")
    assert references > 10


# ---- Ray's shapes ------------------------------------------------------------------------------


def test_environments_of_all_nodes_are_told(driven: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc")

    @zray.task(runtime_env={"working_dir": str(tmp_path)})
    def f() -> None: ...

    zray.get(f.remote(), timeout=30)
    wanted = {"filter_keys": "state", "filter_predicates": "=", "filter_values": "READY"}
    data = driven.get("/api/v0/runtime_envs", **wanted)["data"]["result"]
    (row,) = data["result"]
    assert row["success"] is True and row["size_bytes"] == 3 and data["total"] == 1
    assert row["runtime_env"]["working_dir"].endswith(".zip")
    assert driven.get("/api/v0/runtime_envs", limit=0)["data"]["result"]["result"] == []


def test_ray_s_routes_have_ray_s_shapes(site: Any) -> None:
    version = site.get("/api/version")
    assert version["version"] == "4" and version["ray_version"]
    wanted = {"filter_keys": "node_name", "filter_predicates": "=", "filter_values": "one"}
    found = site.get("/api/v0/nodes", limit=10, detail=1, **wanted)
    assert found["result"] is True and found["msg"] == ""
    data = found["data"]["result"]
    assert data["num_after_truncation"] == data["num_filtered"] == 1 and data["total"] >= 2
    assert data["result"][0]["node_name"] == "one" and data["result"][0]["resources_available"]
    kinds = ("tasks", "actors", "objects", "workers", "jobs", "cluster_events", "placement_groups")
    for kind in kinds:
        assert isinstance(site.get(f"/api/v0/{kind}")["data"]["result"]["result"], list)
    summary = site.get("/api/v0/tasks/summarize")["data"]["result"]["result"]
    assert "summary" in summary["node_id_to_summary"]["cluster"]
    bad = site.get(
        "/api/v0/tasks", 400, filter_keys="nothing", filter_predicates="=", filter_values=1
    )
    assert bad["result"] is False and "ZR-2010" in bad["msg"]
