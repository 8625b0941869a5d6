"""Why something is as it is: chains, bounds, and those whom the head asks."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import msgpack
from msgspec.structs import replace

from tests.core.benches import (
    FUNCTION,
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
from zray.core import failures
from zray.core.causes import cause
from zray.core.head.members import NodeRow
from zray.errors import WorkerCrashedError
from zray.protocol import messages as m

WORK = template()
LARGE = template("large", resources=[("CPU", 6)])
WATCHER = "o"


class Bench(HeadBench):
    """A head with a driver ``d``, and an observer that asks."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        hello = self.hello_driver(WATCHER)
        self.say(WATCHER, replace(hello, role=m.ROLE_OBSERVER, job=None))
        self.driver("d", WORK, LARGE)
        self.taken(WATCHER)

    def ask(self, *subjects: str | bytes, patience_s: float = 1.0) -> list[m.Explanation] | None:
        """The answer, or None: others are asked first."""
        texts = [one if isinstance(one, str) else one.hex() for one in subjects]
        self.say(WATCHER, m.Why(7, texts, patience_s))
        return self.answer()

    def answer(self) -> list[m.Explanation] | None:
        found = self.taken(WATCHER, m.Explained)
        assert all(one.about == 7 for one in found)
        return found[0].answers if found else None

    def chain(self, subject: str | bytes) -> list[m.Cause]:
        answers = self.ask(subject)
        assert answers is not None
        return answers[0].causes

    def codes(self, subject: str | bytes) -> list[str]:
        return [one.code for one in self.chain(subject)]


def texts(one: m.Cause) -> dict[str, str]:
    return {detail.name: detail.text for detail in one.details}


def at_rest(head: Bench) -> bool:
    """Nothing is kept of questions that were answered."""
    queries = head.gcs.questions.queries
    return queries is not None and not (queries._asked or queries._open)


# ---- what the head knows itself ----------------------------------------------------------------


def test_a_chain_of_arguments_is_followed_to_its_end() -> None:
    head = Bench()
    before: list[bytes] = []
    for place in range(3):
        head.submit("d", spec(f"t{place}", WORK, dependencies=before))
        before = [object_of(identity(f"t{place}"))]
        head.now += 1
    found = head.chain(before[0])
    assert [one.code for one in found] == ["WAIT_DEPS", "WAIT_DEPS", "NO_NODES"]
    assert [one.id for one in found] == [identity(f"t{place}") for place in (2, 1, 0)]
    assert [one.since_s for one in found] == [1, 2, 3]
    assert found[2].advice == "start one with zray-worker"


def test_of_a_long_chain_of_arguments_the_beginning_and_the_end_are_told() -> None:
    head = Bench()
    before: list[bytes] = []
    for place in range(10_000):
        head.submit("d", spec(f"t{place}", WORK, dependencies=before))
        before = [object_of(identity(f"t{place}"))]
    found = head.chain(before[0])
    assert [one.code for one in found] == ["WAIT_DEPS"] * 4 + ["NO_NODES"]
    assert [one.id for one in found[3:]] == [identity("t1"), identity("t0")]
    assert found[2].text.endswith("; 9,995 more wait like that, each for the next; then")


def test_in_one_turn_so_many_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WHY_HOPS_MAX", 30)
    head = Bench()
    before: list[bytes] = []
    for place in range(100):
        head.submit("d", spec(f"t{place}", WORK, dependencies=before))
        before = [object_of(identity(f"t{place}"))]
    answers = head.ask(before[0], before[0])
    assert answers is not None
    for answer in answers:
        assert len(answer.causes) == limits.WHY_CHAIN_MAX
    assert "; 30 more wait like that" in answers[0].causes[2].text
    assert "more wait like that" not in answers[1].causes[2].text
    (first, *_) = head.ask(before[0]) or []
    assert "; 30 more wait like that" in first.causes[2].text


def test_many_arguments_are_cut() -> None:
    head = Bench()
    roots = [spec(f"root{place}", WORK) for place in range(2000)]
    head.submit("d", *roots)
    needs = [object_of(one.task_id) for one in roots]
    head.submit("d", spec("wide", WORK, dependencies=needs))
    wide = head.chain(identity("wide"))[0]
    assert "waits for 2000 of its arguments" in wide.text
    assert len(wide.details) == limits.WHY_DETAILS_MAX
    assert wide.more == 2000 - limits.WHY_DETAILS_MAX


def test_a_function_that_is_being_stored() -> None:
    head = Bench()
    head.node("n1")
    head.durable = False
    other = replace(WORK, template_id=identity("other"), function_id=identity("function"))
    head.say("d", m.Export(0, other.function_id, "work", b"code"), other)
    head.submit("d", spec("t", other))
    (found,) = head.chain(identity("t"))
    assert (found.code, found.text) == ("WAIT_FUNCTION", "the function of work is being stored")


def test_what_each_node_lacks_and_who_has_it() -> None:
    head = Bench()
    head.node("n1", cpus=8)
    head.node("n2", cpus=2)
    head.submit("d", spec("first", LARGE), spec("second", LARGE))
    (found,) = head.chain(object_of(identity("second")))
    assert found.code == "WAIT_RESOURCES"
    assert texts(found) == {
        "n1": f"2 of 8 CPU free, needs 6; taken by 1 task of job {identity('d').hex()[:8]} "
        "(program)",
        "n2": "never: has 2 CPU in all, needs 6",
    }
    assert found.more == 0 and "once that is free" in found.advice


def test_other_jobs_that_wait_for_the_same() -> None:
    head = Bench()
    head.driver("e", WORK)
    head.node("n1")
    head.submit("e", *(spec(f"e{place}", WORK) for place in range(9)))
    head.submit("d", spec("mine", WORK))
    (found,) = head.chain(identity("mine"))
    assert "tasks of job 65000000 (program) wait for the same" in texts(found)["behind"]


def test_of_a_thousand_nodes_a_few_are_told_and_the_others_counted() -> None:
    head = Bench()
    for number in range(1000):
        head.hear(f"n{number}", head.hello_node(f"n{number}"))
        head.hear(f"n{number}", m.Announce(0, [], [], []), m.Credit(0, 1000))
    head.turn()
    head.submit("d", spec("t", LARGE))
    looked: list[str] = []
    shortages = head.gcs.causes.of_tasks._shortages
    look = shortages._of_node
    shortages._of_node = lambda node, *rest: looked.append(node) or look(node, *rest)  # type: ignore
    (found,) = head.chain(identity("t"))
    assert len(found.details) == 8 and found.more == 992
    assert len(looked) == limits.WHY_NODES_MAX


def test_what_has_ended() -> None:
    head = Bench()
    head.node("n1", cpus=2)
    head.submit("d", spec("good", WORK), spec("bad", WORK))
    text = failures.encode(WorkerCrashedError, "the worker died", "work", "n1")
    error = m.Outcome(object_of(identity("bad")), m.ERROR, len(text), text)
    head.say("d", m.Hold(0, identity("d"), object_of(identity("good"))))
    head.say("d", m.Hold(0, identity("d"), object_of(identity("bad"))))
    ends = [done(identity("good")), done(identity("bad"), results=[error])]
    head.say("n1", m.Done(1, ends))
    (good,) = head.chain(object_of(identity("good")))
    assert good.code == "READY" and texts(good)["where"].startswith("node n1")
    (bad,) = head.chain(identity("bad"))
    assert (bad.code, bad.text) == ("FAILED", "the worker died")
    assert texts(bad) == {"code": WorkerCrashedError.code, "ran on": "n1"}


def test_nodes_by_id_name_and_state() -> None:
    head = Bench()
    head.node("n1")
    assert head.codes("n1") == head.codes(identity("n1")) == ["ALIVE"]
    head.now += 7
    head.gcs.members.nodes[identity("n1")].view.live = False
    (found,) = head.chain("n1")
    assert (found.code, found.since_s) == ("SUSPECT", 7)
    assert "silent for 7.0 s" in found.text and "declared dead" in found.advice
    head.say("n1", m.Goodbye(0, "it was stopped"))
    head.now += 3
    (found,) = head.chain("n1")
    assert (found.code, found.kind, found.since_s) == ("DEAD", "node", 3)
    assert "node n1 is dead: " in found.text


def test_names_and_beginnings_of_ids() -> None:
    head = Bench()
    head.node("aa")
    head.node("ab")
    (found,) = head.chain("61")
    assert "nothing here has the id or name '61'" in found.text
    assert head.codes("6162") == ["ALIVE"]  # those of "ab"
    head.node("abc")
    (found,) = head.chain("6162")
    assert (found.code, found.text) == (
        "UNKNOWN",
        "2 things have a name or an id like '6162'",
    )
    assert identity("ab").hex() in found.advice and identity("abc").hex() in found.advice


def test_a_job_by_reason_and_count() -> None:
    head = Bench()
    head.node("n1")
    head.submit("d", *(spec(f"l{place}", LARGE) for place in range(3)))
    head.submit("d", *(spec(f"t{place}", WORK) for place in range(2)))
    head.submit("d", spec("after", WORK, dependencies=[object_of(identity("t0"))]))
    assert head.ask(identity("d")) is None  # its driver is asked
    (asked,) = head.taken("d", m.AskWhy)
    head.say("d", m.ToldWhy(0, asked.seq, [cause("driver", b"", "", "DRIVER", "no others")]))
    answers = head.answer()
    assert answers is not None
    job, driver = answers[0].causes
    assert (job.code, driver.code) == ("RUNNING", "DRIVER")
    assert "6 unfinished tasks, 0 finished" in job.text
    counts = [(one.name, one.text.partition(":")[0]) for one in job.details]
    assert sorted(counts) == [
        *(("1", "LEASED"), ("1", "WAIT_DEPS"), ("1", "WAIT_RESOURCES"), ("3", "INFEASIBLE")),
    ]


def test_a_head_that_recovers_says_for_whom_it_waits() -> None:
    job = m.JobInfo("program", "/", [], "machine", "host", 1)
    rows = {
        "nodes": {identity("n1"): msgpack.encode(NodeRow(1, True, "n1"))},
        "jobs": {identity("e"): msgpack.encode(job)},
    }
    head = Bench(rows=rows, epoch=2)
    head.say("e", head.hello_driver("e"), m.Export(0, FUNCTION, "work", b"code"), WORK)
    head.submit("e", spec("t", WORK))
    (found,) = head.chain(identity("t"))
    assert (found.code, found.text) == (
        "HEAD_RECOVERING",
        "work; RECOVERING epoch 2: 1 nodes and their tasks not back yet",
    )
    for subject in ("n1", identity("n1")):
        (found,) = head.chain(subject)
        assert found.code == "AWAY" and "not back since the head's restart" in found.text


# ---- whoever else knows ------------------------------------------------------------------------


def own(name: str) -> bytes:
    """An id that the driver has made: all of one process begin alike."""
    return identity("d")[:8] + name.encode().ljust(8, b"\0")


def test_the_driver_is_asked_about_its_own() -> None:
    head = Bench()
    oid = object_of(own("leased"))
    assert head.ask(oid) is None
    (asked,) = head.taken("d", m.AskWhy)
    assert asked.id == oid
    told = cause("call", own("leased"), "A.f", "WAIT_ACTOR", "waits here")
    head.say("d", m.ToldWhy(0, asked.seq, [told], identity("no actor")))
    answers = head.answer()
    assert answers is not None
    assert [one.code for one in answers[0].causes] == ["WAIT_ACTOR", "UNKNOWN"]
    head.say("d", m.ToldWhy(0, asked.seq, [told]))  # once more, too late
    assert head.answer() is None
    assert at_rest(head)


def test_what_a_driver_waits_for_free_the_head_completes() -> None:
    head = Bench()
    head.node("n1", machine="elsewhere")
    needs = [("CPU", 6 * UNIT)]
    head.say("d", m.Demand(0, identity("d"), identity("d"), needs, 3))
    told = cause("task", own("t"), "t", "WAIT_RESOURCES", "waits here")
    for told_needs, expected in ((needs, 2), ([("CPU", 5 * UNIT)], 1)):
        assert head.ask(own("t")) is None
        (asked,) = head.taken("d", m.AskWhy)
        head.say("d", m.ToldWhy(0, asked.seq, [told], b"", told_needs))
        answers = head.answer()
        assert answers is not None and len(answers[0].causes) == expected
    head.now += 1


def test_whoever_is_asked_and_says_nothing_is_named() -> None:
    head = Bench()
    assert head.ask(own("t"), patience_s=0.5) is None
    assert head.gcs.turn.deadline() <= head.now + 0.5
    head.now += 0.6
    head.turn()
    answers = head.answer()
    assert answers is not None
    unknown, silent = answers[0].causes
    assert (unknown.code, silent.code) == ("UNKNOWN", "NO_ANSWER")
    assert "driver pid 1 on host, which may know more, has not answered within 0.5 s" in silent.text
    assert at_rest(head)


def test_only_whoever_was_asked_is_believed() -> None:
    head = Bench()
    head.driver("liar")
    assert head.ask(own("t")) is None
    (asked,) = head.taken("d", m.AskWhy)
    lie = cause("task", own("t"), "", "FAILED", "a lie")
    head.say("liar", m.ToldWhy(0, asked.seq, [lie]))
    assert head.answer() is None
    head.say("d", m.ToldWhy(0, asked.seq, []))
    answers = head.answer()
    assert answers is not None and [one.code for one in answers[0].causes] == ["UNKNOWN"]


def test_an_answer_that_leads_back_ends() -> None:
    head = Bench()
    assert head.ask(own("t")) is None
    (asked,) = head.taken("d", m.AskWhy)
    told = cause("task", own("t"), "", "WAIT_DEPS", "waits for itself")
    head.say("d", m.ToldWhy(0, asked.seq, [told], own("t")))
    answers = head.answer()
    assert answers is not None and [one.code for one in answers[0].causes] == ["WAIT_DEPS"]


def test_the_node_of_a_task_says_what_becomes_of_it_and_of_what_it_waits_for() -> None:
    head = Bench()
    head.node("n1", cpus=1)
    head.submit("d", spec("parent", WORK))
    head.submit("d", spec("child", LARGE, parent=identity("parent")))
    assert head.ask(identity("parent")) is None
    (asked,) = head.taken("n1", m.AskWhy)
    told = cause("attempt", identity("parent"), "work", "BLOCKED", "it waits")
    head.say("n1", m.ToldWhy(0, asked.seq, [told]))
    answers = head.answer()
    assert answers is not None
    assert [one.code for one in answers[0].causes] == ["LEASED", "BLOCKED", "INFEASIBLE"]
    told = replace(told, code="RUNNING")
    assert head.ask(identity("parent")) is None
    (asked,) = head.taken("n1", m.AskWhy)
    head.say("n1", m.ToldWhy(0, asked.seq, [told]))
    answers = head.answer()
    assert answers is not None
    assert [one.code for one in answers[0].causes] == ["LEASED", "RUNNING"]


def test_what_a_leased_task_does_its_node_says() -> None:
    head = Bench()
    node = head.node("n1")
    head.say("d", m.Demand(0, identity("d"), identity("d"), [("CPU", UNIT)], 1))
    (grant,) = head.taken("n1", m.Grant)
    told = cause("task", own("t"), "t", "LEASED", "it is leased")
    reply = m.ToldWhy(0, 0, [told], lease_id=grant.lease_id)
    assert head.ask(own("t")) is None
    (asked,) = head.taken("d", m.AskWhy)
    head.say("d", replace(reply, about=asked.seq))
    assert head.answer() is None
    (asked,) = head.taken("n1", m.AskWhy)
    assert (asked.id, asked.lease_id, asked.name) == (own("t"), grant.lease_id, "t")
    blocked = cause("attempt", own("t"), "t", "BLOCKED", "it waits")
    head.submit("d", spec("child", LARGE, parent=own("t")))
    head.say("n1", m.ToldWhy(0, asked.seq, [blocked]))
    answers = head.answer()
    assert answers is not None
    assert [one.code for one in answers[0].causes] == ["LEASED", "BLOCKED", "INFEASIBLE"]

    head.now += limits.SUSPECT_S
    head.gcs.members.jobs[identity("d")].heard = head.now
    node.view.live = False
    assert head.ask(own("t")) is None
    (asked,) = head.taken("d", m.AskWhy)
    head.say("d", replace(reply, about=asked.seq))
    answers = head.answer()
    assert answers is not None
    assert [one.code for one in answers[0].causes] == ["LEASED", "SUSPECT"]


def test_a_silent_node_is_not_waited_for() -> None:
    head = Bench()
    head.node("n1")
    head.submit("d", spec("t", WORK))
    head.now += limits.SUSPECT_S + 1
    head.gcs.members.nodes[identity("n1")].view.live = False
    assert head.codes(identity("t")) == ["LEASED", "SUSPECT"]


def test_past_a_bound_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WHY_QUESTIONS_MAX", 2)
    head = Bench()
    for _ in range(2):
        assert head.ask(own("t")) is None
    assert head.codes(own("t")) == ["UNKNOWN"]
    assert head.ask(own("t"), patience_s=0.0) is not None
    assert len(head.taken("d", m.AskWhy)) == 2


def test_a_node_that_has_near_tasks_is_asked_about_what_nobody_knows() -> None:
    head = Bench()
    head.node("n1")
    head.node("n2")
    head.say("n1", m.Near(0, [m.NearJob(identity("d"), 1, 0, 0)]))
    oid = object_of(identity("near task"))
    assert head.ask(oid) is None
    assert not head.taken("n2", m.AskWhy)
    (asked,) = head.taken("n1", m.AskWhy)
    head.say("n1", m.ToldWhy(0, asked.seq, []))
    answers = head.answer()
    assert answers is not None and [one.code for one in answers[0].causes] == ["UNKNOWN"]
    assert value(identity("near task")).object_id == oid


# ---- what is over ----------------------------------------------------------------------------


def past(
    head: Bench,
    state: str,
    name: str,
    *,
    task: str = "gone",
    attempt: int = 0,
    code: str = "ZR-3001",
    pid: int = 4711,
) -> None:
    """A worker has told of an attempt that has ended."""
    row = m.ListedTask(
        *(identity(task), attempt, name, state),
        node_id=identity("n1"),
        pid=pid,
        ended_s=head.gcs.events.now_s() - 3,
        error_code=code if state == m.ENDED_BADLY else "",
        error_message="ValueError: no" if state == m.ENDED_BADLY else "",
    )
    head.gcs.events.tasks.report(m.TaskReport(0, [row]))


def test_what_has_become_of_a_task_that_is_over() -> None:
    head = Bench()
    head.node("n1")
    past(head, m.ENDED_BADLY, "works", attempt=1)
    past(head, m.ENDED_WELL, "other", task="well")
    for subject in (identity("gone"), object_of(identity("gone"))):
        (found,) = head.chain(subject)
        assert (found.code, found.text) == ("FAILED", "works failed: ValueError: no")
        assert texts(found) == {"code": "ZR-3001", "ran on": "n1, pid 4711", "attempt": "1"}
    (found,) = head.chain(identity("well"))
    assert (found.code, found.text) == (
        "READY",
        "other has ended well, and its value was let go",
    )


def test_only_what_has_run_to_its_end_is_said_to_run_again() -> None:
    head = Bench()
    head.node("n1")
    past(head, m.ENDED_BADLY, "works", attempt=1)
    past(head, m.ENDED_BADLY, "stopped", task="stopped", attempt=1, code="ZR-3002")
    past(head, m.ENDED_BADLY, "waited", task="waited", pid=0)
    advice = [head.chain(identity(task))[0].advice for task in ("gone", "stopped", "waited")]
    assert advice == ["zray replay runs it again here", "", ""]


def test_much_that_is_over_is_looked_through_in_several_turns() -> None:
    head = Bench()
    head.node("n1")
    past(head, m.ENDED_BADLY, "works")
    for number in range(64 * 3 * limits.WHY_LOOK_BLOCKS):
        past(head, m.ENDED_BADLY, "noise", task=f"t{number}")
    assert head.ask(identity("gone"), identity("nobody")) is None
    assert head.gcs.questions.deadline() == 0.0
    turns = 0
    while (answers := head.answer()) is None:
        head.turn()
        turns += 1
    assert [answer.causes[0].code for answer in answers] == ["FAILED", "UNKNOWN"]
    assert 3 <= turns <= 10


def test_the_last_attempt_is_told() -> None:
    head = Bench()
    head.node("n1")
    for attempt in range(3):
        past(head, m.ENDED_BADLY, "works", attempt=attempt)
    (found,) = head.chain(identity("gone"))
    assert texts(found)["attempt"] == "2"


def test_how_and_when_a_job_ended() -> None:
    head = Bench()
    job_id = identity("d").hex()
    head.now += 60
    head.turn()
    head.say("d", m.Goodbye(0, "its program has ended"))
    head.now += 5
    head.turn()
    for subject in (job_id, job_id[:8], job_id[:7].upper()):
        (found,) = head.chain(subject)
        assert (found.kind, found.code, found.since_s) == ("job", "ENDED", 5), subject
        assert "(program), pid" in found.text and found.text.endswith("has ended")
        assert texts(found)["it ran for"] == "60 s"


def test_how_a_job_was_lost() -> None:
    head = Bench()
    head.gcs.departures.job_lost(head.gcs.members.jobs[identity("d")], "it was away for 30 s")
    head.now += 2
    head.turn()
    (found,) = head.chain(identity("d"))
    assert (found.code, found.since_s) == ("FAILED", 2)
    assert found.text.endswith("was lost: it was away for 30 s")


def test_what_begins_like_nothing_that_was_is_unknown() -> None:
    head = Bench()
    for number in range(200):
        head.driver(f"driver{number}")
        head.say(f"driver{number}", m.Goodbye(0, "over"))
    (found,) = head.chain("abcdef")
    assert found.code == "UNKNOWN" and "nothing here has the id or name 'abcdef'" in found.text
    (found,) = head.chain(identity("driver7")[:7].hex())  # driver70 to 79 begin so, too
    assert found.code == "ENDED"
    assert at_rest(head)


def test_how_an_actor_and_a_worker_ended() -> None:
    head = Bench()
    events = head.gcs.events
    now_s = events.now_s()
    actor = m.ListedActor(identity("actor"), "Counter", "DEAD", death_cause="it was killed")
    worker = m.ListedWorker(
        *(identity("worker"), False),
        host="here",
        pid=12,
        ended_s=now_s - 3,
        exit_type="SYSTEM_ERROR",
        exit_detail="killed by SIGKILL",
    )
    events.actors.add(replace(actor, ended_s=now_s - 9))
    events.workers.add(worker)
    (found,) = head.chain(identity("actor"))
    assert (found.kind, found.code, found.since_s) == ("actor", "DEAD", 9)
    assert found.text == "actor Counter is dead: it was killed"
    (found,) = head.chain(identity("worker"))
    assert (found.kind, found.code, found.since_s) == ("worker", "ENDED", 3)
    assert found.text == "worker pid 12 on here has ended, SYSTEM_ERROR: killed by SIGKILL"


def test_a_submitted_job_by_its_submission_id() -> None:
    head = Bench()
    row = m.SubmittedJob("import-3", m.JOB_PENDING, "python x.py", identity("super"))
    record = head.gcs.job_table.add(row)
    assert head.codes("import-3") == ["UNKNOWN"]  # nobody is shown what is not durable
    record.told = row
    assert next(one.code for one in head.chain("import-3")) == "PENDING"
    record.told = replace(row, status=m.JOB_RUNNING, driver_id=identity("d"))
    assert head.ask("import-3") is None
    (asked,) = head.taken("d", m.AskWhy)
    head.say("d", m.ToldWhy(0, asked.seq, []))
    (answer,) = head.answer() or []
    found = answer.causes
    assert [(one.kind, one.code) for one in found][:2] == [("job", "RUNNING"), ("job", "IDLE")]
    ended_ms = int(1000 * head.gcs.events.now_s()) - 4000
    record.told = replace(
        row, status=m.JOB_FAILED, message="exit code 3", exit_code=3, ended_ms=ended_ms
    )
    (ended,) = head.chain("import-3")
    assert ended.code == "FAILED" and "exit code 3" in ended.text
    assert ended.since_s == pytest.approx(4, abs=0.01)
    assert texts(ended) == {"command": "python x.py", "exit code": "3"}


def test_a_placement_group_by_its_name() -> None:
    head = Bench()
    head.node("n1")
    wanted = [m.Bundle([("GPU", UNIT)])]
    for place in range(2):
        name, group = f"s{place}", identity(f"group{place}")
        head.say("d", m.CreateGroup(1, group, identity("d"), 0, wanted, "gpus", name))
        if not place:
            (found,) = head.chain("gpus")
            assert (found.kind, found.code, found.id) == ("placement group", "PENDING", group)
            assert "no node ever has that" in found.text
    (found,) = head.chain("gpus")
    assert "2 things have a name or an id like 'gpus'" in found.text
    for place in range(2):
        head.say("d", m.RemoveGroup(2, identity(f"group{place}")))
    assert head.codes("gpus") == ["UNKNOWN"]
    assert not head.gcs.placement._called


def test_a_search_that_takes_too_long_ends_with_what_is_known() -> None:
    head = Bench()
    head.node("n1")
    for number in range(64 * 3 * limits.WHY_LOOK_BLOCKS):
        past(head, m.ENDED_BADLY, "noise", task=f"t{number}")
    assert head.ask(identity("nobody"), "abcdef12") is None
    head.now += 2
    head.turn()
    answers = head.answer()
    assert answers is not None
    assert [[one.code for one in answer.causes] for answer in answers] == [["UNKNOWN"]] * 2
    for _ in range(20):
        head.turn()
    assert at_rest(head)
