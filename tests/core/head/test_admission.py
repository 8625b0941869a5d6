"""Which HELLO is refused, without a head around it: the rest is in test_traffic_controller."""

from __future__ import annotations

import msgspec
import pytest

from tests.core.benches import CLUSTER, VERSIONS, identity
from tests.core.head.tables import Tables
from zray.core.head.admission import Admission
from zray.core.head.control_store import ControlStore
from zray.core.head.identity import HeadIdentity
from zray.core.head.members import NodeRow
from zray.errors import OlderStoreError, StoreError, VersionMismatchError
from zray.protocol import messages as m


class Bench(Tables):
    def __init__(self, head_id: bytes = b"") -> None:
        super().__init__()
        self.store = ControlStore(5)
        identity = HeadIdentity(CLUSTER, 5, VERSIONS, 0.0, head_id)
        self.admission = Admission(identity, self.members, self.store)

    def code(self, hello: m.Hello, epoch: int = 0) -> str:
        refused = self.admission.objection(hello, epoch)
        return refused.code if refused is not None else ""


def hello(role: int, name: str = "p", **more: object) -> m.Hello:
    job = m.JobInfo("program", "/", [], "machine", "host", 1)
    node = m.NodeInfo(name, "host", 1, [("CPU", 1)], [], "machine")
    said = m.Hello(0, 1, role, identity(name), 1, b"", VERSIONS, ["tasks"], node, job)
    return msgspec.structs.replace(said, **more)


ROLES = [m.ROLE_NODE, m.ROLE_DRIVER, m.ROLE_OBSERVER]


@pytest.mark.parametrize("role", ROLES)
def test_newcomers_are_let_in(role: int) -> None:
    assert Bench().code(hello(role)) == ""
    assert Bench().code(hello(role, cluster_id=CLUSTER)) == ""


@pytest.mark.parametrize("role", ROLES)
def test_while_nothing_can_be_stored_only_those_are_let_in_that_are(role: int) -> None:
    bench = Bench()
    bench.store.trouble = "the disk is full"
    refused = "" if role == m.ROLE_OBSERVER else StoreError.code
    assert bench.code(hello(role)) == refused
    bench.driver("p")
    bench.members.row(identity("p"), NodeRow(1, True, "p"))
    assert bench.code(hello(role)) == ""
    assert bench.code(hello(m.ROLE_NODE, incarnation=2)) == StoreError.code


def test_who_knows_a_later_epoch_shows_that_the_store_is_old() -> None:
    bench = Bench()
    assert bench.code(hello(m.ROLE_NODE), epoch=8) == OlderStoreError.code
    assert bench.code(hello(m.ROLE_NODE), epoch=7) == OlderStoreError.code
    assert bench.store.later_epoch == 8 and "epoch 8" in bench.store.outdated()
    assert bench.code(hello(m.ROLE_NODE), epoch=5) == ""


def test_of_the_same_epoch_there_is_one_head() -> None:
    bench = Bench(head_id=identity("a"))
    assert bench.code(hello(m.ROLE_NODE, head_id=identity("b")), epoch=5) == OlderStoreError.code
    assert bench.code(hello(m.ROLE_NODE, head_id=identity("b")), epoch=4) == ""
    assert bench.code(hello(m.ROLE_NODE, head_id=identity("a")), epoch=5) == ""
    assert bench.code(hello(m.ROLE_NODE), epoch=5) == ""  # one that does not say
    assert Bench().code(hello(m.ROLE_NODE, head_id=identity("b")), epoch=5) == ""


@pytest.mark.parametrize(("incarnation", "refused"), [(1, True), (2, True), (3, False)])
def test_incarnations_up_to_one_that_is_dead_are_fenced(incarnation: int, refused: bool) -> None:
    bench = Bench()
    bench.members.row(identity("p"), NodeRow(2, False, "p"))
    found = bench.code(hello(m.ROLE_NODE, incarnation=incarnation))
    assert found == (m.FENCED if refused else "")


def test_a_driver_that_was_given_up_is_told_what_it_lost() -> None:
    bench = Bench()
    bench.members.job_lost(identity("p"), "it was away, so its job was ended")
    refused = bench.admission.objection(hello(m.ROLE_DRIVER), 5)
    assert refused is not None and refused.code == m.FENCED
    assert refused.text.startswith("it was away, so its job was ended;")


@pytest.mark.parametrize("role", ROLES)
def test_versions_one_minor_apart_are_let_in_and_others_hear_both(role: int) -> None:
    bench = Bench()
    for minor in (m.PROTOCOL_MINOR - 1, m.PROTOCOL_MINOR, m.PROTOCOL_MINOR + 1):
        assert bench.code(hello(role, minor=minor)) == ""
    later = hello(role, minor=m.PROTOCOL_MINOR + 2, versions=m.Versions("3.11", "9.8.7", ""))
    refused = bench.admission.objection(later, 0)
    assert refused is not None and refused.code == VersionMismatchError.code
    assert f"9.8.7 (protocol 1.{m.PROTOCOL_MINOR + 2})" in refused.text
    assert f"(protocol 1.{m.PROTOCOL_MINOR})" in refused.text
    assert bench.code(hello(role, protocol=2)) == VersionMismatchError.code


def test_who_has_no_pickles_may_be_far_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(m, "PROTOCOL_MINOR", 4)
    bench = Bench()
    assert bench.code(hello(m.ROLE_DRIVER, minor=1)) == VersionMismatchError.code
    assert bench.code(hello(m.ROLE_DRIVER, minor=1, versions=m.Versions("", "x", ""))) == ""
