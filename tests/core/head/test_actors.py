"""The head's table of actors: creation, names, ends, restarts, and who is told what and when."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.benches import (
    UNIT,
    HeadBench,
    done,
    identity,
    object_of,
    spec,
    template,
    value,
)
from zray import limits
from zray.protocol import messages as m
from zray.protocol.errors import ErrorRecord, encode_error

CLASS = template("Counter.__init__", retries=0)
ACTOR = identity("a1")
HANDLE = object_of(ACTOR)


def info(**fields: Any) -> m.ActorInfo:
    return m.ActorInfo("Counter", b"f" * 16, [("inc", 1)], **fields)


class Bench(HeadBench):
    """A head with driver d1, which has a class, and node n1."""

    def __init__(self, rows: Any = None, *, durable: bool = True) -> None:
        super().__init__(rows)
        self.driver("d1", CLASS)
        self.node("n1", 2)
        self.durable = durable

    def create(
        self, actor: str = "a1", by: str = "d1", get_if_exists: bool = False, **fields: Any
    ) -> None:
        made = {"dependencies": fields.pop("dependencies", [])}
        message = m.CreateActor(
            *(7, identity("d1"), identity("d1"), spec(actor, CLASS, **made), info(**fields)),
            get_if_exists,
        )
        self.say(by, message)

    def made(self, actor: str = "a1", attempt: int = 1, node: str = "n1", **fields: Any) -> None:
        """Its constructor has returned."""
        results = fields.pop("results", [m.Outcome(object_of(identity(actor)), m.VALUE, 0)])
        end = done(identity(actor), attempt, results=results, worker_id=identity("w1"), **fields)
        self.say(node, m.Done(attempt, [end]))

    def exited(self, incarnation: int = 1, *, intended: bool = False) -> None:
        self.say("n1", m.ActorExited(90, ACTOR, incarnation, intended, "signal 9"))

    def told(self, route: str = "d1") -> list[tuple[int, int]]:
        return [(msg.state, msg.incarnation) for msg in self.taken(route, m.ActorState)]

    def alive(self, **fields: Any) -> None:
        self.create(**fields)
        self.made()
        self.taken("d1")
        self.taken("n1")

    def stored(self) -> list[Any]:
        """The rows of actors that were written since the last commit."""
        return [row for _, rows in self.rows for row in rows if row[0] == "actors"]


# ---- creation ----------------------------------------------------------------------------------


def test_nobody_hears_of_an_actor_before_it_is_durable() -> None:
    bench = Bench(durable=False)
    bench.create("a1")
    bench.create("a1")  # asked again in the meantime
    bench.say("d1", m.ActorWatch(0, identity("d1"), [ACTOR]))
    assert bench.taken("d1") == [] and bench.taken("n1", m.Tasks) == []
    bench.commit()
    bench.turn()
    messages = bench.taken("d1")
    assert [type(msg) for msg in messages] == [m.ActorCreated, m.ActorCreated, m.ActorState]
    ((assignment,),) = [message.tasks for message in bench.taken("n1", m.Tasks)]
    assert (assignment.attempt, assignment.actor) == (1, info())


def test_a_constructor_that_returned_makes_it_live_once_that_is_durable() -> None:
    bench = Bench(durable=False)
    bench.create()
    bench.commit()
    bench.turn()
    bench.taken("d1")
    bench.made()
    assert bench.told() == []
    bench.say("d1", m.ActorWatch(0, identity("d1"), [ACTOR]))
    assert bench.told() == []
    bench.commit()
    bench.turn()
    assert (m.ACTOR_ALIVE, 1) in bench.told()
    node = bench.gcs.members.nodes[identity("n1")]
    assert node.view.free == {"CPU": 2 * UNIT}  # it holds nothing while it lives


def test_an_actor_keeps_what_it_says_it_holds() -> None:
    bench = Bench()
    bench.alive(held=[("CPU", UNIT)])
    view = bench.gcs.members.nodes[identity("n1")].view
    assert view.free == {"CPU": UNIT}
    bench.exited()
    assert view.free == view.total


def test_a_constructor_that_raised_is_the_end_and_its_error_is_told() -> None:
    bench = Bench()
    bench.create(max_restarts=-1)
    bench.taken("d1")
    error = encode_error(ErrorRecord("ZR-3001", "why"))
    bench.made(results=[m.Outcome(HANDLE, m.ERROR, len(error), error)])
    (state,) = bench.taken("d1", m.ActorState)
    assert (state.state, state.error) == (m.ACTOR_DEAD, error)
    assert not bench.gcs.actor_table


def test_an_error_that_is_no_record_does_the_head_no_harm() -> None:
    bench = Bench()
    bench.create()
    bench.made(results=[m.Outcome(HANDLE, m.ERROR, 3, b"why")])
    assert bench.told()[-1] == (m.ACTOR_DEAD, 1)


def test_the_creator_may_be_slower_than_who_got_the_handle() -> None:
    bench = Bench()
    bench.driver("d2")
    bench.say("d2", m.ActorWatch(0, identity("d2"), [ACTOR]))
    assert bench.told("d2") == []
    bench.create()
    assert bench.told("d2") == [(m.ACTOR_PENDING, 0)]


def test_an_actor_that_nobody_makes_is_dead_after_a_while() -> None:
    bench = Bench()
    bench.say("d1", m.ActorWatch(0, identity("d1"), [ACTOR]))
    bench.after(limits.UNKNOWN_OBJECT_S + 1)
    assert bench.told() == [(m.ACTOR_DEAD, 0)]
    assert not bench.gcs.actor_directory.unmade


def test_a_creation_is_not_cancelled_with_the_task_that_asked_for_it() -> None:
    bench = Bench()
    bench.create()
    bench.say("d1", m.Cancel(0, ACTOR, False, False))
    assert bench.taken("n1", m.CancelTask) == []
    bench.made()
    assert bench.told()[-1] == (m.ACTOR_ALIVE, 1)


def test_a_constructor_s_arguments_are_held_while_it_may_run_again() -> None:
    for restarts, held in [(0, False), (1, True)]:
        bench = Bench()
        argument = value(identity("p1"))
        bench.say("d1", m.Put(0, identity("d1"), argument))
        bench.create(dependencies=[argument.object_id], max_restarts=restarts)
        bench.say("d1", m.Drop(0, identity("d1"), argument.object_id))
        assert argument.object_id in bench.gcs.objects.records
        bench.made()
        assert (argument.object_id in bench.gcs.objects.records) is held


# ---- names -------------------------------------------------------------------------------------


def test_a_name_belongs_to_one_living_actor_of_a_namespace() -> None:
    bench = Bench()
    bench.create("a1", name="it", namespace="ns")
    bench.taken("d1")
    bench.create("a2", name="it", namespace="ns")
    (refused,) = bench.taken("d1", m.ActorCreated)
    assert refused.code == "ZR-3405" and "already taken" in refused.text
    bench.create("a3", name="it", namespace="other")
    (made,) = bench.taken("d1", m.ActorCreated)
    assert not made.code
    bench.create("a4", get_if_exists=True, name="it", namespace="ns")
    (found,) = bench.taken("d1", m.ActorCreated)
    assert (found.code, found.actor_id) == ("", ACTOR)
    bench.say("d1", m.ListActors(3, "ns", False), m.ListActors(4, "", True))
    mine, all_names = bench.taken("d1", m.ActorNames)
    assert mine.names == [("ns", "it")]
    assert sorted(all_names.names) == [("ns", "it"), ("other", "it")]
    bench.say("d1", m.KillActor(5, ACTOR, True))
    bench.taken("d1")
    bench.create("a2", name="it", namespace="ns")
    (made,) = bench.taken("d1", m.ActorCreated)
    assert not made.code


def test_who_finds_an_actor_holds_its_handle() -> None:
    bench = Bench()
    bench.alive(name="it")
    bench.driver("d2")
    bench.say("d2", m.FindActor(3, identity("d2"), "", "it"))
    (found,) = bench.taken("d2", m.ActorFound)
    assert (found.about, found.actor_id, found.info) == (3, ACTOR, info(name="it"))
    bench.say("d1", m.Drop(0, identity("d1"), HANDLE))
    assert bench.gcs.actor_table
    bench.say("d2", m.Drop(0, identity("d2"), HANDLE))
    assert not bench.gcs.actor_table
    bench.say("d2", m.FindActor(4, identity("d2"), "", "it"))
    assert bench.taken("d2", m.ActorFound) == [m.ActorFound(0, 4)]


# ---- ends --------------------------------------------------------------------------------------


def test_the_last_handle_s_end_lets_it_finish_and_a_kill_does_not() -> None:
    for kill in (False, True):
        bench = Bench()
        bench.alive()
        bench.say("d1", m.KillActor(5, ACTOR, True) if kill else drop())
        (stop,) = bench.taken("n1", m.StopActor)
        assert (stop.incarnation, stop.graceful) == (1, not kill)


def drop() -> m.Message:
    return m.Drop(0, identity("d1"), HANDLE)


def test_a_kill_is_answered_when_it_is_durable() -> None:
    bench = Bench()
    bench.alive()
    bench.durable = False
    bench.say("d1", m.KillActor(5, ACTOR, True))
    assert bench.taken("d1") == []
    bench.commit()
    bench.turn()
    assert {type(msg) for msg in bench.taken("d1")} == {m.Synced, m.ActorState}


def test_a_kill_with_restart_waits_until_the_process_is_gone() -> None:
    bench = Bench()
    bench.alive(max_restarts=1)
    bench.say("d1", m.KillActor(5, ACTOR, False))
    assert len(bench.taken("n1", m.StopActor)) == 1
    assert bench.told() == [] and bench.taken("n1", m.Tasks) == []
    bench.exited()
    assert bench.told() == [(m.ACTOR_RESTARTING, 1)]
    ((assignment,),) = [message.tasks for message in bench.taken("n1", m.Tasks)]
    assert assignment.attempt == 2


@pytest.mark.parametrize(("restarts", "lives"), [(0, 1), (2, 3), (-1, 6)])
def test_an_actor_is_restarted_as_often_as_it_may_be(restarts: int, lives: int) -> None:
    bench = Bench()
    bench.create(max_restarts=restarts)
    for incarnation in range(1, lives + 1):
        bench.after(limits.ACTOR_RESTART_FIRST_S * 2**incarnation)
        bench.made(attempt=incarnation)
        assert bench.told()[-1] == (m.ACTOR_ALIVE, incarnation)
        bench.exited(incarnation)
    wanted = m.ACTOR_RESTARTING if restarts < 0 else m.ACTOR_DEAD
    assert bench.told()[-1] == (wanted, lives)


def test_who_ends_by_its_own_wish_is_not_restarted() -> None:
    bench = Bench()
    bench.alive(max_restarts=-1)
    bench.exited(intended=True)
    assert bench.told() == [(m.ACTOR_DEAD, 1)]


def test_an_end_is_acknowledged_and_one_that_is_told_again_counts_once() -> None:
    bench = Bench()
    bench.alive(max_restarts=1)
    bench.exited()
    bench.exited()
    assert bench.told() == [(m.ACTOR_RESTARTING, 1)]
    bench.after(1.0)
    assert bench.taken("n1", m.Ack)[-1].upto == 90


def test_the_cause_of_a_death_is_known_to_whoever_asks_later() -> None:
    bench = Bench()
    bench.alive()
    bench.exited()
    bench.driver("d2")
    bench.say("d2", m.ActorWatch(0, identity("d2"), [ACTOR]))
    (state,) = bench.taken("d2", m.ActorState)
    assert state.state == m.ACTOR_DEAD and "signal 9" in state.text


def test_an_actor_ends_with_its_owner_and_a_detached_one_does_not() -> None:
    for detached in (False, True):
        bench = Bench()
        bench.alive(detached=detached, name="it")
        bench.say("d1", m.Goodbye(0, "done"))
        assert bool(bench.gcs.actor_table) is detached
        assert len(bench.taken("n1", m.StopActor)) == (not detached)
        assert (ACTOR in bench.gcs.members.jobs) is detached


# ---- calls on their way ------------------------------------------------------------------------


def test_calls_go_to_the_node_of_the_incarnation_that_they_name() -> None:
    bench = Bench()
    bench.alive()
    calls = m.Calls(0, ACTOR, 1, identity("d1"), 0, [])
    bench.say("d1", calls, m.Calls(0, ACTOR, 2, identity("d1"), 0, []))
    assert bench.taken("n1", m.Calls) == [calls]
    replies = m.Replies(0, ACTOR, 1, identity("d1"), [])
    bench.say("n1", replies)
    assert bench.taken("d1", m.Replies) == [replies]


def test_generators_and_their_consumers_hear_each_other() -> None:
    bench = Bench()
    bench.alive()
    items = m.Items(0, identity("w9"), identity("d1"), identity("t"), [])
    bench.say("n1", items)
    assert bench.taken("d1", m.Items) == [items]
    taken = m.Taken(0, identity("d1"), identity("w9"), identity("t"), 1, 0)
    bench.say("d1", taken)
    assert bench.taken("n1", m.Taken) == [taken]


def test_the_link_changes_with_each_session_of_node_or_caller() -> None:
    bench = Bench()
    bench.alive()
    links = []
    for route in ("n1", "d1"):
        hello = bench.hello_node("n1", cpus=2) if route == "n1" else bench.hello_driver("d1")
        bench.say(route, hello)
        if route == "n1":
            actors = [m.HeldActor(ACTOR, 1, identity("w1"))]
            bench.say("n1", m.Announce(0, [], [], [], actors=actors), m.Credit(0, 100))
        else:
            bench.say("d1", m.ActorWatch(0, identity("d1"), [ACTOR]))
        links += [state.link for state in bench.taken("d1", m.ActorState)]
    assert len(links) == len(set(links)) == 2


# ---- reconciling -------------------------------------------------------------------------------


def announce(bench: Bench, *actors: m.HeldActor, tasks: list[m.HeldTask] | None = None) -> None:
    bench.say("n1", bench.hello_node("n1", cpus=2))
    bench.say("n1", m.Announce(0, tasks or [], [], [], actors=list(actors)), m.Credit(0, 100))


def test_an_actor_that_its_node_does_not_list_any_more_has_died() -> None:
    bench = Bench()
    bench.alive(max_restarts=1)
    announce(bench)
    assert bench.told()[-1] == (m.ACTOR_RESTARTING, 1)


def test_an_actor_that_the_head_gave_up_is_stopped_when_its_node_is_back() -> None:
    bench = Bench()
    bench.alive()
    bench.say("d1", m.KillActor(5, ACTOR, True))
    bench.taken("n1")
    announce(bench, m.HeldActor(ACTOR, 1, identity("w1")))
    assert [stop.actor_id for stop in bench.taken("n1", m.StopActor)] == [ACTOR]


def test_the_end_of_a_constructor_that_is_told_again_discards_nobody() -> None:
    bench = Bench()
    bench.alive()
    held = m.HeldTask(ACTOR, 1, identity("d1"), CLASS.template_id, makes_actor=True)
    announce(bench, m.HeldActor(ACTOR, 1, identity("w1")), tasks=[held])
    assert bench.taken("n1", m.Discard) == []
    assert bench.gcs.actor_table[ACTOR].lives(1)


def restarted(bench: Bench) -> HeadBench:
    """Another head on what the first one has stored."""
    rows: dict[str, dict[bytes, bytes]] = {}
    for table, key, data in bench.kept:
        rows.setdefault(table, {})[key] = data
        if data is None:
            del rows[table][key]
    head = HeadBench(rows, epoch=2)
    head.say("d1", head.hello_driver("d1"), epoch=1)
    return head


class Kept(Bench):
    """One whose rows are remembered."""

    def __init__(self) -> None:
        self.kept: list[Any] = []
        super().__init__()

    def commit(self) -> None:
        self.kept += [row for _, rows in self.rows for row in rows]
        super().commit()


@pytest.mark.parametrize(("incarnation", "counts"), [(0, False), (1, True), (2, True)])
def test_after_a_restart_the_node_says_which_incarnation_lives(
    incarnation: int, counts: bool
) -> None:
    bench = Kept()
    bench.alive(max_restarts=1)
    head = restarted(bench)
    assert head.taken("d1", m.ActorState) == []
    head.say("n1", head.hello_node("n1", cpus=2))
    actors = [m.HeldActor(ACTOR, incarnation, identity("w1"))]
    head.say("n1", m.Announce(0, [], [], [], actors=actors), m.Credit(0, 100))
    assert head.gcs.actor_table[ACTOR].lives(incarnation) is counts
    assert len(head.taken("n1", m.StopActor)) == (not counts)


def test_after_a_restart_an_incarnation_that_is_over_does_not_return() -> None:
    bench = Kept()
    bench.alive(max_restarts=1)
    bench.exited()
    head = restarted(bench)
    head.say("n1", head.hello_node("n1", cpus=2))
    held = m.HeldTask(ACTOR, 1, identity("d1"), CLASS.template_id, makes_actor=True)
    actors = [m.HeldActor(ACTOR, 1, identity("w1"))]
    head.say("n1", m.Announce(0, [held], [], [], actors=actors), m.Credit(0, 100))
    assert len(head.taken("n1", m.Discard)) == 1
    assert not head.gcs.actor_table[ACTOR].lives(1)


# ---- promises ----------------------------------------------------------------------------------


RESULT = object_of(identity("c1"))


def promised() -> HeadBench:
    head = HeadBench()
    head.driver("d1", CLASS)
    head.driver("d2")
    head.say("d1", m.Promise(0, identity("d1"), RESULT))
    head.say("d2", m.Hold(0, identity("d2"), RESULT), m.Watch(0, identity("d2"), RESULT))
    return head


def test_a_promised_object_is_awaited_for_as_long_as_its_owner_lives() -> None:
    head = promised()
    head.after(10 * limits.UNKNOWN_OBJECT_S)
    assert head.taken("d2", m.Result) == []
    head.say("d1", m.Put(0, identity("d1"), value(identity("c1"))))
    (result,) = head.taken("d2", m.Result)
    assert result.outcomes == [value(identity("c1"))]
    assert not head.gcs.holders.is_promised(RESULT)


def test_a_promise_is_broken_by_the_end_of_who_made_it() -> None:
    head = promised()
    head.say("d1", m.Goodbye(0, "done"))
    (result,) = head.taken("d2", m.Result)
    assert b"ZR-3006" in result.outcomes[0].value
    assert not head.gcs.holders._promises


def test_a_promise_may_come_after_who_asks_for_the_object() -> None:
    head = HeadBench()
    head.driver("d1", CLASS)
    head.driver("d2")
    head.say("d2", m.Hold(0, identity("d2"), RESULT), m.Watch(0, identity("d2"), RESULT))
    head.after(limits.UNKNOWN_OBJECT_S / 2)
    head.say("d1", m.Promise(0, identity("d1"), RESULT))
    head.after(2 * limits.UNKNOWN_OBJECT_S)
    assert head.taken("d2", m.Result) == []


def test_who_has_promised_an_object_is_asked_to_cancel_what_makes_it() -> None:
    head = promised()
    head.say("d2", m.Cancel(0, identity("c1"), True, False))
    (passed_on,) = head.taken("d1", m.Cancel)
    assert (passed_on.task_id, passed_on.force) == (identity("c1"), True)
    assert passed_on.target == identity("d1")
    head.say("d2", m.Cancel(0, identity("c1"), True, False, index=1))  # that is not promised
    head.say("d1", m.Cancel(0, identity("c1"), True, False))  # it knows of none any more
    head.say("d1", m.Put(0, identity("d1"), value(identity("c1"))))
    head.say("d2", m.Cancel(0, identity("c1"), True, False))  # it is too late
    assert head.taken("d1", m.Cancel) == []


def test_a_task_waits_for_a_promised_argument() -> None:
    head = promised()
    work = template()
    head.say("d1", work)
    head.node("n1")
    head.submit("d1", spec("t1", work, dependencies=[RESULT]))
    head.after(2 * limits.UNKNOWN_OBJECT_S)
    assert head.assigned("n1") == []
    head.say("d1", m.Put(0, identity("d1"), value(identity("c1"))))
    assert head.assigned("n1") == ["t1"]


def test_who_submits_is_a_holder_also_of_what_others_have_named_before() -> None:
    head = HeadBench()
    work = template()
    head.driver("d1", work)
    head.driver("d2")
    head.node("n1")
    head.say("d2", m.Hold(0, identity("d2"), object_of(identity("t1"))))
    head.submit("d1", spec("t1", work))
    head.say("d2", m.Drop(0, identity("d2"), object_of(identity("t1"))))
    head.say("n1", m.Done(1, [done(identity("t1"))]))
    head.say("d1", m.ResultAck(0, identity("d1"), 1))
    assert object_of(identity("t1")) in head.gcs.objects.records


def test_only_processes_that_will_not_be_heard_of_again_are_gone() -> None:
    head = promised()
    asked = identity("d1") + identity("d2") + identity("d9")
    head.say("d2", m.AskGone(4, asked))
    assert head.taken("d2", m.Gone) == [m.Gone(0, 4, identity("d9"))]
