"""Large results that went with their node: made again where that may be, or lost with a reason."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.benches import HeadBench, done, identity, object_of, spec, template
from zray import limits
from zray.ids import item_id
from zray.protocol import messages as m

WORK = template()
ONCE = template("once", retries=0)
LARGE = 10 << 20
CHAIN = 3000  # tasks: deeper than Python's own stack


def head_with(*made_of: m.Template) -> HeadBench:
    head = HeadBench()
    head.node("n1")
    head.driver("d1", *(made_of or (WORK,)))
    return head


def large(name: str) -> m.Outcome:
    return m.Outcome(object_of(identity(name)), m.VALUE | m.LOCATED, LARGE)


def finish(head: HeadBench, node: str, name: str, attempt: int = 1) -> None:
    ended = done(identity(name), attempt, results=[large(name)])
    head.say(node, m.Done(1, [ended]))


def lose(head: HeadBench, node: str) -> None:
    """The node is gone, and another is there."""
    head.say(node, m.Goodbye(0, "stopped"))
    head.node("n" + str(int(node[1:]) + 1))
    head.turn()


def pull(head: HeadBench, name: str, transfer: int = 5) -> list[Any]:
    head.taken("d1")
    head.say("d1", m.Pull(0, transfer, object_of(identity(name))))
    return head.taken("d1", m.PullFailed)


def test_a_lost_result_is_made_again_when_it_is_wanted() -> None:
    head = head_with()
    head.submit("d1", spec("t1", WORK))
    finish(head, "n1", "t1")
    lose(head, "n1")
    assert head.assigned("n2") == []  # nobody wants it
    assert pull(head, "t1") == []
    assert head.assigned("n2") == ["t1"]
    finish(head, "n2", "t1", attempt=2)
    (asked,) = head.taken("n2", m.Pull)
    assert asked.object_id == object_of(identity("t1"))
    assert head.gcs.counters["rebuilt"] == 1


def test_what_it_was_made_of_and_was_freed_is_made_again_first() -> None:
    head = head_with()
    head.submit("d1", spec("a", WORK))
    finish(head, "n1", "a")
    head.submit("d1", spec("b", WORK, dependencies=[object_of(identity("a"))]))
    finish(head, "n1", "b")
    head.say("d1", m.ResultAck(0, identity("d1"), 2))
    head.say("d1", m.Drop(0, identity("d1"), object_of(identity("a"))))
    assert object_of(identity("a")) not in head.gcs.objects.records
    lose(head, "n1")
    assert pull(head, "b") == []
    assert head.assigned("n2") == ["a"]
    finish(head, "n2", "a", attempt=2)
    assert head.assigned("n2") == ["b"]
    finish(head, "n2", "b", attempt=2)
    assert head.taken("n2", m.Pull)
    assert object_of(identity("a")) not in head.gcs.objects.records


def test_a_task_without_retries_is_not_run_again() -> None:
    head = head_with(ONCE)
    head.submit("d1", spec("t1", ONCE))
    finish(head, "n1", "t1")
    lose(head, "n1")
    (failed,) = pull(head, "t1")
    assert failed.code == "ZR-3005" and "without retries" in failed.text


def test_retries_are_used_up_by_making_it_again() -> None:
    head = head_with()
    head.submit("d1", spec("t1", WORK))
    finish(head, "n1", "t1")
    for round in range(3):
        node = f"n{round + 1}"
        lose(head, node)
        assert pull(head, "t1", transfer=round) == []
        finish(head, f"n{round + 2}", "t1", attempt=round + 2)
    lose(head, "n4")
    (failed,) = pull(head, "t1", transfer=9)
    assert "used up its 3 retries" in failed.text


def test_a_large_put_that_it_needs_cannot_be_made_again() -> None:
    head = head_with()
    put = object_of(identity("put"))
    where = head.sessions.by_route[b"n1"].member.process_id
    outcome = m.Outcome(put, m.VALUE | m.LOCATED, LARGE)
    head.say("d1", m.Put(0, identity("d1"), outcome, where))
    head.submit("d1", spec("t1", WORK, dependencies=[put]))
    finish(head, "n1", "t1")
    lose(head, "n1")
    (failed,) = pull(head, "t1")
    assert put.hex() in failed.text and "it was put" in failed.text


def test_a_small_put_that_it_needs_is_kept_for_it() -> None:
    head = head_with()
    put = object_of(identity("put"))
    head.say("d1", m.Put(0, identity("d1"), m.Outcome(put, m.VALUE, 5, b"small")))
    head.submit("d1", spec("t1", WORK, dependencies=[put]))
    finish(head, "n1", "t1")
    head.say("d1", m.Drop(0, identity("d1"), put))
    assert put in head.gcs.objects.records
    lose(head, "n1")
    assert pull(head, "t1") == [] and head.assigned("n2") == ["t1"]
    finish(head, "n2", "t1", attempt=2)
    head.say("d1", m.ResultAck(0, identity("d1"), 9))
    head.say("d1", m.Drop(0, identity("d1"), object_of(identity("t1"))))
    assert not head.gcs.objects.records and not head.gcs.lineage.origins


def test_it_is_lost_when_making_it_again_fails() -> None:
    head = head_with()
    head.submit("d1", spec("t1", WORK))
    finish(head, "n1", "t1")
    lose(head, "n1")
    assert pull(head, "t1") == []
    error = m.Outcome(object_of(identity("t1")), m.ERROR, 5, b"error")
    head.say("n2", m.Done(1, [done(identity("t1"), 2, results=[error])]))
    (failed,) = head.taken("d1", m.PullFailed)
    assert "run again for it failed" in failed.text
    assert object_of(identity("t1")) in [free.object_ids for free in head.taken("n2", m.Free)]


def test_a_task_that_needs_it_gets_it() -> None:
    head = head_with()
    head.submit("d1", spec("a", WORK))
    finish(head, "n1", "a")
    lose(head, "n1")
    head.submit("d1", spec("b", WORK, dependencies=[object_of(identity("a"))]))
    assert head.assigned("n2") == ["b"]
    head.node("n3")
    head.say("n2", m.Pull(0, 1, object_of(identity("a"))))
    assert head.assigned("n3") == ["a"]
    finish(head, "n3", "a", attempt=2)
    assert head.taken("n3", m.Pull) and not head.taken("n2", m.PullFailed)


def test_nothing_is_kept_of_small_results_and_ended_jobs() -> None:
    head = head_with()
    head.submit("d1", spec("small", WORK), spec("t1", WORK))
    head.assigned("n1")
    head.say("n1", m.Done(1, [done(identity("small"))]))
    assert not head.gcs.lineage.origins
    head.turn()
    finish(head, "n1", "t1")
    assert len(head.gcs.lineage.origins) == 1
    head.say("d1", m.Goodbye(0, "done"))
    assert not head.gcs.lineage.origins


def test_the_oldest_are_forgotten(monkeypatch: Any) -> None:
    monkeypatch.setattr(limits, "LINEAGE_BYTES_MAX", 3000)
    head = head_with()
    for number in range(10):
        head.submit("d1", spec(f"t{number}", WORK))
        finish(head, "n1", f"t{number}")
    assert [*head.gcs.lineage.origins] == [identity(f"t{number}") for number in range(6, 10)]


def drops(objects: list[bytes]) -> list[m.Drop]:
    return [m.Drop(0, identity("d1"), oid) for oid in objects]


def with_chain() -> HeadBench:
    """Each task needed the one before, whose reference was dropped then: a loop of many steps."""
    head = head_with()
    for number in range(CHAIN):
        before = [object_of(identity(f"t{number - 1}"))] if number else []
        head.submit("d1", spec(f"t{number}", WORK, dependencies=before))
        finish(head, "n1", f"t{number}")
        head.say("d1", m.ResultAck(0, identity("d1"), number + 1), *drops(before))
    return head


def test_a_long_chain_is_made_again_and_forgotten() -> None:
    head, count = with_chain(), CHAIN
    assert len(head.gcs.lineage.origins) == count and len(head.gcs.objects.records) == 1
    lose(head, "n1")
    assert pull(head, f"t{count - 1}") == []
    assert head.assigned("n2") == ["t0"] and head.gcs.counters["rebuilt"] == count
    head.say("d1", m.Goodbye(0, "done"))
    assert not head.gcs.lineage.origins and not head.gcs.tasks


def test_a_long_chain_is_forgotten_with_its_last_result() -> None:
    head, count = with_chain(), CHAIN
    head.say("d1", *drops([object_of(identity(f"t{count - 1}"))]))
    assert not head.gcs.lineage.origins and not head.gcs.objects.records


def test_what_needs_what_is_being_made_again_is_made_again_as_well() -> None:
    head = head_with()
    head.submit("d1", spec("a", WORK))
    finish(head, "n1", "a")
    head.submit("d1", spec("b", WORK, dependencies=[object_of(identity("a"))]))
    finish(head, "n1", "b")
    lose(head, "n1")
    assert pull(head, "a") == [] and pull(head, "b", transfer=6) == []
    assert [head.assigned("n2"), head.gcs.counters["rebuilt"]] == [["a"], 2]


# ---- what tasks yield ----------------------------------------------------------------------

STREAM = m.Template(0, b"s" * 16, WORK.function_id, "stream", [], 1, 3, yields=m.ITEMS)
WORKER = identity("w1")


def item(number: int, task: str = "g", size: int = LARGE) -> m.Outcome:
    return m.Outcome(item_id(identity(task), number), m.VALUE | m.LOCATED, size)


def yields(head: HeadBench, node: str, *numbers: int) -> None:
    """A worker there has yielded these large items, of which nobody but the driver has any."""
    for number in numbers:
        oid = item(number).object_id
        head.say("d1", m.Hold(0, identity("d1"), oid))
        head.say(node, m.Put(0, WORKER, item(number)), m.Drop(0, WORKER, oid))


def end(head: HeadBench, node: str, attempt: int = 1) -> None:
    head.say(node, m.Done(1, [done(identity("g"), attempt)]))
    head.say("d1", m.ResultAck(0, identity("d1"), attempt))


def streaming() -> HeadBench:
    """A generator has yielded four large items and ended."""
    head = head_with(STREAM)
    head.submit("d1", spec("g", STREAM, consumer=identity("d1")))
    yields(head, "n1", 1, 2, 3, 4)
    end(head, "n1")
    return head


def pull_item(head: HeadBench, number: int) -> list[Any]:
    head.taken("d1")
    head.say("d1", m.Pull(0, 10 + number, item(number).object_id))
    return head.taken("d1", m.PullFailed)


def drop(head: HeadBench, *numbers: int) -> None:
    head.say("d1", *drops([item(number).object_id for number in numbers]))


def run_again(head: HeadBench, node: str) -> m.TaskSpec:
    """What the node is given."""
    (tasks,) = head.taken(node, m.Tasks)
    (assignment,) = tasks.tasks
    spec: m.TaskSpec = assignment.spec
    return spec


def test_a_generator_runs_again_for_those_of_its_items_that_are_lost_and_wanted() -> None:
    head = streaming()
    drop(head, 3)
    lose(head, "n1")
    assert pull_item(head, 2) == []
    again = run_again(head, "n2")
    assert (again.consumer, sorted(again.wanted)) == (b"", [1, 2, 4])
    yields(head, "n2", 1, 2, 4)
    assert [asked.object_id for asked in head.taken("n2", m.Pull)] == [item(2).object_id]
    end(head, "n2", attempt=2)
    assert pull_item(head, 4) == [] and head.gcs.counters["rebuilt"] == 1


def test_how_items_were_made_is_forgotten_with_the_last_of_them() -> None:
    head = streaming()
    head.say("d1", *drops([object_of(identity("g"))]))
    drop(head, 1, 2, 3)
    assert head.gcs.lineage.origins
    drop(head, 4)
    assert not head.gcs.lineage.origins and not head.gcs.objects.records
    assert not head.gcs.objects.items


def test_an_item_that_is_not_yielded_again_is_lost() -> None:
    head = streaming()
    lose(head, "n1")
    assert pull_item(head, 4) == [] and pull_item(head, 1) == []
    yields(head, "n2", 1, 2, 3)
    end(head, "n2", attempt=2)
    (failed,) = head.taken("d1", m.PullFailed)
    assert failed.transfer == 14 and "did not yield as many items" in failed.text
    (failed,) = pull_item(head, 4)
    assert head.gcs.counters["rebuilt"] == 1


def test_items_of_a_generator_that_runs_again_anyway_are_waited_for() -> None:
    head = head_with(STREAM)
    head.submit("d1", spec("g", STREAM, consumer=identity("d1")))
    yields(head, "n1", 1, 2)
    lose(head, "n1")
    again = run_again(head, "n2")
    assert again.consumer == identity("d1") and not again.wanted
    assert pull_item(head, 2) == []
    yields(head, "n2", 1, 2)
    assert head.taken("n2", m.Pull) and head.gcs.counters["rebuilt"] == 0


def test_items_that_others_were_made_of_are_made_again_for_these() -> None:
    head = head_with(STREAM, WORK)
    head.submit("d1", spec("g", STREAM, consumer=identity("d1")))
    yields(head, "n1", 1, 2)
    head.submit("d1", spec("b", WORK, dependencies=[item(2).object_id]))
    drop(head, 1, 2)
    finish(head, "n1", "b")  # while the generator still runs
    assert item(2).object_id not in head.gcs.objects.records
    end(head, "n1")
    lose(head, "n1")
    assert pull(head, "b") == []
    assert run_again(head, "n2").wanted == [2]
    oid = item(2).object_id
    head.say("n2", m.Put(0, WORKER, item(2)), m.Drop(0, WORKER, oid))
    end(head, "n2", attempt=2)
    assert run_again(head, "n2").dependencies == [oid]


def test_of_a_leased_generator_that_runs_its_submitter_sees_to_another_attempt() -> None:
    head = head_with(STREAM)
    leased = spec("g", STREAM, consumer=identity("d1"))
    yields(head, "n1", 1)
    head.say("d1", m.Made(0, identity("d1"), identity("d1"), [leased], True))
    lose(head, "n1")
    assert pull_item(head, 1) == [] and not head.taken("n2", m.Tasks)
    head.say("d1", m.Made(0, identity("d1"), identity("d1"), [leased]))  # that did not yield it
    assert run_again(head, "n2").wanted == [1]


def test_of_a_leased_generator_whose_items_are_gone_nothing_is_kept() -> None:
    head = head_with(STREAM)
    leased = spec("g", STREAM, consumer=identity("d1"))
    yields(head, "n1", 1)
    head.say("d1", m.Made(0, identity("d1"), identity("d1"), [leased], True))
    drop(head, 1)
    assert head.gcs.lineage.origins
    head.say("d1", m.Made(0, identity("d1"), identity("d1"), [leased]))
    assert not head.gcs.lineage.origins


@pytest.mark.parametrize("running", [True, False])
def test_a_new_session_says_which_leased_generators_still_run(running: bool) -> None:
    head = head_with(STREAM)
    leased = spec("g", STREAM, consumer=identity("d1"))
    yields(head, "n1", 1)
    who = (identity("d1"), identity("d1"))
    head.say("d1", m.Made(0, *who, [leased], True))
    lose(head, "n1")
    assert pull_item(head, 1) == []
    head.say("d1", m.Made(0, *who, [], True, leased.task_id if running else b""))
    assert bool(head.taken("n2", m.Tasks)) is not running


def test_an_item_that_another_attempt_has_yielded_stays_as_it_was() -> None:
    """Whoever asks for it gets the same value as others have."""
    head = head_with(STREAM)
    head.node("n2")
    head.submit("d1", spec("g", STREAM, consumer=identity("d1")))
    yields(head, "n1", 1)
    yields(head, "n2", 1)
    assert [freed.object_ids for freed in head.taken("n2", m.Free)] == [item(1).object_id]
    assert pull_item(head, 1) == [] and head.taken("n1", m.Pull) and not head.taken("n2", m.Pull)


def test_of_leased_generators_that_have_ended_one_may_go_with_another() -> None:
    head = head_with(STREAM)
    first = spec("g", STREAM, consumer=identity("d1"))
    needed = item(1, "g").object_id
    other = spec("h", STREAM, consumer=identity("d1"), dependencies=[needed])
    who = (identity("d1"), identity("d1"))
    head.say("d1", m.Made(0, *who, [other], True), m.Made(0, *who, [first], True))
    head.say("d1", m.Made(0, *who, [first]))  # the other one needs what it has made
    head.say("d1", m.Made(0, *who, [], True))
    assert not head.gcs.lineage.origins
