"""Which ends of a head are followed by another start, when, and when it is given up."""

from __future__ import annotations

import pytest

from zray import limits
from zray.core.head.supervision import FINAL, Again, End, Supervision

KILLED = -9
WATCHDOG_S = 30.0


def begun(now: float = 100.0, *, ready: bool = True) -> Supervision:
    made = Supervision(WATCHDOG_S)
    made.begun(now)
    if ready:
        made.ready(now)
    return made


@pytest.mark.parametrize(("status", "code"), [(0, 0), (-15, 0), (-2, 0), (-1, 0), (2, 2)])
@pytest.mark.parametrize("ready", [True, False])
def test_an_end_that_was_asked_for_is_the_end(status: int, code: int, ready: bool) -> None:
    assert begun(ready=ready).ended(status, "how", 200.0) == End(code)


@pytest.mark.parametrize(("status", "code"), [(-15, 0), (-2, 0), (0, 0), (KILLED, 137)])
def test_a_stop_that_meets_a_head_which_is_about_to_begin_is_no_failure(
    status: int, code: int
) -> None:
    head = begun(100.0, ready=False)
    head.stop(100.1)
    assert head.ended(status, "how", 100.2) == End(code)


def test_what_the_next_start_would_say_again_is_the_end() -> None:
    assert begun().ended(FINAL, "how", 200.0) == End(FINAL)


def test_a_first_start_that_is_refused_is_the_end() -> None:
    assert begun(ready=False).ended(1, "how", 101.0) == End(1)


@pytest.mark.parametrize("status", [KILLED, -11, 1, 120])
def test_one_that_has_served_is_started_again_at_once(status: int) -> None:
    verdict = begun().ended(status, "the head has ended", 200.0)
    assert verdict == Again(0.0, "the head has ended. It is started again at once")


def test_pauses_grow_between_quick_ends_and_one_that_lasts_ends_them() -> None:
    head = begun()
    now, pauses = 100.0, []
    for _ in range(12):
        now += 1.0
        verdict = head.ended(KILLED, "killed", now)
        assert isinstance(verdict, Again)
        pauses.append(verdict.pause_s)
        now += verdict.pause_s
        head.begun(now)
        head.ready(now)
    assert pauses[:4] == [0.0, 0.1, 0.2, 0.4] and pauses == sorted(pauses)
    assert pauses[-1] == limits.SUPERVISED_PAUSE_MAX_S
    assert "for the 12th time in a row" in verdict.text
    verdict = head.ended(KILLED, "killed", now + limits.SUPERVISED_STEADY_S)
    assert isinstance(verdict, Again) and verdict.pause_s == 0.0 and "in a row" not in verdict.text


def test_one_that_crashes_before_it_ever_served_is_given_up() -> None:
    head = begun(ready=False)
    for _ in range(limits.SUPERVISED_FAILURES - 1):
        assert isinstance(head.ended(-11, "it crashed", 101.0), Again)
        head.begun(102.0)
    verdict = head.ended(-11, "it crashed", 103.0)
    assert isinstance(verdict, End) and verdict.status == 139
    assert "tried 5 times and never served" in verdict.text


def test_it_is_tried_for_as_long_as_nodes_wait() -> None:
    head = begun()
    now = 100.0 + limits.HEAD_LOST_GRACE_S - 1.0
    assert isinstance(head.ended(1, "its disk is gone", now), Again)
    head.begun(now)
    verdict = head.ended(1, "its disk is gone", now + 2.0)
    assert isinstance(verdict, End) and verdict.status == 1
    assert "has not served for 601 s" in verdict.text


def test_one_that_says_nothing_is_overdue_and_then_started_again() -> None:
    head = begun(100.0)
    head.heard(120.0)
    assert head.deadline() == 150.0 and not head.overdue(149.0)
    assert head.overdue(150.0) == "it has done nothing for 30 s"
    assert not head.overdue(151.0)  # once is enough
    verdict = head.ended(KILLED, "the head was killed by SIGKILL", 151.0)
    assert isinstance(verdict, Again)
    assert "because it has done nothing for 30 s" in verdict.text


def test_its_silence_while_the_parent_stood_still_proves_nothing() -> None:
    head = begun(100.0)
    head.slept(1000.0)
    assert not head.overdue(1110.0) and head.overdue(1130.0)


def test_one_that_stands_by_is_no_slow_start() -> None:
    head = begun(100.0, ready=False)
    assert head.deadline() == 100.0 + limits.HEAD_START_S
    for now in range(101, 2000, 10):
        head.heard(float(now))
        assert not head.overdue(now + 9.0)
    assert "does not serve" in head.overdue(3000.0)


def test_a_stop_that_takes_too_long_is_overdue() -> None:
    head = begun(100.0)
    head.stop(200.0)
    head.stop(210.0)
    head.heard(220.0)
    assert not head.overdue(224.0) and "has not stopped within 25 s" in head.overdue(225.0)
    assert head.ended(KILLED, "killed", 226.0) == End(137)
