"""Lists and summaries of what there is and was, as whoever asks the head gets them."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from tests.core.benches import HeadBench, done, identity, object_of, spec, template
from zray import limits
from zray.core import failures
from zray.core.head import events as head_events
from zray.errors import WorkerCrashedError
from zray.protocol import messages as m

WORK = template()
OTHER = template("other")


def head(cpus: float = 1) -> HeadBench:
    bench = HeadBench()
    bench.node("n1", cpus=cpus)
    bench.driver("d", WORK, OTHER)
    bench.say("o", observer())
    bench.taken("o")
    return bench


def observer(name: str = "o") -> m.Hello:
    return m.Hello(0, 1, m.ROLE_OBSERVER, identity(name), 0, b"", m.Versions("3.11", "0", "3"))


def answer(bench: HeadBench, question: Any, turns: int = 1000) -> Any:
    """The one answer, after as many turns as that takes."""
    question.seq = 9
    bench.say("o", question)
    for _ in range(turns):
        found = [one for one in bench.taken("o") if getattr(one, "about", 0) == 9]
        if found:
            return found[0]
        bench.turn()
    raise AssertionError("there was no answer")


def everything(bench: HeadBench, kind: int, limit: int = 0, **more: Any) -> list[Any]:
    """The rows of all pages."""
    rows: list[Any] = []
    cursor = b""
    while True:
        page = answer(bench, m.List(0, kind, limit=limit, cursor=cursor, **more))
        assert isinstance(page, m.Listed), page
        found = getattr(page, next(name for name, one in m.KINDS.items() if one == kind))
        assert len(found) <= (limit or limits.LISTED_ROWS_MAX)
        rows += found
        cursor = page.cursor
        if not cursor:
            return rows


def names(rows: list[Any]) -> list[str]:
    return [row.task_id.rstrip(b"\0").decode() for row in rows]


def equal(key: str, value: str, *, negated: bool = False) -> list[m.Filter]:
    return [m.Filter(key, value, negated)]


# ---- pages -------------------------------------------------------------------------------------


def test_pages_have_each_task_once_though_tasks_come_and_go_between_them() -> None:
    bench = head()
    bench.submit("d", *(spec(f"t{number}", WORK) for number in range(250)))
    first = answer(bench, m.List(0, m.TASKS, limit=100))
    assert len(first.tasks) == 100 and first.total == 250
    bench.submit("d", *(spec(f"later{number}", WORK) for number in range(100)))
    bench.say("n1", m.Done(1, [done(identity("t0"))]))
    second = answer(bench, m.List(0, m.TASKS, limit=100, cursor=first.cursor))
    third = answer(bench, m.List(0, m.TASKS, limit=100, cursor=second.cursor))
    seen = names([*first.tasks, *second.tasks, *third.tasks])
    assert seen == [f"t{number}" for number in range(250)] and not third.cursor


def test_a_page_that_is_asked_for_again_is_the_same() -> None:
    bench = head()
    bench.submit("d", *(spec(f"t{number}", WORK) for number in range(50)))
    first = answer(bench, m.List(0, m.TASKS, limit=20))
    pages = [answer(bench, m.List(0, m.TASKS, limit=20, cursor=first.cursor)) for _ in range(2)]
    assert pages[0].tasks == pages[1].tasks and pages[0].cursor == pages[1].cursor


def test_a_long_list_is_made_in_parts_and_others_are_served_between_them() -> None:
    bench = head()
    count = 4 * limits.LISTED_LOOK_ROWS
    bench.submit("d", *(spec(f"t{number}", WORK) for number in range(count)))
    bench.say("o", m.List(1, m.TASKS, equal("name", "nobody")), m.List(2, m.NODES))
    order = [one.about for one in bench.taken("o")]
    for _ in range(10):
        bench.turn()
        order += [one.about for one in bench.taken("o")]
    assert order == [2, 1]
    assert bench.gcs.turn.deadline() > bench.now


def test_a_list_that_was_not_read_for_too_long_says_so() -> None:
    bench = head()
    bench.submit("d", *(spec(f"t{number}", WORK) for number in range(20)))
    first = answer(bench, m.List(0, m.TASKS, limit=5))
    bench.after(limits.LISTS_OPEN_S + 2)
    again = answer(bench, m.List(0, m.TASKS, limit=5, cursor=first.cursor))
    assert isinstance(again, m.Rejected) and "from its beginning" in again.text


def test_lists_that_nobody_reads_on_have_a_bound() -> None:
    bench = head()
    bench.submit("d", *(spec(f"t{number}", WORK) for number in range(20)))
    pages = [answer(bench, m.List(0, m.TASKS, limit=5)) for _ in range(limits.LISTS_OPEN_MAX + 1)]
    oldest = answer(bench, m.List(0, m.TASKS, limit=5, cursor=pages[0].cursor))
    latest = answer(bench, m.List(0, m.TASKS, limit=5, cursor=pages[-1].cursor))
    assert isinstance(oldest, m.Rejected) and isinstance(latest, m.Listed)


def test_a_flood_of_questions_is_refused_and_the_head_goes_on() -> None:
    bench = head()
    flood = [m.List(number, m.NODES) for number in range(1, 1001)]
    bench.say("o", *flood)
    for _ in range(limits.LISTS_WAITING_MAX + 1):
        bench.turn()
    found = bench.taken("o")
    refused = [one for one in found if isinstance(one, m.Rejected)]
    served = [one for one in found if isinstance(one, m.Listed)]
    assert len(served) == limits.LISTS_WAITING_MAX and len(served) + len(refused) == 1000
    assert isinstance(answer(bench, m.List(0, m.NODES)), m.Listed)


def test_questions_that_wait_take_no_memory_for_what_they_are_about() -> None:
    bench = head()
    bench.submit("d", *(spec(f"t{number}", WORK) for number in range(2000)))
    bench.say("o", *(m.List(number, m.TASKS, equal("name", "x")) for number in range(1, 51)))
    begun = [work for work in bench.gcs.listings._begun if work._reading is not None]
    assert len(begun) <= limits.LISTS_BEGUN_MAX
    for _ in range(500):
        bench.turn()
        begun = [work for work in bench.gcs.listings._begun if work._reading is not None]
        assert len(begun) <= limits.LISTS_BEGUN_MAX
    assert len([one for one in bench.taken("o") if isinstance(one, m.Listed)]) == 50


def test_a_cursor_that_somebody_has_made_up_is_refused() -> None:
    bench = head()
    for cursor in (b"x", bytes(24), b"\xff" * 24, bytes(64)):
        found = answer(bench, m.List(0, m.TASKS, cursor=cursor))
        assert isinstance(found, m.Rejected)
    bench.submit("d", *(spec(f"t{number}", WORK) for number in range(20)))
    first = answer(bench, m.List(0, m.TASKS, limit=5))
    for place in (b"\xff" * 16, bytes(8) + b"\xff" * 8, b"\xff" * 8 + bytes(8)):
        found = answer(bench, m.List(0, m.TASKS, cursor=first.cursor[:8] + place))
        assert isinstance(found, m.Listed) and not found.cursor


# ---- filters -----------------------------------------------------------------------------------


def test_filters_are_applied_by_the_head() -> None:
    bench = head()
    bench.submit("d", spec("a", WORK), spec("b", OTHER), spec("c", OTHER))
    assert names(everything(bench, m.TASKS, filters=equal("name", "OTHER"))) == ["b", "c"]
    assert names(everything(bench, m.TASKS, filters=equal("name", "other", negated=True))) == ["a"]
    both = [m.Filter("name", "other"), m.Filter("task_id", identity("c").hex())]
    assert names(everything(bench, m.TASKS, filters=both)) == ["c"]
    assert everything(bench, m.TASKS, filters=equal("task_id", "no id")) == []
    (node,) = everything(bench, m.NODES, filters=equal("is_head_node", "false"))
    assert node.name == "n1"


def test_an_unknown_field_is_refused_with_those_there_are() -> None:
    found = answer(head(), m.List(0, m.TASKS, equal("colour", "red")))
    assert isinstance(found, m.Rejected)
    assert "'colour'" in found.text and "func_or_class_name" in found.text


# ---- tasks -------------------------------------------------------------------------------------


def test_a_waiting_task_says_what_it_waits_for() -> None:
    bench = head()
    bench.submit("d", spec("a", WORK), spec("b", WORK), spec("c", WORK))
    bench.submit("d", spec("after", OTHER, dependencies=[object_of(identity("a"))]))
    rows = {row.task_id.rstrip(b"\0"): row for row in everything(bench, m.TASKS)}
    assert rows[b"a"].state == m.SUBMITTED_TO_WORKER and rows[b"a"].node_id == identity("n1")
    assert rows[b"c"].state == m.PENDING_NODE_ASSIGNMENT
    assert rows[b"c"].reason.startswith("WAIT_RESOURCES")
    assert rows[b"after"].state == m.PENDING_ARGS_AVAIL
    assert rows[b"after"].reason.startswith("WAIT_DEPS")
    assert rows[b"c"].resources == [("CPU", 10_000)] and rows[b"c"].job_id == identity("d")


def crash(task_id: bytes, attempt: int = 1) -> m.TaskDone:
    value = failures.encode(WorkerCrashedError, "killed by signal 9", "work")
    return done(task_id, attempt, m.CRASHED, results=failures.outcomes(task_id, 1, value))


def test_failures_that_the_head_sees_are_remembered_with_their_reason() -> None:
    bench = head()
    fragile = template(retries=0)
    bench.say("d", fragile)
    bench.submit("d", spec("a", fragile))
    bench.say("n1", m.Done(1, [crash(identity("a"))]))
    bench.submit("d", spec("b", WORK), spec("c", WORK))
    bench.say("d", m.Cancel(0, identity("c"), False, False))
    rows = everything(bench, m.TASKS, filters=equal("state", "failed"))
    found = {row.task_id.rstrip(b"\0"): row for row in rows}
    assert found[b"a"].error_type == "WORKER_DIED" and "signal 9" in found[b"a"].error_message
    assert found[b"a"].error_code == "ZR-3003" and found[b"a"].node_id == identity("n1")
    assert found[b"c"].error_type == "TASK_CANCELLED"
    (one,) = everything(bench, m.TASKS, only=identity("a"))
    assert one == found[b"a"]


def report(**fields: Any) -> m.TaskReport:
    return m.TaskReport(0, **fields)


def row(name: str, state: str = m.ENDED_WELL, **fields: Any) -> m.ListedTask:
    return m.ListedTask(identity(name), 0, "near", state, job_id=identity("d"), **fields)


def test_what_nodes_report_is_listed_and_what_runs_is_replaced() -> None:
    bench = head()
    runs = row("r", m.RUNNING, worker_id=identity("w"), started_s=5.0)
    told = report(ended=[row("x"), row("y", m.ENDED_BADLY)], running=[runs], heard=identity("w"))
    bench.say("n1", told)
    assert names(everything(bench, m.TASKS)) == ["r", "y", "x"]
    bench.say("n1", report(heard=identity("w"), dropped=7))
    page = answer(bench, m.List(0, m.TASKS))
    assert names(page.tasks) == ["y", "x"] and page.dropped == 7


def test_a_task_of_the_heads_is_shown_as_running_where_a_worker_says_so() -> None:
    bench = head()
    bench.submit("d", spec("a", WORK))
    runs = row("a", m.RUNNING, worker_id=identity("w"), pid=4711, started_s=5.0)
    bench.say("n1", report(running=[runs], heard=identity("w")))
    (found,) = everything(bench, m.TASKS)
    assert (found.state, found.name, found.pid, found.started_s) == (m.RUNNING, "work", 4711, 5.0)


def test_failures_are_not_displaced_by_successes() -> None:
    bench = head()
    bench.say("n1", report(ended=[row("failed", m.ENDED_BADLY)]))
    tasks = bench.gcs.events.tasks
    for number in range(300_000):
        tasks.finished.add(m.ListedTask(number.to_bytes(16, "big"), 0, "near", m.ENDED_WELL))
    assert tasks.finished.bytes <= limits.FINISHED_TASKS_BYTES
    assert tasks.finished.start > 0  # some have gone
    assert names(everything(bench, m.TASKS, filters=equal("state", "FAILED"))) == ["failed"]


def test_tasks_that_are_not_to_be_listed_are_not() -> None:
    bench = head()
    silent = replace(template("silent"), events=False)
    bench.say("d", silent)
    bench.submit("d", spec("a", silent), spec("b", silent))
    bench.say("n1", m.Done(1, [done(identity("a"))]))
    assert everything(bench, m.TASKS) == []
    assert answer(bench, m.Summarize(0, m.TASKS)).groups == []


# ---- summaries ---------------------------------------------------------------------------------


def groups(summary: m.Summary) -> dict[str, dict[str, int]]:
    return {group.name: dict(group.states) for group in summary.groups}


def test_a_summary_counts_all_tasks_by_name_and_state() -> None:
    bench = head(cpus=2)
    bench.submit("d", *(spec(f"t{number}", WORK) for number in range(1200)))
    first = [identity(f"t{number}") for number in range(2)]
    failed = failures.outcomes(first[1], 1, failures.encode(WorkerCrashedError, "no"))
    bench.say("n1", m.Done(1, [done(first[0]), done(first[1], results=failed)]))
    bench.say("n1", report(tallies=[m.Tally("near", m.NORMAL_TASK, m.ENDED_WELL, 1_000_000)]))
    found = answer(bench, m.Summarize(0, m.TASKS))
    work = groups(found)["work"]
    assert (work[m.ENDED_WELL], work[m.ENDED_BADLY]) == (1, 1)
    assert work[m.SUBMITTED_TO_WORKER] + work[m.PENDING_NODE_ASSIGNMENT] == 1198
    assert groups(found)["near"] == {m.ENDED_WELL: 1_000_000}
    assert found.total == 1_001_200


def test_names_without_end_take_no_memory_without_end() -> None:
    bench = head()
    for start in range(0, 10_000, 1000):
        tallies = [
            m.Tally(f"f{number}", m.NORMAL_TASK, m.ENDED_WELL, 1)
            for number in range(start, start + 1000)
        ]
        bench.say("n1", report(tallies=tallies))
    found = groups(answer(bench, m.Summarize(0, m.TASKS)))
    assert len(found) <= limits.TASK_NAMES_MAX + 1
    assert sum(states[m.ENDED_WELL] for states in found.values()) == 10_000


def test_there_is_no_summary_of_nodes() -> None:
    found = answer(head(), m.Summarize(0, m.NODES))
    assert isinstance(found, m.Rejected)


# ---- nodes, workers, jobs, objects, events -------------------------------------------------------


def test_a_dead_node_is_listed_with_its_reason_and_so_are_its_workers() -> None:
    bench = head()
    worker = m.ListedWorker(identity("w"), True, pid=4711, host="host")
    runs = row("r", m.RUNNING, worker_id=identity("w"))
    bench.say("n1", report(workers=[worker], running=[runs], heard=identity("w")))
    (alive,) = [one for one in everything(bench, m.WORKERS) if one.type == "WORKER"]
    assert alive.alive and alive.node_id == identity("n1") and alive.pid == 4711
    bench.say("n1", m.Goodbye(0, "its machine goes down"))
    (node,) = everything(bench, m.NODES)
    assert node.state == "DEAD" and "its machine goes down" in node.message
    (dead,) = [one for one in everything(bench, m.WORKERS) if one.type == "WORKER"]
    assert not dead.alive and "its node is dead" in dead.exit_detail
    (task,) = everything(bench, m.TASKS)
    assert task.state == m.ENDED_BADLY and task.error_type == "WORKER_DIED"
    labels = [one.label for one in everything(bench, m.EVENTS)]
    assert labels[0] == "NODE_DIED" and "NODE_JOINED" in labels


def test_a_job_is_listed_while_it_runs_and_after_it() -> None:
    bench = head()
    (job,) = everything(bench, m.JOBS)
    assert (job.status, job.connected, job.entrypoint) == ("RUNNING", True, "program")
    bench.say("d", m.Goodbye(0, "bye"))
    (job,) = everything(bench, m.JOBS)
    assert (job.status, job.connected) == ("SUCCEEDED", False)
    assert next(one.label for one in everything(bench, m.EVENTS)) == "JOB_ENDED"


def test_objects_are_listed_with_their_holder() -> None:
    bench = head()
    bench.submit("d", spec("a", WORK))
    bench.say("d", m.Hold(0, identity("d"), object_of(identity("a"))))
    (found,) = everything(bench, m.OBJECTS)
    assert (found.state, found.type, found.holder_id) == ("PENDING", "DRIVER", identity("d"))
    assert found.reference_type == "LOCAL_REFERENCE"
    assert found.task_state == m.SUBMITTED_TO_WORKER
    bench.say("n1", m.Done(1, [done(identity("a"))]))
    (found,) = everything(bench, m.OBJECTS)
    assert (found.state, found.size, found.task_state) == ("READY", 5, m.ENDED_WELL)
    summary = answer(bench, m.Summarize(0, m.OBJECTS))
    assert [(one.name, one.bytes) for one in summary.groups] == [("LOCAL_REFERENCE", 5)]


def test_events_take_no_memory_without_end() -> None:
    bench = head()
    for number in range(100_000):
        bench.gcs.events.add(head_events.INFO, "HEAD", "TEST", f"{number} " + "x" * 500)
    assert bench.gcs.events.happened.bytes <= limits.THINGS_ENDED_BYTES
    assert everything(bench, m.EVENTS)[0].message.startswith("99999 ")


def test_what_runs_is_found_without_a_look_at_all_that_waits_or_has_ended() -> None:
    bench = head()
    bench.submit("d", *(spec(f"t{number}", WORK) for number in range(3000)))
    runs = m.ListedTask(identity("t0"), 0, "work", m.RUNNING, worker_id=identity("w"))
    near = m.ListedTask(identity("near"), 0, "work", m.RUNNING, worker_id=identity("w"))
    bench.say("n1", m.TaskReport(0, running=[runs, near], heard=identity("w")))
    question = m.List(0, m.TASKS, equal("state", "running"))
    found = answer(bench, question, turns=1)  # one turn looks at some hundred rows at most
    assert {row.task_id for row in found.tasks} == {identity("t0"), identity("near")}
    assert found.total == 3001 and not found.cursor
    assert len(everything(bench, m.TASKS, filters=equal("state", "RUNNING", negated=True))) == 2999
