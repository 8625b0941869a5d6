"""What a turn consists of: each step on its own, in an order that others rely on, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from zray.core.head.journal import Journal
from zray.core.head.turn import CHECK_S, Turn
from zray.core.incidents import Incidents
from zray.core.machine import NEVER

START = 100.0


class Machine:
    """One of those that have something to do in a turn; notes what it was told to do."""

    def __init__(self, name: str, bench: Bench) -> None:
        self._name = name
        self._bench = bench
        self.jobs_over: list[bytes] = []
        self.look_at = NEVER
        self.due = NEVER

    def deadline(self) -> float:
        return self.due

    steal_deadline = deadline

    def __getattr__(self, name: str) -> Callable[..., None]:
        def act(*what: Any) -> None:
            step = f"{self._name}.{name}"
            self._bench.done.append(step)
            if step in self._bench.broken:
                raise ValueError(step)

        return act


class Bench:
    """``broken``: steps that fail."""

    def __init__(self, *broken: str) -> None:
        self.broken = broken
        self.done: list[str] = []
        self.journal = Journal()
        self.incidents = Incidents()
        names = (
            *("sessions", "membership", "departures", "resumption", "holders", "incarnations"),
            *("directory", "scheduler", "dispatch", "results", "garbage", "definitions"),
            *("acknowledgements", "leases", "near_tasks", "listings", "drains", "questions"),
            "placement_groups",
            "jobs",
        )
        self.machines: dict[str, Any] = {name: Machine(name, self) for name in names}
        self.turn = Turn(journal=self.journal, incidents=self.incidents, now=START, **self.machines)

    def settle(self, after: float = 0.0) -> list[str]:
        self.done = []
        self.turn.settle(START + after)
        return self.done


def test_a_step_that_fails_is_recorded_and_the_rest_goes_on() -> None:
    whole = Bench()
    whole.machines["membership"].look_at = START
    steps = whole.settle(CHECK_S)
    assert len(steps) == 23
    for name in steps[:-1]:
        bench = Bench(name)
        bench.machines["membership"].look_at = START
        assert bench.settle(CHECK_S) == steps
        assert bench.incidents.total == 1


def test_what_was_decided_in_a_turn_leaves_with_it() -> None:
    done = Bench().settle()
    assert done[-1] == "sessions.hand_over"
    # who waits may go on, tasks are placed, their ends told, and only then is freed what was held
    order = ("resumption.step", "dispatch.assign", "results.flush", "garbage.collect")
    assert [step for step in done if step in order] == [*order]
    # an acknowledgement goes along with what the others send
    assert done[-2] == "acknowledgements.send"


def test_who_is_alive_is_looked_at_once_a_second() -> None:
    bench = Bench()
    checks = [bench.settle(after).count("membership.check") for after in (0.5, 1.0, 1.5, 1.9, 2.0)]
    assert checks == [0, 1, 0, 0, 1]


def test_jobs_of_detached_actors_that_are_over_end_in_the_same_turn() -> None:
    bench = Bench("departures.detached_ended")
    over = bench.machines["incarnations"].jobs_over
    over += [b"1", b"2"]
    assert bench.settle().count("departures.detached_ended") == 2 and not over
    assert bench.incidents.total == 2  # the second is not left behind


@pytest.mark.parametrize(
    "of", ["holders", "drains", "incarnations", "directory", "scheduler", "acknowledgements"]
)
def test_the_next_turn_is_due_when_the_first_machine_has_something_to_do(of: str) -> None:
    bench = Bench()
    assert bench.turn.deadline() == START + CHECK_S
    bench.machines[of].due = START + 0.25
    assert bench.turn.deadline() == START + 0.25
    bench.machines["membership"].look_at = START + 0.125
    assert bench.turn.deadline() == START + 0.125


def test_what_waits_for_an_entry_of_the_journal_goes_on_with_it_alone() -> None:
    bench = Bench()
    went_on: list[float] = []

    def broken(now: float) -> None:
        raise ValueError("odd")

    bench.journal.persist([], broken)
    bench.journal.persist([], went_on.append)
    bench.turn.committed(1, START)
    assert bench.incidents.total == 1 and not went_on
    bench.turn.committed(2, START + 1)
    assert went_on == [START + 1] and not bench.journal.waits()
