"""Progress of tasks on its way to the driver: bounded, paced, and over with its worker."""

from __future__ import annotations

from tests.core.benches import HeadBench, RayletBench, identity, spec, template
from zray import limits
from zray.core.pace import Pace
from zray.core.worker.progress_bars import ProgressBars
from zray.protocol import messages as m

WORK = template()


def bar(number: int, done: int = 1, *, ended: bool = False) -> m.Bar:
    return m.Bar(number, "bar", done, 10, ended)


def progress(bars: list[m.Bar]) -> m.Progress:
    return m.Progress(0, identity("d1"), "", 0, "", bars)


def test_a_pace_lets_so_many_through_at_once_and_in_a_second() -> None:
    pace = Pace(10)
    assert sum(pace.allows(5.0) for _ in range(50)) == 10
    assert sum(pace.allows(5.5) for _ in range(50)) == 5


def test_a_worker_tells_the_last_state_now_and_then_and_again() -> None:
    bars = ProgressBars()
    number = bars.open("all", 1000)
    assert [one.done for one in bars.due(0.0)] == [0]
    for done in range(100):
        bars.update(number, done)
        assert bars.due(limits.PROGRESS_S / 2) == []
    assert [one.done for one in bars.due(limits.PROGRESS_S)] == [99]
    assert bars.due(limits.PROGRESS_S * 2.5) == []
    again = limits.PROGRESS_AGAIN_S + limits.PROGRESS_S
    assert [one.done for one in bars.due(again)] == [99]
    assert [(one.done, one.ended) for one in bars.close(number)] == [(99, True)]
    assert bars.close(number) == []


def test_a_worker_has_only_so_many_bars() -> None:
    bars = ProgressBars()
    numbers = [bars.open("x" * 1000, 0) for _ in range(limits.BARS_MAX + 5)]
    assert numbers[-5:] == [0] * 5 and len({*numbers}) == limits.BARS_MAX + 1
    assert len(bars.due(0.0)) == limits.BARS_MAX
    bars.update(0, 5)
    assert bars.close(0) == []


def test_a_node_says_whose_the_bars_are_and_ends_them_with_their_worker() -> None:
    raylet = RayletBench()
    raylet.head(WORK)
    raylet.give(spec("t", WORK))
    (worker,) = raylet.workers()
    raylet.to_head.clear()
    raylet.raylet.worker_message(worker, progress([bar(1), bar(2)]), raylet.now)
    ends = progress([bar(1, ended=True), bar(7, ended=True)])
    raylet.raylet.worker_message(worker, ends, raylet.now)
    raylet.turn()
    first, second = raylet.told(m.Progress)
    assert first.name == "work" and first.node == raylet.raylet.info.name
    assert [one.number for one in second.bars] == [1]  # it had no bar 7
    raylet.raylet.worker_exited(worker, 1, "killed", raylet.now)
    raylet.turn()
    (last,) = raylet.told(m.Progress)
    assert [(one.number, one.ended) for one in last.bars] == [(2, True)]


def test_a_flood_costs_a_node_no_more_than_its_pace_but_ends_are_told() -> None:
    raylet = RayletBench()
    raylet.head(WORK)
    raylet.give(spec("t", WORK))
    (worker,) = raylet.workers()
    raylet.to_head.clear()
    for done in range(1000):
        raylet.raylet.worker_message(worker, progress([bar(1, done)]), raylet.now)
    raylet.raylet.worker_message(worker, progress([bar(1, ended=True)]), raylet.now)
    raylet.turn()
    told = raylet.told(m.Progress)
    assert len(told) <= limits.PROGRESS_NODE_PER_S + 1 and told[-1].bars[0].ended


def test_the_head_tells_a_driver_that_reads_and_no_other() -> None:
    head = HeadBench()
    head.node("n1", 1)
    head.driver("d1", WORK)
    head.say("n1", progress([bar(1)]))
    assert len(head.taken("d1", m.Progress)) == 1
    head.say("d1", progress([bar(1)]))
    assert head.taken("d1", m.Progress) == []  # a driver may not say that
    flood = m.Log(0, identity("d1"), "talk", 1, "n1", False, ["x" * limits.LOG_UNREAD_BYTES])
    head.say("n1", flood)
    head.say("n1", progress([bar(1, 5)]))
    assert head.taken("d1", m.Progress) == []
    head.say("d1", m.Ping(0, 1.0))
    head.say("n1", progress([bar(1, 6)]))
    assert len(head.taken("d1", m.Progress)) == 1
    head.say("n1", m.Progress(0, identity("d9"), "", 0, "", [bar(1)]))  # nobody's job


def test_what_a_bar_says_may_change() -> None:
    bars = ProgressBars()
    number = bars.open("rows", 10, "row")
    bars.due(0.0)
    bars.describe(number, "more rows" * 100, 20)
    (told,) = bars.due(limits.PROGRESS_S)
    assert (told.label[:9], told.total, told.unit) == ("more rows", 20, "row")
    assert len(told.label) <= limits.NAME_MAX
    bars.describe(99, "nobody's", 1)
    assert bars.due(2 * limits.PROGRESS_S) == []


def test_bars_that_are_let_go_end_and_make_room() -> None:
    bars = ProgressBars()
    numbers = [bars.open("x", 0) for _ in range(limits.BARS_MAX)]
    bars.due(0.0)
    bars.dropped.append(numbers[0])
    assert [(one.number, one.ended) for one in bars.due(limits.PROGRESS_S)] == [(numbers[0], True)]
    assert bars.open("x", 0) and not bars.open("x", 0)
    bars.dropped.extend(numbers[1:3])
    assert bars.open("x", 0) and bars.open("x", 0) and not bars.open("x", 0)
    told = bars.due(2 * limits.PROGRESS_S)
    assert [one.number for one in told if one.ended] == numbers[1:3]
