"""A real Prometheus, set up with the files that zray writes, sees a cluster and its troubles."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import zray
from tests.real_cluster import Program, until
from zray.metrics.catalog import BOTH, HEAD, NODE
from zray.util.metrics import Counter

WAIT_S = 40.0

pytestmark = pytest.mark.system  # prometheus and promtool


class Prometheus:
    """One server, with its data in a folder of its own."""

    def __init__(self, bare: Any, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        log = bare.home / "prometheus.out"
        config = [
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder}/data",
        ]
        listen = f"--web.listen-address=127.0.0.1:{self.port}"
        self.program = Program("prometheus", log, ["prometheus", *config, listen], {})
        bare.programs.append(self.program)

    def ask(self, path: str, **query: str) -> Any:
        """What its API says, or None while it starts."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it reads what it has stored
                return None
            raise AssertionError(f"{query}: {error.read().decode()}") from None
        except OSError:
            return None

    def values(self, expression: str) -> dict[str, float]:
        """By all labels but the name, in words."""
        found = self.ask("query", query=expression)
        rows = found["result"] if found else ()
        return {
            ",".join(
                f"{k}={v}" for k, v in sorted(row["metric"].items()) if k != "__name__"
            ): float(row["value"][1])
            for row in rows
        }

    def up(self) -> dict[str, float]:
        """By job and instance."""
        return self.values("sum by (job, instance) (up)")

    def firing(self) -> set[str]:
        found = self.ask("alerts")
        alerts = found["alerts"] if found else ()
        return {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}


def hastened(folder: Path) -> None:
    """The same files, for a test that cannot wait for minutes."""
    config = folder / "prometheus.yml"
    text = config.read_text().replace(": 15s", ": 1s").replace(": 30s", ": 1s")
    config.write_text(text)
    rules = folder / "zray.rules.yml"
    lines = rules.read_text().replace("[10m]", "[15s]").replace("[5m]", "[15s]").splitlines()
    short = ["        for: 1s" if line.strip().startswith("for:") else line for line in lines]
    rules.write_text("\n".join(short) + "\n")


@pytest.fixture
def watched(bare: Any, tmp_path: Path) -> Iterator[Callable[[], Prometheus]]:
    """Starts a Prometheus by the files that a command writes for the cluster."""

    def start() -> Prometheus:
        folder = tmp_path / "prometheus"
        command = [sys.executable, "-m", "zray", "metrics", "export-config", str(folder)]
        subprocess.run([*command, "--address", bare.address], check=True, timeout=30)
        hastened(folder)
        check = ["promtool", "check", "config", str(folder / "prometheus.yml")]
        subprocess.run(check, check=True, timeout=30)
        return Prometheus(bare, folder)

    yield start


def reach(what: str, probe: Callable[[], object], prometheus: Prometheus) -> None:
    try:
        until(probe, WAIT_S, what)
    except TimeoutError:
        log = prometheus.program.text()[-3000:]
        raise AssertionError(f"not so: {what}; {prometheus.up()} {log}") from None


@pytest.mark.slow_limit(180)
def test_prometheus_finds_scrapes_and_is_alarmed(
    bare: Any, watched: Callable[[], Prometheus]
) -> None:
    bare.start_head()
    bare.start_node("one", 2)
    victim = bare.start_node("two", 1)
    prometheus = watched()
    bare.connect()

    @zray.remote
    def work() -> None:
        Counter("test_items").inc()

    zray.get([work.remote() for _ in range(30)])

    # It finds the nodes by itself, and scrapes each.
    three = {"instance=head,job=zray-nodes", "instance=one,job=zray-nodes"}

    def all_up() -> bool:
        found = prometheus.up()
        nodes = {key for key in found if "zray-nodes" in key}
        return three < nodes and len(found) == 4 and all(found.values())

    reach("all is scraped", all_up, prometheus)
    ended = 'sum(zray_tasks_ended_total{name=~".*work",state="FINISHED"})'
    reach("tasks are counted", lambda: prometheus.values(ended) == {"": 30.0}, prometheus)
    items = "sum(test_items_total)"
    reach("items are counted", lambda: prometheus.values(items) == {"": 30.0}, prometheus)
    took = 'sum(zray_task_duration_seconds_count{type="NORMAL_TASK"})'
    reach("durations are there", lambda: prometheus.values(took) == {"": 30.0}, prometheus)
    wanted = {f"{one.name}_bucket" if one.buckets else one.name for one in (*HEAD, *NODE, *BOTH)}
    wanted -= {"zray_tasks_pending", "zray_reconnects_total"}  # nobody waits or came back, as yet
    wanted -= {"zray_gpu_utilization", "zray_gpu_memory_bytes"}  # of nodes that have some
    wanted -= {"zray_head_leads"}  # of heads on an etcd

    def all_there() -> bool:
        return wanted <= set(prometheus.ask("label/__name__/values"))

    reach("all metrics are there", all_there, prometheus)

    def evaluated() -> bool:
        rules = [rule for one in prometheus.ask("rules")["groups"] for rule in one["rules"]]
        return len(rules) > 15 and all(rule["health"] == "ok" for rule in rules)

    reach("all rules are evaluated", evaluated, prometheus)
    assert not prometheus.firing() & {"ZrayNodeLost", "ZrayTasksInfeasible", "ZrayDashboardDown"}

    # A node dies, and tasks wait for what nobody has.
    victim.signal(signal.SIGKILL)
    needy = work.options(resources={"gadget": 1}).remote()
    both = {"ZrayNodeLost", "ZrayTasksInfeasible"}
    reach("alerts fire", lambda: both <= prometheus.firing(), prometheus)
    pending = prometheus.values('zray_tasks_pending{reason="INFEASIBLE"}')
    assert [*pending.values()] == [1.0]

    # Somebody sees to it.
    bare.start_node("three", 1, "--resources", '{"gadget": 1}')
    zray.get(needy, timeout=WAIT_S)
    reach("alerts are over", lambda: not both & prometheus.firing(), prometheus)
    nodes = "sum by (instance) (up{job='zray-nodes'})"

    def replaced() -> bool:
        return {*prometheus.values(nodes)} == {"instance=head", "instance=one", "instance=three"}

    reach("the new node is scraped, the old one is not", replaced, prometheus)


def test_without_the_token_nobody_reads_metrics(bare: Any) -> None:
    bare.start_head()
    where = bare.info().dashboard
    for path in ("/metrics", "/metrics/nodes/head", "/api/v1/prometheus/targets"):
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            with pytest.raises(urllib.error.HTTPError) as raised:
                urllib.request.urlopen(urllib.request.Request(where + path, headers=headers))
            assert raised.value.code == 401
            raised.value.close()
