"""What is too large for one message fails alone; returns that come in parts are not lost."""

from __future__ import annotations

from tests.core.benches import identity, spec, template, value
from tests.core.client.test_client import ME, TWO, client, hear, said, submit
from zray.core import failures
from zray.errors import MessageTooLargeError
from zray.protocol import messages as m
from zray.protocol.codec import Unsent


def test_a_task_too_large_to_submit_has_an_error_and_the_others_wait() -> None:
    made = client()
    [large] = submit(made)
    [other] = submit(made)
    [sent] = said(made, m.Submit)
    alone = m.Submit(0, ME, ME, [sent.tasks[0]])
    made.too_large([Unsent(alone, "it does not fit")])
    outcome = made.here(large)
    assert outcome is not None
    assert failures.read(outcome.value).code == MessageTooLargeError.code
    assert made.here(other) is None
    assert [one.outcome.object_id for one in said(made, m.Put)] == [large]  # others may wait for it


def test_a_task_is_not_over_before_the_last_part_of_its_result() -> None:
    made = client()
    first, second = submit(made, TWO)
    said(made)
    hear(made, m.Result(0, ME, [value(first[:16])]))
    assert made.here(first) is not None
    assert not said(made, m.ResultAck)
    made.disconnected()  # and the other part is lost
    hear(made, m.Welcome(0, 1, identity("c"), 1, 1.0))
    assert [task.task_id for one in said(made, m.Submit) for task in one.tasks] == [first[:16]]
    hear(made, m.Result(0, ME, [value(first[:16])]), m.Result(7, ME, [value(first[:16], index=1)]))
    assert made.here(second) is not None
    assert [one.upto for one in said(made, m.ResultAck)] == [7]
    assert not made.unresolved


def test_a_large_error_of_many_returns_is_whole_for_the_first_alone() -> None:
    task = spec("t", template())
    error = failures.encode(MessageTooLargeError, "x" * 4000)
    several = failures.outcomes(task.task_id, 10_000, error)
    assert several[0].value == error
    assert sum(len(one.value) for one in several) < 8 << 20
    assert failures.read(several[-1].value).code == MessageTooLargeError.code
    assert {one.value for one in failures.outcomes(task.task_id, 3, error)} == {error}
