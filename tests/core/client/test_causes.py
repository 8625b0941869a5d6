"""What a program knows by itself of why its tasks and objects are not done."""

from __future__ import annotations

from msgspec.structs import replace

from tests.core.benches import FUNCTION, identity, object_of, template
from zray.core import failures
from zray.core.client.client import Client
from zray.core.identity import Identity
from zray.errors import WorkerCrashedError
from zray.ids import IdSource, object_id
from zray.protocol import messages as m
from zray.protocol.codec import Payload

WORK = template()
ME = b"processme" + bytes(7)


class Bench:
    """A driver's client with a session, and a function."""

    def __init__(self) -> None:
        self.ids = IdSource(ME[:8])
        self.client = Client(Identity(ME, ME, self.ids), remote=True)
        self.say(m.Welcome(0, 1, b"c" * 16, 1 << 20, 2.0))
        self.client.export(m.Export(0, FUNCTION, "work", b"code"))
        self.client.template(WORK)

    def say(self, *messages: m.Message) -> None:
        self.client.receive(Payload(1, list(messages), []), 1.0)

    def submit(self, *dependencies: bytes) -> bytes:
        spec = m.TaskSpec(self.ids.task_id(), WORK.template_id, b"", [*dependencies])
        (oid,) = self.client.submit(spec, 1)
        self.client.flush()
        return oid

    def ask(self, thing_id: bytes) -> m.ToldWhy:
        self.client.take_outbox()
        self.say(m.AskWhy(5, thing_id))
        (told,) = [one for one in self.client.take_outbox() if isinstance(one, m.ToldWhy)]
        assert told.about == 5
        return told


def codes(told: m.ToldWhy) -> list[str]:
    return [one.code for one in told.causes]


def test_what_is_with_the_head_the_head_tells() -> None:
    bench = Bench()
    oid = bench.submit()
    assert bench.client.causes.of(oid) == ([], oid, (), b"")
    assert codes(bench.ask(oid)) == ["SUBMITTED"]
    assert not bench.ask(object_of(identity("other's"))).causes


def test_what_is_here_has_ended() -> None:
    bench = Bench()
    good, bad = bench.submit(), object_id(bench.ids.task_id())
    error = failures.encode(WorkerCrashedError, "it died", "work")
    bench.client.outcomes[good] = m.Outcome(good, m.VALUE, 5, b"value")
    bench.client.outcomes[bad] = m.Outcome(bad, m.ERROR, len(error), error)
    assert codes(bench.ask(good)) == ["READY"]
    assert codes(bench.ask(good[:16])) == ["READY"]
    (found,) = bench.ask(bad).causes
    assert (found.code, found.text) == ("FAILED", "it died")


def test_what_waits_for_a_leased_worker_and_what_waits_for_that() -> None:
    bench = Bench()
    bench.submit()  # by way of the head
    second = bench.submit()
    third = bench.submit(second)
    fourth = bench.submit(third)
    told = bench.ask(fourth)
    assert codes(told) == ["WAIT_DEPS", "WAIT_DEPS", "WAIT_RESOURCES"]
    assert told.needs == list(WORK.resources) and not told.next
    (own,) = bench.ask(ME).causes
    assert own.code == "DRIVER" and own.text.startswith("3 of its tasks go straight to workers")
    assert [one.name for one in own.details] == ["1"]  # the others wait for this one


def test_what_cannot_leave_yet_says_so() -> None:
    bench = Bench()
    named = replace(WORK, template_id=identity("parent"))
    bench.client.template(named)
    bench.client.disconnected()
    spec = m.TaskSpec(bench.ids.task_id(), named.template_id, b"", parent=identity("p"))
    (oid,) = bench.client.submit(spec, 1)
    (found,) = bench.client.causes.of(oid).causes
    assert found.code == "WAIT_SUBMIT" and "0 of its tasks are with the head" in found.text


def test_of_a_long_chain_of_arguments_the_beginning_and_the_end_are_told() -> None:
    bench = Bench()
    bench.submit()  # by way of the head
    last = first = bench.submit()
    for _ in range(2000):
        last = bench.submit(last)
    told = bench.ask(last)
    assert codes(told) == ["WAIT_DEPS"] * 4 + ["WAIT_RESOURCES"]
    assert told.causes[2].text.endswith("; 1,996 more wait like that, each for the next; then")
    assert told.causes[4].id == first[:16]
