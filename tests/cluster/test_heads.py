"""Several heads of one cluster: one leads, and another follows whatever becomes of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import zray
from tests.etcd_cluster import Etcd
from tests.real_cluster import Peer, until
from tests.several_heads import Heads
from zray.errors import (
    DataDirectoryLockedError,
    NoLeaderError,
    NoStandbyError,
    OlderStoreError,
    PortInUseError,
    StartError,
)
from zray.protocol import messages as m

pytestmark = pytest.mark.system

GET_S = 30.0
PLANNED_S = 1.0
KILLED_S = 5.0


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    etcd = Etcd(tmp_path / "etcd")
    yield etcd
    etcd.close()


@pytest.fixture
def heads(etcd: Etcd, bare: Any, tmp_path: Path) -> Iterator[Heads]:
    heads = Heads(bare, etcd.url, tmp_path)
    yield heads
    if zray.is_initialized():
        zray.shutdown()
    bare.close()
    heads.close()


@pytest.fixture
def two(heads: Heads) -> Heads:
    """The first leads; node ``one`` has 2 CPUs."""
    assert heads.start(1) == "READY"
    assert heads.start(2) == "STANDBY"
    heads.cluster.start_node("one", 2, "--resources", "one=1")
    return heads


class Calls:
    """A thread of a driver that calls an actor and runs tasks all the time."""

    def __init__(self) -> None:
        @zray.actor(num_cpus=0, resources={"one": 1})
        class Counter:
            def __init__(self) -> None:
                self.n = 0

            def add(self) -> int:
                self.n += 1
                return self.n

        @zray.task
        def double(number: int) -> int:
            return 2 * number

        self.counter, self.double = Counter.remote(), double
        self.made = 0
        self.longest_s = 0.0
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        until(lambda: self.made > 3, GET_S, "calls are made")
        self.longest_s = 0.0

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                began = time.monotonic()
                refs = [self.counter.add.remote(), self.double.remote(self.made)]
                assert zray.get(refs, timeout=GET_S) == [self.made + 1, 2 * self.made]
                self.made += 1
                self.longest_s = max(self.longest_s, time.monotonic() - began)
                time.sleep(0.01)
        except BaseException as error:
            self.error = error

    def go_on(self) -> None:
        """Wait until more have been made."""
        made = self.made
        until(lambda: self.made > made + 5 or self.error, GET_S, "more calls are made")

    def end(self) -> None:
        self._stop.set()
        self._thread.join(GET_S)
        assert self.error is None, self.error
        assert zray.get(self.counter.add.remote(), timeout=GET_S) == self.made + 1


def command(heads: Heads, number: int, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ZRAY_HOME": str(heads.home(number))}
    environment.pop("ZRAY_ADDRESS", None)
    return subprocess.run(
        [sys.executable, "-m", "zray.cli.main", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_killed_leader_is_followed_and_all_goes_on(two: Heads) -> None:
    two.cluster.connect()
    calls = Calls()
    epoch, nodes = two.cluster.epoch(), {node.node_id for node in two.status().nodes}
    two.programs[1].kill()
    calls.go_on()
    assert calls.longest_s < KILLED_S
    assert two.leader() == 2
    until(lambda: len(two.status().heads) == 1, GET_S, "the first is known to be gone")
    assert any("leads now" in notice for notice in two.status().notices)
    assert {node.node_id for node in two.status().nodes} == nodes, "no node has ended"
    # The first comes back, stands by, and its node is the one it was.
    assert two.start(1) == "STANDBY"
    until(lambda: len(two.status().heads) == 2, GET_S, "it is known")
    until(lambda: len(two.status().nodes) == 3, GET_S, "its node is back")
    assert {node.node_id for node in two.status().nodes} == nodes
    peer = Peer(two.info(2))
    assert peer.epoch > epoch
    peer.close()
    calls.end()


def test_a_leader_that_sleeps_is_followed_and_stands_by_when_it_wakes(two: Heads) -> None:
    two.cluster.connect()
    calls = Calls()
    two.programs[1].signal(signal.SIGSTOP)
    calls.go_on()
    assert calls.longest_s < KILLED_S
    assert two.leader() == 2
    two.programs[1].signal(signal.SIGCONT)
    said = two.programs[1].says("leads no more")
    assert "ZR-4008" in said
    two.programs[1].says(f"stands by: {two.addresses[2]} leads")
    until(lambda: len(two.status().heads) == 2, GET_S, "it is known again")
    # And it leads again, in the same process.
    two.programs[2].kill()
    calls.go_on()
    assert two.leader() == 1
    calls.end()


def test_step_down_is_a_switch_that_nobody_notices(two: Heads) -> None:
    two.cluster.connect()
    calls = Calls()
    found = command(two, 2, "head", "step-down", "--reason", "maintenance")
    assert found.returncode == 0, found
    assert f"{two.addresses[2]} leads now" in found.stdout
    calls.go_on()
    found = command(two, 1, "head", "step-down", "--json")
    assert found.returncode == 0, found
    assert json.loads(found.stdout)["leader"] == two.addresses[1]
    calls.go_on()
    assert calls.longest_s < PLANNED_S
    _, _, after = two.programs[1].text().partition("steps down: maintenance")
    assert (
        f"{two.addresses[1]} takes over" not in after.partition("steps down")[0].split("leads")[0]
    )
    calls.end()


def test_a_leader_that_is_told_to_end_hands_over_first(two: Heads) -> None:
    two.cluster.connect()
    calls = Calls()
    assert two.programs[1].stop() == 0
    calls.go_on()
    assert calls.longest_s < PLANNED_S
    assert two.leader() == 2
    until(lambda: len(two.status().heads) == 1, GET_S, "the first is known to be gone")
    status = two.status()
    assert not any(node.info.pid == two.programs[1].pid for node in status.nodes)
    # Nobody is left who could lead.
    found = command(two, 2, "head", "step-down")
    assert found.returncode == 1
    assert NoStandbyError.code in found.stderr and "no other head stands by" in found.stderr
    calls.end()


def test_a_standby_ends_alone(two: Heads) -> None:
    two.cluster.connect()
    calls = Calls()
    epoch = two.cluster.epoch()
    assert two.programs[2].stop() == 0
    until(lambda: len(two.status().heads) == 1, GET_S, "it has gone")
    until(lambda: len(two.status().nodes) == 2, GET_S, "with its node")
    calls.go_on()
    assert two.cluster.epoch() == epoch
    calls.end()


def test_status_and_connection_files_know_all_heads(two: Heads) -> None:
    for number in (1, 2):
        found = command(two, number, "status", "--json")
        assert found.returncode == 0, found
        view = json.loads(found.stdout)
        assert {head["addresses"][0]: head["state"] for head in view["heads"]} == {
            two.addresses[1]: "LEADS",
            two.addresses[2]: "STANDBY",
        }
        assert view["cluster"]["pid"] == two.programs[1].pid
        assert two.info(number).addresses == [two.addresses[number]]
        assert two.info(number).heads == [two.addresses[3 - number]]
    shown = command(two, 2, "status").stdout
    assert "Heads" in shown and "LEADS" in shown and "STANDBY" in shown


def test_members_hear_of_heads_that_come_and_go(two: Heads) -> None:
    peer = Peer(two.info(1))
    assert two.start(3) == "STANDBY"
    told = peer.receive(m.HeadsChanged, GET_S)
    assert [head.leads for head in told.heads] == [True, False, False]
    two.programs[3].kill()
    told = peer.receive(m.HeadsChanged, GET_S)
    assert len(told.heads) == 2
    peer.close()


def test_zray_stop_stops_all_heads_whichever_is_asked(two: Heads) -> None:
    found = command(two, 2, "stop")
    assert found.returncode == 0, found
    assert "1 that stood by" in found.stdout
    for number in (1, 2):
        assert two.programs[number].wait(GET_S) == 0
    # What told them to stop is not for who starts later.
    assert two.start(2) == "READY"


def test_zray_stop_where_no_head_answers_says_whom_it_has_not_told(two: Heads) -> None:
    for head in two.programs.values():
        head.process.send_signal(signal.SIGSTOP)
    found = command(two, 1, "stop")
    assert found.returncode == 1, found
    assert "told by SIGTERM" in found.stdout and "10 min" not in found.stdout
    assert f"its other heads ({two.addresses[2]}) were not told" in found.stderr
    assert two.programs[1].wait(GET_S) == 0
    two.programs[2].process.send_signal(signal.SIGCONT)
    assert two.leader() == 2
    found = command(two, 2, "stop")
    assert found.returncode == 0, found
    assert two.programs[2].wait(GET_S) == 0


def test_a_head_that_sleeps_while_zray_stop_is_called_ends_when_it_wakes(two: Heads) -> None:
    sleeps = two.programs[1]
    sleeps.process.send_signal(signal.SIGSTOP)
    command(two, 2, "stop")
    assert two.programs[2].wait(GET_S) == 0
    sleeps.process.send_signal(signal.SIGCONT)
    assert sleeps.wait(GET_S) == 0


def test_heads_without_etcd_wait_and_say_so(etcd: Etcd, heads: Heads) -> None:
    assert heads.start(1) == "READY"
    heads.programs[1].stop()
    etcd.kill(0)
    assert heads.start(1) == "STANDBY"
    assert "no head leads now: etcd at " in heads.programs[1].text()
    found = command(heads, 1, "status")
    assert found.returncode == 2
    assert "no head of this cluster leads" in found.stderr
    etcd.start(0)
    heads.programs[1].says("leads now")
    until(lambda: command(heads, 1, "status").returncode == 0, GET_S, "all is well")


def test_etcd_that_is_away_costs_the_lead_and_nothing_else(etcd: Etcd, two: Heads) -> None:
    two.cluster.connect()
    calls = Calls()
    etcd.kill(0)
    for number in (1, 2):
        two.programs[number].says("stands by: ")
        until(lambda n=number: "cannot be asked" in two.programs[n].text(), GET_S, "it says why")
    etcd.start(0)
    calls.go_on()
    assert two.leader() in (1, 2)
    calls.end()


def test_heads_that_cannot_read_what_is_stored_say_so_until_it_is_repaired(
    etcd: Etcd, two: Heads
) -> None:
    etcd.put(b"/zray/default/rows/kv/broken", b"not what a head writes")
    assert command(two, 1, "head", "step-down").returncode == 1
    said = two.programs[2].says("leads no more")
    assert "broken" in said and "damaged" in said
    found = command(two, 1, "status")
    assert found.returncode == 2 and NoLeaderError.code in found.stderr
    assert all(head.process.poll() is None for head in two.programs.values())
    etcd.delete(b"/zray/default/rows/kv/broken")
    assert two.leader() in (1, 2)


def test_a_head_without_the_key_is_refused_with_what_to_do(two: Heads) -> None:
    with pytest.raises(AssertionError, match="Copy the file") as caught:
        two.start(3, key=False)
    assert StartError.code in str(caught.value)
    assert not (two.data(3) / "cluster.key").exists()


def test_a_head_with_the_key_of_another_cluster_is_refused(
    two: Heads, make_key: Callable[[Path], None]
) -> None:
    two.data(3).mkdir(parents=True, mode=0o700)
    make_key(two.data(3) / "cluster.key")
    with pytest.raises(AssertionError, match="another cluster than"):
        two.start(3, key=False)
    assert two.leader() == 1


@pytest.fixture
def make_key() -> Callable[[Path], None]:
    from zray.runtime.keys import ClusterKey

    return lambda path: (ClusterKey.load_or_create(path), None)[1]


def test_a_head_leads_though_its_connection_file_cannot_be_written(two: Heads) -> None:
    path = two.data(2) / "connection.json"
    path.unlink()
    path.mkdir()  # as on a disk that is full
    assert two.programs[1].stop() == 0
    assert two.programs[2].says("the connection file stays as it was")
    assert two.programs[2].says("leads now")
    path.rmdir()
    until(path.is_file, GET_S, "it is written later")
    assert two.programs[2].process.poll() is None and two.leader() == 2


def test_heads_cannot_share_a_data_directory_or_a_port(two: Heads) -> None:
    with pytest.raises(AssertionError, match=DataDirectoryLockedError.code):
        two.start(3, "--data-directory", str(two.data(1)))
    two.addresses[3] = two.addresses[1]
    with pytest.raises(AssertionError, match=PortInUseError.code):
        two.start(3)
    two.addresses.pop(3)
    assert len(two.status().heads) == 2


def test_a_peer_that_knows_a_later_epoch_hears_it_once_the_leader_has_looked(two: Heads) -> None:
    peer = Peer(two.info(1), hello=False)
    peer.epoch = 1 << 40
    peer.send(peer.hello(m.ROLE_OBSERVER), epoch=1 << 40)
    assert peer.receive(m.Refused).code == OlderStoreError.code
    peer.close()
    assert two.leader() == 1
