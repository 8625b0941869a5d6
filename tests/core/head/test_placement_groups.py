"""Placement groups at the head: reserved on all nodes or none, durable, placed again, removed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.benches import UNIT, HeadBench, done, identity, spec, template
from zray import limits
from zray.core import bundles
from zray.core.bundles import PACK, SPREAD, STRICT_PACK, STRICT_SPREAD
from zray.core.head import placement_queue, placement_reasons
from zray.core.head.figures import HeadFigures
from zray.errors import (
    PlacementGroupExistsError,
    TaskPlacementGroupRemoved,
    TooManyBundlesError,
)
from zray.protocol import messages as m
from zray.protocol.errors import decode_error

GROUP = identity("group")
DRIVER = identity("d")


class Bench(HeadBench):
    """A head with nodes of some CPUs, and a driver ``d``."""

    def __init__(self, rows: Any = None, epoch: int = 1, **cpus: float) -> None:
        super().__init__(rows, epoch)
        for name, amount in cpus.items():
            self.node(name, amount)
        self.driver("d")

    def create(
        self, *cpus: float, strategy: int = PACK, group_id: bytes = GROUP, **more: Any
    ) -> list[m.Groups]:
        wanted = [m.Bundle([("CPU", int(amount * UNIT))]) for amount in cpus]
        self.say("d", m.CreateGroup(7, group_id, DRIVER, strategy, wanted, **more))
        return self.taken("d", m.Groups)

    def asked(self, name: str) -> list[tuple[int, list[int]]]:
        """Steps that a node was asked for, with the bundles."""
        return [
            (one.step, [part.index for part in one.bundles]) for one in self.taken(name, m.Reserve)
        ]

    def answer(self, name: str, outcome: int = m.PREPARED, number: int = 1, text: str = "") -> None:
        self.say(name, m.Reserved(0, GROUP, number, outcome, text))

    def state(self, group_id: bytes = GROUP) -> m.GroupStatus:
        self.say("d", m.AskGroups(8, group_id))
        (answer,) = self.taken("d", m.Groups)
        found: m.GroupStatus = answer.groups[0]
        return found

    def free(self, name: str) -> float:
        return float(self.gcs.members.nodes[identity(name)].view.free["CPU"] / UNIT)


def test_places_are_prepared_stored_and_committed_in_this_order() -> None:
    bench = Bench(n1=1, n2=1)
    (answer,) = bench.create(1, 1)
    assert answer.groups[0].state == m.GROUP_PENDING
    assert bench.asked("n1") + bench.asked("n2") == [(m.PREPARE, [0]), (m.PREPARE, [1])]
    assert bench.free("n1") == bench.free("n2") == 0
    bench.answer("n1")
    assert bench.asked("n1") == [] and bench.state().state == m.GROUP_PENDING
    bench.durable = False
    bench.answer("n2")
    assert bench.asked("n1") == bench.asked("n2") == []
    bench.durable = True
    bench.turn()
    assert bench.asked("n1") + bench.asked("n2") == [(m.COMMIT, [0]), (m.COMMIT, [1])]
    found = bench.state()
    assert found.state == m.GROUP_CREATED and {*found.nodes} == {identity("n1"), identity("n2")}


def test_where_one_node_refuses_none_keeps_anything() -> None:
    bench = Bench(n1=1, n2=1)
    bench.create(1, 1)
    bench.asked("n1"), bench.asked("n2")
    bench.answer("n1")
    bench.answer("n2", m.UNPREPARED, text="0 of 1 CPU free, needs 1")
    assert bench.asked("n1") == [(m.RELEASE, [0])] and bench.asked("n2") == []
    assert bench.free("n1") == bench.free("n2") == 1
    assert "node n2 has refused it: 0 of 1 CPU free" in bench.state().reason
    bench.answer("n1")  # late
    assert bench.state().state == m.GROUP_PENDING and bench.asked("n1") == [(m.RELEASE, [0, 1])]
    bench.now += limits.GROUP_RETRY_S
    bench.turn()
    assert bench.asked("n1") + bench.asked("n2") == [(m.PREPARE, [0]), (m.PREPARE, [1])]


def placed(**cpus: float) -> Bench:
    """A group that is there, of two bundles on nodes ``n1`` and ``n2``."""
    bench = Bench(**(cpus or {"n1": 1, "n2": 1}))
    bench.create(1, 1, strategy=STRICT_SPREAD)
    bench.answer("n1")
    bench.answer("n2")
    bench.sent.clear()
    return bench


def in_group(index: int = bundles.ANY, **more: Any) -> m.Template:
    needed = bundles.needed([("CPU", UNIT)], GROUP, index)
    return template(f"in{index}", resources=[(name, much / UNIT) for name, much in needed], **more)


def test_tasks_start_where_their_bundle_is() -> None:
    bench = placed()
    bench.node("n3", 4)
    first, second = in_group(0), in_group(1)
    bench.say("d", first, second)
    bench.submit("d", spec("a", second), spec("b", first), spec("c", second))
    where = bench.gcs.placement.get(GROUP).places  # type: ignore[union-attr]
    names = [one.node_id.rstrip(b"\0").decode() for one in where if one is not None]
    assert bench.assigned(names[0]) == ["b"] and bench.assigned(names[1]) == ["a"]
    assert bench.assigned("n3") == []


def test_removed_it_gives_all_back_once_its_nodes_have_released_it() -> None:
    bench = placed()
    made_of = in_group()
    bench.say("d", made_of)
    bench.submit("d", *(spec(name, made_of) for name in "abc"))
    assert [*bench.assigned("n1"), *bench.assigned("n2")] == ["a", "b"]
    bench.say("d", m.RemoveGroup(9, GROUP))
    (result,) = bench.taken("d", m.Result)
    code = decode_error(result.outcomes[0].value).code
    assert code == TaskPlacementGroupRemoved.code and bench.free("n1") == 0
    assert bench.asked("n1") == bench.asked("n2") == [(m.RELEASE, [])]
    crash = done(identity("a"), 1, m.CRASHED)
    bench.say("n1", m.Done(1, [crash]))
    (result,) = bench.taken("d", m.Result)
    assert decode_error(result.outcomes[0].value).code == TaskPlacementGroupRemoved.code
    bench.answer("n1", m.RELEASED)
    view = bench.gcs.members.nodes[identity("n1")].view
    assert view.free == view.total == {"CPU": UNIT} and not view.bundles
    assert bench.state().state == m.GROUP_REMOVED
    assert not bench.gcs.scheduler.in_groups._classes
    bench.submit("d", spec("late", made_of))
    (result,) = bench.taken("d", m.Result)
    assert decode_error(result.outcomes[0].value).code == TaskPlacementGroupRemoved.code


def test_a_removal_is_durable_before_anybody_hears_of_it() -> None:
    bench = placed()
    bench.durable = False
    bench.say("d", m.RemoveGroup(9, GROUP))
    assert not bench.taken("d", m.Synced) and not bench.asked("n1")
    bench.durable = True
    bench.turn()
    assert bench.taken("d", m.Synced) and bench.asked("n1") == [(m.RELEASE, [])]


def test_what_a_dead_node_had_is_placed_again_and_the_rest_stays() -> None:
    bench = placed(n1=1, n2=1, n3=1)
    where = bench.state().nodes
    dead, left = (one.rstrip(b"\0").decode() for one in where)
    bench.say(dead, m.Goodbye(0, "unplugged"))
    assert bench.state().state == m.GROUP_RESCHEDULING and bench.state().nodes[0] == b""
    assert bench.asked("n3") == [(m.PREPARE, [0])] and bench.asked(left) == []
    bench.answer("n3", number=2)
    assert bench.asked("n3") == [(m.COMMIT, [0])]
    assert bench.state().nodes == [identity("n3"), where[1]]


def test_a_node_that_dies_while_it_is_asked_costs_the_others_nothing() -> None:
    bench = Bench(n1=1, n2=1)
    bench.create(1, 1)
    bench.sent.clear()
    bench.answer("n1")
    bench.say("n2", m.Goodbye(0, "unplugged"))
    assert bench.asked("n1") == [(m.RELEASE, [0])] and bench.free("n1") == 1
    bench.node("n3", 1)
    assert bench.asked("n1") + bench.asked("n3") == [(m.PREPARE, [0]), (m.PREPARE, [1])]


def restarted(bench: Storing) -> Bench:
    """The next head, on what that one has stored."""
    rows: dict[str, dict[bytes, bytes]] = {}
    for _, entry in bench.stored:
        for table, key, value in entry:
            if value is None:
                rows.get(table, {}).pop(key, None)
            else:
                rows.setdefault(table, {})[key] = value
    return Bench(rows, 2)


class Storing(Bench):
    """Keeps what was stored."""

    def __init__(self, rows: Any = None, epoch: int = 1, **cpus: float) -> None:
        self.stored: list[tuple[int, Any]] = []
        super().__init__(rows, epoch, **cpus)

    def commit(self) -> None:
        self.stored += self.rows
        super().commit()


def held(index: int, *, committed: bool = True, number: int = 1) -> m.HeldBundle:
    return m.HeldBundle(GROUP, index, [("CPU", UNIT)], number, committed)


def test_a_new_head_finds_groups_where_they_were() -> None:
    old = Storing(n1=1, n2=1)
    old.create(1, 1)
    old.answer("n1")
    old.answer("n2")
    new = restarted(old)
    assert "not back" in new.state().reason or new.state().state == m.GROUP_CREATED
    for name, index in (("n1", 0), ("n2", 1)):
        new.say(name, new.hello_node(name, 1, 1))
        held_now = [held(index, committed=index == 0)]  # the other has not heard of the decision
        announce = m.Announce(0, [], [], [], bundles=held_now)
        new.say(name, announce, m.Credit(0, 100))
        assert new.free(name) == 0
        assert new.asked(name) == [(m.COMMIT, [index])]
    assert new.state().nodes == [identity("n1"), identity("n2")]


def test_a_new_head_has_released_what_nobody_had_decided() -> None:
    old = Storing(n1=1, n2=1)
    old.create(1, 1)
    old.answer("n1")
    new = restarted(old)
    new.say("n1", new.hello_node("n1", 1, 1))
    announce = m.Announce(0, [], [], [], bundles=[held(0, committed=False)])
    new.say("n1", announce, m.Credit(0, 100))
    assert new.asked("n1") == [(m.RELEASE, [0])] and new.free("n1") == 1
    other = m.HeldBundle(identity("other"), 0, [("CPU", UNIT)], 1, True)
    new.say("n2", new.hello_node("n2", 1, 1))
    new.say("n2", m.Announce(0, [], [], [], bundles=[other]), m.Credit(0, 100))
    assert (m.RELEASE, []) in new.asked("n2")


def test_what_was_lost_with_a_link_is_said_again() -> None:
    bench = Bench(n1=1, n2=1)
    bench.create(1, 1)
    bench.sent.clear()
    bench.say("n1", bench.hello_node("n1", 1, 1))
    bench.say("n1", m.Announce(0, [], [], []), m.Credit(0, 100))
    assert bench.asked("n1") == [(m.PREPARE, [0])]
    bench.answer("n2")
    bench.say("n1", bench.hello_node("n1", 1, 1))
    bench.say("n1", m.Announce(0, [], [], [], bundles=[held(0, committed=False)]), m.Credit(0, 9))
    assert bench.asked("n1") == [(m.COMMIT, [0])]


def test_a_group_is_asked_for_twice_and_made_once() -> None:
    bench = Bench(n1=1)
    assert bench.create(1)[0].groups[0].group_id == GROUP
    assert bench.create(1)[0].groups[0].group_id == GROUP
    assert len(bench.gcs.placement) == 1
    bench.say("d", m.RemoveGroup(9, GROUP))
    bench.taken("d")
    (answer,) = bench.create(1)
    assert answer.groups[0].state == m.GROUP_REMOVED and not bench.gcs.placement


def test_a_name_is_one_group_s_in_its_namespace() -> None:
    bench = Bench(n1=2)
    bench.create(1, name="a", namespace="x")
    (refused,) = bench.create(1, name="a", namespace="x", group_id=identity("g2"))
    assert refused.code == PlacementGroupExistsError.code and not refused.groups
    (fine,) = bench.create(1, name="a", namespace="y", group_id=identity("g3"))
    assert fine.groups
    bench.say("d", m.AskGroups(8, b"", "a", "x"))
    assert bench.taken("d", m.Groups)[0].groups[0].group_id == GROUP


def test_a_group_ends_with_its_job_unless_it_is_detached() -> None:
    bench = Bench(n1=2)
    bench.create(1)
    bench.create(1, group_id=identity("g2"), detached=True)
    bench.say("d", m.Goodbye(0, "done"))
    assert [one.group_id for one in bench.gcs.placement.values()] == [identity("g2")]


def test_who_waits_hears_when_it_is_placed_or_gone() -> None:
    bench = Bench(n1=1)
    bench.create(1)
    bench.create(1, group_id=identity("g2"))
    asks = (m.AskGroups(1, GROUP, placed=True), m.AskGroups(2, identity("g2"), placed=True))
    bench.say("d", *asks)
    assert not bench.taken("d", m.Groups)
    bench.answer("n1")
    assert [one.about for one in bench.taken("d", m.Groups)] == [1]
    bench.say("d", m.RemoveGroup(9, identity("g2")))
    (answer,) = bench.taken("d", m.Groups)
    assert answer.about == 2 and answer.groups[0].state == m.GROUP_REMOVED


@pytest.mark.parametrize(
    ("strategy", "cpus", "nodes"),
    [
        (PACK, [1, 1], 1),
        (PACK, [2, 2, 2], 2),
        (STRICT_PACK, [2, 2], 1),
        (SPREAD, [1, 1], 2),
        (SPREAD, [1, 1, 1, 1], 3),
        (STRICT_SPREAD, [1, 1, 1], 3),
        (STRICT_PACK, [2, 2, 2], 0),
        (STRICT_SPREAD, [1, 1, 1, 1], 0),
        (PACK, [5], 0),
    ],
)
def test_on_how_many_nodes_a_group_is(strategy: int, cpus: list[float], nodes: int) -> None:
    bench = Bench(n1=4, n2=4, n3=4)
    bench.create(*cpus, strategy=strategy)
    asked = [name for name in ("n1", "n2", "n3") if bench.asked(name)]
    assert len(asked) == nodes


def test_a_bundle_says_which_labels_its_node_has_to_have() -> None:
    bench = Bench(n1=4)
    node = m.NodeInfo("n2", "host", 1, [("CPU", 4 * UNIT)], [("zone", "b")], "machine")
    hello = bench.hello_node("n2")
    hello.node = node
    bench.say("n2", hello)
    bench.say("n2", m.Announce(0, [], [], []), m.Credit(0, 100))
    wanted = [
        m.Bundle([("CPU", UNIT)], [("zone", "b")]),
        m.Bundle([("CPU", UNIT)], [("zone", "!b")]),
    ]
    bench.say("d", m.CreateGroup(7, GROUP, DRIVER, PACK, wanted))
    assert bench.asked("n1") == [(m.PREPARE, [1])] and bench.asked("n2") == [(m.PREPARE, [0])]


def test_room_is_kept_for_a_group_that_has_waited() -> None:
    bench = Bench(n1=2)
    work = template()
    bench.say("d", work)
    bench.submit("d", *(spec(f"t{number}", work) for number in range(6)))
    running = bench.assigned("n1")
    assert len(running) >= 2
    bench.create(2)
    bench.now += limits.GROUP_CLAIM_AFTER_S
    bench.turn()
    bench.now += 0.001
    for number in range(3):  # they end, and nothing takes their place
        view = bench.gcs.members.nodes[identity("n1")].view
        first = next(iter(view.assigned), None)
        if first is None:
            break
        bench.say("n1", m.Done(number + 1, [done(first, 1)]))
    assert (m.PREPARE, [0]) in bench.asked("n1")


def test_nothing_is_done_while_room_is_being_kept_for_the_only_group() -> None:
    bench = Bench(n1=2)
    work = template()
    bench.say("d", work)
    bench.submit("d", spec("a", work), spec("b", work))
    bench.create(2)
    bench.after(limits.GROUP_CLAIM_AFTER_S)
    bench.turn()
    claims = bench.gcs.placement_groups.claims
    assert claims.deadline() == pytest.approx(bench.now + limits.GROUP_CLAIM_S)


def test_room_is_kept_only_where_the_strategy_lets_the_lost_bundle_go() -> None:
    bench = placed(n1=2, n2=2)  # each on a node of its own
    bench.say("n2", m.Goodbye(0, "done"))
    for _ in range(4):
        bench.turn()
        bench.after(limits.GROUP_CLAIM_AFTER_S)
    assert bench.asked("n1") == [] and bench.state().state == m.GROUP_RESCHEDULING
    bench.node("n3", 1)
    assert [step for step, _ in bench.asked("n3")] == [m.PREPARE]


def test_a_node_that_refuses_is_passed_over_while_others_have_room() -> None:
    bench = Bench(n1=1, n2=2)
    bench.create(1)
    assert bench.asked("n1") == [(m.PREPARE, [0])]  # the fullest that has room
    bench.answer("n1", m.UNPREPARED, text="its GPUs are free only in pieces")
    bench.after(limits.GROUP_RETRY_S)
    bench.turn()
    assert not bench.asked("n1") and bench.asked("n2") == [(m.PREPARE, [0])]
    bench.answer("n2", m.UNPREPARED, number=2, text="no")
    bench.after(2 * limits.GROUP_RETRY_S)
    bench.turn()
    assert bench.asked("n1") == [(m.PREPARE, [0])]  # all have refused: from the beginning
    bench.answer("n1", number=3)
    assert bench.state().state == m.GROUP_CREATED


@pytest.mark.parametrize("strategy", [PACK, SPREAD, STRICT_PACK, STRICT_SPREAD])
def test_of_all_strategies_none_asks_the_refusing_node_again_first(strategy: int) -> None:
    bench = Bench(n1=1, n2=1)
    bench.create(1, strategy=strategy)
    first, second = ("n1", "n2") if bench.asked("n1") else ("n2", "n1")
    bench.sent.clear()
    bench.answer(first, m.UNPREPARED, text="no")
    bench.after(limits.GROUP_RETRY_S)
    bench.turn()
    assert bench.asked(second) and not bench.asked(first)


def test_who_asks_ever_again_is_kept_in_mind_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GROUP_WAITS_MAX", 2)
    bench = Bench(n1=1)
    bench.create(5)
    bench.say("d", *(m.AskGroups(number, GROUP, placed=True) for number in range(1, 5)))
    told = bench.taken("d", m.Groups)
    assert [one.about for one in told] == [1, 2] and told[0].groups[0].reason
    bench.say("d", m.RemoveGroup(9, GROUP))
    assert [one.about for one in bench.taken("d", m.Groups)] == [3, 4]


def test_who_waited_and_is_gone_is_forgotten() -> None:
    bench = Bench(n1=1)
    bench.create(5, detached=True)
    for number in range(5):
        name = f"d{number}"
        bench.driver(name)
        bench.say(name, m.AskGroups(1, GROUP, placed=True))
        bench.say(name, m.Goodbye(0, "done"))
    record = bench.gcs.placement.get(GROUP)
    assert record is not None and len(record.waiters) == 1


def test_of_removed_groups_so_many_bundles_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BUNDLES_KEPT_MAX", 10)
    bench = Bench(n1=1)
    for number in range(6):
        group_id = number.to_bytes(16, "big")
        bench.create(5, 5, 5, 5, group_id=group_id)
        bench.say("d", m.RemoveGroup(9, group_id))
    assert [one[-1] for one in bench.gcs.placement.removed] == [4, 5]


def test_many_groups_that_find_no_place_cost_a_turn_no_more_than_some() -> None:
    bench = Bench(n1=1)
    for number in range(300):
        bench.create(2 + number, group_id=number.to_bytes(16, "big"))
    calls = 0
    queue = bench.gcs.placement_groups.queue
    place = queue._place

    def counted(record: Any) -> Any:
        nonlocal calls
        calls += 1
        return place(record)

    queue._place = counted
    bench.node("n2", 1)
    bench.turn()
    assert 0 < calls <= 4 * limits.GROUP_TRIES_MAX
    for _ in range(20):
        bench.turn()
    calls = 0
    bench.turn()
    assert calls == 0  # nothing has changed since


def test_a_turn_looks_at_fewer_groups_the_more_bundles_they_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(placement_queue, "TRIED_MAX", 100)
    bench = Bench(n1=1)
    for number in range(20):
        bench.create(*[2 + number] * 50, group_id=number.to_bytes(16, "big"))
    groups = bench.gcs.placement_groups
    sizes: list[int] = []
    choose = groups._policy.choose

    def noted(strategy: int, needs: Any, *more: Any) -> Any:
        sizes.append(len(needs))
        return choose(strategy, needs, *more)

    groups._policy.choose = noted  # type: ignore[method-assign]
    bench.node("n2", 30)
    sizes.clear()
    bench.turn()
    assert 0 < sum(sizes) <= 200
    for _ in range(30):
        bench.turn()
    looked = len(sizes)
    assert looked >= 10  # the others have had their turn
    bench.turn()
    assert len(sizes) == looked


def test_for_one_answer_about_all_only_some_kinds_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(placement_reasons, "GROUPS_MAX", 3)
    bench = Bench(n1=1)
    for number in range(8):
        bench.create(2 + number // 2, group_id=number.to_bytes(16, "big"))
    bench.say("d", m.AskGroups(8))
    (answer,) = bench.taken("d", m.Groups)
    reasons = [one.reason for one in answer.groups]
    assert all("needs CPU" in reason for reason in reasons[:6])
    assert all("ask about this one alone" in reason for reason in reasons[6:])
    assert "needs CPU 5" in bench.state((7).to_bytes(16, "big")).reason


def test_a_node_may_tell_of_one_resource_of_a_bundle_twice() -> None:
    bench = Bench(n1=1)
    lie = m.HeldBundle(GROUP, 0, [("disk", UNIT), ("disk", UNIT)], 1, True)
    for told in ([lie], []):
        bench.say("n1", bench.hello_node("n1", 1, 1))
        bench.say("n1", m.Announce(0, [], [], [], bundles=told), m.Credit(0, 100))
    bench.create(1)
    assert bench.asked("n1")[-1] == (m.PREPARE, [0])


def test_a_node_may_have_told_of_bundles_that_the_group_has_not() -> None:
    bench = Bench(n1=1, n2=1)
    lie = m.HeldBundle(GROUP, 999, [("CPU", UNIT)], 1, True)
    bench.say("n1", bench.hello_node("n1", 1, 1))
    bench.say("n1", m.Announce(0, [], [], [], bundles=[lie]), m.Credit(0, 100))
    bench.create(1)
    bench.say("n1", bench.hello_node("n1", 1, 1))
    bench.say("n1", m.Announce(0, [], [], []), m.Credit(0, 100))
    assert bench.free("n1") == 1 and bench.asked("n2") == [(m.PREPARE, [0])]


def test_a_node_that_was_asked_twice_and_answers_so_keeps_nothing() -> None:
    bench = Bench(n1=1)
    bench.create(1)
    bench.say("n1", bench.hello_node("n1", 1, 1))
    bench.say("n1", m.Announce(0, [], [], []), m.Credit(0, 100))  # it has not had the first yet
    assert bench.asked("n1") == [(m.PREPARE, [0])] * 2
    bench.answer("n1", m.UNPREPARED, text="not yet")
    bench.answer("n1")
    assert bench.asked("n1") == [(m.RELEASE, [0])] and bench.free("n1") == 1
    bench.say("d", m.RemoveGroup(9, GROUP))
    bench.answer("n1")
    assert bench.asked("n1") == [(m.RELEASE, [])]


def test_large_groups_that_no_node_could_have_are_sought_for_seldom() -> None:
    bench = Bench(n1=1)
    for number in range(10):
        bench.create(*[2 + number] * 1000, group_id=number.to_bytes(16, "big"))
    claims = bench.gcs.placement_groups.claims
    looked = 0
    could_have = claims._could_have

    def counted(record: Any) -> Any:
        nonlocal looked
        looked += 1
        return could_have(record)

    claims._could_have = counted  # type: ignore[method-assign]
    begin = bench.now
    while bench.now < begin + 1:
        bench.now = max(bench.now + 0.001, min(claims.deadline(), begin + 1))
        bench.turn()
    assert 2 <= looked <= 6


def test_where_one_bundle_finds_no_place_the_others_are_not_looked_at() -> None:
    bench = Bench(n1=8)
    bench.create(1, 1, 9, 1)
    policy = bench.gcs.placement_groups._policy
    choose, calls = policy.choose, 0

    def counted(*what: Any) -> Any:
        nonlocal calls
        calls += 1
        return choose(*what)

    policy.choose = counted  # type: ignore[method-assign]
    bench.node("n2", 8)
    bench.turn()
    assert calls == 0
    bench.node("n3", 9)
    bench.turn()
    assert calls == 1 and bench.asked("n3") == [(m.PREPARE, [2])]


def test_a_program_has_so_many_bundles_and_others_have_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many groups wait, the head's memory is bounded; what is removed makes room."""
    monkeypatch.setattr(limits, "JOB_BUNDLES_MAX", 5)
    bench = Bench(n1=1)
    assert bench.create(9, 9, 9)[0].groups and bench.create(9, 9, group_id=identity("h"))[0].groups
    (refused,) = bench.create(1, group_id=identity("i"))
    assert refused.code == TooManyBundlesError.code and not refused.groups
    assert "have 5 bundles, and a program may have 5; remove groups" in refused.text
    assert bench.create(9, 9, 9)[0].groups  # the same once more is answered as before
    bench.driver("e")
    wanted = [m.Bundle([("CPU", UNIT)])]
    bench.say("e", m.CreateGroup(1, identity("j"), identity("e"), PACK, wanted))
    assert bench.taken("e", m.Groups)[0].groups
    bench.say("d", m.RemoveGroup(9, GROUP))
    bench.taken("d")
    assert bench.create(9, 9, 9, group_id=identity("k"))[0].groups
    bench.say("d", m.Goodbye(0, "over"))
    assert not bench.gcs.placement.bundles_of(DRIVER)


def test_how_many_groups_lack_places_is_told() -> None:
    bench = Bench(n1=1)
    gcs: Any = bench.gcs
    figures_of = HeadFigures(
        *(gcs.sessions._identity, gcs, gcs.queries.classes, gcs.queries.health),
        gcs.tasks.__len__,
    )

    def counted() -> tuple[int, int]:
        status = bench.gcs.queries.status(0, bench.now)
        figures = {
            one.labels[0]: one.value
            for one in figures_of.all(bench.now)
            if one.name == "zray_placement_groups"
        }
        assert figures == {
            "PENDING": status.groups_waiting,
            "CREATED": status.groups - status.groups_waiting,
        }
        return status.groups_waiting, status.groups

    assert counted() == (0, 0)
    bench.create(1)
    bench.create(4, group_id=identity("large"))
    assert counted() == (2, 2)
    bench.answer("n1")
    assert counted() == (1, 2)
    bench.say("n1", m.Goodbye(0, "it was stopped"))
    assert counted() == (2, 2)
    bench.say("d", m.RemoveGroup(9, GROUP))
    assert counted() == (1, 1)
