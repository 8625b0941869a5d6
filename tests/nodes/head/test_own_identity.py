"""Which node a head's own raylet is: the same in all its lives, and another in a copy."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from tests.core.benches import VERSIONS
from zray.core.head.gcs import Gcs
from zray.core.head.identity import HeadIdentity
from zray.core.head.members import NodeRow
from zray.nodes.head.addresses import reachable
from zray.nodes.head.own_identity import OwnIdentity

CLUSTER, OTHER = b"c" * 16, b"o" * 16


def shared(data: Path, cluster: bytes = CLUSTER) -> OwnIdentity:
    data.mkdir(mode=0o700, exist_ok=True)
    return OwnIdentity(cluster, data, shared=True)


def test_where_there_is_one_head_the_cluster_tells_its_node(tmp_path: Path) -> None:
    mine = OwnIdentity(CLUSTER, tmp_path, shared=False)
    assert mine.node_id == OwnIdentity(CLUSTER, tmp_path / "other", shared=False).node_id
    assert mine.node_id != OwnIdentity(OTHER, tmp_path, shared=False).node_id
    assert not [*tmp_path.iterdir()]
    gcs = Gcs(HeadIdentity(CLUSTER, 7, VERSIONS, 0.0), {}, 0.0)
    assert mine.next_incarnation(gcs) == 7 << 16
    gcs.members.node_rows[mine.node_id] = NodeRow((7 << 16) + 3, True, "head", [], "")
    assert mine.next_incarnation(gcs) == (7 << 16) + 4


def test_each_data_directory_is_a_node_of_its_own(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    first = shared(one)
    begun = first.next_incarnation(None)
    again = shared(one)
    assert again.node_id == first.node_id
    assert again.next_incarnation(None) > begun
    assert shared(two).node_id != first.node_id
    copy = tmp_path / "copy"
    shutil.copytree(one, copy)
    assert shared(copy).node_id != first.node_id
    assert shared(one, OTHER).node_id != first.node_id


def test_a_clock_that_is_set_back_makes_no_earlier_incarnation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns()
    before = shared(tmp_path).next_incarnation(None)
    monkeypatch.setattr(time, "time_ns", lambda: now - 86400 * 10**9)
    assert shared(tmp_path).next_incarnation(None) > before


@pytest.mark.parametrize("content", ["", "[]", "{", '{"salt": 3}', "null"])
def test_a_file_that_is_broken_is_made_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "node.json"
    path.write_text(content)
    found = shared(tmp_path)
    found.next_incarnation(None)
    assert json.loads(path.read_bytes())["incarnation"] > 0
    assert shared(tmp_path).node_id == found.node_id


def test_other_machines_are_not_told_of_the_loopback() -> None:
    assert reachable(["10.0.0.1:5", "127.0.0.1:5"]) == ["10.0.0.1:5"]
    assert reachable(["127.0.0.1:5"]) == ["127.0.0.1:5"]
    assert len(reachable([f"10.0.0.{n}:5" for n in range(99)])) == 16
