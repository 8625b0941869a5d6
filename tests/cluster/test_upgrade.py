"""Processes of several versions in one cluster, each from a wheel: which work together, and how
a cluster goes from one version to the next while it works.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest

from tests import wheels
from tests.etcd_cluster import Etcd, free_ports
from tests.killed_heads import end_nodes
from tests.real_cluster import Program
from tests.wheels import Version

pytestmark = pytest.mark.slow_limit(180)

END_S = 40.0
WORK = """
import os, sys, time
import zray

zray.init()
print("driver", zray.__version__, flush=True)

@zray.remote(num_cpus=0)
def leaf(number):
    import zray
    return number, zray.__version__

@zray.remote(max_retries=-1)
def nested(number):
    time.sleep(0.02)
    return zray.get(leaf.remote(number))

@zray.remote(num_cpus=0, resources={"keep": 0.001})
class Ledger:  # stays where it is, with all that it was told
    def __init__(self):
        self.calls = []

    def note(self, number):
        self.calls.append(number)
        return len(self.calls)

@zray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Mover:  # is on nodes that are drained
    def echo(self, number):
        return number

ledger, mover = Ledger.remote(), Mover.remote()
number, versions = 0, {}
while not os.path.exists(sys.argv[1]):
    told = [nested.remote(number + i) for i in range(8)]
    noted = [ledger.note.remote(number + i) for i in range(8)]
    echoed = [mover.echo.remote(number + i) for i in range(8)]
    for i, (found, version) in enumerate(zray.get(told)):
        assert found == number + i, (found, number + i)
        versions[version] = versions.get(version, 0) + 1
    assert zray.get(noted) == [number + i + 1 for i in range(8)]
    assert zray.get(echoed) == [number + i for i in range(8)]
    number += 8
    print("at", number, sorted(versions), flush=True)
print("done", number, sorted(versions), flush=True)
"""


@pytest.fixture(scope="module")
def present(tmp_path_factory: pytest.TempPathFactory) -> Version:
    return wheels.present(tmp_path_factory.mktemp("present"))


@pytest.fixture(scope="module")
def following(present: Version, tmp_path_factory: pytest.TempPathFactory) -> Version:
    return wheels.later(present, tmp_path_factory.mktemp("later") / "following", 1)


@pytest.fixture(scope="module")
def second(present: Version, tmp_path_factory: pytest.TempPathFactory) -> Version:
    """Two minors later: more than works together with the present one."""
    return wheels.later(present, tmp_path_factory.mktemp("later") / "second", 2)


class Work:
    """A program that submits nested tasks and numbered calls until it is told to end."""

    def __init__(self, cluster: Any, name: str, version: Version) -> None:
        self._end = cluster.home / f"{name}-ends"
        self._program: Program = cluster.run(
            name, WORK, str(self._end), environment=version.environment
        )
        self._until = cluster.until
        self._program.says(f"driver {version.name}")
        self.goes_on()

    def goes_on(self, version: Version | None = None) -> None:
        """Until it has got more results than now, some of them from workers of that version."""
        seen = self._count()

        def more() -> bool:
            assert self._program.process.poll() is None, self._program.text()
            last = self._program.text().splitlines()[-1]
            there = version is None or f"'{version.name}'" in last
            return there and self._count() > seen + 1

        self._until(more, END_S, f"more results than {seen}: {self._program.text()[-500:]}")

    def _count(self) -> int:
        return self._program.text().count("\nat ")

    def ends(self) -> str:
        self._end.touch()
        assert self._program.wait(END_S) == 0, self._program.text()
        return self._program.text().splitlines()[-1]


def command(version: Version, *words: str, timeout_s: float = 30.0) -> tuple[int, str]:
    """What a command of that version says."""
    done = subprocess.run(
        [sys.executable, "-m", "zray", *words],
        env={**os.environ, **version.environment},
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    return done.returncode, done.stdout + done.stderr


def replace_node(cluster: Any, version: Version, name: str, node: Program) -> Program:
    """Empty a node, and start one of another version in its place."""
    code, text = command(version, "drain", name, "--wait", "--address", cluster.address)
    assert code == 0, text
    assert node.wait(END_S) == 0
    new: Program = cluster.start_node(f"{name}-2", 2, wait=False, environment=version.environment)
    new.says("READY")
    return new


def node_rows(cluster: Any) -> list[list[Any]]:
    """What the store of a head on this machine has of nodes."""
    path = cluster.home / "clusters" / "default" / "gcs.sqlite"
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as store:
        found = store.execute("SELECT value FROM rows WHERE kind = 'nodes'").fetchall()
    return [msgpack.unpackb(value) for (value,) in found]


def test_one_head_is_upgraded_and_downgraded_while_its_nodes_wait(
    bare: Any, present: Version, following: Version
) -> None:
    bare.start_head(environment=present.environment)
    keep = ("--resources", '{"keep": 1}')
    bare.start_node("keeper", 1, *keep, environment=present.environment)
    first = bare.start_node("first", 2, environment=present.environment)
    work = Work(bare, "before", present)

    assert bare.head.stop() == 0
    bare.start_head(port=-1, environment=following.environment)
    work.goes_on(present)
    _, text = command(present, "status", "--address", bare.address)
    assert f"  {following.name}: this head" in text and "node keeper" in text
    new = replace_node(bare, following, "first", first)
    work.goes_on(following)
    both = Work(bare, "after", following)
    assert "heard LATER" in new.text() and "heard LATER" in bare.head.text()
    assert "LATER" not in first.text()

    assert bare.head.stop() == 0
    bare.start_head(port=-1, environment=present.environment)
    both.goes_on()
    replace_node(bare, present, "first-2", new)
    assert {row[-1] for row in node_rows(bare)} == {"of a row", 0.0}  # it has stored both again
    assert following.name in work.ends() and both.ends().startswith("done ")


class Heads:
    """Two heads of one cluster, with an etcd: ``a``, whose home is the cluster's, and ``b``."""

    def __init__(self, cluster: Any, etcd: Etcd) -> None:
        self._cluster = cluster
        self._etcd = etcd
        self._ports = dict(zip("ab", free_ports(2), strict=True))
        self.homes = {"a": cluster.home, "b": cluster.home / "b"}
        self.running: dict[str, Program] = {}
        cluster.address = ",".join(map(self.address, "ab"))

    def address(self, name: str) -> str:
        return f"127.0.0.1:{self._ports[name]}"

    def start(self, name: str, version: Version) -> Program:
        """Until it leads or stands by."""
        if name == "b":
            data = self.homes["b"] / "clusters" / "default"
            data.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.copy(self.homes["a"] / "clusters" / "default" / "cluster.key", data)
        fixed = ("--store", self._etcd.url, "--port", str(self._ports[name]), "--num-cpus", "0")
        environment = {**version.environment, "ZRAY_HOME": str(self.homes[name])}
        head: Program = self._cluster.start(
            f"head-{name}", "zray.cli.head", *fixed, "--no-dashboard", environment=environment
        )
        self.running[name] = head
        return head

    def serves(self, name: str, what: str) -> None:
        """Until it says that it is READY, or a STANDBY, in its last life."""
        head = self.running[name]

        def said() -> bool:
            assert head.process.poll() is None, head.text()
            return (
                f"zray head {what} at {self.address(name)} (cluster default, pid {head.pid})"
                in (head.text())
            )

        self._cluster.until(said, END_S, f"head {name} is {what}: {head.text()}")

    def leads(self, name: str) -> None:
        """Until it does, as it says itself."""
        head = self.running[name]
        self._cluster.until(
            lambda: "leads now" in head.text().rpartition("STANDBY")[2],
            END_S,
            f"head {name} leads: {head.text()}",
        )

    def stop(self, name: str) -> None:
        assert self.running.pop(name).stop() == 0


@pytest.mark.system
def test_two_heads_and_their_nodes_are_upgraded_one_by_one_while_work_goes_on(
    bare: Any, tmp_path: Path, present: Version, following: Version, second: Version
) -> None:
    etcd = Etcd(tmp_path / "etcd")
    try:
        upgrade_two_heads(Heads(bare, etcd), bare, present, following, second)
    finally:
        bare.close()  # before their store goes
        end_nodes(bare.home / "b", END_S)
        etcd.close()


def upgrade_two_heads(
    heads: Heads, bare: Any, present: Version, following: Version, second: Version
) -> None:
    heads.start("a", present)
    heads.serves("a", "READY")
    heads.start("b", present)
    heads.serves("b", "STANDBY")
    keep = ("--resources", '{"keep": 1}')
    bare.start_node("keeper", 1, *keep, environment=present.environment)
    first = bare.start_node("first", 2, environment=present.environment)
    work = Work(bare, "before", present)

    heads.stop("b")
    far = heads.start("b", second)  # two minors later than the one that leads
    assert far.wait(END_S) == 3
    assert str(present) in far.text() and str(second) in far.text()
    heads.start("b", following)
    heads.serves("b", "STANDBY")
    code, text = command(present, "head", "step-down", "--address", bare.address)
    assert code == 0, text
    heads.leads("b")
    work.goes_on(present)

    heads.stop("a")
    heads.start("a", following)
    heads.serves("a", "STANDBY")
    work.goes_on(present)
    new = replace_node(bare, following, "first", first)
    work.goes_on(following)
    assert "heard LATER" in new.text()

    both = Work(bare, "after", following)
    heads.running.pop("b").kill()  # the other takes over with what the next version has written
    heads.leads("a")
    work.goes_on(following)
    both.goes_on(present)
    assert following.name in work.ends() and both.ends().startswith("done ")


def test_a_version_too_far_away_is_refused_with_both_named(
    bare: Any, present: Version, second: Version, start_alone: Callable[..., tuple[int, str]]
) -> None:
    bare.start_head(environment=second.environment)
    both = (str(present), str(second))
    code, text = command(present, "status", "--address", bare.address)
    assert code and all(one in text for one in both), text
    worker = ("zray.cli.worker", "--address", bare.address, "--num-cpus", "1")
    code, text = start_alone(present, *worker)
    assert code == 1 and all(one in text for one in both) and "Traceback" not in text, text
    driver = bare.run("driver", "import zray\nzray.init()\n", environment=present.environment)
    assert driver.wait(END_S) == 1
    assert all(one in driver.text() for one in both) and "ZR-2005" in driver.text(), driver.text()

    bare.head.stop()
    code, text = start_alone(present, "zray.cli.head", "--port", "0", "--num-cpus", "0")
    assert code == 3 and all(one in text for one in both) and "Traceback" not in text, text
    assert "does not lead" in text


@pytest.fixture
def start_alone(bare: Any) -> Callable[..., tuple[int, str]]:
    """A daemon that is to end by itself: its exit status, and what it has said."""

    def start(version: Version, module: str, *options: str) -> tuple[int, str]:
        name = f"alone-{len(bare.programs)}"
        program: Program = bare.start(name, module, *options, environment=version.environment)
        return program.wait(END_S), program.text()

    return start
