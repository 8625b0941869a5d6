"""What the head that leads knows of others: who is told, step-down, and who knows a later epoch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.benches import CLUSTER, VERSIONS, identity
from tests.core.head.test_standby import H1, H2, H3
from zray.core.head.gcs import Gcs
from zray.core.head.identity import HeadIdentity
from zray.errors import NoStandbyError, OlderStoreError
from zray.protocol import messages as m
from zray.protocol.codec import Payload

EPOCH = 50
OPERATOR = identity("operator")


class Bench:
    """A GCS whose rows become durable when the test says so."""

    def __init__(self) -> None:
        self.gcs = Gcs(HeadIdentity(CLUSTER, EPOCH, VERSIONS, 0.0, H1.head_id, 1), {}, 0.0)
        self.now = 0.0
        self.commit()  # which version leads

    def say(self, route: bytes, *messages: m.Message, epoch: int = EPOCH) -> None:
        self.gcs.controller.receive(route, "user", Payload(epoch, [*messages], []), self.now)

    def hello(self, process_id: bytes, epoch: int = 0) -> None:
        role = m.ROLE_OBSERVER
        greeting = m.Hello(0, m.PROTOCOL_VERSION, role, process_id, 0, b"", VERSIONS)
        greeting.minor = m.PROTOCOL_MINOR
        self.say(process_id, greeting, epoch=epoch)

    def heard(self, route: bytes, kind: Any) -> list[Any]:
        self.gcs.turn.settle(self.now)
        said = self.gcs.routed.take().get(route, [])
        return [message for message in said if isinstance(message, kind)]

    def commit(self) -> list[Any]:
        """Returns the rows of what is durable now."""
        entries = self.gcs.journal.take()
        for number, _ in entries:
            self.gcs.turn.committed(number, self.now)
        return [rows for _, rows in entries]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_whoever_is_welcome_hears_of_all_heads_and_of_changes(bench: Bench) -> None:
    bench.gcs.succession.begins([H1, H2], EPOCH)
    bench.hello(OPERATOR)
    [welcome] = bench.heard(OPERATOR, m.Welcome)
    assert welcome.heads == [H1, H2] and welcome.head_id == H1.head_id
    bench.say(OPERATOR, m.Query(3, m.STATUS))
    [status] = bench.heard(OPERATOR, m.Status)
    assert status.heads == [H1, H2]
    bench.gcs.succession.changed([H1, H3])
    bench.gcs.succession.changed([H1, H3])
    [changed] = bench.heard(OPERATOR, m.HeadsChanged)
    assert changed.heads == [H1, H3]


def test_step_down_is_for_the_shell_where_another_could_lead(bench: Bench) -> None:
    bench.gcs.succession.begins([H1, H2], EPOCH)
    bench.hello(OPERATOR)
    bench.hello(identity("other"))
    bench.say(OPERATOR, m.StepDown(7, "maintenance"))
    assert not bench.heard(OPERATOR, m.Rejected)
    assert bench.gcs.succession.stepping_down == "maintenance"
    bench.gcs.succession.last_words()
    bench.gcs.sessions.hand_over()
    said = bench.gcs.routed.take()
    assert said[OPERATOR] == [m.SteppingDown(0, 7, [H2])]
    assert said[identity("other")] == [m.SteppingDown(0, 0, [H2])]


@pytest.mark.parametrize(("heads", "text"), [([], "file of its own"), ([H1], "no other head")])
def test_step_down_is_refused_where_none_could_lead(
    bench: Bench, heads: list[Any], text: str
) -> None:
    if heads:
        bench.gcs.succession.begins(heads, EPOCH)
    bench.hello(OPERATOR)
    bench.say(OPERATOR, m.StepDown(7, ""))
    [refusal] = bench.heard(OPERATOR, m.Rejected)
    assert (refusal.about, refusal.code) == (7, NoStandbyError.code)
    assert text in refusal.text
    assert not bench.gcs.succession.stepping_down


def test_a_driver_may_not_ask_for_it(bench: Bench) -> None:
    bench.gcs.succession.begins([H1, H2], EPOCH)
    job = m.JobInfo("", "", 1, "", "", "")
    driver = m.Hello(0, m.PROTOCOL_VERSION, m.ROLE_DRIVER, OPERATOR, 0, b"", VERSIONS, job=job)
    bench.say(OPERATOR, driver, epoch=0)
    bench.commit()
    bench.say(OPERATOR, m.StepDown(7, ""))
    assert [one.code for one in bench.heard(OPERATOR, m.Rejected)] == [m.FORBIDDEN]
    assert not bench.gcs.succession.stepping_down


def test_who_knows_a_later_epoch_is_answered_once_this_head_has_proved_that_it_leads(
    bench: Bench,
) -> None:
    bench.gcs.succession.begins([H1, H2], EPOCH)
    for name in (b"a", b"b"):
        bench.hello(identity(name.decode()), epoch=EPOCH + 9)
    assert not bench.heard(identity("a"), m.Message), "another may lead in that epoch"
    bench.gcs.sessions.link_lost(identity("b"), 1.0)
    [rows] = bench.commit()
    assert [value for _, _, value in rows] == [None], "one write for both, that changes nothing"
    [refusal] = bench.heard(identity("a"), m.Refused)
    assert refusal.code == OlderStoreError.code
    assert not bench.heard(identity("b"), m.Message)


def test_where_there_is_one_head_the_answer_is_at_once(bench: Bench) -> None:
    bench.hello(OPERATOR, epoch=EPOCH + 9)
    [refusal] = bench.heard(OPERATOR, m.Refused)
    assert refusal.code == OlderStoreError.code
    assert not bench.gcs.journal


def test_terms_of_one_process_name_their_leases_differently() -> None:
    first = HeadIdentity(CLUSTER, 50, VERSIONS, 0.0, H1.head_id)
    assert first.of_term() != first._replace(epoch=51).of_term()
