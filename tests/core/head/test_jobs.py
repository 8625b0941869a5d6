"""Submitted jobs: what becomes of each, whatever becomes of supervisor, node and head."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.core.benches import UNIT, VERSIONS, HeadBench, done, identity, object_of, template
from zray import limits
from zray.core import failures
from zray.core.head.actor_records import TABLE as ACTORS
from zray.core.head.job_table import TABLE, JobTable
from zray.errors import (
    BusyError,
    JobExistsError,
    JobNotFoundError,
    JobSubmissionError,
    RuntimeEnvSetupError,
)
from zray.protocol import messages as m

FUNCTION = b"f" * 16
CLASS = template("Supervisor.__init__", retries=0)
ME = identity("me")


class Bench(HeadBench):
    """A head with an operator, and node n1; its store keeps what is committed."""

    def __init__(self, rows: Any = None, epoch: int = 1, *, nodes: int = 1, **more: Any) -> None:
        super().__init__(rows, epoch, **more)
        self.stored: dict[str, dict[bytes, bytes]] = {
            table: dict(found) for table, found in (rows or {}).items()
        }
        for number in range(1, nodes + 1):
            self.node(f"n{number}", 2)
        self.say("me", m.Hello(0, 1, m.ROLE_OBSERVER, ME, 0, b"", VERSIONS))
        self.taken("me")

    def commit(self) -> None:
        for _, rows in self.rows:
            for table, key, value in rows:
                kept = self.stored.setdefault(table, {})
                if value is None:
                    kept.pop(key, None)
                else:
                    kept[key] = value
        super().commit()

    def submit_job(self, name: str = "j1", task: str = "", **fields: Any) -> m.JobAnswered:
        nested = fields.pop("nested", [])
        spec = m.TaskSpec(identity(task or f"a-{name}"), CLASS.template_id, b"", nested=nested)
        message = m.SubmitJob(
            5,
            name,
            fields.pop("entrypoint", "python program.py"),
            fields.pop("metadata", []),
            "{}",
            m.Export(0, FUNCTION, "Supervisor", b"code"),
            CLASS,
            spec,
            m.ActorInfo("Supervisor", FUNCTION, [], **fields),
            m.JobInfo("", "", [], "", "host", 1),
        )
        self.say("me", message)
        return self.answer()

    def answer(self) -> Any:
        answers = self.taken("me", m.JobAnswered)
        return answers[0] if answers else None

    def ask(self, word: str = "", after: int = 0) -> Any:
        self.say("me", m.AskJobs(6, word, after))
        (told,) = self.taken("me", m.JobsTold)
        return told

    def job(self, word: str = "j1") -> m.SubmittedJob:
        (row,) = self.ask(word).jobs
        return row

    def starts(self, name: str = "j1", node: str = "n1") -> None:
        """The supervisor's constructor has returned."""
        actor = identity(f"a-{name}")
        results = [m.Outcome(object_of(actor), m.VALUE, 0)]
        end = done(actor, 1, results=results, worker_id=identity(f"w-{name}"))
        self.say(node, m.Done(1, [end]))

    def exits(self, code: int, text: str = "", name: str = "j1", node: str = "n1") -> None:
        """Its command has ended."""
        self.say(node, m.JobExited(7, identity(f"a-{name}"), identity(f"w-{name}"), code, text))

    def supervisor_ends(self, *, intended: bool = True, text: str = "", name: str = "j1") -> None:
        self.say("n1", m.ActorExited(90, identity(f"a-{name}"), 1, intended, text))

    def restarted(self, **more: Any) -> Bench:
        """The next head, with what this one has stored, and nobody back yet."""
        return Bench(self.stored, self.gcs.epoch + 1, nodes=0, **more)

    def returns(self, *alive: str) -> None:
        """Node n1 is back, with these jobs' supervisors."""
        self.say("n1", self.hello_node("n1", 1, 2))
        held = [m.HeldActor(identity(f"a-{one}"), 1, identity(f"w-{one}")) for one in alive]
        self.say("n1", m.Announce(0, [], [], [], actors=held), m.Credit(0, 1 << 40))
        self.turn()


# ---- a life --------------------------------------------------------------------------------


def test_a_job_goes_from_pending_by_running_to_its_end() -> None:
    bench = Bench()
    assert bench.submit_job(metadata=[("a", "b")]).done
    assert bench.job().status == "PENDING" and bench.job().metadata == [("a", "b")]
    assert bench.assigned("n1") == ["a-j1"]
    bench.starts()
    row = bench.job()
    assert (row.status, row.node_id, row.worker_id) == ("RUNNING", identity("n1"), identity("w-j1"))
    bench.exits(0)
    assert bench.taken("n1", m.Synced)
    bench.supervisor_ends()
    row = bench.job()
    assert (row.status, row.exit_code, row.error) == ("SUCCEEDED", 0, "")
    assert row.ended_ms >= row.started_ms and not bench.gcs.actor_table


def test_a_command_that_fails_says_with_what_code_and_its_last_words() -> None:
    bench = Bench()
    bench.submit_job()
    bench.starts()
    bench.exits(3, "Traceback")
    row = bench.job()
    assert (row.status, row.exit_code) == ("FAILED", 3)
    assert row.error == "JOB_ENTRYPOINT_COMMAND_ERROR"
    assert "exit code 3" in row.message and row.message.endswith("Traceback")


def test_a_command_that_cannot_be_started() -> None:
    bench = Bench()
    bench.submit_job()
    bench.exits(m.NO_EXIT_CODE, "no such directory")  # sooner than the head hears that it lives
    row = bench.job()
    assert (row.status, row.error) == ("FAILED", "JOB_ENTRYPOINT_COMMAND_START_ERROR")
    bench.starts()
    assert bench.job().status == "FAILED" and bench.job().worker_id == identity("w-j1")


@pytest.mark.parametrize("code", [0, 1])
def test_the_first_end_stands(code: int) -> None:
    bench = Bench()
    bench.submit_job()
    bench.starts()
    bench.exits(code)
    first = bench.job()
    bench.exits(1 - code)
    bench.supervisor_ends(intended=False, text="signal 9")
    assert bench.job() == first


def test_nobody_hears_of_a_job_before_it_is_durable() -> None:
    bench = Bench()
    bench.durable = False
    assert bench.submit_job() is None and bench.ask("j1").jobs == [] and bench.ask().jobs == []
    assert bench.assigned("n1") == []
    bench.durable = True
    bench.turn()
    assert bench.answer().done and bench.job().status == "PENDING"


def test_the_same_submission_again_is_the_same_job_and_another_is_refused() -> None:
    bench = Bench()
    bench.submit_job()
    assert bench.submit_job().done and len(bench.ask().jobs) == 1
    refused = bench.submit_job(task="another")
    assert (refused.done, refused.code) == (False, JobExistsError.code)
    bench.starts()
    bench.exits(0)
    assert bench.submit_job(task="another").code == JobExistsError.code


# ---- deaths --------------------------------------------------------------------------------


def test_a_supervisor_that_dies_has_failed_its_job() -> None:
    bench = Bench()
    bench.submit_job()
    bench.starts()
    bench.supervisor_ends(intended=False, text="signal 9")
    row = bench.job()
    assert (row.status, row.error) == ("FAILED", "JOB_SUPERVISOR_ACTOR_DIED")
    assert "signal 9" in row.message


def test_a_node_that_dies_has_failed_its_jobs_with_the_reason() -> None:
    bench = Bench()
    for name in ("j1", "j2"):
        bench.submit_job(name)
    bench.starts("j1")  # and of j2 the constructor runs
    bench.say("n1", m.Goodbye(0, "unplugged"))
    for name in ("j1", "j2"):
        row = bench.job(name)
        assert row.status == "FAILED" and "unplugged" in row.message


def test_a_job_that_cannot_be_made_says_why() -> None:
    bench = Bench()
    bench.submit_job()
    actor = identity("a-j1")
    crashed = m.Outcome(object_of(actor), m.ERROR, 0, b"")
    bench.say("n1", m.Done(1, [done(actor, 1, m.CRASHED, results=[crashed])]))
    row = bench.job()
    assert (row.status, row.error) == ("FAILED", "JOB_SUPERVISOR_ACTOR_START_FAILURE")


def test_an_environment_that_cannot_be_built_has_failed_its_job_with_the_builders_words() -> None:
    bench = Bench()
    bench.submit_job()
    actor = identity("a-j1")
    value = failures.encode(RuntimeEnvSetupError, "no matching distribution", "Supervisor")
    error = m.Outcome(object_of(actor), m.ERROR, len(value), value)
    bench.say("n1", m.Done(1, [done(actor, 1, results=[error])]))
    row = bench.job()
    assert (row.status, row.error) == ("FAILED", "RUNTIME_ENV_SETUP_FAILURE")
    assert "no matching distribution" in row.message


def test_what_its_environment_is_made_of_is_held_until_the_job_has_ended() -> None:
    bench = Bench()
    package = object_of(identity("package"))
    bench.submit_job(nested=[package])
    bench.starts()
    assert identity("a-j1") in bench.gcs.objects.make(package).holders
    bench.exits(0)
    bench.supervisor_ends()
    bench.after(1)
    assert package not in bench.gcs.objects.records


def test_a_job_that_finds_no_node_says_what_it_waits_for() -> None:
    bench = Bench()
    spec = m.TaskSpec(identity("a-j1"), b"g" * 16, b"")
    wants = m.Template(0, b"g" * 16, FUNCTION, "Supervisor", [("GPU", UNIT)], 1, 0)
    message = m.SubmitJob(
        *(5, "j1", "x", [], "{}", m.Export(0, FUNCTION, "Supervisor", b"code"), wants, spec),
        m.ActorInfo("Supervisor", FUNCTION, [], held=[("GPU", UNIT)]),
        m.JobInfo("", "", [], "", "host", 1),
    )
    bench.say("me", message)
    row = bench.job()
    assert row.status == "PENDING" and "GPU" in row.message


# ---- stopping ------------------------------------------------------------------------------


def test_a_running_job_is_stopped_by_its_supervisor() -> None:
    bench = Bench()
    bench.submit_job()
    bench.starts()
    bench.taken("n1")
    bench.say("me", m.EndJob(8, "j1"))
    assert bench.answer().done
    (stop,) = bench.taken("n1", m.StopActor)
    assert stop.graceful and stop.actor_id == identity("a-j1")
    assert bench.job().status == "RUNNING"  # until it has ended
    bench.supervisor_ends(text="the job was stopped")
    assert bench.job().status == "STOPPED"
    bench.say("me", m.EndJob(9, "j1"))
    assert bench.answer().done is False


def test_a_command_that_ends_well_when_it_is_stopped_is_stopped() -> None:
    bench = Bench()
    bench.submit_job()
    bench.starts()
    bench.say("me", m.EndJob(8, "j1"))
    bench.exits(0)
    assert (bench.job().status, bench.job().exit_code) == ("STOPPED", 0)


def test_a_job_that_waits_is_stopped_at_once() -> None:
    bench = Bench(nodes=0)
    bench.submit_job()
    bench.say("me", m.EndJob(8, "j1"))
    assert bench.answer().done and bench.job().status == "STOPPED"
    bench.node("n1", 2)
    assert bench.assigned("n1") == []


def test_a_supervisor_that_does_not_end_is_killed() -> None:
    bench = Bench()
    bench.submit_job()
    bench.starts()
    bench.say("me", m.EndJob(8, "j1"))
    bench.taken("n1")
    bench.after(limits.JOB_STOP_MAX_S + 1)
    stops = bench.taken("n1", m.StopActor)
    assert [one.graceful for one in stops] == [False]
    bench.supervisor_ends(intended=False, text="signal 9")
    assert bench.job().status == "STOPPED"


def test_what_there_is_not_cannot_be_stopped() -> None:
    bench = Bench()
    bench.say("me", m.EndJob(8, "nothing"))
    assert bench.answer().code == JobNotFoundError.code


def test_only_a_job_that_has_ended_is_deleted() -> None:
    bench = Bench()
    bench.submit_job()
    bench.starts()
    bench.say("me", m.EndJob(8, "j1", True))
    assert bench.answer().code == JobSubmissionError.code
    bench.exits(0)
    bench.say("me", m.EndJob(9, "j1", True))
    assert bench.answer().done and bench.ask().jobs == [] and not bench.stored[TABLE]
    assert bench.submit_job(task="another").done


# ---- another head --------------------------------------------------------------------------


def test_a_job_outlives_its_head() -> None:
    bench = Bench()
    bench.submit_job()
    bench.starts()
    later = bench.restarted()
    assert later.job().status == "RUNNING"
    later.returns("j1")
    assert later.job().status == "RUNNING"
    later.exits(0)
    assert later.job().status == "SUCCEEDED"


def test_a_supervisor_that_ended_while_no_head_was_there_has_failed() -> None:
    bench = Bench()
    bench.submit_job()
    bench.starts()
    later = bench.restarted()
    later.returns()
    assert later.job().status == "FAILED"


def test_a_node_that_does_not_return_has_failed_its_jobs() -> None:
    bench = Bench()
    bench.submit_job()
    bench.starts()
    later = bench.restarted()
    later.after(limits.DEAD_S + 2)
    assert later.job().status == "FAILED" and "did not return" in later.job().message


def test_what_was_stopped_before_a_restart_is_stopped_after_it() -> None:
    bench = Bench()
    bench.submit_job()
    bench.starts()
    bench.say("me", m.EndJob(8, "j1"))
    later = bench.restarted()
    later.returns("j1")
    assert [one.graceful for one in later.taken("n1", m.StopActor)] == [True]
    later.supervisor_ends(text="the job was stopped")
    assert later.job().status == "STOPPED"


def test_a_job_without_its_supervisor_in_the_store_has_failed() -> None:
    bench = Bench()
    bench.submit_job()
    del bench.stored[ACTORS]
    row = bench.restarted().job()
    assert row.status == "FAILED" and "not there any more" in row.message


def test_jobs_that_have_ended_are_known_to_the_next_head() -> None:
    bench = Bench()
    for number, code in ((1, 0), (2, 1)):
        bench.submit_job(f"j{number}")
        bench.starts(f"j{number}")
        bench.exits(code, name=f"j{number}")
    before = bench.ask().jobs
    assert bench.restarted().ask().jobs == before
    assert [one.status for one in before] == ["SUCCEEDED", "FAILED"]


# ---- drivers -------------------------------------------------------------------------------


def test_a_driver_that_the_command_starts_is_linked_to_the_job() -> None:
    bench = Bench()
    bench.submit_job()
    bench.starts()
    hello = bench.hello_driver("d1")
    assert hello.job is not None
    hello.job = msgspec.structs.replace(hello.job, submission_id="j1", pid=77)
    bench.say("d1", hello)
    row = bench.job(identity("d1").hex())
    assert (row.submission_id, row.driver_id, row.driver_pid) == ("j1", identity("d1"), 77)
    bench.say("me", m.List(3, m.JOBS))
    (listed,) = bench.taken("me", m.Listed)
    found = {one.job_id: (one.submission_id, one.detached) for one in listed.jobs}
    assert found == {identity("d1"): ("j1", False), identity("a-j1"): ("j1", True)}


# ---- bounds --------------------------------------------------------------------------------


def test_so_many_may_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JOBS_LIVE_MAX", 2)
    bench = Bench()
    assert bench.submit_job("j1").done and bench.submit_job("j2").done
    assert bench.submit_job("j3").code == BusyError.code
    bench.starts("j1")
    bench.exits(0, name="j1")
    assert bench.submit_job("j3").done


def test_the_oldest_ends_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JOBS_ENDED_MAX", 3)
    bench = Bench()
    for number in range(5):
        bench.submit_job(f"j{number}")
        bench.say("me", m.EndJob(8, f"j{number}"))
    assert [one.submission_id for one in bench.ask().jobs] == ["j2", "j3", "j4"]
    assert sorted(bench.stored[TABLE]) == [b"j2", b"j3", b"j4"]


def test_those_that_have_ended_take_so_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JOBS_ENDED_BYTES", 5000)
    bench = Bench()
    for number in range(5):
        bench.submit_job(f"j{number}", entrypoint="x" * 2000)
        bench.say("me", m.EndJob(8, f"j{number}"))
    assert [one.submission_id for one in bench.ask().jobs] == ["j3", "j4"]


def test_a_long_list_comes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JOBS_TOLD_MAX", 4)
    bench = Bench(nodes=0)
    for number in range(10):
        bench.submit_job(f"j{number}")
    found, after = [], 0
    while True:
        told = bench.ask(after=after)
        assert len(told.jobs) <= 4
        found += [one.submission_id for one in told.jobs]
        after = told.after
        if not after:
            break
    assert found == [f"j{number}" for number in range(10)]


@pytest.mark.parametrize(
    "fields",
    [
        {"metadata": [("a", "x" * 40_000), ("b", "x" * 40_000)]},
        {"entrypoint": "x" * (limits.JOB_ENTRYPOINT_MAX + 1)},
    ],
)
def test_what_is_too_large_is_refused(fields: Any) -> None:
    bench = Bench()
    assert bench.submit_job(**fields).code == JobSubmissionError.code
    assert bench.ask().jobs == [] and not bench.gcs.actor_table


def test_the_id_of_something_else_is_refused() -> None:
    bench = Bench()
    assert bench.submit_job("j1", task="n1").code == JobSubmissionError.code
    bench.submit_job("j2")
    assert bench.submit_job("j3", task="a-j2").code == JobSubmissionError.code


def test_another_node_cannot_end_a_job() -> None:
    bench = Bench(nodes=2)
    bench.submit_job()
    node = "n1" if bench.assigned("n1") else "n2"
    bench.starts(node=node)
    bench.exits(0, node="n2" if node == "n1" else "n1")
    assert bench.job().status == "RUNNING"


def test_a_table_finds_by_id_and_forgets_all_of_one() -> None:
    table = JobTable({})
    record = table.add(m.SubmittedJob("x", m.JOB_PENDING, "true", b"a" * 16, driver_id=b"d" * 16))
    assert table.find("x") is record and table.find((b"d" * 16).hex()) is record
    assert table.find("z" * 32) is None
    table.remove(record)
    table.remove(record)
    assert not len(table) and table.page(0) == ([], 0) and table.of_actor(b"a" * 16) is None
