"""Observers among several heads find the one that leads, follow it, or say why there is none."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.fake_heads import FakeHead, info_of
from zray import limits
from zray.core.known_heads import KnownHeads
from zray.errors import HeadConnectionError, NoLeaderError
from zray.nodes.driver.observer import Observer
from zray.nodes.driver.operator import Operator, Place
from zray.protocol import messages as m
from zray.runtime import sockets
from zray.runtime.keys import ClusterKey
from zray.runtime.scout import Scout


@pytest.fixture
def key() -> ClusterKey:
    return ClusterKey.create()


@pytest.fixture
def heads(key: ClusterKey) -> Iterator[list[FakeHead]]:
    found = [FakeHead(key, number) for number in (1, 2, 3)]
    yield found
    for head in found:
        head.close()


def observer(key: ClusterKey, *addresses: str) -> Observer:
    return Observer(info_of(key, *addresses), ",".join(addresses))


def says_status(epoch: int) -> Callable[[m.Message], tuple[int, m.Message] | None]:
    def answer(message: m.Message) -> tuple[int, m.Message]:
        return epoch, m.Status(0, message.seq, bytes(16), 1.0, f"of {epoch}", [], [], [], 0, [], [])

    return answer


def test_a_head_that_stands_by_leads_to_the_one_that_leads(
    key: ClusterKey, heads: list[FakeHead]
) -> None:
    first, _, leader = heads
    first.stands_by(5, first.info(), leader.info(leads=True))
    leader.leads(5, first.info(), questions=says_status(5))
    started = time.monotonic()
    with observer(key, first.address) as found:
        assert found.status().health == "of 5" and found.address == leader.address
    assert time.monotonic() - started < 1.0


def test_no_head_leads_and_it_is_said_which_stand_by_and_for_how_long(
    key: ClusterKey, heads: list[FakeHead], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CONNECT_TIMEOUT_S", 1.0)
    for head in heads[:2]:
        head.stands_by(5, *(one.info() for one in heads[:2]), text="etcd has no majority")
    with pytest.raises(NoLeaderError) as failed:
        observer(key, heads[0].address).__enter__()
    text = str(failed.value)
    assert "ZR-1504 no head of this cluster leads" in text and "etcd has no majority" in text
    for head in heads[:2]:
        assert f"{head.address} (pid 7 on here) for 6" in text
        assert len(head.asked) > 1, "each was tried again"


def test_a_leader_that_is_said_to_lead_and_does_not_answer_is_named(
    key: ClusterKey, heads: list[FakeHead], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CONNECT_TIMEOUT_S", 1.5)
    gone = m.HeadInfo(b"g" * 16, ["127.0.0.1:9"], "there", 8, "1.0", 0.0, leads=True)
    heads[0].stands_by(5, gone, heads[0].info())
    with pytest.raises(NoLeaderError, match=r"127.0.0.1:9 .* leads .epoch 5., and does"):
        observer(key, heads[0].address).__enter__()


def test_a_head_that_leads_a_moment_later_is_waited_for(
    key: ClusterKey, heads: list[FakeHead]
) -> None:
    first, second, _ = heads
    for head in (first, second):
        head.stands_by(5, first.info(), second.info())
    threading.Timer(0.5, lambda: second.leads(6, first.info(), questions=says_status(6))).start()
    with observer(key, first.address, second.address) as found:
        assert found.status().health == "of 6"


def test_a_machine_that_says_nothing_costs_a_second_and_not_the_connection(
    key: ClusterKey, heads: list[FakeHead]
) -> None:
    heads[0].leads(5, heads[1].info(), questions=says_status(5))
    with socket.create_server(("127.0.0.1", 0)) as stopped:  # accepts, and never answers
        mute = f"127.0.0.1:{stopped.getsockname()[1]}"
        started = time.monotonic()
        with observer(key, mute, heads[0].address) as found:
            assert found.status().health == "of 5"
        assert time.monotonic() - started < 2 * limits.HEAD_PATIENCE_S


def test_what_can_be_asked_again_is_asked_of_the_next_head(
    key: ClusterKey, heads: list[FakeHead]
) -> None:
    first, second, _ = heads
    first.leads(5, second.info())
    second.stands_by(5, first.info(leads=True), second.info())
    with observer(key, first.address) as found:

        def follow() -> None:
            second.leads(6, questions=says_status(6))
            first.close()

        threading.Timer(0.3, follow).start()
        assert found.status().health == "of 6" and found.address == second.address


def test_what_may_have_been_done_is_not_asked_again(key: ClusterKey, heads: list[FakeHead]) -> None:
    first, second, _ = heads
    first.leads(5, second.info())
    second.leads(6)
    info = info_of(key, first.address)
    with Operator(info, first.address) as found:
        threading.Timer(0.3, first.close).start()
        with pytest.raises(HeadConnectionError, match="closed the connection"):
            found.kill(Place("actor", b"a" * 16, "", b"", "", b"", 0, ""))
        assert not second.asked


def test_a_silent_leader_is_left_only_for_one_of_a_later_epoch(
    key: ClusterKey, heads: list[FakeHead]
) -> None:
    leader, second, third = heads
    known = KnownHeads([leader.address])
    known.begin()
    known.welcomed([leader.info(leads=True), second.info(), third.info()], 5)
    context = sockets.context()
    scout = Scout(context, info_of(key, leader.address), known)
    try:
        now = time.monotonic()
        assert not scout.look(now) and not scout.looks, "it has not been asked for anything"
        known.asked(now - 2 * limits.HEAD_SILENT_S)
        for head in (second, third):
            head.stands_by(5, leader.info(leads=True), second.info(), third.info())
        while len(second.asked) < 2 or len(third.asked) < 2:
            assert not scout.look(time.monotonic()) and scout.looks
            time.sleep(0.01)
        assert not leader.asked and known.linked
        hellos = [one for one in (*second.asked, *third.asked) if isinstance(one, m.Hello)]
        assert {(one.role, one.minor) for one in hellos} == {(m.ROLE_OBSERVER, m.PROTOCOL_MINOR)}
        third.leads(6, second.info())
        second.stands_by(6, second.info(), third.info(leads=True))
        deadline = time.monotonic() + 5.0
        while not scout.look(time.monotonic()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not scout.looks
        known.ended(0.5)
        assert known.begin() == third.address
    finally:
        scout.close(time.monotonic())
        context.destroy(0)


def test_a_leader_that_answers_ends_the_questions(key: ClusterKey, heads: list[FakeHead]) -> None:
    leader, second, _ = heads
    known = KnownHeads([leader.address])
    known.begin()
    known.welcomed([leader.info(leads=True), second.info()], 5)
    known.asked(time.monotonic() - 2 * limits.HEAD_SILENT_S)
    context = sockets.context()
    scout = Scout(context, info_of(key, leader.address), known)
    assert not scout.look(time.monotonic()) and scout.looks
    known.heard()
    assert not scout.look(time.monotonic()) and not scout.looks
    context.destroy(0)
