"""What makes an actor and what ends it: creation, kills, exits, handles, owners and restarts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.core.benches import FUNCTION, done, identity, object_of, spec, template
from tests.core.head.tables import Machines
from zray import limits
from zray.core.head.actor_records import TABLE, ActorRecord, ActorRow
from zray.errors import ActorAlreadyExistsError, ProtocolError
from zray.protocol import messages as m

CLASS = template("Counter.__init__", retries=0)
ACTOR, OTHER = identity("a"), identity("b")
OWNER, WORKER = identity("d"), identity("w")
ARGUMENT = object_of(identity("argument"))
HANDLE = object_of(ACTOR)


class Bench(Machines):
    """Node n1 with two processors, and driver d."""

    def __init__(self, rows: dict[bytes, bytes] | None = None, *, awaited: str = "") -> None:
        super().__init__(CLASS, awaited=awaited)
        self.n1 = self.node("n1", 2)
        self.job = self.driver("d", resumed=bool(rows))
        self.machine = self.make_actors(rows)

    def create(self, actor: str = "a", *, owner: bytes = OWNER, **info: Any) -> None:
        """``made_of``, ``job_id``, ``get_if_exists`` and ``dependencies`` are of the message."""
        made_of, job_id = info.pop("made_of", CLASS), info.pop("job_id", OWNER)
        get_if_exists = info.pop("get_if_exists", False)
        task = spec(actor, made_of, dependencies=info.pop("dependencies", []))
        about = m.ActorInfo("Counter", FUNCTION, [], **info)
        message = m.CreateActor(7, job_id, owner, task, about, get_if_exists)
        self.machine.on_create(self.job if owner == OWNER else self.n1, message, 0.0)

    def construct(self, attempt: int = 1) -> None:
        """Its constructor is started and returns, which is durable."""
        assert self.starts() == [(ACTOR, attempt)]
        end = done(ACTOR, attempt, results=[m.Outcome(HANDLE, m.VALUE, 0)], worker_id=WORKER)
        self.task_manager.on_done(self.n1, m.Done(0, [end]), 0.0)
        self.commit()

    def living(self, **info: Any) -> ActorRecord:
        """An actor that can be called."""
        self.create(**info)
        self.commit()
        self.construct()
        self.outbox.take()
        return self.actors[ACTOR]

    def exited(self, incarnation: int = 1, *, intended: bool = False, seq: int = 5) -> None:
        message = m.ActorExited(seq, ACTOR, incarnation, intended, "signal 9")
        self.machine.on_exited(self.n1, message, 0.0)

    def kill(self, *, no_restart: bool) -> None:
        self.machine.on_kill(self.job, m.KillActor(8, ACTOR, no_restart), 0.0)

    def answers(self, process: bytes = OWNER) -> list[tuple[bytes, str]]:
        """The actors and errors that those who wanted one made are told."""
        told = self.sent(m.ActorCreated).get(process, [])
        return [(answer.actor_id, answer.code) for answer in told]


# ---- creation ----------------------------------------------------------------------------------


def test_nobody_hears_of_an_actor_and_nobody_makes_it_before_it_is_durable() -> None:
    bench = Bench()
    bench.create()
    bench.create()  # asked again in the meantime
    assert not bench.outbox and bench.starts() == []
    rows = bench.commit()
    assert [(table, key) for table, key, _ in rows] == [(TABLE, ACTOR)]
    assert bench.answers() == [(ACTOR, ""), (ACTOR, "")] and bench.starts() == [(ACTOR, 1)]


def test_its_arguments_are_kept_and_its_maker_has_the_first_handle() -> None:
    bench = Bench()
    bench.objects.settle(m.Outcome(ARGUMENT, m.VALUE, 1, b"1"), ())
    bench.create(dependencies=[ARGUMENT], owner=WORKER)
    kept = bench.objects.get(ARGUMENT), bench.objects.get(HANDLE)
    assert [one is not None and one.holders for one in kept] == [ACTOR, WORKER]
    assert WORKER in bench.n1.workers
    bench.commit()
    assert bench.answers(bench.n1.process_id) == [(ACTOR, "")]


PACKAGE, BIG = object_of(identity("package")), object_of(identity("big"))
PARTS = [m.EnvironmentPart(m.PY_MODULE, object_id=one) for one in (PACKAGE, BIG, ARGUMENT)]


@pytest.mark.parametrize("detached", [False, True])
def test_a_detached_one_has_small_packages_of_its_environment_in_its_row(detached: bool) -> None:
    bench = Bench()
    made_of = msgspec.structs.replace(CLASS, environment=m.Environment(parts=PARTS))
    bench.definitions.templates[CLASS.template_id].message = made_of
    bench.objects.settle(m.Outcome(PACKAGE, m.VALUE, 3, b"zip"), ())
    large = bytes(limits.ACTOR_PACKAGES_BYTES_MAX)
    bench.objects.settle(m.Outcome(BIG, m.VALUE, len(large), large), ())
    bench.create(detached=detached)
    ((_, _, value),) = bench.commit()
    assert value is not None
    row = msgspec.msgpack.decode(value, type=ActorRow)
    assert row.packages == ([(PACKAGE, b"zip")] if detached else [])

    later = Bench({ACTOR: value})
    assert later.objects.value(PACKAGE) == (b"zip" if detached else None)
    (kept,) = later.actors.values()
    assert kept.packages == row.packages  # so that each of its rows has them


def test_a_name_is_had_once_and_who_wants_that_gets_the_one_that_has_it() -> None:
    bench = Bench()
    bench.create(name="it", namespace="space")
    bench.create("b", name="it", namespace="space", owner=WORKER)
    (refused,) = bench.answers(bench.n1.process_id)
    assert refused == (OTHER, ActorAlreadyExistsError.code)
    bench.create("b", name="it", namespace="space", owner=WORKER, get_if_exists=True)
    assert not bench.outbox  # the one that has it is not durable itself
    bench.commit()
    assert bench.answers(bench.n1.process_id) == [(ACTOR, "")]
    assert HANDLE in bench.objects.held_by[WORKER]
    bench.create("b", name="it", namespace="elsewhere")
    assert [*bench.actors] == [ACTOR, OTHER]


@pytest.mark.parametrize(
    "wrong",
    [{"made_of": template("never sent")}, {"job_id": identity("over")}, {"actor": "n1"}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_one_that_cannot_be_made_is_refused_and_leaves_nothing(wrong: dict[str, Any]) -> None:
    bench = Bench()
    bench.create(**wrong)
    actor_id = identity(wrong.get("actor", "a"))
    assert bench.answers() == [(actor_id, ProtocolError.code)]
    assert not bench.actors and not bench.journal and not bench.objects.records


def test_one_that_is_dead_is_not_made_again_for_who_asks_late() -> None:
    bench = Bench()
    bench.living()
    bench.kill(no_restart=True)
    bench.commit()
    bench.outbox.take()
    bench.create()
    assert bench.answers() == [(ACTOR, "")] and not bench.actors and not bench.journal


# ---- end ---------------------------------------------------------------------------------------


def test_a_kill_is_confirmed_when_it_is_durable_and_its_node_is_told() -> None:
    bench = Bench()
    bench.living(max_restarts=-1)
    bench.kill(no_restart=True)
    assert not bench.outbox
    assert bench.commit() == [(TABLE, ACTOR, None)]
    sent = bench.outbox.take()
    (stop,) = sent[bench.n1.process_id]
    assert isinstance(stop, m.StopActor) and (stop.incarnation, stop.graceful) == (1, False)
    assert [type(one) for one in sent[OWNER]] == [m.ActorState, m.Synced]
    bench.exited()  # as the node then says
    assert not bench.actors and bench.starts(1e9) == []


def test_a_kill_that_allows_a_restart_is_followed_by_the_next_incarnation() -> None:
    bench = Bench()
    record = bench.living(max_restarts=1)
    bench.kill(no_restart=False)
    ((stop,),) = bench.sent(m.StopActor).values()
    assert stop.incarnation == 1 and record.state == m.ACTOR_ALIVE
    bench.exited(intended=True)  # as its process ends when it is asked to
    assert record.state == m.ACTOR_RESTARTING
    bench.commit()
    bench.incarnations.step(bench.incarnations.deadline())
    bench.kill(no_restart=False)  # it is about to start afresh anyway
    bench.construct(2)
    assert record.state == m.ACTOR_ALIVE and not bench.sent(m.StopActor)


@pytest.mark.parametrize("intended", [True, False])
def test_an_exit_of_its_own_is_the_end_and_another_is_not(intended: bool) -> None:
    bench = Bench()
    record = bench.living(max_restarts=1)
    bench.exited(intended=intended)
    bench.commit()
    assert record.state == (m.ACTOR_DEAD if intended else m.ACTOR_RESTARTING)
    assert ("by itself" in record.text) is intended
    assert bench.n1.actors == {}


def test_an_exit_is_acknowledged_when_what_follows_of_it_is_durable() -> None:
    bench = Bench()
    bench.living()
    bench.exited(seq=5)
    assert bench.acknowledged(bench.n1) == [4]
    bench.commit()
    assert bench.acknowledged(bench.n1) == [5]


def test_an_exit_told_again_does_not_end_the_next_incarnation() -> None:
    bench = Bench()
    record = bench.living(max_restarts=3)
    bench.exited()
    bench.commit()
    bench.incarnations.step(bench.incarnations.deadline())
    bench.construct(2)
    bench.exited(seq=6)
    bench.commit()
    assert (record.state, record.restarts) == (m.ACTOR_ALIVE, 1)
    assert bench.acknowledged(bench.n1) == [6]  # else the node would tell for ever


def test_without_handles_it_ends_as_it_pleases() -> None:
    bench = Bench()
    bench.living(max_restarts=-1)
    bench.machine.handle_gone(ACTOR)
    bench.commit()
    ((stop,),) = bench.sent(m.StopActor).values()
    assert stop.graceful and not bench.actors


@pytest.mark.parametrize("detached", [True, False])
def test_what_was_made_ends_with_its_driver_unless_it_is_detached(detached: bool) -> None:
    bench = Bench()
    bench.living(detached=detached)
    bench.machine.job_ended(OWNER)
    bench.objects.vanish(OWNER)
    bench.commit()
    assert (ACTOR in bench.actors) is detached
    freed = [oid for oid, _ in bench.objects.sweep(lambda oid, known: False)]
    assert (HANDLE in freed) is not detached  # it holds its own


# ---- calls -------------------------------------------------------------------------------------


def test_calls_reach_the_incarnation_that_they_are_for_and_no_other() -> None:
    bench = Bench()
    bench.living()
    for incarnation in (0, 1, 2):
        bench.machine.on_calls(bench.job, m.Calls(0, ACTOR, incarnation, OWNER, 0, []), 0.0)
    ((calls,),) = bench.sent(m.Calls).values()
    assert calls.incarnation == 1
    bench.machine.on_calls(bench.n1, m.Calls(0, OTHER, 1, WORKER, 0, []), 0.0)
    (told,) = bench.sent(m.ActorState)[bench.n1.process_id]
    assert (told.target, told.state) == (WORKER, m.ACTOR_DEAD)


# ---- after a restart of the head -----------------------------------------------------------------


def row(**fields: Any) -> dict[bytes, bytes]:
    """Of an actor that lived on n1."""
    job = m.JobInfo("program", "/", [], "machine", "host", 1) if fields.get("detached") else None
    job_id = ACTOR if job is not None else OWNER
    about = m.ActorInfo("Counter", FUNCTION, [], "it", "space", **fields)
    task = spec("a", CLASS, dependencies=[ARGUMENT])
    ids = (identity("n1"), WORKER)
    kept = ActorRow(about, task, CLASS, job_id, OWNER, m.ACTOR_ALIVE, 3, 2, *ids, job)
    return {ACTOR: msgspec.msgpack.encode(kept)}


def test_an_actor_of_before_has_its_name_and_cannot_be_called_until_its_node_has_told() -> None:
    bench = Bench(row(max_restarts=5), awaited="n1")
    call = m.Calls(0, ACTOR, 3, OWNER, 0, [])
    bench.machine.on_calls(bench.job, call, 0.0)
    bench.create("b", name="it", namespace="space")
    assert not bench.sent(m.Calls) and [*bench.actors] == [ACTOR]
    known = bench.objects.get(ARGUMENT)
    assert known is not None and known.holders == ACTOR  # it may have to be made again
    held = m.HeldActor(ACTOR, 3, WORKER)
    bench.make_actor_reconciliation().announced(bench.n1, [held])
    bench.machine.on_calls(bench.job, call, 0.0)
    assert bench.sent(m.Calls) == {bench.n1.process_id: [call]}


def test_a_detached_actor_of_before_has_its_job_and_itself() -> None:
    bench = Bench(row(detached=True), awaited="n1")
    assert bench.members.jobs[ACTOR].driverless
    bench.recovery.end()
    assert not bench.objects.sweep(lambda oid, known: oid != HANDLE)
    assert ARGUMENT not in bench.objects.records  # its constructor never runs again
