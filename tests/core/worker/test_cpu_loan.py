"""The CPU of a task that waits: when others have it, and when no longer."""

from __future__ import annotations

from zray import limits
from zray.core.worker.cpu_loan import CpuLoan

TASK, NEXT = b"a" * 16, b"b" * 16


def test_a_process_that_waits_and_uses_no_cpu_lends_it_until_it_computes_or_waits_no_more() -> None:
    loan, step = CpuLoan(), 1.1 * limits.IDLE_S
    assert loan.step(TASK, True, 100.0, 5.0) is None  # nothing to compare it with
    assert loan.step(TASK, True, 100.0 + step / 2, 5.0) is None
    assert loan.step(TASK, True, 100.0 + step, 5.0 + step / 2) is None  # it computes
    assert loan.step(TASK, True, 100.0 + 2 * step, 5.0 + step / 2) is True
    assert loan.step(TASK, True, 100.0 + 3 * step, 5.0 + step / 2) is None
    assert loan.step(TASK, True, 100.0 + 4 * step, 5.0 + 3 * step) is False
    assert loan.step(TASK, True, 100.0 + 5 * step, 5.0 + 3 * step) is True
    assert loan.step(TASK, False, 100.0 + 5 * step, 5.0 + 3 * step) is False


def test_what_one_task_has_lent_says_nothing_of_the_next() -> None:
    loan, step = CpuLoan(), 1.1 * limits.IDLE_S
    loan.step(TASK, True, 100.0, 0.0)
    assert loan.step(TASK, True, 100.0 + step, 0.0) is True
    assert loan.step(NEXT, False, 100.0 + 2 * step, 0.0) is None
    assert loan.step(NEXT, True, 200.0, 0.0) is None  # measured too long ago
    assert loan.step(NEXT, True, 200.0 + step, 0.0) is True
