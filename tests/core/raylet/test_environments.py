"""The environments of a node: tasks wait for them, and their parts are built once."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.core.benches import FUNCTION, UNIT, identity, object_of, spec
from tests.core.raylet.task_bench import JOB, TaskBench
from zray import limits
from zray.core import environments, failures
from zray.core.machine import NEVER
from zray.core.raylet.effects import BuildPart, EndBuild, RemovePart
from zray.core.raylet.local_records import WorkerSlot
from zray.errors import ObjectLostError, RuntimeEnvSetupError
from zray.protocol import messages as m

OTHER = identity("other job")
PACKAGE = object_of(identity("package"))


def part(source: str, kind: int = m.WORKING_DIR, **fields: Any) -> m.EnvironmentPart:
    return m.EnvironmentPart(kind, source, **fields)


def pip(*lines: str) -> m.EnvironmentPart:
    return m.EnvironmentPart(m.PIP, lines=[*lines])


class Bench(TaskBench):
    """A node whose builds end when a test says so."""

    def __init__(self, bytes_max: int = 100) -> None:
        super().__init__()
        self.environments._bytes_max = bytes_max
        self.names: dict[str, m.Template] = {}

    def ask(
        self, name: str, *parts: m.EnvironmentPart, job: bytes = JOB, timeout_s: float = 60.0
    ) -> m.Template:
        """Give the node a task of that name, in such an environment."""
        made = m.Environment(parts=[*parts], timeout_s=timeout_s)
        amounts = [("CPU", UNIT), (environments.name_of(made), 0)]
        number = identity(f"t{len(self.names)}")
        template = m.Template(0, number, FUNCTION, "work", amounts, 1, 0, environment=made)
        self.names[name] = template
        self.tasks.on_template(template)
        assignment = m.Assignment(1, job, spec(name, template))
        self.tasks.on_tasks(m.Tasks(0, [assignment]), 0.0)
        return template

    def step(self, now: float = 0.0) -> list[Any]:
        """A turn; what the shell is to do."""
        self.environments.step(now)
        effects, self.effects[:] = [*self.effects], []
        return effects

    def queued(self) -> int:
        return self.scheduler.queued

    def states(self) -> list[m.ListedEnvironment]:
        self.environments.on_list(m.ListEnvironments(7, identity("me"), identity("n1")), 0.0)
        (answer,) = self.told(m.EnvironmentsListed)
        assert answer.about == 7 and answer.target == identity("me")
        found: list[m.ListedEnvironment] = answer.environments
        return found


def errors(bench: Bench) -> list[str]:
    records = [failures.read(end.results[0].value) for end in bench.ends()]
    return [f"{record.code} {record.message}" for record in records]


def test_tasks_wait_until_all_parts_are_there_and_are_built_once() -> None:
    bench = Bench()
    first, second = part("file:///a.zip"), part("file:///b.zip", m.PY_MODULE)
    bench.ask("t", first, second)
    bench.ask("u", first)
    built = bench.step()
    assert [effect.part for effect in built] == [first, second]
    assert bench.queued() == 0
    bench.environments.built(built[0].part_id, 10, "/a", 1.0)
    assert bench.queued() == 1  # that of which all is there
    bench.environments.built(built[1].part_id, 20, "/b", 2.0)
    assert bench.queued() == 2
    bench.ask("v", second, first, job=OTHER)  # of another job: nothing is built again
    assert bench.step(2.0) == [] and bench.queued() == 3
    key = (JOB, (), 1, bench.names["t"].resources[1][0])
    assert bench.environments.prepared(key) == ("/a", ["/b", "/a"], "")


def test_while_it_waits_a_task_holds_nothing_and_lends_what_the_head_counts() -> None:
    bench = Bench()
    bench.ask("t", pip("emoji"))
    bench.step(1.0)
    bench.give("other")
    bench.start()
    assert bench.slot.inflight  # that which needs no environment
    bench.lending.step(1.0 + limits.LEND_AFTER_S)
    assert bench.lending.lent["CPU"] == UNIT


def test_a_build_that_fails_fails_all_that_wait_and_is_tried_again_later() -> None:
    bench = Bench()
    for name in ("t", "u"):
        bench.ask(name, pip("no-such"))
    (build,) = bench.step(1.0)
    bench.environments.failed(build.part_id, "no such package", 2.0)
    found = errors(bench)
    assert len(found) == 2
    for text in found:
        assert text.startswith(RuntimeEnvSetupError.code)
        assert "pip install no-such" in text and text.endswith("no such package")
    bench.ask("soon", pip("no-such"))
    assert bench.step(2.0 + limits.ENVIRONMENT_RETRY_S / 2) == []
    assert errors(bench)[0].endswith("no such package")
    bench.ask("late", pip("no-such"))
    assert [type(one) for one in bench.step(2.1 + limits.ENVIRONMENT_RETRY_S)] == [BuildPart]


def test_one_part_that_fails_does_not_fail_others() -> None:
    bench = Bench()
    good, bad = part("file:///a.zip"), part("file:///bad.zip", m.PY_MODULE)
    bench.ask("t", good, bad)
    bench.ask("u", good)
    built = {effect.part.source: effect.part_id for effect in bench.step()}
    bench.environments.failed(built["file:///bad.zip"], "bad", 1.0)
    assert len(errors(bench)) == 1
    bench.environments.built(built["file:///a.zip"], 1, "/a", 1.0)
    assert bench.queued() == 1


def test_a_build_that_takes_too_long_is_ended() -> None:
    bench = Bench()
    bench.ask("t", pip("slow"), timeout_s=5.0)
    (build,) = bench.step(1.0)
    assert bench.environments.deadline() == 6.0
    assert bench.step(5.9) == []
    assert bench.step(6.0) == [EndBuild(build.part_id)]
    assert "it took longer than 5 s" in errors(bench)[0]
    bench.environments.built(build.part_id, 1, "/late", 7.0)  # which nobody wants any more
    assert bench.states()[0].state == "FAILED"
    bench.ask("u", pip("any time"), timeout_s=-1)
    assert len(bench.step(20.0)) == 1 and bench.step(1e9) == []


def test_only_so_many_are_built_at_a_time() -> None:
    bench = Bench()
    count = limits.ENVIRONMENT_BUILDS_MAX + 2
    for number in range(count):
        bench.ask(f"t{number}", pip(f"p{number}"))
    first = bench.step()
    assert len(first) == limits.ENVIRONMENT_BUILDS_MAX
    waiting = bench.tasks.held[identity(f"t{count - 1}")]
    assert "waits on node n1 for other builds" in bench.environments.why(waiting, 1.0)
    bench.environments.built(first[0].part_id, 1, "/x", 1.0)
    assert len(bench.step(1.0)) == 1


def test_a_cancelled_task_and_a_job_that_has_ended_wait_for_nothing() -> None:
    bench = Bench()
    template = bench.ask("t", pip("emoji"))
    bench.ask("u", pip("emoji"))
    (build,) = bench.step()
    bench.tasks.on_cancel(m.CancelTask(0, identity("t"), 1, False), 0.0)
    assert "cancelled" in errors(bench)[0]
    bench.tasks.job_ended(JOB)
    bench.environments.job_ended(JOB)
    assert bench.step(1.0) == [EndBuild(build.part_id)]
    bench.environments.built(build.part_id, 1, "/x", 1.0)
    assert bench.environments.bytes == 0
    assert bench.queued() == 0 and bench.states() == []
    assert not bench.environments.is_ready(JOB, template.resources[1][0])


def test_builds_that_only_an_ended_job_wants_are_in_nobodys_way() -> None:
    bench = Bench()
    count = limits.ENVIRONMENT_BUILDS_MAX
    for number in range(2 * count):  # which never end
        bench.ask(f"t{number}", pip(f"p{number}"), timeout_s=-1)
    bench.ask("shared", pip("p0"), job=OTHER)
    far = object_of(identity("far"))
    first = [effect.part_id for effect in bench.step()]
    bench.ask("u", part("zray://b.zip", content="b" * 32, object_id=far), job=OTHER)
    bench.ask("v", pip("wanted"), job=OTHER)
    assert bench.step(1.0) == []
    bench.tasks.job_ended(JOB)
    bench.environments.job_ended(JOB)
    assert bench.step(2.0) == [EndBuild(number) for number in first[1:]]
    (build,) = bench.step(2.1)
    assert build.part.lines == ["wanted"] and len(bench.told(m.Pull)) == 1
    bench.tasks.job_ended(OTHER)
    bench.environments.job_ended(OTHER)
    bench.step(3.0)
    assert bench.environments.parts == {} and bench.environments.deadline() == NEVER


def test_who_gives_more_time_gets_it() -> None:
    bench = Bench()
    bench.ask("t", pip("slow"), timeout_s=5.0)
    bench.step(1.0)
    bench.step(6.0)
    assert "longer than 5 s" in errors(bench)[0]
    bench.ask("u", pip("slow"), timeout_s=50.0)  # as the error says
    (build,) = bench.step(20.0)
    assert bench.environments.deadline() == 70.0
    bench.ask("v", pip("slow"), job=OTHER, timeout_s=-1)  # to a build that runs already
    assert bench.step(71.0) == []
    bench.environments.built(build.part_id, 1, "/x", 72.0)
    assert bench.queued() == 2


# ---- packages --------------------------------------------------------------------------------


def packaged(object_id: bytes = PACKAGE) -> m.EnvironmentPart:
    return part("zray://a.zip", content="a" * 32, object_id=object_id)


def test_a_package_is_taken_from_what_is_here_or_fetched() -> None:
    bench = Bench()
    bench.objects.put(m.Outcome(PACKAGE, m.VALUE, 3, b"zip"))
    bench.ask("t", packaged())
    (build,) = bench.step()
    assert bytes(build.data) == b"zip"
    far = object_of(identity("far"))
    bench.ask("u", part("zray://b.zip", content="b" * 32, object_id=far))
    assert bench.step() == []
    (pull,) = bench.told(m.Pull)
    assert pull.object_id == far
    waiting = bench.tasks.held[identity("u")]
    assert "being fetched to node n1" in bench.environments.why(waiting, 1.0)
    bench.objects.on_chunk(m.Chunk(0, pull.transfer, m.VALUE, 0, 4, b"more"))
    (build,) = bench.step(1.0)
    assert bytes(build.data) == b"more"


def test_a_package_that_is_gone_is_asked_for_where_another_program_has_sent_it() -> None:
    bench = Bench()
    other = object_of(identity("other package"))
    bench.ask("t", packaged(other))
    bench.ask("u", packaged(), job=OTHER)
    bench.step()
    (pull,) = bench.told(m.Pull)
    assert pull.object_id == PACKAGE  # the one that was named last
    bench.objects.on_failed(m.PullFailed(0, pull.transfer, ObjectLostError.code, "gone"))
    (pull,) = bench.told(m.Pull)
    assert pull.object_id == other
    bench.objects.on_failed(m.PullFailed(0, pull.transfer, ObjectLostError.code, "gone as well"))
    found = errors(bench)
    assert len(found) == 2 and all("the package is gone (gone as well)" in one for one in found)


# ---- the cache -------------------------------------------------------------------------------


def test_what_nobody_uses_goes_when_there_is_too_much_the_longest_unused_first() -> None:
    bench = Bench(bytes_max=100)
    for number in range(3):
        bench.ask(f"t{number}", part(f"file:///{number}.zip"))
        (build,) = bench.step(float(number))
        bench.environments.built(build.part_id, 40, f"/{number}", float(number))
        bench.tasks.on_cancel(m.CancelTask(0, identity(f"t{number}"), 1, False), 0.0)
    assert bench.step(5.0) == [RemovePart(environments.part_id(part("file:///0.zip")))]
    assert bench.environments.bytes == 80
    bench.ask("again", part("file:///0.zip"))
    assert [type(one) for one in bench.step(6.0)] == [BuildPart]


def test_what_has_workers_or_tasks_stays_whatever_it_takes() -> None:
    bench = Bench(bytes_max=10)
    first = bench.ask("t", part("file:///a.zip"))
    (build,) = bench.step()
    bench.environments.built(build.part_id, 40, "/a", 1.0)  # its task is queued
    assert bench.step(2.0) == []
    bench.tasks.on_cancel(m.CancelTask(0, identity("t"), 1, False), 0.0)
    slot = WorkerSlot(identity("w2"), (JOB, (), 1, first.resources[1][0]))
    bench.scheduler.add_worker(slot)
    bench.ask("u", part("file:///b.zip"))
    (build,) = bench.step(3.0)
    bench.environments.built(build.part_id, 40, "/b", 3.0)
    assert bench.step(4.0) == []
    bench.scheduler.remove_worker(slot)
    bench.ask("v", part("file:///c.zip"))
    (build,) = bench.step(5.0)
    bench.environments.built(build.part_id, 40, "/c", 5.0)
    assert bench.step(6.0) == [RemovePart(environments.part_id(part("file:///a.zip")))]


def test_of_parts_without_bytes_only_so_many_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ENVIRONMENT_PARTS_KEPT", 3)
    bench = Bench()
    removed = []
    for number in range(8):
        name = f"t{number}"
        job = identity(f"job {number}")
        bench.ask(name, m.EnvironmentPart(m.PY_EXECUTABLE, f"python{number}"), job=job)
        (build,) = bench.step(float(number))
        bench.environments.built(build.part_id, 0, "", float(number))
        bench.tasks.on_cancel(m.CancelTask(0, identity(name), 1, False), 0.0)
        bench.environments.job_ended(job)
        removed += bench.step(number + 0.5)
    assert len(removed) == 5 and len(bench.environments.parts) == 3


def test_of_programs_that_have_sent_a_package_the_last_are_known() -> None:
    bench = Bench()
    for number in range(limits.PACKAGE_SOURCES_MAX + 5):
        bench.ask(f"t{number}", packaged(object_of(identity(f"p{number}"))))
    bench.step()
    (found,) = bench.environments.parts.values()
    assert len(found.sources) == limits.PACKAGE_SOURCES_MAX
    assert [*found.sources][-1] == object_of(identity(f"p{number}"))


def test_what_somebody_else_has_removed_is_built_again_before_tasks_start() -> None:
    bench = Bench()
    first, second = part("file:///a.zip"), pip("emoji")
    bench.ask("t", first, second)
    bench.ask("o", first, job=OTHER)
    for build in bench.step():
        bench.environments.built(build.part_id, 10, f"/{build.part.kind}", 1.0)
    assert bench.queued() == 2
    key = (JOB, (), 1, bench.names["t"].resources[1][0])
    assert not bench.environments.lacks(key, lambda number, place: True)
    assert bench.environments.lacks(key, lambda number, place: place != f"/{m.PIP}")
    removed, built = bench.step(2.0)
    assert isinstance(removed, RemovePart) and built.part == second and bench.queued() == 1
    assert bench.environments.lacks(key, lambda number, place: True)  # it is not there as yet
    assert bench.step(2.5) == []
    bench.environments.built(built.part_id, 10, "/again", 3.0)
    assert bench.queued() == 2 and bench.environments.bytes == 20
    assert bench.environments.lacks(key, lambda number, place: place != "/again")
    removed, built = bench.step(4.0)
    bench.environments.failed(built.part_id, "no such package", 5.0)
    assert "no such package" in errors(bench)[0] and bench.queued() == 1


def test_of_many_environments_only_so_many_are_remembered() -> None:
    bench = Bench(bytes_max=1 << 40)
    ready = part("file:///a.zip")
    bench.ask("t", ready)
    (build,) = bench.step()
    bench.environments.built(build.part_id, 1, "/a", 0.0)
    bench.tasks.on_cancel(m.CancelTask(0, identity("t"), 1, False), 0.0)
    for number in range(limits.ENVIRONMENTS_KEPT + 10):
        made = m.Environment([("N", str(number))], [ready])
        template = msgspec.structs.replace(
            bench.names["t"],
            resources=[("CPU", UNIT), (environments.name_of(made), 0)],
            environment=made,
        )
        bench.environments._record(JOB, template)
    assert len(bench.environments.records) == limits.ENVIRONMENTS_KEPT


# ---- told ------------------------------------------------------------------------------------


def test_drivers_hear_how_far_pip_is_up_to_a_bound() -> None:
    bench = Bench()
    bench.ask("t", pip("emoji"))
    bench.ask("u", part("file:///a.zip"))
    bench.ask("v", pip("emoji"), job=OTHER)
    build, silent = bench.step()
    bench.environments.began(build.part_id, 77)
    bench.environments.said(build.part_id, ["Collecting emoji"] * 1000)
    bench.environments.began(silent.part_id, 78)
    bench.environments.said(silent.part_id, ["unpacking"])
    told = bench.told(m.Log)
    assert {log.job_id for log in told} == {JOB, OTHER} and {log.pid for log in told} == {77}
    lines = [line for log in told if log.job_id == JOB for line in log.lines]
    assert lines[:2] == ["pip install emoji begins on node n1", "Collecting emoji"]
    assert len(lines) == limits.BUILD_LINES_MAX


def test_a_list_says_state_size_workers_and_why() -> None:
    bench = Bench()
    bench.ask("t", pip("emoji"))
    (build,) = bench.step(0.0)
    assert [(one.state, one.waiting) for one in bench.states()] == [("BUILDING", 1)]
    bench.environments.built(build.part_id, 40, "/a", 3.0)
    (row,) = bench.states()
    assert (row.state, row.seconds, row.bytes, row.workers) == ("READY", 3.0, 40, 0)
    assert row.shown == '{"pip":{"packages":["emoji"],"pip_check":false}}'
    bench.ask("u", pip("bad"))
    (build,) = bench.step(3.0)
    bench.environments.failed(build.part_id, "no such package", 4.0)
    assert bench.states()[0].error.endswith("no such package")
