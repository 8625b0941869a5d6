"""What operators ask a node: which worker has it, where that is, its end; bounded, and in time."""

from __future__ import annotations

from typing import Any

from tests.core.benches import RayletBench, identity, spec, template
from zray import limits
from zray.core.raylet.effects import EndExamination, KillWorker, ReadLogFile, StartExamination
from zray.core.raylet.printed import PrintedPart
from zray.errors import BusyError, NotFoundError, ProfilerError
from zray.protocol import messages as m

WORK = template()
ME, NODE = identity("operator"), identity("n1")
MISSING = "there is no tool"


def bench_with(workers: int) -> tuple[RayletBench, list[bytes]]:
    bench = RayletBench(cpus=workers)
    bench.head(WORK)
    bench.give(*(spec(f"t{number}", WORK) for number in range(workers)))
    found = bench.workers()
    for place, worker in enumerate(found):
        bench.raylet.workers.started(worker, 4711 + place, int)
    bench.to_workers.clear()
    bench.effects.clear()
    bench.told(m.Message)
    return bench, found


def effects(bench: RayletBench, kind: type) -> list[Any]:
    found = [one for one in bench.effects if isinstance(one, kind)]
    bench.effects = [one for one in bench.effects if not isinstance(one, kind)]
    return found


def locate(bench: RayletBench, word: str, kind: int = m.SOMETHING) -> list[Any]:
    bench.head(m.Locate(3, ME, word, kind, NODE))
    return bench.told(m.Answered)


# ---- which worker --------------------------------------------------------------------------


def test_a_worker_is_found_by_pid_and_id_and_by_the_task_that_it_runs() -> None:
    bench, (first, second) = bench_with(2)
    for word in ("4712", second.hex()):
        (found,) = locate(bench, word)
        assert (found.kind, found.worker_id, found.pid) == (m.A_WORKER, second, 4712)
        assert (found.target, found.about, found.title) == (ME, 3, "work")
    (found,) = locate(bench, identity("t0").hex())
    assert (found.kind, found.worker_id, found.pid) == (m.A_TASK, first, 4711)


def test_workers_are_asked_for_a_task_that_was_not_given_to_them_here() -> None:
    bench, (first, second) = bench_with(2)
    leased = b"\x01" * 16
    assert locate(bench, leased.hex()) == []
    asked = bench.to_workers[first][0]
    assert asked == m.Locate(3, ME, leased.hex(), m.A_TASK, first)
    no = (NotFoundError.code, "", m.A_TASK, leased)
    bench.worker(first, m.Answered(0, ME, 3, *no))
    bench.worker(second, m.Answered(0, ME, 3, "", "", m.A_TASK, leased, "fast"))
    (found,) = bench.told(m.Answered)
    assert (found.worker_id, found.title, found.subject) == (second, "fast", leased)


def test_one_that_does_not_say_is_not_waited_for_long() -> None:
    bench, (first, _) = bench_with(2)
    locate(bench, "01" * 16)
    bench.worker(first, m.Answered(0, ME, 3, NotFoundError.code))
    assert bench.raylet.deadline() <= bench.now + limits.LOCATE_WAIT_S
    bench.now += limits.LOCATE_WAIT_S
    bench.turn()
    (answer,) = bench.told(m.Answered)
    assert answer.code == NotFoundError.code and answer.pid and "4712" in answer.text


def test_one_that_does_not_say_has_what_it_has_printed_for() -> None:
    bench, (first, second) = bench_with(2)
    leased = b"\x01" * 16
    bench.raylet.inspection.printed(second, leased, PrintedPart(7, 0, 5))
    bench.head(m.Locate(3, ME, leased.hex(), m.A_TASK, NODE, True))
    bench.worker(first, m.Answered(0, ME, 3, NotFoundError.code))
    bench.now += limits.LOCATE_WAIT_S
    bench.turn()
    (answer,) = bench.told(m.Answered)
    assert (answer.worker_id, answer.code) == (second, "")


def test_what_has_printed_is_found_unless_it_is_to_run() -> None:
    bench, (first, _) = bench_with(2)
    ended = b"\x02" * 16
    bench.raylet.inspection.printed(first, ended, PrintedPart(7, 0, 5))
    (found,) = locate(bench, ended.hex())
    assert (found.kind, found.worker_id) == (m.A_TASK, first)
    bench.head(m.Locate(3, ME, ended.hex(), m.SOMETHING, NODE, True))
    assert not bench.told(m.Answered)  # workers are asked


def test_so_many_are_looked_for_at_a_time() -> None:
    bench, _ = bench_with(1)
    for number in range(limits.OPEN_QUESTIONS_MAX):
        bench.head(m.Locate(number, ME, f"{number:032x}", m.A_TASK, NODE))
    assert locate(bench, "ff" * 16)[0].code == BusyError.code


def test_a_worker_that_has_ended_is_still_known() -> None:
    bench, (first, _) = bench_with(2)
    bench.raylet.worker_exited(first, 1, "signal 9", bench.now)
    bench.turn()
    bench.told(m.Message)
    (found,) = locate(bench, "4711")
    assert (found.worker_id, found.pid, found.title) == (first, 4711, "work")
    facts = bench.raylet.inspection.facts(first)
    assert facts is not None and not facts.alive


def test_those_that_have_ended_are_forgotten_in_the_end() -> None:
    bench, _ = bench_with(1)
    for number in range(limits.PAST_WORKERS_KEPT + 10):
        (worker,) = bench.workers()
        bench.raylet.workers.started(worker, number + 10, int)
        bench.raylet.worker_exited(worker, 1, "exit status 0", bench.now)
        bench.give(spec(f"u{number}", WORK))
    assert len(bench.raylet.inspection._past) == limits.PAST_WORKERS_KEPT


def test_nonsense_is_nothing() -> None:
    bench, _ = bench_with(1)
    for word in ("x", "9" * 200, "../../etc/passwd", "", "\0" * 32, "g" * 32):
        assert [one.code for one in locate(bench, word)] == [NotFoundError.code]


# ---- where it is ---------------------------------------------------------------------------


def examine(bench: RayletBench, worker: bytes = b"", seconds: float = 0.0, number: int = 7) -> None:
    bench.head(m.Examine(number, ME, NODE, worker, seconds))


def test_a_worker_is_looked_into_by_its_pid() -> None:
    bench, (first,) = bench_with(1)
    examine(bench, first)
    (effect,) = effects(bench, StartExamination)
    assert (effect.pid, effect.seconds) == (4711, 0.0)
    bench.raylet.inspection.examined(effect.number, b"stack", "", "", bench.now)
    bench.turn()
    assert bench.told(m.Examined) == [m.Examined(0, ME, 7, b"stack")]


def test_where_the_tool_cannot_the_worker_says_itself() -> None:
    bench, (first,) = bench_with(1)
    examine(bench, first)
    (effect,) = effects(bench, StartExamination)
    bench.raylet.inspection.examined(effect.number, b"", ProfilerError.code, MISSING, bench.now)
    bench.turn()
    (asked,) = bench.to_workers[first]
    assert isinstance(asked, m.Examine)
    bench.worker(first, m.Examined(0, NODE, asked.seq, b"own stack"))
    (answer,) = bench.told(m.Examined)
    assert (answer.data, answer.code) == (b"own stack", "") and MISSING in answer.text


def test_a_worker_that_does_not_say_is_an_error_in_time() -> None:
    bench, (first,) = bench_with(1)
    examine(bench, first)
    (effect,) = effects(bench, StartExamination)
    bench.raylet.inspection.examined(effect.number, b"", ProfilerError.code, MISSING, bench.now)
    bench.now += limits.WORKER_STACK_S
    bench.turn()
    (answer,) = bench.told(m.Examined)
    assert answer.code == ProfilerError.code and MISSING in answer.text


def test_a_profile_needs_the_tool() -> None:
    bench, (first,) = bench_with(1)
    examine(bench, first, 5.0)
    (effect,) = effects(bench, StartExamination)
    bench.raylet.inspection.examined(effect.number, b"", ProfilerError.code, MISSING, bench.now)
    bench.turn()
    assert bench.told(m.Examined) == [m.Examined(0, ME, 7, b"", ProfilerError.code, MISSING)]


def test_a_tool_that_does_not_end_is_killed() -> None:
    bench, (first,) = bench_with(1)
    examine(bench, first, 5.0)
    (effect,) = effects(bench, StartExamination)
    bench.now += 5.0 + limits.EXAMINE_S
    bench.turn()
    assert effects(bench, EndExamination) == [EndExamination(effect.number)]
    assert bench.told(m.Examined)[0].code == ProfilerError.code
    bench.raylet.inspection.examined(effect.number, b"late", "", "", bench.now)
    bench.turn()
    assert not bench.told(m.Examined)


def test_so_many_are_looked_into_at_a_time() -> None:
    bench, (first,) = bench_with(1)
    for number in range(limits.EXAMINATIONS_MAX + 1):
        examine(bench, first, 5.0, number)
    assert len(effects(bench, StartExamination)) == limits.EXAMINATIONS_MAX
    assert [one.code for one in bench.told(m.Examined)] == [BusyError.code]


def test_the_node_itself_and_the_head_are_looked_into() -> None:
    bench, _ = bench_with(1)
    examine(bench)
    bench.head(m.Examine(8, ME, NODE, b"", 0.0, True, 99))
    assert [one.pid for one in effects(bench, StartExamination)] == [1, 99]


def test_a_worker_that_is_not_here_is_an_error() -> None:
    bench, _ = bench_with(1)
    examine(bench, identity("nobody"))
    assert bench.told(m.Examined)[0].code == NotFoundError.code


# ---- logs and ends -------------------------------------------------------------------------


def test_logs_are_read_by_the_shell() -> None:
    bench, _ = bench_with(1)
    asked = m.ReadLog(3, ME, NODE, "node")
    bench.head(asked)
    assert effects(bench, ReadLogFile) == [ReadLogFile(asked)]


def test_a_worker_is_killed_once_it_is_named() -> None:
    bench, (first, _) = bench_with(2)
    bench.head(m.Kill(3, ME, m.A_WORKER, first, NODE))
    assert effects(bench, KillWorker) == [KillWorker(first)]
    (answer,) = bench.told(m.Answered)
    assert (answer.worker_id, answer.pid, answer.code) == (first, 4711, "")
    bench.head(m.Kill(4, ME, m.A_WORKER, identity("nobody"), NODE))
    assert bench.told(m.Answered)[0].code == NotFoundError.code
