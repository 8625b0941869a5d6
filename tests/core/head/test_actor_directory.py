"""How actors are found, and who is told of what becomes of them."""

from __future__ import annotations

from tests.core.benches import FUNCTION, identity, spec, template
from tests.core.head.tables import Tables
from zray import limits
from zray.core.head.actor_directory import ActorDirectory
from zray.core.head.actor_records import ActorRecord
from zray.core.head.task_records import FunctionUse, TemplateRecord
from zray.core.machine import NEVER
from zray.protocol import messages as m

MADE = template("Counter")
OWNER, ASKER = identity("d"), identity("asker")


class Bench(Tables):
    def __init__(self, awaited: str = "") -> None:
        super().__init__(awaited)
        self.directory = ActorDirectory(
            epoch=7,
            outbox=self.outbox,
            members=self.members,
            processes=self.processes,
            objects=self.objects,
            recovery=self.recovery,
            records=self.actors,
        )
        self.owner, self.asker = self.driver("d"), self.driver("asker")

    def make(self, actor: str, name: str = "", *, stored: bool = True) -> ActorRecord:
        """Its creator has told of it."""
        info = m.ActorInfo("Counter", FUNCTION, [], name, "space")
        made_of = TemplateRecord(MADE, FunctionUse(FUNCTION, ready=True))
        record = ActorRecord(info, spec(actor, MADE), made_of, OWNER, OWNER)
        if stored:
            record.until_stored = None
        self.actors.add(record)
        self.directory.enter(record)
        self.directory.made(record)
        return record

    def end(self, record: ActorRecord) -> None:
        record.state = m.ACTOR_DEAD
        record.text = "it was killed"
        self.directory.free_name(record)
        self.directory.tell_end(record)
        self.actors.remove(record)

    def watch(self, actor: str, now: float = 0.0) -> None:
        self.directory.on_watch(self.asker, m.ActorWatch(0, ASKER, [identity(actor)]), now)

    def find(self, name: str) -> None:
        self.directory.on_find(self.asker, m.FindActor(5, ASKER, "space", name), 0.0)

    def states(self, process: bytes = ASKER) -> list[int]:
        return [one.state for one in self.sent(m.ActorState).get(process, [])]


def test_who_finds_one_holds_its_handle_and_hears_of_it_when_it_is_durable() -> None:
    bench = Bench()
    record = bench.make("a", "name", stored=False)
    bench.find("name")
    assert record.handle in bench.objects.held_by[ASKER]
    assert not bench.outbox
    assert record.until_stored is not None
    for answer in record.until_stored:
        answer()
    (found,) = bench.sent(m.ActorFound)[ASKER]
    assert (found.about, found.actor_id, found.info) == (5, identity("a"), record.info)


def test_a_name_is_another_s_once_its_actor_is_dead() -> None:
    bench = Bench()
    first = bench.make("a", "name")
    assert bench.directory.named(first.info) is first
    bench.end(first)
    bench.find("name")
    (missing,) = bench.sent(m.ActorFound)[ASKER]
    assert missing.actor_id == b"" and missing.info is None
    second = bench.make("b", "name")
    bench.directory.free_name(first)  # its end is told again
    assert bench.directory.named(first.info) is second
    bench.directory.on_list(bench.asker, m.ListActors(6, "space", False), 0.0)
    (listed,) = bench.sent(m.ActorNames)[ASKER]
    assert listed.names == [("space", "name")]


def test_watchers_hear_of_each_change_that_can_be_told_and_of_the_end() -> None:
    bench = Bench()
    record = bench.make("a")
    bench.watch("a")
    assert bench.states() == [m.ACTOR_PENDING]
    record.state = m.ACTOR_ALIVE
    record.unstored = 1
    bench.directory.tell(record)
    assert bench.states() == []
    record.unstored = 0
    bench.directory.tell(record)
    assert bench.states() == [m.ACTOR_ALIVE]
    bench.directory.watcher_gone(OWNER)
    bench.end(record)
    assert {*bench.sent(m.ActorState)} == {ASKER}


def test_the_last_word_on_dead_ones_is_kept_for_whoever_asks_later() -> None:
    bench = Bench()
    for number in range(limits.ACTORS_DEAD_KEPT_MAX + 1):
        bench.end(bench.make(f"a{number}"))
    bench.outbox.take()
    bench.watch(f"a{limits.ACTORS_DEAD_KEPT_MAX}")
    (known,) = bench.sent(m.ActorState)[ASKER]
    assert (known.target, known.text) == (ASKER, "it was killed")
    bench.watch("a0")  # forgotten: it might be one that nobody has made yet
    assert bench.states() == [] and identity("a0") in bench.directory.unmade


def test_one_that_nobody_makes_is_dead_for_its_watchers_after_a_while() -> None:
    bench = Bench()
    bench.watch("a", now=10.0)
    due = 10.0 + limits.UNKNOWN_OBJECT_S
    assert bench.directory.deadline() == due
    bench.directory.step(due - 0.1)
    assert bench.states() == []
    bench.directory.step(due)
    assert bench.states() == [m.ACTOR_DEAD] and bench.directory.deadline() == NEVER


def test_who_has_waited_for_its_creator_watches_it_from_then_on() -> None:
    bench = Bench()
    bench.watch("a")
    record = bench.make("a")
    assert bench.directory.deadline() == NEVER
    bench.directory.step(1000.0)
    record.state = m.ACTOR_ALIVE
    bench.directory.tell(record)
    assert bench.states() == [m.ACTOR_ALIVE]


def test_while_the_head_recovers_creators_may_have_yet_to_return() -> None:
    bench = Bench(awaited="n1")
    bench.watch("a")
    bench.directory.step(1000.0)
    assert bench.states() == [] and bench.directory.deadline() == NEVER
    bench.recovery.end()
    bench.directory.wait_for_creators(1000.0)
    bench.directory.step(1000.0)
    assert bench.states() == []
    bench.directory.step(1000.0 + limits.UNKNOWN_OBJECT_S)
    assert bench.states() == [m.ACTOR_DEAD]


def test_a_link_is_another_after_each_session_of_node_or_watcher() -> None:
    bench = Bench()
    record = bench.make("a")

    def link() -> int:
        bench.directory.tell(record)
        (state,) = bench.sent(m.ActorState)[OWNER]
        return int(state.link)

    links = [link()]
    record.link += 1
    links.append(link())
    bench.owner.begin_session(1.0)
    links.append(link())
    assert links == sorted(set(links)) and links[0] >> 32 == 7  # epochs come first


# ---- nodes that are away -----------------------------------------------------------------------


def test_watchers_hear_when_the_node_of_an_actor_is_out_of_reach_and_back() -> None:
    bench = Bench()
    node, record = bench.node("n1"), bench.make("a")
    worker = identity("w")
    bench.processes.note_worker(node, worker)
    record.state, record.node_id = m.ACTOR_ALIVE, node.process_id
    node.actors[record.actor_id] = None
    bench.watch("a")
    bench.directory.on_watch(node, m.ActorWatch(0, worker, [record.actor_id]), 0.0)
    bench.outbox.take()
    for away in (True, False):
        node.away = away
        bench.members.away_changed = [node.process_id]
        bench.directory.step(1.0)
        told = bench.sent(m.ActorState)
        assert {process: state.away for process, (state,) in told.items()} == {
            OWNER: away,
            ASKER: away,
            node.process_id: False,  # for its worker: who is there as well reaches it
        }
        (state,) = told[ASKER]
        assert state.state == m.ACTOR_ALIVE and ("n1" in state.text) is away


def test_an_actor_of_before_is_told_as_away_if_its_node_is_not_back_for_long() -> None:
    bench = Bench(awaited="n1")
    record = bench.make("a")
    record.state, record.node_id = m.ACTOR_ALIVE, identity("n1")
    bench.actors.doubt(record)
    bench.watch("a")
    assert bench.states() == []
    for second in range(int(limits.AWAY_S) + 1):
        assert bench.states() == []
        bench.members.check(float(second))
        bench.directory.step(float(second))
    (state,) = bench.sent(m.ActorState)[ASKER]
    assert state.state == m.ACTOR_ALIVE and state.away and "restart" in state.text
    bench.watch("a")
    assert bench.states() == [m.ACTOR_ALIVE]
    node = bench.node("n1")  # it is here again, and has yet to tell
    bench.watch("a")
    assert bench.states() == [] and not bench.members.why_away(node.process_id)
