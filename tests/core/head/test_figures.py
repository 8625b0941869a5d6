"""The figures of a cluster are those of its tables, whatever happens, and counters never fall."""

from __future__ import annotations

from typing import Any

from tests.core.benches import HeadBench, done, identity, spec, template, value
from zray import limits
from zray.core.head.figures import HeadFigures
from zray.core.head.task_history import OTHERS
from zray.protocol import messages as m

WORK = template()
KIND = (m.NORMAL_TASK, m.ENDED_WELL)


class Bench(HeadBench):
    def figures(self) -> dict[tuple[str, ...], float]:
        gcs: Any = self.gcs
        if not hasattr(self, "_figures"):
            self._figures = HeadFigures(
                *(gcs.sessions._identity, gcs, gcs.queries.classes, gcs.queries.health),
                gcs.tasks.__len__,
            )
        return {(one.name, *one.labels): one.value for one in self._figures.all(self.now)}


def test_tasks_are_counted_by_what_they_wait_for_and_by_how_they_ended() -> None:
    bench = Bench()
    bench.node("n1")
    bench.driver("d1", WORK)
    bench.submit("d1", *(spec(f"t{i}", WORK) for i in range(5)))
    found = bench.figures()
    states = {key[1]: count for key, count in found.items() if key[0] == "zray_tasks"}
    assert sum(states.values()) == 5 and states[m.RUNNING] == 1
    assert found["zray_tasks_pending", "WAIT_RESOURCES"] == states[m.PENDING_NODE_ASSIGNMENT]
    first = identity("t0")
    bench.say("n1", m.Done(1, [done(first, results=[value(first)])]))
    found = bench.figures()
    assert found["zray_tasks_ended_total", "work", m.NORMAL_TASK, m.ENDED_WELL] == 1
    bench.say("n1", m.Done(2, [done(first, results=[value(first)])]))
    assert bench.figures()["zray_stale_results_total",] == 1


def test_how_long_tasks_waited_is_counted_when_they_are_given_to_a_node() -> None:
    bench = Bench()
    bench.driver("d1", WORK)
    bench.submit("d1", spec("t1", WORK))
    bench.after(3.0)
    assert bench.figures()["zray_tasks_pending_longest_seconds",] >= 3.0
    bench.node("n1")
    assert bench.figures()["zray_task_queue_seconds",] >= 3.0
    assert bench.figures()["zray_tasks_pending_longest_seconds",] == 0.0


def test_a_node_that_is_lost_is_counted_apart_from_one_that_leaves() -> None:
    bench = Bench()
    bench.node("n1")
    bench.node("n2")
    assert bench.figures()["zray_node_up", "n1"] == 1
    bench.say("n1", m.Goodbye(0, "it was told to stop"))
    bench.commit()
    bench.gcs.sessions.link_lost(b"n2", bench.now)
    bench.turn()
    bench.after(6.0)
    assert bench.figures()["zray_node_up", "n2"] == 0
    bench.after(limits.DEAD_S + 5.0)
    bench.commit()
    found = bench.figures()
    assert found["zray_node_deaths_total", "planned"] == 1
    assert found["zray_node_deaths_total", "lost"] == 1
    assert ("zray_node_up", "n2") not in found


def test_functions_beyond_a_bound_are_counted_together_and_no_count_falls() -> None:
    bench = Bench()
    bench.node("n1")
    many = [m.Tally(f"f{i}", m.NORMAL_TASK, m.ENDED_WELL, 2) for i in range(300)]
    bench.say("n1", m.TaskReport(0, tallies=many))
    found = bench.figures()
    ended = {key: n for key, n in found.items() if key[0] == "zray_tasks_ended_total"}
    assert len(ended) <= 2 * (limits.FUNCTIONS_MEASURED_MAX + 1)
    assert sum(ended.values()) == 600 and ended["zray_tasks_ended_total", OTHERS, *KIND] == 400
    less = [m.Tally("f0", m.NORMAL_TASK, m.ENDED_WELL, -1)]
    bench.say("n1", m.TaskReport(0, tallies=less))
    assert bench.figures()["zray_tasks_ended_total", "f0", *KIND] == 2


def test_reconnects_and_refusals_are_counted_by_their_cause() -> None:
    bench = Bench()
    bench.node("n1")
    bench.gcs.sessions.link_lost(b"n1", bench.now)
    bench.say("n1", bench.hello_node("n1"))
    bench.commit()
    assert bench.gcs.sessions.reconnects == {"lost": 1}
    bench.say("n1b", bench.hello_node("n1"))
    bench.commit()
    assert bench.gcs.sessions.reconnects == {"lost": 1, "replaced": 1}
    bench.say("stranger", m.Ping(0, 1.0))
    bench.say("n1b", m.Ping(0, 1.0), epoch=99)
    bench.say("n1b", m.Shutdown(0, "not for nodes to say"))
    rejected = bench.gcs.controller.rejected
    assert (rejected["no_session"], rejected["epoch"], rejected["role"]) == (1, 1, 1)


def test_what_was_submitted_is_counted_once_and_what_went_past_the_head_when_it_ends() -> None:
    bench = Bench()
    bench.node("n1")
    bench.driver("d1", WORK)
    total = ("zray_tasks_submitted_total",)
    bench.submit("d1", *(spec(f"t{i}", WORK) for i in range(5)))
    assert bench.figures()[total] == 5
    bench.submit("d1", *(spec(f"t{i}", WORK) for i in range(5)))
    assert bench.figures()[total] == 5
    first = identity("t0")
    bench.say("n1", m.Done(1, [done(first, results=[value(first)])]))
    assert bench.figures()[total] == 5
    bench.say("n1", m.TaskReport(0, tallies=[m.Tally("work", *KIND, 7)]))
    assert bench.figures()[total] == 12
    bench.say("n1", m.TaskReport(0, tallies=[m.Tally("work", *KIND, -2)]))
    assert bench.figures()[total] == 12
    bench.say("d1", m.Goodbye(0, "over"))
    assert bench.figures()[total] == 12
