"""``zray status``: what the head says, for people and for programs. Reads only."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from zray.core.causes import plain
from zray.errors import ZrayError
from zray.nodes import contact
from zray.nodes.driver.observer import Observer
from zray.runtime.connection import ConnectionInfo
from zray.util.state.cluster import describe

OK, DEGRADED, UNREACHABLE = 0, 1, 2
NAMED_MAX = 6  # of each version


def show(addresses: list[str], as_json: bool) -> int:
    """Print the cluster's status; returns the exit code."""
    try:
        info, target = locate(addresses)
        with Observer(info, target) as observer:
            status = observer.status()
            target = observer.address
    except (ZrayError, OSError) as error:
        if as_json:
            found = {"code": getattr(error, "code", ""), "message": str(error)}
            print(json.dumps({"health": "UNREACHABLE", "error": found}, indent=2))
        else:
            print(f"zray: {error}", file=sys.stderr)
        return UNREACHABLE
    view = describe(status, info, target)
    print(json.dumps(view, indent=2) if as_json else "\n".join(lines(view)))
    return OK if view["health"] == "OK" else DEGRADED


def locate(addresses: Sequence[str]) -> tuple[ConnectionInfo, str]:
    """The key and addresses of heads, the first that answers before others; without any, this
    machine's.

    Raises:
        HeadConnectionError and its kinds: why the first one cannot be used.
        KeyFileError: a connection file is there and cannot be used.
    """
    return contact.reach(",".join(addresses)) if addresses else contact.running()


# ---- for people ----------------------------------------------------------------------------


def lines(view: dict[str, Any]) -> list[str]:
    """The described status as text, a line each; shows no character that a terminal obeys."""
    cluster = view["cluster"]
    age = duration(time.time() - cluster["started"])
    text = [
        f"Cluster {cluster['name']}, head at {cluster['address']} (pid {cluster['pid']} on "
        f"{cluster['host']}), up {age}",
        f"Health: {view['health']}",
        *versions(view),
    ]
    if len(view["heads"]) > 1:
        text += ["", "Heads", *table(_HEAD_HEADER, map(_head_row, view["heads"]))]
    if view["nodes"]:
        text += ["", "Nodes", *table(_NODE_HEADER, map(_node_row, view["nodes"]))]
        remarks = [one for one in view["nodes"] if one["remark"]]
        text += [f"  {one['name']} is {one['state']}: {one['remark']}" for one in remarks]
    else:
        text += ["", "No nodes: nothing can run; add one with zray-worker"]
    if view["jobs"]:
        text += ["", "Jobs", *table(_JOB_HEADER, map(_job_row, view["jobs"]))]
    if view["actors"]:
        text += ["", "Actors", *table(_ACTOR_HEADER, map(_actor_row, view["actors"]))]
    waiting = sum(entry["waiting"] for entry in view["queue"])
    if waiting:
        text += ["", f"Waiting tasks: {waiting:,}"]
        text += [f"  {one['waiting']:,} x {one['task']}: {one['reason']}" for one in view["queue"]]
    groups = view["placement_groups"]
    if groups["waiting"]:
        text += ["", f"Waiting placement groups: {groups['waiting']:,} of {groups['all']:,}"]
        text += ["  zray list placement-groups says what each waits for"]
    if view["notices"]:
        text += ["", "Notices", *(f"  {notice}" for notice in view["notices"])]
    return [plain(line) for line in text]


def versions(view: dict[str, Any]) -> list[str]:
    """Which versions of zray there are, where these are several, and who has which."""
    who: dict[str, list[str]] = {}
    for head in view["heads"]:
        who.setdefault(head["zray"], []).append(f"head {(*head['addresses'], head['host'])[0]}")
    if not who:
        who[view["cluster"]["zray"]] = ["this head"]
    for node in view["nodes"]:
        who.setdefault(node["zray"], []).append(f"node {node['name']}")
    for job in view["jobs"]:
        who.setdefault(job["zray"], []).append(f"job {job['job_id'][:8]}")
    who.pop("", None)  # an older head does not tell
    if len(who) < 2:
        return []
    lines = [f"  {zray}: {named(names)}" for zray, names in sorted(who.items())]
    return ["", "Versions of zray", *lines]


def named(names: list[str]) -> str:
    """Some of them by name, and how many more."""
    more = f" and {len(names) - NAMED_MAX:,} more" if len(names) > NAMED_MAX else ""
    return ", ".join(names[:NAMED_MAX]) + more


_HEAD_HEADER = ["HEAD", "STATE", "HOST", "PID", "UP"]
_NODE_HEADER = ["NODE", "STATE", "CPU", "GPU", "MEMORY", "OTHER"]
_NODE_HEADER += ["RUNNING", "QUEUED", "FINISHED", "HOST", "PID"]
_JOB_HEADER = ["JOB", "STATE", "UNFINISHED", "FINISHED", "HOST", "PID", "PROGRAM"]

_ACTOR_HEADER = ["ACTOR", "CLASS", "NAME", "STATE", "NODE", "RESTARTS", "REASON"]


def _actor_row(actor: dict[str, Any]) -> list[str]:
    restarts = f"{actor['restarts']:,}" if actor["restarts"] else ""
    cells = [actor["class"], actor["name"], actor["state"], actor["node"], restarts]
    return [actor["actor_id"][:8], *cells, actor["reason"]]


def _head_row(head: dict[str, Any]) -> list[str]:
    age = duration(time.time() - head["started"])
    return [", ".join(head["addresses"]), head["state"], head["host"], str(head["pid"]), age]


def _node_row(node: dict[str, Any]) -> list[str]:
    total, available = node["resources"], node["available"]
    used = {name: amount - available.get(name, 0.0) for name, amount in total.items()}
    cells = [f"{used[name]:g}/{total[name]:g}" if name in total else "" for name in ("CPU", "GPU")]
    memory = ""
    if "memory" in total:
        memory = f"{used['memory'] / 2**30:.1f}/{total['memory'] / 2**30:.1f} GiB"
    others = [
        f"{name} {used[name]:g}/{total[name]:g}"
        for name in total
        if name not in ("CPU", "GPU", "memory", "object_store_memory")
        and not name.startswith("node:")  # every node has one of its own
    ]
    counts = [f"{node[name]:,}" for name in ("running", "queued", "finished")]
    where = [node["host"], str(node["pid"])]
    return [node["name"], node["state"], *cells, memory, ", ".join(others), *counts, *where]


def _job_row(job: dict[str, Any]) -> list[str]:
    state = "connected" if job["connected"] else "detached" if job["detached"] else "lost"
    counts = [f"{job['unfinished']:,}", f"{job['finished']:,}"]
    where = [job["host"], str(job["pid"]), job["entrypoint"]]
    return [job["job_id"][:8], state, *counts, *where]


def table(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    """Aligned columns, indented by two; a column without any content is left out."""
    body = [[plain(cell) for cell in row] for row in rows]
    shown = [index for index in range(len(header)) if any(row[index] for row in body)]
    widths = {index: max(len(row[index]) for row in [header, *body]) for index in shown}
    return [
        "  " + "  ".join(row[index].ljust(widths[index]) for index in shown).rstrip()
        for row in [header, *body]
    ]


def duration(seconds: float) -> str:
    """A time span in its two largest units."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
