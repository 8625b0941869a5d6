"""Requests for actors, without the client: when they leave, and what their answers mean."""

from __future__ import annotations

from typing import Any

from tests.core.benches import FUNCTION, identity, object_of, template
from tests.core.client.benches import ME, Lower
from zray.core.client.actor_caller import ActorCaller
from zray.core.client.waiters import Waiter
from zray.protocol import messages as m

CLASS = template("Counter")
INFO = m.ActorInfo("Counter", FUNCTION, [("add", 1)])


class Bench(Lower):
    def __init__(self) -> None:
        super().__init__()
        self.refusals: list[tuple[bytes, str]] = []
        self.asked: list[bytes] = []
        self.creations = self.make_creations(self._refuse, self.asked.append)
        self.definitions.template(CLASS)
        self.taken()

    def _refuse(self, actor: ActorCaller, text: str) -> None:
        self.refusals.append((actor.actor_id, text))

    def create(self, name: str, *, get_if_exists: bool = False, **fields: Any) -> Waiter:
        """Ask for an actor; who waits for the answer."""
        waiter = Waiter()
        spec = m.TaskSpec(identity(name), CLASS.template_id, b"", **fields)
        self.answer = self.creations.create(spec, INFO, get_if_exists, waiter)
        return waiter

    def answers(self, message: Any) -> None:
        asked = self.requests.take(message.about)
        assert asked is not None
        if isinstance(message, m.Rejected):
            self.creations.on_refusal(asked.request)
        else:
            self.creations.on_answer(asked.request, message)
        asked.answer.append(message)
        asked.waiter.arrived()


def test_a_request_leaves_once_what_its_constructor_needs_is_submitted() -> None:
    bench, argument = Bench(), object_of(identity("t1"))
    bench.unsubmitted.add(identity("t1"))
    bench.create("a1", dependencies=[argument])
    bench.create("a2", nested=[object_of(identity("a1"))])  # a handle of the first
    bench.creations.ask_some()
    assert not bench.taken(m.CreateActor) and not bench.asked
    bench.unsubmitted.clear()
    bench.creations.ask_some()
    made = [message.task.task_id for message in bench.taken(m.CreateActor)]
    assert made == bench.asked == [identity("a1"), identity("a2")]


def test_arguments_are_held_here_until_the_head_holds_them_for_the_actor() -> None:
    bench, argument = Bench(), object_of(identity("x"))
    waiter = bench.create("a1", dependencies=[argument])
    (request,) = bench.taken(m.CreateActor)
    assert argument in bench.references and waiter.remaining == 1
    bench.answers(m.ActorCreated(0, request.seq, identity("a1"), INFO))
    assert argument not in bench.references and waiter.remaining == 0
    assert not bench.refusals
    bench.definitions.name(FUNCTION)
    bench.definitions.unname(FUNCTION)
    assert bench.taken(m.Forget)  # the class is not in use any more


def test_an_actor_that_was_there_already_is_not_held() -> None:
    bench, old = Bench(), object_of(identity("old"))
    bench.create("a1", get_if_exists=True)
    (request,) = bench.taken(m.CreateActor)
    bench.references.remove(object_of(identity("a1")))
    assert bench.told(m.Drop) == [object_of(identity("a1"))]
    bench.answers(m.ActorCreated(0, request.seq, identity("old"), INFO))
    # The answer has made this process a holder; what it asked for, if it was asked once more.
    assert {*bench.told(m.Drop)} == {object_of(identity("a1")), old}
    assert old not in bench.references


def test_an_actor_that_was_there_already_and_is_held_stays_so() -> None:
    bench, old = Bench(), object_of(identity("old"))
    bench.references.adopt(old)
    bench.create("a1", get_if_exists=True)
    (request,) = bench.taken(m.CreateActor)
    bench.answers(m.ActorCreated(0, request.seq, identity("old"), INFO))
    assert old not in bench.told(m.Drop) and old in bench.references


def test_a_name_that_is_taken_and_a_request_that_is_rejected_refuse_the_actor() -> None:
    for answer in (
        m.ActorCreated(0, 1, bytes(16), INFO, "ZR-1", "the name is taken"),
        m.Rejected(0, 1, "ZR-1", "the name is taken"),
    ):
        bench = Bench()
        bench.create("a1")
        (request,) = bench.taken(m.CreateActor)
        answer.about = request.seq
        bench.answers(answer)
        assert bench.refusals == [(identity("a1"), "the name is taken")]
        assert bench.answer == [answer]


def test_actors_of_a_class_that_the_head_refuses_are_refused_and_killed() -> None:
    bench = Bench()
    bench.create("a1")
    other = bench.actors.of(identity("other"))
    other.info = m.ActorInfo("Other", identity("g"), [])
    bench.taken()
    bench.creations.class_refused(FUNCTION, "too large")
    assert bench.refusals == [(identity("a1"), "too large")]
    (kill,) = bench.taken()
    assert (kill.actor_id, kill.no_restart) == (identity("a1"), True)


def test_a_found_actor_is_not_held_but_by_who_has_a_handle_anyway() -> None:
    bench = Bench()
    bench.requests.ask(lambda number: m.FindActor(number, ME, "", "name"), Waiter())
    (request,) = bench.taken()
    bench.answers(m.ActorFound(0, request.seq, identity("a1"), INFO))
    assert object_of(identity("a1")) not in bench.references
    # Of what the answer has made this process a holder:
    assert bench.told(m.Drop) == [object_of(identity("a1"))]
    bench.references.adopt(object_of(identity("a1")))
    bench.requests.ask(lambda number: m.FindActor(number, ME, "", "name"), Waiter())
    (request,) = bench.taken()
    bench.answers(m.ActorFound(0, request.seq, identity("a1"), INFO))
    assert not bench.told(m.Message)
